"""What users replace, change and share between two steps: weights, gradients, memories, settings, whole groups."""
import copy
import math
import threading

import numpy as np
import pytest
from streams import bits

from rprop_lit import Parameter, Rprop, State, init, update
from rprop_lit.arrays import backend
from rprop_lit.engine import flatten
from rprop_lit.memory import read_arrays


@pytest.fixture(params=['numpy', 'numba'])
def path(request):
    if request.param == 'numba':
        pytest.importorskip('numba', reason='Numba is not installed: the compiled path is left out')
    before = backend()
    backend(request.param)
    yield request.param
    backend(before)


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
    with pytest.raises(ValueError, match=rf'w has shape \({2 * n},\) now, and its memory \({n},\): to start it anew, del optimizer.state'):
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
    assert [optimizer.state[p]['sign'].tolist() for p in params] == [[0, 0], [0, 0]]  # a flip, seen and forgotten


def test_an_empty_parameter_before_a_large_one(path):
    optimizer, (empty, large) = first_step(np.zeros(0), np.zeros(70_000))
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


@pytest.mark.parametrize('name, value', [('etas', (0.5,)), ('etas', (1.2, 0.5)), ('etas', (0.5, math.nan)), ('etas', (0.5, 'x')), ('step_sizes', None),
                                         ('step_sizes', (1, 0)), ('variant', 'adam'), ('nonfinite', 'skip'), ('maximize', 'no'), ('lr', -1)])
def test_settings_that_change_are_checked_before_anything_moves(name, value):
    a, b = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    optimizer = Rprop([{'params': [a]}, {'params': [b]}])
    a.grad = b.grad = np.ones(2, np.float32)
    optimizer.step()
    at, good = a.data.copy(), optimizer.param_groups[1][name]
    optimizer.param_groups[1][name] = value
    with pytest.raises(ValueError, match=name):
        optimizer.step()
    assert bits(a.data) == bits(at) and optimizer.state[a]['step'] == 1
    optimizer.param_groups[1][name] = good
    optimizer.step()
    assert optimizer.state[b]['step'] == 2


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

    threads = [threading.Thread(target=save, args=[o]) for o in optimizers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert 'groups' in read_arrays(path)
    assert not faults and [f.name for f in tmp_path.iterdir()] == ['state.npz']


def test_its_own_files_are_never_too_large(tmp_path):
    n, random = 3_000, np.random.default_rng(0)
    settings = dict(lr=random.random(n), etas=(random.random(n) * .9 + .05, 1 + random.random(n)), step_sizes=(random.random(n) * 1e-6, 1 + random.random(n)))
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


def test_engines_do_not_pile_up():
    optimizer, (p,) = first_step(np.zeros(3))
    for k in range(50):
        optimizer.param_groups[0]['params'] = [p]
        optimizer.param_groups[0]['step_sizes'] = (1e-6, 50.0 + k)
        optimizer.step()
    engine, = optimizer.engines.values()
    assert len(engine.runners) == 1


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
    assert bits(p.data) == bits(t.detach().numpy()) and isinstance(optimizer.state_dict()['state'][1]['prev'], torch.Tensor)


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


@pytest.mark.parametrize('change, says', [({'step': -5}, 'whole number'), ({'step': 1.7}, 'whole number'), ({'step': 'x'}, 'could not convert'), ({'step': math.inf}, 'whole number')])
def test_counts_that_cannot_be(change, says):
    optimizer, (p,) = first_step(np.zeros(2))
    d = optimizer.state_dict()
    d['state'][0].update(change)
    with pytest.raises(ValueError, match=says):
        optimizer.load_state_dict(d)
    assert optimizer.state[p]['step'] == 1


@pytest.mark.parametrize('change', [{'loss': math.nan}, {'loss': 'x'}, {'loss': None}, {'maximize': 'no'}, {'lr': [1.0, 2.0, 3.0]}, {'params': 3}], ids=str)
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
    for settings in (dict(lr=1e300), dict(step_sizes=(1e39, 1e40)), dict(etas=(0.5, 1e300)), dict(step_sizes=(0, math.inf))):
        p = Parameter(np.zeros(2, np.float32))
        optimizer = Rprop([p], **settings)
        with np.errstate(over='ignore'):  # of the weight itself, which the user asked to move that far
            for _ in range(3):
                p.grad = np.ones(2, np.float32)
                optimizer.step()
        assert np.isfinite(optimizer.state[p]['step_size']).all()
