"""What users replace, change and share between two steps:
weights, gradients, memories, settings, whole groups."""
import copy
import math
import threading

import numpy as np
import pytest
from streams import bits

from rprop_lit import Parameter, Rprop, State, init, update
from rprop_lit.inside import step
from rprop_lit.inside.files import read_arrays
from rprop_lit.optim import flatten


def first_step(*arrays, **settings):
    "Parameters of these weights and an optimizer that has made one step with gradients of 1"
    params = [Parameter(a) for a in arrays]
    optimizer = Rprop(params, **settings)
    for p in params:
        p.grad = np.ones_like(p.data)
    optimizer.step()
    return optimizer, params


@pytest.mark.parametrize('n', [3, 20_000])
def test_a_parameter_that_grows_is_refused_before_anything_moves(path, n):
    front = Parameter(np.zeros(2))
    p = Parameter(np.zeros(n))
    optimizer = Rprop([{'params': [front]}, {'params': [('w', p)]}])
    front.grad, p.grad = np.ones(2), np.ones(n)
    optimizer.step()
    at = front.data.copy()
    p.data, p.grad, front.grad = np.zeros(2 * n), np.ones(2 * n), np.ones(2)
    with pytest.raises(ValueError, match=rf'w has shape \({2 * n},\) now, and its memory \({n},\): to start '
                                         r'it anew, del optimizer.state'):
        optimizer.step()
    assert bits(front.data) == bits(at) and not p.data.any()
    del optimizer.state[p]
    optimizer.step()
    assert (p.data == -0.01).all()


@pytest.mark.parametrize('n', [4, 20_000])
def test_a_tensor_that_is_cut_moves_only_what_is_left(path, n):
    torch = pytest.importorskip('torch', reason='torch is not installed: nothing was cut')
    row = torch.zeros(n)
    p = torch.nn.Parameter(row)
    optimizer = Rprop([p])
    p.grad = torch.ones(n)
    optimizer.step()
    before = row[n // 2:].clone()
    p.grad = None
    p.data = p.data[:n // 2]
    p.grad = torch.ones(n // 2)
    with pytest.raises(ValueError, match='del optimizer.state'):
        optimizer.step()
    optimizer.state.clear()
    optimizer.step()
    assert torch.equal(row[n // 2:], before)


def test_a_tensor_that_is_turned_moves_the_right_weights(path):
    torch = pytest.importorskip('torch', reason='torch is not installed: nothing was turned')
    p = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = Rprop([p], lr=1.0)
    p.grad = torch.ones(2, 2)
    optimizer.step()
    p.grad = None
    p.data = p.data.t()
    p.grad, before = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), p.detach().clone()
    optimizer.step()
    moved = p.detach() - before
    assert moved[0, 1] < -1 and moved.count_nonzero() == 1


def test_gradients_whose_data_are_replaced():
    torch = pytest.importorskip('torch', reason='torch is not installed: no gradient was replaced')
    params = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    flatten(params)
    optimizer = Rprop(params, lr=1.0)
    for p in params:
        p.grad.fill_(1)
    for _ in range(3):
        optimizer.step()
    for p in params:
        p.grad.data = torch.full((2,), -1.0)
    optimizer.step()
    # a flip, seen and forgotten
    assert [optimizer.state[p]['sign'].tolist() for p in params] == [[0, 0], [0, 0]]


def test_an_empty_parameter_before_a_large_one(path):
    optimizer, (empty, large) = first_step(np.zeros(0), np.zeros(90_000))
    assert (large.data == -0.01).all() and empty.data.size == 0


def test_numbers_with_their_natural_gradient():
    p = Parameter(1.0)
    optimizer = Rprop([p], lr=0.25)
    for _ in range(3):
        p.grad = 2 * p.data  # NumPy makes a scalar of it, not an array
        optimizer.step()
    w, step = np.float32(1), np.float32(.25)
    for _ in range(3):
        w, step = w - step, step * np.float32(1.2)
    assert isinstance(p.grad, np.generic) and p.data == w


@pytest.mark.parametrize('name, value', [('etas', (0.5,)), ('etas', (1.2, 0.5)), ('etas', (0.5, math.nan)),
                                         ('etas', (0.5, 'x')), ('step_sizes', None),
                                         ('step_sizes', (1, 0)), ('variant', 'adam'), ('nonfinite', 'skip'),
                                         ('maximize', 'no'), ('lr', -1)])
def test_settings_that_change_are_checked_before_anything_moves(name, value):
    a, b = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    optimizer = Rprop([{'params': [a]}, {'params': [b]}])
    a.grad = b.grad = np.ones(2, np.float32)
    optimizer.step()
    group = optimizer.param_groups[1]
    before = {key: group[key] for key in group}
    for change in (lambda: group.__setitem__(name, value), lambda: group.update({'lr': 0.5, name: value}),
                   lambda: group.__ior__({name: value})):
        with pytest.raises(ValueError, match=name):
            change()
        assert {key: group[key] for key in group} == before
    optimizer.step()
    assert optimizer.state[a]['step'] == optimizer.state[b]['step'] == 2 and bits(a.data) == bits(b.data)


def test_settings_that_change_take_effect():
    optimizer, (p,) = first_step(np.zeros(2), lr=1.0)
    optimizer.param_groups[0]['etas'] = [0.3, 2.0]
    optimizer.step()
    assert (p.data == -3).all() and optimizer.param_groups[0]['etas'] == (0.3, 2.0)


def test_sparse_gradients_are_refused_by_name():
    torch = pytest.importorskip('torch', reason='torch is not installed: no gradient was sparse')
    table, front = torch.nn.Embedding(5, 2, sparse=True), Parameter([1.0])
    optimizer = Rprop([{'params': [front]}, {'params': table.named_parameters()}])
    table(torch.tensor([1, 3])).sum().backward()
    front.grad = np.ones(1, np.float32)
    with pytest.raises(ValueError, match='gradient of weight has layout torch.sparse_coo'):
        optimizer.step()
    assert front.data == 1


def test_a_state_that_is_cleared_starts_anew(path):
    optimizer, (p,) = first_step(np.zeros(3), lr=0.5)
    for p.grad in (np.ones(3), np.ones(3)):
        optimizer.step()
    optimizer.state.clear()
    p.data[...] = 0
    optimizer.step()
    assert (p.data == -0.5).all() and optimizer.state[p]['step'] == 1


def test_a_memory_that_is_replaced_is_used(path):
    optimizer, (p,) = first_step(np.zeros(3))
    optimizer.state[p]['step_size'] = np.full(3, 0.5)
    p.data[...] = 0
    optimizer.step()
    assert (p.data == -0.6).all()


def test_two_threads_may_save_to_one_file(tmp_path):
    path, faults = tmp_path / 'state.npz', []
    optimizers = [first_step(np.zeros(5_000))[0] for _ in range(2)]
    optimizers[0].save(path)

    def save(optimizer):
        try:
            for _ in range(60):
                optimizer.save(path)
        except Exception as error:  # whatever it is, the test must see it
            faults.append(error)

    threads = [threading.Thread(target=save, args=[o], daemon=True) for o in optimizers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert 'groups' in read_arrays(path)
    assert not faults and [f.name for f in tmp_path.iterdir()] == ['state.npz']


def test_its_own_files_are_never_too_large(tmp_path):
    n, random = 3_000, np.random.default_rng(0)
    settings = dict(lr=random.random(n), etas=(random.random(n) * .9 + .05, 1 + random.random(n)),
                    step_sizes=(random.random(n) * 1e-6, 1 + random.random(n)))
    p = Parameter(np.ones(n))
    optimizer = Rprop([('x' * 20_000, p)], **settings)
    p.grad = np.ones(n)
    optimizer.step()
    optimizer.save(tmp_path / 'state.npz')
    optimizer.load(tmp_path / 'state.npz')
    group = optimizer.param_groups[0]
    assert bits(group['lr']) == bits(settings['lr']) and bits(group['etas'][1]) == bits(settings['etas'][1])
    optimizer.step()
    assert optimizer.state[p]['step'] == 2


def test_lists_as_settings():
    p = Parameter(np.zeros(2))
    p.grad = np.ones(2)
    Rprop([p], lr=[0.5, 4.0], step_sizes=([1e-6, 1e-6], [1.0, 2.0])).step()
    assert p.data.tolist() == [-0.5, -2.0]


def test_plans_do_not_pile_up():
    optimizer, (p,) = first_step(np.zeros(3))
    for k in range(50):
        optimizer.param_groups[0]['params'] = [p]
        optimizer.param_groups[0]['step_sizes'] = (1e-6, 50.0 + k)
        optimizer.step()
    plan, = optimizer.param_groups[0].plans
    assert plan.limits.hi == 99.0 and optimizer.state[p]['step'] == 51


def test_a_first_step_for_each_complex_weight():
    p = Parameter(np.zeros(2, complex))
    p.grad = np.full(2, 1 + 1j)
    Rprop([p], lr=np.array([0.1, 0.5])).step()
    assert p.data.tolist() == [-0.1 - 0.1j, -0.5 - 0.5j]
    three = Parameter(np.zeros(3, complex))
    Rprop([three], lr=np.ones(3))
    with pytest.raises(ValueError, match=r'lr has shape \(2,\) and does not broadcast to w of shape \(3,\)'):
        Rprop([('w', three)], lr=np.ones(2))


def test_settings_are_cast_once_to_the_type_of_the_steps():
    plain = both = init(np.zeros(3, np.float32), 0.01)
    for _ in range(5):
        _, plain = update(np.ones(3), plain, variant='irprop-', etas=(0.3, 1.7))
        _, both = update(np.ones(3), both, variant='irprop-', etas=tuple(np.array([0.3, 1.7])))
    assert both.step.dtype == np.float32 and bits(plain.step) == bits(both.step)
    ends = []
    for etas in ((0.3, 1.7), (np.full(3, 0.3), np.full(3, 1.7))):
        p = Parameter(np.zeros(3, np.float32))
        optimizer = Rprop([p], etas=etas)
        for sign in (1, 1, -1, 1, 1, 1):
            p.grad = np.full(3, sign, np.float32)
            optimizer.step()
        ends.append(bits(optimizer.state[p]['step_size']))
    assert ends[0] == ends[1]


def test_arrays_and_tensors_in_one_group():
    torch = pytest.importorskip('torch', reason='torch is not installed: nothing was mixed')
    p, t = Parameter(np.zeros(2, np.float32)), torch.zeros(2, requires_grad=True)
    optimizer = Rprop([p, t])
    for _ in range(3):
        p.grad, t.grad = np.ones(2, np.float32), torch.ones(2)
        before = t._version
        optimizer.step()
        assert t._version > before
    assert (bits(p.data) == bits(t.detach().numpy())
            and isinstance(optimizer.state_dict()['state'][1]['prev'], torch.Tensor))


def test_a_shallow_copy_and_the_original_see_one_memory():
    optimizer, (p,) = first_step(np.zeros(1), lr=1.0)
    copy.copy(optimizer).step()
    optimizer.step()
    assert optimizer.state[p]['step'] == 3 and p.data == -(1 + 1.2 + 1.2 * 1.2)


def test_an_error_from_before_a_change_of_variant_is_not_compared():
    p = Parameter([0.0])
    optimizer = Rprop([p], lr=1.0, variant='irprop+')
    for variant, sign, loss in (('irprop+', 1, 1.0), ('irprop-', 1, 9.0), ('irprop+', -1, 5.0)):
        p.grad, optimizer.param_groups[0]['variant'] = np.full(1, sign, np.float32), variant
        optimizer.step(loss=loss)
    assert p.data == np.float32(-1) - np.float32(1.2)  # not known to have risen, so not undone


def test_one_array_in_two_parameters():
    w = np.zeros(2)
    with pytest.raises(ValueError, match='b is there twice'):
        Rprop([('a', Parameter(w)), ('b', Parameter(w))])


def test_parameters_that_are_smuggled_in():
    optimizer, (p,) = first_step(np.zeros(2))
    optimizer.param_groups[0]['params'].append(Parameter([1.0]))
    with pytest.raises(ValueError, match='2 parameters and 1 names: add parameters by add_param_group'):
        optimizer.step()


@pytest.mark.parametrize('loss', [1 + 2j, [1.0], np.ones(2), '3.0'], ids=str)
def test_errors_that_are_no_number(loss):
    p = Parameter([1.0])
    p.grad = np.ones(1, np.float32)
    with pytest.raises(ValueError, match='loss=.*: need one real number'):
        Rprop([p], variant='irprop+').step(loss=loss)
    assert p.data == 1


# NumPy advises against its matrix, and users have some
@pytest.mark.filterwarnings('ignore:the matrix subclass:PendingDeprecationWarning')
def test_what_is_no_array_of_weights():
    with pytest.raises(TypeError, match='byte order'):
        Parameter(np.zeros(2, '>f8'))
    with pytest.raises(TypeError, match='Parameter is not an array'):
        Parameter(Parameter([1.0]))
    memory = np.zeros((2, 3))
    p = Parameter(np.asmatrix(memory))
    p.grad = np.ones((2, 3))
    Rprop([p], lr=1.0).step()
    assert (memory == -1).all()
    torch = pytest.importorskip('torch', reason='torch is not installed: no tensor was refused')
    with pytest.raises(TypeError, match='is a parameter already'):
        Parameter(torch.ones(2, requires_grad=True))


@pytest.mark.parametrize('change, says', [({'step': -5}, 'whole number'), ({'step': 1.7}, 'whole number'),
                                          ({'step': 'x'}, 'is x: it must be one whole number'),
                                          ({'step': math.inf}, 'whole number')])
def test_counts_that_cannot_be(change, says):
    optimizer, (p,) = first_step(np.zeros(2))
    d = optimizer.state_dict()
    d['state'][0].update(change)
    with pytest.raises(ValueError, match=says):
        optimizer.load_state_dict(d)
    assert optimizer.state[p]['step'] == 1


@pytest.mark.parametrize('change', [{'loss': math.nan}, {'loss': 'x'}, {'loss': None}, {'maximize': 'no'},
                                    {'lr': [1.0, 2.0, 3.0]}, {'params': 3}], ids=str)
def test_groups_that_cannot_be(change):
    optimizer, (p,) = first_step(np.zeros(2))
    d = optimizer.state_dict()
    d['param_groups'][0].update(change)
    before = optimizer.param_groups[0]['lr'], optimizer.state[p]['step']
    with pytest.raises(ValueError):
        optimizer.load_state_dict(d)
    assert (optimizer.param_groups[0]['lr'], optimizer.state[p]['step']) == before


def test_gradients_of_another_shape_for_the_function():
    with pytest.raises(ValueError, match=r'g has shape \(3, 3\) and the state \(3,\)'):
        update(np.ones((3, 3)), State(np.zeros(3, np.int8), np.ones(3)), variant='irprop-')


@pytest.mark.filterwarnings('error')
def test_numbers_beyond_the_type_are_cut_without_a_warning():
    for settings in (dict(lr=1e300), dict(step_sizes=(1e39, 1e40)), dict(etas=(0.5, 1e300)),
                     dict(step_sizes=(0, math.inf))):
        p = Parameter(np.zeros(2, np.float32))
        optimizer = Rprop([p], **settings)
        with np.errstate(over='ignore'):  # of the weight itself, which the user asked to move that far
            for _ in range(3):
                p.grad = np.ones(2, np.float32)
                optimizer.step()
        assert np.isfinite(optimizer.state[p]['step_size']).all()


def test_steps_are_counted_whenever_somebody_looks(path):
    params = [Parameter(np.zeros(n)) for n in (3, 4)]
    optimizer = Rprop(params)
    for k in range(12):  # the second has a gradient at every third step only, so that the engine changes
        params[0].grad = np.ones(3)
        params[1].grad = np.ones(4) if k % 3 == 0 else None
        optimizer.step()
        if k == 5:
            assert [m['step'] for m in optimizer.state_dict()['state'].values()] == [6, 2]
    held = optimizer.state
    assert [held[p]['step'] for p in params] == [12, 4]
    optimizer.step()
    assert [held[p]['step'] for p in params] == [13, 4]
    again = Rprop(params)
    again.load_state_dict(optimizer.state_dict())
    again.step()
    assert [m['step'] for m in copy.deepcopy(again).state.values()] == [14, 4]


@pytest.mark.parametrize('name, value, move',
                         [('sign', 0, 0.1), ('sign', 1, 0.1 * 1.2), ('step_size', 0.5, 0.5 * 1.2)])
def test_an_array_put_into_a_memory_is_used(path, name, value, move):
    # without its sign a step keeps its size, with it it grows
    optimizer, (p,) = first_step(np.zeros(3), lr=0.1)
    p.data[...] = -0.2
    optimizer.state[p][name] = np.full(3, value, optimizer.state[p][name].dtype)
    optimizer.step()
    assert (p.data == np.float64(-0.2) - move).all()


def test_gradients_in_a_row_some_of_which_are_missing(path):
    for missing in (0, 1, 2):
        arrays = [np.zeros(n) for n in (3, 4, 5)]
        params = [Parameter(a) for a in arrays]
        flatten(params)
        optimizer = Rprop(params)
        params[missing].grad = None
        for _ in range(3):
            for p in params:
                if p.grad is not None:
                    p.grad[...] = 1
            optimizer.step()
        assert ([float(p.data[0]) for p in params]
                == [0 if k == missing else -(0.01 + 0.01 * 1.2 + 0.01 * 1.2 * 1.2) for k in range(3)])


def test_a_sparse_gradient_after_flatten_is_refused_by_name():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    params = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(4))]
    flatten(params)
    optimizer = Rprop(params)
    optimizer.step()
    params[1].grad = torch.ones(4).to_sparse()
    with pytest.raises(ValueError, match='layout'):
        optimizer.step()


def test_a_matrix_as_gradient():
    p = Parameter(np.zeros((2, 2)))
    with pytest.warns(PendingDeprecationWarning):
        p.grad = np.matrix(np.ones((2, 2)))
    Rprop([p]).step()
    assert (p.data == -0.01).all()


def test_a_memory_that_is_held_and_replaced_later_is_used(path):
    optimizer, (p,) = first_step(np.zeros(3), lr=0.1)
    held = optimizer.state
    for _ in range(2):
        optimizer.step()
    held[p] = {'step': 0, 'sign': np.zeros(3, np.int8), 'step_size': np.full(3, 0.5)}
    p.data[...] = 0
    optimizer.step()
    assert (p.data == -0.5).all() and held[p]['step'] == 1


def test_a_state_of_the_users_own_is_used(path):
    optimizer, (p,) = first_step(np.zeros(3), lr=0.1)
    optimizer.state = {}
    p.data[...] = 0
    optimizer.step()
    assert (p.data == -0.1).all() and optimizer.state[p]['step'] == 1
    optimizer.state = mine = {p: {'step': 7, 'sign': np.ones(3, np.int8), 'step_size': np.full(3, 0.25)}}
    optimizer.step()
    assert optimizer.state[p]['step'] == 8 and mine[p]['step_size'].tolist() == [0.25] * 3  # it was copied
    assert (p.data == -0.1 - 0.25 * 1.2).all()


@pytest.mark.parametrize('way', ['stay', 'leave and come back', 'change places'])
def test_groups_that_leave_and_come_back(path, way):
    groups = [[Parameter(np.zeros(3)) for _ in range(2)], [Parameter(np.zeros(4)) for _ in range(2)]]
    optimizer = Rprop([{'params': ps} for ps in groups], lr=1.0)

    def step(*ps):
        for p in groups[0] + groups[1]:
            p.grad = np.ones(p.shape) if p in ps else None
        optimizer.step()
    step(*groups[0], *groups[1])
    away = optimizer.param_groups.pop(0) if way == 'leave and come back' else None
    if way == 'change places':
        optimizer.param_groups.reverse()
    for _ in range(3):
        step(*groups[1])
    if away:
        assert len(optimizer.state_dict()['state']) == 2
        optimizer.param_groups.insert(0, away)
    elif way == 'change places':
        optimizer.param_groups.reverse()
    step(*groups[0], *groups[1])
    sizes, w = np.cumprod([1, 1.2, 1.2, 1.2, 1.2]), 0.0
    for size in sizes:
        w -= size
    assert groups[1][0].data[0] == w
    assert [m['step'] for m in optimizer.state_dict()['state'].values()] == [2, 2, 5, 5]


@pytest.mark.parametrize('groups', [[[0, 1]], [[0], [1]]], ids=['one group', 'two groups'])
def test_the_memory_follows_the_type_of_the_weights(path, groups):
    # the memory of a network that is made float32 in mid-run follows: its steps are rounded once, and are
    # float32 from then on
    random = np.random.default_rng(0)
    narrow, wide = Parameter(random.normal(size=1000)), Parameter(random.normal(size=20).astype(np.float32))
    both, gs = [narrow, wide], random.normal(size=(20, 1000))
    optimizer = Rprop([{'params': [both[i] for i in group]} for group in groups], lr=0.01)
    wide.grad = np.ones(20, np.float32)
    states = [None, init(wide.data, 0.01)]
    for k, g in enumerate(gs):
        if k == 5:
            narrow.data = narrow.data.astype(np.float32)
            states[0] = states[0]._replace(step=states[0].step.astype(np.float32))
        narrow.grad = g.astype(narrow.dtype)
        states[0] = states[0] or init(narrow.data, 0.01)
        expected = []
        for i, p in enumerate(both):
            dw, states[i] = update(p.grad, states[i], variant='irprop-')
            expected.append((p.data + dw).astype(p.dtype))
        optimizer.step()
        assert [bits(p.data) for p in both] == [bits(w) for w in expected]
    assert (optimizer.state[narrow]['step_size'].dtype == np.float32
            and optimizer.state[wide]['step_size'].dtype == np.float32)


def test_an_array_that_was_resized_is_refused_before_anything_moves(path):
    optimizer, (p, q) = first_step(np.zeros(1000), np.zeros(7))
    p.data.resize((300_000,), refcheck=False)
    before, p.grad = q.data.copy(), np.ones(300_000)
    with pytest.raises(ValueError, match=r'has shape \(300000,\) now, and its memory \(1000,\)'):
        optimizer.step()
    assert bits(q.data) == bits(before) and not p.data[1000:].any()


@pytest.mark.parametrize('shape, view', [((300, 300), lambda w: w.T), ((90_000,), lambda w: w[::-1]),
                                         ((3, 2), lambda w: w.T.reshape(3, 2)),
                                         ((100,), lambda w: w), ((100,), lambda w: w[:])])
def test_a_gradient_that_is_a_view_of_its_weights(path, shape, view):
    w = np.random.default_rng(0).normal(size=shape)
    p, apart, state = Parameter(w), w.copy(), init(w, 0.1)
    optimizer = Rprop([p], lr=0.1)
    for _ in range(5):
        p.grad = view(p.data)
        optimizer.step()
        dw, state = update(view(apart), state, variant='irprop-')
        apart = apart + dw
    assert bits(p.data) == bits(apart)


def test_a_gradient_that_is_shifted_against_its_weights(path):
    row, apart = np.random.default_rng(0).normal(size=(2, 1001))
    apart[:] = row
    p, state = Parameter(row[:1000]), init(row[:1000], 0.1)
    p.grad = row[1:]
    optimizer = Rprop([p], lr=0.1)
    for _ in range(5):
        optimizer.step()
        dw, state = update(apart[1:], state, variant='irprop-')
        apart[:1000] += dw
    assert bits(row) == bits(apart)


def test_weights_of_complex_numbers_that_became_read_only():
    optimizer, (p,) = first_step(np.zeros(3, complex))
    before = p.data.copy()
    p.data.flags.writeable = False
    with pytest.raises(ValueError, match='read-only'):
        optimizer.step()
    assert bits(p.data) == bits(before)


@pytest.mark.parametrize('lost', ['step', 'sign', 'step_size'])
def test_nothing_can_be_taken_out_of_a_memory(path, lost):
    front, p = Parameter(np.zeros(2)), Parameter(np.zeros(3))
    optimizer = Rprop([{'params': [front]}, {'params': [('w', p)]}])
    front.grad, p.grad = np.ones(2), np.ones(3)
    optimizer.step()
    with pytest.raises(TypeError, match=f"a memory needs '{lost}': .* del optimizer.state"):
        del optimizer.state[p][lost]
    with pytest.raises(ValueError, match='a memory holds step, sign and step_size'):
        optimizer.state[p] = {key: value for key, value in optimizer.state[p].items() if key != lost}
    optimizer.step()
    assert optimizer.state[p]['step'] == 2
    optimizer.state[p].clear()  # an empty one is begun anew
    optimizer.step()
    assert optimizer.state[p]['step'] == 1


def test_a_limit_of_minus_zero_is_zero(path):
    p = Parameter(np.zeros(3))
    optimizer = Rprop([p], lr=0.0, step_sizes=(-0.0, 1.0))
    p.grad = np.array([1.0, -1.0, 0.0])
    optimizer.step()
    assert bits(optimizer.state[p]['step_size']) == bits(np.zeros(3))


def test_first_steps_of_a_wrong_shape_are_refused_before_anything_moves():
    front, p = Parameter(np.zeros(2)), Parameter(np.zeros(3))
    optimizer = Rprop([{'params': [front]}, {'params': [('w', p)]}])
    with pytest.raises(ValueError, match=r'lr has shape \(2,\) and does not broadcast to w'):
        optimizer.param_groups[1]['lr'] = np.ones(2)
    front.grad, p.grad = np.ones(2), np.ones(3)
    optimizer.step()
    assert (front.data == -0.01).all() and (p.data == -0.01).all()


def test_flatten_refuses_gradients_that_do_not_fit():
    params = [Parameter(np.zeros(3)), Parameter(np.zeros(4))]
    params[0].grad = np.ones(4)
    with pytest.raises(ValueError, match='another shape'):
        flatten(params)
    params[0].grad = np.ones(3, np.float32)
    with pytest.raises(TypeError, match='one type'):
        flatten(params)
    assert params[0].data.base is None


def test_gradients_of_tensors_in_a_row_that_are_turned():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    params = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(4))]
    flatten(params)
    optimizer = Rprop(params, lr=1.0)
    params[0].grad[...] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    optimizer.step(), optimizer.step()
    assert params[0].detach().tolist() == [[0, -(1 + torch.tensor(1.2).item())], [0, 0]]
    before = params[0].detach().clone()
    params[0].grad.t_()
    optimizer.step()
    assert (params[0].detach() - before).tolist() == [[0, 0], [-1, 0]]


def test_a_lazy_conjugate_is_refused():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    with pytest.raises(ValueError, match='resolve_conj'):
        Rprop([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64).conj())])


def test_counts_read_by_another_thread(path):
    p = Parameter(np.zeros(3))
    p.grad = np.ones(3)
    optimizer, going = Rprop([p]), [True]
    optimizer.step()

    def look():
        while going:
            optimizer.state_dict()
    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    for _ in range(2000):
        optimizer.step()
    going.clear()
    reader.join(60)
    assert optimizer.state[p]['step'] == 2001


@pytest.mark.parametrize('w_at, g_at', [(0, 3), (3, 0)])
def test_a_row_of_gradients_that_overlaps_the_row_of_weights(path, w_at, g_at):
    row = np.random.default_rng(0).normal(size=1003)
    apart, state = row.copy(), init(row[:1000], 0.1)
    params = [Parameter(part) for part in np.split(row[w_at:w_at + 1000], [400])]
    params[0].grad, params[1].grad = np.split(row[g_at:g_at + 1000], [400])
    optimizer = Rprop(params, lr=0.1)
    for _ in range(5):
        optimizer.step()
        dw, state = update(apart[g_at:g_at + 1000], state, variant='irprop-')
        apart[w_at:w_at + 1000] += dw
    assert bits(row) == bits(apart)


def test_a_parameter_that_becomes_a_lazy_conjugate_is_refused():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = Rprop([p])
    p.grad = torch.ones(2, dtype=torch.complex64)
    optimizer.step()
    p.grad, p.data = None, p.data.conj()
    before, p.grad = p.detach().clone(), torch.ones(2, dtype=torch.complex64)
    with pytest.raises(ValueError, match='resolve_conj'):
        optimizer.step()
    assert torch.equal(p.detach(), before)


def test_a_parameter_that_becomes_a_lazy_minus_is_refused():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = Rprop([p])
    p.grad = torch.ones(2)
    optimizer.step()
    p.grad, p.data = None, torch.complex(torch.zeros(2), torch.ones(2)).conj().imag  # -1, by a lazy minus
    assert p.is_neg()
    before, p.grad = p.detach().clone(), torch.ones(2)
    with pytest.raises(ValueError, match='resolve_neg'):
        optimizer.step()
    assert torch.equal(p.detach(), before)


def test_pairs_of_reals_are_no_gradient_of_complex_weights():
    optimizer, (p,) = first_step(np.zeros(3, complex))
    p.grad = np.ones((3, 2))
    with pytest.raises(ValueError, match=r'has shape \(3, 2\), its weights have \(3,\)'):
        optimizer.step()


def test_a_parameter_that_claims_to_equal_another_is_another():
    class Vain:
        def __init__(self, data):
            self.data, self.grad = data, np.ones_like(data)
            self.dtype, self.shape = data.dtype, data.shape

        __hash__ = object.__hash__

        def __eq__(self, other):
            return True
    first = Vain(np.zeros(3))
    second = Vain(first.data)
    optimizer = Rprop([first], lr=1.0)
    optimizer.step()
    optimizer.param_groups[0]['params'][0] = second
    optimizer.step()
    assert (first.data == -2).all() and [m['step'] for m in optimizer.state.values()] == [1, 1]


def test_tensors_that_are_replaced_in_the_list_are_noticed():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    for p in params:
        p.grad = torch.ones(1)
    optimizer = Rprop(params[:2], lr=1.0)
    optimizer.step()
    params[2].data.fill_(-1)
    optimizer.param_groups[0]['params'][1] = params[2]  # equal to what it replaces, and another
    optimizer.step()
    assert [float(p.detach()) for p in params] == [float(-1 - torch.tensor(1.2)), -1, -2]


def test_steps_of_another_type_that_somebody_put_into_a_memory(path):
    optimizer, (p, q) = first_step(np.zeros(20, np.float16), np.ones(3, np.float16))
    for x in (p, q):
        optimizer.state[x]['step_size'] = optimizer.state[x]['step_size'].astype(np.float16)
    assert (optimizer.state[p]['step_size'].dtype == np.float32
            and optimizer.state[p]['step_size'][0] == np.float16(0.01))
    state = State(optimizer.state[p]['sign'].copy(), optimizer.state[p]['step_size'].copy())
    expected = p.data.copy()
    for _ in range(3):
        dw, state = update(p.grad, state, variant='irprop-')
        expected += dw
        optimizer.step()
        assert bits(p.data) == bits(expected) and bits(optimizer.state[p]['step_size']) == bits(state.step)


def test_what_has_no_gradient_keeps_no_step_out_of_a_graph(monkeypatch):
    torch, asked = pytest.importorskip('torch', reason='torch is not installed'), []
    monkeypatch.setattr(step, 'check_capture', lambda weights, begun: asked.append(begun))
    w, idle = (torch.zeros(3, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    optimizer = Rprop([w, idle])
    for p, begun in ((w, False), (w, True), (idle, False), (idle, True)):
        p.grad = torch.ones_like(p)  # NumPy cannot look into bfloat16, so it takes the way of a GPU
        optimizer.step()
        assert asked[-1] is begun


@pytest.mark.filterwarnings('ignore:the matrix subclass:PendingDeprecationWarning')
@pytest.mark.parametrize('n', [2, 300])
def test_another_kind_of_array_of_the_same_type_and_shape_is_planned_anew(n):
    optimizer, (p,) = first_step(np.zeros((n, n)))
    plan, = optimizer.param_groups[0].plans
    p.data = np.asmatrix(p.data)
    assert plan.read() is None  # the kernels count on arrays: a row of a matrix has two axes
    optimizer.step()
    assert np.asarray(p.data).tolist() == [[-0.01 - 0.01 * 1.2] * n] * n
