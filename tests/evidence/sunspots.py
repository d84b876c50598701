"""The sunspots' network under other optimizers, for one table of nbs/evidence/88_sunspots.ipynb.

    python tests/evidence/sunspots.py    # a minute; writes tests/evidence/sunspots.json (needs SciPy)
"""
import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # the arrays are small

import numpy as np  # noqa: E402
import scipy.optimize  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

from common import made, write  # noqa: E402
from moves import adam  # noqa: E402

from rprop_lit import nn, sunspots  # noqa: E402

CHECKS, SEEDS, RATES = (100, 250, 500), range(5), (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def training_error(seed):
    "A start, and a function of all weights: error in the training years, and its gradient"
    task, net, loss_of = sunspots.sunspot_task(), sunspots.network(seed), nn.MSELoss()
    weights, part = list(net.parameters()), task.parts['training']
    ends = np.cumsum([p.data.size for p in weights])[:-1]

    def fun(w):
        for p, numbers in zip(weights, np.split(w, ends), strict=True):
            p.data[...], p.grad = numbers.reshape(p.shape), None
        loss = loss_of(net(task.inputs[part]), task.targets[part, None])
        loss.backward()
        return loss.item() / task.variance, np.concatenate([p.grad.ravel() for p in weights]) / task.variance
    return fun, np.concatenate([p.data.ravel() for p in weights])


def adams(seed, rate, budget=CHECKS[-1]):
    "The error at each gradient under Adam"
    fun, w = training_error(seed)
    move, errors = adam(w, rate), []
    for _ in range(budget):
        error, g = fun(w)
        errors.append(error)
        move(error, g)
    return errors


def lbfgs(seed, budget=CHECKS[-1]):
    "The error at each gradient under L-BFGS-B, which may go on to its limits"
    fun, w = training_error(seed)
    errors = []

    def watched(x):
        error, g = fun(x)
        errors.append(error)
        return error, g

    scipy.optimize.minimize(watched, w, jac=True, method='L-BFGS-B',
                            options={'ftol': 0, 'gtol': 0, 'maxfun': budget, 'maxiter': budget})
    return errors[:budget]


def lowest(errors):
    "The lowest error up to each number of gradients in CHECKS"
    return [float(f'{np.min(errors[:n]):.6g}') for n in CHECKS]


def main():
    rows = [{'method': f'Adam {rate:g}', 'errors': [lowest(adams(seed, rate)) for seed in SEEDS]}
            for rate in RATES]
    rows.append({'method': 'L-BFGS-B', 'errors': [lowest(lbfgs(seed)) for seed in SEEDS]})
    write(HERE / 'sunspots.json', {'made': made('numpy', 'scipy'), 'gradients': list(CHECKS), 'rows': rows})


if __name__ == '__main__':
    main()
