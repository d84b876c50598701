"""Gradients and modules: every operation against measured slopes and against torch, and the habits that users
of torch rely on.

Tolerances. A central difference carries about ten digits (half of float64's cancel), so measured slopes are
compared to 1e-7 of the largest slope. torch and NumPy compute the same formulas in float64 but sum in
different orders and have different exponentials, so they are compared to 1e-12 of the largest number. Where
nothing is rounded, equality is exact.
"""
import gc
import subprocess
import sys

import numpy as np
import pytest

import rprop_lit.nn as nn
import rprop_lit.optim as optim
from rprop_lit.problems import slopes_of
from rprop_lit.tensor import RULES, Tensor

# One line an operation: the shapes of its inputs, and the operation as both `nn` and torch write it. Inputs
# lie between 0.5 and 2.
TABLE = {
    'x + y': ([(4, 3), (4, 3)], lambda x, y: x + y),
    'x - y': ([(4, 3), (4, 3)], lambda x, y: x - y),
    'x * y': ([(4, 3), (4, 3)], lambda x, y: x * y),
    'x / y': ([(4, 3), (4, 3)], lambda x, y: x / y),
    'x ** y': ([(4, 3), (4, 3)], lambda x, y: x ** y),
    '-x': ([(4, 3)], lambda x: -x),
    'x + 2': ([(4, 3)], lambda x: x + 2),
    '2 + x': ([(4, 3)], lambda x: 2 + x),
    'x - 2.5': ([(4, 3)], lambda x: x - 2.5),
    '2.5 - x': ([(4, 3)], lambda x: 2.5 - x),
    'x * 3': ([(4, 3)], lambda x: x * 3),
    '3 * x': ([(4, 3)], lambda x: 3 * x),
    'x / 3': ([(4, 3)], lambda x: x / 3),
    '3 / x': ([(4, 3)], lambda x: 3 / x),
    '1.5 ** x': ([(4, 3)], lambda x: 1.5 ** x),
    'x ** 0': ([(4, 3)], lambda x: x ** 0),
    'x ** 1': ([(4, 3)], lambda x: x ** 1),
    'x ** 2': ([(4, 3)], lambda x: x ** 2),
    'x ** 3': ([(4, 3)], lambda x: x ** 3),
    'x ** 0.5': ([(4, 3)], lambda x: x ** 0.5),
    'x ** -1': ([(4, 3)], lambda x: x ** -1),
    '(-x) ** 3': ([(4, 3)], lambda x: (-x) ** 3),
    'exp': ([(4, 3)], lambda x: x.exp()),
    'log': ([(4, 3)], lambda x: x.log()),
    'tanh': ([(4, 3)], lambda x: x.tanh()),
    'sigmoid': ([(4, 3)], lambda x: x.sigmoid()),
    'sigmoid(-9x)': ([(4, 3)], lambda x: (-9 * x).sigmoid()),
    'relu': ([(4, 3)], lambda x: (x - 1.234).relu()),
    'sum': ([(4, 3)], lambda x: x.sum()),
    'sum 0': ([(4, 3)], lambda x: x.sum(axis=0)),
    'sum -1': ([(2, 4, 3)], lambda x: x.sum(axis=-1)),
    'sum (0, 2)': ([(2, 4, 3)], lambda x: x.sum(axis=(0, 2))),
    'sum keep': ([(2, 4, 3)], lambda x: x.sum(axis=1, keepdims=True)),
    'mean': ([(4, 3)], lambda x: x.mean()),
    'mean 0': ([(4, 3)], lambda x: x.mean(axis=0)),
    'mean (0, -1) keep': ([(2, 4, 3)], lambda x: x.mean(axis=(0, -1), keepdims=True)),
    'T': ([(4, 3)], lambda x: x.T),
    'reshape numbers': ([(4, 3)], lambda x: x.reshape(2, -1)),
    'reshape tuple': ([(4, 3)], lambda x: x.reshape((3, 2, 2))),
    'x[1]': ([(4, 3)], lambda x: x[1]),
    'x[-1, 1:]': ([(4, 3)], lambda x: x[-1, 1:]),
    'x[::2]': ([(4, 3)], lambda x: x[::2]),
    'x[..., 0]': ([(2, 4, 3)], lambda x: x[..., 0]),
    'x[:, None]': ([(4, 3)], lambda x: x[:, None]),
    'x[[0, 0, 2]]': ([(4, 3)], lambda x: x[[0, 0, 2]]),
    'x[[0, 0], [1, 1]]': ([(4, 3)], lambda x: x[[0, 0], [1, 1]]),
    'x[1:, [0, 0, -1]]': ([(4, 3)], lambda x: x[1:, [0, 0, -1]]),
    'x[mask]': ([(4, 3)], lambda x: x[[True, False, True, True]]),
    'rows and row': ([(4, 3), (3,)], lambda x, y: x * y),
    'row and rows': ([(3,), (4, 3)], lambda x, y: x / y),
    'column and row': ([(4, 1), (1, 3)], lambda x, y: x + y),
    'number and rows': ([(), (4, 3)], lambda x, y: x - y),
    'rows and number': ([(4, 3), ()], lambda x, y: x ** y),
    'middle': ([(2, 1, 3), (4, 1)], lambda x, y: x * y),
    'one and many': ([(1,), (2, 4, 3)], lambda x, y: x / y),
    '0-d': ([(), ()], lambda x, y: (x * y).exp() + x),
    'matrix @ matrix': ([(4, 3), (3, 2)], lambda x, y: x @ y),
    'vector @ matrix': ([(3,), (3, 2)], lambda x, y: x @ y),
    'matrix @ vector': ([(4, 3), (3,)], lambda x, y: x @ y),
    'vector @ vector': ([(3,), (3,)], lambda x, y: x @ y),
    'stack @ matrix': ([(5, 4, 3), (3, 2)], lambda x, y: x @ y),
    'matrix @ stack': ([(4, 3), (5, 3, 2)], lambda x, y: x @ y),
    'stack @ stack': ([(5, 4, 3), (5, 3, 2)], lambda x, y: x @ y),
    'stack @ vector': ([(5, 4, 3), (3,)], lambda x, y: x @ y),
    'vector @ stack': ([(3,), (5, 3, 2)], lambda x, y: x @ y),
    'stacks stretched': ([(2, 1, 4, 3), (5, 3, 2)], lambda x, y: x @ y),
    'used twice': ([(4, 3)], lambda x: x * x + x),
    'used in two places': ([(4, 3), (3,)], lambda x, y: (x + y) * y - (x @ y).sum()),
    'used on two levels': ([(3, 3)], lambda x: (x.tanh() @ x).exp().mean(axis=0) / x),
    'softmax': ([(4, 3)], lambda x: (x.exp() / x.exp().sum(axis=1, keepdims=True)).log()),
    'empty': ([(0, 3), (3,)], lambda x, y: x.exp() * y),
    'empty sum': ([(0, 3)], lambda x: x.sum(axis=0)),
    'empty matrices': ([(2, 0), (0, 3)], lambda x, y: x @ y),
    'nothing picked': ([(4, 3)], lambda x: x[1:1]),
}
cases = pytest.mark.parametrize('name', TABLE)


def inputs(name, dtype=np.float64):
    "The inputs of a line of the table, the same at every call"
    random = np.random.default_rng(sum(map(ord, name)))
    return [random.uniform(0.5, 2, shape).astype(dtype) for shape in TABLE[name][0]]


def gradients(fun, arrays, g=None):
    "The value of `fun`, slopes `g` drawn at its output (or those given), and the gradients at the arrays"
    leaves = [Tensor(array) for array in arrays]
    out = fun(*leaves)
    if g is None:
        g = np.random.default_rng(1).standard_normal(out.shape).astype(out.dtype)
    out.backward(g)
    return out.data, g, [leaf.grad for leaf in leaves]


def close(ours, theirs, tolerance):
    "Same shape, and equal to `tolerance` of the largest number"
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return (ours.shape == theirs.shape
            and abs(ours - theirs).max(initial=0) <= tolerance * max(1, abs(theirs).max(initial=0)))


@pytest.fixture(autouse=True)
def defaults():
    "Every test starts from, and leaves, the module's defaults"
    before = dict(vars(nn.default))
    yield
    vars(nn.default).update(before)


@pytest.fixture
def torch():
    return pytest.importorskip('torch', reason='torch is not installed: nothing to compare with')


# --- operations


@cases
def test_slopes_are_those_measured(name):
    fun, arrays = TABLE[name][1], inputs(name)
    _, g, grads = gradients(fun, arrays)
    for i, grad in enumerate(grads):
        def moved(array, i=i):
            inputs = [Tensor(array if j == i else other) for j, other in enumerate(arrays)]
            return (g * fun(*inputs).data).sum(), None
        assert close(grad, slopes_of(moved, arrays[i]), 1e-7)


class Plain(np.ndarray):
    """NumPy's arrays with the curves as methods: what the operations of the table give where nobody traces
    them"""
    def exp(self):
        return np.exp(self)

    def log(self):
        return np.log(self)

    def tanh(self):
        return np.tanh(self)

    def sigmoid(self):
        return 1 / (1 + np.exp(-self))

    def relu(self):
        return np.maximum(self, 0)


@cases
def test_values_are_those_of_numpy(name):
    fun, arrays = TABLE[name][1], inputs(name)
    value, expected = fun(*map(Tensor, arrays)).data, fun(*[array.view(Plain) for array in arrays])
    # the sigmoid is another formula, and a vector in a product is a matrix to us
    assert close(value, expected, 1e-14)


@cases
def test_equal_to_torch(name, torch):
    fun, arrays = TABLE[name][1], inputs(name)
    value, g, grads = gradients(fun, arrays)
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    out = fun(*leaves)
    out.backward(torch.tensor(g))
    assert close(value, out.detach(), 1e-12)
    for grad, leaf in zip(grads, leaves, strict=True):
        assert close(grad, leaf.grad, 1e-12)


@cases
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_type_is_kept(name, dtype):
    arrays = inputs(name, dtype)
    value, _, grads = gradients(TABLE[name][1], arrays)
    assert value.dtype == dtype
    assert all(grad.dtype == dtype and grad.shape == array.shape
               for grad, array in zip(grads, arrays, strict=True))


@cases
def test_second_backward_adds(name):
    leaves = [Tensor(array) for array in inputs(name)]
    out = TABLE[name][1](*leaves)
    g = np.random.default_rng(1).standard_normal(out.shape)
    out.backward(g)
    once, buffers = [leaf.grad.copy() for leaf in leaves], [leaf.grad for leaf in leaves]
    out.backward(g)
    for leaf, grad, buffer in zip(leaves, once, buffers, strict=True):
        assert np.array_equal(leaf.grad, grad + grad) and leaf.grad is buffer


@cases
@pytest.mark.parametrize('layout', ['reversed', 'every second', 'transposed', 'read-only'])
def test_layout_does_not_matter(name, layout):
    def laid(array):
        if layout == 'reversed':
            return array[::-1].copy()[::-1] if array.ndim else array
        if layout == 'every second':
            return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
        if layout == 'read-only':
            array.flags.writeable = False
            return array
        return array.T.copy().T
    value, g, grads = gradients(TABLE[name][1], inputs(name))
    value_too, _, grads_too = gradients(TABLE[name][1], [laid(array) for array in inputs(name)], g)
    assert close(value_too, value, 1e-14)  # matrix products may sum in another order
    assert all(close(a, b, 1e-14) for a, b in zip(grads_too, grads, strict=True))


@cases
def test_inputs_and_slopes_are_not_written_to(name):
    arrays = inputs(name)
    _, g, grads = gradients(TABLE[name][1], arrays)
    again = inputs(name)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, again, strict=True))
    for i, grad in enumerate(grads):
        assert not any(np.shares_memory(grad, other) for other in [*arrays, g, *grads[:i]])


def test_every_pull_is_in_the_table():
    "Each rule's every pull is reached from some line of the table"
    options = dict(reshape=dict(shape=(4,)), pick=dict(index=0), sum=dict(axis=0, keepdims=False))
    made, reached = set(), set()
    for name, rule in RULES.items():
        count = rule.__code__.co_argcount - len(options.get(name, {}))
        made |= {(name, pull.__code__)
                 for pull in rule(*[np.ones((2, 2))] * count, **options.get(name, {}))[1:]}
    for shapes, fun in TABLE.values():
        todo = [fun(*[Tensor(np.ones(shape)) for shape in shapes])]
        for t in todo:
            reached |= {pull.__code__ for _, pull in t.pulls}
            todo += [parent for parent, _ in t.pulls]
    assert len(RULES) == 16 and not {name for name, code in made if code not in reached}


# --- numbers that are easy to get wrong


@pytest.mark.parametrize('base, exponent', [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (2.0, 0.0), (-2.0, 2.0),
                                            (-2.0, 3.0), (-2.0, -1.0)])
def test_powers_at_the_edge(base, exponent, torch):
    leaf, theirs = Tensor(np.array(base)), torch.tensor(base, dtype=torch.float64, requires_grad=True)
    (leaf ** exponent).backward()
    (theirs ** exponent).backward()
    assert leaf.grad == theirs.grad.item()


@pytest.mark.parametrize('exponent', [0.0, 1.0, 2.0])
def test_slope_of_an_exponent_at_base_zero(exponent, torch):
    leaf, theirs = Tensor(np.array(exponent)), torch.tensor(exponent, dtype=torch.float64, requires_grad=True)
    (Tensor(np.array(0.0)) ** leaf).backward()
    (torch.tensor(0.0, dtype=torch.float64) ** theirs).backward()
    assert leaf.grad == theirs.grad.item() == 0


@pytest.mark.parametrize('x', [-1000.0, -745.0, -40.0, -0.0, 0.0, 40.0, 1000.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize('curve', ['sigmoid', 'tanh', 'relu', 'exp'])
def test_curves_far_out(curve, x, torch):
    leaf, theirs = Tensor(np.array(x)), torch.tensor(x, dtype=torch.float64, requires_grad=True)
    with np.errstate(over='raise', invalid='ignore') if curve != 'exp' else np.errstate(over='ignore'):
        out, expected = getattr(leaf, curve)(), getattr(theirs, curve)()
        out.backward()
        expected.backward()
    # the smallest numbers have few digits
    assert np.allclose(out.data, expected.item(), rtol=1e-12, atol=1e-300, equal_nan=True)
    assert np.allclose(leaf.grad, theirs.grad.item(), rtol=1e-12, atol=1e-300, equal_nan=True)


def test_sigmoid_keeps_its_small_values():
    assert np.isclose(Tensor(np.array(-100.0)).sigmoid().log().item(), -100, rtol=1e-14)


# --- constants and types


constants = {'number': 3, 'float': 3.0, 'bool': True, 'numpy float64': np.float64(3),
             'numpy float32': np.float32(3), 'numpy int': np.int64(3),
             '0-d array': np.array(3.0), 'array': np.full(3, 3.0),
             'array of float32': np.full(3, 3, np.float32), 'array of int': np.full(3, 3),
             'matrix': np.full((2, 3), 3.0), 'list': [3.0, 3.0, 3.0]}
operators = {'+': lambda x, y: x + y, '-': lambda x, y: x - y, '*': lambda x, y: x * y,
             '/': lambda x, y: x / y, '**': lambda x, y: x ** y}


@pytest.mark.parametrize('sign', operators)
@pytest.mark.parametrize('kind', constants)
@pytest.mark.parametrize('leaf', [nn.Tensor, nn.Parameter])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_constants_on_both_sides(sign, kind, leaf, dtype):
    w, c, op = np.array([1.0, 2.0, 0.5], dtype), constants[kind], operators[sign]
    for swap in (False, True):
        t = leaf(w.copy())
        out = op(c, t) if swap else op(t, c)
        plain = np.asarray(c, dtype)
        assert type(out) is nn.Tensor and out.dtype == dtype
        # x ** 3 may be rounded as x*x*x
        assert close(out.data, op(plain, w) if swap else op(w, plain), 4 * np.finfo(dtype).eps)
        out.sum().backward()
        assert t.grad.dtype == dtype and t.grad.shape == (3,)


@pytest.mark.parametrize('thing', [None, '1.5', 1j, np.ones(2, complex), object(), [None, 1.0]])
def test_only_real_numbers_are_constants(thing):
    for slip in (lambda t: t + thing, lambda t: thing * t):
        with pytest.raises(TypeError, match='real numbers'):
            slip(Tensor([1.0, 2.0]))


def test_matrix_products_with_arrays_on_both_sides():
    A, B = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    left, right = Tensor(A), Tensor(B)
    assert np.array_equal((A @ right).data, A @ B) and np.array_equal((left @ B).data, A @ B)
    assert (np.array_equal((A[0] @ right).data, A[0] @ B)
            and np.array_equal((left @ B[:, 0]).data, A @ B[:, 0]))


def test_tensors_of_two_types_meet():
    small, large = Tensor(np.ones(3, np.float32)), Tensor(np.ones(3))
    out = small * large
    out.sum().backward()
    assert out.dtype == np.float64 and small.grad.dtype == np.float32 and large.grad.dtype == np.float64


def test_numpy_functions_refuse_tensors():
    with pytest.raises(TypeError):
        np.multiply(np.ones(3), Tensor([1.0, 2.0, 3.0]))


def test_builtin_sum_and_unpacking():
    t = Tensor([1.0, 2.0, 4.0])
    a, b, c = t
    sum([a, b, c, c]).backward()
    assert t.grad.tolist() == [1, 1, 2]


def test_nothing_of_numpy_slips_in():
    """A network on the strictest implementation of the array standard, which refuses NumPy's arrays:
    the stand-in for CuPy"""
    strict = pytest.importorskip('array_api_strict', reason='array-api-strict is not installed')

    def run(xp):
        vars(nn.default).update(xp=xp, dtype=xp.float64)
        nn.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Sigmoid(), nn.Linear(3, 2),
                              nn.ReLU())
        x, y = (xp.asarray(np.random.default_rng(0).standard_normal(shape)) for shape in ((6, 4), (6, 2)))
        # these arrays do not give way to others, as NumPy's and CuPy's do: `array @ tensor` must not occur
        out = model(nn.Tensor(x))
        loss = (nn.MSELoss()(out, y) + (1 / (2 + out.exp())).log().mean(axis=0).sum()
                - (-out.T / 3).sum(axis=1, keepdims=True).mean())
        loss.backward()
        assert all(type(p.grad) is type(x) for p in model.parameters())
        return float(loss.data), [np.asarray(p.grad) for p in model.parameters()]

    (loss, grads), (strict_loss, strict_grads) = run(np), run(strict)
    assert abs(loss - strict_loss) < 1e-14  # the standard leaves the order of sums open
    assert (all(close(a, b, 1e-14) for a, b in zip(grads, strict_grads, strict=True))
            and abs(grads[0]).max() > 0)


def test_imports_only_numpy():
    heavy = ('torch', 'cupy', 'matplotlib', 'scipy', 'numba', 'dask', 'fastcore', 'nbdev')
    code = f'import rprop_lit.nn, sys; print([m for m in {heavy} if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=True).stdout.strip() == '[]'


# --- the walk back


def test_a_gradient_may_be_given():
    t = Tensor([1.0, 2.0])
    (t * t).backward(gradient=[10, 100])
    assert t.grad.tolist() == [20, 400]


@pytest.mark.parametrize('shape', [(), (1,), (1, 1)])
def test_one_number_needs_no_gradient(shape):
    t = Tensor(np.ones(shape))
    (3 * t).backward()
    assert t.grad == 3 and t.grad.shape == shape


def test_a_leaf_can_be_its_own_result():
    t = Tensor(np.array(2.0))
    t.backward()
    assert t.grad == 1


@pytest.mark.parametrize('gradient', [None, 1.0, np.ones(3), np.ones((1, 2))])
def test_wrong_gradients_are_refused(gradient):
    t = Tensor(np.ones(2))
    with pytest.raises(ValueError, match=r'shape \(2,\)'):
        (t * 2).backward(gradient)
    assert t.grad is None


def test_only_leaves_gather_gradients():
    t = Tensor(np.array(2.0))
    middle = t * t
    (middle * 3).backward()
    assert t.grad == 12 and middle.grad is None


def test_two_errors_that_share_a_part():
    t = Tensor(np.array(2.0))
    shared = t * t
    (shared * 3).backward()
    (shared * 5).backward()
    assert t.grad == 12 + 20


def test_gradient_buffers_stay():
    model = nn.Linear(2, 1, seed=0)
    optimizer = optim.Rprop(model.parameters())
    nn.MSELoss()(model(np.ones((3, 2))), np.ones((3, 1))).backward()
    buffers = [p.grad for p in model.parameters()]
    first = [b.copy() for b in buffers]
    optimizer.zero_grad(set_to_none=False)
    nn.MSELoss()(model(np.ones((3, 2))), np.ones((3, 1))).backward()
    for p, buffer, before in zip(model.parameters(), buffers, first, strict=True):
        assert p.grad is buffer and np.array_equal(buffer, before)


@pytest.mark.parametrize('shape', ['chain', 'ladder', 'fan'])
def test_deep_and_wide_computations(shape):
    "No recursion, and every tensor visited once: the ladder has 2**5000 ways from its top to its leaf"
    t = Tensor(np.array(1.0))
    if shape == 'chain':
        out, expected = t, 1.0
        for _ in range(200_000):
            out = out + 0.0
    elif shape == 'ladder':
        out, expected = t, 1.0
        for _ in range(5_000):
            out = out * 0.5 + out * 0.5
    else:
        out, expected = sum(t * i for i in range(20_000)), float(sum(range(20_000)))
    out.backward()
    assert t.grad == expected
    del out
    gc.collect()


def test_a_result_is_freed_with_its_history():
    import weakref
    t = Tensor(np.ones(3))
    out = (t * 2).exp().sum()
    watch = weakref.ref(out.pulls[0][0])
    gc.disable()
    try:
        del out
        assert watch() is None  # no cycles: freed at once, not when the collector comes by
    finally:
        gc.enable()


def test_runs_are_repeatable():
    "The order of additions does not depend on where objects lie in memory"
    rows = []
    for _ in range(30):
        w = Tensor(np.random.default_rng(0).standard_normal(50))
        terms = [(w * (0.1 + k / 7)).tanh() for k in range(16)]
        while len(terms) > 1:  # a tree: many tensors of the same level, found side by side
            terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]
        (terms[0] * w).sum().backward()
        rows.append((w.grad, terms))  # kept, so that the next ones lie elsewhere
    assert all(np.array_equal(rows[0][0], grad) for grad, _ in rows)


# --- tensors and parameters


@pytest.mark.parametrize('data', [np.arange(3), np.array([True]), np.array([1j])])
@pytest.mark.parametrize('leaf', [nn.Tensor, nn.Parameter])
def test_only_floats_have_gradients(leaf, data):
    with pytest.raises(TypeError, match=str(data.dtype)):
        leaf(data)


def test_parameter_is_both():
    p = nn.Parameter([1.0, 2.0, 3.0])
    assert (isinstance(p, optim.Parameter) and isinstance(p, nn.Tensor) and p.dtype == np.float32
            and p.shape == (3,) and p.grad is None)
    assert (nn.Parameter([1], dtype=np.float64).dtype == np.float64
            and nn.Parameter(np.ones(2)).dtype == np.float64)
    nn.default.dtype = np.float64
    assert nn.Parameter([1.0]).dtype == np.float64 and nn.Linear(2, 2).weight.dtype == np.float64


def test_arrays_are_shared():
    array = np.ones(3)
    p = nn.Parameter(array)
    p.data[0] = 5
    assert array[0] == 5 and nn.Tensor(array).data is array


def test_item():
    assert nn.Tensor([[2.5]]).item() == 2.5 and type(nn.Tensor([2.5]).sum().item()) is float
    with pytest.raises(ValueError):
        nn.Tensor([1.0, 2.0]).item()


def test_how_a_tensor_is_shown():
    assert repr(nn.Tensor([1.0, 2.0])) == 'Tensor([1. 2.])' and repr(nn.Tensor([2.0]).sum()) == 'Tensor(2.0)'


# --- modules


class Tree(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Parameter([1.0])
        self.number, self.text, self.nothing = 3, 'text', None
        self.items = [nn.Linear(2, 2), {'deep': (nn.Parameter([2.0]), nn.Linear(2, 1, bias=False))}]
        self.again = self.own
        self.parent = self
        self.not_a_parameter = nn.Tensor([1.0])


def test_parameters_are_found_everywhere_and_once():
    tree = Tree()
    names = [name for name, _ in tree.named_parameters()]
    assert names == ['own', 'items.0.weight', 'items.0.bias', 'items.1.deep.0', 'items.1.deep.1.weight']
    found = list(tree.parameters())
    assert len(found) == 5 and len(set(found)) == 5 and found[0] is tree.own
    for p in found:
        p.grad = np.ones(p.shape)
    tree.zero_grad()
    assert all(p.grad is None for p in found)


def test_names_are_those_of_torch(torch):
    def build(lib):
        return lib.Sequential(lib.Linear(3, 4), lib.Tanh(),
                              lib.Sequential(lib.Linear(4, 4, bias=False), lib.ReLU()), lib.Linear(4, 1))
    ours, theirs = ([(name, tuple(p.shape)) for name, p in build(lib).named_parameters()]
                    for lib in (nn, torch.nn))
    assert ours == theirs and len(ours) == 5


def test_names_reach_the_optimizer():
    optimizer = optim.Rprop(nn.Linear(2, 1).named_parameters())
    assert optimizer.state_dict()['param_groups'][0]['names'] == ['weight', 'bias']


def test_a_module_without_forward():
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'forward'"):
        nn.Module()(1)


def test_sequential_takes_any_function():
    assert nn.Sequential(nn.Tanh(), lambda t: t * 2, nn.ReLU())(np.array([-1.0, 0.0])).data.tolist() == [0, 0]
    assert nn.Sequential()(3) == 3


def test_sequential_calls_its_layers_and_nothing_else():
    net = nn.Sequential(nn.Tanh(), nn.ReLU())
    net.note, net.later = 'a note', nn.Tanh()
    net.helper = lambda x: x / 0
    x = np.array([-1.0, 0.5])
    assert np.array_equal(net(x).data, np.maximum(np.tanh(x), 0))
    setattr(net, '1', nn.Sigmoid())  # a layer may be exchanged, in its place
    assert np.array_equal(net(x).data, nn.Sigmoid()(np.tanh(x)).data)


@pytest.mark.parametrize('curve, fun', [(nn.Tanh, np.tanh), (nn.ReLU, lambda x: np.maximum(x, 0)),
                                        (nn.Sigmoid, lambda x: 1 / (1 + np.exp(-x)))])
def test_curves_take_arrays_and_tensors(curve, fun):
    x = np.linspace(-2, 2, 9)
    for out in (curve()(x), curve()(nn.Tensor(x))):
        assert isinstance(out, nn.Tensor) and close(out.data, fun(x), 1e-15)


# --- layers


def test_linear_starts_as_in_torch(torch):
    torch.manual_seed(0)
    for n in (1, 4, 400):
        ours, theirs = nn.Linear(n, 2000, seed=0), torch.nn.Linear(n, 2000)
        for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            assert a.shape == tuple(b.shape) and abs(a.data).max() <= n ** -0.5 * (1 + 1e-7)
            assert abs(a.data).max() > 0.99 * n ** -0.5 and abs(b.detach().numpy()).max() > 0.99 * n ** -0.5
            spread = n ** -0.5 / 3 ** 0.5  # of an even distribution; 2000 draws find it to a few per cent
            assert abs(a.data.std() / spread - 1) < 0.05 and abs(b.detach().numpy().std() / spread - 1) < 0.05
            assert abs(a.data.mean()) < 0.1 * spread


def test_linear_is_that_of_torch(torch):
    x = np.random.default_rng(0).standard_normal((7, 3))
    ours, theirs = nn.Linear(3, 2, dtype=np.float64, seed=5), torch.nn.Linear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight[...], theirs.bias[...] = torch.tensor(ours.weight.data), torch.tensor(ours.bias.data)
    out, expected = ours(x), theirs(torch.tensor(x))
    (out ** 2).mean().backward()
    (expected ** 2).mean().backward()
    assert close(out.data, expected.detach(), 1e-12)
    assert (close(ours.weight.grad, theirs.weight.grad, 1e-12)
            and close(ours.bias.grad, theirs.bias.grad, 1e-12))


def test_seeds():
    same = [nn.Linear(3, 2, seed=1), nn.Linear(3, 2, seed=np.random.default_rng(1))]
    nn.manual_seed(1)
    same.append(nn.Linear(3, 2))
    other = nn.Linear(3, 2)
    for layer in same:
        assert (np.array_equal(layer.weight.data, same[0].weight.data)
                and np.array_equal(layer.bias.data, same[0].bias.data))
    assert not np.array_equal(other.weight.data, same[0].weight.data)
    assert np.array_equal(nn.Linear(3, 2, seed=1, dtype=np.float64).weight.data.astype(np.float32),
                          same[0].weight.data)


def test_linear_shapes():
    layer = nn.Linear(3, 2, seed=0)
    assert (layer(np.ones(3)).shape == (2,) and layer(np.ones((4, 5, 3))).shape == (4, 5, 2)
            and layer(np.ones((0, 3))).shape == (0, 2))
    assert (nn.Linear(3, 2, bias=False).bias is None
            and nn.Linear(3, 2, bias=False)(np.ones((4, 3))).shape == (4, 2))
    for wrong in (np.ones((3, 4)), np.ones(()), 1.0):
        with pytest.raises(ValueError, match='takes 3 numbers'):
            layer(wrong)


def test_a_float32_model_stays_float32_on_float64_data():
    model = nn.Sequential(nn.Linear(3, 4, seed=0), nn.Tanh(), nn.Linear(4, 1, seed=1))
    loss = nn.MSELoss()(model(np.ones((5, 3))), np.ones((5, 1)))
    loss.backward()
    assert loss.dtype == np.float32 and all(p.grad.dtype == p.dtype == np.float32 for p in model.parameters())


# --- losses


def test_mse_is_that_of_torch(torch):
    x, y = np.random.default_rng(0).standard_normal((2, 7, 3))
    ours, theirs = Tensor(x), torch.tensor(x, requires_grad=True)
    loss, expected = nn.MSELoss()(ours, y), torch.nn.MSELoss()(theirs, torch.tensor(y))
    loss.backward()
    expected.backward()
    assert close(loss.data, expected.item(), 1e-12) and close(ours.grad, theirs.grad, 1e-12)


def test_mse_refuses_to_stretch():
    with pytest.raises(ValueError, match=r'\(10, 1\).*\(10,\)'):
        nn.MSELoss()(Tensor(np.ones((10, 1))), np.ones(10))


@pytest.mark.parametrize('size', [1, 30, 1000, 1e300])
def test_cross_entropy_is_that_of_torch(size, torch):
    random = np.random.default_rng(0)
    z, target = random.standard_normal((7, 4)) * size, random.integers(0, 4, 7)
    ours, theirs = Tensor(z), torch.tensor(z, requires_grad=True)
    loss, expected = (nn.CrossEntropyLoss()(ours, target),
                      torch.nn.CrossEntropyLoss()(theirs, torch.tensor(target)))
    loss.backward()
    expected.backward()
    assert close(loss.data, expected.item(), 1e-12) and close(ours.grad, theirs.grad, 1e-12)


def test_cross_entropy_of_an_excluded_class():
    z = Tensor(np.array([[0.0, 0.0, -np.inf]]))
    loss = nn.CrossEntropyLoss()(z, [0])
    loss.backward()
    assert abs(loss.item() - np.log(2)) < 1e-15 and np.isfinite(z.grad).all()


@pytest.mark.parametrize('target, message', [
    (np.zeros(3), 'integers'), (np.zeros(2, int), 'must be 3'), (np.zeros((3, 1), int), 'must be 3'),
    (np.zeros(3, bool), 'integers'),
    (np.array([0, 1, 2]), '0 to 1'), (np.array([0, -1, 1]), '0 to 1')])
def test_cross_entropy_refuses(target, message):
    with pytest.raises(ValueError, match=message):
        nn.CrossEntropyLoss()(Tensor(np.zeros((3, 2))), target)


@pytest.mark.parametrize('kind', [np.int8, np.uint8, np.int32, np.int64])
def test_cross_entropy_takes_any_integers(kind):
    assert (nn.CrossEntropyLoss()(Tensor(np.zeros((3, 2))), np.array([0, 1, 1], kind)).item()
            == pytest.approx(np.log(2)))


# --- the budget


def test_a_quotient_by_a_tiny_number_has_a_finite_slope():
    b = Tensor(np.array([1e-200]))
    (np.array([1e-300]) / b).sum().backward()
    assert b.grad.tolist() == [-(1e-300 / 1e-200 / 1e-200)] and np.isfinite(b.grad).all()


def test_a_rule_with_too_few_pulls_is_noticed():
    from rprop_lit.tensor import apply
    RULES['slip'] = lambda a, b: (a + b, lambda g: g)
    try:
        with pytest.raises(ValueError):
            apply('slip', Tensor(np.ones(1)), Tensor(np.ones(1)))
    finally:
        del RULES['slip']


def test_a_layer_takes_lists():
    layer = nn.Linear(3, 2, seed=0)
    for x in ([[1.0, 2.0, 3.0]], [1, 2, 3], ((1.0, 2.0, 3.0),)):
        assert layer(x).data.tolist() == layer(np.array(x, np.float32)).data.tolist()
    assert (Tensor([[1.0, 2.0]]) @ [3.0, 4.0]).data.tolist() == [11.0]
    with pytest.raises(ValueError, match='Linear takes 3 numbers on the last axis'):
        layer([[1.0, 2.0]])
