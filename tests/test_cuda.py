"""The CUDA kernel's text, without CuPy: played by the processor and compared with the readable rule;
compiled by NVIDIA's compiler and read."""
import ctypes
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from streams import ETAS, bits, errors, gradients

from rprop_lit.inside.cuda import (
    BODY,
    FEW,
    MANY,
    TYPES,
    _address,
    _options,
    call_type,
    calls_for,
    device_of,
    source,
)
from rprop_lit.rule import State, init, update_all
from rprop_lit.variants import cast_pair, retreat

KNOBS = [(False, False), (True, False), (True, True)]
LIMITS = (1e-6, 50.0)
SIZES = [7, 0, 1, 1024, 4097, 5000]
GXX = shutil.which('g++')

# What stands for a GPU: blocks of one thread, one after the other. With one thread a block, __syncthreads has
# nothing to wait for.
PLAYED = '''
#include <cmath>
#include <cstring>
using std::isfinite;
#define __global__
#define __device__
#define __shared__ static
struct Dim { unsigned x; };
static Dim blockIdx, gridDim, blockDim = {1}, threadIdx = {0};
static void __syncthreads() {}
static void __threadfence() {}
static unsigned atomicAdd(unsigned* p, unsigned v) { unsigned old = *p; *p += v; return old; }
static unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
'''
PLAYER = '''
extern "C" void play(unsigned blocks, const Call* call) {
    gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) rprop(*call);
}
extern "C" unsigned long size() { return sizeof(Call); }
extern "C" void there_and_back(unsigned n, const float* x, unsigned short* to, float* back) {
    for (unsigned i = 0; i < n; i++) { W w(x[i]); memcpy(to + i, &w, 2); back[i] = w; }
}
'''


def build(folder, text):
    "Compile C++ without fused operations"
    if not GXX:
        pytest.skip('no C++ compiler: the kernel was not compared with the rule')
    (folder / 'kernel.cpp').write_text(text)
    subprocess.run([GXX, '-std=c++17', '-O1', '-ffp-contract=off', '-shared', '-fPIC', '-o',
                    folder / 'kernel.so', folder / 'kernel.cpp'], check=True)
    return ctypes.CDLL(str(folder / 'kernel.so'))


def player(kind, folder, text=None):
    "The whole kernel for a type of weights, as a function on lists of NumPy arrays and on rows"
    halves = kind in ('float16', 'bfloat16')
    text = text or source(kind, FEW)
    library = build(folder,
                    PLAYED + text + (PLAYER if halves else PLAYER[:PLAYER.index('extern "C" void there')]))
    library.size.restype = ctypes.c_ulong
    assert library.size() == call_type(kind, FEW).itemsize

    def play(gs, ws, rows, knobs, etas, *, back=False, maximize=False, loss=None, last=None, blocks=3):
        sign, step, starts = rows
        ticket = np.zeros(1, np.uint32)
        for arrays, call in calls_for(kind, [w.size for w in ws], starts, FEW):
            call['row']['g'][0, :len(arrays)] = [0 if gs[i] is None else gs[i].ctypes.data for i in arrays]
            call['row']['w'][0, :len(arrays)] = [ws[i].ctypes.data for i in arrays]
            call['sign'], call['step'], call['ticket'] = (sign.ctypes.data, step.ctypes.data,
                                                          ticket.ctypes.data)
            call['eta_minus'], call['eta_plus'], call['lo'], call['hi'] = (*etas, *cast_pair(LIMITS, step))
            call['forget'], call['undo'], call['retreat'], call['maximize'], call['keep'] = (*knobs, back,
                                                                                             maximize, True)
            if loss is not None:
                call['loss'], call['last_loss'], call['wide'] = (loss.ctypes.data, last.ctypes.data,
                                                                 loss.dtype == np.float64)
            library.play(blocks, ctypes.c_void_p(call.ctypes.data))
        assert ticket[0] == 0
    play.library = library
    return play


def aligned(n, dtype, shift=0):
    "An array of zeros that begins `shift` numbers after a multiple of 64 bytes"
    size = np.dtype(dtype).itemsize
    room = np.zeros((n + shift) * size + 64, np.uint8)
    at = -room.ctypes.data % 64 + shift * size
    return room[at:at + n * size].view(dtype)


def rows_for(sizes, wide):
    "Rows of signs and first steps, each part at a multiple of 16"
    starts = [0, *np.cumsum([-(-n // 16) * 16 for n in sizes]).tolist()]
    sign, step = aligned(starts[-1], np.int8), aligned(starts[-1], wide)
    step[:] = 0.01
    return sign, step, starts


@pytest.fixture(scope='module', params=list(TYPES))
def played(request, tmp_path_factory):
    return request.param, player(request.param, tmp_path_factory.mktemp(request.param))


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
    def __init__(self, kind, values, shift=0):
        self.kind = kind
        found = to_bfloat16(values) if kind == 'bfloat16' else values.astype(kind)
        self.bits = aligned(found.size, found.dtype, shift)
        self.bits[...] = found

    def values(self):
        return from_bfloat16(self.bits) if self.kind == 'bfloat16' else self.bits

    def add(self, dw):
        total = self.values() + dw
        self.bits[...] = to_bfloat16(total) if self.kind == 'bfloat16' else total.astype(self.kind)


def numbers(kind):
    return np.float32 if kind == 'bfloat16' else np.dtype(kind).type


def wide_of(kind):
    return np.float64 if kind == 'float64' else np.float32


@pytest.mark.parametrize('shift', [0, 1], ids=['four weights at a time', 'one at a time'])
@pytest.mark.parametrize('etas', ETAS, ids=str)
@pytest.mark.parametrize('knobs', KNOBS, ids=str)
def test_the_kernel_played_on_the_cpu_equals_the_rule(played, knobs, etas, shift):
    # sizes around the chunk, an empty array among them; a gradient that is missing; uphill at every third
    # step
    kind, play = played
    wide = wide_of(kind)
    values = [np.random.default_rng(k).normal(size=n).astype(numbers(kind)) for k, n in enumerate(SIZES)]
    ours, theirs = [Weights(kind, v, shift) for v in values], [Weights(kind, v) for v in values]
    states = [init(np.zeros(n, wide), 0.01) for n in SIZES]
    rows = rows_for(SIZES, wide)
    base = [list(gradients((n,), 12, numbers(kind), n)) for n in SIZES]
    for k in range(40):
        gs = [Weights(kind, np.roll(b[k % 12], k), shift) for b in base]
        missing, up = k % 7, k % 3 == 2
        play([None if i == missing else g.bits for i, g in enumerate(gs)], [w.bits for w in ours], rows,
             knobs, etas, maximize=up)
        for i, g in enumerate(gs):
            if i != missing:
                g = -g.values() if up else g.values()
                dw, states[i] = update_all(g, states[i], forget=knobs[0], undo=knobs[1], etas=etas,
                                           step_sizes=LIMITS)
                theirs[i].add(dw)
        if k % 13 == 0:
            assert [bits(w.bits) for w in ours] == [bits(w.bits) for w in theirs]
            for state, start, n in zip(states, rows[2], SIZES):
                assert (bits(rows[0][start:start + n]) == bits(state.sign)
                        and bits(rows[1][start:start + n]) == bits(state.step))


@pytest.mark.parametrize('maximize', [False, True])
@pytest.mark.parametrize('type_of_loss', [np.float32, np.float64])
def test_the_kernel_compares_errors_and_retreats_as_irprop_plus_does(played, maximize, type_of_loss):
    kind, play = played
    n, wide = 5000, wide_of(kind)
    ours, theirs = Weights(kind, np.ones(n)), Weights(kind, np.ones(n))
    state, rows = init(np.zeros(n, wide), 0.01), rows_for([n], wide)
    last, before = np.full(1, math.inf), math.inf
    for g, loss in zip(gradients((n,), 60, numbers(kind), 5), errors(60)):
        g, loss = Weights(kind, g), type_of_loss(loss)
        play([g.bits], [ours.bits], rows, (True, False), (0.5, 1.2),
             loss=np.array([-loss if maximize else loss]), last=last, maximize=maximize)
        if math.isfinite(loss):
            slope = -g.values() if maximize else g.values()
            dw, state = update_all(slope, state, forget=True, undo=loss > before, etas=(0.5, 1.2),
                                   step_sizes=LIMITS)
            before = float(loss)
        else:
            dw, state = retreat(state, etas=(0.5, 1.2), step_sizes=LIMITS)
        theirs.add(dw)
        assert (bits(ours.bits) == bits(theirs.bits) and bits(rows[0][:n]) == bits(state.sign)
                and bits(rows[1][:n]) == bits(state.step))
        assert last[0] == before


def test_the_kernel_retreats_when_told(played):
    kind, play = played
    state = State(np.array([1, 0, -1], np.int8), np.array([.3, .2, .1], wide_of(kind)))
    ours, theirs, g = (Weights(kind, np.array([1.0, -0.0, 2.0])), Weights(kind, np.array([1.0, -0.0, 2.0])),
                       Weights(kind, np.ones(3)))
    rows = rows_for([3], wide_of(kind))
    rows[0][:3], rows[1][:3] = state.sign, state.step
    play([g.bits], [ours.bits], rows, (True, True), (0.5, 1.2), back=True)
    dw, state = retreat(state, etas=(0.5, 1.2), step_sizes=LIMITS)
    theirs.add(dw)
    assert (bits(ours.bits) == bits(theirs.bits) and bits(rows[0][:3]) == bits(state.sign)
            and bits(rows[1][:3]) == bits(state.step))


@pytest.mark.parametrize('kind', ['float16', 'bfloat16'])
def test_half_precision_is_rounded_as_numpy_rounds(kind, tmp_path):
    library = player(kind, tmp_path).library
    random = np.random.default_rng(0)
    every = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    wide = every.view(np.float16).astype(np.float32) if kind == 'float16' else from_bfloat16(every)
    with np.errstate(all='ignore'):
        ties = (wide[:-1].astype(np.float64) + wide[1:]) / 2  # halfway between neighbours
        near = np.nextafter(ties.astype(np.float32), np.float32(np.inf))
        x = np.concatenate(
            [wide, ties, near,
             10.0 ** random.uniform(-45, 38, 10**5) * random.choice([-1, 1], 10**5)]).astype(np.float32)
        x = x[np.isfinite(x)]
        wanted = x.astype(np.float16).view(np.uint16) if kind == 'float16' else to_bfloat16(x)
    found, back = np.zeros(x.size, np.uint16), np.zeros(x.size, np.float32)
    library.there_and_back(x.size, *[ctypes.c_void_p(a.ctypes.data) for a in (x, found, back)])
    assert bits(found) == bits(wanted)
    assert bits(back) == bits(wanted.view(np.float16).astype(np.float32) if kind == 'float16'
                              else from_bfloat16(wanted))


def test_a_wrong_body_is_caught(tmp_path):
    # the comparison above must be able to fail: without the clamp from below it does
    wrong = source('float32', FEW).replace('step = step < lo ? lo : step;', '')
    assert wrong != source('float32', FEW) and 'lo : step' in BODY
    play, rows = player('float32', tmp_path, wrong), rows_for([1], np.float32)
    rows[0][0], rows[1][0] = -1, 1e-6
    play([np.ones(1, np.float32)], [np.zeros(1, np.float32)], rows, (True, False), (0.5, 1.2))
    assert rows[1][0] < np.float32(1e-6)


def test_calls():
    calls = calls_for('float32', [3000, 0, 4097], [0, 3008, 3008], FEW)
    (arrays, call), = calls
    row = call['row'][0]
    assert arrays == [0, 2] and call['rows'][0] == 2 and call['length'][0] == 1024
    assert (row['chunk'][:2].tolist() == [0, 3] and call['chunks'][0] == 3 + 5
            and row['start'][:2].tolist() == [0, 188] and row['size'][:2].tolist() == [3000, 4097])
    assert calls_for('float32', [2**21], [0], FEW)[0][1]['length'] == 4096
    assert ([len(arrays) for arrays, _ in calls_for('float64', [1] * 1000, list(range(0, 16000, 16)), FEW)]
            == [124] * 8 + [8])
    (arrays, call), = calls_for('float16', [1] * 1000, list(range(0, 16000, 16)), MANY)
    assert len(arrays) == 1000 and call.dtype['row'].shape == (MANY,)
    # still one call: it remembers the error
    assert [arrays for arrays, _ in calls_for('float32', [0, 0], [0, 0], FEW)] == [[]]


@pytest.mark.parametrize('kind', list(TYPES))
def test_arguments_fit_the_limits_of_cuda(kind):
    assert call_type(kind, FEW).itemsize <= 4096 and call_type(kind, MANY).itemsize <= 32_764


def test_nothing_of_this_needs_cupy():
    code = 'import sys, rprop_lit.inside.cuda; print("cupy" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=True).stdout.strip() == 'False'
    assert device_of(np.ones(3)) is None and device_of([1.0]) is None and device_of(None) is None
    with pytest.raises(AttributeError):
        _address([1.0])


def nvrtc():
    """NVIDIA's own compiler, which needs no GPU: from the wheel nvidia-cuda-nvrtc-cu12,
    beside the packages or in the folder NVRTC_WHEEL"""
    places = [*os.environ.get('NVRTC_WHEEL', '').split(os.pathsep), *sys.path]
    found = [path for place in places if place
             for path in Path(place).glob('nvidia/cuda_nvrtc/lib/libnvrtc.so.1*')]
    if not found:
        pytest.skip('NVRTC is not installed: the kernel was not compiled for a GPU')
    return ctypes.CDLL(str(found[0]))


def compiled(text, how):
    "What NVRTC makes of a text: PTX"
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b'rprop.cu', 0, None, None) == 0
    given = (ctypes.c_char_p * len(how))(*[o.encode() for o in how])
    failed = library.nvrtcCompileProgram(program, len(how), given)
    size_of, take = (('nvrtcGetProgramLogSize', 'nvrtcGetProgramLog') if failed
                     else ('nvrtcGetPTXSize', 'nvrtcGetPTX'))
    getattr(library, size_of)(program, ctypes.byref(size))
    said = ctypes.create_string_buffer(size.value)
    getattr(library, take)(program, said)
    assert not failed, said.value.decode()
    return said.value.decode()


@pytest.mark.parametrize('rows', [FEW, MANY])
@pytest.mark.parametrize('arch', ['compute_75', 'compute_80', 'compute_90'])
@pytest.mark.parametrize('kind', list(TYPES))
def test_what_nvidias_compiler_makes_of_it(kind, arch, rows):
    # no fused operations, no flushing, wide loads and stores, and no copy of the arguments to local memory
    ptx = compiled(source(kind, rows), _options(arch))
    assert '.entry rprop' in ptx and not re.search(r'\bfma\b|\bmad\.rn|\.ftz', ptx) and '.local' not in ptx
    pack = {'float32': 'v4.f32', 'float64': 'v2.f64'}.get(kind, 'v4.u16')
    steps = 'v2.f64' if kind == 'float64' else 'v4.f32'
    for what in (pack, steps, 'v4.u8'):
        assert f'ld.global.{what}' in ptx and f'st.global.{what}' in ptx
    assert not re.search(r'\b(ld|st)\.(v4|v2|f32|f64)', ptx)  # all in global memory, known to be there


def test_the_reading_of_ptx_can_fail():
    # with CuPy's order of options, flushing wins; without --fmad=false, operations are fused
    flushed = compiled(source('float32', FEW), (*_options('compute_80'), '-ftz=true'))
    assert '.ftz' in flushed
    text = 'extern "C" __global__ void f(float* x) { x[0] = x[1] * x[2] + x[3]; }'
    assert ('fma' in compiled(text, ('-arch=compute_80',))
            and 'fma' not in compiled(text, _options('compute_80')))
