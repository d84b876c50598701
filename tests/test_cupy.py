"""The engine for CUDA: on a GPU where there is one; and on a stand-in for CuPy, made of NumPy and the kernel played by the CPU."""
import ctypes
import math
import sys
import types

import numpy as np
import pytest
from streams import ETAS, VARIANTS, bits, errors, gradients
from test_cuda import GXX, PLAYED, PLAYER, build

from rprop_lit.inside import cuda
from rprop_lit.inside.cuda import Cuda
from rprop_lit.optim import Parameter, Rprop
from rprop_lit.rule import init
from rprop_lit.variants import update


def real_cupy():
    "CuPy with a device, or a skipped test that says why"
    cupy = pytest.importorskip('cupy', reason='CuPy is not installed: nothing was run on a GPU')
    try:
        there = cupy.cuda.is_available()
    except Exception as error:  # a CuPy without its libraries
        pytest.skip(f'CuPy cannot look for a GPU ({type(error).__name__}): nothing was run on one')
    if not there:
        pytest.skip('there is no GPU: nothing was run on one')
    return cupy


class Pointer:
    "Where an array is, as CuPy says it"
    def __init__(self, array):
        self.array, self.ptr = array, array.__array_interface__['data'][0]

    def copy_from_host_async(self, source, size, stream):
        assert stream is not None and not stream.capturing
        ctypes.memmove(self.ptr, source, size)


class Array(np.ndarray):
    "A NumPy array that passes for one of CuPy"
    __module__ = 'cupy'
    device = property(lambda self: Device())
    data = property(Pointer)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return np.asarray(array).view(Array)  # CuPy makes no scalars

    def __array_namespace__(self, api_version=None):
        return sys.modules['cupy']

    def get(self):
        return np.array(self)


class Fake(types.ModuleType):
    "NumPy's functions, with results that pass for CuPy's"
    def __getattr__(self, name):
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def function(*args, **how):
            result = found(*args, **how)
            return np.asarray(result).view(Array) if isinstance(result, (np.ndarray, np.generic)) else result
        return function

    def asarray(self, x, dtype=None):
        return x if isinstance(x, Array) and dtype in (None, x.dtype) else np.array(x, dtype=dtype).view(Array)


class Device:
    def __eq__(self, other):
        return isinstance(other, Device)

    def __hash__(self):
        return 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Stream(Device):
    capturing = False

    def is_capturing(self):
        return self.capturing


class Event:
    def __init__(self, disable_timing):
        self.recorded = self.waited = 0

    def record(self, stream):
        self.recorded += 1

    def synchronize(self):
        self.waited += 1


def played_kernel(folder, launches):
    "A stand-in for RawKernel: the same text, compiled for the CPU, its threads played in turn"
    def kernel(text, name, options):
        assert name == 'rprop' and '--fmad=false' in options
        wide = ctypes.c_double if 'double T' in text else ctypes.c_float
        place = folder / str(abs(hash(text)))
        place.mkdir(exist_ok=True)
        library = build(place, PLAYED + text.replace('#include <cuda_fp16.h>', '') + PLAYER)

        def run(grid, block, given):
            rows, chunks, count, *rest = given
            numbers, flags, places = rest[:4], rest[4:7], rest[7:]
            assert all(isinstance(x, np.int32) for x in (count, *flags)) and block == (256,)
            at = [ctypes.c_void_p(a.data.ptr if isinstance(a, Array) else int(a)) for a in (rows, chunks, *places)]
            launches.append(grid)
            library.play(grid[0], *at[:2], int(count), *[wide(x) for x in numbers], *map(int, flags), *at[2:])
        return run
    return kernel


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    "The stand-in, with the list of launches and the current stream"
    if not GXX:
        pytest.skip('no C++ compiler: the engine for CUDA was not tried')
    fake, extra = Fake('cupy'), types.ModuleType('cupyx')
    fake.launches, stream = [], Stream()
    fake.RawKernel = played_kernel(tmp_path, fake.launches)
    fake.cuda = types.SimpleNamespace(get_current_stream=lambda: stream, Event=Event)
    extra.empty_like_pinned = np.empty_like
    for name, module in (('cupy', fake), ('cupyx', extra)):
        monkeypatch.setitem(sys.modules, name, module)
    cuda.kernel.cache_clear()
    yield fake
    cuda.kernel.cache_clear()


SHAPES = [(7,), (), (0,), (3, 5), (4096,), (9000,)]


def pairs(xp, dtype, **options):
    "The same parameters for the GPU's engine and for the host's, with an optimizer each"
    random = np.random.default_rng(1)
    fresh = [np.asarray(random.normal(size=shape)).astype(dtype) for shape in SHAPES]
    there, here = [Parameter(xp.asarray(a)) for a in fresh], [Parameter(a.copy()) for a in fresh]
    return there, here, Rprop(there, **options), Rprop(here, **options)


def walk(xp, dtype, steps, **options):
    "Both optimizers side by side; equal in every bit after each step; returns the engine"
    there, here, gpu, host = pairs(xp, dtype, **options)
    streams = [gradients(shape, steps, dtype, seed) for seed, shape in enumerate(SHAPES)]
    for k, (loss, *gs) in enumerate(zip(errors(steps), *streams)):
        for i, (p, q, g) in enumerate(zip(there, here, gs)):
            missing = (k + i) % 13 == 12
            p.grad, q.grad = (None, None) if missing else (xp.asarray(g), g)
        gpu.step(loss=loss)
        host.step(loss=loss)
        for p, q in zip(there, here):
            assert bits(p.data.get()) == bits(q.data)
            if q in host.state:
                assert all(bits(gpu.state[p][name].get()) == bits(host.state[q][name]) for name in ('sign', 'step_size'))
                assert gpu.state[p]['step'] == host.state[q]['step']
    plan, = gpu.param_groups[0].plans
    assert Cuda().fits(plan.read()[0])
    return plan.own['cuda']


@pytest.mark.parametrize('etas', ETAS, ids=str)
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('variant', VARIANTS)
def test_on_a_gpu(variant, dtype, etas):
    walk(real_cupy(), dtype, 300, variant=variant, etas=etas)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('variant', VARIANTS)
def test_on_the_stand_in(cupy, variant, dtype):
    walk(cupy, dtype, 30, variant=variant)
    assert len(cupy.launches) == 30  # one launch a step, however many arrays


def test_the_table_is_sent_only_when_a_gradient_moved(cupy):
    there, _, gpu, _ = pairs(cupy, np.float32)
    for p in there:
        p.grad = cupy.full(p.shape, 1.0, np.float32)
    for _ in range(3):
        gpu.step()
    plan, = gpu.param_groups[0].plans
    engine = plan.own['cuda']
    assert engine.rows.turn == 1
    for _ in range(10):
        there[0].grad = cupy.full(there[0].shape, 1.0, np.float32)
        kept = there[0].grad  # noqa: F841  held, so that the next one lies elsewhere
        gpu.step()
    buffers = [event for _, event in engine.rows.ring]
    assert engine.rows.turn > 1 and sum(e.recorded for e in buffers) == engine.rows.turn == sum(e.waited for e in buffers)


def test_while_a_graph_is_captured(cupy):
    there, _, gpu, _ = pairs(cupy, np.float32, variant='irprop+')
    for p in there:
        p.grad = cupy.full(p.shape, 1.0, np.float32)
    gpu.step(loss=1.0)
    stream = cupy.cuda.get_current_stream()
    stream.capturing = True
    with pytest.raises(RuntimeError, match='error that was read'):
        gpu.step(loss=0.5)
    gpu.step(loss=cupy.full((), 0.5))
    there[0].grad = cupy.full(there[0].shape, 1.0, np.float32)
    before = [p.data.get() for p in there]
    with pytest.raises(RuntimeError, match='zero_grad'):
        gpu.step(loss=cupy.full((), 0.5))
    assert [bits(p.data.get()) for p in there] == [bits(w) for w in before]


@pytest.mark.parametrize('maximize', [False, True])
def test_the_error_stays_on_the_device(cupy, maximize):
    there, here, gpu, host = pairs(cupy, np.float32, variant='irprop+', maximize=maximize)
    for k, (loss, *gs) in enumerate(zip(errors(60), *[gradients(shape, 60, np.float32, s) for s, shape in enumerate(SHAPES)])):
        for p, q, g in zip(there, here, gs):
            p.grad, q.grad = cupy.asarray(g), g
        gpu.step(loss=cupy.full((), loss, np.float64 if k % 2 else np.float32) if k > 3 else loss)  # host errors first, then the device's
        host.step(loss=float(np.float32(loss)) if k > 3 and not k % 2 else loss)
        assert [bits(p.data.get()) for p in there] == [bits(q.data) for q in here]
    last = gpu.param_groups[0]['loss']
    assert isinstance(last, Array) and float(last[0]) == host.param_groups[0]['loss']


def test_a_gradient_that_does_not_fit_changes_nothing(cupy):
    there, _, gpu, _ = pairs(cupy, np.float32)
    for _ in range(2):
        for p in there:
            p.grad = cupy.full(p.shape, 1.0, np.float32)
        gpu.step()
    before = [p.data.get() for p in there]
    for spoilt in (cupy.full((8,), 1.0, np.float32), cupy.full((7,), 1.0)):
        there[0].grad = spoilt
        with pytest.raises(ValueError):
            gpu.step()
    assert [bits(p.data.get()) for p in there] == [bits(w) for w in before]


def test_strided_weights_go_one_by_one(cupy):
    base = cupy.full((6,), 1.0)
    p, q = Parameter(base[::2]), Parameter(np.ones(6)[::2])
    optimizers = Rprop([p]), Rprop([q])
    for g in gradients((3,), 20, np.float64):
        p.grad, q.grad = cupy.asarray(g), g
        for optimizer in optimizers:
            optimizer.step()
    assert bits(p.data.get()) == bits(q.data) and not cupy.launches


def test_the_state_travels_as_ever(cupy):
    there, _, gpu, _ = pairs(cupy, np.float32, variant='irprop+')
    for k in range(3):
        for p in there:
            p.grad = cupy.full(p.shape, 1.0, np.float32)
        gpu.step(loss=cupy.full((), 3.0 - k))
    state = gpu.state_dict()
    assert float(np.asarray(state['param_groups'][0]['loss']).item()) == 1.0 and math.isfinite(1.0)
    assert bits(np.asarray(state['state'][0]['step_size'])) == bits(gpu.state[there[0]]['step_size'].get())


def test_a_gpu_graph():
    "A captured step, replayed with other numbers in the same buffers, equals steps made one after the other"
    cupy = real_cupy()
    p, w = Parameter(cupy.zeros(10_000, np.float32)), np.zeros(10_000, np.float32)
    optimizer, state = Rprop([p], variant='irprop+'), init(w, 0.01)
    p.grad, loss = cupy.zeros(10_000, np.float32), cupy.zeros(())
    stream, graph = cupy.cuda.Stream(non_blocking=True), None
    for k, (g, error) in enumerate(zip(gradients((10_000,), 100, np.float32), (5 + math.sin(k) for k in range(100)))):
        with stream:
            p.grad.set(g)
            loss.fill(error)
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
        w += dw
        assert bits(p.data.get()) == bits(w)
