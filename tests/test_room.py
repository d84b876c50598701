"""Faults that people met elsewhere, tried on the optimizer:
interrupts, devices, types, graphs, compilers, names, files, overlaps."""
import copy
import gc
import io
import os
import stat
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from streams import bits, gradients

from rprop_lit import Parameter, Rprop, config, init, update
from rprop_lit.inside import files, parameters, rows
from rprop_lit.inside.engine import TakenBack
from rprop_lit.optim import BACKENDS, States

HERE = Path(__file__).resolve().parent


def stepped(*named, steps=2, **settings):
    "An optimizer of (name, array) pairs that has made some steps, and its parameters"
    ps = [Parameter(a) for _, a in named]
    optimizer = Rprop([(name, p) for (name, _), p in zip(named, ps)], **settings)
    for k in range(steps):
        for i, p in enumerate(ps):
            p.grad = np.full(p.shape, (-1.0) ** (i * k), p.dtype)
        optimizer.step()
    return optimizer, ps


# ---- Ctrl-C

INTERRUPTS = '''
import random, signal, sys, threading, time
import numpy as np
from rprop_lit import Parameter, Rprop, config
from rprop_lit.inside import engine, rows
engine.PART = rows.PART = 50_000  # two threads for few weights, so that 3000 steps take little time
# a shell starts programs in the background with SIGINT ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
backend, dtype, n, trials = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config.backend, config.threads = backend, 2
p = Parameter(np.zeros(n, dtype))
p.grad, optimizer = np.ones(n, dtype), Rprop([p], step_sizes=(1e-6, 1.0))
begin, main = threading.Semaphore(0), threading.main_thread().ident
def interrupt():
    pick = random.Random(0)
    while True:
        begin.acquire()
        time.sleep(pick.random() * pick.choice([0, 1e-5, 1e-4]))
        signal.pthread_kill(main, signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
made, caught, during = 0, 0, 0
w, step = np.zeros((), dtype), np.asarray(0.01, 'f4' if dtype == 'float32' else 'f8')
begun = False
for _ in range(trials):
    done = False
    try:
        begin.release()
        optimizer.step()
        done = True
        while True:
            time.sleep(1e-3)  # short: a signal on the way into it is answered when it is over
    except KeyboardInterrupt:
        caught += 1
        during += not done
    count = optimizer.state[p]['step'] if p in optimizer.state else 0
    assert count in (made, made + 1), (count, made)
    if count > made:
        step = np.minimum(step * step.dtype.type(1.2), step.dtype.type(1)) if begun else step
        w, made, begun = (w - step).astype(dtype), count, True
    memory = optimizer.state[p]
    assert (p.data == w).all(), made
    assert not memory or ((memory['step_size'] == step).all() and (memory['sign'] == 1).all()), made
assert caught == trials and made
print('whole', during > 0)
'''


@pytest.mark.parametrize('backend, dtype, n, trials',
                         [('numpy', 'float32', 100_000, 3000), ('numba', 'float32', 100_000, 3000),
                          ('numpy', 'longdouble', 20_000, 3000), ('numpy', 'float32', 10, 3000)])
def test_three_thousand_interrupts_in_a_row(backend, dtype, n, trials):
    if backend == 'numba':
        pytest.importorskip('numba', reason='Numba is not installed: the compiled path is left out')
    done = subprocess.run([sys.executable, '-c', INTERRUPTS, backend, dtype, str(n), str(trials)],
                          cwd=HERE.parent,
                          capture_output=True, text=True, timeout=115)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith('whole')


class Pressed:
    "An array, or a group, to whose holder Ctrl-C comes again, so many times, whenever it is written to"
    def __init__(self, held, times):
        self.held, self.left = held, times

    def press(self):
        self.left -= 1
        if self.left >= 0:
            raise KeyboardInterrupt

    def __setitem__(self, key, value):
        self.press()
        self.held[key] = value

    def remember(self, loss):
        self.press()
        self.held.remember(loss)


@pytest.mark.parametrize('times', [0, 1, 3])
def test_interrupts_while_a_short_step_is_taken_back(monkeypatch, times):
    ps, begin, pressed = [Parameter(np.zeros(3)), Parameter(np.zeros(2))], TakenBack.__init__, []
    optimizer = Rprop(ps, variant='irprop+')
    for loss, sign in ((3.0, 1), (2.0, 1), (1.0, -1)):
        for p in ps:
            p.grad = sign * np.ones(p.shape)
        if loss > 1:
            optimizer.step(loss=loss)
    before = str(optimizer.state_dict()), [bits(p.data) for p in ps]

    def kept(self, groups, ready):
        begin(self, groups, ready)
        self.arrays = [(Pressed(a, times), old) for a, old in self.arrays]
        self.losses = [(Pressed(group, times), loss) for group, loss in self.losses]
        pressed.extend(one for one, _ in self.arrays + self.losses)

    def interrupted(moves, maxlen):
        next(moves)  # signs, steps and the first weights are new
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TakenBack, '__init__', kept)
        patch.setattr(rows, 'deque', interrupted)
        optimizer.step(loss=1.0)
    assert len(pressed) == 6 and all(one.left < 0 for one in pressed)
    assert (str(optimizer.state_dict()), [bits(p.data) for p in ps]) == before
    optimizer.step(loss=1.0)
    assert optimizer.state[ps[0]]['step'] == 3


# ---- files

def test_what_is_no_regular_file_is_left_alone(tmp_path):
    optimizer, _ = stepped(('w', np.zeros(3)))
    pipe, folder = tmp_path / 'pipe', tmp_path / 'folder'
    os.mkfifo(pipe)
    folder.mkdir()
    link = tmp_path / 'link'
    link.symlink_to(pipe)
    for path in (pipe, folder, link, Path('/dev/null')):
        mode = path.stat().st_mode
        with pytest.raises(OSError, match='no regular file'):
            optimizer.save(path)
        assert path.stat().st_mode == mode
    assert (stat.S_ISFIFO(pipe.stat().st_mode)
            and sorted(p.name for p in tmp_path.iterdir()) == ['folder', 'link', 'pipe'])


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0,
                    reason='only the superuser can give a file to somebody else')
def test_the_owner_of_a_file_stays(tmp_path):
    optimizer, _ = stepped(('w', np.zeros(3)))
    path = tmp_path / 'state.npz'
    optimizer.save(path)
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    optimizer.save(path)
    now = path.stat()
    assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (12345, 23456, 0o640)


def test_open_files():
    optimizer, (p,) = stepped(('w', np.zeros(3)))
    file = io.BytesIO(b'before')
    file.seek(0, io.SEEK_END)
    optimizer.save(file)
    assert file.getvalue().startswith(b'before')
    file.seek(6)
    again = Rprop([('w', Parameter(np.zeros(3)))])
    again.load(file)
    assert str(again.state_dict()) == str(optimizer.state_dict())


@pytest.mark.parametrize('failures', [3, 100])
def test_a_reader_that_is_in_the_way_on_windows(tmp_path, monkeypatch, failures):
    optimizer, _ = stepped(('w', np.zeros(3)))
    path, asked, replace, naps = tmp_path / 'state.npz', [], os.replace, []
    optimizer.save(path)
    old = path.read_bytes()
    optimizer.step()

    def busy(*what):
        asked.append(what)
        if len(asked) <= failures:
            raise PermissionError('the file is used by another process')
        replace(*what)
    monkeypatch.setattr(os, 'replace', busy)
    monkeypatch.setattr(files.time, 'sleep', naps.append)
    if failures == 3:
        optimizer.save(path)
        assert path.read_bytes() != old and len(naps) == 3 and naps == sorted(naps) and sum(naps) < 0.1
    else:
        with pytest.raises(PermissionError):
            optimizer.save(path)
        assert path.read_bytes() == old and len(asked) == 8
    assert [p.name for p in tmp_path.iterdir()] == ['state.npz']


# ---- names

def test_names_decide_where_both_sides_have_them(tmp_path):
    optimizer, _ = stepped(('a', np.zeros(2)), ('b', np.zeros(2)), steps=3)
    b, a = Parameter(np.zeros(2)), Parameter(np.zeros(2))
    other = Rprop([('b', b), ('a', a)])
    optimizer.save(tmp_path / 'state.npz')
    assert other.load(tmp_path / 'state.npz') == ([], [])
    saved = optimizer.state_dict()['state']
    for p, i in ((a, 0), (b, 1)):
        assert bits(other.state[p]['step_size']) == bits(saved[i]['step_size'])
        assert other.state[p]['sign'].tolist() == saved[i]['prev'].tolist()
    assert bits(other.state[a]['step_size']) != bits(other.state[b]['step_size'])


def test_without_names_the_order_decides():
    optimizer, _ = stepped(('a', np.zeros(2)), ('b', np.zeros(2)), steps=3)
    ps = [Parameter(np.zeros(2)) for _ in range(2)]
    for params in (ps, [('b', ps[0]), ps[1]]):
        other = Rprop(params)
        other.load_state_dict(optimizer.state_dict())
        saved = optimizer.state_dict()['state']
        assert ([bits(other.state[p]['step_size']) for p in ps]
                == [bits(saved[i]['step_size']) for i in (0, 1)])


def test_a_part_of_a_model():
    optimizer, _ = stepped(('a', np.zeros(2)), ('b', np.zeros(3)))
    b, c = Parameter(np.zeros(3)), Parameter(np.zeros(4))
    other = Rprop([('b', b), ('c', c)], lr=0.5)
    before = str(other.state_dict())
    with pytest.raises(ValueError,
                       match=r"another model: it lacks \['c'\], and \['a'\] are not here; strict=False"):
        other.load_state_dict(optimizer.state_dict())
    assert str(other.state_dict()) == before
    left = other.load_state_dict(optimizer.state_dict(), strict=False)
    assert left.missing == ['c'] and left.unknown == ['a']
    assert (bits(other.state[b]['step_size']) == bits(optimizer.state_dict()['state'][1]['step_size'])
            and not other.state[c])
    with pytest.raises(ValueError, match='another model: its groups have'):
        # no names to go by
        Rprop([b, c, Parameter([1.0])]).load_state_dict(optimizer.state_dict(), strict=False)


# ---- overlaps

def overlapping():
    "Lists of arrays that share memory"
    base, row = np.zeros((4, 3)), np.zeros(10)
    return {'the same array': [row, row], 'two views': [row[:6], row[5:]],
            'a row and a column': [base[1], base[:, 2]],
            'every second and the first': [row[::2], row[:1]],
            'a window on itself': [np.lib.stride_tricks.as_strided(row, (4, 3), (8, 16))],
            'backwards': [row[::-1], row[3:4]], 'real parts': [np.zeros(3, complex).real] * 2}


@pytest.mark.parametrize('kind', overlapping())
def test_weights_that_share_memory_are_refused_by_name(kind):
    arrays = overlapping()[kind]
    last = f'w{len(arrays) - 1}'
    with pytest.raises(ValueError, match='w. is there twice'):
        Rprop([(f'w{i}', Parameter(a)) for i, a in enumerate(arrays)])
    if len(arrays) == 2:
        optimizer = Rprop([('w0', Parameter(arrays[0]))])
        with pytest.raises(ValueError, match='is there twice'):
            optimizer.add_param_group({'params': [(last, Parameter(arrays[1]))]})
        assert len(optimizer.param_groups) == 1


def test_weights_side_by_side_are_not_refused():
    base, z, row = np.zeros((40, 3)), np.zeros(5, complex), np.zeros(10)
    arrays = [base[::2, 0], base[1::2, 0], base[:, 1], base[:, 2], z.real, z.imag, row[::2], row[1::2],
              np.zeros(0), row[4:4], np.zeros((3, 4)).T]
    optimizer = Rprop([Parameter(a) for a in arrays], lr=1.0)
    for p in optimizer.param_groups[0]['params']:
        p.grad = np.ones(p.shape)
    optimizer.step()
    assert (base == -1).all() and (z == -1 - 1j).all() and (row == -1).all()


def test_overlapping_tensors_are_refused():
    torch = pytest.importorskip('torch', reason='torch is not installed: no tensor overlapped')
    row = torch.zeros(6)
    for tensors in ([torch.zeros(3).expand(4, 3)], [row.as_strided((3, 3), (1, 1))], [row[:4], row[3:]]):
        with pytest.raises(ValueError, match='w. is there twice'):
            Rprop([(f'w{i}', torch.nn.Parameter(t)) for i, t in enumerate(tensors)])
    Rprop([torch.nn.Parameter(row[:3]), torch.nn.Parameter(row[3:]),
           torch.nn.Parameter(torch.zeros(4, 3).t())])


def test_overlaps_are_looked_for_once(monkeypatch):
    optimizer, ps = stepped(*[(f'w{i}', np.zeros(3)) for i in range(5)], steps=1)
    looked = []
    monkeypatch.setattr(parameters, '_span', lambda w: looked.append(w))
    for _ in range(3):
        optimizer.step()
    assert not looked


def test_construction_grows_with_the_number_of_groups(monkeypatch):
    span, counts = parameters._span, []
    for n in (50, 100, 200):
        looked = []
        monkeypatch.setattr(parameters, '_span', lambda w, looked=looked: looked.append(1) or span(w))
        Rprop([{'params': [Parameter(np.zeros(2))]} for _ in range(n)])
        counts.append(len(looked))
    assert counts == [counts[0], 2 * counts[0], 4 * counts[0]]


# ---- small ones

def test_an_empty_group_beside_another():
    p = Parameter(np.zeros(2))
    optimizer = Rprop([{'params': [p]}, {'params': [], 'lr': 0.5}])
    p.grad = np.ones(2)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert optimizer.state[p]['step'] == 2
    with pytest.raises(ValueError, match='params is empty'):
        Rprop([{'params': []}, {'params': []}])


def test_the_state_before_a_step():
    p, stranger = Parameter(np.zeros(2)), Parameter([1.0])
    optimizer = Rprop([p])
    memory = optimizer.state[p]
    assert (memory == {} and p not in optimizer.state and len(optimizer.state) == 0
            and list(optimizer.state) == [])
    with pytest.raises(KeyError):
        optimizer.state[stranger]
    with pytest.raises(KeyError):
        del optimizer.state[p]
    optimizer.state[p] = {'step': 5, 'sign': np.ones(2, np.int8), 'step_size': np.full(2, 0.5)}
    p.grad = np.ones(2)
    optimizer.step()
    # the memory that was asked for before is the one that there is
    assert memory['step'] == 6 and p.data.tolist() == [-0.6, -0.6]


def test_a_model_is_no_list():
    class Model:
        def parameters(self):
            return [Parameter([1.0])]
    with pytest.raises(TypeError, match=r'pass its parameters, model\.parameters\(\)'):
        Rprop(Model())


def test_help_shows_what_may_be_called():
    public = {name for name in dir(Rprop) if not name.startswith('_')}
    assert public == {'add_param_group', 'load', 'load_state_dict', 'param_groups', 'save', 'state',
                      'state_dict', 'step', 'to', 'zero_grad'}
    optimizer, _ = stepped(('w', np.zeros(2)), lr=0.25)
    shown = repr(optimizer)
    assert (shown.startswith('Rprop (\nParameter Group 0\n') and '    lr: 0.25\n' in shown
            and shown.endswith(')') and isinstance(optimizer.state, States))


def test_reading_the_state_changes_nothing(path):
    one, ps = stepped(('a', np.zeros(3)), ('b', np.zeros(400)))
    two, qs = stepped(('a', np.zeros(3)), ('b', np.zeros(400)))
    plans = list(one.param_groups[0].plans)
    for _ in range(5):
        repr(one.state), [dict(one.state[p]) for p in ps], one.state_dict(), one.param_groups, repr(one)
        one.step(), two.step()
    assert one.param_groups[0].plans == plans and [bits(p.data) for p in ps] == [bits(q.data) for q in qs]


def test_plans_stay_where_gradients_are_missing(path):
    "The shape of speed: no plan is made anew, and one backend is asked once for each plan and step"
    ps = [Parameter(np.zeros(n, dtype))
          for n, dtype in ((3, 'f4'), (4, 'f4'), (5, 'f8'), (6, 'f4'), (7, 'f8'))]
    optimizer, alone = (Rprop(ps, etas=(np.full(1, .5), 1.2), nonfinite='raise'),
                        [Rprop([Parameter(p.data.copy())]) for p in ps])
    asked = []
    for k in range(20):
        for i, (p, other) in enumerate(zip(ps, alone)):
            p.grad = None if k % 5 == i else np.ones(p.shape, p.dtype) * (-1) ** (k * i % 3)
            other.param_groups[0]['params'][0].grad = p.grad
            other.step()
        optimizer.step()
        asked.append(tuple(map(id, optimizer.param_groups[0].plans)))
    assert len(set(asked)) == 1 and len(asked[0]) == 2
    assert [bits(p.data) for p in ps] == [bits(other.param_groups[0]['params'][0].data) for other in alone]


def modules_that_see(arrays, step):
    "The modules of ours that get one of some arrays, or a list with one, as an argument during a step"
    wanted, seen = {id(a) for a in arrays}, []

    def watch(frame, event, _):
        name = frame.f_globals.get('__name__', '')
        if event == 'call' and name.startswith('rprop_lit.'):
            values = [frame.f_locals[key] for key in frame.f_code.co_varnames[:frame.f_code.co_argcount]]
            found = [x for value in values for x in (value if isinstance(value, list) else [value])]
            if any(id(x) in wanted for x in found):
                seen.append(name)
    sys.setprofile(watch)
    try:
        step()
    finally:
        sys.setprofile(None)
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize('count', [1, 20])
def test_weights_and_gradients_pass_through_four_modules(path, count):
    params = [Parameter(np.zeros(n + 1, np.float32)) for n in range(count)]
    for p in params:
        p.grad = np.ones_like(p.data)
    optimizer = Rprop(params, variant='irprop+')
    optimizer.step(loss=1.0)
    for arrays in ([p.data for p in params], [p.grad for p in params]):
        seen = modules_that_see(arrays, lambda: optimizer.step(loss=1.0))
        assert seen and len(seen) <= 4, seen
        assert {name.rpartition('.')[2] for name in seen} <= {'parameters', 'engine', 'rows', 'arrays'}, seen


CPU = [k for k, backend in enumerate(BACKENDS) if type(backend).__name__ != 'Cuda']


@pytest.mark.parametrize('number', CPU)
def test_an_error_inside_a_backend_is_an_error(monkeypatch, number):
    "No exception is taken for `this backend does not fit`"
    config_before = config.backend
    backend = BACKENDS[number]
    p = Parameter(np.zeros(20_000, np.longdouble if number == len(BACKENDS) - 1 else np.float32))
    p.grad, optimizer = np.ones(p.shape, p.dtype), Rprop([p])

    def broken(*what):
        raise TypeError('planted')
    monkeypatch.setattr(type(backend), 'step', broken)
    monkeypatch.setattr(config, '_backend', 'numba' if type(backend).__name__ == 'Compiled' else 'numpy')
    with pytest.raises(TypeError, match='planted'):
        optimizer.step()
    assert not p.data.any()
    monkeypatch.setattr(config, '_backend', config_before)


@pytest.mark.parametrize('maximize', [False, True])
def test_the_readable_backend_climbs(maximize):
    start = np.linspace(-1, 1, 7).astype(np.longdouble)
    p, w, state = Parameter(start.copy()), start.copy(), init(start, 0.01)
    optimizer = Rprop([p], variant='irprop+', maximize=maximize)
    for k, g in enumerate(gradients((7,), 40, np.float64)):
        loss = float('nan') if k % 7 == 3 else float(np.sin(k))
        p.grad = (-g if maximize else g).astype(np.longdouble)
        optimizer.step(loss=-loss if maximize else loss)
        dw, state = update(g, state, variant='irprop+', loss=loss)
        w = w + dw
        assert np.array_equal(p.data, w) and bits(optimizer.state[p]['step_size']) == bits(state.step)


# ---- types

@pytest.mark.parametrize('first, then', [(np.float64, np.float32), (np.float32, np.float64),
                                         (np.float64, np.float16)])
def test_a_resumed_run_is_the_run_that_was_not_saved(first, then):
    p = Parameter(np.zeros(50, first))
    optimizer, stream = Rprop([('w', p)], lr=0.1), list(gradients((50,), 40, np.float64))
    for g in stream[:20]:
        p.grad = g.astype(first)
        optimizer.step()
    saved = [optimizer.state_dict()]
    p.data = p.data.astype(then)
    saved.append(optimizer.state_dict())
    ends = []
    q, r = Parameter(p.data.copy()), Parameter(p.data.copy())
    runs = [(optimizer, p)] + [(Rprop([('w', x)]), x) for x in (q, r)]
    for (again, _), state in zip(runs[1:], saved):
        again.load_state_dict(state)
    with np.errstate(all='ignore'):
        for again, x in runs:
            for g in stream[20:]:
                x.grad = g.astype(then)
                again.step()
            ends.append((bits(x.data), bits(again.state[x]['step_size']),
                         str(again.state[x]['step_size'].dtype)))
    assert ends[0] == ends[1] == ends[2] and ends[0][2] == ('float64' if then == np.float64 else 'float32')


# ---- torch

@pytest.fixture
def torch():
    return pytest.importorskip('torch', reason='torch is not installed')


def test_settings_that_are_half_arrays_on_tensors(torch):
    for settings in (dict(step_sizes=(1e-6, np.array([.1, .2]))), dict(step_sizes=(np.array([.1, .2]), 50.)),
                     dict(etas=(.5, torch.tensor([1.1, 1.2])))):
        front, p = (torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
        optimizer = Rprop([{'params': [front]}, {'params': [p], **settings}])
        w, state = np.zeros(2), init(np.zeros(2), 0.01)
        arrays = {key: tuple(np.asarray(x) if getattr(x, 'ndim', 0) else x for x in value)
                  for key, value in settings.items()}
        for g in gradients((2,), 20, np.float64):
            front.grad, p.grad = torch.ones(2, dtype=torch.float64), torch.from_numpy(g)
            optimizer.step()
            dw, state = update(g, state, variant='irprop-', **arrays)
            w = w + dw
        assert bits(p.detach().numpy()) == bits(w)


def test_nothing_leaks_from_a_device_context(torch):
    def run(inside):
        p = torch.nn.Parameter(torch.zeros(3))
        p.grad = torch.ones(3)
        optimizer = Rprop([p], lr=np.full(3, .1))
        with inside():
            optimizer.step()
            state = optimizer.state_dict()
            optimizer.load_state_dict(state)
            optimizer.step()
        assert ({x.device.type for x in state['state'][0].values()} == {'cpu'}
                and optimizer.state[p]['sign'].device.type == 'cpu')
        return p.tolist()

    from contextlib import nullcontext
    assert run(nullcontext) == run(lambda: torch.device('meta'))
    before = torch.get_default_device()
    torch.set_default_device('meta')
    try:
        p = torch.nn.Parameter(torch.zeros(2, device='cpu'))
        p.grad = torch.ones(2, device='cpu')
        optimizer = Rprop([p])
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    finally:
        torch.set_default_device(before)
    assert p.tolist() == pytest.approx([-.022, -.022])


def test_a_state_for_weights_on_several_devices(torch):
    ps = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(3, device='meta'))]
    source = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimizer, theirs = Rprop(ps), Rprop(source)
    for p in source:
        p.grad = torch.ones(3)
    theirs.step()
    optimizer.load_state_dict(theirs.state_dict())
    assert [optimizer.state[p]['step_size'].device.type for p in ps] == ['cpu', 'meta']
    ps[0].grad, ps[1].grad = torch.ones(3), torch.ones(3, device='meta')
    optimizer.step()
    assert optimizer.state[ps[0]]['step'] == 2 and len(optimizer.param_groups[0].plans) == 2


def test_the_memory_moves_with_a_model(torch):
    # torch puts no meta tensor into a parameter of its own
    ps = [Parameter(torch.zeros(2, 3)), Parameter(torch.zeros(2))]
    optimizer = Rprop(ps)
    for p in ps:
        p.grad = torch.ones(p.shape)
    optimizer.step()
    with pytest.raises(ValueError, match='is on cpu, not on meta: move the model first'):
        optimizer.to('meta')
    assert optimizer.to('cpu') is optimizer and optimizer.state[ps[0]]['step'] == 1
    for p in ps:
        p.data = p.data.to('meta')
    optimizer.to('meta')
    assert ({m['sign'].device.type for m in optimizer.state.values()} == {'meta'}
            and optimizer.state[ps[1]]['step'] == 1)


@pytest.mark.filterwarnings('ignore:Using backward:UserWarning')
def test_no_graph_grows(torch):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = Rprop([p])
    for _ in range(30):
        optimizer.zero_grad(set_to_none=False)
        (p ** 3).sum().backward(create_graph=True)
        optimizer.step()
    depth, node = 0, p.grad.grad_fn
    while node is not None and depth < 100:
        node, depth = next((n for n, _ in node.next_functions if n is not None), None), depth + 1
    assert depth < 10 and not optimizer.state[p]['step_size'].requires_grad


# torch's compiler asks for that of the loss
@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor:UserWarning')
def test_a_compiled_training_step(torch):
    torch.manual_seed(0)
    plain, compiled = (torch.nn.Linear(3, 2) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    x = torch.randn(5, 3)

    def training(model):
        optimizer = Rprop(model.parameters())

        def train():
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss
        return train
    ordinary, faster = training(plain), torch.compile(training(compiled), backend='eager')
    for _ in range(3):
        assert torch.equal(ordinary(), faster())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), compiled.parameters()))


def test_copies_of_a_row_of_tensors_go_their_own_way(torch):
    from rprop_lit.optim import Row
    parts = [Parameter(torch.zeros(2)), Parameter(torch.ones(3))]
    row = Row(parts)
    optimizer = Rprop([row], lr=1.0)
    row.grad = torch.ones(5)
    again = copy.deepcopy(optimizer)
    optimizer.step()
    other = again.param_groups[0]['params'][0]
    assert ([p.data.tolist() for p in other.params] == [[0, 0], [1, 1, 1]]
            and row.data.tolist() == [-1, -1, 0, 0, 0])
    again.step()
    assert other.data.tolist() == row.data.tolist() == [x for p in other.params for x in p.data.tolist()]


def two_steps_of_a_model(settings):
    "A small array and a long one, stepped in a process of its own: what was raised, and what has changed"
    code = ('import numpy as np\nfrom rprop_lit import Parameter, Rprop\n'
            'ps = Parameter(np.zeros(3, np.float16)), Parameter(np.zeros(1_200_000, np.float32))\n'
            'for p in ps:\n    p.grad = np.ones_like(p.data)\n'
            'o = Rprop(ps)\n'
            'for _ in range(2):\n    try:\n        o.step()\n    except Exception as error:\n'
            '        print(type(error).__name__)\n'
            'print([p.data.any() for p in ps], [dict(o.state.get(p, {})) for p in ps])')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env={**os.environ, **settings},
                          cwd=os.path.dirname(os.path.dirname(__file__)), capture_output=True, text=True,
                          timeout=115)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize('settings', [{'RPROP_LIT_THREADS': 'many', 'RPROP_LIT_BACKEND': 'numpy'},
                                      {'RPROP_LIT_BACKEND': 'fortran'}], ids=str)
def test_a_wrong_variable_is_refused_before_anything_moves(settings):
    errors, rest = two_steps_of_a_model(settings)[:2], two_steps_of_a_model(settings)[2:]
    assert errors == ['ValueError'] * 2 and rest == ['[np.False_, np.False_] [{}, {}]']


def test_a_numba_that_breaks_with_any_error_is_left_alone(tmp_path):
    (tmp_path / 'numba.py').write_text('raise OSError("libLLVM is missing")')
    path = f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    said = two_steps_of_a_model({'PYTHONPATH': path, 'RPROP_LIT_BACKEND': 'auto'})
    assert not [line for line in said if 'Error' in line] and said[0].startswith('[np.True_, np.True_]')


class Late(Exception):
    "What a handler of a time limit raises"


def test_an_exception_out_of_a_short_step_takes_it_back(monkeypatch):
    ps = [Parameter([1.0], dtype=t) for t in (np.float32, np.float64)]
    for p in ps:
        p.grad = np.ones(1, p.data.dtype)
    optimizer = Rprop(ps)
    optimizer.step()
    before = [(p.data.tolist(), {k: str(v) for k, v in optimizer.state[p].items()}) for p in ps]
    done, plan_step = [], type(optimizer.param_groups[0].plans[0]).step_all

    def late(plan, *work):
        plan_step(plan, *work)
        done.append(plan)
        if len(done) == 2:
            raise Late
    monkeypatch.setattr(type(optimizer.param_groups[0].plans[0]), 'step_all', late)
    with pytest.raises(Late):
        optimizer.step()
    assert before == [(p.data.tolist(), {k: str(v) for k, v in optimizer.state[p].items()}) for p in ps]


def test_parameters_that_are_replaced_and_deleted_are_let_go():
    p = Parameter(np.zeros(10))
    optimizer, seen = Rprop([p]), []
    for _ in range(4):
        p.grad = np.ones(10)
        optimizer.step()
        seen.append(weakref.ref(p))
        del optimizer.state[p]
        optimizer.param_groups[0]['params'][0] = p = Parameter(np.zeros(10))
    p.grad = np.ones(10)
    optimizer.step()
    gc.collect()
    assert [ref() for ref in seen] == [None] * 4 and optimizer.state[p]['step'] == 1
