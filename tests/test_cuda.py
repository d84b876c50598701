"""The CUDA kernel's text, played on the CPU: compiled by a C++ compiler, compared with the readable rule, bit for bit."""
import ctypes
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from streams import ETAS, bits, errors, gradients

from rprop_lit.inside.cuda import BODY, TYPES, flip_of, on_device, source, tables
from rprop_lit.optim import Parameter, Rprop
from rprop_lit.rule import State, init, update_all
from rprop_lit.variants import Flip, cast_pair, read_loss, retreat

KNOBS = [(False, False), (True, False), (True, True)]
LIMITS = (1e-6, 50.0)
GXX = shutil.which('g++')
needs_gxx = pytest.mark.skipif(not GXX, reason='no C++ compiler: the kernel was not compared with the rule')

# What stands for a GPU: blocks of one thread, one after the other. With one thread a block, __syncthreads has nothing to wait for.
PLAYED = '''
#include <cmath>
#include <cstring>
using std::isfinite;
#define __global__
#define __device__
typedef _Float16 __half;
struct Dim { unsigned x; };
static Dim blockIdx, gridDim, blockDim = {1}, threadIdx = {0};
static void __syncthreads() {}
static void __threadfence() {}
static unsigned atomicAdd(unsigned* p, unsigned v) { unsigned old = *p; *p += v; return old; }
static unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
'''
PLAYER = '''
extern "C" void play(unsigned blocks, const Row* rows, const unsigned* chunks, int count, T em, T ep, T lo, T hi,
                     int forget, int undo, int retreat, const L* loss, double* last, unsigned* ticket) {
    gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        rprop(rows, chunks, count, em, ep, lo, hi, forget, undo, retreat, loss, last, ticket);
}
'''


def build(folder, text, kind='shared'):
    "Compile C++ without fused operations"
    (folder / 'kernel.cpp').write_text(text)
    subprocess.run([GXX, '-std=c++17', '-O1', '-ffp-contract=off', '-shared', '-fPIC', '-o', folder / f'{kind}.so', folder / 'kernel.cpp'], check=True)
    return ctypes.CDLL(str(folder / f'{kind}.so'))


@pytest.fixture(scope='module', params=list(TYPES))
def played(request, tmp_path_factory):
    "The whole kernel for one type of weights, as a function on NumPy arrays"
    if not GXX:
        pytest.skip('no C++ compiler: the kernel was not compared with the rule')
    text = source(request.param).replace('#include <cuda_fp16.h>', '')
    library = build(tmp_path_factory.mktemp(request.param), PLAYED + text + PLAYER)
    wide = ctypes.c_double if request.param == 'float64' else ctypes.c_float

    def play(gs, ws, signs, steps, knobs, etas, limits=LIMITS, back=False, loss=None, last=None, blocks=3):
        rows, chunks = tables([w.size for w in ws], *[[a.ctypes.data for a in arrays] for arrays in (gs, ws, signs, steps)])
        ticket = np.zeros(1, np.uint32)
        at = [None if a is None else ctypes.c_void_p(a.ctypes.data) for a in (loss, last, ticket)]
        numbers = [wide(x) for x in (*etas, *cast_pair(limits, steps[0]))]
        library.play(blocks, ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(chunks.ctypes.data), len(chunks), *numbers,
                     *map(int, (*knobs, back)), *at)
        assert ticket[0] == 0
    return request.param, play


def to_bfloat16(x):
    "Bits of the bfloat16 nearest to each float32, ties to even, said with whole numbers"
    u = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    low, high = u & 0xffff, u >> 16
    rounded = high + ((low > 0x8000) | ((low == 0x8000) & (high & 1 == 1)))
    return np.where(np.isnan(x), 0x7fc0, rounded).astype(np.uint16)


def from_bfloat16(b):
    return (b.astype(np.uint32) << 16).view(np.float32)


class Weights:
    "Weights of one of the kernel's types, moved by the readable rule"
    def __init__(self, kind, values):
        self.kind = kind
        self.bits = to_bfloat16(values) if kind == 'bfloat16' else values.astype(kind)

    def values(self):
        return from_bfloat16(self.bits) if self.kind == 'bfloat16' else self.bits

    def add(self, dw):
        total = self.values() + dw
        self.bits = to_bfloat16(total) if self.kind == 'bfloat16' else total.astype(self.kind)


@pytest.mark.parametrize('etas', ETAS, ids=str)
@pytest.mark.parametrize('knobs', KNOBS, ids=str)
def test_the_kernel_played_on_the_cpu_equals_the_rule(played, knobs, etas):
    # sizes around the chunk, an empty array among them; 300 steps
    kind, play = played
    sizes = [7, 0, 1, 4096, 4097, 9000]
    values = [np.random.default_rng(k).normal(size=n).astype(np.float32 if kind == 'bfloat16' else kind) for k, n in enumerate(sizes)]
    ours, theirs = [Weights(kind, v) for v in values], [Weights(kind, v) for v in values]
    wide = np.float64 if kind == 'float64' else np.float32
    states = [init(np.zeros(n, wide), 0.01) for n in sizes]
    signs, steps = [s.sign.copy() for s in states], [s.step.copy() for s in states]
    base = [list(gradients((n,), 12, np.float32 if kind == 'bfloat16' else kind, n)) for n in sizes]
    for k in range(300):
        gs = [Weights(kind, np.roll(b[k % 12], k)) for b in base]
        play([g.bits for g in gs], [w.bits for w in ours], signs, steps, knobs, etas)
        for i, g in enumerate(gs):
            dw, states[i] = update_all(g.values(), states[i], forget=knobs[0], undo=knobs[1], etas=etas, step_sizes=LIMITS)
            theirs[i].add(dw)
        if k % 37 == 0 or k == 299:
            assert [bits(w.bits) for w in ours] == [bits(w.bits) for w in theirs]
            assert [bits(s) for s in signs] == [bits(s.sign) for s in states] and [bits(s) for s in steps] == [bits(s.step) for s in states]


def test_the_kernel_compares_errors_and_retreats_as_irprop_plus_does(played):
    kind, play = played
    n, wide = 5000, np.float64 if kind == 'float64' else np.float32
    ours, theirs = Weights(kind, np.ones(n)), Weights(kind, np.ones(n))
    state = init(np.zeros(n, wide), 0.01)
    signs, steps, last, before = state.sign.copy(), state.step.copy(), np.full(1, math.inf), math.inf
    for g, loss in zip(gradients((n,), 120, np.float32 if kind == 'bfloat16' else kind, 5), errors(120)):
        g = Weights(kind, g)
        play([g.bits], [ours.bits], [signs], [steps], (True, False), (0.5, 1.2), loss=np.array([loss]), last=last)
        if math.isfinite(loss):
            dw, state = update_all(g.values(), state, forget=True, undo=loss > before, etas=(0.5, 1.2), step_sizes=LIMITS)
            before = loss
        else:
            dw, state = retreat(state, etas=(0.5, 1.2), step_sizes=LIMITS)
        theirs.add(dw)
        assert bits(ours.bits) == bits(theirs.bits) and bits(signs) == bits(state.sign) and bits(steps) == bits(state.step)
        assert last[0] == before


def test_the_kernel_retreats_when_told(played):
    kind, play = played
    state = State(np.array([1, 0, -1], np.int8), np.array([.3, .2, .1], np.float64 if kind == 'float64' else np.float32))
    ours, theirs, g = Weights(kind, np.array([1.0, -0.0, 2.0])), Weights(kind, np.array([1.0, -0.0, 2.0])), Weights(kind, np.ones(3))
    signs, steps = state.sign.copy(), state.step.copy()
    play([g.bits], [ours.bits], [signs], [steps], (True, True), (0.5, 1.2), back=True)
    dw, state = retreat(state, etas=(0.5, 1.2), step_sizes=LIMITS)
    theirs.add(dw)
    assert bits(ours.bits) == bits(theirs.bits) and bits(signs) == bits(state.sign) and bits(steps) == bits(state.step)


@needs_gxx
def test_a_wrong_body_is_caught(tmp_path):
    # the comparison above must be able to fail: without the clamp from below it does
    wrong = BODY.replace('step = step < lo ? lo : step;', '')
    assert wrong != BODY
    text = PLAYED + source('float32').replace(BODY, wrong) + PLAYER
    library = build(tmp_path, text)
    w, g, sign, step = np.zeros(1, np.float32), np.ones(1, np.float32), np.array([-1], np.int8), np.array([1e-6], np.float32)
    rows, chunks = tables([1], *[[a.ctypes.data] for a in (g, w, sign, step)])
    library.play(1, ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(chunks.ctypes.data), 1, *map(ctypes.c_float, (0.5, 1.2, *LIMITS)), 1, 0, 0, None, None, None)
    assert step[0] < np.float32(1e-6)


@pytest.mark.parametrize('kind', list(TYPES))
def test_nvcc_compiles_the_kernel(kind, tmp_path):
    nvcc = shutil.which('nvcc')
    if not nvcc:
        pytest.skip('no nvcc: the kernel was not compiled for a GPU')
    (tmp_path / 'kernel.cu').write_text(source(kind))
    subprocess.run([nvcc, '-ptx', '-arch=sm_90', '-fmad=false', '-o', tmp_path / 'kernel.ptx', tmp_path / 'kernel.cu'], check=True)
    ptx = (tmp_path / 'kernel.ptx').read_text()
    assert '.entry rprop' in ptx and 'fma.rn.f' not in ptx


@pytest.mark.parametrize('kind', list(TYPES))
def test_nvrtc_compiles_the_kernel(kind):
    pytest.importorskip('cupy', reason='CuPy is not installed: the kernel was not compiled by NVRTC')
    from cupy.cuda import nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f'NVRTC cannot be loaded: {type(error).__name__}')
    if kind == 'float16':
        pytest.skip('cuda_fp16.h comes with the toolkit, and its place is known only where CuPy runs')
    program = nvrtc.createProgram(source(kind), 'kernel.cu', [], [])
    nvrtc.compileProgram(program, ['-arch=compute_90', '--fmad=false'])
    assert 'rprop' in str(nvrtc.getPTX(program))


def test_tables():
    rows, chunks = tables([4096, 0, 4097], [1, 2, 3], [4, 5, 6], [7, 8, 9], [2**63, 11, 12])
    assert rows.dtype == np.uint64 and rows[0].tolist() == [1, 4, 7, 2**63, 4096]
    assert chunks.tolist() == [[0, 0], [2, 0], [2, 1]] and tables([0], [1], [2], [3], [4])[1].shape == (0, 2)


def test_nothing_of_this_needs_cupy():
    code = 'import sys, rprop_lit.inside.cuda; print("cupy" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'False'
    assert on_device(np.ones(3)) is None and on_device([1.0]) is None


def test_errors_on_the_host_are_answered_as_ever():
    def flip(loss, **settings):
        group, = Rprop([Parameter([1.0])], **{'variant': 'irprop+', **settings}).param_groups
        group['loss'] = 2.0
        return flip_of(group, loss, [])
    assert flip(np.float32(3)) == Flip(True, True, loss=3.0) and flip(1.0) == Flip(True, False, loss=1.0)
    assert flip(math.nan).retreat and read_loss(None, False) is None and read_loss(np.array([2.0]), True) == -2.0
    assert flip(1.0, maximize=True) == Flip(True, False, loss=-1.0)
    with pytest.raises(ValueError, match='compares errors'):
        flip(None)
    assert flip(None, variant='rprop-') == Flip(False, False)
