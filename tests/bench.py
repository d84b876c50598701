"""Time a step of Rprop beside its peers, and write the figures with hardware, versions and date.

    python tests/bench.py                  # all of it, about four minutes, into tests/bench.json
    python tests/bench.py --runs 5         # five times, in processes of their own; the median of each figure
    python tests/bench.py --quick out.json # a minute, to see whether it works

Never part of the test suite. All paths of a row are timed in one process, in turn, and the median of all
turns is kept: so ratios within a row mean something on a noisy machine, and times across rows mean less. In
its turn a path first makes as many steps that are not timed as steps that are: the path before has filled the
caches with its own arrays, and its threads keep a core busy for a moment after their last step. Gradients
turn 15 % of their signs from step to step.
"""
import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rprop_lit import config  # noqa: E402
from rprop_lit.inside import engine, rows  # noqa: E402
from rprop_lit.inside.arrays import BLOCK  # noqa: E402
from rprop_lit.inside.cuda import BODY  # noqa: E402
from rprop_lit.inside.rows import parts, together  # noqa: E402
from rprop_lit.optim import BACKENDS, Parameter, Row, Rprop  # noqa: E402
from rprop_lit.rule import init, update_all  # noqa: E402
from rprop_lit.variants import Flip  # noqa: E402

FLAGS = ['-O3', '-march=native', '-fno-trapping-math', '-ffp-contract=off']
HOW = dict(etas=(0.5, 1.2), step_sizes=(1e-6, 50.0))


def c_loop(folder, dtype):
    "The kernel's own body in a plain C loop: what a processor can do"
    T = {'float32': 'float', 'float64': 'double'}[dtype]
    text = f'''typedef {T} T;
extern "C" void loop(long n, T* __restrict W, const T* __restrict G, signed char* __restrict Q,
                     T* __restrict S, T eta_minus, T eta_plus, T lo, T hi) {{
    const int forget = 1, undo = 0, retreat = 0;
    for (long i = 0; i < n; ++i) {{
        const T g = G[i]; T w = W[i], step = S[i]; signed char sign = Q[i];
        {BODY}
        W[i] = w; S[i] = step; Q[i] = sign;
    }}
}}'''
    (folder / f'{T}.cpp').write_text(text)
    subprocess.run(['g++', *FLAGS, '-shared', '-fPIC', '-o', folder / f'{T}.so', folder / f'{T}.cpp'],
                   check=True)
    loop = ctypes.CDLL(str(folder / f'{T}.so')).loop
    number = ctypes.c_float if T == 'float' else ctypes.c_double
    numbers = [number(x) for x in (*HOW['etas'], *HOW['step_sizes'])]
    return lambda *arrays: loop(ctypes.c_long(arrays[0].size),
                                *[ctypes.c_void_p(a.ctypes.data) for a in arrays], *numbers)


def gradients(n, dtype, count=4):
    "Gradients of which 15 % turn from one to the next, 1 % exact zeros"
    random = np.random.default_rng(0)
    g = random.standard_normal(n, dtype=np.float32).astype(dtype, copy=False)
    g[random.random(n, dtype=np.float32) < .01] = 0
    found = [g]
    for _ in range(count - 1):
        found.append(np.where(random.random(n, dtype=np.float32) < .15, -found[-1], found[-1]))
    return found


class Readable:
    "Chapter 10, one operation after the other"
    def __init__(self, w):
        self.w, self.state = w, init(w, 0.01)

    def step(self, g):
        dw, self.state = update_all(g, self.state, forget=True, undo=False, **HOW)
        self.w += dw


def paths(n, dtype, folder, wanted):
    "Functions of a NumPy gradient, by name; each has weights of its own"
    start, made = np.ones(n, dtype), {}
    if 'readable' in wanted:
        readable = Readable(start.copy())
        made['readable'] = readable.step

    def ours(name):
        p = Parameter(start.copy())
        optimizer = Rprop([p])

        def step(g):
            p.grad = g
            config.backend = name
            optimizer.step()
        return step
    for name in ('numpy', 'numba'):
        if name in wanted:
            made[name] = ours(name)
    if 'C' in wanted:
        loop, state = c_loop(folder, dtype), init(start, 0.01)
        w = start.copy()
        made['C'] = lambda g: loop(w, g, state.sign, state.step)
    if wanted & {'torch', 'torch compiled'}:
        made |= torch_paths(start, wanted)
    if 'optax' in wanted:
        made |= optax_path(start)
    return made


def torch_paths(start, wanted):
    "torch's own class: foreach, and compiled"
    import torch
    made = {}
    for name in {'torch', 'torch compiled'} & wanted:
        p = torch.nn.Parameter(torch.from_numpy(start.copy()))
        optimizer = torch.optim.Rprop([p], foreach=name == 'torch')
        run = optimizer.step if name == 'torch' else torch.compile(optimizer.step)

        def step(g, p=p, run=run):
            p.grad = torch.from_numpy(g)
            run()
        made[name] = step
    return made


def optax_path(start):
    "optax's, jitted with donated state; it makes the move of the step before, at the same cost"
    import jax
    import optax
    if start.dtype == np.float64:
        return {}
    rule = optax.rprop(0.01)

    @lambda f: jax.jit(f, donate_argnums=(0, 1))
    def step(w, state, g):
        moves, state = rule.update(g, state, w)
        return optax.apply_updates(w, moves), state
    held = {'w': jax.numpy.asarray(start)}
    held['state'] = rule.init(held['w'])
    cache = {}

    def run(g):
        there = cache.setdefault(id(g), jax.numpy.asarray(g))
        held['w'], held['state'] = step(held['w'], held['state'], there)
        held['w'].block_until_ready()
    return {'optax': run}


def in_turn(steps, gs, rounds, budget=60.0):
    """Median seconds of each step, the paths taking turns;
    in a turn, about a hundredth of a second is not timed, and as much is"""
    taken, began = {name: [] for name in steps}, time.perf_counter()
    at_a_time = {}
    for name, step in steps.items():
        step(gs[0])
        step(gs[1])
        t = time.perf_counter()
        step(gs[0])
        at_a_time[name] = max(1, min(1000, int(0.01 / (time.perf_counter() - t))))
    for _ in range(rounds):
        for name, step in steps.items():
            for timed in (False, True):
                t = time.perf_counter()
                for k in range(at_a_time[name]):
                    step(gs[(k + timed) % len(gs)])
            taken[name].append((time.perf_counter() - t) / at_a_time[name])
        if len(taken[name]) > 6 and time.perf_counter() - began > budget:
            break
    return {name: float(np.median(t)) for name, t in taken.items()}


def one_array(sizes, folder, available, rounds):
    "Nanoseconds a weight for one array of each size and type"
    found = []
    for dtype, n in sizes:
        wanted = set(available)
        if n > 20_000_000:
            wanted -= {'readable', 'torch compiled'}
        if n < 100_000:
            wanted -= {'torch compiled'}
        count = 2 if n > 20_000_000 else 4
        steps, gs = paths(n, dtype, folder, wanted), gradients(n, dtype, count)
        times = in_turn(steps, gs, rounds if n < 20_000_000 else 5)
        found.append({'dtype': dtype, 'n': n,
                      'ns': {name: round(t / n * 1e9, 4) for name, t in times.items()}})
        print(dtype, n, found[-1]['ns'], flush=True)
        del steps, gs
    return found


def in_threads(sizes, folder, available, rounds):
    "Nanoseconds a weight for one float32 array, by one and by two threads"
    found = []
    for n in sizes:
        steps = {}
        for count in (1, 2):
            for name, step in paths(n, 'float32', folder, {'numpy', 'numba'} & set(available)).items():
                steps[f'{name}, {count}'] = with_threads(count, n, step)
            steps[f'C, {count}'] = with_threads(count, n, c_in_threads(n, folder))
        steps['numpy, 2, usual blocks'] = with_threads(2, n, paths(n, 'float32', folder, {'numpy'})['numpy'],
                                                       BLOCK)
        times = in_turn(steps, gradients(n, 'float32'), rounds)
        found.append({'n': n, 'ns': {name: round(t / n * 1e9, 4) for name, t in times.items()}})
        print('threads', n, found[-1]['ns'], flush=True)
    return found


def with_threads(count, n, step, block=engine.LONG):
    "A step with another number of threads; with two of them a row of `n` is cut in two, however short"
    usual = config.threads, rows.PART, engine.LONG

    def use(count, part, block):
        config.threads = count
        rows.PART = engine.PART = part
        engine.LONG = block

    def run(g):
        use(count, min(rows.PART, n // 2), block)
        step(g)
        use(*usual)
    return run


def c_in_threads(n, folder):
    "The C loop over the parts of chapter 40"
    loop, w = c_loop(folder, 'float32'), np.ones(n, np.float32)
    state = init(w, 0.01)
    return lambda g: together([lambda part=part: loop(w[part], g[part], state.sign[part], state.step[part])
                               for part in parts(n)])


def many_arrays(available, rounds):
    "Microseconds a step for 1,000 float32 arrays of 100 to 1,000 weights, through step() as a user calls it"
    random = np.random.default_rng(0)
    sizes = random.integers(100, 1001, 1000)
    row = gradients(int(sizes.sum()), 'float32')
    cut = [np.split(r, np.cumsum(sizes)[:-1]) for r in row]
    split = [[piece.copy() for piece in pieces] for pieces in cut]
    steps = {}

    def ours(name, params, put):
        optimizer = Rprop(params)

        def ready(k):
            put(params, k)
            config.backend = name
            return optimizer.step
        return ready

    def new(params, k):
        for p, g in zip(params, split[k]):
            p.grad = g

    def written_once(params, k):
        np.concatenate(split[k], out=params[0].slope)
    for name in [x for x in ('numpy', 'numba') if x in available]:
        apart = [Parameter(np.ones(n, np.float32)) for n in sizes]
        steps[name] = ours(name, apart, new)
        steps |= cliffs(name, sizes, split)
        steps[f'{name}, one Row'] = ours(name, [Row([Parameter(np.ones(n, np.float32)) for n in sizes])],
                                         written_once)
        steps[f'{name}, calls alone'] = calls_alone(name, sizes, split)
        if 'torch' in available:
            steps[f'{name}, torch tensors'] = ours(name, leaves(sizes), tensor_gradients(split))
    if 'torch' in available:
        import torch
        for kind in (True, False):
            params, put = leaves(sizes), tensor_gradients(split)
            optimizer = torch.optim.Rprop(params, foreach=kind)

            def step(k, params=params, put=put, optimizer=optimizer):
                put(params, k)
                return optimizer.step
            steps['torch' if kind else 'torch, one by one'] = step
    with tempfile.TemporaryDirectory() as folder:
        loop, w = c_loop(Path(folder), 'float32'), np.ones(int(sizes.sum()), np.float32)
    state = init(w, 0.01)
    steps['C, one row'] = lambda k: lambda: loop(w, row[k], state.sign, state.step)
    taken = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, ready in steps.items():
            for k in range(8):
                run = ready((turn + k) % 4)
                t = time.perf_counter()
                run()
                if turn and k > 3:
                    taken[name].append(time.perf_counter() - t)
    found = {name: round(float(np.median(t)) * 1e6, 1) for name, t in taken.items()}
    print('1000 arrays', found, flush=True)
    return {'arrays': 1000, 'weights': int(sizes.sum()), 'us': found}


def calls_alone(name, sizes, split):
    """The gathering, stepping and scattering of a step, without a look at what is stepped:
    what remains if nothing is checked"""
    params = [Parameter(np.ones(n, np.float32)) for n in sizes]
    for p, g in zip(params, split[0]):
        p.grad = g
    optimizer = Rprop(params)
    config.backend = name
    optimizer.step()
    plan, = optimizer.param_groups[0].plans
    ws, _ = plan.read()
    backend = next(b for b in BACKENDS if b.fits(ws))
    return lambda k: lambda: backend.step(plan, ws, split[k], Flip(True, False))


def cliffs(name, sizes, split):
    """Steps of the same arrays with something unusual about them:
    each at most three times the plain step, says the aim"""
    def ready(change=None, before=None, **settings):
        params = [Parameter(np.ones(n, np.float32)) for n in sizes]
        if change:
            change(params)
        optimizer = Rprop(params, **settings)

        def run(k, turn=[0]):  # noqa: B006  it counts the calls
            turn[0] += 1
            for i, (p, g) in enumerate(zip(params, split[k])):
                p.grad = g if p.dtype == g.dtype else g.astype(p.dtype)
                if before == 'missing' and i == turn[0] * 37 % len(params):
                    p.grad = None
            if before == 'state':
                [dict(optimizer.state[p]) for p in params]
            config.backend = name
            return optimizer.step
        return run

    def double(params):
        params[500] = Parameter(params[500].data.astype(float))
    return {f'{name}, one of float64': ready(double),
            f'{name}, another gradient missing': ready(before='missing'),
            f"{name}, nonfinite='raise'": ready(nonfinite='raise'),
            f'{name}, an array in etas': ready(etas=(np.array([0.5]), 1.2)),
            f'{name}, state read before': ready(before='state')}


def leaves(sizes):
    import torch
    return [torch.nn.Parameter(torch.ones(int(n))) for n in sizes]


def tensor_gradients(split):
    import torch

    def put(params, k):
        for p, g in zip(params, split[k]):
            p.grad = torch.from_numpy(g)
    return put


def one_small(available, rounds=31):
    "Microseconds a step for one float32 array of 100 weights"
    gs = gradients(100, 'float32')
    steps = paths(100, 'float32', None, set(available) & {'readable', 'numpy', 'numba', 'torch'})
    times = in_turn(steps, gs, rounds)
    return {name: round(t * 1e6, 2) for name, t in times.items()}


def peak(n):
    """Bytes that NumPy allocates, at most, during the first and a later step of one float32 array:
    beyond weights and gradient"""
    config.backend = 'numpy'
    p = Parameter(np.ones(n, np.float32))
    p.grad = np.ones(n, np.float32)
    optimizer, found = Rprop([p]), []
    for _ in range(2):
        tracemalloc.start()
        optimizer.step()
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return {'n': n, 'state': 5 * n, 'first step': found[0], 'later step': found[1]}


def bandwidth(n=100_000_000):
    "10^9 bytes per second, read plus written, of a large copy by one and by two threads"
    a, b, taken = np.ones(n, np.float32), np.zeros(n, np.float32), {1: [], 2: []}
    for _ in range(7):
        for count, found in taken.items():
            halves = [slice(n * k // count, n * (k + 1) // count) for k in range(count)]
            t = time.perf_counter()
            together([lambda cut=cut: np.copyto(b[cut], a[cut]) for cut in halves])
            found.append(time.perf_counter() - t)
    return {str(count): round(8 * n / float(np.median(found)) / 1e9, 2) for count, found in taken.items()}


def processor():
    "The name of the processor, as far as the system tells"
    try:
        names = [line.partition(':')[2].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
                 if line.startswith('model name')]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def installed(*names):
    "Versions of the packages that are there"
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def torch_threads():
    "How many threads torch uses; None without torch"
    try:
        import torch
        return torch.get_num_threads()
    except ImportError:
        return None


def has_gpu():
    try:
        import cupy
        return bool(cupy.cuda.is_available())
    except Exception:
        return False


def merged(results):
    "The median of each figure over several results"
    first = results[0]
    if isinstance(first, dict):
        return {key: merged([r[key] for r in results]) for key in first}
    if isinstance(first, list):
        return [merged(list(found)) for found in zip(*results)]
    return (statistics.median(results) if isinstance(first, (int, float)) and not isinstance(first, bool)
            else first)


def torch_times(results):
    """Nanoseconds a weight of torch's class in each run, for each size of float32:
    what the medians of this peer hide"""
    rows = zip(*[[row for row in r['one'] if row['dtype'] == 'float32'] for r in results])
    return [{'n': row[0]['n'], 'ns': sorted(r['ns']['torch'] for r in row)} for row in rows
            if 'torch' in row[0]['ns']]


def write(file, result):
    "Write the figures to a file"
    Path(file).write_text(json.dumps(result, indent=1) + '\n')
    print(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--runs', type=int, default=1, metavar='N',
                        help='as many runs, each in a process of its own; the median of each figure is kept')
    parser.add_argument('out', nargs='?', default=str(ROOT / 'tests' / 'bench.json'))
    args = parser.parse_args()
    if args.runs > 1:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f'{k}.json' for k in range(args.runs)]
            for file in files:
                subprocess.run([sys.executable, __file__, *['--quick'] * args.quick, file], check=True)
            results = [json.loads(file.read_text()) for file in files]
        return write(args.out,
                     merged(results) | {'runs': args.runs, 'torch in each run': torch_times(results)})
    packages = installed('numpy', 'numba', 'torch', 'jax', 'optax', 'array-api-strict', 'cupy-cuda12x',
                         'cupy-cuda13x')
    available = (['readable', 'numpy', 'C'] + [x for x in ('numba', 'torch') if x in packages]
                 + ['torch compiled'] * ('torch' in packages and not args.quick))
    sizes = ([('float32', 10**k) for k in range(3, 7 if args.quick else 9)]
             + [('float64', 10**k) for k in range(5, 7 if args.quick else 8)])
    result = {
        'date': date.today().isoformat(), 'processor': processor(), 'cores': os.cpu_count(),
        'python': platform.python_version(),
        'compiler': subprocess.run(['g++', '--version'], capture_output=True,
                                   text=True).stdout.splitlines()[0] + ' ' + ' '.join(FLAGS),
        'versions': packages, 'gpu': has_gpu(),
        'paths': {name: name in packages or name == 'numpy'
                  for name in ('numpy', 'numba', 'array-api-strict', 'torch', 'jax')} | {'cupy': has_gpu()},
        'threads a step': {'ours': config.threads, 'torch': torch_threads()},
        'copy_GB_per_s': bandwidth(10**7 if args.quick else 10**8),
    }
    rounds = 9 if args.quick else 31
    result['small'] = one_small(available)
    result['many'] = many_arrays(available, 5 if args.quick else 25)
    with tempfile.TemporaryDirectory() as folder:
        result['one'] = one_array(sizes, Path(folder), available, rounds)
        result['threads'] = in_threads([10**5, 3 * 10**5] + [k for k in (10**6, 3 * 10**6, 10**7)
                                                             if not args.quick], Path(folder),
                                       available, rounds)
    if 'optax' in packages:  # last, and in rows of its own: jax keeps threads that slow torch down
        with tempfile.TemporaryDirectory() as folder:
            result['optax'] = one_array([('float32', n) for _, n in sizes
                                         if n < 20_000_000 and _ == 'float32'], Path(folder),
                                        ['numpy', 'C', 'optax'], rounds)
    result['memory'] = peak(10**7 if args.quick else 10**8)
    result['load'] = round(os.getloadavg()[0], 1)
    write(args.out, result | {'runs': 1})


if __name__ == '__main__':
    main()
