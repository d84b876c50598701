"""A driver for tests/test_cluster.py: minimises on a cluster, writes a line for each step, and prints its
result.

    python tests/cluster_driver.py FOLDER ADDRESS [slow] [checkpoint] [kill-worker-at-5] [stop-at-10]
                                   [short] [other]

ADDRESS is that of a scheduler, or `own` for a cluster of its own. In FOLDER it writes `steps` (number,
error), and `checkpoint.npz` if it is asked for one. `slow` makes a piece take a tenth of a second,
`stop-at-10` waits there to be killed, `short` makes five steps, `other` is another problem.
"""
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from rprop_lit import minimize
from rprop_lit.scale import full_batch

COLUMNS = 5


def make():
    random = np.random.default_rng(0)
    X = random.normal(size=(960, COLUMNS))
    return X, np.sign(X @ np.arange(COLUMNS) + random.normal(size=960))


class Logistic:
    "Logistic regression, slow if wanted; a process that finds the file `flag` dies, and takes the file along"
    def __init__(self, flag, slow):
        self.flag, self.slow = str(flag), slow

    def __call__(self, w, piece):
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.flag)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1 * self.slow)
        X, y = piece
        margin = y * (X @ w)
        return np.logaddexp(0, -margin).sum(), -(y * np.exp(-np.logaddexp(0, margin))) @ X


def main(folder, address, *words):
    from distributed import Client, LocalCluster
    folder = Path(folder)
    flag = folder / 'flag'

    def note(intermediate_result):
        p = intermediate_result
        with open(folder / 'steps', 'a', encoding='utf-8') as steps:
            steps.write(f'{p.nit} {p.fun!r}\n')
        if p.nit == 5 and 'kill-worker-at-5' in words:
            flag.write_text('')
        while p.nit == 10 and 'stop-at-10' in words:
            time.sleep(1)

    options = {'maxiter': 5 if 'short' in words else 25, 'gtol': 0, 'ftol': 0}
    if 'checkpoint' in words:
        options |= {'checkpoint': str(folder / 'checkpoint.npz'), 'checkpoint_every': 1}
    start = np.zeros(COLUMNS) + ('other' in words)
    with contextlib.ExitStack() as stack:
        if address == 'own':
            address = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=1,
                                                       dashboard_address=':0', silence_logs='CRITICAL'))
        client = stack.enter_context(Client(address))
        f = full_batch(Logistic(flag, 'slow' in words), make(), batch_size=80, client=client)
        r = minimize(f, start, callback=note, options=options)
    print(json.dumps({'x': [x.hex() for x in r.x], 'jac': [g.hex() for g in r.jac], 'fun': r.fun,
                      'nit': r.nit, 'status': int(r.status)}))


if __name__ == '__main__':
    main(*sys.argv[1:])
