"""Beside torch: the class equals torch.optim.Rprop bit for bit, on arrays and on tensors,
and states travel both ways."""
import io
from functools import cache

import pytest
from streams import ETAS, bits

from rprop_lit import Parameter, Rprop
from rprop_lit.optim import to_torch

torch = pytest.importorskip('torch', reason='torch is not installed: the comparison with torch.optim.Rprop '
                                            'is left out')

CASES = [dict(etas=etas) for etas in ETAS] + [dict(lr=100.0), dict(lr=0.0),
                                              dict(lr=0.5, step_sizes=(0.01, 0.3)), dict(maximize=True)]
SHAPES = [(), (7,), (3, 5), (0,)]


def stream(shape, dtype, length, seed=0, odd=True):
    """Gradients with flips, zeros, NaN, inf and -0.0, none so small that a product of two underflows;
    None now and then"""
    random = torch.Generator().manual_seed(seed)
    now = torch.randn(shape, dtype=dtype, generator=random)
    for k in range(length):
        turn = torch.rand(shape, generator=random) < .2
        now = torch.where(turn, -now, now) * (1 + .1 * torch.rand(shape, generator=random))
        now = now / max(1.0, float(abs(now).max()) if now.numel() else 1.0)
        now = torch.where(abs(now) < 1e-3, now * 1000, now) if not dtype.is_complex else now
        g = now.clone()
        if odd and not dtype.is_complex:
            u = torch.rand(shape, generator=random)
            for at, value in ((.05, 0.0), (.08, -0.0), (.09, float('nan')), (.10, float('inf')),
                              (.11, float('-inf'))):
                g = torch.where((u < at) & (u >= at - .03), torch.tensor(value, dtype=dtype), g)
        yield None if k % 11 == 10 else g


@cache
def kept_stream(shape, dtype):
    "A stream for all settings, made once: a thousand steps, fewer where there is one number, or none"
    return list(stream(shape, dtype, 1000 if shape and all(shape) else 200))


def start(shape, dtype, seed=3):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('settings', CASES, ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_equal_to_torch(shape, dtype, settings):
    theirs = start(shape, dtype).requires_grad_()
    tensor = start(shape, dtype).requires_grad_()
    ours = Parameter(start(shape, dtype).numpy().copy())
    trio = [torch.optim.Rprop([theirs], **settings), Rprop([tensor], **settings), Rprop([ours], **settings)]
    for g in kept_stream(shape, dtype):
        theirs.grad, tensor.grad = (None, None) if g is None else (g.clone(), g.clone())
        ours.grad = None if g is None else g.numpy().copy()
        for optimizer in trio:
            optimizer.step()
        assert bits(theirs.detach().numpy()) == bits(tensor.detach().numpy()) == bits(ours.data)
    for p, optimizer in ((tensor, trio[1]), (ours, trio[2])):
        assert bits(trio[0].state[theirs]['step_size'].numpy()) == bits(optimizer.state[p]['step_size'])
        assert optimizer.state[p]['step'] == int(trio[0].state[theirs]['step'])


@pytest.mark.parametrize('dtype', [torch.complex64, torch.complex128], ids=str)
def test_complex_and_strided(dtype):
    "Every second column of a transposed matrix: complex pairs in a view with gaps"
    bases = [start((6, 8), dtype) for _ in range(3)]
    views = [base.t()[::2] for base in bases]
    theirs, tensor = (view.detach().requires_grad_() for view in views[:2])
    ours = Parameter(views[2].numpy())
    assert not ours.data.flags.c_contiguous
    trio = [torch.optim.Rprop([theirs]), Rprop([tensor]), Rprop([ours])]
    for g in stream((4, 6), dtype, 300):
        theirs.grad, tensor.grad = (None, None) if g is None else (g.clone(), g.clone())
        ours.grad = None if g is None else g.numpy().copy()
        for optimizer in trio:
            optimizer.step()
        assert bits(theirs.detach().numpy()) == bits(tensor.detach().numpy()) == bits(ours.data)
    assert (bits(bases[0].numpy()) == bits(bases[1].numpy()) == bits(bases[2].numpy())
            != bits(start((6, 8), dtype).numpy()))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_transposed(dtype):
    a, b = start((5, 4), dtype), start((5, 4), dtype)
    theirs, ours = a.t().detach().requires_grad_(), Parameter(b.numpy().T)
    pair = torch.optim.Rprop([theirs]), Rprop([ours])
    for g in stream((4, 5), dtype, 300):
        theirs.grad, ours.grad = (None, None) if g is None else (g.clone(), g.numpy().copy())
        for optimizer in pair:
            optimizer.step()
        assert bits(a.numpy()) == bits(b.numpy())


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_groups(dtype):
    "Several groups with etas, limits and first steps of their own, one of them climbing"
    def groups(ps):
        return [dict(params=ps[:1]), dict(params=ps[1:3], etas=(0.3, 1.7), step_sizes=(1e-3, 0.5)),
                dict(params=ps[3:], lr=7.0, maximize=True)]

    shapes = [(3,), (2, 2), (), (4,)]
    theirs = [start(s, dtype).requires_grad_() for s in shapes]
    ours = [Parameter(start(s, dtype).numpy().copy()) for s in shapes]
    pair = torch.optim.Rprop(groups(theirs)), Rprop(groups(ours))
    for gs in zip(*(stream(s, dtype, 300, seed=i) for i, s in enumerate(shapes))):
        for g, p, q in zip(gs, theirs, ours):
            p.grad, q.grad = (None, None) if g is None else (g.clone(), g.numpy().copy())
        for optimizer in pair:
            optimizer.step()
        assert all(bits(p.detach().numpy()) == bits(q.data) for p, q in zip(theirs, ours))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.complex64], ids=str)
def test_checkpoints_travel_both_ways(dtype):
    theirs, tensor = start((4, 3), dtype).requires_grad_(), start((4, 3), dtype).requires_grad_()
    ours = Parameter(start((4, 3), dtype).numpy().copy())
    pair = torch.optim.Rprop([theirs], lr=0.3, etas=(0.4, 1.5)), Rprop([tensor]), Rprop([ours])
    ways = [lambda: [o.load_state_dict(pair[0].state_dict()) for o in pair[1:]],
            lambda: [pair[0].load_state_dict(pair[1].state_dict()),
                     pair[2].load_state_dict(pair[1].state_dict())],
            lambda: [pair[0].load_state_dict(to_torch(pair[2].state_dict())),
                     pair[1].load_state_dict(pair[2].state_dict())]]
    g = [g for g in stream((4, 3), dtype, 200) if g is not None]
    for k, gradient in enumerate(g):
        if k == 0:
            theirs.grad = gradient.clone()
            pair[0].step()
            tensor.data.copy_(theirs.data)
            ours.data[...] = theirs.detach().numpy()
        if k % 40 == 0:
            file = io.BytesIO()
            ways[k // 40 % 3]()
            torch.save(pair[0].state_dict(), file)
        theirs.grad, tensor.grad, ours.grad = gradient.clone(), gradient.clone(), gradient.numpy().copy()
        for optimizer in pair:
            optimizer.step()
        assert bits(theirs.detach().numpy()) == bits(tensor.detach().numpy()) == bits(ours.data), k
    assert pair[1].param_groups[0]['etas'] == pair[2].param_groups[0]['etas'] == (0.4, 1.5)


def test_a_network_trains_as_with_torch():
    nets = []
    for _ in range(2):
        torch.manual_seed(1)
        nets.append(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)))
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    optimizers = torch.optim.Rprop(nets[0].parameters()), Rprop(nets[1].named_parameters())
    for _ in range(200):
        for net, optimizer in zip(nets, optimizers):
            def closure(net=net, optimizer=optimizer):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(net(x), y)
                loss.backward()
                return loss
            with torch.no_grad():  # the closure's gradients are switched on for it
                last = optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))
    assert isinstance(last, torch.Tensor) and last.item() < 0.9


def test_a_stale_backward_is_noticed():
    "A step counts as a write for autograd, as with torch's own optimizers"
    w = torch.ones(3, requires_grad=True)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optimizer = Rprop([w])
    optimizer.step()
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_keeps_growing(dtype):
    w = torch.zeros(2, dtype=dtype, requires_grad=True)
    optimizer = Rprop([w], lr=1e-6, step_sizes=(0, 50))
    for _ in range(80):
        w.grad = torch.full((2,), 1e-6, dtype=dtype)
        optimizer.step()
    assert optimizer.state[w]['step_size'].dtype == torch.float32
    assert optimizer.state[w]['step_size'].min() > 1 and w.max() < -5


def test_refusals_for_tensors():
    leaf = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match='computed from other tensors'):
        Rprop([leaf * 2])
    with pytest.raises(TypeError, match='int64'):
        Rprop([torch.ones(2, dtype=torch.int64)])
    with pytest.raises(TypeError, match='a single Parameter'):
        Rprop(torch.nn.Parameter(torch.ones(2)))
    optimizer, kept = Rprop([leaf, Parameter([1.0])]), leaf.detach().clone()
    leaf.grad, optimizer.param_groups[0]['params'][1].grad = torch.ones(2), torch.ones(1)
    with pytest.raises(TypeError, match='parameter 1 is a torch.Tensor, its weights are a numpy.ndarray'):
        optimizer.step()
    assert torch.equal(leaf, kept) and not optimizer.state


def test_zero_grad():
    w = torch.ones(2, requires_grad=True)
    w.grad = torch.ones(2)
    same, optimizer = w.grad, Rprop([w])
    optimizer.zero_grad(set_to_none=False)
    assert w.grad is same and w.grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert w.grad is None


def test_losses_as_tensors():
    w = torch.ones(2, requires_grad=True)
    optimizer = Rprop([w], variant='irprop+')
    loss = (w * w).sum()
    loss.backward()
    assert optimizer.step(loss=loss) is loss and optimizer.param_groups[0]['loss'] == 2.0


def test_sharing_after_data_is_replaced():
    "Where the user puts other data into a parameter, the step goes there"
    w = torch.ones(2, requires_grad=True)
    optimizer = Rprop([w], lr=0.5)
    for _ in range(2):
        w.grad = torch.ones(2)
        optimizer.step()
        w.data = w.data.clone()
    assert w.tolist() == pytest.approx([-0.1, -0.1])  # 1 - .5 - .6, rounded in float32


def test_subclasses_of_tensors_are_tensors():
    class Mine(torch.Tensor):
        pass

    w = torch.ones(2).as_subclass(Mine)
    w.grad = torch.ones(2).as_subclass(Mine)
    Rprop([w], lr=0.5).step()
    assert w.tolist() == [0.5, 0.5]
