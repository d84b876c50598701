"""Rows that are cut and shared: every weight is in one part, every number of threads makes the same bits,
and no thread is left hanging."""
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context

import numpy as np
import pytest
from streams import VARIANTS, Bits, alone, bits

from rprop_lit import Parameter, Rprop, config
from rprop_lit.inside import rows
from rprop_lit.inside.arrays import Scratch, blocks_kernel, limits_of
from rprop_lit.inside.config import Config, threads_from
from rprop_lit.inside.engine import SHORT, Blocks, TakenBack, whole
from rprop_lit.inside.rows import PART, Uninterrupted, parts, together
from rprop_lit.inside.settings import Settings
from rprop_lit.optim import flatten
from rprop_lit.rule import init
from rprop_lit.variants import Flip, update

LONG = 2 * PART + 77


@pytest.fixture(params=[1, 2, 3])
def count(request):
    "A number of threads, chosen while a test runs"
    before, config.threads = config.threads, request.param
    yield request.param
    config.threads = before


@pytest.fixture
def two():
    "Two threads while a test runs"
    before, config.threads = config.threads, 2
    yield 2
    config.threads = before


def gradients(n, dtype, length=4):
    "A few long gradients, with flips, zeros and what is no number"
    random = np.random.default_rng(n)
    g = random.normal(size=n).astype(dtype)
    g[::11], g[::13], g[::17] = 0, np.nan, -np.inf
    for k in range(length):
        yield g * np.where(random.random(n) < .2, -1, 1).astype(dtype) if k else g


@pytest.mark.parametrize('size', [0, 1, 63, PART - 1, PART, 2 * PART - 1, 2 * PART, 2 * PART + 1,
                                  3 * PART + 65, 10 * PART])
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
    assert ([bits(x) for x in (p.data, memory['sign'], memory['step_size'])]
            == [bits(x) for x in (w, state.sign, state.step)])


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
    groups = [[random.normal(size=n).astype(np.float32) for n in (5, 0, 1, 700, 64)],
              [np.zeros((3, 4), np.float32), odd, np.ones(8, np.float32)],
              [np.zeros((3, 4), np.float32).T, np.ones(9, np.float32)[::2]],
              [np.zeros((), np.float32), np.zeros((0, 3), np.float32)]]
    for arrays in groups:
        together, alone = [Parameter(a) for a in arrays], [Parameter(a.copy()) for a in arrays]
        first, others = Rprop(together, variant='rprop+'), [Rprop([p], variant='rprop+') for p in alone]
        for _ in range(20):
            for p, q, one in zip(together, alone, others):
                p.grad = q.grad = random.normal(size=p.shape).astype(np.float32)
                one.step()
            first.step()
        assert all(p.data is a for p, a in zip(together, arrays))
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
@pytest.mark.parametrize('kind', ['whole', 'with holes', 'parts of a row'])
def test_bundles_of_every_kind_make_the_bits_of_the_readable_rule(path, kind, dtype, variant):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape).astype(dtype)
              for shape in [(5,), (), (3, 4), (0,), (1,), (2, 0, 3), (700,), (64,)]]
    arrays[0][:3] = -0.0, np.nan, 0.0
    arrays[2] = np.asfortranarray(arrays[2]).T
    if kind == 'with holes':
        arrays[0] = np.repeat(arrays[0], 2)[::2]
    gs = [[g * np.where(random.random(a.shape) < .3, -1, 1).astype(dtype)
           for g in [random.normal(size=a.shape).astype(dtype)] * 8] for a in arrays]
    for g in gs[0]:
        g[0] = 0  # so that this weight stays -0.0
    expected = walked_alone(arrays, gs, variant)
    if kind == 'parts of a row':
        row = np.concatenate([a.reshape(-1) for a in arrays])
        ends = np.cumsum([0, *[a.size for a in arrays]])
        arrays = [row[a:b].reshape(x.shape) for a, b, x in zip(ends, ends[1:], arrays)]
    params = [Parameter(a) for a in arrays]
    optimizer = Rprop(params, lr=0.1, variant=variant)
    for k in range(8):
        for p, stream in zip(params, gs):
            p.grad = stream[k]
        optimizer.step()
    assert all(p.data is a for p, a in zip(params, arrays))
    found = [[bits(x) for x in (p.data, optimizer.state[p]['sign'], optimizer.state[p]['step_size'])]
             for p in params]
    assert found[:len(expected)] == expected


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


class Scarce(ThreadPoolExecutor):
    "Threads that cannot be had, or no more than one"
    most, started = 0, 0

    def submit(self, *task):
        if self.started == self.most:
            raise RuntimeError("can't start new thread")
        self.started += 1
        return super().submit(*task)


@pytest.mark.parametrize('most', [0, 1])
def test_too_few_threads_can_be_started(monkeypatch, most):
    crew, seen = Scarce(4), []
    crew.most = most
    monkeypatch.setattr(rows, '_crew', lambda process, count: crew)
    for _ in range(3):
        together([lambda k=k: seen.append(k) for k in range(4)])
    assert sorted(seen) == sorted([0, 1, 2, 3] * 3) and crew.started == most
    crew.shutdown()


def test_more_jobs_than_threads_and_the_other_way_round(two):
    for count in (1, 2, 7):
        seen = []
        together([lambda k=k: seen.append(k) for k in range(count)])
        assert sorted(seen) == list(range(count))


def test_each_thread_has_scratch_of_its_own(two):
    before, config.backend = config.backend, 'numpy'
    p = Parameter(np.zeros(LONG, np.float32))
    p.grad = np.ones(LONG, np.float32)
    optimizer = Rprop([p])
    optimizer.step()
    config.backend = before
    plan, = optimizer.param_groups[0].plans
    first, second = plan.own['scratch']
    assert not np.shares_memory(first.floats, second.floats) and len(first) and len(second)  # both were used


def test_an_interrupt_waits_for_the_step():
    before, seen = signal.getsignal(signal.SIGINT), []

    def handler(*what):
        seen.append(what)
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            with Uninterrupted():
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                seen.append('whole')
        assert (seen[0] == 'whole' and len(seen) == 2 and seen[1][0] == signal.SIGINT
                and signal.getsignal(signal.SIGINT) is handler)
        with Uninterrupted():  # nothing comes, nothing is left
            pass
        assert len(seen) == 2 and signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('variant, loss', [('irprop-', None), ('irprop+', 2.0), ('irprop+', float('nan'))])
def test_a_short_step_is_taken_back(monkeypatch, variant, loss):
    ps = [Parameter(np.ones(n, dtype)) for n, dtype in ((3, 'f4'), (4, 'f8'), (2, 'f8'))]
    optimizer = Rprop(ps, variant=variant)
    for step_loss in (3.0, 2.5):
        for p in ps[:2]:
            p.grad = np.ones(p.shape, p.dtype)
        optimizer.step(loss=step_loss)
    ps[2].grad = np.ones(2)
    before = [bits(p.data) for p in ps], str(optimizer.state_dict())
    made, usual = [], Blocks.step

    def interrupted(self, *what):
        made.append(what)
        usual(self, *what)
        if len(made) == 2:
            raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(Blocks, 'step', interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(loss=loss)
    assert ([bits(p.data) for p in ps], str(optimizer.state_dict())) == before and len(made) == 2
    twin = [Parameter(p.data.copy()) for p in ps]
    again = Rprop(twin)
    again.load_state_dict(optimizer.state_dict())
    for p, q in zip(ps, twin):
        q.grad = p.grad
    optimizer.step(loss=loss), again.step(loss=loss)
    assert [bits(p.data) for p in ps] == [bits(q.data) for q in twin] and optimizer.state[ps[2]]['step'] == 1


@pytest.mark.parametrize('sizes, kind', [([1], TakenBack), ([SHORT], TakenBack), ([1] * 16, TakenBack),
                                         ([SHORT + 1], Uninterrupted), ([SHORT // 2] * 3, Uninterrupted),
                                         ([1] * 17, Uninterrupted)])
def test_which_steps_are_taken_back(sizes, kind):
    ps = [Parameter(np.zeros(n)) for n in sizes]
    for p in ps:
        p.grad = np.ones(p.shape)
    optimizer = Rprop(ps)
    optimizer.step()
    groups = optimizer.param_groups
    ready = [(None, [(plan, *plan.read()) for plan in group.plans]) for group in groups]
    assert type(whole(groups, ready)) is kind


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


def long_step(pipe=None):
    "A step that is shared by two threads, in this process"
    config.threads = 2
    p = Parameter(np.zeros(LONG, np.float32))
    p.grad = np.ones(LONG, np.float32)
    Rprop([p]).step()
    if pipe:
        pipe.send(float(p.data.sum()))
    return float(p.data.sum())


def in_a_child(pipe):
    "What a child does that was forked: two jobs that wait for each other, and a step"
    meet = threading.Barrier(2)
    together([lambda: meet.wait(20), lambda: meet.wait(20)])  # needs two threads that both work
    long_step(pipe)


def fork_between_steps():
    "A process makes a step by two threads, and its child another one"
    expected, context = long_step(), get_context('fork')
    mine, theirs = context.Pipe()
    child = context.Process(target=in_a_child, args=[theirs], daemon=True)
    child.start()
    theirs.close()  # so that a child that fails ends the wait
    assert mine.recv() == expected
    child.join()
    print('both')


@pytest.mark.skipif('fork' not in get_all_start_methods(), reason='no fork on this system')
def test_a_forked_process_gets_threads_of_its_own():
    assert alone('test_rows', 'fork_between_steps') == 'both\n'


def test_a_program_whose_main_thread_has_ended():
    code = ('import sys, threading, time; sys.path[:0] = sys.argv[1:]; from test_rows import long_step\n'
            'def train():\n    time.sleep(.3); print(long_step() < 0)\n'
            'long_step(); threading.Thread(target=train).start()')
    done = subprocess.run([sys.executable, '-c', code, os.path.dirname(__file__),
                           os.path.dirname(os.path.dirname(__file__))],
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == 'True\n' and not done.stderr


@pytest.mark.parametrize('value', [0, -1, 1.5, '2', True, float('nan')], ids=str)
def test_a_wrong_number_of_threads(value):
    mine = Config()
    mine.threads = 3
    with pytest.raises(ValueError, match='choose a whole number, 1 or more'):
        mine.threads = value
    assert mine.threads == 3


@pytest.mark.parametrize('set_to, expected',
                         [({'RPROP_LIT_THREADS': '3'}, '3'), ({'OMP_NUM_THREADS': '1'}, '1'),
                          ({'OMP_NUM_THREADS': 'x'}, None), ({'OMP_NUM_THREADS': '0,1'}, None),
                          ({'RPROP_LIT_THREADS': ' 4 '}, '4'),
                          ({'RPROP_LIT_THREADS': '2', 'OMP_NUM_THREADS': '7'}, '2'), ({}, None),
                          ({'OMP_NUM_THREADS': '5,1'}, '5')], ids=str)
def test_threads_from_the_environment(set_to, expected):
    env = {k: v for k, v in os.environ.items() if k not in ('RPROP_LIT_THREADS', 'OMP_NUM_THREADS')} | set_to
    code = 'from rprop_lit import config; print(config.threads)'
    found = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True,
                           check=True).stdout.strip()
    assert found == (expected or str(threads_from({})))


@pytest.mark.parametrize('value', ['0', 'many', '-2', '1.5', '2,3'])
def test_a_wrong_environment_is_an_error(value):
    done = subprocess.run([sys.executable, '-c', 'import rprop_lit; print(1); rprop_lit.config.threads'],
                          env={**os.environ, 'RPROP_LIT_THREADS': value}, capture_output=True, text=True)
    assert (done.returncode and done.stdout == '1\n'
            and f'RPROP_LIT_THREADS={value!r}: choose a whole number, 1 or more' in done.stderr)


def test_without_a_choice_there_are_two_threads_or_one(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0}, raising=False)
    assert threads_from({}) == 1
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 3, 5}, raising=False)
    assert threads_from({}) == 2
    monkeypatch.delattr(os, 'sched_getaffinity')
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert threads_from({}) == 1


@pytest.mark.parametrize('code', [
    ('def late():\n    try:\n        yield\n    finally:\n        step(); print(p.data[0] < -0.015)\n'
     'late = late(); next(late)'),
    'class Late:\n    def __del__(self):\n        step(); print(p.data[0] < -0.015)\nlate = Late()',
], ids=['generator', 'finalizer'])
def test_a_step_while_the_interpreter_ends(code):
    start = ('import sys; sys.path[:0] = sys.argv[1:]; '
             'from test_rows import LONG, Parameter, Rprop, config, np\n'
             'config.threads = 2; p = Parameter(np.zeros(LONG, np.float32)); '
             'p.grad = np.ones(LONG, np.float32); step = Rprop([p]).step; step()\n')
    done = subprocess.run([sys.executable, '-c', start + code, os.path.dirname(__file__),
                           os.path.dirname(os.path.dirname(__file__))],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout == 'True\n'


def test_a_job_may_have_jobs_of_its_own():
    code = ('from rprop_lit.inside.rows import together\nseen = []\n'
            'together([lambda: together([lambda: seen.append(1)] * 3)] * 3)\nprint(len(seen))')
    done = subprocess.run([sys.executable, '-c', code], cwd=os.path.dirname(os.path.dirname(__file__)),
                          capture_output=True, text=True, timeout=100)
    assert done.stdout == '9\n'


@pytest.mark.parametrize('most', [1, 63, 1000, 4096])
def test_scratch_of_any_length_will_do(most):
    start, limits = init(np.ones(5000, np.float32), 0.01), limits_of(Settings(), np.float32, [])
    ends = []
    for length in (5000, most):
        w, sign, size = np.ones(5000, np.float32), start.sign.copy(), start.step.copy()
        for g in gradients(5000, np.float32):
            blocks_kernel(Flip(True, False))(w, g, sign, size, limits,
                                             Scratch(length, np.float32, np.float32))
        ends.append([bits(x) for x in (w, sign, size)])
    assert ends[0] == ends[1]
