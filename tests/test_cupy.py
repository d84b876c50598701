"""The real CuPy, on a GPU or on the emulated device: everything of NumPy's, bit for bit;
streams, graphs, several devices, torch's tensors."""
import ast
import copy
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpus import DEVICES, EMULATED, TorchStream, cupy, torch_on_gpu
from streams import ETAS, VARIANTS, bits, errors, gradients

import rprop_lit.nn as nn
from rprop_lit import Parameter, Rprop, minimize, rprop
from rprop_lit.inside import cuda
from rprop_lit.optim import Row, flatten
from rprop_lit.rule import init, namespace
from rprop_lit.variants import update

pytestmark = pytest.mark.filterwarnings('error')  # nothing that CuPy or torch warn of is hidden
PACKAGE = Path(cuda.__file__).parents[1]
SHAPES = [(7,), (), (0,), (3, 5), (1024,), (9000,)]
FLOATS = ['float16', 'float32', 'float64']


@pytest.fixture(autouse=True)
def ordered():
    "A test that fails must not leave work in a stream for the next one"
    yield
    for k in range(DEVICES):
        with cupy.cuda.Device(k) as device:
            device.synchronize()


@pytest.fixture
def launches(monkeypatch):
    "The launches of the kernel"
    seen, real = [], cuda._kernel

    def counted(*which):
        run = real(*which)
        return lambda grid, block, args, **how: (seen.append((which, grid)), run(grid, block, args, **how))[1]
    monkeypatch.setattr(cuda, '_kernel', counted)
    return seen


def same(ours, theirs):
    "Are arrays on a GPU those of NumPy, bit for bit?"
    return [bits(cupy.asnumpy(a)) for a in ours] == [bits(a) for a in theirs]


def laid(values, how):
    "Values on the GPU and in NumPy, in arrays of a layout"
    both = []
    for xp in (cupy, np):
        a = xp.asarray(values)
        if how == 'strided' and a.ndim:
            a = xp.repeat(a, 2, axis=-1)[..., ::2]
        both.append(xp.array(a, order='F') if how == 'fortran' else a[...] if how == 'strided' else a.copy())
    return both


def twins(dtype, shapes=SHAPES, how='plain', **options):
    "The same parameters on the GPU and in NumPy, with an optimizer each"
    random = np.random.default_rng(1)
    found = [laid(np.asarray(random.normal(size=shape) + (1j * random.normal(size=shape) if 'complex' in dtype
                                                          else 0)).astype(dtype), how) for shape in shapes]
    there, here = [Parameter(a) for a, _ in found], [Parameter(b) for _, b in found]
    return there, here, Rprop(there, **options), Rprop(here, **options)


def streams_of(dtype, shapes, steps):
    "Gradients for each shape; complex ones are two streams"
    part = {'complex64': 'float32', 'complex128': 'float64'}.get(dtype)
    found = []
    for seed, shape in enumerate(shapes):
        if part is None:
            found.append(list(gradients(shape, steps, dtype, seed)))
        else:
            pairs = list(gradients((*shape, 2), steps, part, seed))
            found.append([np.ascontiguousarray(pair).view(dtype).reshape(shape) for pair in pairs])
    return list(zip(*found))


def side_by_side(dtype, steps, how='plain', shapes=SHAPES, loss_of=lambda k, loss: loss, **options):
    "Both optimizers; weights, memories and errors equal in every bit after each step"
    there, here, gpu, host = twins(dtype, shapes, how, **options)
    for k, (loss, gs) in enumerate(zip(errors(steps), streams_of(dtype, shapes, steps))):
        for i, (p, q, g) in enumerate(zip(there, here, gs)):
            missing = (k + i) % 13 == 12
            p.grad, q.grad = (None, None) if missing else laid(g, how)
        gpu.step(loss=loss_of(k, loss))
        host.step(loss=loss)
        assert same([p.data for p in there], [q.data for q in here])
        for p, q in zip(there, here):
            assert (p in gpu.state) == (q in host.state)
            if q in host.state:
                assert same([gpu.state[p][name] for name in ('sign', 'step_size')],
                            [host.state[q][name] for name in ('sign', 'step_size')])
                assert gpu.state[p]['step'] == host.state[q]['step']
        assert gpu.param_groups[0]['loss'] == host.param_groups[0]['loss']
    return there, gpu


# ---------------------------------------------------------------- equal bits

def test_arrays_are_recognised():
    # no version of CuPy has __array_namespace__
    a = cupy.zeros(3)
    assert not hasattr(a, '__array_namespace__') and namespace(a) is cupy and Parameter(a).data is a


@pytest.mark.parametrize('maximize', [False, True], ids=['down', 'up'])
@pytest.mark.parametrize('etas', ETAS, ids=str)
@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('variant', VARIANTS)
def test_one_launch_a_step_gives_numpys_bits(launches, variant, dtype, etas, maximize):
    side_by_side(dtype, 15, variant=variant, etas=etas, maximize=maximize)
    assert len(launches) == 15


@pytest.mark.parametrize('how', ['strided', 'fortran'])
@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('variant', VARIANTS)
def test_arrays_with_holes_give_numpys_bits(variant, dtype, how):
    # by CuPy's own operations, which flush subnormal numbers of float32: none come up here
    there, gpu = side_by_side(dtype, 4, how, [(7,), (), (4, 5)], variant=variant, step_sizes=(1e-6, 50.0))
    assert how == 'fortran' or not there[2].data.flags.c_contiguous


@pytest.mark.parametrize('dtype', ['complex64', 'complex128'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_complex_numbers_are_pairs_of_reals(launches, variant, dtype):
    side_by_side(dtype, 6, shapes=[(3,), (2, 3), ()], variant=variant)
    assert len(launches) == 6


@pytest.mark.parametrize('type_of_loss', ['float32', 'float64'])
@pytest.mark.parametrize('maximize', [False, True], ids=['down', 'up'])
def test_an_error_on_the_gpu_is_compared_there(launches, maximize, type_of_loss):
    # errors of the host and of the GPU in turn: each goes on from the other's
    rounded = list(np.array(list(errors(30)), type_of_loss).astype(float))
    there, here, gpu, host = twins('float32', variant='irprop+', maximize=maximize)
    for k, (loss, gs) in enumerate(zip(rounded, streams_of('float32', SHAPES, 30))):
        for p, q, g in zip(there, here, gs):
            p.grad, q.grad = cupy.asarray(g), g
        gpu.step(loss=loss if k % 7 == 3 else cupy.full((1,) if k % 2 else (), loss, type_of_loss))
        host.step(loss=loss)
        assert same([p.data for p in there], [q.data for q in here])
        assert gpu.param_groups[0]['loss'] == host.param_groups[0]['loss'] or k % 5
    assert len(launches) == 30


def test_subnormal_numbers_are_not_flushed():
    # gradients of 1e-40, weights and steps of 1e-42: CuPy compiles its own kernels with -ftz=true, which
    # would read zeros
    w = (np.arange(1, 9) * 1e-42).astype(np.float32)
    p, q = Parameter(cupy.asarray(w)), Parameter(w.copy())
    options = dict(lr=1e-42, step_sizes=(0.0, 1e-41))
    gpu, host = Rprop([p], **options), Rprop([q], **options)
    for k in range(12):
        g = (np.where(np.arange(8) % 3 == k % 3, -1, 1) * 1e-40).astype(np.float32)
        p.grad, q.grad = cupy.asarray(g), g
        gpu.step()
        host.step()
        assert same([p.data, gpu.state[p]['step_size']], [q.data, host.state[q]['step_size']])
    assert bits(q.data) != bits(w) and (abs(q.data) < np.finfo(np.float32).tiny).all()


@pytest.mark.parametrize('variant', VARIANTS)
def test_bfloat16(launches, variant):
    kind = pytest.importorskip('ml_dtypes', reason='ml_dtypes is not installed').bfloat16
    from test_cuda import Weights
    w = np.random.default_rng(0).normal(size=300).astype(np.float32)
    ours, theirs, state = (Parameter(cupy.asarray(w.astype(kind))), Weights('bfloat16', w),
                           init(np.zeros(300, np.float32), 0.01))
    gpu = Rprop([ours], variant=variant)
    for loss, g in zip(errors(20), gradients((300,), 20, np.float32)):
        with np.errstate(all='ignore'):
            g = g.astype(kind)
        ours.grad = cupy.asarray(g)
        gpu.step(loss=loss)
        dw, state = update(g.astype(np.float32), state, variant=variant, loss=loss)
        theirs.add(dw)
        assert bits(ours.data.get()) == bits(theirs.bits)
    assert len(launches) == 20


def test_a_thousand_arrays_are_one_launch(launches):
    shapes = [(n,) for n in np.random.default_rng(0).integers(1, 60, 1000)]
    there, here, gpu, host = twins('float32', shapes)
    for gs in streams_of('float32', shapes, 3):
        for p, q, g in zip(there, here, gs):
            p.grad, q.grad = cupy.asarray(g), g
        gpu.step()
        host.step()
    assert same([p.data for p in there], [q.data for q in here]) and len(launches) == 3


def test_more_arrays_than_arguments_hold_take_another_launch(launches, monkeypatch):
    monkeypatch.setattr(cuda, 'MANY', 200)
    monkeypatch.setattr(cuda, 'FEW', 30)
    shapes = [(n % 5,) for n in range(500)]
    there, here, gpu, host = twins('float32', shapes, variant='irprop+')
    for k, gs in enumerate(streams_of('float32', shapes, 5)):
        for p, q, g in zip(there, here, gs):
            p.grad, q.grad = cupy.asarray(g), g
        loss = [3.0, 2.0, 4.0, 1.0, 2.0][k]
        gpu.step(loss=cupy.full((), loss))  # only the last launch may remember it
        host.step(loss=loss)
        assert same([p.data for p in there], [q.data for q in here])
    assert len(launches) == 5 * 2 and gpu.param_groups[0]['loss'] == 2.0


def test_views_that_begin_anywhere():
    # four weights at a time only where both arrays begin at a multiple of 16 bytes
    for shift in range(5):
        w, g = cupy.zeros(100, np.float32)[shift:], cupy.full(100, 1.0, np.float32)[5 - shift:]
        p = Parameter(w[:90])
        p.grad = g[:90]
        Rprop([p], lr=0.5).step()
        assert (p.data == -0.5).all()


def test_rows_and_groups():
    parts = [Parameter(cupy.ones(3, np.float32)), Parameter(cupy.ones((2, 2), np.float32))]
    row, alone = Row(parts), Parameter(cupy.ones(3))
    optimizer = Rprop([dict(params=[row], lr=0.25), dict(params=[alone], lr=0.5, maximize=True)])
    for p in parts:
        p.grad[...] = 1.0
    alone.grad = cupy.ones(3)
    optimizer.step()
    assert all((p.data == 0.75).all() for p in parts) and (alone.data == 1.5).all()
    w, g = flatten([Parameter(cupy.ones(3)), Parameter(cupy.zeros((2, 2)))])
    assert w.get().tolist() == [1, 1, 1, 0, 0, 0, 0] and not g.any()


def test_settings_that_are_arrays():
    # with an error on the GPU too: the readable form cannot compare there, so the error is read
    for variant in VARIANTS:
        lo = np.array([1e-3, 1e-2, 1e-1])
        p, q = Parameter(cupy.zeros((2, 3), np.float32)), Parameter(np.zeros((2, 3), np.float32))
        gpu, host = (Rprop([x], variant=variant, lr=np.full(3, 0.1), step_sizes=(lo, 1.0),
                           etas=(np.array([.4, .5, .6]), 1.2)) for x in (p, q))
        for k, g in enumerate(gradients((2, 3), 8, np.float32)):
            p.grad, q.grad = cupy.asarray(g), g
            gpu.step(loss=cupy.full((), math.nan if k == 5 else k % 3.0))
            host.step(loss=math.nan if k == 5 else k % 3.0)
            assert same([p.data], [q.data])


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('bounds', [False, True])
@pytest.mark.parametrize('safe', [False, True])
@pytest.mark.parametrize('variant', VARIANTS)
def test_the_solver_walks_as_in_numpy(variant, safe, bounds, dtype):
    def bowl(x):
        return (x * x).sum() * 0.5 + 3.0, x + 0

    start = np.array([3.0, -2.5, 0.75, -0.25], dtype)
    options = dict(variant=variant, safe=safe, bounds=[(0.5, 4), (None, -1), (-1, 1), (-0.5, 0.5)]
                   if bounds else None)
    for k, (a, b) in enumerate(zip(rprop(bowl, cupy.asarray(start), **options),
                                   rprop(bowl, start, **options))):
        assert (isinstance(a.x, cupy.ndarray) and same([a.x, a.jac, a.step], [b.x, b.jac, b.step])
                and (a.nit, a.nfev, a.undone) == (b.nit, b.nfev, b.undone))
        if k == 25:
            break


def test_minimize():
    def bowl(x):
        return float(((x - 1) ** 2).sum()), 2 * (x - 1)

    found, wanted = (minimize(bowl, cupy.zeros(3), options=dict(maxiter=60)),
                     minimize(bowl, np.zeros(3), options=dict(maxiter=60)))
    assert (found.success and isinstance(found.x, cupy.ndarray)
            and same([found.x, found.jac], [wanted.x, wanted.jac]) and found.nfev == wanted.nfev)


def test_a_network():
    # the same bits need the same sums: small ones, in which CuPy and NumPy add in the same order
    random = np.random.default_rng(3)
    x, y, ws = (random.normal(size=(6, 1)), random.normal(size=(6, 1)),
                [random.normal(size=(1, 4)), random.normal(size=(4,))])
    walks = []
    for xp in (cupy, np):
        a, b = (nn.Parameter(xp.asarray(w)) for w in ws)
        optimizer = Rprop([a, b])
        for _ in range(10):
            optimizer.zero_grad()
            loss = (((nn.Tensor(xp.asarray(x)) * a + b).tanh() - xp.asarray(y)).square().mean()
                    if hasattr(nn.Tensor, 'square') else None)
            if loss is None:
                e = (nn.Tensor(xp.asarray(x)) * a + b).tanh() - xp.asarray(y)
                loss = (e * e).mean()
            loss.backward()
            optimizer.step()
        assert isinstance(a.grad, xp.ndarray)
        walks.append([cupy.asnumpy(p.data) for p in (a, b)])
    # tanh of CUDA and of NumPy differ in the last bit
    assert all(np.allclose(p, q, rtol=0, atol=1e-12) for p, q in zip(*walks))


# ---------------------------------------------------------------- state

def stepped(variant='irprop+', dtype='float32'):
    "An optimizer after three steps with errors on the GPU"
    there, here, gpu, host = twins(dtype, [(3,), (2, 2)], variant=variant)
    for k, gs in enumerate(streams_of(dtype, [(3,), (2, 2)], 3)):
        for p, q, g in zip(there, here, gs):
            p.grad, q.grad = cupy.asarray(g), g
        gpu.step(loss=cupy.full((), 3.0 - k))
        host.step(loss=3.0 - k)
    return there, here, gpu, host


def test_the_last_error_is_a_number_for_everybody():
    there, _, gpu, _ = stepped()
    assert type(gpu.param_groups[0]['loss']) is float and gpu.param_groups[0]['loss'] == 1.0
    state = gpu.state_dict()
    assert state['param_groups'][0]['loss'] == 1.0 and type(state['param_groups'][0]['loss']) is float
    for p in there:
        p.grad = cupy.ones(p.shape, np.float32)
    gpu.step(loss=cupy.full((), 7.0))
    assert state['param_groups'][0]['loss'] == 1.0  # a copy
    again = copy.deepcopy(gpu)
    assert again.param_groups[0]['loss'] == 7.0 and 'loss: 7.0' in repr(gpu)
    gpu.param_groups[0]['loss'] = 2.0  # what is written there counts
    assert gpu.param_groups[0]['loss'] == 2.0
    gpu.step(loss=cupy.full((), 3.0))
    assert gpu.param_groups[0]['loss'] == 3.0


@pytest.mark.parametrize('event', ['a host error', 'deepcopy', 'state_dict', 'save', 'no gradient',
                                   'a type that changes', 'nothing'])
def test_the_last_error_survives(event, tmp_path):
    # each time the next error is 2: a rise against 1, and a fall against the 9 or inf that would be there if
    # 1 were lost
    there, here, gpu, host = stepped()
    gs = [np.full(p.shape, -1.0, np.float32) * np.sign(p.grad.get()) for p in there]
    if event == 'deepcopy':
        there, gpu = copy.deepcopy((there, gpu))
    if event == 'state_dict':
        gpu.load_state_dict(host.state_dict())
        host.load_state_dict(gpu.state_dict())
    if event == 'save':
        gpu.save(tmp_path / 'a.npz')
        gpu = Rprop(there, variant='irprop+')
        gpu.load(tmp_path / 'a.npz')
    for p, q, g in zip(there, here, gs):
        p.grad, q.grad = cupy.asarray(g), g
    if event == 'no gradient':
        there[0].grad = here[0].grad = None
    if event == 'a type that changes':
        for p in (there[0], here[0]):
            p.data, p.grad = p.data.astype('f8'), p.grad.astype('f8')
    gpu.step(loss=2.0 if event == 'a host error' else cupy.full((), 2.0))
    host.step(loss=2.0)
    assert same([p.data for p in there], [q.data for q in here]) and gpu.param_groups[0]['loss'] == 2.0


@pytest.mark.parametrize('dtype', [*FLOATS, 'complex64'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_state_travels_both_ways(variant, dtype):
    there, here, gpu, host = stepped(variant, dtype)
    up, down = host.state_dict(), gpu.state_dict()
    assert same([down['state'][0][key] for key in ('prev', 'step_size')],
                [up['state'][0][key] for key in ('prev', 'step_size')])
    gpu.load_state_dict(up)
    host.load_state_dict(down)
    for gs in streams_of(dtype, [(3,), (2, 2)], 6)[3:]:
        for p, q, g in zip(there, here, gs):
            p.grad, q.grad = cupy.asarray(g), g
        gpu.step(loss=cupy.full((), 4.0))
        host.step(loss=4.0)
        assert same([p.data for p in there], [q.data for q in here])


def test_what_is_put_into_a_memory_is_taken_or_refused():
    there, _, gpu, _ = stepped()
    p = there[0]
    gpu.state[p]['step_size'] = np.full(3, 0.125)  # of another library and type
    gpu.state[p]['sign'][...] = 0
    p.grad = cupy.ones(3, np.float32)
    before = p.data.get()
    gpu.step(loss=1.0)
    assert (p.data.get() == before - np.float32(0.125)).all()
    for wrong in (cupy.ones(4, np.float32), cupy.ones(3, np.int8)):
        with pytest.raises((ValueError, TypeError)):
            gpu.state[p]['step_size'] = wrong
    wide = cupy.zeros(6, np.float32)
    wide[::2] = 0.25
    gpu.state[p]['step_size'] = wide[::2]  # with holes
    gpu.step(loss=1.0)
    assert bits(gpu.state[p]['step_size'].get()) == bits(np.full(3, np.float32(0.25) * np.float32(1.2)))


def test_bad_gradients_change_nothing():
    there, _, gpu, _ = stepped()
    before = [p.data.get() for p in there]
    for wrong in (cupy.ones(4, np.float32), cupy.ones(3), np.ones(3, np.float32)):
        there[0].grad = wrong
        with pytest.raises((ValueError, TypeError)):
            gpu.step(loss=cupy.full((), 9.0))
        assert same([p.data for p in there], before)
    gpu.param_groups[0]['nonfinite'] = 'raise'
    there[0].grad = cupy.array([1, math.nan, math.inf], np.float32)
    with pytest.raises(ValueError, match='1 NaN and 1 inf'):
        gpu.step(loss=1.0)
    assert same([p.data for p in there], before)


# ---------------------------------------------------------------- streams and graphs

def test_work_goes_to_the_current_stream():
    # gradients are made in a stream that waits for nobody, and nothing orders it with the null stream
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        p, q = Parameter(cupy.zeros(5000, np.float32)), Parameter(np.zeros(5000, np.float32))
        gpu, host = Rprop([p], variant='irprop+'), Rprop([q], variant='irprop+')
        for k, g in enumerate(gradients((5000,), 12, np.float32)):
            p.grad, q.grad = cupy.asarray(g), g
            gpu.step(loss=cupy.full((), k % 4.0))
            host.step(loss=k % 4.0)
            p.grad = None
        found = p.data.get()
    assert bits(found) == bits(q.data)


def captured(variant='irprop+', eager=1, maximize=False, dtype='float32', sizes=(5000, 3), **how):
    "Parameters, a graph of one step, and what it takes to replay it: a function of a gradient and an error"
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        there = [Parameter(cupy.zeros(n, dtype)) for n in sizes]
        loss = cupy.zeros((), **how)
        for p in there:
            p.grad = cupy.zeros(p.shape, dtype)
        optimizer = Rprop(there, variant=variant, maximize=maximize)
        graph = []

        def step(gs, error):
            with stream:
                for p, g in zip(there, gs):
                    p.grad.set(g)
                loss.fill(error)
                if step.count < eager:
                    optimizer.step(loss=loss)
                else:
                    if not graph:
                        stream.begin_capture()
                        optimizer.step(loss=loss)
                        graph.append(stream.end_capture())
                    graph[0].launch(stream)
                step.count += 1
                stream.synchronize()
        step.count = 0
    return there, optimizer, step, stream


@pytest.mark.parametrize('maximize', [False, True], ids=['down', 'up'])
@pytest.mark.parametrize('eager', [1, 3])
@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_graph_replays_steps(variant, dtype, eager, maximize):
    there, optimizer, step, stream = captured(variant, eager, maximize, dtype)
    state, ws = ([init(np.zeros(p.shape, dtype), 0.01) for p in there],
                 [np.zeros(p.shape, dtype) for p in there])
    busy = []
    for error, *gs in zip(errors(20), *[gradients(p.shape, 20, dtype, k) for k, p in enumerate(there)]):
        step(gs, error)
        busy.append(cupy.full(5000, 7.0, dtype))  # takes memory that a capture might have given back
        for i, g in enumerate(gs):
            dw, state[i] = update(-g if maximize else g, state[i], variant=variant,
                                  loss=-error if maximize else error)
            ws[i] = (ws[i] + dw).astype(dtype)
        assert same([p.data for p in there], ws)
    assert all((b == 7.0).all() for b in busy)
    if variant == 'irprop+':
        assert abs(optimizer.param_groups[0]['loss']) == abs([e for e in errors(20) if math.isfinite(e)][-1])


def test_the_first_step_is_refused_in_a_capture():
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        p = Parameter(cupy.zeros(3))
        p.grad, optimizer = cupy.ones(3), Rprop([p])
        stream.begin_capture()
        with pytest.raises(RuntimeError, match='one step before'):
            optimizer.step()
        stream.end_capture()
        optimizer.step()
        assert p.data.get().tolist() == [-0.01] * 3


@pytest.mark.parametrize('what', ['a number', 'after numbers', 'holes', 'another type'])
def test_what_a_graph_cannot_contain_is_refused(what):
    there, optimizer, step, stream = captured(eager=9)
    gs = [np.ones(p.shape, np.float32) for p in there]
    step(gs, 5.0)
    with stream:
        if what == 'after numbers':
            optimizer.step(loss=4.0)  # from now on the last error lies on the host
        if what == 'holes':
            there[0].grad = cupy.ones(10_000, np.float32)[::2]
        loss = {'a number': 3.0, 'another type': cupy.zeros((), np.float16)}.get(what, cupy.zeros(()))
        before = [p.data.get() for p in there]
        stream.begin_capture()
        with pytest.raises(RuntimeError, match='loss=|contiguous'):
            optimizer.step(loss=loss)
        stream.end_capture()
        assert same([p.data for p in there], before)
        there[0].grad = cupy.ones(5000, np.float32)
        optimizer.step(loss=cupy.full((), 3.0))  # nothing stale is left behind
        stream.synchronize()
    assert optimizer.param_groups[0]['loss'] == 3.0 and (there[0].data.get() < before[0]).all()


def test_a_graph_outlives_the_plan_that_it_was_made_from():
    there, optimizer, step, stream = captured('irprop-')
    gs = [np.ones(p.shape, np.float32) for p in there]
    for _ in range(3):
        step(gs, 1.0)
    weights = [p.data for p in there]
    optimizer.load_state_dict(optimizer.state_dict())  # new rows; the graph has the old ones
    with stream:
        others = [cupy.full(5000, 5.0, np.float32) for _ in range(20)]
    stream.synchronize()
    step(gs, 1.0)
    expected = -0.01 * (1 + 1.2 + 1.2 ** 2 + 1.2 ** 3)
    assert all((o == 5.0).all() for o in others) and abs(weights[0].get() - expected).max() < 1e-6


# ---------------------------------------------------------------- torch

@pytest.mark.parametrize('kind', ['float16', 'bfloat16', 'float32', 'float64', 'complex64'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_tensors_on_the_gpu(launches, variant, kind):
    torch = torch_on_gpu()
    dtype, random = getattr(torch, kind), torch.Generator().manual_seed(0)
    values = [torch.randn(size, generator=random, dtype=dtype) for size in [(300,), (2, 3), ()]]
    there, here = ([v.to('cuda').requires_grad_() for v in values],
                   [v.clone().requires_grad_() for v in values])
    gpu, host = Rprop(there, variant=variant), Rprop(here, variant=variant)
    for k in range(8):
        for p, q in zip(there, here):
            g = torch.randn(p.shape, generator=random, dtype=dtype)
            p.grad, q.grad = g.to('cuda'), g
        loss = [3.0, 2.0, 2.5, math.nan, 1.0, 1.5, 1.25, 1.0][k]
        before = there[0]._version
        gpu.step(loss=torch.tensor(loss, device='cuda') if k % 3 else loss)
        host.step(loss=loss)
        assert (all(torch.equal(p.detach().cpu(), q.detach()) for p, q in zip(there, here))
                and there[0]._version > before)
    assert len(launches) == 8 and all(gpu.state[p][name].is_cuda for p in there
                                      for name in ('sign', 'step_size'))
    down = gpu.state_dict()
    host.load_state_dict(down)
    gpu.load_state_dict(host.state_dict())
    assert gpu.param_groups[0]['loss'] == host.param_groups[0]['loss']


def test_lazy_and_sparse_gradients_of_torch():
    torch = torch_on_gpu()
    p = torch.zeros(4).to('cuda').requires_grad_()
    optimizer = Rprop([p], lr=0.5)
    z = torch.tensor([1 + 1j, 1 - 1j, 2 + 3j, 0 - 1j]).to('cuda')
    g = z.conj().imag  # negated when it is read
    assert g.is_neg()
    p.grad = g
    optimizer.step()
    assert p.detach().cpu().tolist() == [0.5, -0.5, 0.5, -0.5]
    one = torch.zeros(1).to('cuda').requires_grad_()
    one.grad = torch.tensor([1 + 1j]).to('cuda').conj().imag  # negated, and without holes
    assert one.grad.is_neg() and one.grad.is_contiguous()
    Rprop([one], lr=0.5).step()
    assert one.detach().cpu().tolist() == [0.5]
    q = torch.zeros(4).to('cuda').requires_grad_()
    other = Rprop([q])
    if not EMULATED:  # torch does not let a disguised tensor have a sparse gradient
        q.grad = torch.ones(4).to('cuda').to_sparse()
        with pytest.raises((ValueError, TypeError), match='layout'):
            other.step()


def test_a_side_stream_of_torch(launches):
    torch = torch_on_gpu()
    with TorchStream() as stream:
        p, q = torch.zeros(5000).to('cuda').requires_grad_(), np.zeros(5000, np.float32)
        optimizer, state = Rprop([p], variant='irprop+'), init(q, 0.01)
        p.grad, loss = torch.zeros(5000).to('cuda'), torch.zeros(()).to('cuda')
        graph = None
        for k, (error, g) in enumerate(zip(errors(12), gradients((5000,), 12, np.float32))):
            error = float(np.float32(error))
            p.grad.copy_(torch.from_numpy(g))
            loss.copy_(torch.tensor(error))
            if k < 2:
                optimizer.step(loss=loss)
            else:
                if graph is None:
                    stream.begin_capture()
                    optimizer.step(loss=loss)
                    graph = stream.end_capture()
                graph.launch(stream)
            stream.synchronize()
            dw, state = update(g, state, variant='irprop+', loss=error)
            q += dw
            assert bits(p.detach().cpu().numpy()) == bits(q)


def test_torch_and_cupy_do_not_mix_silently():
    torch = torch_on_gpu()
    p = torch.zeros(4).to('cuda').requires_grad_()
    p.grad = torch.ones(4).to('cuda')
    optimizer = Rprop([p], variant='irprop+')
    # another library's error is read, and not compared in a stream that nobody ordered
    optimizer.step(loss=cupy.full((), 3.0))
    assert optimizer.param_groups[0]['loss'] == 3.0
    p.grad = cupy.ones(4, np.float32) if not isinstance(p, torch.Tensor) else p.grad
    own = Parameter(cupy.zeros(3))
    own.grad = torch.ones(3)
    with pytest.raises(TypeError, match='convert'):
        Rprop([own]).step()


def test_the_page_runs_on_a_gpu():
    # the cells of nbs/use/50_gpu, also those that show no output for want of a GPU
    import matplotlib
    torch_on_gpu()
    matplotlib.use('agg')
    cells = json.loads((PACKAGE.parent / 'nbs' / 'use' / '50_gpu.ipynb').read_text(encoding='utf-8'))['cells']
    names, marked = {}, 0
    for cell in cells:
        text = ''.join(cell['source'])
        marked += text.startswith('#| cuda')
        if cell['cell_type'] == 'code' and 'nbdev_export' not in text:
            exec(text, names)
    assert names['xp'] is cupy and marked == 2 and names['model'].is_cuda


@pytest.mark.parametrize('shift', [-3, -1, 0, 1, 3])
def test_a_gradient_that_lies_across_its_weights(shift, monkeypatch):
    copies, copied = [], cuda._copy
    monkeypatch.setattr(cuda, '_copy', lambda *args: (copies.append(args), copied(*args))[1])
    def walked(xp):
        base = xp.asarray(np.linspace(-1, 2, 5000), dtype='float32')
        p, other = Parameter(base[3:-3]), Parameter(xp.ones(2, dtype='float32'))
        p.grad, other.grad = base[3 + shift:len(base) - 3 + shift], None
        optimizer = Rprop([p, other], lr=0.5, variant='rprop-')
        for _ in range(4):
            optimizer.step()
        return base.get() if xp is cupy else base
    assert np.array_equal(walked(np), walked(cupy))
    assert len(copies) == (4 if shift else 0)  # weights that are their own gradient need no copy


# ---------------------------------------------------------------- the text of a chapter

class Products(ast.NodeTransformer):
    "`a @ b` as a call of `product`"
    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.MatMult):
            return node
        return ast.Call(ast.Name('product', ast.Load()), [node.left, node.right], [])


def product(a, b):
    "The product of two matrices without cuBLAS, which the emulated device does not have"
    return (a[:, :, None] * b[None]).sum(axis=1) if EMULATED else a @ b


@pytest.mark.filterwarnings('default')  # what the libraries of a chapter say at their import is not CuPy's
def test_the_attack_of_chapter_80_runs_on_cupy():
    sys.path.insert(0, str(Path(__file__).parent / 'evidence'))
    from common import shown
    page = {'__name__': 'puf', 'product': product}
    for source in shown('80_puf'):
        tree = ast.fix_missing_locations(Products().visit(ast.parse(source)))
        exec(compile(tree, '80_puf.ipynb', 'exec'), page)
    logs = []
    for xp in (np, cupy):
        # nor has the emulated device the scan of CuPy's cumprod, by which features are made
        draw = page['draw'](2, 400, np.random.default_rng(0), np if EMULATED else xp, fresh=100)
        w, known, fresh = (xp.asarray(x) if hasattr(x, 'dtype') else tuple(map(xp.asarray, x)) for x in draw)
        assert all(type(x).__module__.startswith(xp.__name__) for x in (w, *known, *fresh))
        logs.append(np.array(page['learn'](w, known, fresh, budget=12, look=1)))
    # sums over four hundred answers, in another order and with another exp
    assert np.allclose(logs[0][:, 1], logs[1][:, 1], rtol=1e-5, atol=0)
    assert logs[1][-1, 1] < 0.6 * logs[1][0, 1]
    assert page['array_library']() is cupy


# ---------------------------------------------------------------- several devices

TWO = '''
import cupy, numpy as np
from rprop_lit import Parameter, Rprop
from rprop_lit.inside.cuda import Place
for how in ('plain', 'strided'):
    ws = []
    for k in range(2):
        with cupy.cuda.Device(k):
            w = cupy.zeros(8, np.float32)
            ws.append(w[::2] if how == 'strided' else w[:4])
    ps = [Parameter(w) for w in ws]
    optimizer = Rprop(ps, lr=0.5, variant='irprop+')
    for step in range(3):
        for k, p in enumerate(ps):
            with cupy.cuda.Device(k):
                p.grad = cupy.full(4, 1.0 if step < 2 else -1.0, np.float32)
        optimizer.step(loss=float(step))
    for k, p in enumerate(ps):
        memory = optimizer.state[p]
        assert p.data.device.id == k and memory['sign'].device.id == k and memory['step_size'].device.id == k
        with cupy.cuda.Device(k):
            assert np.allclose(p.data.get(), -0.5), p.data
    one = Rprop([ps[1]], variant='irprop+')
    with cupy.cuda.Device(1):
        ps[1].grad, there = cupy.ones(4, np.float32), cupy.full((), 1.0)
    one.step(loss=there)
    assert one.param_groups[0]['loss'] == 1.0 and cupy.cuda.Device().id == 0
    try:
        one.step(loss=cupy.full((), 1.0))
    except ValueError as error:
        assert 'GPU 0' in str(error) and 'GPU 1' in str(error)
    else:
        raise AssertionError('an error on another GPU was taken')
    ps[1].grad = cupy.ones(4, np.float32)  # on device 0
    try:
        one.step(loss=1.0)
    except ValueError as error:
        assert 'device' in str(error)
    else:
        raise AssertionError('a gradient on another GPU was taken')
    one.param_groups[0]['nonfinite'] = 'raise'
    with cupy.cuda.Device(1):
        ps[1].grad = cupy.ones(4, np.float32)
    one.step(loss=0.5)
    one.zero_grad(set_to_none=False)
    one.state[ps[1]]['step_size'] = np.full(4, 0.5)
    one.load_state_dict(optimizer.state_dict() | {'state': {0: optimizer.state_dict()['state'][1]},
                                                  'param_groups': one.state_dict()['param_groups']})
    assert one.state[ps[1]]['step_size'].device.id == 1
with cupy.cuda.Device(1):
    there = cupy.cuda.Stream(non_blocking=True)
    there.use()
assert Place(ps[1].data).ptr == there.ptr != Place(ps[0].data).ptr == 0
print('two devices')
'''


def test_two_devices():
    if not EMULATED and DEVICES < 2:
        pytest.skip('this machine has one GPU: .ci/steps/cupy tries two emulated ones')
    env = {**os.environ, 'EMU_DEVICES': '2', 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, '-W', 'error', '-c', TWO], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == 'two devices', done.stderr


# ---------------------------------------------------------------- names

def test_every_name_of_cupys_that_the_package_uses_exists():
    text = {path: path.read_text(encoding='utf-8') for path in PACKAGE.rglob('*.py')}
    named = {(path.name, name) for path, code in text.items()
             for name in re.findall(r"\bcupyx?((?:\.\w+)+)", code.replace("sys.modules['cupy']", 'cupy'))}
    named |= {('cuda.py', '.cuda' + name)
              for name in re.findall(r"(?<![.\w])cuda((?:\.\w+)+)", text[PACKAGE / 'inside' / 'cuda.py'])}
    assert len(named) > 10
    for path, name in named:
        found = cupy
        for part in name.strip('.').split('.'):
            assert hasattr(found, part), f'{path}: cupy{name}'
            found = getattr(found, part)


def test_every_name_of_an_array_namespace_that_the_package_uses_exists():
    # what is called as xp.name, outside of branches for torch
    torch_alone = {'view_as_real', 'from_numpy', 'no_grad', 'is_inference_mode_enabled', 'astype', 'Tensor'}
    used = {name for path in PACKAGE.rglob('*.py')
            for name in re.findall(r'\bxp\.(\w+)|namespace\(\w+\)\.(\w+)', path.read_text(encoding='utf-8'))
            for name in name if name}
    assert {'where', 'clip', 'zeros'} <= used
    assert not {name for name in used - torch_alone if not hasattr(cupy, name)}


# ---------------------------------------------------------------- the emulation itself

needs_emulation = pytest.mark.skipif(not EMULATED, reason='on a real GPU this would be chance')


@needs_emulation
def test_the_emulation_is_as_strict_as_the_real_thing():
    a = cupy.zeros(4)
    with pytest.raises(TypeError):
        a + np.ones(4)  # no operand of NumPy
    with pytest.raises(TypeError):
        np.asarray(a)  # no silent copy to the host
    tiny = cupy.full(3, 1e-40, np.float32)
    assert not (tiny * np.float32(1.0)).any()  # CuPy's own kernels flush
    fresh = cupy.ndarray(64, np.uint8, cupy.cuda.MemoryPointer(cupy.cuda.Memory(64), 0))
    assert (fresh.get() == 0xCD).all()  # memory that nobody wrote is poison
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='Capture'):
            cupy.cuda.Device().synchronize()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='Capture'):
            stream.end_capture()
        a += 1  # the stream is as good as new


@needs_emulation
def test_a_lazy_stream_is_late_and_an_eager_one_is_not():
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    a = cupy.zeros(4)
    cupy.cuda.Device().synchronize()
    with first:
        a += 1
    with second:
        early = a.get()  # nobody ordered the two
    first.synchronize()
    assert (early.tolist() == [0 if os.environ.get('EMU_LAZY') == '1' else 1] * 4
            and a.get().tolist() == [1] * 4)
