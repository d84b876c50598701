"""Twenty million rows on one machine and on two workers, and what streaming and workers cost:
tests/evidence/scale.json.

    python tests/evidence/scale.py          # everything; needs 4 GB of disk, which are given back
    python tests/evidence/scale.py large    # only the large fit
    python tests/evidence/scale.py cost     # only the costs

The functions are those that chapter 70 shows. Runs that are compared take turns, and the median of each is
kept.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from common import definitions, made, processor, read, write  # noqa: E402

from rprop_lit import minimize  # noqa: E402
from rprop_lit.scale import full_batch  # noqa: E402

ROWS, COLUMNS, STEPS = 20_000_000, 50, 20
logistic = definitions('../use/70_scale')['logistic']
OPTIONS = {'maxiter': STEPS, 'gtol': 0, 'ftol': 0}


def generate(folder, rows, seed=0):
    "Rows of standard normal features and labels of a logistic model, written in pieces; its true weights"
    random = np.random.default_rng(seed)
    truth = random.normal(size=COLUMNS).astype(np.float32) / 4
    X = np.lib.format.open_memmap(folder / 'X.npy', 'w+', np.float32, (rows, COLUMNS))
    y = np.lib.format.open_memmap(folder / 'y.npy', 'w+', np.float32, (rows,))
    for start in range(0, rows, 200_000):
        X[start:start + 200_000] = part = random.standard_normal((min(200_000, rows - start), COLUMNS),
                                                                 dtype=np.float32)
        noise = random.logistic(size=len(part))
        y[start:start + 200_000] = np.where(part @ truth + noise > 0, 1, -1)
    X.flush()
    y.flush()
    return truth


def peak():
    "The most memory that this process has had, in MB: its own and that of mapped files"
    return round(int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) / 1e3)


def fit(folder, client=None):
    "One fit from files: weights, seconds, pieces, memory"
    f = full_batch(logistic, (folder / 'X.npy', folder / 'y.npy'), mean=True, client=client, threads=1)
    start = time.perf_counter()
    r = minimize(f, np.zeros(COLUMNS), options=OPTIONS)
    seconds = time.perf_counter() - start
    workers = sorted(client.run(peak).values()) if client else []
    return {'where': f'{len(workers)} workers' if client else 'one machine', 'pieces': f.pieces,
            'evaluations': r.nfev, 'error': r.fun,
            'seconds an evaluation': round(seconds / r.nfev, 2), 'peak MB': peak(),
            'peak MB of workers': workers, 'weights': [x.hex() for x in r.x]}


def large():
    "The fit of twenty million rows, each in a fresh process"
    folder = Path(tempfile.mkdtemp())
    if shutil.disk_usage(folder).free < 12e9:
        sys.exit('less than 12 GB are free: the data needs 4')
    try:
        start = time.perf_counter()
        generate(folder, ROWS)
        print(f'generated in {time.perf_counter() - start:.0f} s', flush=True)
        size = sum(path.stat().st_size for path in folder.iterdir())
        runs = [json.loads(subprocess.run([sys.executable, __file__, where, str(folder)], check=True,
                                          capture_output=True, text=True).stdout)
                for where in ('alone', 'workers')]
    finally:
        shutil.rmtree(folder)
    return {'rows': ROWS, 'columns': COLUMNS, 'bytes': size, 'steps': STEPS, 'runs': runs}


# ---- costs

def net(w, piece):
    "A network of one hidden layer, squared errors: much work for each byte, one large array for itself"
    X, y = piece
    h = X @ w[0]
    np.tanh(h, out=h)
    off = h @ w[1] - y
    outer = h.T @ off
    np.multiply(h, h, out=h)
    np.subtract(1, h, out=h)
    h *= off[:, None]
    h *= w[1]
    return 0.5 * float(off @ off), [X.T @ h, outer]


def rows_and_weights(rows, hidden):
    "Random rows, and weights for a network with so many hidden units"
    random = np.random.default_rng(0)
    draw = lambda *shape: random.standard_normal(shape, dtype=np.float32)  # noqa: E731
    return (draw(rows, COLUMNS), draw(rows)), [draw(COLUMNS, hidden) / 7, draw(hidden) / hidden**0.5]


def turns(ways, count):
    "Seconds and processor seconds of each way: medians over turns"
    found = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            start, busy = time.perf_counter(), time.process_time()
            way()
            found[name].append((time.perf_counter() - start, time.process_time() - busy))
    return {name: [statistics.median(column) for column in zip(*times)] for name, times in found.items()}


def streaming(count=9, rows=640_000, batch=5_000):
    "One pass over a file in pieces against one pass in memory"
    from threadpoolctl import threadpool_limits
    folder = Path(tempfile.mkdtemp())
    (X, y), w = rows_and_weights(rows, 256)
    np.save(folder / 'X.npy', X)
    np.save(folder / 'y.npy', y)
    files = full_batch(net, (folder / 'X.npy', folder / 'y.npy'), batch_size=batch, threads=1)
    cut = [(X[i:i + batch], y[i:i + batch]) for i in range(0, rows, batch)]
    with threadpool_limits(1, 'blas'):
        found = turns({'in memory, at once': lambda: net(w, (X, y)),
                       'in memory, in pieces': lambda: [net(w, piece) for piece in cut],
                       'from a file, in pieces': lambda: files(w)}, count)
    shutil.rmtree(folder)
    return [{'pass': name, 'seconds': round(wall, 4), 'processor seconds': round(cpu, 4)}
            for name, (wall, cpu) in found.items()]


def speedup(rows, hidden, count=15, batch=5_000):
    "Evaluations on one worker and on two, in turn"
    from distributed import Client, LocalCluster
    data, w = rows_and_weights(rows, hidden)
    functions, held = {}, []
    for workers in (1, 2):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=':0')
        held += [Client(cluster), cluster]
        functions[workers] = full_batch(net, data, batch_size=batch, client=held[-2])
        functions[workers](w)
    found = turns({workers: lambda f=f: f(w) for workers, f in functions.items()}, count)
    for thing in held:
        thing.close()
    return [{'rows': rows, 'hidden': hidden, 'workers': workers, 'seconds': round(wall, 4)}
            for workers, (wall, _) in found.items()]


def nothing(w, piece):
    "No work at all: what is left is the cost of the cluster"
    return 0.0, np.zeros_like(w)


def overhead(count=7):
    "Seconds of an evaluation in which nothing is computed, for several numbers of blocks and of weights"
    from distributed import Client, LocalCluster
    with (LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as cluster,
          Client(cluster) as client):
        ways = {}
        for blocks, weights in ((8, 50), (64, 50), (512, 50), (8, 100_000), (8, 1_000_000)):
            f = full_batch(nothing, list(range(blocks)), client=client)
            f.runner.size = 1
            ways[blocks, weights] = lambda f=f, w=np.zeros(weights): f(w)
            ways[blocks, weights]()
        found = turns(ways, count)
    return [{'blocks': blocks, 'weights': weights, 'seconds': round(wall, 4)}
            for (blocks, weights), (wall, _) in found.items()]


def main(words):
    if words[:1] == ['alone']:
        return print(json.dumps(fit(Path(words[1]))))
    if words[:1] == ['workers']:
        from distributed import Client, LocalCluster
        with (LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as cluster,
              Client(cluster) as client):
            return print(json.dumps(fit(Path(words[1]), client)))
    path = HERE / 'scale.json'
    results = read(path) or {}
    results['made'] = (made('numpy', 'dask', 'distributed', 'threadpoolctl')
                       | {'hardware': f'{processor()}, {os.cpu_count()} cores'})
    results['made']['command'] = '; '.join(f'python tests/evidence/scale.py {part}'
                                           for part in ('large', 'cost'))
    if words != ['cost']:
        results['large'] = large()
        write(path, results)
    if words != ['large']:
        results |= {'load': round(os.getloadavg()[0], 1), 'streaming': streaming(),
                    'workers': speedup(320_000, 64) + speedup(1_280_000, 256), 'overhead': overhead()}
        write(path, results)
    print(json.dumps({key: value for key, value in results.items() if key != 'large'}, indent=1))


if __name__ == '__main__':
    main(sys.argv[1:])
