"""Every fast path makes the same bits as the readable rule:
blocks, the compiled loop, the engine, and Rprop on top of them."""
import copy
import os
import pickle
import subprocess
import sys
import tracemalloc
import weakref
from functools import cache

import array_api_strict
import numpy as np
import pytest
from streams import ETAS, VARIANTS, bits, errors, gradients

from rprop_lit import config, rule
from rprop_lit.inside import config as configs
from rprop_lit.inside.arrays import BLOCK, Scratch, blocks_kernel, compiled_kernel, limits_of, step_block
from rprop_lit.inside.engine import Blocks, Compiled, Readable
from rprop_lit.inside.rows import bundles, pieces
from rprop_lit.inside.settings import Settings
from rprop_lit.optim import BACKENDS, Parameter, Rprop, flatten
from rprop_lit.rule import init
from rprop_lit.variants import Flip, update

KNOBS = [(False, False), (True, False), (True, True)]
LIMITS = (1e-6, 50.0)


def run_of(path, scratch, knobs, etas, step, step_sizes=LIMITS):
    "A function of (w, g, sign, step) for one path"
    limits = limits_of(Settings(etas=etas, step_sizes=step_sizes), step.dtype, [])
    kernel = (compiled_kernel if path == 'numba' else blocks_kernel)(Flip(*knobs))
    return lambda *block: kernel(*block, limits, scratch)


def backend_of(optimizer):
    "The backend that steps the only plan of an optimizer"
    plan, = [plan for group in optimizer.param_groups for plan in group.plans]
    return next(b for b in BACKENDS if b.fits(plan.read()[0]))


def expected(path, dtype=np.float32):
    "The kind of backend that a path asks for"
    return Compiled if path == 'numba' and dtype != np.float16 else Blocks


def long_stream(n, dtype, length):
    "A long stream for large arrays: fifteen distinct gradients, shifted and turned"
    base = list(gradients((n,), 15, dtype))
    for k in range(length):
        g = np.roll(base[k % 15], k)
        yield -g if k % 4 == 3 else g


@pytest.mark.parametrize('rowwise', [False, True])
@pytest.mark.parametrize('flip', [Flip(True, True), Flip(True, True, retreat=True)])
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_into_fresh_memory_a_kernel_writes_its_moves(path, dtype, flip, rowwise):
    # -0.0 plus a move is that move, in every bit
    random, n = np.random.default_rng(0), 300
    kernel = (compiled_kernel if path == 'numba' and dtype != np.float16 else blocks_kernel)(flip)
    step = np.full(n, 0.1, np.float64 if dtype == np.float64 else np.float32)
    etas = (0.5, np.full(n, 1.2)) if rowwise else (0.5, 1.2)
    limits = limits_of(Settings(etas=etas), step.dtype, [(n,)])
    g, sign = random.integers(-1, 2, n).astype(dtype), random.integers(-1, 2, n).astype(np.int8)
    found = []
    for before, fresh in ((np.nan, True), (-0.0, False)):
        block = [np.full(n, before, dtype), g, sign.copy(), step.copy()]
        kernel(*block, limits, Scratch(100, dtype, step.dtype), fresh=fresh)
        found.append([bits(x) for x in block])
    assert found[0] == found[1] and limits.rowwise == rowwise


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('n', [0, 1, 7, 4096, 100_003])
def test_blocks_and_loop_equal_the_readable_rule(path, n, dtype):
    # all settings walk side by side over one stream of 300 gradients; what a long array adds is where it is
    # cut, and 40 show that
    cases = [(knobs, etas) for i, knobs in enumerate(KNOBS)
             for etas in (ETAS if n < 100_000 else ETAS[i:i + 1])]
    start = np.random.default_rng(n).normal(size=n).astype(dtype)
    start[::5] = -0.0
    most = min(n, BLOCK)
    fast, slow = ([(start.copy(), init(start, 0.01)) for _ in cases],
                  [(start.copy(), init(start, 0.01)) for _ in cases])
    scratch = Scratch(most, dtype, slow[0][1].step.dtype)
    steps = [run_of(path, scratch, knobs, etas, slow[0][1].step) for knobs, etas in cases]
    length = 300 if n < 100_000 else 40
    for k, g in enumerate(long_stream(n, dtype, length)):
        for i, (knobs, etas) in enumerate(cases):
            w, state = fast[i]
            for a in range(0, n, most or 1):
                b = a + most
                steps[i](w[a:b], g[a:b], state.sign[a:b], state.step[a:b])
            theirs, before = slow[i]
            dw, after = rule.update_all(g, before, forget=knobs[0], undo=knobs[1], etas=etas,
                                        step_sizes=LIMITS)
            theirs += dw
            slow[i] = theirs, after
            if k in (0, 1, 2, 3, 10, 39, length - 1):
                assert ([bits(x) for x in (w, state.sign, state.step)]
                        == [bits(x) for x in (theirs, after.sign, after.step)])


@pytest.mark.parametrize('limits', [(0.0, 50.0), (0.0, float('inf')), (1e-3, 1e-3), (0.0, 0.0)], ids=str)
@pytest.mark.parametrize('etas', [(0.5, 1.2), (0.5, 2.0), (0.5, 4.0), (0.9, 1e6)], ids=str)
@pytest.mark.parametrize('knobs', KNOBS, ids=str)
def test_blocks_and_loop_at_the_edges_of_the_settings(path, knobs, etas, limits):
    # steps of exactly 0 tell -0.0 from 0.0; large factors are squared up to; steps overflow to the largest
    # number
    w = np.where(np.arange(40) % 2, -0.0, 0.0).astype(np.float32)
    ours, sign, step = (w.copy(), np.zeros(40, np.int8),
                        np.where(np.arange(40) % 3, 0.01, 0).astype(np.float32))
    state, run = rule.State(sign.copy(), step.copy()), run_of(path, Scratch(40, np.float32, np.float32),
                                                              knobs, etas, step, limits)
    top = float(np.finfo(np.float32).max)
    with np.errstate(over='ignore', invalid='ignore'):
        for g in gradients((40,), 200, np.float32):
            run(ours, g, sign, step)
            dw, state = rule.update_all(g, state, forget=knobs[0], undo=knobs[1], etas=etas,
                                        step_sizes=(limits[0], min(limits[1], top)))
            w = w + dw
            assert [bits(x) for x in (ours, sign, step)] == [bits(x) for x in (w, state.sign, state.step)]


def awkward(dtype):
    "Arrays of many shapes in memory of every kind"
    random = np.random.default_rng(3)
    def fresh(*shape):
        return np.where(random.random(shape) < .3, -0.0, random.normal(size=shape)).astype(dtype)
    odd = np.zeros(9 * np.dtype(dtype).itemsize + 1, np.uint8)[1:].view(dtype)
    return [fresh(), fresh(0), fresh(1), fresh(7), fresh(4, 5), fresh(5, 4).T, fresh(9)[::-1], fresh(30)[::3],
            odd, fresh(2, 0, 3),
            fresh(BLOCK + 5), fresh(3, BLOCK)[:, ::2], np.asfortranarray(fresh(40, 30)),
            fresh(6, 1, 4).transpose(2, 0, 1)]


def strided(g):
    "The same numbers in memory of another order"
    return np.asfortranarray(g) if g.ndim > 1 else np.repeat(g, 2)[::2] if g.ndim else g


class ByRule:
    "What Rprop must do, said by the readable update of chapter 20"
    def __init__(self, arrays, lr=0.01, **options):
        self.arrays, self.states, self.options = arrays, [None] * len(arrays), options
        self.lr, self.loss = lr, float('inf')

    def step(self, gs, loss=None):
        for k, (w, g) in enumerate(zip(self.arrays, gs)):
            if g is not None:
                state = (self.states[k] or init(w, self.lr))._replace(loss=self.loss)
                dw, self.states[k] = update(g, state, loss=loss, **self.options)
                w[...] = w + dw
        if loss is not None and np.isfinite(loss):
            self.loss = loss


def same(optimizer, params, reference):
    "Are weights, signs and steps equal in every bit?"
    for p, w, state in zip(params, reference.arrays, reference.states):
        assert bits(p.data) == bits(w)
        if state is not None:
            memory = optimizer.state[p]
            assert bits(memory['sign']) == bits(state.sign) and bits(memory['step_size']) == bits(state.step)


@cache
def stream(shape, length, dtype, seed):
    "Gradients for an awkward array, made once for all variants"
    made = list(gradients(shape, length, dtype, seed))
    for g in made:
        g.flags.writeable = False
    return made


# each variant with factors of its own: the kernels meet all pairs of knobs and factors above
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('variant, etas', list(zip(VARIANTS, [*ETAS, (0.5, 1.2)])), ids=str)
def test_rprop_on_awkward_arrays(path, dtype, variant, etas):
    params, reference = ([Parameter(a) for a in awkward(dtype)],
                         ByRule(awkward(dtype), variant=variant, etas=etas))
    addresses = [p.data for p in params]
    optimizer = Rprop(params, variant=variant, etas=etas)
    streams = [stream(p.shape, 25, dtype, seed) for seed, p in enumerate(params)]
    for k, (loss, *gs) in enumerate(zip(errors(25), *streams)):
        # some are missing now and then
        gs = [g if (k + i) % 11 or k < 12 else None for i, g in enumerate(gs)]
        for i, (p, g) in enumerate(zip(params, gs)):
            p.grad = g if g is None or (i + k) % 3 else strided(g)
        kept = [None if g is None else g.copy() for g in gs]
        optimizer.step(loss=loss)
        reference.step(gs, loss)
        same(optimizer, params, reference)
        assert all(g is None or bits(g) == bits(c) for g, c in zip(gs, kept))
    assert isinstance(backend_of(optimizer), expected(path, dtype))
    assert all(p.data is a for p, a in zip(params, addresses))


def test_rprop_over_300_steps_and_a_thousand_arrays(path):
    sizes = [100 + 9 * k % 901 for k in range(300)]
    fresh = [np.random.default_rng(k).normal(size=n).astype(np.float32) for k, n in enumerate(sizes)]
    params, row = [Parameter(a) for a in fresh], np.concatenate(fresh)
    # the rule knows no arrays, only weights
    optimizer, reference = Rprop(params, variant='irprop+'), ByRule([row], variant='irprop+')
    rows = list(gradients((sum(sizes),), 30, np.float32))
    for k, loss in zip(range(300), errors(300)):
        g = np.roll(rows[k % 30], k)
        for p, part in zip(params, np.split(g, np.cumsum(sizes)[:-1])):
            p.grad = part
        optimizer.step(loss=loss)
        reference.step([g], loss)
    memories = [optimizer.state[p] for p in params]
    assert bits(np.concatenate([p.data for p in params])) == bits(row)
    assert bits(np.concatenate([m['sign'] for m in memories])) == bits(reference.states[0].sign)
    assert bits(np.concatenate([m['step_size'] for m in memories])) == bits(reference.states[0].step)
    assert optimizer.state[params[0]]['step'] == 300


@pytest.mark.parametrize('variant', VARIANTS)
def test_complex_arrays_are_pairs_of_reals(path, variant):
    random = np.random.default_rng(0)
    z = (random.normal(size=(6, 8)) + 1j * random.normal(size=(6, 8))).astype(np.complex64)
    params = [Parameter(z.copy()[::2, ::-1]), Parameter(z.copy()), Parameter(z.real.copy())]
    copies = [z.copy()[::2, ::-1], z.copy()]
    reference = ByRule([x for c in copies for x in (c.real, c.imag)] + [z.real.copy()], variant=variant)
    optimizer = Rprop(params, variant=variant)
    streams = [gradients(a.shape, 40, np.float32, seed) for seed, a in enumerate(reference.arrays)]
    for loss, *gs in zip(errors(40), *streams):
        for p, (re, im) in zip(params, ((gs[0], gs[1]), (gs[2], gs[3]))):
            p.grad = np.empty(re.shape, np.complex64)
            p.grad.real, p.grad.imag = re, im
        params[2].grad = gs[4]
        optimizer.step(loss=loss)
        reference.step(gs, loss)
    assert bits(params[0].data) == bits(copies[0]) and bits(params[1].data) == bits(copies[1])
    assert bits(params[2].data) == bits(reference.arrays[4])
    assert [plan.kinds[0][0] for plan in optimizer.param_groups[0].plans] == [np.complex64, np.float32]


def test_half_precision_keeps_growing_on_tiny_gradients(path):
    p = Parameter(np.zeros(3, np.float16))
    optimizer = Rprop([p], lr=1e-3)
    for _ in range(10):
        p.grad = np.full(3, 1e-6, np.float16)
        optimizer.step()
    assert (np.allclose(optimizer.state[p]['step_size'], 1e-3 * 1.2**9)
            and optimizer.state[p]['step_size'].dtype == np.float32)


def test_maximize_and_rows_laid_together(path):
    apart, together = [Parameter(a) for a in awkward(np.float32)], [Parameter(a) for a in awkward(np.float32)]
    row, _ = flatten(together)
    assert all(np.shares_memory(p.data, row) for p in together if p.data.size)
    one, other = Rprop(apart, maximize=True), Rprop(together, maximize=True)
    for k in range(20):
        for seed, (p, q) in enumerate(zip(apart, together)):
            p.grad = next(gradients(p.shape, 1, np.float32, 100 * k + seed))
            q.grad[...] = p.grad
        one.step()
        other.step()
        assert [bits(p.data) for p in apart] == [bits(q.data) for q in together]
    together[3].grad = together[3].grad.copy()  # one of them leaves the row
    apart[3].grad = together[3].grad
    one.step()
    other.step()
    assert [bits(p.data) for p in apart] == [bits(q.data) for q in together]


@pytest.mark.parametrize('settings', [{}, dict(etas=(0.5, np.full(1, 1.2))), dict(variant='irprop+')],
                         ids=str)
def test_to_climb_is_to_descend_by_minus_the_gradient(path, settings):
    up, down = ([Parameter(a) for a in awkward(np.float32) if a.ndim] for _ in range(2))
    climber, walker = Rprop(up, maximize=True, **settings), Rprop(down, **settings)
    for k, loss in enumerate(errors(20)):
        for seed, (p, q) in enumerate(zip(up, down)):
            p.grad = next(gradients(p.shape, 1, np.float32, 100 * k + seed))
            q.grad = -p.grad
        climber.step(loss=-loss)
        walker.step(loss=loss)
        assert [bits(p.data) for p in up] == [bits(q.data) for q in down]


def test_flatten_keeps_values_state_and_shapes(path):
    params, twins = [Parameter(a) for a in awkward(np.float64)], [Parameter(a) for a in awkward(np.float64)]
    optimizer, twin = Rprop(params), Rprop(twins)
    def steps(n, seed):
        for k in range(n):
            for i, (p, q) in enumerate(zip(params, twins)):
                q.grad = next(gradients(q.shape, 1, np.float64, seed + 50 * k + i))
                if p.grad is None:
                    p.grad = q.grad
                else:
                    p.grad[...] = q.grad
            optimizer.step()
            twin.step()
    steps(5, 0)
    shapes = [p.shape for p in params]
    flatten(params)
    optimizer.zero_grad(set_to_none=False)
    assert [p.shape for p in params] == shapes
    steps(5, 1000)
    assert [bits(p.data) for p in params] == [bits(q.data) for q in twins]
    with pytest.raises(TypeError, match='one type'):
        flatten([Parameter(np.ones(2)), Parameter(np.ones(2, np.float32))])


def running(path_arrays, **options):
    "An optimizer that has made two steps"
    params = [Parameter(a) for a in path_arrays]
    optimizer = Rprop(params, **options)
    for _ in range(2):
        for p in params:
            p.grad = np.ones(p.shape, p.dtype)
        optimizer.step()
    return optimizer, params


@pytest.mark.parametrize('spoil, error, message', [
    (lambda g: g[:-1].copy(), ValueError, 'shape'),
    (lambda g: g.astype(np.float64), ValueError, 'dtype'),
    (lambda g: array_api_strict.asarray(g), TypeError, 'Array'),
    (lambda g: g.tolist(), TypeError, 'list'),
], ids=['shape', 'dtype', 'library', 'list'])
def test_a_gradient_that_does_not_fit_changes_nothing(path, spoil, error, message):
    optimizer, params = running([np.zeros(3, np.float32), np.zeros(4, np.float32)])
    before = [p.data.copy() for p in params], copy.deepcopy(optimizer.state_dict())
    params[1].grad = spoil(params[1].grad)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert [bits(p.data) for p in params] == [bits(w) for w in before[0]]
    assert str(optimizer.state_dict()) == str(before[1])


def test_gradients_are_not_kept(path):
    optimizer, params = running([np.zeros(30_000), np.zeros(4)])
    held = [weakref.ref(p.grad) for p in params]
    optimizer.zero_grad()
    assert all(there() is None for there in held)


def test_new_weights_are_noticed(path):
    optimizer, params = running([np.zeros(3), np.zeros(4)])
    old = params[0].data
    params[0].data = np.full(3, 9.0)
    kept = old.copy()
    optimizer.step()
    assert bits(old) == bits(kept) and (params[0].data < 9).all()
    assert optimizer.state[params[0]]['step'] == 3


def test_weights_that_became_read_only_are_refused_before_anything_is_written(path):
    optimizer, params = running([np.zeros(9000), np.zeros(4)])  # too many to be taken back
    kept = params[0].data.copy()
    params[1].data.flags.writeable = False
    with pytest.raises(ValueError, match='^parameter 1 is read-only'):
        optimizer.step()
    assert bits(params[0].data) == bits(kept)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
                         ids=['deepcopy', 'pickle'])
def test_a_copy_goes_its_own_way(path, copied):
    optimizer, params = running([np.zeros(3), np.zeros((2, 2))])
    twin = copied(optimizer)
    others = twin.param_groups[0]['params']
    for p in others:
        p.grad = np.ones(p.shape)
    optimizer.step()
    assert not np.array_equal(others[0].data, params[0].data)
    twin.step()
    assert [bits(p.data) for p in others] == [bits(p.data) for p in params]
    for kind in ('sign', 'step_size'):
        assert [bits(twin.state[q][kind]) for q in others] == [bits(optimizer.state[p][kind]) for p in params]


def test_loading_in_the_middle_starts_from_what_was_loaded(path):
    optimizer, params = running([np.zeros(3), np.zeros(4)])
    saved, kept = optimizer.state_dict(), [p.data.copy() for p in params]
    optimizer.step()
    expected = [p.data.copy() for p in params]
    optimizer.step()
    optimizer.load_state_dict(saved)
    for p, w in zip(params, kept):
        p.data[...] = w
    optimizer.step()
    assert [bits(p.data) for p in params] == [bits(w) for w in expected]


def test_memory_is_written_in_place_and_read_by_the_engine(path):
    optimizer, params = running([np.zeros(3), np.zeros(4)])
    optimizer.state[params[0]]['step_size'][...] = 5
    before = params[0].data.copy()
    optimizer.step()
    assert np.array_equal(before - params[0].data, np.full(3, 6.0))


def test_settings_may_change_and_may_be_arrays(path):
    optimizer, params = running([np.zeros(3), np.zeros(3)])
    group, reference = optimizer.param_groups[0], ByRule([p.data.copy() for p in params], variant='irprop-')
    reference.states = [rule.State(optimizer.state[p]['sign'].copy(), optimizer.state[p]['step_size'].copy())
                        for p in params]
    for etas in ((0.4, 1.5), (np.array([.5, .6, .7]), 1.1), (0.5, 1.2)):
        group['etas'] = reference.options['etas'] = etas
        for k in range(3):
            gs = [np.where(np.arange(3) == k, -1.0, 1.0)] * 2
            for p, g in zip(params, gs):
                p.grad = g
            optimizer.step()
            reference.step(gs)
            same(optimizer, params, reference)


def test_each_array_gets_its_own_part_of_settings_that_are_arrays(path):
    optimizer, params = running([np.zeros((2, 1)), np.zeros((2, 3))])
    etas = optimizer.param_groups[0]['etas'] = np.array([[.4], [.7]]), 1.5
    reference = ByRule([p.data.copy() for p in params], variant='irprop-', etas=etas)
    reference.states = [rule.State(optimizer.state[p]['sign'].copy(), optimizer.state[p]['step_size'].copy())
                        for p in params]
    for k in range(6):
        gs = [np.full(p.shape, (-1.0) ** k) for p in params]
        gs[k % 3:k % 3 + 1] = [None] * len(gs[k % 3:k % 3 + 1])  # the first is missing, the second, none
        for p, g in zip(params, gs):
            p.grad = g
        optimizer.step()
        reference.step(gs)
        same(optimizer, params, reference)


def test_arrays_of_other_libraries_are_stepped_one_by_one():
    xp = array_api_strict
    p, q = Parameter(xp.zeros(5)), Parameter(np.zeros(5))
    optimizers = Rprop([p]), Rprop([q])
    for g in gradients((5,), 30, np.float64):
        p.grad, q.grad = xp.asarray(g), g
        for optimizer in optimizers:
            optimizer.step()
    assert bits(np.asarray(p.data)) == bits(q.data)
    assert isinstance(backend_of(optimizers[0]), Readable)


def test_a_type_without_a_fast_path_is_stepped_too():
    p = Parameter(np.zeros(5, np.longdouble))
    optimizer, reference = Rprop([p]), ByRule([np.zeros(5, np.longdouble)], variant='irprop-')
    for g in gradients((5,), 30, np.longdouble):
        p.grad = g
        optimizer.step()
        reference.step([g])
    assert np.array_equal(p.data, reference.arrays[0]) and isinstance(backend_of(optimizer), Readable)


def test_cuts_and_bundles_are_partitions():
    for shape in [(BLOCK * 2 + 3,), (5, BLOCK + 1), (2, 3, 40_000), (BLOCK + 7, 1), (1, 1, BLOCK * 3)]:
        covered = np.zeros(shape, np.int8)
        order = np.arange(covered.size).reshape(shape)
        seen = []
        for key in pieces(shape):
            assert covered[key].size <= BLOCK
            covered[key] += 1
            seen.append(order[key].reshape(-1))
        assert (covered == 1).all() and np.array_equal(np.concatenate(seen), order.reshape(-1))
    sizes = [0, 0, 5, 99, 100, 101, 1, 0, 50, 50, 1]
    cut = bundles(sizes, 100)
    assert [i for a, b in cut for i in range(a, b)] == list(range(len(sizes)))
    assert all(sum(sizes[a:b]) <= 100 or b - a == 1 for a, b in cut)


def test_extra_memory_of_a_step_does_not_grow_with_the_weights():
    before, config.backend = config.backend, 'numpy'
    peaks = []
    for n in (300_000, 3_000_000):
        optimizer, params = running([np.zeros(n, np.float32)])
        tracemalloc.start()
        optimizer.step()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    config.backend = before
    assert max(peaks) < 200_000
    state = optimizer.state[params[0]]
    assert state['sign'].nbytes + state['step_size'].nbytes == 5 * n


def test_the_first_step_needs_no_more_memory_than_the_state():
    n = 3_000_000
    before, config.backend = config.backend, 'numpy'
    p = Parameter(np.zeros(n, np.float32))
    p.grad = np.ones(n, np.float32)
    optimizer = Rprop([p])
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    config.backend = before
    assert peak < 20 * n


def test_backend_says_what_it_takes(monkeypatch):
    mine = configs.Config()
    mine.backend = 'numpy'
    with pytest.raises(ValueError, match="'fortran'.*numpy"):
        mine.backend = 'fortran'
    monkeypatch.setattr(configs, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='rprop_lit\\[fast\\]'):
        mine.backend = 'numba'
    assert mine.backend == 'numpy' and repr(mine).startswith("Config(backend='numpy', threads=")


@pytest.mark.parametrize('value, expected', [('numpy', 'numpy'), ('', 'auto'), (None, 'auto')])
def test_backend_from_the_environment(value, expected):
    env = ({k: v for k, v in os.environ.items() if k != 'RPROP_LIT_BACKEND'}
           | ({} if value is None else {'RPROP_LIT_BACKEND': value}))
    code = 'from rprop_lit import config; print(config.backend)'
    assert subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True,
                          check=True).stdout.strip() == expected


def test_a_wrong_environment_is_an_error():
    done = subprocess.run([sys.executable, '-c', 'import rprop_lit; print(1); rprop_lit.config.backend'],
                          env={**os.environ, 'RPROP_LIT_BACKEND': 'fast'}, capture_output=True, text=True)
    assert done.returncode and done.stdout == '1\n' and "backend 'fast' is unknown" in done.stderr


def test_small_problems_never_import_numba():
    code = '''import sys, numpy as np
from rprop_lit.optim import Parameter, Rprop
p = Parameter(np.zeros(100)); p.grad = np.ones(100)
o = Rprop([p]); o.step(); o.step(); print('numba' in sys.modules)'''
    env = {**os.environ, 'RPROP_LIT_BACKEND': 'auto'}
    assert subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True,
                          check=True).stdout.strip() == 'False'


def test_a_broken_numba_is_announced_and_numpy_takes_over(tmp_path):
    (tmp_path / 'numba.py').write_text('raise ImportError("made for another NumPy")')
    code = '''import numpy as np
from rprop_lit.optim import Parameter, Rprop
p = Parameter(np.zeros(20_000)); p.grad = np.ones(20_000); o = Rprop([p]); o.step(); print(p.data[0])'''
    env = {**os.environ, 'RPROP_LIT_BACKEND': 'auto',
           'PYTHONPATH': os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '-0.01' and 'made for another NumPy' in done.stderr


@pytest.fixture
def torch():
    return pytest.importorskip('torch', reason='torch is not installed')


def tensors(torch, arrays_):
    "Leaf tensors that want gradients, with the memory of NumPy arrays"
    return [torch.from_numpy(a.copy()).requires_grad_() for a in arrays_]


def test_tensors_on_the_cpu_take_the_engine(path, torch):
    fresh = [np.ascontiguousarray(a) for a in awkward(np.float32)]
    ps, reference = tensors(torch, fresh), ByRule([a.copy() for a in fresh], variant='irprop+')
    optimizer = Rprop(ps, variant='irprop+')
    streams = [gradients(a.shape, 20, np.float32, seed) for seed, a in enumerate(fresh)]
    for loss, *gs in zip(errors(20), *streams):
        for p, g in zip(ps, gs):
            p.grad = torch.from_numpy(g.copy())
        optimizer.step(loss=loss)
        reference.step(gs, loss)
    assert isinstance(backend_of(optimizer), expected(path))
    for p, w, state in zip(ps, reference.arrays, reference.states):
        assert (bits(p.detach().numpy()) == bits(w)
                and bits(optimizer.state[p]['step_size'].numpy()) == bits(state.step))
        assert isinstance(optimizer.state[p]['sign'], torch.Tensor)


def test_a_backward_through_stale_weights_is_noticed(path, torch):
    p = torch.ones(3, requires_grad=True)
    optimizer = Rprop([p])
    for _ in range(3):
        p.grad = torch.ones(3)
        held = (p * p).sum()  # its backward needs p as it is now
        optimizer.step()
        with pytest.raises(RuntimeError, match='modified by an inplace operation'):
            held.backward()


def test_flattened_tensors_learn_as_before(path, torch):
    def net():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Tanh(), torch.nn.Linear(50, 2))
    nets = net(), net()
    flatten(nets[1].parameters())
    optimizers = [Rprop(n.parameters()) for n in nets]
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    for _ in range(20):
        for n, optimizer in zip(nets, optimizers):
            optimizer.zero_grad(set_to_none=False)
            torch.nn.functional.mse_loss(n(x), y).backward()
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))


@pytest.mark.parametrize('kind', ['bfloat16', 'float16'])
def test_half_precision_tensors(torch, kind):
    dtype = getattr(torch, kind)
    p = torch.zeros(4, dtype=dtype, requires_grad=True)
    w, sign, step = torch.zeros(4, dtype=dtype), np.zeros(4, np.int8), np.full(4, np.float32(0.01))
    optimizer = Rprop([p])
    for g in gradients((4,), 100, np.float32):
        g = torch.from_numpy(np.sign(g) * np.float32(1e-6)).to(dtype)
        p.grad = g.clone()
        optimizer.step()
        dw, state = rule.update_all(g.float().numpy(), rule.State(sign, step), forget=True, undo=False,
                                    etas=(0.5, 1.2), step_sizes=LIMITS)
        sign, step = state.sign, state.step
        w = (w.float() + torch.from_numpy(dw)).to(dtype)
        assert torch.equal(p.detach(), w) and bits(optimizer.state[p]['step_size'].numpy()) == bits(step)
    assert optimizer.state[p]['step_size'].dtype == torch.float32


@pytest.mark.parametrize('knobs', [(False, False), (True, False), (True, True)])
def test_a_block_that_is_interrupted_holds_old_or_new_numbers(knobs):
    g = np.array([1, -1, 0, 1, -1, np.nan, 1, -1], np.float32)
    old = (np.arange(8, dtype=np.float32), np.array([1, 1, 1, -1, -1, -1, 0, 0], np.int8),
           np.full(8, 40, np.float32))
    limits = limits_of(Settings(step_sizes=(1e-6, 45.0)), np.float32, [])
    new = [x.copy() for x in old]
    step_block(new[0], g, new[1], new[2], limits, Scratch(8, np.float32, np.float32), *knobs)

    def interrupted(after):
        "What the arrays hold if Ctrl-C is pressed after so many lines; whether it came in time"
        now, left, tracer = [x.copy() for x in old], [after], sys.gettrace()

        def line(frame, event, arg):
            left[0] -= event == 'line'
            if left[0] < 0:
                raise KeyboardInterrupt
            return line
        sys.settrace(lambda frame, event, arg: line if frame.f_code is step_block.__code__ else None)
        try:
            step_block(now[0], g, now[1], now[2], limits, Scratch(8, np.float32, np.float32), *knobs)
        except KeyboardInterrupt:
            return now, True
        finally:
            sys.settrace(tracer)
        return now, False
    lines = 0
    while (found := interrupted(lines))[1]:
        assert all(bits(a) in (bits(b), bits(c)) for a, b, c in zip(found[0], old, new))
        lines += 1
    assert lines > 15 and all(bits(a) == bits(b) for a, b in zip(found[0], new))
