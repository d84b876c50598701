"""Whose memory is whose: assigned as a whole, put back after a change of shape, found by names and numbers;
and what a group must keep."""
import copy
import io
import math
import pickle

import numpy as np
import pytest
from streams import bits

from rprop_lit import Parameter, Rprop
from rprop_lit.inside.memory import Memory, Store
from rprop_lit.inside.settings import Settings
from rprop_lit.optim import Row

ITEMS = ['params', 'names', 'loss', 'lr', 'etas', 'step_sizes', 'variant', 'maximize', 'nonfinite']


def stepped(*sizes, **settings):
    "An optimizer that has made two steps, and its parameters"
    ps = [Parameter(np.zeros(n)) for n in sizes]
    optimizer = Rprop(ps, **settings)
    for p in ps:
        p.grad = np.ones(p.shape)
    for _ in range(2):
        optimizer.step()
    return optimizer, ps


def shown(optimizer):
    "All that is remembered, in bits"
    return [(id(p), m['step'], bits(m['sign']), bits(m['step_size'])) for p, m in optimizer.state.items()]


# ---- the state as a whole

@pytest.mark.parametrize('way', [lambda o: o.state, lambda o: dict(o.state), lambda o: copy.copy(o.state)])
def test_a_state_that_is_kept_can_be_put_back(path, way):
    optimizer, (p, q) = stepped(3, 20_000)
    other, (_, ours) = stepped(3, 20_000)
    before, kept = shown(optimizer), way(optimizer)
    optimizer.state = way(optimizer)
    assert shown(optimizer) == before
    optimizer.state = {}
    assert not optimizer.state
    optimizer.step()
    assert optimizer.state[q]['step'] == 1
    q.data[...] = ours.data
    optimizer.state = kept
    assert shown(optimizer) == before
    optimizer.step(), other.step()
    assert bits(q.data) == bits(ours.data) and optimizer.state[p]['step'] == 3


def test_an_empty_state_starts_everything_anew(path):
    optimizer, (p,) = stepped(3, lr=0.5)
    optimizer.state, p.data[...] = {}, 0
    optimizer.step()
    assert (p.data == -0.5).all() and optimizer.state[p]['step'] == 1


@pytest.mark.parametrize('value, error', [({'step': 1}, ValueError), (None, TypeError), (7, TypeError)])
def test_a_state_that_is_refused_changes_nothing(value, error):
    optimizer, (p, q) = stepped(2, 2)
    before = shown(optimizer)
    good = {key: np.array(value) for key, value in optimizer.state[p].items()}
    with pytest.raises(error):
        optimizer.state = {p: {**good, 'step': 9}, q: value}
    assert shown(optimizer) == before
    for bad in (None, {Parameter([1.0]): good}):
        with pytest.raises((KeyError, TypeError)):
            optimizer.state = bad
        assert shown(optimizer) == before
    optimizer.step()
    assert optimizer.state[p]['step'] == optimizer.state[q]['step'] == 3


# ---- other shapes, other members

def test_a_memory_that_was_pruned_with_its_weights_is_put_back(path):
    optimizer, (front, p) = stepped(2, 10)
    memory = optimizer.state[p]
    kept = {'step': 2, 'sign': memory['sign'][:5].copy(), 'step_size': np.full(5, 0.5)}
    whole = p.data
    p.data, p.grad = p.data[:5].copy(), np.ones(5)
    del optimizer.state[p]
    optimizer.state[p] = kept
    assert optimizer.state[p]['step_size'].tolist() == [0.5] * 5
    optimizer.step()
    assert (p.data == -0.022 - 0.6).all()
    assert optimizer.state[p]['step'] == optimizer.state[front]['step'] == 3
    p.data, p.grad = whole, np.ones(10)
    optimizer.state[p] = {'step': 4, 'sign': np.ones(10, np.int8), 'step_size': np.full(10, 1.0)}
    optimizer.step()
    assert (p.data == -0.022 - 1.2).all() and optimizer.state[p]['step'] == 5


def test_a_memory_for_a_shape_that_came_and_went_is_used():
    optimizer, (p,) = stepped(4)
    whole, p.data = p.data, p.data[:2].copy()
    optimizer.state[p] = {'step': 7, 'sign': np.ones(2, np.int8), 'step_size': np.ones(2)}
    p.data = whole
    with pytest.raises(ValueError, match=r'has shape \(4,\) now, and its memory \(2,\)'):
        optimizer.step()
    with pytest.raises(ValueError, match=r'the sign of this memory has shape \(2,\), its memory \(4,\)'):
        optimizer.state[p] = {key: np.array(value) for key, value in optimizer.state[p].items()}


def test_a_new_member_of_a_group_may_be_given_a_memory_before_its_first_step(path):
    optimizer, (p, q) = stepped(3, 3)
    new, stranger = Parameter(np.zeros(5)), Parameter(np.zeros(5))
    optimizer.param_groups[0]['params'][0], new.grad = new, np.ones(5)
    memory = {'step': 6, 'sign': np.ones(5, np.int8), 'step_size': np.full(5, 0.5)}
    with pytest.raises(KeyError):
        optimizer.state[stranger] = memory
    with pytest.raises(ValueError, match='a memory holds'):
        optimizer.state[new] = {'step': 6}
    assert new not in optimizer.state
    optimizer.state[new] = memory
    optimizer.step()
    assert (new.data == -0.6).all() and optimizer.state[new]['step'] == 7 and optimizer.state[q]['step'] == 3


# ---- counts

@pytest.mark.parametrize('step', [1e30, 2**63, 10**30, math.inf, math.nan, -1, 1.5, None, 'x', {}, [1, 2], 1j,
                                  np.ones(2)], ids=repr)
def test_a_count_that_cannot_be_is_refused_before_anything_is_written(step):
    optimizer, (p,) = stepped(1)
    before = shown(optimizer)
    new = {'step': step, 'sign': np.full(1, -1, np.int8), 'step_size': np.full(1, 9.0)}
    for put in (lambda: optimizer.state.__setitem__(p, new), lambda: optimizer.state[p].update(new),
                lambda: optimizer.load_state_dict({**optimizer.state_dict(), 'state': {0: {
                    'step': step, 'prev': np.full(1, -1.0), 'step_size': np.full(1, 9.0)}}})):
        with pytest.raises(ValueError, match='the number of steps of .* must be one whole number'):
            put()
        assert shown(optimizer) == before


@pytest.mark.parametrize('step', [5, 5.0, np.array([5]), np.array([[5.0]]), np.float32(5), np.uint8(5)])
def test_a_count_may_be_any_one_number(step):
    optimizer, (p,) = stepped(2)
    optimizer.state[p]['step'] = step
    assert optimizer.state[p]['step'] == 5 and type(optimizer.state[p]['step']) is int
    d = optimizer.state_dict()
    d['state'][0]['step'] = step
    optimizer.load_state_dict(d)
    assert optimizer.state[p]['step'] == 5


def test_the_largest_count_and_a_memory_without_a_place():
    optimizer, (p,) = stepped(2)
    optimizer.state[p]['step'] = 2**63 - 1
    assert optimizer.state[p]['step'] == 2**63 - 1
    fresh = Rprop([p])
    with pytest.raises(ValueError, match=r'made no step: assign the whole memory, optimizer.state\[p\] = '):
        fresh.state[p]['step'] = 1
    memory = Memory()
    assert memory.shape() is None
    memory.move(Store([np.zeros((2, 3))]), 0)
    assert memory.shape() == (2, 3)


# ---- groups by name

CAPS = {'a': 0.1, 'b': 5.0, 'c': 3.0}


def grouped(*groups):
    "An optimizer with groups of named parameters, whose largest step is that of their first name"
    ps = {name: Parameter(np.zeros(1)) for group in groups for name in group}
    optimizer = Rprop([{'params': [(n, ps[n]) for n in group], 'step_sizes': (0, CAPS.get(group[0], 1.0))}
                       for group in groups], variant='irprop+')
    for p in ps.values():
        p.grad = np.ones(1)
    return optimizer, ps


def caps(optimizer):
    "The largest steps of the groups"
    return [group['step_sizes'][1] for group in optimizer.param_groups]


@pytest.mark.parametrize('ours', [('b', 'a'), ('cb', 'a'), ('a', 'cb')])
def test_settings_and_the_last_error_follow_the_names(ours, tmp_path):
    optimizer, _ = grouped('a', *(['bc'] if 'cb' in ours else ['b']))
    optimizer.step(loss=3.0)
    optimizer.param_groups[0]['loss'] = 2.0
    other, _ = grouped(*ours)
    optimizer.save(tmp_path / 'state.npz')
    for load in (lambda: other.load_state_dict(optimizer.state_dict()),
                 lambda: other.load(tmp_path / 'state.npz')):
        for group in other.param_groups:
            group.update(step_sizes=(0, 7.0), loss=9.0)
        assert not any(load())
        assert caps(other) == [{'a': 0.1, 'b': 5.0}[min(names)] for names in ours]
        assert [group['loss'] for group in other.param_groups] == [2.0 if n == 'a' else 3.0 for n in ours]


@pytest.mark.parametrize('ours', [('ab', 'c'), ('c', 'ab'), ('abc',), ('a', 'b', 'c')])
def test_a_model_in_other_groups_is_refused_or_keeps_its_settings(ours):
    optimizer, _ = grouped('a', 'bc')
    optimizer.step(loss=3.0)
    other, ps = grouped(*ours)
    before = caps(other)
    with pytest.raises(ValueError, match='the state is of (a model in other groups|another model)'):
        other.load_state_dict(optimizer.state_dict())
    assert not other.state and caps(other) == before
    other.load_state_dict(optimizer.state_dict(), strict=False)
    assert len(other.state) == 3 and caps(other) == before
    assert all(group['loss'] == math.inf for group in other.param_groups)


def test_a_part_of_a_model_takes_the_settings_of_the_groups_that_it_shares():
    optimizer, _ = grouped('ax', 'b', 'y')
    optimizer.step(loss=3.0)
    optimizer.param_groups[2]['step_sizes'] = (0, 0.25)
    other, _ = grouped('b', 'za', 'w')
    for group in other.param_groups:
        group['step_sizes'] = (0, 7.0)
    left = other.load_state_dict(optimizer.state_dict(), strict=False)
    assert left == (['z', 'w'], ['x', 'y']) and caps(other) == [5.0, 0.1, 0.25]
    last, _ = grouped('w', 'za', 'b')
    assert last.load_state_dict(optimizer.state_dict(), strict=False) and caps(last) == [1.0, 0.1, 5.0]


def test_groups_without_names_keep_their_order():
    ps = [Parameter(np.zeros(1)) for _ in range(4)]
    first, other = (Rprop([{'params': [p], 'lr': lr} for p, lr in zip(pair, (0.1, 0.2))])
                    for pair in (ps[:2], ps[2:]))
    other.param_groups[0]['lr'] = 9.0
    other.load_state_dict(first.state_dict())
    assert [group['lr'] for group in other.param_groups] == [0.1, 0.2]


# ---- numbers in the place of names

def test_parameters_without_a_name_are_numbered_through_all_groups():
    ps = [Parameter(np.zeros(2)) for _ in range(5)]
    optimizer = Rprop([{'params': ps[:2]}, {'params': ps[2:3]}])
    optimizer.add_param_group({'params': ps[3:]})
    names = [name for group in optimizer.param_groups for name in group['names']]
    assert names == [f'parameter {i}' for i in range(5)]
    for i, p in enumerate(ps):
        for q in ps:
            q.grad = np.ones(3 if q is p else 2)
        with pytest.raises(ValueError, match=f'the gradient of parameter {i} has shape'):
            optimizer.step()
    with pytest.raises(TypeError, match='parameter 5 is a list'):
        optimizer.add_param_group({'params': [[1.0]]})
    with pytest.raises(TypeError, match='parameter 1 is a list'):
        Rprop([{'params': ps[:1]}, {'params': [[1.0]]}])


@pytest.mark.parametrize('old', [True, False])
def test_numbers_are_no_names_in_new_files_and_in_old_ones(old):
    ps = [Parameter(np.zeros(1)) for _ in range(4)]
    first, other = Rprop([{'params': ps[:1]}, {'params': ps[1:2]}]), Rprop([('x', ps[2]), ('y', ps[3])])
    d = first.state_dict()
    if old:
        d['param_groups'][1]['names'] = ['parameter 0']
    with pytest.raises(ValueError, match=r'groups have \[1, 1\] parameters, these have \[2\]'):
        other.load_state_dict(d, strict=False)  # by order, since names did not decide
    named = Rprop([{'params': [('x', ps[2])]}, {'params': [('y', ps[3])]}])
    assert named.load_state_dict(d) == ([], [])


# ---- what a group must keep

@pytest.mark.parametrize('item', ITEMS)
def test_what_every_group_has_cannot_be_taken_out(item):
    optimizer, (p,) = stepped(2)
    group = optimizer.param_groups[0]
    before = dict(group)
    for take in (lambda: group.__delitem__(item), lambda: group.pop(item), lambda: group.pop(item, None),
                 group.popitem, group.clear):
        with pytest.raises(TypeError, match='a group needs .*: give it another value instead'):
            take()
        assert dict(group) == before
    for again in (copy.deepcopy(group), pickle.loads(pickle.dumps(group))):
        assert again.keys() == before.keys()


def test_entries_of_the_users_own_may_go():
    group = stepped(2)[0].param_groups[0]
    group.update(note='x', tag=1, more=2)
    assert group.pop('note') == 'x' and group.pop('note', 5) == 5 and group.popitem() == ('more', 2)
    del group['tag']
    with pytest.raises(KeyError):
        group.pop('tag')
    with pytest.raises(KeyError):
        del group['tag']
    assert set(group) == set(ITEMS)


# ---- into files

class Thing:
    "An object that JSON has no form for"
    def __repr__(self):
        return 'Thing()'


LOOP = []
LOOP.append(LOOP)


@pytest.mark.parametrize('value', [{'bias'}, Thing(), LOOP, {(1, 2): 3}, [Thing()]], ids=repr)
def test_an_entry_that_has_no_form_in_a_file_is_named(value, tmp_path):
    optimizer, _ = stepped(2)
    optimizer.save(tmp_path / 'state.npz')
    before = (tmp_path / 'state.npz').read_bytes()
    optimizer.param_groups[0].update(fine=[1, 'two', np.ones(2)], tags=value)
    with pytest.raises(TypeError, match="the entry 'tags' of a group cannot be saved"):
        optimizer.save(tmp_path / 'state.npz')
    assert (tmp_path / 'state.npz').read_bytes() == before
    optimizer.param_groups[0]['tags'] = {'bias': [1.5, None, True, np.float32(2)]}
    optimizer.save(file := io.BytesIO())
    file.seek(0)
    optimizer.load(file)


# ---- settings and parameters of other kinds

class Column:
    "A column of a table: its `get` needs a key"
    def __init__(self, values):
        self.values = np.array(values)
        self.dtype, self.ndim, self.shape = self.values.dtype, 1, self.values.shape

    def get(self, key):
        raise AssertionError('nobody asks for a key')

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.dtype)


def series(values):
    "A column of pandas"
    return pytest.importorskip('pandas', reason='pandas is not installed').Series(values, index=list('qr'))


@pytest.mark.parametrize('column', [Column, series])
def test_a_column_of_a_table_is_an_array(column):
    settings = Settings(lr=column([.1, .2]), step_sizes=(column([0., 1.]), np.array([1., 2.])))
    assert type(settings.lr) is np.ndarray and settings.lr.tolist() == [.1, .2]
    assert settings.step_sizes[0].tolist() == [0, 1]
    with pytest.raises(ValueError, match='lr='):
        Settings(lr=column([.1, -1]))
    optimizer, (p,) = stepped(2)
    d = optimizer.state_dict()
    d['state'][0].update(prev=column([-1., 1.]), step_size=column([.5, .25]))
    optimizer.load_state_dict(d)
    memory = optimizer.state[p]
    assert memory['sign'].tolist() == [-1, 1] and memory['step_size'].tolist() == [.5, .25]


@pytest.mark.filterwarnings('ignore:Sparse CSR')
@pytest.mark.parametrize('wrap', [lambda t: t, Parameter])
@pytest.mark.parametrize('kind', ['sparse_coo', 'sparse_csr', '_mkldnn'])
def test_a_tensor_without_strides_is_refused_by_name(kind, wrap):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    dense = torch.eye(3)
    table = {'sparse_coo': dense.to_sparse, 'sparse_csr': dense.to_sparse_csr, '_mkldnn': dense.to_mkldnn}
    if kind == '_mkldnn' and not torch.backends.mkldnn.is_available():
        pytest.skip('this build of torch has no mkldnn')
    odd, front = wrap(table[kind]()), Parameter(np.zeros(1))
    says = f'w has the layout torch.{kind}.* pass a dense tensor'
    with pytest.raises(TypeError, match=says):
        Rprop([('front', front), ('w', odd)])
    optimizer = Rprop([front])
    with pytest.raises(TypeError, match=says):
        optimizer.add_param_group({'params': [('w', odd)]})
    with pytest.raises(TypeError, match='a parameter of the Row has the layout'):
        Row([odd])
    late = Parameter(torch.zeros(3, 3))
    optimizer.add_param_group({'params': [('w', late)]})
    late.data, front.grad = table[kind](), np.ones(1)
    with pytest.raises(TypeError, match=says):
        optimizer.step()
    assert not front.data.any() and len(optimizer.param_groups) == 2


def test_gradients_of_two_libraries_are_told_apart_by_their_modules():
    class ndarray:  # as CuPy's is called
        dtype, shape = np.dtype(float), (2,)
        __array_namespace__ = staticmethod(lambda: math)
    ndarray.__module__ = 'cupy'
    p = Parameter(np.zeros(2))
    optimizer, p.grad = Rprop([p]), ndarray()
    with pytest.raises(TypeError, match='is a cupy.ndarray, its weights are a numpy.ndarray: convert one'):
        optimizer.step()
