"""Full batches in pieces: the tree, every kind of data, memory, names in errors. No Dask is needed here;
tests/test_cluster.py needs it."""
import asyncio
import os
import re
import subprocess
import sys
import threading
import types
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
from streams import bits

from rprop_lit import Parameter, Rprop, minimize, scale
from rprop_lit.inside import cluster, pieces
from rprop_lit.inside.pieces import PIECE_BYTES, pieces_of, rows_of
from rprop_lit.inside.sums import Manner, Sum, added
from rprop_lit.scale import _block_sum, full_batch, tree_sum


def least_squares(w, piece):
    "Half the squared errors of a linear model, and their gradient, summed over rows"
    X, y = piece
    off = X @ w - y
    return 0.5 * (off * off).sum(), X.T @ off


def data(rows=100, columns=5, dtype=float, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, columns)).astype(dtype), random.normal(size=rows).astype(dtype)


def cut(X, y, rows):
    return [(X[i:i + rows], y[i:i + rows]) for i in range(0, len(X), rows)]


# ---- the tree

def recursive(parts):
    "The definition: the largest power of two on the left, the rest on the right"
    if len(parts) == 1:
        return parts[0]
    half = 1 << (len(parts) - 1).bit_length() - 1
    return f'({recursive(parts[:half])}+{recursive(parts[half:])})'


def written(a, b):
    return f'({a}+{b})'


@pytest.mark.parametrize('n', [*range(1, 70), 127, 128, 129, 1000])
def test_the_tree_is_the_recursive_one(n):
    names = [str(i) for i in range(n)]
    assert tree_sum(iter(names), written) == recursive(names)


@pytest.mark.parametrize('size', [1, 2, 4, 8, 32])
def test_blocks_of_a_power_of_two_are_subtrees(size):
    for n in (1, 2, 3, 7, 31, 32, 33, 63, 65, 100):
        names = [str(i) for i in range(n)]
        assert (tree_sum([tree_sum(names[i:i + size], written) for i in range(0, n, size)], written)
                == tree_sum(names, written))


def test_few_sums_are_kept():
    alive = weakref.WeakSet()

    class Part:
        def __init__(self):
            alive.add(self)

    most = 0
    def parts():
        nonlocal most
        for _ in range(1000):
            most = max(most, len(alive))
            yield Part()
    tree_sum(parts(), lambda a, b: Part())
    assert most <= 12


def test_nothing_to_add():
    with pytest.raises(ValueError, match='no pieces'):
        tree_sum([])
    with pytest.raises(ValueError, match='no pieces'):
        full_batch(least_squares, [])(np.zeros(5))


# ---- pieces and the whole

@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('rows', [1, 7, 32, 99, 100, 1000])
def test_in_pieces_equals_the_same_tree_by_hand(rows, dtype):
    X, y = data(dtype=dtype)
    w = np.linspace(-1, 1, 5).astype(dtype)
    error, g = full_batch(least_squares, (X, y), batch_size=rows)(w)
    parts = [least_squares(w, piece) for piece in cut(X, y, rows)]
    assert error == tree_sum([float(e) for e, _ in parts])
    assert bits(g) == bits(tree_sum([d.astype(float) for _, d in parts]).astype(dtype))


@pytest.mark.parametrize('rows', [1, 7, 32, 99])
def test_in_pieces_equals_in_one_piece_nearly(rows):
    X, y = data(10_000)
    w = np.linspace(-1, 1, 5)
    error, g = full_batch(least_squares, (X, y), batch_size=rows)(w)
    whole, there = least_squares(w, (X, y))
    # sums in another order: a few last bits of the largest partial sum
    assert np.linalg.norm(g - there) <= 1e-12 * np.linalg.norm(there) and abs(error - whole) <= 1e-12 * whole


def test_one_piece_is_the_whole():
    X, y = data()
    w = np.linspace(-1, 1, 5)
    error, g = full_batch(least_squares, (X, y))(w)
    whole, there = least_squares(w, (X, y))
    assert error == whole and bits(g) == bits(there)


@pytest.fixture
def folder(tmp_path):
    X, y = data()
    np.save(tmp_path / 'X.npy', X)
    np.save(tmp_path / 'F.npy', np.asfortranarray(X))
    np.save(tmp_path / 'y.npy', y)
    for i, (part, target) in enumerate(cut(X, y, 10)):
        np.save(tmp_path / f'X{i}.npy', part)
        np.save(tmp_path / f'y{i}.npy', target)
        np.savez(tmp_path / f'{i}.npz', X=part, y=target)
    return tmp_path


class Iterable:
    "Pieces that are made anew each time"
    def __iter__(self):
        yield from cut(*data(), 10)


def by_name(w, piece):
    return least_squares(w, (piece['X'], piece['y']))


@pytest.mark.parametrize('name', ['arrays', 'memory maps', 'paths', 'text paths', 'list of arrays',
                                  'list of files', 'iterable', 'dict of arrays', 'dict of paths',
                                  'npz', 'strided'])
def test_every_kind_of_data_gives_the_same_bits(name, folder):
    X, y = data()
    maps = tuple(np.load(folder / f'{part}.npy', mmap_mode='r') for part in 'Xy')
    ways = {'arrays': (X, y), 'memory maps': maps, 'paths': (folder / 'X.npy', folder / 'y.npy'),
            'text paths': (str(folder / 'X.npy'), str(folder / 'y.npy')),
            'list of arrays': cut(X, y, 10), 'list of files': [(folder / f'X{i}.npy', folder / f'y{i}.npy')
                                                               for i in range(10)], 'iterable': Iterable(),
            'dict of arrays': {'X': X, 'y': y},
            'dict of paths': {'X': folder / 'X.npy', 'y': folder / 'y.npy'},
            'npz': [folder / f'{i}.npz' for i in range(10)], 'strided': (np.repeat(X, 2, axis=0)[::2], y)}
    cutting = name in ('arrays', 'memory maps', 'paths', 'text paths', 'dict of arrays', 'dict of paths',
                       'strided')
    f = full_batch(by_name if 'dict' in name or name == 'npz' else least_squares, ways[name],
                   batch_size=10 if cutting else None, mean=True)
    expected = full_batch(least_squares, (X, y), batch_size=10, mean=True)
    for w in (np.zeros(5), np.ones(5)):
        (error, g), (e, d) = f(w), expected(w)
        assert error == e and bits(g) == bits(d) and f.pieces == 10


def test_a_file_in_columns_gives_the_bits_of_an_array_in_columns(folder):
    X, y = data()
    files = full_batch(least_squares, (folder / 'F.npy', folder / 'y.npy'), batch_size=10)(np.ones(5))
    there = full_batch(least_squares, (np.asfortranarray(X), y), batch_size=10)(np.ones(5))
    assert files[0] == there[0] and bits(files[1]) == bits(there[1])


def test_pieces_of_a_list_are_cut_once_more():
    X, y = data()
    for way in (cut(X, y, 50), Iterable()):
        assert ([rows_of(p.source()) for p in pieces_of(way, 20)]
                == ([20, 20, 10] * 2 if isinstance(way, list) else [10] * 10))


def test_a_single_array_and_a_single_file(folder):
    f = full_batch(lambda w, X: ((X @ w).sum(), X.sum(0)), folder / 'X.npy', batch_size=30)
    g = full_batch(lambda w, X: ((X @ w).sum(), X.sum(0)), data()[0], batch_size=30)
    assert bits(f(np.ones(5))[1]) == bits(g(np.ones(5))[1]) and f.pieces == 4
    assert ([p.name for p in pieces_of(folder / '0.npz')] == ['']
            and pieces._opened(folder / '0.npz')['y'].shape == (10,))


def test_large_arrays_are_cut_without_being_told():
    wide = np.lib.stride_tricks.as_strided(np.zeros(1), (10**6, 50), (0, 0))
    found = [rows_of(p.source()) for p in pieces_of(wide)]
    assert sum(found) == 10**6 and found[0] == PIECE_BYTES // 400 and len(found) == 6
    assert [rows_of(p.source()) for p in pieces_of(np.zeros((3, 10**8), np.int8)[:, ::1])] == [1, 1, 1]


def unaligned(a):
    "A copy at an odd address"
    room = np.zeros(a.nbytes + 64, np.uint8)
    start = 1 + (-room.ctypes.data) % 16
    copy = room[start:start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    assert not copy.flags.aligned
    return copy


def test_where_an_array_lies_does_not_matter():
    # over a wire arrays arrive at any address, and products of unaligned arrays have other last bits
    X, y = data()
    w = np.linspace(-1, 1, 5)
    expected = full_batch(least_squares, (X, y), batch_size=10)(w)
    def strict(w, piece):
        assert w.flags.aligned and all(part.flags.aligned for part in piece)
        return least_squares(w, piece)
    for pieces_ in ([(unaligned(a), unaligned(b)) for a, b in cut(X, y, 10)],
                    [Pair(unaligned(a), unaligned(b)) for a, b in cut(X, y, 10)]):
        error, g = full_batch(strict, pieces_)(unaligned(w))
        assert error == expected[0] and bits(g) == bits(expected[1])


class Pair(NamedTuple):
    "A piece whose arrays have names"
    X: np.ndarray
    y: np.ndarray


# ---- memory

class Watched:
    "Pieces that count how many are alive when the next one is made"
    def __init__(self):
        self.made, self.alive = [], []

    def __iter__(self):
        for _ in range(9):
            self.alive.append(sum(ref() is not None for ref in self.made))
            yield self.new()

    def new(self):
        piece = np.ones((3, 2))
        self.made.append(weakref.ref(piece))
        return piece


@pytest.mark.parametrize('batch_size', [None, 2])
def test_one_piece_is_in_memory_at_a_time(batch_size):
    watched = Watched()
    full_batch(lambda w, X: (X.sum(), X.sum(0)), watched, batch_size=batch_size, mean=True)(np.zeros(2))
    assert watched.alive == [0] * 9


def test_a_file_larger_than_what_the_process_may_hold(tmp_path):
    # 64 MiB in pieces of 1 MiB: the peak of the process must grow by far less than the file
    np.lib.format.open_memmap(tmp_path / 'X.npy', 'w+', np.float64, (2**20, 8)).flush()
    code = '''if True:
        import re, sys, numpy as np
        from rprop_lit.scale import full_batch
        peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) // 1024
        f = full_batch(lambda w, X: ((X @ w).sum(), X.sum(0)), sys.argv[1], batch_size=2**14)
        f(np.zeros(8)); open('/proc/self/clear_refs', 'w').write('5')
        before = peak(); f(np.zeros(8)); print(peak() - before, f.pieces)'''
    if not os.access('/proc/self/clear_refs', os.W_OK):
        pytest.skip('this system does not tell the peak of a process')
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'X.npy')], capture_output=True,
                         text=True, check=True)
    grown, count = map(int, run.stdout.split())
    assert grown < 16 and count == 64


# ---- types, layouts, means

def test_sums_are_accumulated_in_float64_and_rounded_once():
    grads = [np.float32(g) for g in [2**24, *[1] * 63]]
    def given(w, g):
        return 0.0, np.full(1, g)
    f = full_batch(given, grads)
    assert f(np.zeros(1))[1] == 2**24 + 63
    single = f(np.zeros(1, np.float32))[1]
    assert single.dtype == np.float32 and single == np.float32(2**24 + 63)
    # 2**24 + 1 is no float32: the first addition loses a 1
    assert full_batch(given, grads, accumulate=None)(np.zeros(1))[1] == tree_sum(grads) == 2**24 + 62


@pytest.mark.parametrize('accumulate, dtype', [(None, np.float32), (np.float32, np.float32),
                                               (np.float64, np.float64)])
def test_the_type_of_the_sums_is_an_option(accumulate, dtype, monkeypatch):
    seen = []
    monkeypatch.setattr('rprop_lit.scale.added', lambda a, b: (seen.append(a.g.dtype), added(a, b))[1])
    full_batch(lambda w, g: (0.0, g), [np.ones(1, np.float32)] * 4, accumulate=accumulate)(np.zeros(1))
    assert seen == [dtype] * 3


def test_half_weights_get_single_gradients():
    assert (full_batch(lambda w, g: (0.0, g), [np.full(1, 1e5)])(np.zeros(1, np.float16))[1].dtype
            == np.float32)


def test_a_mean_is_over_rows():
    X, y = data()
    for rows in (30, 100):
        error, g = full_batch(least_squares, (X, y), batch_size=rows, mean=True)(np.ones(5))
        whole, there = full_batch(least_squares, (X, y), batch_size=rows)(np.ones(5))
        assert error == whole / 100 and bits(g) == bits(there / 100)
    with pytest.raises(RuntimeError, match='piece 0: TypeError: .*no rows to count'):
        full_batch(lambda w, i: (0.0, w), [1, 2], mean=True)(np.ones(5))
    assert full_batch(lambda w, i: (0.0, w), [1, 2])(np.ones(5))[1].tolist() == [2] * 5
    with pytest.raises(ValueError, match='needs rows'):
        full_batch(lambda w, X: (0.0, w), [np.zeros((0, 5))], mean=True)(np.ones(5))


def test_weights_may_be_a_list_of_arrays():
    X, y = data()
    def net(w, piece):
        off = piece[0] @ w[0] + w[1] - piece[1]
        return 0.5 * (off * off).sum(), [piece[0].T @ off, np.array([off.sum()])]
    f = full_batch(net, (X, y), batch_size=7)
    r = minimize(f, [np.zeros(5), np.zeros(1)], options={'gtol': 1e-9, 'ftol': 0})
    exact = np.linalg.lstsq(np.c_[X, np.ones(100)], y, rcond=None)[0]
    # the stationary point of a well conditioned problem, to a gradient of 1e-9
    assert r.success and np.allclose(np.concatenate(r.x), exact, atol=1e-9)


def named_net(w, piece):
    "A linear model whose weights have names"
    off = piece[0] @ w['slopes'] + w['rest']['shift'] - piece[1]
    return 0.5 * (off * off).sum(), {'rest': {'shift': off.sum()}, 'slopes': piece[0].T @ off}


def test_weights_may_be_a_dictionary():
    X, y = data()
    start = {'slopes': np.zeros(5, np.float32), 'rest': {'shift': np.array(0, np.float32)}}
    f = full_batch(named_net, (X, y), batch_size=7, mean=True)
    error, g = f(start)
    there, whole = named_net(start, (X, y))
    assert list(g) == ['slopes', 'rest'] and abs(error - there / 100) < 1e-12
    assert np.allclose(g['slopes'], whole['slopes'] / 100, atol=1e-7)
    assert g['slopes'].dtype == g['rest']['shift'].dtype == np.float32 and g['rest']['shift'].shape == ()
    start = {'slopes': np.zeros(5), 'rest': {'shift': np.array(0.0)}}
    r = minimize(f, start, options={'gtol': 1e-9, 'ftol': 0})
    exact = np.linalg.lstsq(np.c_[X, np.ones(100)], y, rcond=None)[0]
    # the stationary point of a well conditioned problem, to a gradient of 1e-9
    assert r.success and np.allclose([*r.x['slopes'], r.x['rest']['shift']], exact, atol=1e-7)


@pytest.mark.parametrize('answer', [{'a': np.ones(2)}, {'a': np.ones(2), 'c': np.ones(1)},
                                    {'a': np.ones(2), 'b': np.ones(1), 'c': np.ones(1)}, np.ones(2),
                                    [np.ones(2), np.ones(1)], {'a': np.ones(1), 'b': np.ones(1)}], ids=str)
def test_a_gradient_of_a_dictionary_has_its_names_and_shapes(answer):
    w = {'a': np.zeros(2), 'b': np.zeros(1)}
    with pytest.raises(RuntimeError, match=r"ValueError: (expected a dict with \['a', 'b'\]|.*shape)"):
        full_batch(lambda w, piece: (0.0, answer), [1, 2])(w)


@pytest.mark.parametrize('wrong', [np.ones(2) * 1j, np.ma.array([1.0, 2.0], mask=[1, 0]),
                                   np.array(['1', '2']), np.array([True, False]), np.array([1.0, None]),
                                   {'a': 1.0}], ids=str)
def test_gradients_are_of_real_numbers(wrong):
    with pytest.raises(RuntimeError, match='piece 0: TypeError: the gradient is of type .*need real numbers'):
        full_batch(lambda w, piece: (0.0, wrong), [1, 2])(np.zeros(2))


def test_gradients_of_integers_and_without_a_mask_are_real_numbers():
    # 200 + 100 is no uint8
    for accumulate in (None, float):
        f = full_batch(lambda w, piece: (0, np.array([piece], np.uint8)), [200, 100], accumulate=accumulate)
        assert f(np.zeros(1))[1].tolist() == [300]
    g = full_batch(lambda w, piece: (0, np.ma.array(w)), [1, 2], accumulate=None)(np.ones(2))[1]
    assert type(g) is np.ndarray and g.tolist() == [2, 2]


@pytest.mark.parametrize('wrong', [int, bool, complex, 'int8', np.uint8, object, 'nonsense', 0, False, 3, ''],
                         ids=str)
def test_sums_are_of_a_floating_type(wrong):
    with pytest.raises(ValueError, match=f'accumulate={re.escape(repr(wrong))}: need a floating-point type'):
        full_batch(least_squares, data(), accumulate=wrong)


@pytest.mark.parametrize('shape', [(), (1,), (1, 1)])
def test_an_error_may_be_an_array_of_one_element(shape):
    f = full_batch(lambda w, piece: (np.full(shape, 3.0), w), [1, 2])
    assert f(np.ones(1))[0] == 6 and type(f(np.ones(1))[0]) is float


@pytest.mark.parametrize('error', ['1.0', True, None, np.ones(2), np.ma.masked, 1j])
def test_an_error_is_one_real_number(error):
    with pytest.raises(RuntimeError, match='piece 0: TypeError: the error is .*need one real number'):
        full_batch(lambda w, piece: (error, w), [1, 2])(np.ones(1))


def test_a_gradient_of_another_layout_is_refused():
    X, y = data()
    for answer, said in (((0.0, np.zeros(4)), 'shape'),
                         ((0.0, [np.zeros(5)] * 2), r'shape \(2, 5\) where'),
                         ((0.0, [np.zeros(5), np.zeros(1)]), 'ValueError'),
                         (0.0, 'returns .error, gradient.'), ((0.0, [np.zeros(5)]), '')):
        with pytest.raises(RuntimeError, match='piece 0.*' + said):
            full_batch(lambda w, piece, answer=answer: answer, (X, y), batch_size=50)(np.zeros(5))


def test_gradients_of_the_user_are_never_written():
    own = np.ones(3)
    f = full_batch(lambda w, piece: (0.0, own), [1, 2, 3, 4], accumulate=None)
    assert f(np.zeros(3))[1].tolist() == [4] * 3 and own.tolist() == [1] * 3


def test_overflow_is_silent_and_not_hidden():
    f = full_batch(lambda w, g: (1e308, g), [np.full(1, 1e308), np.full(1, 1e308)])
    with np.errstate(all='raise'):
        assert f(np.zeros(1)) == (np.inf, np.inf)


def test_in_a_loop_of_ones_own():
    X, y = data(dtype=np.float32)
    f = full_batch(least_squares, (X, y), batch_size=10)
    p = Parameter(np.zeros(5, np.float32))
    optimizer = Rprop([p], variant='irprop+', lr=0.01)
    first = f(p.data)[0]
    for _ in range(100):
        error, p.grad = f(p.data)
        optimizer.step(loss=error)
    assert error < first and p.data.dtype == np.float32 and f.evaluations == 101


# ---- errors say which piece

def test_a_piece_that_raises_is_named(folder):
    X, y = data()
    def picky(w, piece):
        if (piece[0] == X[42]).all(1).any():
            raise ZeroDivisionError('no such luck')
        return least_squares(w, piece)
    with pytest.raises(RuntimeError,
                       match=r'^piece 4 \(rows 40 to 49\): ZeroDivisionError: no such luck$') as caught:
        full_batch(picky, (X, y), batch_size=10)(np.zeros(5))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    files = [(folder / f'X{i}.npy', folder / f'y{i}.npy') for i in range(10)]
    with pytest.raises(RuntimeError, match=r'^piece 4 \(.*X4.npy, .*y4.npy\): ZeroDivisionError'):
        full_batch(picky, files)(np.zeros(5))
    with pytest.raises(RuntimeError,
                       match=r'^piece 8 \(.*X4.npy, .*y4.npy, rows 0 to 4\): ZeroDivisionError'):
        full_batch(picky, files, batch_size=5)(np.zeros(5))
    os.remove(folder / 'X6.npy')
    with pytest.raises(RuntimeError, match=r'^piece 6 \(.*X6.npy, .*y6.npy\): FileNotFoundError'):
        full_batch(least_squares, files)(np.zeros(5))
    with pytest.raises(RuntimeError, match=r'^piece 1: TypeError'):
        full_batch(least_squares, [(X, y), 5])(np.zeros(5))


def test_a_file_that_becomes_shorter_is_named(folder):
    pieces_ = list(pieces_of((folder / 'X.npy', folder / 'y.npy'), 30))
    np.save(folder / 'X.npy', data()[0][:99])
    assert pieces_[2].source()[0].shape == (30, 5)
    with pytest.raises(ValueError, match=r'X.npy. no longer has 100 rows: it must not change'):
        pieces_[3].source()


@pytest.mark.parametrize('shape, dtype', [((7,), '>f8'), ((7, 0), 'f4'), ((7, 2, 3), 'i2'), ((7,), 'f4,i1')])
def test_rows_of_every_type_come_out_of_a_file(shape, dtype, tmp_path):
    whole = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / 'x.npy', whole)
    read_ = [pieces.read(piece) for piece in pieces_of(tmp_path / 'x.npy', 3)]
    assert [len(part) for part in read_] == [3, 3, 1] and all(part.dtype == whole.dtype for part in read_)
    assert np.array_equal(np.concatenate(read_), whole)
    assert type(read_[0]) is np.ndarray and not read_[0].flags.owndata  # a view of the file


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r'\[100, 99\] rows'):
        full_batch(least_squares, (data()[0], data()[1][:99]), batch_size=10)(np.zeros(5))


def test_what_cannot_be_cut(folder):
    with pytest.raises(ValueError, match='npz.*cannot be cut'):
        full_batch(by_name, [folder / '0.npz'], batch_size=5)(np.zeros(5))
    with pytest.raises(ValueError, match='neither .npy nor .npz'):
        next(pieces_of(['table.csv'])).source()
    with pytest.raises(TypeError, match='no rows to count'):
        full_batch(least_squares, [5, 6], batch_size=2)(np.zeros(5))


def test_what_does_not_tell_its_size_is_cut_by_batch_size_alone():
    class Table:
        "Rows without a size in bytes, as a data frame has them"
        def __init__(self, rows):
            self.rows, self.shape = rows, rows.shape

        def __getitem__(self, index):
            return Table(self.rows[index])

        def __iter__(self):
            raise AssertionError('it is cut, and not walked through')

    X, y = data()
    def fun(w, piece):
        return least_squares(w, (piece[0].rows, piece[1]))
    for whole in ((Table(X), y), {'X': Table(X)}, Table(X)):
        with pytest.raises(TypeError, match='a Table does not tell its size: pass batch_size'):
            full_batch(fun, whole)(np.ones(5))
    f = full_batch(fun, (Table(X), y), batch_size=30)
    assert f(np.ones(5))[0] == full_batch(least_squares, (X, y), batch_size=30)(np.ones(5))[0]
    assert f.pieces == 4


@pytest.mark.parametrize('wrong', [0, -1, 2.5, True, '10'])
@pytest.mark.parametrize('name', ['batch_size', 'threads'])
def test_counts_are_whole_numbers(name, wrong):
    with pytest.raises(ValueError, match=f'{name}={wrong!r}: need a whole number >= 1'):
        full_batch(least_squares, data(), **{name: wrong})


def test_data_that_can_be_read_only_once_is_refused():
    for once in (iter([1]), (i for i in [1]), map(len, [])):
        with pytest.raises(TypeError, match='only once'):
            full_batch(least_squares, once)
    with pytest.raises(TypeError, match='data is a int'):
        full_batch(least_squares, 5)
    with pytest.raises(TypeError, match='loss_and_grad'):
        full_batch(None, [1])


def test_another_number_of_pieces_is_refused():
    batches = cut(*data(), 10)
    f = full_batch(least_squares, batches)
    f(np.zeros(5))
    batches.pop()
    with pytest.raises(RuntimeError, match='holds 9 pieces now, and held 10 before'):
        f(np.zeros(5))


def test_data_that_is_exhausted_is_told_from_data_without_pieces():
    class Once:
        def __init__(self):
            self.pieces = iter(cut(*data(), 50))

        def __iter__(self):
            return self.pieces

    f = full_batch(least_squares, Once())
    f(np.zeros(5))
    for _ in range(2):
        with pytest.raises(RuntimeError, match='the data holds 0 pieces now, and held 2 before'):
            f(np.zeros(5))


# ---- Ctrl-C, progress, threads

def test_ctrl_c_returns_the_best_point():
    calls = []
    def impatient(w, piece):
        calls.append(1)
        if len(calls) == 95:  # in the middle of the tenth evaluation
            raise KeyboardInterrupt
        return least_squares(w, piece)
    r = minimize(full_batch(impatient, data(), batch_size=10), np.ones(5))
    assert (r.status, r.nfev) == (98, 9) and r.fun < full_batch(least_squares, data())(np.ones(5))[0]


def test_progress_counts_pieces_and_evaluations(capsys):
    f = full_batch(least_squares, data(), batch_size=10, progress=True)
    f(np.zeros(5))
    f(np.zeros(5))
    said = capsys.readouterr().err
    assert 'evaluation 1' in said and 'evaluation 2' in said and '/10 ' in said and 'pieces' in said
    full_batch(least_squares, data(), batch_size=10)(np.zeros(5))
    assert capsys.readouterr().err == ''


@pytest.fixture
def blas():
    "threadpoolctl, the threads that BLAS has now, those that were seen, and a function of pieces that looks"
    threadpoolctl = pytest.importorskip('threadpoolctl',
                                        reason='threadpoolctl is not installed: threads of BLAS were not '
                                               'looked at')
    def threads():
        return {pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas'}
    if not threads():
        pytest.skip('no BLAS that threadpoolctl knows')
    seen = []
    def look(w, piece):
        seen.append(threads())
        return least_squares(w, piece)
    return threadpoolctl, threads, seen, look


def test_threads_of_blas_are_fixed_while_a_piece_is_computed(blas):
    threadpoolctl, threads, seen, look = blas
    with threadpoolctl.threadpool_limits(2, 'blas'):
        full_batch(look, data(), threads=1)(np.zeros(5))
        full_batch(look, data())(np.zeros(5))
        assert seen == [{1}, {2}] and threads() == {2}
        with pytest.raises(RuntimeError):
            full_batch(lambda w, piece: 1 / 0, data(), threads=1)(np.zeros(5))
        assert threads() == {2}


def test_any_thread_fixes_the_threads_of_blas(blas):
    # threadpoolctl 3.8 ignores all but the first thread that has set the number, while that one lives
    threadpoolctl, threads, seen, look = blas
    def beside(f):
        thread = threading.Thread(target=f, args=(np.zeros(5),))
        thread.start()
        thread.join()
    with threadpoolctl.threadpool_limits(2, 'blas'):
        beside(full_batch(look, data(), threads=1))
        seen.append(threads())
        full_batch(look, data(), threads=1)(np.zeros(5))
        beside(full_batch(look, data(), threads=3))
        seen.append(threads())
    assert seen == [{1}, {2}, {1}, {3}, {2}]


def test_a_limit_leaves_blas_to_other_threads(blas):
    threadpoolctl, threads, _, _ = blas
    def limited(count):
        with threadpoolctl.threadpool_limits(count, 'blas'):
            return threads()
    with ThreadPoolExecutor(1) as living, threadpoolctl.threadpool_limits(2, 'blas'):
        restore = living.submit(pieces.limit_blas, 1).result()
        assert threads() == {1} and limited(3) == {3}
        living.submit(restore).result()
        assert threads() == {2} and limited(3) == {3}


def test_threads_without_threadpoolctl(monkeypatch):
    monkeypatch.setattr(pieces, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"threads=1 needs threadpoolctl: pip install 'rprop_lit\[dask\]'"):
        full_batch(least_squares, data(), threads=1)(np.zeros(5))
    pieces.limit_blas(1, needed=False)()


@pytest.mark.parametrize('threads', [None, 3])
@pytest.mark.parametrize('mean, progress', [(True, False), (False, True)])
def test_what_is_handed_to_workers(monkeypatch, mean, progress, threads):
    handed = []
    monkeypatch.setattr(scale, 'checked', lambda client: f'checked {client}')
    monkeypatch.setattr(scale, 'Workers', lambda *what: handed.append(what) or 'workers')
    f = full_batch(least_squares, data(), batch_size=10, client='a client', accumulate='float32',
                   threads=threads, mean=mean, progress=progress)
    (client, _, manner, given, size, count), = handed
    assert (client, size, count) == ('checked a client', 10, threads or 1) and len(given) == len(data())
    assert tuple(manner) == (least_squares, np.dtype('float32'), mean)
    assert (f.runner, f.mean, f.progress) == ('workers', mean, progress)


# ---- CuPy, as far as it can be had without a GPU

class OnDevice(np.ndarray):
    "NumPy's array that passes for one of CuPy and, like one of CuPy, meets no array of NumPy"
    __module__ = 'cupy'

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        if any(type(x) is np.ndarray and x.ndim for x in inputs):
            raise TypeError('Unsupported type <class numpy.ndarray>')
        plain = [x.view(np.ndarray) if isinstance(x, OnDevice) else x for x in inputs]
        return np.asarray(getattr(ufunc, method)(*plain, **keywords)).view(OnDevice)

    def get(self):
        return np.array(self.view(np.ndarray))


@pytest.fixture
def cupy(monkeypatch):
    "A module that passes for CuPy, as far as pieces are concerned"
    module = types.ModuleType('cupy')
    module.ndarray, module.float32 = OnDevice, np.float32
    module.asarray = lambda x: np.array(x).view(OnDevice)
    module.result_type = np.result_type
    monkeypatch.setitem(sys.modules, 'cupy', module)
    monkeypatch.setattr(OnDevice, '__array_namespace__', lambda self, api_version=None: module, raising=False)
    return module


def on_device_only(w, piece):
    "Works for arrays of one library, whichever it is"
    X, y = piece
    assert type(w) is type(X)
    off = (X * w).sum(1) - y
    return 0.5 * (off * off).sum(), (X * off[:, None]).sum(0)


def test_weights_go_where_the_pieces_are_and_gradients_come_back(cupy):
    X, y = data()
    w = np.linspace(-1, 1, 5)
    expected = full_batch(on_device_only, (X, y), batch_size=10)(w)
    there = [(cupy.asarray(a), cupy.asarray(b)) for a, b in cut(X, y, 10)]
    for pieces_, start in ((there, w), (there, cupy.asarray(w)), (cut(X, y, 10), cupy.asarray(w))):
        error, g = full_batch(on_device_only, pieces_, mean=False)(start)
        block = _block_sum(Manner(on_device_only, np.dtype(float), False), start, pieces_of(pieces_))
        assert type(block.g) is type(start)  # what a worker sends home
        assert (type(g) is type(start) and type(error) is float and error == expected[0]
                and bits(g) == bits(expected[1]))


def test_torch_tensors_are_refused_by_name():
    torch = pytest.importorskip('torch', reason='torch is not installed: its tensors were not refused')
    with pytest.raises(RuntimeError, match='piece 0: TypeError: torch tensors.*detach'):
        full_batch(lambda w, piece: (0.0, torch.zeros(5)), [1])(np.zeros(5))


def written_in(w, piece):
    "Like least squares for a list of two arrays, whose weights are overwritten afterwards"
    error, g = least_squares(w[0] + w[1], piece)
    for part in w:
        part += 1.0
    return error, [g, g]


def test_a_function_may_write_in_the_weights_that_it_is_given():
    start = [np.zeros(5), np.ones(5)]
    error, g = full_batch(written_in, data(), batch_size=10)(start)
    expected = full_batch(least_squares, data(), batch_size=10)(np.ones(5))
    assert error == expected[0] and [bits(part) for part in g] == [bits(expected[1])] * 2
    assert not start[0].any() and (start[1] == 1).all()


# ---- Dask is not needed, and not imported

def test_without_dask_a_client_names_the_extra(monkeypatch):
    monkeypatch.setattr(cluster, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"a client needs Dask: pip install 'rprop_lit\[dask\]'"):
        full_batch(least_squares, data(), client=object())
    full_batch(least_squares, data())(np.zeros(5))


def test_importing_and_using_it_brings_numpy_alone():
    code = ('import sys, numpy as np; from rprop_lit.scale import full_batch; full_batch(lambda w, X: '
            '(X.sum(), X.sum(0)), np.ones((9, 2)), batch_size=2, mean=True)(np.ones(2)); '
            'print(*[m for m in ("dask", "distributed", "tqdm", "threadpoolctl", "scipy", "torch", '
            '"matplotlib", "cupy") if m in sys.modules], "numpy" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=True).stdout.split() == ['True']


@pytest.fixture
def late(monkeypatch):
    "asyncio's TimeoutError as it is before Python 3.11, a class of its own"
    class Late(Exception):
        pass
    monkeypatch.setattr(asyncio, 'TimeoutError', Late)
    return Late


def test_a_wait_of_dask_that_is_over_is_no_error(late, monkeypatch):
    class Future:
        status = 'pending'
    future, module = Future(), types.ModuleType('distributed')
    def wait(futures, timeout, return_when):
        if not waits.append(timeout) and len(waits) < 3:
            raise late
        future.status = 'finished'
    waits, module.wait = [], wait
    monkeypatch.setitem(sys.modules, 'distributed', module)
    client = types.SimpleNamespace(status='running', ncores=lambda: {'a worker': 1})
    assert list(cluster._ended(client, [future])) == [set(), set(), {future}] and waits == [1] * 3


def asked(*answers):
    "Workers whose scheduler says so, one answer after the other, when it is asked who is there"
    workers, left = object.__new__(cluster.Workers), list(answers)
    scheduler = types.SimpleNamespace(ncores_running=lambda: left.pop(0))
    workers.client = types.SimpleNamespace(status='running', sync=lambda question: question(),
                                           scheduler=scheduler, ncores=lambda: left.pop(0) | {'paused': 1})
    return workers


def test_who_is_not_there_or_paused_is_waited_for(monkeypatch):
    monkeypatch.setattr(cluster.time, 'sleep', lambda seconds: None)
    assert asked({}, {'c': 0}, {'b': 1, 'a': 2}, {}).addresses(running=True) == ['a', 'a', 'b']
    assert asked({'b': 1, 'a': 2}, {}).addresses() == ['a', 'a', 'b', 'paused']


def test_pieces_of_a_paused_worker_go_to_another():
    workers = placing(range(4), 4)
    sent = []
    workers.send = lambda piece, address: sent.append(address)
    workers.addresses = lambda running: ['a', 'b', 'c']
    workers.place(['a', 'b', 'c', 'd'], [0, 1, 2, 3])
    assert sent == ['a', 'b', 'c', 'c']  # all others stay where the blocks will be computed


def test_nobody_to_wait_for_is_no_connection(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(cluster, 'time', types.SimpleNamespace(monotonic=lambda: next(clock) * 25.0,
                                                               sleep=lambda seconds: None))
    with pytest.raises(ConnectionError, match='no worker for 60 seconds, or none that Dask has not paused'):
        asked({}, {}, {}, {}).addresses(running=True)


def placing(pieces, count):
    "Workers that are to place so many pieces, which arrive as they are"
    workers = object.__new__(cluster.Workers)
    workers.labels, workers.sources, workers.size = [(i, '', 'here') for i in range(count)], {}, 1
    workers.source, workers.addresses = lambda: pieces_of(pieces), lambda running: ['here']
    workers.client = types.SimpleNamespace(scatter=lambda values, **how: [values[0].data])
    workers.common = types.SimpleNamespace(status='finished')
    return workers


def test_data_that_cannot_be_read_is_no_worker_that_died(tmp_path):
    def pieces():
        yield from (1, 2)
        open(tmp_path / 'absent', 'rb')
    with pytest.raises(RuntimeError, match='^the data cannot be read: FileNotFoundError: .*absent'):
        placing(pieces(), 3).place(['here'], [0, 1, 2])
    def given_up():
        yield 1
        raise CancelledError('no more')
    with pytest.raises(RuntimeError, match='^the data cannot be read: CancelledError: no more'):
        placing(given_up(), 2).place(['here'], [0, 1])
    # an array and a file are opened at home
    with pytest.raises(RuntimeError, match='^piece 1: FileNotFoundError: .*absent'):
        placing([np.ones(2), (np.ones(2), tmp_path / 'absent.npy')], 2).place(['here'], [0, 1])


def test_what_has_arrived_is_not_sent_again():
    workers, sent = placing([10, 11, 12], 3), []
    def scatter(values, **how):
        sent.append(values[0].data)
        if sent == [10, 11, 12]:
            raise OSError('its worker died')
        return [values[0].data]
    workers.client.scatter = scatter
    with pytest.raises(OSError, match='its worker died'):
        workers.place(['here'], [0, 1, 2])
    workers.place(['here'], [0, 1, 2])
    assert sent == [10, 11, 12, 12] and workers.sources == {0: 10, 1: 11, 2: 12}


def test_one_piece_at_a_time_is_at_home():
    made, alive = [], []
    def pieces():
        for _ in range(4):
            alive.append(sum(piece() is not None for piece in made))
            piece = np.zeros(100)
            made.append(weakref.ref(piece))
            yield piece
            del piece
    workers = placing(pieces(), 4)
    workers.client.scatter = lambda values, **how: ['there']
    workers.place(['here'], [0, 1, 2, 3])
    assert alive == [0] * 4 and workers.sources == dict.fromkeys(range(4), 'there')


def test_what_was_lost_or_failed_is_sent_again_and_only_what_is_needed():
    workers = placing([10, 11, 12, 13, 14], 5)
    states = ['error', 'lost', 'cancelled', 'finished', 'lost']
    workers.sources = {i: types.SimpleNamespace(status=state) for i, state in enumerate(states)}
    kept = workers.sources[3], workers.sources[4]
    def scatter(values, **how):
        assert values[0].data - 10 not in workers.sources  # Dask keeps an error as long as it is held
        return [values[0].data]
    workers.client.scatter = scatter
    workers.place(['here'], [0, 1, 2, 3])
    assert [workers.sources[i] for i in range(5)] == [10, 11, 12, *kept]


@pytest.mark.parametrize('error', [KeyError('a'), 'late'])
def test_a_worker_that_takes_no_data_is_one_that_left(error, late):
    def scatter(values, **how):
        raise late() if error == 'late' else error
    with pytest.raises(OSError, match='a worker left or was paused while data was sent to it'):
        cluster._sent(types.SimpleNamespace(scatter=scatter), 7, workers=['a'])


def test_data_that_shrinks_before_it_is_sent_is_refused():
    with pytest.raises(RuntimeError, match='no longer holds piece 2 of 3: it must give the same pieces'):
        placing([1, 2], 3).place(['here'], [0, 1, 2])


def test_one_value_goes_to_one_worker():
    # Dask's broadcast goes on for ever if a worker dies meanwhile
    calls = []
    client = types.SimpleNamespace(scatter=lambda values, **how: calls.append((values, how)) or values)
    assert cluster._sent(client, 7) == cluster._sent(client, 7, workers=['a']) == 7
    anybody = {'workers': None, 'hash': False}
    assert calls == [([7], anybody), ([7], anybody | {'workers': ['a']})]
    workers = object.__new__(cluster.Workers)
    workers.client, workers.common, workers.shared, workers.labels = client, None, 'shared', []
    workers.place(['here'], [])
    assert calls[2:] == [(['shared'], anybody)] and workers.common == 'shared'


@pytest.fixture
def five_blocks(monkeypatch):
    "Workers whose attempts are played by a function of the blocks to do; the attempts made; Dask's error"
    module = types.ModuleType('distributed')
    module.KilledWorker = type('KilledWorker', (Exception,), {})
    monkeypatch.setitem(sys.modules, 'distributed', module)
    workers, made = object.__new__(cluster.Workers), []
    workers.client = types.SimpleNamespace(status='running')
    workers.labels, workers.size = [(i, '', 'here') for i in range(5)], 1
    def play(does):
        def attempt(w, todo, results, tell):
            made.append(todo)
            results |= {block: -block for block in does(todo)}
        workers.attempt = attempt
        return workers.run(None, None)
    play.client = workers.client
    return play, made, module.KilledWorker


def test_the_block_that_workers_die_of_is_found_alone(five_blocks):
    run, made, killed = five_blocks
    def deadly(todo):
        if 3 in todo:
            raise killed('so it was')
        return todo
    with pytest.raises(RuntimeError, match='^pieces 3 to 3: .*although nothing else .*: so it was$'):
        run(deadly)
    assert made == [[0, 1, 2, 3, 4], [0], [1], [2], [3]]


def test_blocks_that_live_alone_are_done(five_blocks):
    run, made, killed = five_blocks
    def crowded(todo):
        if len(todo) > 1:
            raise killed
        return todo
    assert run(crowded) == [0, -1, -2, -3, -4]
    assert made == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4]]


def test_what_is_done_is_not_done_again(five_blocks):
    run, made, _ = five_blocks
    assert run(lambda todo: todo[:2]) == [0, -1, -2, -3, -4]
    assert made == [[0, 1, 2, 3, 4], [2, 3, 4], [4]]


@pytest.mark.parametrize('error, told', [
    (None, 'every worker that computed them died, .*: what lay with a worker was lost'),
    (CancelledError('so'), 'every worker that computed them died, .*: so'),
    (OSError('gone'), 'what they need could not be sent: .*: gone')])
def test_attempts_are_counted(five_blocks, error, told):
    run, made, _ = five_blocks
    def nothing(todo):
        if error:
            raise error
        return []
    with pytest.raises(RuntimeError, match=f'^pieces 0 to 0: {told}$'):
        run(nothing)
    assert made == [[0, 1, 2, 3, 4]] * cluster.ATTEMPTS + [[0]] * cluster.ATTEMPTS


def test_errors_without_a_name_get_that_of_their_block(five_blocks):
    _, _, killed = five_blocks
    def of(error, **states):
        future = types.SimpleNamespace(exception=lambda: error)
        sources = {i: types.SimpleNamespace(status=states.get(f'piece{i}', 'finished')) for i in (4, 5)}
        said = cluster._failure(future, [(4, 'four', 'dask'), (5, 'five', 'dask')], sources)
        assert said is error or said.__cause__ is error
        return type(said), str(said)
    assert of(RuntimeError('piece 4: no')) == (RuntimeError, 'piece 4: no')
    assert of(Exception('it cannot be pickled')) == (
        RuntimeError, 'pieces 4 to 5: Exception: it cannot be pickled')
    assert of(OSError('no'), piece5='error') == (RuntimeError, 'piece 5 (five): OSError: no')
    assert of(killed('it'), piece5='error') == (killed, 'it')


def test_a_client_that_is_gone_ends_the_attempts(five_blocks):
    run, made, _ = five_blocks
    def closing(todo):
        run.client.status = 'closed'
        raise OSError('the wire is cut')
    with pytest.raises(ConnectionError, match='the Dask client is closed'):
        run(closing)
    assert len(made) == 1


def test_nobody_left_ends_the_attempts(five_blocks):
    run, made, _ = five_blocks
    def nobody(todo):
        raise ConnectionError('nobody')
    with pytest.raises(ConnectionError, match='nobody'):
        run(nobody)
    assert len(made) == 1


def test_a_block_is_a_task():
    X, y = data()
    f = full_batch(least_squares, (X, y), batch_size=10)
    blocks = [_block_sum(f.runner.manner, np.ones(5), list(pieces_of((X, y), 10))[i:i + 4])
              for i in range(0, 10, 4)]
    whole = tree_sum(blocks, added)
    assert (isinstance(whole, Sum) and bits(whole.g) == bits(f(np.ones(5))[1])
            and whole.error == f(np.ones(5))[0])


def test_block_sizes_are_powers_of_two_and_keep_threads_busy():
    for count in (1, 5, 64, 100, 12345):
        for threads in (1, 2, 7, 1000):
            size = cluster.block_size(count, threads)
            assert size & (size - 1) == 0 and (size == 1 or -(-count // size) >= 4 * threads)
            assert count < 2 * size * 4 * threads

