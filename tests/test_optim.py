"""The optimizer: sharing, groups, closures, refusals before anything is written, state, resume."""
import copy
import math
import pickle

import numpy as np
import pytest
from streams import VARIANTS, bits, errors, gradients

from rprop_lit import Parameter, Rprop, init, update
from rprop_lit.inside.files import read_arrays
from rprop_lit.optim import Row

SHAPES = [(5,), (2, 3), (), (0,)]


def drive(optimizer, p, n=10, seed=0, loss=True):
    "Make `n` steps with gradients and errors of a stream"
    for g, error in zip(gradients(p.shape, n, p.dtype, seed), errors(n, seed)):
        p.grad = g
        optimizer.step(loss=error if loss else None)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_the_class_is_the_function(shape, variant, dtype):
    start = np.random.default_rng(0).normal(size=shape).astype(dtype)
    p, w, state = Parameter(start.copy() if shape else np.array(start)), start.copy(), init(start, 0.1)
    optimizer = Rprop([p], lr=0.1, variant=variant.upper())
    for g, loss in zip(gradients(shape, 200, dtype), errors(200)):
        p.grad, before = g, bits(g)
        assert optimizer.step(loss=loss) == loss or math.isnan(loss)
        dw, state = update(g, state, variant=variant, loss=loss)
        w = (w + dw).astype(dtype)  # in the wider type of the two, rounded once
        assert bits(p.data) == bits(w) and bits(g) == before
    assert (bits(optimizer.state[p]['sign']) == bits(state.sign)
            and bits(optimizer.state[p]['step_size']) == bits(state.step))
    assert optimizer.state[p]['step'] == 200


@pytest.mark.parametrize('dtype', [np.complex64, np.complex128])
def test_complex_is_two_reals(dtype):
    random = np.random.default_rng(0)
    base = random.normal(size=(6, 4)).astype(dtype) * (1 + 2j)
    z = base[::2].T
    p, pairs = Parameter(z), Parameter(np.stack([z.real, z.imag], -1).copy())
    both = Rprop([p], variant='rprop+'), Rprop([pairs], variant='rprop+')
    for _ in range(50):
        g = random.normal(size=(4, 3, 2)).astype(pairs.dtype)
        p.grad, pairs.grad = (g[..., 0] + 1j * g[..., 1]).astype(dtype), g
        for optimizer in both:
            optimizer.step()
        assert bits(np.stack([base[::2].T.real, base[::2].T.imag], -1)) == bits(pairs.data)


def test_the_array_is_shared():
    mine = np.ones(3)
    p = Parameter(mine)
    p.grad = np.ones(3)
    Rprop([p], lr=0.25).step()
    assert mine.tolist() == [0.75] * 3 and p.data is mine
    assert Parameter([1, 2]).dtype == np.float32 and Parameter([1, 2], dtype=float).dtype == np.float64
    assert Parameter(2.5).shape == () and Parameter(np.float64(2.5)).dtype == np.float64
    assert Parameter(mine, dtype=np.float32).data is not mine and 'Parameter' in repr(p)


def test_views_with_gaps():
    base = np.zeros((4, 6))
    p = Parameter(base[::2, 1::3].T)
    p.grad = np.ones((2, 2))
    Rprop([p], lr=1.0).step()
    assert base.sum() == -4 and base[::2, 1::3].tolist() == [[-1, -1], [-1, -1]]


def test_maximize_is_minimizing_the_opposite():
    up, down = Parameter([1.0, 2.0], dtype=float), Parameter([1.0, 2.0], dtype=float)
    climbs, falls = Rprop([up], maximize=True, variant='irprop+'), Rprop([down], variant='irprop+')
    for g, loss in zip(gradients((2,), 100, float), errors(100)):
        up.grad, down.grad = -g, g
        climbs.step(loss=-loss)
        falls.step(loss=loss)
        assert bits(up.data) == bits(down.data)


def test_no_gradient_no_move():
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = Rprop([a, b], lr=0.5)
    a.grad = np.ones(1, np.float32)
    optimizer.step()
    assert a.data == 0.5 and b.data == 1 and b not in optimizer.state
    b.grad = np.ones(1, np.float32)  # joins late, and starts like any other
    optimizer.step()
    assert b.data == 0.5 and optimizer.state[b]['step'] == 1 and optimizer.state[a]['step'] == 2


def test_a_group_that_joins_late():
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = Rprop([a])
    optimizer.add_param_group({'params': [b], 'lr': 0.25})
    b.grad = np.ones(1, np.float32)
    optimizer.step()
    assert b.data == 0.75
    with pytest.raises(ValueError, match='parameter 2 is there twice'):
        optimizer.add_param_group({'params': [a]})
    assert len(optimizer.param_groups) == 2


def test_lr_only_seeds():
    p = Parameter([0.0], dtype=float)
    optimizer = Rprop([p], lr=0.5)
    for _ in range(3):
        p.grad = np.ones(1)
        optimizer.step()
        optimizer.param_groups[0]['lr'] = 1e9
    assert p.data == 0 - 0.5 - 0.6 - 0.72


def test_lr_per_coordinate():
    p = Parameter(np.zeros((2, 2)))
    p.grad = np.ones((2, 2))
    Rprop([p], lr=np.array([1.0, 2.0])).step()
    assert p.data.tolist() == [[-1, -2], [-1, -2]]
    with pytest.raises(ValueError,
                       match=r'lr has shape \(3,\) and does not broadcast to w of shape \(2, 2\)'):
        Rprop([('w', p)], lr=np.ones(3))


def test_closures():
    p = Parameter([1.0], dtype=float)
    optimizer = Rprop([p], lr=0.5, variant='irprop+')

    def closure():
        p.grad = 2 * p.data
        return np.array([float(p.data[0] ** 2)])

    assert optimizer.step(closure) == [1.0] and p.data == 0.5
    with pytest.raises(ValueError, match='both a closure and a loss'):
        optimizer.step(closure, loss=1.0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert p.data == 0.5
    assert Rprop([Parameter([1.0])]).step() is None


def test_irprop_plus_needs_a_loss():
    p = Parameter([1.0])
    p.grad = np.ones(1, np.float32)
    optimizer = Rprop([p], variant='irprop+')
    for call, says in ((lambda: optimizer.step(), 'pass loss='),
                       (lambda: optimizer.step(loss=math.nan), 'loss=nan at the first step')):
        with pytest.raises(ValueError, match=says):
            call()
        assert p.data == 1 and not optimizer.state


def test_a_loss_that_is_not_finite_sends_everybody_back():
    a, b, idle = (Parameter([1.0], dtype=float) for _ in range(3))
    optimizer = Rprop([a, b, idle], lr=0.5, variant='irprop+')
    for loss in (3.0, 2.0):
        a.grad, b.grad, idle.grad = np.ones(1), -np.ones(1), np.ones(1)
        optimizer.step(loss=loss)
    a.grad, b.grad, idle.grad = np.array([math.nan]), np.ones(1), None
    at = idle.data.copy()
    optimizer.step(loss=math.nan)
    assert (a.data, b.data, idle.data) == ((1 - .5 - .6) + .6, (1 + .5 + .6) - .6, at)
    assert (optimizer.state[a]['step_size'] == 0.3 and optimizer.state[a]['sign'] == 0
            and optimizer.state[idle]['sign'] == 1)
    assert optimizer.param_groups[0]['loss'] == 2.0


def test_nonfinite_gradients():
    p = Parameter(np.zeros(4))
    held, raises = Rprop([p], lr=1.0), Rprop([('w', p)], nonfinite='raise')
    p.grad = np.array([math.nan, math.inf, -math.inf, 1.0])
    with pytest.raises(ValueError, match='gradient of w holds 1 NaN and 2 inf'):
        raises.step()
    assert not p.data.any() and not raises.state
    held.step()
    assert p.data.tolist() == [0, -1, 1, -1] and held.state[p]['sign'].tolist() == [0, 1, -1, 1]
    assert held.state[p]['step_size'].tolist() == [1] * 4


@pytest.mark.parametrize('gradient, kind, says', [
    (np.ones((3, 1)), ValueError, r'gradient of w has shape \(3, 1\), its weights have \(3,\)'),
    (np.ones(4), ValueError, 'shape'),
    (np.ones(3, np.float32), ValueError, 'dtype float32, its weights have float64'),
    (np.ones(3, int), ValueError, 'dtype int64'),
    (np.ones(3, complex), ValueError, 'dtype complex128'),
    ([1.0, 1.0, 1.0], TypeError, 'is a list, its weights are a numpy.ndarray: convert'),
    (1.0, TypeError, 'is a float')], ids=str)
def test_gradients_that_do_not_fit(gradient, kind, says):
    first, p = Parameter(np.zeros(2)), Parameter(np.zeros(3))
    optimizer = Rprop([('first', first), ('w', p)])
    first.grad, p.grad = np.ones(2), gradient
    with pytest.raises(kind, match=says):
        optimizer.step()
    assert not first.data.any() and not optimizer.state  # nothing was half done


@pytest.mark.parametrize('make, kind, says', [
    (lambda p: Rprop([]), ValueError, 'params is empty'),
    (lambda p: Rprop(iter(())), ValueError, 'params is empty'),
    (lambda p: Rprop(p), TypeError, r'single Parameter: pass a list of parameters, \[p\]'),
    (lambda p: Rprop(np.zeros(3)), TypeError, 'single ndarray'),
    (lambda p: Rprop([np.zeros(3)]), TypeError,
     r'parameter 0 is a ndarray without a .grad: wrap it as Parameter\(array\)'),
    (lambda p: Rprop([p, p]), ValueError, 'parameter 1 is there twice: it would be'),
    (lambda p: Rprop([('a', p), ('b', p)]), ValueError, 'b is there twice'),
    (lambda p: Rprop([{'params': [p]}, {'params': [p]}]), ValueError, 'twice'),
    (lambda p: Rprop([{'lr': 1}]), ValueError, "a group needs 'params'"),
    (lambda p: Rprop([{'params': [p], 'momentum': 0.9}]), ValueError, "'momentum'"),
    (lambda p: Rprop([p], variant='adam'), ValueError, "variant='adam' is unknown"),
    (lambda p: Rprop([p], etas=(1.2, 0.5)), ValueError, r'etas=\(1.2, 0.5\)'),
    (lambda p: Rprop([p], step_sizes=(1, 0.1)), ValueError, r'step_sizes=\(1, 0.1\)'),
    (lambda p: Rprop([p], lr=-1), ValueError, 'lr=-1'),
    (lambda p: Rprop([p], nonfinite='skip'), ValueError, "nonfinite='skip': choose 'hold' or 'raise'"),
    (lambda p: Rprop([{'params': []}]), ValueError, 'params is empty'),
    (lambda p: Parameter(np.arange(3)), TypeError, 'int64'),
    (lambda p: Parameter(np.array(['a'])), TypeError, 'weights must be floating-point'),
    (lambda p: Parameter(np.broadcast_to(1.0, 3)), ValueError, 'read-only'),
    (lambda p: Rprop([{'params': [p]}, p]), TypeError, 'mixes group dicts and parameters'),
    (lambda p: Rprop([{'params': p}]), TypeError, 'a single Parameter'),
    (lambda p: Rprop([{'params': [{'params': [p]}]}]), TypeError, 'without a .grad')],
                         ids=lambda o: o if isinstance(o, str) else '')
def test_refusals_at_construction(make, kind, says):
    with pytest.raises(kind, match=says):
        make(Parameter(np.zeros(3)))


def test_an_empty_parameter_is_there_once_too():
    p = Parameter(np.zeros(0))
    with pytest.raises(ValueError, match='parameter 1 is there twice: it would be moved twice a step'):
        Rprop([p, p])


def test_read_only_after_construction():
    p = Parameter(np.zeros(3))
    optimizer = Rprop([p])
    p.grad = np.ones(3)
    p.data.flags.writeable = False
    with pytest.raises(ValueError, match='read-only'):
        optimizer.step()


def test_names_from_torch_like_models():
    p = Parameter(np.zeros(2))
    optimizer = Rprop({'layer.weight': p}.items())
    assert (optimizer.param_groups[0]['names'] == ['layer.weight']
            and optimizer.param_groups[0]['params'] == [p])


def test_zero_grad():
    p = Parameter(np.zeros(2))
    p.grad = same = np.ones(2)
    optimizer = Rprop([p, Parameter([1.0])])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is same and not same.any()
    optimizer.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.complex64])
@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('way', ['dict', 'file'])
def test_resume_is_going_on(variant, dtype, way, tmp_path):
    def stream(seed):
        for g, loss in zip(gradients((3, 2), 40, np.float32, seed), errors(40, seed)):
            yield (g * (1 + 1j) if np.issubdtype(dtype, np.complexfloating) else g).astype(dtype), loss

    def go(optimizer, p, seed):
        for g, loss in stream(seed):
            p.grad = g
            optimizer.step(loss=loss)

    with np.errstate(all='ignore'):
        straight = Parameter(np.ones((3, 2), dtype))
        whole = Rprop([straight], variant=variant, lr=0.3, etas=(0.4, 1.3))
        go(whole, straight, 0)
        p = Parameter(straight.data.copy())
        again = Rprop([p])
        if way == 'dict':
            again.load_state_dict(whole.state_dict())
        else:
            whole.save(tmp_path / 'state.npz')
            again.load(tmp_path / 'state.npz')
        go(whole, straight, 1)
        go(again, p, 1)
    assert bits(p.data) == bits(straight.data) and again.state[p]['step'] == 80
    assert again.param_groups[0]['etas'] == (0.4, 1.3) and again.param_groups[0]['variant'] == variant


def test_state_dict_is_a_copy():
    p = Parameter(np.zeros(3))
    optimizer = Rprop([p])
    drive(optimizer, p)
    kept = optimizer.state_dict()
    before = bits(kept['state'][0]['step_size']), bits(kept['state'][0]['prev'])
    drive(optimizer, p, seed=5)
    assert before == (bits(kept['state'][0]['step_size']), bits(kept['state'][0]['prev']))
    kept['state'][0]['step_size'][...] = 7
    assert not (optimizer.state[p]['step_size'] == 7).any()


def test_state_dict_of_a_fresh_optimizer():
    optimizer = Rprop([Parameter([1.0])])
    assert optimizer.state_dict()['state'] == {}
    optimizer.load_state_dict(optimizer.state_dict())


def spoil(d, **changes):
    "A state dict with something wrong in its first parameter"
    return {**d, 'state': {**d['state'], 0: {**d['state'][0], **changes}}}


@pytest.mark.parametrize('change, says', [
    (lambda d: None, "needs 'state' and 'param_groups'"), (lambda d: {'state': {}}, "needs 'state'"),
    (lambda d: spoil(d, prev=np.ones(4)), 'shape'),
    (lambda d: spoil(d, step_size=np.full(3, -1.0)), 'finite and at least 0'),
    (lambda d: spoil(d, step_size=np.full(3, math.nan)), 'finite'),
    (lambda d: spoil(d, step_size=np.array([None] * 3)), 'type object'),
    (lambda d: spoil(d, step_size=np.ones(3, complex)), 'shape'),
    (lambda d: {**d, 'state': {0: {'prev': np.ones(3)}}}, "needs 'step', 'prev' and 'step_size'"),
    (lambda d: {**d, 'state': {**d['state'], 5: 1}}, r'entries \[5\]'),
    (lambda d: {**d, 'param_groups': []},
     r'another model: its groups have \[\] parameters, these have \[2\]'),
    (lambda d: {**d, 'param_groups': [{**d['param_groups'][0], 'params': [0]}]}, 'another model'),
    (lambda d: {**d, 'param_groups': [{**d['param_groups'][0], 'etas': (2, 3)}]}, 'etas='),
    (lambda d: {**d, 'param_groups': [{**d['param_groups'][0], 'variant': 'x'}]}, 'unknown')])
def test_states_that_cannot_be(change, says):
    p, q = Parameter(np.zeros(3)), Parameter(np.zeros(2))
    optimizer = Rprop([('w', p), q])
    for name in (p, q):
        drive(optimizer, name)
    before = pickle.dumps(optimizer.state_dict())
    with pytest.raises(ValueError, match=says):
        optimizer.load_state_dict(change(optimizer.state_dict()))
    assert pickle.dumps(optimizer.state_dict()) == before


def test_unknown_keys_of_other_optimizers_are_left_out():
    p = Parameter(np.zeros(3))
    optimizer = Rprop([p])
    drive(optimizer, p)
    d = optimizer.state_dict()
    d['param_groups'][0].update(foreach=None, capturable=False)
    del d['param_groups'][0]['variant'], d['param_groups'][0]['loss']
    optimizer.load_state_dict(d)
    assert 'foreach' not in optimizer.param_groups[0] and optimizer.param_groups[0]['variant'] == 'irprop-'


def test_lr_arrays_in_files(tmp_path):
    p = Parameter(np.zeros(2))
    optimizer, other = Rprop([p], lr=np.array([0.1, 0.2])), Rprop([Parameter(np.zeros(2))])
    optimizer.save(tmp_path / 'a')
    other.load(tmp_path / 'a')
    assert other.param_groups[0]['lr'].tolist() == [0.1, 0.2]
    assert set(read_arrays(tmp_path / 'a')) == {'groups'} and [f.name for f in tmp_path.iterdir()] == ['a']


def test_copies_and_pickles_are_independent():
    p = Parameter(np.zeros(3))
    optimizer = Rprop([p], variant='rprop+')
    drive(optimizer, p)
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        q = other.param_groups[0]['params'][0]
        assert q is not p and bits(q.data) == bits(p.data) and other.state[q]['step'] == 10
        before = bits(p.data), bits(optimizer.state[p]['step_size'])
        drive(other, q, seed=2)
        assert (bits(p.data), bits(optimizer.state[p]['step_size'])) == before


# ---- many parameters as one

ROW_SHAPES = [(3,), (2, 5), (), (0,), (700,)]
ROW_OF_ONE = np.ones(1)


def in_a_row(dtype=np.float32, **settings):
    "Parameters of some shapes, the row that they lie in, and an optimizer of the row"
    random = np.random.default_rng(1)
    parts = [Parameter(np.array(random.normal(size=shape).astype(dtype))) for shape in ROW_SHAPES]
    row = Row(parts)
    return parts, row, Rprop([row], lr=0.1, **settings)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.complex64])
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_row_makes_the_bits_of_its_parts(path, variant, dtype):
    parts, _, optimizer = in_a_row(dtype, variant=variant)
    apart = [Parameter(p.data.copy()) for p in parts]
    each = Rprop(apart, lr=0.1, variant=variant)
    streams = [list(gradients(p.shape, 30, dtype, seed=i)) for i, p in enumerate(parts)]
    for k, loss in enumerate(errors(30)):
        for p, q, stream in zip(parts, apart, streams):
            p.grad[...] = q.grad = stream[k]
        optimizer.step(loss=loss), each.step(loss=loss)
        assert [bits(p.data) for p in parts] == [bits(q.data) for q in apart]


def test_a_row_is_cleared_and_filled_in_place(path):
    parts, row, optimizer = in_a_row()
    views = [p.grad for p in parts]
    for to_none in (True, False):
        row.grad = np.arange(714, dtype=np.float32)
        assert [float(p.grad.sum()) for p in parts] == [3, sum(range(3, 13)), 13, 0, sum(range(14, 714))]
        optimizer.zero_grad(set_to_none=to_none)
        assert not row.grad.any() and all(p.grad is v for p, v in zip(parts, views))


@pytest.mark.parametrize('which', range(len(ROW_SHAPES)))
@pytest.mark.parametrize('new', [lambda p: None, lambda p: np.ones_like(p.data)], ids=['None', 'array'])
def test_a_part_of_a_row_with_a_new_gradient_is_refused_before_anything_moves(path, which, new):
    parts, row, optimizer = in_a_row()
    row.grad = np.ones(714, np.float32)
    optimizer.step()
    before, kept = bits(row.data), parts[which].grad
    parts[which].grad = new(parts[which])
    with pytest.raises(ValueError, match='given a new gradient.* make a new Row'):
        optimizer.step()
    assert bits(row.data) == before
    parts[which].grad = kept
    optimizer.step()
    assert bits(row.data) != before


def test_what_a_row_is_not_made_of():
    for bad, error, match in (([], ValueError, 'params is empty'),
                              (Parameter([1.0]), TypeError, 'single Parameter'),
                              ([np.ones(2)], TypeError, 'a parameter of the Row.*Parameter'),
                              ([Parameter([1.0]), Parameter(np.ones(2))], TypeError, 'one type'),
                              ([Parameter(ROW_OF_ONE), Parameter(ROW_OF_ONE)], ValueError, 'array twice')):
        with pytest.raises(error, match=match):
            Row(bad)
    p = Parameter([1.0, 2.0])
    data = p.data
    with pytest.raises(ValueError, match='twice'):
        Row([p, p])
    assert p.data is data and p.grad is None
    data.flags.writeable = False
    with pytest.raises(ValueError, match='read-only'):
        Row([p])


@pytest.mark.parametrize('first', ['row', 'part'])
def test_a_row_and_one_of_its_parts_are_refused(first):
    parts, row, optimizer = in_a_row()
    with pytest.raises(ValueError, match='is there twice'):
        Rprop([row, parts[1]] if first == 'row' else [parts[1], row])
    with pytest.raises(ValueError, match='is there twice'):
        optimizer.add_param_group({'params': [Parameter(parts[1].data), Parameter([1.0])]})


@pytest.mark.parametrize('wrap', [lambda torch, a: torch.nn.Parameter(torch.from_numpy(a)),
                                  lambda torch, a: Parameter(torch.from_numpy(a))],
                         ids=['tensor', 'Parameter'])
def test_a_row_of_tensors_makes_the_bits_of_its_parts(path, wrap):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    arrays = [np.random.default_rng(k).normal(size=shape).astype(np.float32)
              for k, shape in enumerate(ROW_SHAPES)]
    parts, apart = [wrap(torch, a.copy()) for a in arrays], [Parameter(a.copy()) for a in arrays]
    row = Row(parts)
    optimizer, each = Rprop([row], lr=0.1), Rprop(apart, lr=0.1)
    for gs in zip(*[gradients(a.shape, 20, np.float32, seed) for seed, a in enumerate(arrays)]):
        for p, q, g in zip(parts, apart, gs):
            p.grad[...], q.grad = torch.from_numpy(g), g
        before = [p._version for p in parts if hasattr(p, '_version')]
        optimizer.step(), each.step()
        assert ([bits(p.detach().numpy() if hasattr(p, 'detach') else p.data.numpy()) for p in parts]
                == [bits(q.data) for q in apart])
        assert all(now > then for now, then in zip([p._version for p in parts if hasattr(p, '_version')],
                                                   before))
    optimizer.zero_grad()
    assert not row.grad.any() and isinstance(optimizer.state[row]['sign'], torch.Tensor)
    parts[0].grad = None
    with pytest.raises(ValueError, match='given a new gradient'):
        optimizer.step()


def test_a_row_of_rows_is_refused():
    parts, row, _ = in_a_row()
    with pytest.raises(TypeError, match='another Row: pass its parts'):
        Row([row, Parameter([1.0])])
    assert all(np.shares_memory(p.data, row.data) for p in parts if p.data.size)


def test_a_row_with_other_weights_is_refused_before_anything_moves():
    _, row, optimizer = in_a_row()
    other = row.data.copy()
    row.data = other
    with pytest.raises(ValueError, match=r'other weights.*row\.data\[\.\.\.\] = w'):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize('g', [np.ones(1, np.float32), np.ones((1, 714), np.float32), np.ones(714),
                               np.ones(714, complex), 0, [1.0] * 714],
                         ids=['short', 'deep', 'double', 'complex', 'number', 'list'])
def test_a_gradient_that_does_not_fit_a_row(g):
    _, row, _ = in_a_row()
    row.grad = np.full(714, 3, np.float32)
    with pytest.raises(ValueError, match=r'has shape \(714,\) and type float32.*convert it'):
        row.grad = g
    assert (row.grad == 3).all()


@pytest.mark.parametrize('grad', [[1.0, 2.0], np.ones(3), np.ones(2, np.float32)],
                         ids=['list', 'shape', 'type'])
def test_a_part_with_a_gradient_that_does_not_fit(grad):
    parts = [Parameter(np.zeros(2)), Parameter(np.zeros(2))]
    arrays, parts[1].grad = [p.data for p in parts], grad
    with pytest.raises((TypeError, ValueError), match='a parameter of the Row'):
        Row(parts)
    assert all(p.data is a for p, a in zip(parts, arrays)) and parts[0].grad is None


def test_a_shallow_copy_of_a_row_shares_it_and_keeps_what_was_put_on_it():
    parts, row, optimizer = in_a_row()
    row.name, parts[0].owner, row.grad = 'all', row, np.ones(714, np.float32)
    same, other = copy.copy(row), copy.deepcopy(row)
    optimizer.step()
    assert same.data is row.data and same.name == other.name == 'all' and other.params[0].owner is other
    assert (bits(parts[4].data) == bits(row.data[-700:]) != bits(other.data[-700:])
            == bits(other.params[4].data))


@pytest.mark.parametrize('nonfinite', ['hold', 'raise'])
def test_a_parameter_around_a_tensor(path, nonfinite):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    p = Parameter(torch.zeros(2))
    optimizer = Rprop([p], lr=1.0, nonfinite=nonfinite)
    for expected in (-1, -1 - 1.2, -1 - 1.2 - 1.44):
        p.grad = torch.ones(2)
        optimizer.step()
        # the sums in float32 differ from these in their last digits
        assert np.allclose(p.data.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize('way', [copy.deepcopy, lambda what: pickle.loads(pickle.dumps(what))],
                         ids=['deepcopy', 'pickle'])
def test_a_copy_of_a_row_is_a_row(way):
    parts, row, optimizer = in_a_row()
    row.grad = np.ones(714, np.float32)
    optimizer.step()
    theirs, other, again = way((parts, row, optimizer))
    assert (bits(other.data) == bits(row.data) and bits(other.grad) == bits(row.grad)
            and not np.shares_memory(other.data, row.data))
    assert all(np.shares_memory(p.data, other.data) and np.shares_memory(p.grad, other.grad) for p in theirs
               if p.data.size)
    before = bits(row.data)
    again.step()
    assert bits(row.data) == before != bits(other.data)
    optimizer.step()
    assert bits(row.data) == bits(other.data)


def test_a_copy_of_a_row_whose_parts_lost_their_gradients():
    parts, row, _ = in_a_row()
    for p in parts:
        p.grad = None
    other = pickle.loads(pickle.dumps(row))
    assert bits(other.data) == bits(row.data) and not other.grad.any()


def test_a_network_in_a_row_learns_as_without(path):
    from rprop_lit import nn

    def train(row):
        net = nn.Sequential(nn.Linear(2, 5, seed=1), nn.Tanh(), nn.Linear(5, 1, seed=2))
        params = list(net.parameters())
        optimizer = Rprop([Row(params)] if row else params, lr=0.1)
        x = np.random.default_rng(0).normal(size=(20, 2)).astype(params[0].dtype)
        for _ in range(30):
            optimizer.zero_grad()
            loss = ((net(x) - x[:, :1] * x[:, 1:]) ** 2).mean()
            loss.backward()
            optimizer.step()
        return [bits(p.data) for p in params], float(loss.data)
    assert train(True) == train(False)
