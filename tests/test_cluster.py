"""Full batches on a Dask cluster: real processes, some of which are killed.
Run by `.ci/steps/cluster`, or with RPROP_LIT_CLUSTER=1."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from streams import bits

if os.environ.get('RPROP_LIT_CLUSTER') != '1':
    pytest.skip('processes of a Dask cluster are started only with RPROP_LIT_CLUSTER=1',
                allow_module_level=True)

import dask
import dask.array
from distributed import Client, LocalCluster

from rprop_lit import minimize
from rprop_lit.scale import full_batch

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(400)  # processes are started, on machines that may be busy
# a LocalCluster gives a worker up that does not come back for so long
dask.config.set({'distributed.deploy.lost-worker-timeout': '300s'})
ROWS, COLUMNS, BATCH = 960, 5, 80
KINDS = ['arrays', 'paths', 'list of files', 'list of arrays', 'iterable', 'dask arrays', 'delayed']


def make():
    random = np.random.default_rng(0)
    X = random.normal(size=(ROWS, COLUMNS))
    return X, np.sign(X @ np.arange(COLUMNS) + random.normal(size=ROWS))


def logistic(w, piece):
    "Error and gradient of logistic regression, summed over rows"
    X, y = piece
    margin = y * (X @ w)
    return np.logaddexp(0, -margin).sum(), -(y * np.exp(-np.logaddexp(0, margin))) @ X


class Doomed:
    "The same, but a process that finds the file `flag` dies, and takes the file along"
    def __init__(self, flag):
        self.flag = str(flag)

    def __call__(self, w, piece):
        try:
            os.remove(self.flag)
        except FileNotFoundError:
            return logistic(w, piece)
        os.kill(os.getpid(), signal.SIGKILL)


class Iterable:
    "Pieces that are made anew each time"
    def __iter__(self):
        X, y = make()
        for i in range(0, ROWS, BATCH):
            yield X[i:i + BATCH].copy(), y[i:i + BATCH].copy()


def part(i):
    X, y = make()
    return X[i:i + BATCH], y[i:i + BATCH]


def data_of(kind, folder):
    "Data of a kind, and its batch size"
    X, y = make()
    for name, array in (('X', X), ('y', y)):
        np.save(folder / f'{name}.npy', array)
        for i in range(0, ROWS, BATCH):
            np.save(folder / f'{name}{i}.npy', array[i:i + BATCH])
    starts = range(0, ROWS, BATCH)
    return {'arrays': ((X, y), BATCH), 'paths': ((folder / 'X.npy', folder / 'y.npy'), BATCH),
            'list of files': ([(folder / f'X{i}.npy', folder / f'y{i}.npy') for i in starts], None),
            'list of arrays': ([part(i) for i in starts], None), 'iterable': (Iterable(), None),
            'dask arrays': ((dask.array.from_array(X, chunks=(BATCH, 2)),
                             dask.array.from_array(y, chunks=100)), None),
            'delayed': ([dask.delayed(part)(i) for i in starts], None)}[kind]


def start(workers, threads=1, **more):
    "A cluster on this machine"
    return LocalCluster(n_workers=workers, threads_per_worker=threads, processes=True, dashboard_address=':0',
                        silence_logs='CRITICAL', **more)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    "Workers that were killed take long to start on a machine that is busy"
    monkeypatch.setattr('rprop_lit.inside.cluster.PATIENCE', 300.0)


@pytest.fixture(scope='module')
def client():
    "A client of two workers, shared by the tests that leave them alive"
    with start(2) as cluster, Client(cluster) as client:
        yield client


def walk(f, steps=8, callback=None):
    "Points of a walk, as bits, and its result"
    points = []
    def note(intermediate_result):
        p = intermediate_result
        points.append((p.fun, bits(p.x), bits(p.jac), bits(p.step)))
        if callback:
            callback(p)
    r = minimize(f, np.zeros(COLUMNS), callback=note, options={'maxiter': steps, 'gtol': 0, 'ftol': 0})
    assert len(points) == steps
    return points, r


@pytest.fixture(scope='module')
def alone():
    "The walk of one process, undisturbed"
    return walk(full_batch(logistic, make(), batch_size=BATCH, threads=1))[0]


# ---- the same bits for any number of workers

@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_data_gives_the_bits_of_one_process(kind, client, alone, tmp_path):
    data, batch_size = data_of(kind, tmp_path)
    f = full_batch(logistic, data, batch_size=batch_size, client=client)
    assert walk(f, 4)[0] == alone[:4] and f.pieces == ROWS // BATCH
    # Dask's objects are computed here, one at a time
    here = full_batch(logistic, data, batch_size=batch_size, threads=1)
    assert walk(here, 3)[0] == alone[:3]


@pytest.mark.parametrize('workers, threads', [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_any_number_of_workers_and_threads_gives_the_same_bits(workers, threads, alone):
    with start(workers, threads) as cluster, Client(cluster) as client:
        f = full_batch(logistic, make(), batch_size=BATCH, client=client)
        assert walk(f)[0] == alone
        assert {future.status for future in f.runner.sources.values()} == {'finished'}


def test_dask_arrays_are_cut_by_batch_size_too(client, alone, tmp_path):
    X, y = data_of('dask arrays', tmp_path)[0]
    f = full_batch(logistic, (X.rechunk((500, 5)), y), batch_size=BATCH, client=client)
    assert walk(f, 3)[0] == alone[:3]
    with pytest.raises(ValueError, match='compute_chunk_sizes'):
        full_batch(logistic, X[X[:, 0] > 0], client=client)


class Pair(NamedTuple):
    X: object
    y: object


def by_name(w, piece):
    "The same for a dictionary or a named tuple"
    assert list(piece) == ['X', 'y'] if isinstance(piece, dict) else piece._fields == ('X', 'y')
    return logistic(w, tuple(piece.values()) if isinstance(piece, dict) else (piece.X, piece.y))


@pytest.mark.parametrize('form', [dict, Pair])
def test_structures_of_dask_arrays_become_pieces_of_the_same_form(form, client, alone, tmp_path):
    X, y = data_of('dask arrays', tmp_path)[0]
    f = full_batch(by_name, form(X=X, y=y), client=client)
    here = full_batch(by_name, form(X=X, y=y), threads=1)
    assert walk(f, 3)[0] == walk(here, 3)[0] == alone[:3] and here.pieces == ROWS // BATCH


@pytest.mark.parametrize('form', [dict, Pair, lambda X, y: (y, X)])
def test_dask_arrays_and_others_are_not_cut_together(form):
    X, y = make()
    for mixed in (form(X=dask.array.from_array(X), y=y), form(X=X, y=dask.array.from_array(y))):
        with pytest.raises(TypeError, match='of (dask, numpy|numpy, dask) cannot be cut together: .*from_'):
            full_batch(logistic, mixed)(np.zeros(COLUMNS))


def test_data_that_can_be_read_once_is_refused_on_a_cluster(client):
    class Once:
        def __init__(self):
            self.pieces = iter(Iterable())

        def __iter__(self):
            return self.pieces

    with pytest.raises(RuntimeError, match='no longer holds piece 0 of 12: it must give the same pieces'):
        full_batch(logistic, Once(), client=client)(np.zeros(COLUMNS))


def test_a_mean_and_a_list_of_weights(client):
    def net(w, piece):
        off = piece[0] @ w[0] + w[1] - piece[1]
        return 0.5 * (off * off).sum(), [piece[0].T @ off, np.array([off.sum()])]
    w = [np.ones(COLUMNS), np.ones(1)]
    error, g = full_batch(net, make(), batch_size=BATCH, client=client, mean=True)(w)
    e, d = full_batch(net, make(), batch_size=BATCH, threads=1, mean=True)(w)
    assert error == e and [bits(a) for a in g] == [bits(a) for a in d]


def test_data_is_placed_once_and_lies_with_its_worker(client, monkeypatch):
    f = full_batch(logistic, make(), batch_size=BATCH, client=client)
    sent = []
    send = f.runner.send
    monkeypatch.setattr(f.runner, 'send', lambda piece, address: (
        sent.append((piece.number, address)), send(piece, address))[1])
    walk(f, 5)
    assert [number for number, _ in sent] == list(range(12)) and f.evaluations >= 5
    assert len({address for _, address in sent}) == 2 and [a for _, a in sent] == sorted(a for _, a in sent)
    there = client.who_has(list(f.runner.sources.values()))
    assert all(there.values())  # Dask may copy a piece to a worker that has nothing to do


def test_each_worker_is_to_have_as_many_blocks(client, monkeypatch):
    f = full_batch(logistic, make(), batch_size=BATCH, client=client)
    meant, submit = [], client.submit
    monkeypatch.setattr(client, 'submit',
                        lambda *args, **more: (meant.append(more), submit(*args, **more))[1])
    walk(f, 3)
    addresses = sorted(client.ncores())
    blocks = len(meant) // f.evaluations
    assert all(more['allow_other_workers'] for more in meant)  # a worker that is gone keeps no block waiting
    assert blocks == 12 and [more['workers'] for more in meant] == [
        [address] for address in addresses for _ in range(blocks // 2)] * f.evaluations


def test_pieces_are_aligned_when_they_arrive(client):
    f = full_batch(logistic, make(), batch_size=BATCH, client=client)
    f(np.zeros(COLUMNS))
    def look(piece):
        return type(piece), [part.flags.aligned for part in piece]
    assert all(client.submit(look, source, pure=False).result() == (tuple, [True, True])
               for source in f.runner.sources.values())


def test_workers_may_be_threads_of_the_driver(alone):
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=':0') as threads:
        assert walk(full_batch(logistic, make(), batch_size=BATCH, client=threads), 3)[0] == alone[:3]


def test_a_function_may_write_in_its_weights(alone):
    def written_in(w, piece):
        answer = logistic(w, piece)
        w += 1
        return answer
    # tasks that run side by side in a worker have the same weights there, and alignment is a matter of luck
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=':0') as threads:
        assert walk(full_batch(written_in, make(), batch_size=BATCH, client=threads), 3)[0] == alone[:3]


def test_the_weights_of_an_evaluation_are_let_go(client):
    def lie(dask_worker):
        return [str(key) for key in dask_worker.data]
    def there():
        return {key for keys in client.run(lie).values() for key in keys}
    before = there()  # what an error of an earlier test may hold
    f = full_batch(logistic, make(), batch_size=BATCH, client=client)
    for _ in range(5):
        f(np.zeros(COLUMNS))
    kept = {future.key for future in [f.runner.common, *f.runner.sources.values()]}
    wait_until(lambda: kept <= there() <= kept | before)
    del f
    wait_until(lambda: there() <= before)


def test_a_paused_worker_gets_no_data(alone):
    def become(status, dask_worker):
        from distributed.core import Status
        dask_worker.status = Status[status]
    # without a limit of memory nobody wakes it again
    with start(2, memory_limit=0) as cluster, Client(cluster) as client:
        f = full_batch(logistic, make(), batch_size=BATCH, client=client)
        first, second = sorted(client.ncores())
        client.run(become, 'paused', workers=[first])
        wait_until(lambda: list(client.sync(client.scheduler.ncores_running)) == [second])
        sent = []
        send = f.runner.send
        f.runner.send = lambda piece, address: (sent.append(address), send(piece, address))[1]
        assert walk(f, 2)[0] == alone[:2] and sent == [second] * 12
        client.run(become, 'running', workers=[first])


def test_blas_of_the_driver_is_as_before():
    threadpoolctl = pytest.importorskip('threadpoolctl', reason='threadpoolctl is not installed')
    def limits():
        return [pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas']
    with (Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=':0') as threads,
          threadpoolctl.threadpool_limits(2, 'blas')):
        seen = []
        def look(w, piece):
            seen.append(limits())
            return 0.0, w
        full_batch(look, [1], client=threads)(np.zeros(1))
        assert set(limits()) == {2} and [set(found) for found in seen] == [{1}]


def test_blas_has_one_thread_on_the_workers(client):
    threadpoolctl = pytest.importorskip('threadpoolctl', reason='threadpoolctl is not installed')
    def look(w, piece):
        return max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()
                   if pool['user_api'] == 'blas'), w
    assert full_batch(look, [1], client=client)(np.zeros(1))[0] == 1
    assert full_batch(look, [1], client=client, threads=2)(np.zeros(1))[0] == 2
    assert full_batch(look, [1], client=client)(np.zeros(1))[0] == 1


def test_progress_and_no_data_on_a_cluster(client, capsys):
    full_batch(logistic, make(), batch_size=BATCH, client=client, progress=True)(np.zeros(COLUMNS))
    assert 'evaluation 1' in capsys.readouterr().err
    with pytest.raises(ValueError, match='no pieces'):
        full_batch(logistic, [], client=client)(np.zeros(COLUMNS))


# ---- workers that die

@pytest.mark.parametrize('kind', KINDS)
def test_a_worker_is_killed_in_the_fifth_iteration(kind, alone, tmp_path):
    data, batch_size = data_of(kind, tmp_path)
    flag = tmp_path / 'flag'
    with start(2) as cluster, Client(cluster) as client:
        before = set(client.run(os.getpid).values())
        f = full_batch(Doomed(flag), data, batch_size=batch_size, client=client)
        points, r = walk(f, callback=lambda p: flag.write_text('') if p.nit == 5 else None)
        assert points == alone and not flag.exists()
        assert before != set(client.run(os.getpid).values())


def test_all_workers_are_killed_between_two_evaluations(alone):
    with start(2) as cluster, Client(cluster) as client:
        f = full_batch(logistic, make(), batch_size=BATCH, client=client)
        def kill(p):
            if p.nit == 5:
                for pid in client.run(os.getpid).values():
                    os.kill(pid, signal.SIGKILL)
        assert walk(f, callback=kill)[0] == alone


def test_a_worker_dies_before_the_weights_are_sent(alone):
    # data is placed, who is to work is known, and the scheduler may not have seen yet that one is gone
    with start(2) as cluster, Client(cluster) as client:
        f = full_batch(logistic, make(), batch_size=BATCH, client=client)
        place, pids = f.runner.place, []
        def then_kill(*args):
            place(*args)
            if pids:
                os.kill(pids.pop(), signal.SIGKILL)
        f.runner.place = then_kill
        def choose(p):
            if p.nit == 5:
                pids.append(min(client.run(os.getpid).values()))
        assert walk(f, callback=choose)[0] == alone and not pids


def deadly(w, piece):
    "Its process dies of one piece, which is the fourth"
    if piece.shape == (3,):
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0, w


def made(i):
    "A piece as a worker makes it, and dies of it if it is the fourth"
    return deadly(np.zeros(i), np.zeros(i))[1]


@pytest.mark.parametrize('kind', ['files', 'arrays', 'delayed'])
def test_a_piece_that_kills_every_worker_is_named(kind, tmp_path):
    # Dask gives up at once here, and blames what has only waited behind the piece as well
    for i in range(5):
        np.save(tmp_path / f'{i}.npy', np.zeros(i))
    data = {'files': [tmp_path / f'{i}.npy' for i in range(5)], 'arrays': [np.zeros(i) for i in range(5)],
            'delayed': [dask.delayed(made)(i) for i in range(5)]}[kind]
    with (dask.config.set({'distributed.scheduler.allowed-failures': 0}), start(2) as cluster,
          Client(cluster) as client):
        f = full_batch(deadly, data, client=client)
        with pytest.raises(RuntimeError, match='^pieces 3 to 3: every worker .*although nothing else'):
            f(np.zeros(1))


def test_a_block_that_dask_gives_up_is_done_alone(alone, tmp_path):
    flag = tmp_path / 'flag'
    given_up = []
    with (dask.config.set({'distributed.scheduler.allowed-failures': 0}), start(2) as cluster,
          Client(cluster) as client):
        f = full_batch(Doomed(flag), make(), batch_size=BATCH, client=client)
        finish = f.runner.finish
        f.runner.finish = lambda w, todo, *more: given_up.append(todo) or finish(w, todo, *more)
        points, _ = walk(f, callback=lambda p: flag.write_text('') if p.nit == 5 else None)
    assert points == alone and not flag.exists()
    together = list(range(12))
    assert given_up[:5] == [together] * 5 and [todo for todo in given_up if len(todo) == 1]


# ---- errors

def test_a_piece_that_raises_is_named(client, tmp_path):
    def picky(w, piece):
        if piece == 7:
            raise ZeroDivisionError('no such luck')
        return 0.0, w
    with pytest.raises(RuntimeError, match='^piece 7: ZeroDivisionError: no such luck$'):
        full_batch(picky, list(range(20)), client=client)(np.zeros(1))
    with pytest.raises(RuntimeError, match='^piece 2 .*ZeroDivisionError'):
        full_batch(picky, [dask.delayed(i) for i in (0, 1)] + [dask.delayed(lambda: 1 // 0)()],
                   client=client)(np.zeros(1))
    data, _ = data_of('list of files', tmp_path)
    os.remove(data[4][1])
    with pytest.raises(RuntimeError, match=r'^piece 4 \(.*X320.npy, .*y320.npy\): FileNotFoundError'):
        full_batch(logistic, data, client=client)(np.zeros(COLUMNS))
    assert full_batch(picky, [1, 2, 3], client=client)(np.ones(1))[1] == 3  # the client goes on to work


class Locked(Exception):
    "It cannot be pickled"
    def __init__(self, said):
        super().__init__(said)
        self.lock = threading.Lock()


def test_an_error_that_cannot_be_pickled_is_named(client):
    def locked(w, piece):
        raise Locked('no such luck')
    with pytest.raises(RuntimeError, match='piece [01]: Locked: no such luck'):
        full_batch(locked, [1, 2], client=client)(np.zeros(1))


class Unreadable:
    "What an error of the system keeps from being unpickled, as if the connection had broken"
    def __reduce__(self):
        return open, (str(HERE / 'absent'),)


def test_what_workers_cannot_unpickle_is_named(client):
    with pytest.raises(RuntimeError, match='^pieces 1 to 1: what they need .*could not unpickle it'):
        full_batch(lambda w, piece: (0.0, w), [1, Unreadable()], client=client)(np.zeros(1))


class Vanishing:
    "Pieces that are there the first time"
    def __init__(self):
        self.times = 0

    def __iter__(self):
        self.times += 1
        yield from Iterable()
        if self.times > 1:
            open(HERE / 'absent', 'rb')


def test_data_that_cannot_be_read_again(client):
    data = Vanishing()
    with pytest.raises(RuntimeError, match='^the data cannot be read: FileNotFoundError: .*absent'):
        full_batch(logistic, data, client=client)(np.zeros(COLUMNS))
    assert data.times == 2


def test_a_client_that_is_closed():
    with start(1) as cluster:
        client = Client(cluster)
        f = full_batch(logistic, make(), batch_size=BATCH, client=client)
        f(np.zeros(COLUMNS))
        client.close()
        with pytest.raises(ConnectionError, match='the Dask client is closed.*new client.*checkpoint'):
            f(np.zeros(COLUMNS))
        with pytest.raises(ConnectionError, match='the Dask client is closed'):
            full_batch(logistic, make(), client=client)


def test_the_cell_of_the_chapter(tmp_path):
    # chapter 70 shows how a cluster is used in a cell that is not executed with the page
    cells = json.loads((HERE.parent / 'nbs' / 'use' / '70_scale.ipynb').read_text(encoding='utf-8'))['cells']
    sources = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    cell, = [source for source in sources if '#| eval: false' in source]
    X, y = make()
    X = np.tile(X, 4)  # the chapter's weights are twenty
    np.save(tmp_path / 'X.npy', X)
    np.save(tmp_path / 'y.npy', y)
    space = {'minimize': minimize, 'full_batch': full_batch, 'np': np, 'folder': tmp_path,
             'logistic': logistic}
    exec(cell, space)
    here = minimize(full_batch(logistic, (X, y), batch_size=10_000, mean=True, threads=1), np.zeros(20))
    assert bits(space['fitted'].x) == bits(here.x) and (tmp_path / 'fit.npz').exists()


def test_what_is_no_client():
    with pytest.raises(TypeError, match='need a dask.distributed.Client'):
        full_batch(logistic, make(), client='tcp://127.0.0.1:8786')


def test_there_is_no_worker(monkeypatch):
    monkeypatch.setattr('rprop_lit.inside.cluster.PATIENCE', 1.0)
    with start(1) as cluster, Client(cluster) as client:
        f = full_batch(logistic, make(), batch_size=BATCH, client=client)
        cluster.scale(0)
        while client.ncores():
            time.sleep(0.1)
        with pytest.raises(ConnectionError, match='no worker'):
            f(np.zeros(COLUMNS))


# ---- processes of their own: scheduler, workers, drivers

def processes(group):
    "Ids of the processes of a session that have not ended"
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, _, session = stat.read_text().rpartition(')')[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == group and state != 'Z':
            found.append(int(stat.parent.name))
    return found


def driver(folder, *words):
    "A process of its own, in a session of its own, that minimises: see `main`"
    env = dict(os.environ,
               PYTHONPATH=os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get('PYTHONPATH', '')]))
    return subprocess.Popen([sys.executable, str(HERE / 'cluster_driver.py'), str(folder), *words], env=env,
                            start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds=150):
    "Wait, at most so many seconds"
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it took too long'
        time.sleep(0.05)


def progress(folder):
    "How many steps a driver has made"
    try:
        return len((folder / 'steps').read_text().splitlines())
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize('to_all', [False, True], ids=['to the driver', 'to all, as a terminal does'])
def test_ctrl_c_returns_the_best_point_and_leaves_no_process(to_all, tmp_path):
    run = driver(tmp_path, 'own', 'slow')
    wait_until(lambda: progress(tmp_path) >= 4)
    (os.killpg if to_all else os.kill)(run.pid, signal.SIGINT)
    said, complaint = run.communicate(timeout=150)
    assert run.returncode == 0, complaint[-2000:]
    result = json.loads(said)
    assert result['status'] == 98, complaint[-2000:]
    # the interrupt may come after an evaluation and before its line is written
    steps = progress(tmp_path)
    f = full_batch(logistic, make(), batch_size=BATCH, threads=1)
    assert result['fun'] in [minimize(f, np.zeros(COLUMNS), options={'maxiter': n, 'gtol': 0, 'ftol': 0}).fun
                             for n in (steps, steps + 1)]
    wait_until(lambda: not processes(run.pid))


def test_the_scheduler_dies_in_the_middle(tmp_path):
    with_scheduler = Servers(tmp_path, 1)
    try:
        run = driver(tmp_path, with_scheduler.address, 'slow')
        wait_until(lambda: progress(tmp_path) >= 2)
        with_scheduler.all[0].kill()
        _, complaint = run.communicate(timeout=150)
        assert run.returncode == 1 and 'ConnectionError: the Dask client is' in complaint, complaint[-2000:]
    finally:
        with_scheduler.stop()


class Servers:
    "A scheduler and workers, started as a user starts them, that outlive a driver"
    def __init__(self, folder, workers):
        env = dict(os.environ,
                   PYTHONPATH=os.pathsep.join([str(HERE.parent), str(HERE),
                                               os.environ.get('PYTHONPATH', '')]))
        def run(*words):
            with open(folder / f'{words[0]}.log', 'a') as log:  # the server has a copy of its own
                return subprocess.Popen(
                    [sys.executable, '-m', 'distributed.cli.dask_' + words[0], *words[1:]],
                    env=env, stdout=log, stderr=log, start_new_session=True, cwd=folder)
        file = folder / 'scheduler.json'
        self.all = [run('scheduler', '--port', '0', '--no-dashboard', '--host', '127.0.0.1',
                        '--scheduler-file', str(file))]
        wait_until(lambda: file.exists() and file.read_text().strip().endswith('}'))
        self.address = json.loads(file.read_text())['address']
        self.all += [run('worker', self.address, '--nthreads', '1', '--no-dashboard', '--host', '127.0.0.1')
                     for _ in range(workers)]

    def stop(self):
        for server in self.all:
            try:
                os.killpg(server.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            server.wait()


@pytest.mark.parametrize('where', ['own', 'servers'])
def test_a_worker_is_killed_at_5_and_the_driver_at_10_and_it_resumes(where, tmp_path):
    undisturbed, disturbed = tmp_path / 'undisturbed', tmp_path / 'disturbed'
    undisturbed.mkdir()
    disturbed.mkdir()
    servers = Servers(tmp_path, 2) if where == 'servers' else None
    address = servers.address if servers else 'own'
    try:
        run = driver(undisturbed, address)
        expected, complaint = run.communicate(timeout=150)
        assert run.returncode == 0, complaint[-2000:]

        run = driver(disturbed, address, 'checkpoint', 'kill-worker-at-5', 'stop-at-10')
        wait_until(lambda: progress(disturbed) >= 10)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate(timeout=150)
        assert run.returncode == -signal.SIGKILL and not (disturbed / 'flag').exists()
        wait_until(lambda: not processes(run.pid))  # workers of its own end with it

        run = driver(disturbed, address, 'checkpoint')
        said, complaint = run.communicate(timeout=150)
        assert run.returncode == 0, complaint[-2000:]
    finally:
        if servers:
            servers.stop()
    a, b = json.loads(expected), json.loads(said)
    assert b == a and a['nit'] == 25
    steps = [line.split()[0] for line in (disturbed / 'steps').read_text().splitlines()]
    # it went on, and did not begin anew
    assert steps[:10] == [str(i) for i in range(1, 11)] and steps[10] in ('10', '11') and steps[-1] == '25'


def test_a_checkpoint_of_another_problem_is_refused(tmp_path):
    run = driver(tmp_path, 'own', 'checkpoint', 'short')
    _, complaint = run.communicate(timeout=150)
    assert run.returncode == 0, complaint[-2000:]
    run = driver(tmp_path, 'own', 'checkpoint', 'other')
    _, complaint = run.communicate(timeout=150)
    assert run.returncode == 1 and 'ValueError' in complaint and 'checkpoint' in complaint, complaint[-2000:]
