"""What is refused before anything moves, and what is taken although it looks odd:
settings, parameters, gradients, memories, files."""
import copy
import math
import os
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import pytest
from streams import VARIANTS, bits

from rprop_lit.conformance import check
from rprop_lit.inside.settings import Settings
from rprop_lit.optim import Parameter, Row, Rprop
from rprop_lit.rule import init
from rprop_lit.variants import update


def two_groups(p, **settings):
    "A good parameter in the first group, another in the second, both with gradients"
    good = Parameter(np.zeros(2))
    optimizer = Rprop([{'params': [good]}, {'params': [('b', p)], **settings}])
    good.grad = np.ones(2)
    return good, optimizer


# ---- settings

@pytest.mark.parametrize('settings', [dict(step_sizes=(1e-6, np.ones(3))), dict(etas=(.5, np.full(3, 1.2))),
                                      dict(step_sizes=([], 50.)), dict(lr=np.ones(3)),
                                      dict(step_sizes=(1e-6, 10**400)), dict(lr=10**400), dict(lr=1j),
                                      dict(lr=np.complex128(1)), dict(lr=np.array(['.1'] * 4)),
                                      dict(lr=np.array([.1] * 4, object)), dict(lr=np.array([True] * 4)),
                                      dict(lr=np.ones(4, complex)), dict(lr='0.1'),
                                      dict(step_sizes=([1, 1], [2, 2, 2])),
                                      dict(lr=np.ma.array([1., 2., 3., 4.], mask=[0, 1, 0, 0])),
                                      dict(etas=(.5, 'x'))])
def test_settings_that_do_not_fit_are_refused_by_name(settings):
    name, = settings
    with pytest.raises(ValueError, match=name):
        two_groups(Parameter(np.zeros(4)), **settings)
    for steps in (0, 2):  # before a memory has begun, and after
        good, optimizer = two_groups(p := Parameter(np.zeros(4)))
        p.grad = np.ones(4)
        for _ in range(steps):
            optimizer.step()
        before = bits(good.data), bits(p.data)
        with pytest.raises(ValueError, match=name):
            optimizer.param_groups[1].update(settings)
        assert before == (bits(good.data), bits(p.data))
        optimizer.step()  # with the settings that it had
        assert bits(p.data) == bits(np.full(4, good.data[0]))


def test_settings_of_every_kind_of_number_move_alike(tmp_path):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    ends = []
    for lr in (0.5, Fraction(1, 2), np.float32(.5), np.longdouble(.5), np.array(.5),
               torch.tensor(.5, requires_grad=True), [.5, .5], np.full(2, .5),
               torch.full((2,), .5, dtype=torch.bfloat16)):
        p = Parameter(np.zeros(2))
        optimizer = Rprop([p], lr=lr)
        p.grad = np.ones(2)
        optimizer.step()
        optimizer.save(tmp_path / 'state.npz')
        optimizer.load(tmp_path / 'state.npz')
        ends.append(bits(p.data))
    assert len(set(ends)) == 1


def test_a_complex_tensor_as_a_first_step_is_shown_as_it_came():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    for lr in (torch.ones(2, dtype=torch.complex64), torch.tensor(1j)):
        with pytest.raises(ValueError, match=r'lr=tensor\(.*j'):
            Rprop([Parameter(np.zeros(2))], lr=lr)


def test_a_first_step_is_looked_at_again_where_a_memory_begins_anew():
    good, optimizer = two_groups(p := Parameter(np.zeros(3)), lr=np.ones(3))
    p.grad = np.ones(3)
    optimizer.step()
    p.data, p.grad = np.zeros(6), np.ones(6)
    del optimizer.state[p]
    with pytest.raises(ValueError, match=r'lr has shape \(3,\) and does not broadcast to b of shape \(6,\)'):
        optimizer.step()
    assert good.data.tolist() == [-.01, -.01]


@pytest.mark.parametrize('settings', [dict(step_sizes=(1e-6, np.array([.1, .5]))),
                                      dict(etas=(np.full(2, .5), 1.2))])
def test_arrays_for_complex_weights(settings):
    with pytest.raises(ValueError, match='holds an array and parameter 0 is complex'):
        Rprop([Parameter(np.zeros(2, complex))], **settings)
    p = Parameter(np.zeros(2, complex))
    p.grad = np.full(2, 1 + 1j)
    Rprop([p], lr=np.array([.1, .5])).step()
    assert p.data.tolist() == [-.1 - .1j, -.5 - .5j]


def test_settings_that_are_arrays_cannot_change_unseen():
    high = np.full(2, 50.)
    p = Parameter(np.zeros(2))
    optimizer = Rprop([p], lr=np.full(2, 0.1), step_sizes=(1e-6, high))
    saved = optimizer.state_dict()
    high[:] = -1
    p.grad = np.ones(2)
    optimizer.step()
    assert p.data.tolist() == [-.1, -.1]
    with pytest.raises(ValueError, match='read-only'):
        optimizer.param_groups[0]['lr'][:] = np.nan
    saved['param_groups'][0]['names'].clear()
    optimizer.step()
    assert optimizer.param_groups[0]['names'] == ['parameter 0']


def test_options_are_checked_twice_without_harm():
    once = Settings(lr=np.ones(2), etas=(.5, 1.2), step_sizes=(0, np.ones(2)), variant='Rprop-')
    twice = replace(once, maximize=True)
    assert (twice.lr.tolist() == [1, 1] and twice.variant == 'rprop-'
            and not twice.step_sizes[1].flags.writeable)
    with pytest.raises(AttributeError):
        once.lr = 2


# ---- numbers beyond the type of the steps

@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('settings', [dict(lr=1e39), dict(lr=1e39, step_sizes=(0, np.inf)),
                                      dict(lr=0.0, etas=(.5, 1e39), step_sizes=(0, 50.)),
                                      dict(lr=1e-40, etas=(.5, 1e100), step_sizes=(0, 50.)),
                                      dict(lr=np.full(3, 1e300))])
@pytest.mark.parametrize('dtype', [np.float16, np.float32])
def test_steps_and_factors_beyond_the_type_are_the_largest_that_it_holds(path, variant, settings, dtype):
    p, w = Parameter(np.zeros(3, dtype)), np.zeros(3, dtype)
    optimizer = Rprop([p], variant=variant, **settings)
    with np.errstate(all='ignore'):
        state = init(w, np.minimum(settings['lr'], np.finfo(np.float32).max))
        for g, loss in zip((1, 1, -1, -1, 1, np.nan, 1), (3, 2, 4, np.nan, 1, 1, 2)):
            p.grad = np.full(3, g, dtype)
            optimizer.step(loss=loss)
            dw, state = update(p.grad, state, variant=variant, loss=loss,
                               **{key: value for key, value in settings.items() if key != 'lr'})
            w = (w + dw).astype(dtype)
            assert bits(p.data) == bits(w) and bits(optimizer.state[p]['step_size']) == bits(state.step)
    assert np.isfinite(state.step).all()


def test_a_first_step_needs_no_copy_of_the_weights():
    import tracemalloc
    p = Parameter(np.zeros(10**7, np.float32)[::2])
    p.grad, optimizer = np.zeros(p.shape, np.float32), Rprop([p], lr=1e39)
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert optimizer.state[p]['step_size'].max() == 50 and peak < 6 * p.data.size


# ---- parameters

class Odd:
    "An object with an array and a gradient, and no more"
    def __init__(self, data):
        self.data, self.grad = data, np.ones_like(data)


class Fresh(Odd):
    "An object that makes a new view of its array whenever it is asked"
    def __init__(self, data):
        self.own, self.grad = data, np.ones_like(data)

    data = property(lambda self: self.own[:])


@dataclass
class Unhashable:
    data: np.ndarray
    grad: np.ndarray = field(default_factory=lambda: np.ones(2))


@pytest.mark.parametrize('kind', [Odd, Fresh])
def test_anything_with_an_array_and_a_gradient_is_a_parameter(kind):
    ps = [kind(np.zeros(3)) for _ in range(4)]
    optimizer = Rprop(ps, lr=np.full(3, 0.01))
    optimizer.step()
    optimizer.step()
    assert all(p.data.tolist() == [-.022] * 3 for p in ps) and len(optimizer.state_dict()['state']) == 4


def test_what_has_no_hash_is_refused_before_anything_moves():
    with pytest.raises(TypeError, match='has no hash'):
        two_groups(Unhashable(np.zeros(2)))


@pytest.mark.parametrize('params, says', [
    ({Parameter([1.0])}, 'a set, whose order'), (frozenset([Parameter([1.0])]), 'a frozenset'),
    ({'params': [Parameter([1.0])]}, 'params is a dict: pass a list'),
    (None, 'params is a NoneType'), (len, 'params is a builtin_function'), ('abc', 'params is a str'),
    ([(Parameter([1.0]), Parameter([2.0]))], 'a pair'),
    ([('a', Parameter([1.0]), Parameter([2.0]))], 'a pair'), ([()], 'a pair')])
def test_what_is_no_list_of_parameters(params, says):
    with pytest.raises(TypeError, match=says):
        Rprop(params)


class Old:
    "A sequence of the old kind, which has no __iter__"
    def __init__(self, *ps):
        self.ps = ps

    def __len__(self):
        return len(self.ps)

    def __getitem__(self, i):
        return self.ps[i]


def test_sequences_and_names_of_other_kinds():
    ps = [Parameter([1.0]), Parameter([2.0])]
    assert Rprop(Old(*ps)).param_groups[0]['params'] == ps
    assert Rprop(list(enumerate(ps))).param_groups[0]['names'] == ['0', '1']

    def broken():
        yield ps[0]
        raise TypeError('mine')
    with pytest.raises(TypeError, match='mine'):
        Rprop(broken())


def test_empty_arrays_of_settings_fit_empty_parameters():
    p = Parameter(np.zeros(0))
    p.grad = np.zeros(0)
    assert Rprop([p], lr=np.zeros(0)).step() is None


def library(name):
    "A library of arrays, and what makes its arrays of lists"
    if name == 'torch':
        torch = pytest.importorskip('torch', reason='torch is not installed')
        return lambda x, dtype: torch.tensor(x, dtype=getattr(torch, dtype))
    if name == 'strict':
        strict = pytest.importorskip('array_api_strict', reason='array-api-strict is not installed')
        return lambda x, dtype: strict.asarray(x, dtype=getattr(strict, dtype))
    return np.array


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('name', ['numpy', 'torch', 'strict'])
def test_a_number_and_an_array_are_limits_of_update(name, dtype):
    make = library(name)
    low, high = [1e-3, .3], [.55, 40.0]
    for limits, each in [((0, high), [(0, .55), (0, 40)]), ((low, 50), [(1e-3, 50), (.3, 50)]),
                         ((low, high), [(1e-3, .55), (.3, 40)]),
                         ((low, float('inf')), [(1e-3, float('inf')), (.3, float('inf'))])]:
        limits = tuple(make(x, dtype) if isinstance(x, list) else x for x in limits)
        kinds = [(make([.5, .4], dtype), 1.2), (.5, make([1.2, 3.0], dtype))]
        for etas, factors in zip(kinds, ([(.5, 1.2), (.4, 1.2)], [(.5, 1.2), (.5, 3.0)])):
            state, alone = init(make([0, 0], dtype), .5), [init(np.zeros(1, dtype), .5) for _ in range(2)]
            for gs, loss in ([1, -1], 3.0), ([1, 1], 4.0), ([1, 1], 1.0), ([-1, 1], math.nan), ([1, -1], 2.0):
                dw, state = update(make(gs, dtype), state, variant='irprop+', etas=etas, step_sizes=limits,
                                   loss=loss)
                for i, g in enumerate(gs):
                    move, alone[i] = update(np.full(1, g, dtype), alone[i], variant='irprop+',
                                            etas=factors[i], step_sizes=each[i], loss=loss)
                    assert np.asarray(dw)[i] == move[0] and np.asarray(state.step)[i] == alone[i].step[0]


@pytest.mark.parametrize('name', ['numpy', 'torch', 'strict'])
@pytest.mark.parametrize('limits', [(1e-6, [1.0, 2.0, 3.0]), ([.1, .2, .3], 50.0)], ids=str)
def test_limits_that_do_not_fit_move_nothing_in_update(name, limits):
    make = library(name)
    limits = tuple(make(x, 'float64') if isinstance(x, list) else x for x in limits)
    _, state = update(make([1, -1], 'float64'), init(make([0, 0], 'float64'), .5), variant='rprop+')
    before = np.asarray(state.sign).copy(), np.asarray(state.step).copy(), state.loss
    with pytest.raises((ValueError, RuntimeError)):
        update(make([1, 1], 'float64'), state, variant='rprop+', step_sizes=limits)
    assert (np.array_equal(before[0], np.asarray(state.sign))
            and np.array_equal(before[1], np.asarray(state.step)) and before[2] == state.loss)


def test_settings_of_another_library_are_refused_by_name():
    strict = pytest.importorskip('array_api_strict', reason='array-api-strict is not installed')
    with pytest.raises(ValueError, match='lr='):
        Rprop([Parameter(strict.ones(3, dtype=strict.float32))], lr=strict.asarray([.1, .2, .3]))


def test_arrays_of_settings_follow_the_weights_to_their_device():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    p = torch.nn.Parameter(torch.zeros(3, device='meta'))
    p.grad = torch.zeros(3, device='meta')
    optimizer = Rprop([p], lr=np.full(3, .1))
    optimizer.step()
    assert optimizer.state[p]['step_size'].device.type == 'meta'


def test_what_is_no_group():
    optimizer = Rprop([Parameter([1.0])])
    with pytest.raises(TypeError, match='a group is a dict'):
        optimizer.add_param_group(Parameter([2.0]))
    assert len(optimizer.param_groups) == 1


def test_types_that_no_step_can_move():
    with pytest.raises(TypeError, match='at least 16 bits'):
        Parameter(np.zeros(2, [('float', 'f4')]))
    torch = pytest.importorskip('torch', reason='torch is not installed')
    with pytest.raises(TypeError, match='at least 16 bits'):
        Rprop([torch.nn.Parameter(torch.zeros(2).to(torch.float8_e4m3fn), requires_grad=False)])


# ---- gradients

def test_a_masked_gradient_is_refused_and_one_without_a_mask_is_taken():
    good, optimizer = two_groups(p := Parameter(np.zeros(2)))
    p.grad = np.ma.array([1.0, 2.0], mask=[0, 1])
    with pytest.raises(TypeError, match='the gradient of b is masked'):
        optimizer.step()
    assert not good.data.any() and not p.data.any()
    p.grad = np.ma.array([1.0, 2.0])
    optimizer.step()
    optimizer.step()
    assert p.data.tolist() == [-.022, -.022]


def test_a_gradient_with_a_lazy_minus():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    z = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    (z.conj() * 2).real.sum().backward()
    a, b = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    ours, theirs = Rprop([a]), torch.optim.Rprop([b])
    for turned in (z.grad.imag, torch.ones(3), -torch.ones(3), z.grad.imag):
        a.grad, b.grad = turned, turned
        ours.step(), theirs.step()
    assert z.grad.imag.is_neg() and torch.equal(a, b) and b.any()


@pytest.mark.parametrize('g', [np.float64(2.0), np.broadcast_to(np.ones(()), ())])
def test_gradients_that_cannot_be_written_are_cleared_too(g):
    a, b = Parameter(np.array(1.0)), Parameter(np.array(2.0))
    optimizer = Rprop([a, b])
    a.grad, b.grad = np.array(3.0), g
    held = a.grad
    optimizer.zero_grad(set_to_none=False)
    assert held == 0 and a.grad is held and b.grad == 0 and b.grad.shape == () and b.grad.flags.writeable


def test_a_gradient_made_in_inference_mode_is_cleared():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    p = torch.nn.Parameter(torch.zeros(3))
    with torch.inference_mode():
        p.grad = torch.ones(3)
    optimizer = Rprop([p])
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0, 0, 0]


def test_a_sparse_gradient_is_cleared():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    layer = torch.nn.Embedding(4, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    Rprop(layer.parameters()).zero_grad(set_to_none=False)
    assert layer.weight.grad.is_sparse and not layer.weight.grad.to_dense().any()


@pytest.mark.parametrize('dtype, lr', [(np.float16, 1e-5), (np.float32, 1e-40), (np.float16, 6e4)])
def test_numpy_may_be_told_to_raise(path, dtype, lr):
    ends = []
    for how in ('warn', 'raise'):
        a, b = Parameter(np.array([1e-5], dtype)), Parameter(np.zeros(1))
        optimizer = Rprop([{'params': [a]}, {'params': [b]}], lr=lr, step_sizes=(0, np.inf))
        with np.errstate(all=how):
            for g in (1, 1, -1, 1):
                a.grad, b.grad = np.full(1, g, dtype), np.full(1, g, float)
                optimizer.step()
        ends.append((bits(a.data), bits(b.data)))
    assert ends[0] == ends[1]


# ---- memories

@pytest.mark.parametrize('key, value, says', [
    ('step_size', np.full(3, 1), 'no array of float'), ('step_size', 0.1, 'no array of float'),
    ('step_size', [.1, .1, .1], 'no array of float'),
    ('sign', np.zeros(2, np.int8), 'its memory'), ('sign', np.zeros(3), 'no array of int8'),
    ('step_size', np.full(2, .1), 'its memory'),
    ('sign', np.full(3, 2, np.int8), '-1, 0 or 1'), ('step_size', np.full(3, -.1), 'at least 0'),
    ('step_size', np.full(3, np.nan), 'finite'),
    ('step', 1.5, 'whole number'), ('step', -1, 'whole number'), ('steps', 1, 'a memory holds')])
def test_a_memory_that_does_not_fit_is_refused_before_anything_moves(path, key, value, says):
    good, optimizer = two_groups(p := Parameter(np.zeros(3)))
    p.grad = np.ones(3)
    optimizer.step()
    memory = {name: np.array(value) for name, value in optimizer.state[p].items()}
    with pytest.raises(ValueError, match=says):
        optimizer.state[p][key] = value
    assert all(bits(value) == bits(optimizer.state[p][name]) for name, value in memory.items())
    optimizer.step()
    assert bits(p.data) == bits(np.full(3, good.data[0]))


def test_steps_of_long_doubles_are_used(path):
    good, optimizer = two_groups(p := Parameter(np.zeros(3)))
    p.grad = np.ones(3)
    optimizer.step()
    optimizer.state[p]['step_size'] = np.full(3, .25, np.longdouble)
    optimizer.step()
    assert p.data.tolist() == [-.01 - .3] * 3


def test_bfloat16_states_of_torch_are_read():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    p, q = (torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16)) for _ in range(2))
    theirs, ours = torch.optim.Rprop([p]), Rprop([q])
    p.grad = torch.tensor([1.0, -1.0, 0.0], dtype=torch.bfloat16)
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    lazy = copy.deepcopy(theirs.state_dict())
    lazy['state'][0]['prev'] = torch.complex(torch.zeros(3), -lazy['state'][0]['prev'].float()).conj().imag
    assert lazy['state'][0]['prev'].is_neg()
    Rprop([q]).load_state_dict(lazy)
    assert (ours.state[q]['sign'].tolist() == [1, -1, 0]
            and torch.equal(ours.state[q]['step_size'], theirs.state[p]['step_size'].float()))


def test_a_number_that_is_there_twice_in_a_state():
    ps = [Parameter([1.0]), Parameter([2.0])]
    optimizer = Rprop(ps)
    ps[0].grad = ps[1].grad = np.ones(1, np.float32)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    state['param_groups'][0]['params'] = [0, 0]
    del state['state'][1]
    with pytest.raises(ValueError, match='twice'):
        optimizer.load_state_dict(state)


# ---- files

def test_access_rights_and_links_survive(tmp_path):
    optimizer = Rprop([Parameter([1.0])])
    file, link = tmp_path / 'state.npz', tmp_path / 'latest.npz'
    old = os.umask(0o027)
    try:
        optimizer.save(file)
        assert file.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)
    file.chmod(0o444)  # the folder decides who may replace a file
    optimizer.save(file)
    assert file.stat().st_mode & 0o777 == 0o444
    file.chmod(0o664)
    link.symlink_to(file)
    before = file.read_bytes()
    optimizer.param_groups[0]['lr'] = 0.5
    optimizer.save(link)
    assert link.is_symlink() and file.read_bytes() != before and file.stat().st_mode & 0o777 == 0o664
    assert sorted(p.name for p in tmp_path.iterdir()) == ['latest.npz', 'state.npz']


def test_many_empty_parameters_can_be_saved(tmp_path):
    ps = [Parameter(np.zeros(0)) for _ in range(6000)]
    optimizer = Rprop(ps)
    for p in ps:
        p.grad = np.zeros(0)
    optimizer.step()
    optimizer.save(tmp_path / 'state.npz')
    optimizer.load(tmp_path / 'state.npz')
    assert len(optimizer.state) == 6000


def test_the_state_of_a_larger_model_is_not_called_damaged_alone(tmp_path):
    big, small = (Rprop([Parameter(np.zeros(n, np.float32))]) for n in (10**6, 2))
    big.param_groups[0]['params'][0].grad = np.ones(10**6, np.float32)
    big.step()
    big.save(tmp_path / 'state.npz')
    with pytest.raises(ValueError, match='of a larger model'):
        small.load(tmp_path / 'state.npz')


def test_rows_are_still_checked_at_the_door():
    with pytest.raises(TypeError, match='without a .grad'):
        Row([np.zeros(2)])
    assert check(lambda w, lr, etas, step_sizes: lambda w, g, loss: w).variant in VARIANTS
