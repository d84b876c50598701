"""The two documents' examples, as they stand on their pages: only prefixes and the lines that make data are
changed, and it is shown which.

The first is a walk-through (hasty.ai, Rprop, 2022), the second a class reference (Lucid, optim.Rprop).
"""
import numpy as np
import pytest

import rprop_lit.nn
import rprop_lit.optim

WALK_THROUGH = '''
# importing the library
import torch
import torch.nn as nn

x = torch.randn(10, 3)
y = torch.randn(10, 2)

# Build a fully connected layer.
linear = nn.Linear(3, 2)

# Build MSE loss function and optimizer.
criterion = nn.MSELoss()

# Optimization method using Rprop
optimizer = torch.optim.Rprop(linear.parameters(), lr=0.01, etas=(0.5, 1.2),
 step_sizes=(1e-06, 50))

# Forward pass.
pred = linear(x)

# Compute loss.
loss = criterion(pred, y)
print('loss:', loss.item())
'''

REFERENCE = '''
import lucid.optim as optim
import lucid.nn as nn

# Define a simple model
class MyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.param = nn.Parameter([1.0, 2.0, 3.0])

    def forward(self, x):
        return x * self.param

# Initialize model and Rprop optimizer
model = MyModel()
optimizer = optim.Rprop(model.parameters(), lr=0.01, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0))

# Training loop
for input, target in data:
    optimizer.zero_grad()
    output = model(input)
    loss = compute_loss(output, target)
    loss.backward()
    optimizer.step()
'''

STATE = '''
# Save state
optimizer_state = optimizer.state_dict()

# Load state
optimizer.load_state_dict(optimizer_state)
'''

OUR_IMPORTS = 'import rprop_lit.nn as nn, rprop_lit.optim as optim'
TRUTH = [3.0, -1.0, 0.5]


def changed(text, *changes):
    "`text` with each change made; every one must apply"
    for before, after in changes:
        assert before in text, f'{before!r} is not in the document'
        text = text.replace(before, after)
    return text


class Ours:
    "rprop_lit's own modules, on NumPy or CuPy arrays"
    def __init__(self, xp, dtype):
        self.xp, self.nn, self.dtype = xp, rprop_lit.nn, dtype
        vars(rprop_lit.nn.default).update(xp=xp, dtype=getattr(np, dtype))
        self.nn.manual_seed(0)

    def array(self, data):
        return self.xp.asarray(data, dtype=self.dtype)

    def numbers(self, p):
        data = p.data if isinstance(p, rprop_lit.nn.Tensor) else p
        return np.array(data.get() if hasattr(data, 'get') else data)

    def walk_through(self):
        return changed(WALK_THROUGH, ('import torch\nimport torch.nn as nn', OUR_IMPORTS),
                       ('torch.optim.', 'optim.'),
                       ('torch.randn(10, 3)', 'array(noise[0])'), ('torch.randn(10, 2)', 'array(noise[1])'))

    def reference(self):
        return changed(REFERENCE, ('import lucid.', 'import rprop_lit.'))


class Torchs(Ours):
    "PyTorch's modules and tensors, and our Rprop"
    def __init__(self, torch, dtype):
        self.torch, self.nn, self.dtype = torch, torch.nn, dtype
        torch.set_default_dtype(getattr(torch, dtype))
        torch.manual_seed(0)

    def array(self, data):
        return self.torch.tensor(np.asarray(data, self.dtype))

    def numbers(self, p):
        return p.detach().numpy().copy()

    def walk_through(self):
        return changed(WALK_THROUGH, ('import torch\n', 'import rprop_lit.optim as optim\n'),
                       ('torch.optim.', 'optim.'),
                       ('torch.randn(10, 3)', 'array(noise[0])'), ('torch.randn(10, 2)', 'array(noise[1])'))

    def reference(self):
        return changed(REFERENCE, ('import lucid.optim', 'import rprop_lit.optim'),
                       ('import lucid.nn', 'import torch.nn'),
                       ('[1.0, 2.0, 3.0]', 'array([1.0, 2.0, 3.0])'))


@pytest.fixture(params=['numpy', 'cupy', 'torch'])
def library(request):
    "Where the examples run: our modules on NumPy, our modules on CuPy, torch's modules"
    if request.param == 'cupy':
        cupy = pytest.importorskip('cupy', reason='CuPy is not installed')
        if not cupy.cuda.is_available():
            pytest.skip('CuPy finds no GPU')
    if request.param == 'torch':
        torch = pytest.importorskip('torch', reason='torch is not installed')
        before = torch.get_default_dtype()
        yield lambda dtype: Torchs(torch, dtype)
        return torch.set_default_dtype(before)
    kept = dict(vars(rprop_lit.nn.default))
    yield lambda dtype: Ours(np if request.param == 'numpy' else cupy, dtype)
    vars(rprop_lit.nn.default).update(kept)


both = pytest.mark.parametrize('dtype', ['float32', 'float64'])


def run(text, scope):
    "Run a document's text; the names that it defines are added to `scope`"
    exec(compile(text, '<document>', 'exec'), scope)
    return scope


def walked(here):
    "The walk-through, run: its names"
    random = np.random.default_rng(0)
    noise = random.standard_normal((10, 3)), random.standard_normal((10, 2))
    return run(here.walk_through(), dict(array=here.array, noise=noise))


def trained(here, batches=100):
    "The reference's example, run on batches made with known parameters: its names"
    samples = np.random.default_rng(0).standard_normal((batches, 8, 3))
    data = [(here.array(sample), here.array(sample * TRUTH)) for sample in samples]
    return run(here.reference(), dict(array=here.array, data=data, compute_loss=here.nn.MSELoss()))


def steps(scope, n):
    "The rest of the walk-through's training loop; the loss before each step"
    losses = []
    for _ in range(n):
        scope['optimizer'].zero_grad()
        loss = scope['criterion'](scope['linear'](scope['x']), scope['y'])
        loss.backward()
        scope['optimizer'].step()
        losses.append(loss.item())
    return losses


@both
def test_walk_through_runs(library, dtype, capsys):
    here = library(dtype)
    scope = walked(here)
    printed = capsys.readouterr().out.split()
    assert printed[0] == 'loss:' and float(printed[1]) == scope['loss'].item() > 0
    x, y, linear = scope['x'], scope['y'], scope['linear']
    pred = here.numbers(x) @ here.numbers(linear.weight).T + here.numbers(linear.bias)
    # float32 carries seven digits
    assert np.isclose(scope['loss'].item(), ((pred - here.numbers(y)) ** 2).mean(), rtol=1e-6)
    assert str(scope['loss'].dtype).endswith(dtype) and str(linear.weight.dtype).endswith(dtype)
    assert type(scope['optimizer']) is rprop_lit.optim.Rprop


@both
def test_walk_through_converges_to_least_squares(library, dtype):
    """The best linear layer is known. The last step is 1e-6 or longer, which costs about its square;
    in float32 rounding costs more."""
    here = library(dtype)
    scope = walked(here)
    x, y = here.numbers(scope['x']).astype(float), here.numbers(scope['y']).astype(float)
    table = np.column_stack([x, np.ones(10)])
    solution = np.linalg.lstsq(table, y, rcond=None)[0]
    best = ((table @ solution - y) ** 2).mean()
    losses = steps(scope, 200)
    assert losses[0] > best + 0.1
    assert abs(losses[-1] - best) < (1e-10 if dtype == 'float64' else 1e-6)
    assert (abs(here.numbers(scope['linear'].weight).T - solution[:3]).max()
            < (1e-5 if dtype == 'float64' else 1e-3))
    assert (abs(here.numbers(scope['linear'].bias) - solution[3]).max()
            < (1e-5 if dtype == 'float64' else 1e-3))


@both
def test_walk_through_ends_where_torchs_optimizer_ends(dtype):
    """The unchanged document, torch's Rprop included, and our modules with our Rprop:
    from the same weights, through the same weights"""
    torch = pytest.importorskip('torch', reason='torch is not installed')
    before, kept = torch.get_default_dtype(), dict(vars(rprop_lit.nn.default))
    try:
        torch.set_default_dtype(getattr(torch, dtype))
        theirs = run(WALK_THROUGH, {})
        ours = walked(Ours(np, dtype))
        ours['x'], ours['y'] = theirs['x'].numpy(), theirs['y'].numpy()
        for name in ('weight', 'bias'):
            getattr(ours['linear'], name).data[...] = getattr(theirs['linear'], name).detach().numpy()
        steps(ours, 20)
        steps(theirs, 20)
        # exact: the gradients differ in their last bits, and Rprop reads only their signs
        for name in ('weight', 'bias'):
            assert np.array_equal(getattr(ours['linear'], name).data,
                                  getattr(theirs['linear'], name).detach().numpy())
    finally:
        torch.set_default_dtype(before)
        vars(rprop_lit.nn.default).update(kept)


@both
def test_reference_runs_and_converges(library, dtype):
    here = library(dtype)
    assert here.numbers(trained(here, batches=0)['model'].param).tolist() == [1, 2, 3]
    scope = trained(here)
    param = scope['model'].param
    assert str(param.dtype).endswith(dtype) and str(scope['loss'].dtype).endswith(dtype)
    assert scope['loss'].item() < 1e-9  # it began near 4
    assert abs(here.numbers(param) - TRUTH).max() < 1e-5  # steps end at a millionth
    assert [p is param for p in scope['model'].parameters()] == [True]


@both
def test_reference_saves_and_loads(library, dtype):
    "The text as it stands; then a saved state in a new optimizer goes on exactly as the old one does"
    here = library(dtype)
    scope = run(STATE, trained(here, batches=15))
    state = scope['optimizer_state']
    assert int(state['state'][0]['step']) == 15 and set(state['state'][0]) == {'step', 'prev', 'step_size'}
    assert np.shape(here.numbers(state['state'][0]['step_size'])) == (3,)
    start = here.numbers(scope['model'].param)
    ends = []
    for optimizer in (scope['optimizer'], rprop_lit.optim.Rprop(scope['model'].parameters(), lr=0.5)):
        optimizer.load_state_dict(state)
        scope['model'].param.data[...] = here.array(start)
        for input, target in scope['data']:
            optimizer.zero_grad()
            scope['compute_loss'](scope['model'](input), target).backward()
            optimizer.step()
        ends.append(here.numbers(scope['model'].param))
    assert np.array_equal(*ends) and not np.array_equal(ends[0], start)
