"""Rows that are cut and shared: every weight is in one part, every number of threads makes the same bits, and no thread is left hanging."""
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from itertools import permutations
from multiprocessing import get_all_start_methods, get_context
from queue import SimpleQueue

import numpy as np
import pytest
from streams import VARIANTS, Bits, bits

from rprop_lit import Parameter, Rprop
from rprop_lit.inside import rows
from rprop_lit.inside.arrays import Room, numbers, step_block, step_blocks
from rprop_lit.inside.engine import Engine
from rprop_lit.inside.rows import PART, flatten, hired, parts, separate, threads, together
from rprop_lit.rule import init
from rprop_lit.variants import update

LONG = 2 * PART + 77


@pytest.fixture(params=[1, 2, 3])
def count(request):
    "A number of threads, chosen while a test runs"
    before = threads()
    yield threads(request.param)
    threads(before)


@pytest.fixture
def two():
    "Two threads while a test runs"
    before = threads()
    yield threads(2)
    threads(before)


def gradients(n, dtype, length=4):
    "A few long gradients, with flips, zeros and what is no number"
    random = np.random.default_rng(n)
    g = random.normal(size=n).astype(dtype)
    g[::11], g[::13], g[::17] = 0, np.nan, -np.inf
    for k in range(length):
        yield g * np.where(random.random(n) < .2, -1, 1).astype(dtype) if k else g


@pytest.mark.parametrize('size', [0, 1, 63, PART - 1, PART, 2 * PART - 1, 2 * PART, 2 * PART + 1, 3 * PART + 65, 10 * PART])
def test_parts_are_a_partition(count, size):
    cut = parts(size)
    assert cut[0].start == 0 and cut[-1].stop == size and all(a.stop == b.start for a, b in zip(cut, cut[1:]))
    assert len(cut) == max(1, min(count, size // PART))
    assert all(part.start % 64 == 0 and abs(part.stop - part.start - size / len(cut)) <= 64 for part in cut)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_every_number_of_threads_makes_the_bits_of_the_readable_rule(path, count, dtype):
    start = np.random.default_rng(1).normal(size=LONG + PART).astype(dtype)
    p, w, state = Parameter(start.copy()), start.copy(), init(start, 0.01)
    variant = VARIANTS[count - 1]
    optimizer = Rprop([p], variant=variant)
    for g in gradients(LONG + PART, dtype):
        p.grad = g
        optimizer.step()
        dw, state = update(g, state, variant=variant)
        w[...] = w + dw
    memory = optimizer.state[p]
    assert [bits(x) for x in (p.data, memory['sign'], memory['step_size'])] == [bits(x) for x in (w, state.sign, state.step)]


def test_arrays_in_one_long_row_are_shared(path, count):
    whole = Parameter(np.zeros(LONG, np.float32))
    apart = [Parameter(part.copy()) for part in np.split(whole.data, [100, PART, PART + 5])]
    flatten(apart)
    one, many = Rprop([whole]), Rprop(apart)
    for g in gradients(LONG, np.float32):
        whole.grad = g
        for p, part in zip(apart, np.split(g, [100, PART, PART + 5])):
            p.grad[...] = part
        one.step(), many.step()
    assert bits(whole.data) == Bits(b''.join(bits(p.data) for p in apart))


def test_small_arrays_at_their_addresses(path):
    # contiguous ones by their addresses, others through a bundle; empty ones and single numbers among them
    random = np.random.default_rng(0)
    odd = np.zeros(4 * 30 + 1, np.uint8)[1:].view(np.float32)
    groups = [[random.normal(size=n).astype(np.float32) for n in (5, 0, 1, 700, 64)], [np.zeros((3, 4), np.float32), odd, np.ones(8, np.float32)],
              [np.zeros((3, 4), np.float32).T, np.ones(9, np.float32)[::2]], [np.zeros((), np.float32), np.zeros((0, 3), np.float32)]]
    for arrays in groups:
        together, alone = [Parameter(a) for a in arrays], [Parameter(a.copy()) for a in arrays]
        first, others = Rprop(together, variant='rprop+'), [Rprop([p], variant='rprop+') for p in alone]
        for _ in range(20):
            for p, q, one in zip(together, alone, others):
                p.grad = q.grad = random.normal(size=p.shape).astype(np.float32)
                one.step()
            first.step()
        assert isinstance(first.engines[0], Engine) and all(p.data is a for p, a in zip(together, arrays))
        assert [bits(p.data) for p in together] == [bits(q.data) for q in alone]


def walked_alone(arrays, gs, variant):
    "Weights, signs and steps after each array was stepped by the readable rule"
    found = []
    for w, stream in zip(arrays, gs):
        w, state = w.copy(), init(w, 0.1)
        for g in stream:
            dw, state = update(g, state, variant=variant)
            w = (w + dw).astype(w.dtype)
        found.append([bits(x) for x in (w, state.sign, state.step)])
    return found


@pytest.mark.parametrize('variant', ['irprop-', 'rprop+'])
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('kind', ['whole', 'with holes', 'two that overlap', 'a row and its parts'])
def test_bundles_of_every_kind_make_the_bits_of_the_readable_rule(path, kind, dtype, variant):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape).astype(dtype) for shape in [(5,), (), (3, 4), (0,), (1,), (2, 0, 3), (700,), (64,)]]
    arrays[0][:3] = -0.0, np.nan, 0.0
    arrays[2] = np.asfortranarray(arrays[2]).T
    if kind == 'with holes':
        arrays[0] = np.repeat(arrays[0], 2)[::2]
    gs = [[g * np.where(random.random(a.shape) < .3, -1, 1).astype(dtype) for g in [random.normal(size=a.shape).astype(dtype)] * 8] for a in arrays]
    expected = walked_alone(arrays, gs, variant)
    if kind == 'two that overlap':  # the shared weights make both moves
        arrays += [arrays[6][:400], arrays[7][:0]]
        gs += [[np.zeros(400, dtype)] * 8, [np.zeros(0, dtype)] * 8]
    if kind == 'a row and its parts':
        row = np.concatenate([a.reshape(-1) for a in arrays])
        ends = np.cumsum([0, *[a.size for a in arrays]])
        arrays = [row[a:b].reshape(x.shape) for a, b, x in zip(ends, ends[1:], arrays)] + [row[2:9]]
        gs += [[np.zeros(7, dtype)] * 8]
    params = [Parameter(a) for a in arrays]
    optimizer = Rprop(params, lr=0.1, variant=variant)
    for k in range(8):
        for p, stream in zip(params, gs):
            p.grad = stream[k]
        optimizer.step()
    assert all(p.data is a for p, a in zip(params, arrays)) and isinstance(optimizer.engines[0], Engine)
    found = [[bits(x) for x in (p.data, optimizer.state[p]['sign'], optimizer.state[p]['step_size'])] for p in params]
    assert found[:len(expected)] == expected


@pytest.mark.parametrize('order', list(permutations(range(3))), ids=str)
def test_arrays_are_separate_in_any_order(order):
    row, other = np.zeros(6), np.zeros(3)
    apart, overlapping = [row[:2], row[2:], other], [row[:3], row[2:], other]
    assert separate([apart[k] for k in order]) and not separate([overlapping[k] for k in order])
    assert separate([*[apart[k] for k in order], row[1:1]])  # an empty array shares nothing


def test_a_part_without_a_gradient_leaves_the_others_in_their_row(path):
    params = [Parameter(np.zeros(n)) for n in (3, 4, 5)]
    flatten(params)
    params[2].grad = None
    optimizer = Rprop(params)
    for _ in range(3):
        optimizer.step()
    engine, = optimizer.engines.values()
    assert engine.read(params, None) is engine.rows is not None and engine.slope.size == 7


def test_weights_that_overlap_make_both_moves(path):
    row = np.zeros(6, np.float32)
    params = [Parameter(row[:4]), Parameter(row[2:])]
    for p in params:
        p.grad = np.ones(4, np.float32)
    Rprop(params, lr=0.25).step()
    assert row.tolist() == [-.25, -.25, -.5, -.5, -.25, -.25]


def test_what_a_job_raises_is_raised_when_all_are_done(two):
    seen = []

    def fail():
        raise OverflowError('in a thread')
    with pytest.raises(OverflowError, match='in a thread'):
        together([lambda: seen.append(1), fail, lambda: seen.append(2)])
    with pytest.raises(OverflowError, match='in a thread'):
        together([fail, lambda: seen.append(3)])
    together([lambda: seen.append(4), lambda: seen.append(5)])
    assert sorted(seen) == [1, 2, 3, 4, 5]


def test_all_jobs_are_done_before_it_returns(two):
    seen = []
    together([lambda: None, lambda: (time.sleep(.2), seen.append(1))])
    assert seen == [1]


def test_settings_of_a_thread_travel_with_the_job(two):
    found = []
    with np.errstate(over='raise', under='call'):
        together([lambda: found.append(np.geterr())] * 2)
    assert found[0] == found[1] and found[0]['over'] == 'raise'


def test_a_waiting_thread_holds_no_arrays(two):
    p = Parameter(np.zeros(LONG, np.float32))
    p.grad = np.ones(LONG, np.float32)
    Rprop([p]).step()
    left = weakref.ref(p.data), weakref.ref(p.grad)
    del p
    for _ in range(500):  # until the thread has come back to its queue
        gc.collect()
        if [r() for r in left] == [None, None]:
            break
        time.sleep(.01)
    assert [r() for r in left] == [None, None]


@pytest.mark.parametrize('most', [0, 1])
def test_too_few_threads_can_be_started(monkeypatch, most):
    started = []

    class Scarce(threading.Thread):
        def start(self):
            if len(started) == most:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()
    queue, members, seen = SimpleQueue(), [], []
    monkeypatch.setattr(rows, 'Thread', Scarce)
    monkeypatch.setattr(rows, 'crew', lambda process: (queue, members))
    for _ in range(3):
        together([lambda k=k: seen.append(k) for k in range(4)])
    assert sorted(seen) == sorted([0, 1, 2, 3] * 3) and members == started and len(started) == most


def test_the_crew_is_no_larger_than_needed():
    before = threading.active_count()
    for count in range(1, 6):
        for _ in range(3):
            together([lambda: None] * count)
    assert threading.active_count() - before <= 4


def test_an_interrupt_waits_for_the_others(monkeypatch, two):
    seen = []

    class Impatient(SimpleQueue):
        def get(self, *what):
            if not seen:
                seen.append('interrupted')
                raise KeyboardInterrupt
            return super().get(*what)
    hired(1)
    monkeypatch.setattr(rows, 'SimpleQueue', type('Both', (), {'__class_getitem__': classmethod(lambda cls, item: Impatient)}))
    with pytest.raises(KeyboardInterrupt):
        together([lambda: None, lambda: (time.sleep(.2), seen.append('done'))])
    assert seen == ['interrupted', 'done']


def test_two_users_of_threads_at_once(two):
    def walk(p):
        optimizer = Rprop([p], variant='rprop+')
        for p.grad in gradients(LONG, np.float32, 8):
            optimizer.step()
    ps = [Parameter(np.zeros(LONG, np.float32)) for _ in range(3)]
    walk(ps[0])
    users = [threading.Thread(target=walk, args=[p], daemon=True) for p in ps[1:]]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert bits(ps[0].data) == bits(ps[1].data) == bits(ps[2].data)


def test_each_thread_has_scratch_of_its_own(path, two):
    p = Parameter(np.zeros(LONG, np.float32))
    p.grad = np.ones(LONG, np.float32)
    optimizer = Rprop([p])
    optimizer.step()
    engine, = optimizer.engines.values()
    if path == 'numba':
        assert engine.rooms == []  # a loop needs none
        return
    assert len(engine.rooms) == 2 and not np.shares_memory(engine.rooms[0].floats, engine.rooms[1].floats)
    used = []
    engine.run_row(lambda room, *rows: used.append(room), *[np.zeros(LONG)] * 4)
    assert {id(room) for room in used} == {id(room) for room in engine.rooms} and all(isinstance(room, Room) for room in used)


def long_step(pipe=None):
    "A step that is shared by two threads, in this process"
    threads(2)
    p = Parameter(np.zeros(LONG, np.float32))
    p.grad = np.ones(LONG, np.float32)
    Rprop([p]).step()
    if pipe:
        pipe.send(float(p.data.sum()))
    return float(p.data.sum())


@pytest.mark.skipif('fork' not in get_all_start_methods(), reason='no fork on this system')
@pytest.mark.filterwarnings('ignore:This process:DeprecationWarning')
def test_a_forked_process_gets_threads_of_its_own(two):
    expected, context = long_step(), get_context('fork')
    mine, theirs = context.Pipe()
    child = context.Process(target=long_step, args=[theirs], daemon=True)
    child.start()
    there = mine.poll(20)
    assert there and mine.recv() == expected
    child.join()


def test_a_program_whose_main_thread_has_ended():
    code = ('import sys, threading, time; sys.path[:0] = sys.argv[1:]; from test_rows import long_step\n'
            'def train():\n    time.sleep(.3); print(long_step() < 0)\n'
            'long_step(); threading.Thread(target=train).start()')
    done = subprocess.run([sys.executable, '-c', code, os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))],
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == 'True\n' and not done.stderr


@pytest.mark.parametrize('value', [0, -1, 1.5, '2', True, float('nan')], ids=str)
def test_a_wrong_number_of_threads(value):
    before = threads()
    with pytest.raises(ValueError, match='choose a whole number, 1 or more'):
        threads(value)
    assert threads() == before


@pytest.mark.parametrize('set_to, expected', [({'RPROP_LIT_THREADS': '3'}, '3'), ({'OMP_NUM_THREADS': '1'}, '1'), ({'OMP_NUM_THREADS': 'x'}, None), ({'OMP_NUM_THREADS': '0,1'}, None), ({'RPROP_LIT_THREADS': ' 4 '}, '4'),
                                              ({'RPROP_LIT_THREADS': '2', 'OMP_NUM_THREADS': '7'}, '2'), ({}, None), ({'OMP_NUM_THREADS': '5,1'}, '5')], ids=str)
def test_threads_from_the_environment(set_to, expected):
    env = {k: v for k, v in os.environ.items() if k not in ('RPROP_LIT_THREADS', 'OMP_NUM_THREADS')} | set_to
    code = 'from rprop_lit.inside.rows import threads; print(threads())'
    found = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert found == (expected or str(rows.wanted({})))


@pytest.mark.parametrize('value', ['0', 'many', '-2', '1.5', '2,3'])
def test_a_wrong_environment_is_an_error(value):
    done = subprocess.run([sys.executable, '-c', 'import rprop_lit.inside.rows'], env={**os.environ, 'RPROP_LIT_THREADS': value}, capture_output=True, text=True)
    assert done.returncode and f'RPROP_LIT_THREADS={value!r}: choose a whole number, 1 or more' in done.stderr


def test_without_a_choice_there_are_two_threads_or_one(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0}, raising=False)
    assert rows.wanted({}) == 1
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 3, 5}, raising=False)
    assert rows.wanted({}) == 2
    monkeypatch.delattr(os, 'sched_getaffinity')
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert rows.wanted({}) == 1


@pytest.mark.parametrize('code', [
    'def late():\n    try:\n        yield\n    finally:\n        step(); print(p.data[0] < -0.015)\nlate = late(); next(late)',
    'class Late:\n    def __del__(self):\n        step(); print(p.data[0] < -0.015)\nlate = Late()'], ids=['generator', 'finalizer'])
def test_a_step_while_the_interpreter_ends(code):
    start = ('import sys; sys.path[:0] = sys.argv[1:]; from test_rows import LONG, Parameter, Rprop, np, threads\n'
             'threads(2); p = Parameter(np.zeros(LONG, np.float32)); p.grad = np.ones(LONG, np.float32); step = Rprop([p]).step; step()\n')
    done = subprocess.run([sys.executable, '-c', start + code, os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))],
                          capture_output=True, text=True, timeout=15)
    assert done.returncode == 0 and done.stdout == 'True\n'


def test_a_job_may_have_jobs_of_its_own():
    code = ('from rprop_lit.inside.rows import together\nseen = []\n'
            'together([lambda: together([lambda: seen.append(1)] * 3)] * 3)\nprint(len(seen))')
    done = subprocess.run([sys.executable, '-c', code], cwd=os.path.dirname(os.path.dirname(__file__)), capture_output=True, text=True, timeout=15)
    assert done.stdout == '9\n'


@pytest.mark.parametrize('most', [1, 63, 1000, 4096])
def test_scratch_of_any_length_will_do(most):
    start, settings = init(np.ones(5000, np.float32), 0.01), numbers((0.5, 1.2), (1e-6, 50.0), np.empty(0, np.float32))
    ends = []
    for step, length in ((step_block, 5000), (step_blocks, most)):
        w, sign, size = np.ones(5000, np.float32), start.sign.copy(), start.step.copy()
        for g in gradients(5000, np.float32):
            step(w, g, sign, size, Room(length, np.float32, np.float32), True, False, settings)
        ends.append([bits(x) for x in (w, sign, size)])
    assert ends[0] == ends[1]
