"""Four papers, measured again on small tasks, for the page nbs/evidence/82_papers.ipynb.

    python tests/evidence/papers.py                   # some ten minutes; writes tests/evidence/papers.json
    python tests/evidence/papers.py quadratics gps    # only these parts are measured anew

Igel and Hüsken (2003): `quadratics`, `nets`. Blum and Riedmiller (2013): `gps`. Hinton (2012): `batches`.
Prechelt (1998): `stopping`. Needs SciPy.
"""
import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # the arrays are small

import numpy as np  # noqa: E402
import scipy.linalg  # noqa: E402
import scipy.optimize  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULT = HERE / 'papers.json'
sys.path[:0] = [str(ROOT), str(HERE)]

from common import made, read, write  # noqa: E402

from rprop_lit import VARIANTS, Parameter, Rprop, rprop  # noqa: E402

SEEDS = 30
INF = float('inf')


def errors_of(fun, x0, variant, budget, lr=0.01):
    "The error at each of `budget` gradients of one run; steps as in the papers, without a floor"
    w, errors = Parameter(x0.copy()), []
    optimizer = Rprop([w], lr=lr, step_sizes=(0.0, 50.0), variant=variant)
    for _ in range(budget):
        error, w.grad = fun(w.data)
        errors.append(float(error))
        optimizer.step(loss=error)
    return np.array(errors)


class Spent(Exception):
    "Raised where a budget of gradients is used up"


def scipys_errors(fun, x0, method, budget, bounds=None):
    "As `errors_of`, of a method of SciPy that may go on to its limits; an early end keeps its error"
    errors = []

    def counted(x):
        if len(errors) == budget:
            raise Spent
        error, g = fun(x)
        errors.append(float(error))
        return error, g

    tight = {'gtol': 0, 'maxiter': 10**6}
    tight |= {'ftol': 0, 'maxfun': 10**6} if method == 'L-BFGS-B' else {}
    try:
        scipy.optimize.minimize(counted, x0, jac=True, method=method, bounds=bounds, options=tight)
    except Spent:
        pass
    return np.array(errors + errors[-1:] * (budget - len(errors)))


def lowest(errors):
    "The lowest error up to each gradient"
    return np.fmin.accumulate(np.where(np.isfinite(errors), errors, INF))


# Igel and Hüsken 2003: quadratics in a random orthonormal basis

RATIOS = (1, 3, 10, 30, 100)
SIZE, FALL, LIMIT = 20, 1e-6, 3000


def quadratic(ratio, seed, turned=True):
    "The sum of (ratio^(i / (n - 1)) <w, o_i>)^2 over an orthonormal basis o, and a random start"
    random = np.random.default_rng(seed)
    scale = ratio ** (np.arange(SIZE) / (SIZE - 1))
    basis = np.linalg.qr(random.standard_normal((SIZE, SIZE)))[0] if turned else np.eye(SIZE)

    def fun(w):
        r = scale * (basis @ w)
        return (r * r).sum(), 2 * basis.T @ (scale * r)
    return fun, random.standard_normal(SIZE)


def gradients_to(fun, x0, variant, fall=FALL, limit=LIMIT):
    "How many gradients until the error is `fall` times that of the start; None if `limit` were not enough"
    w, target = Parameter(x0.copy()), fall * fun(x0)[0]
    optimizer = Rprop([w], lr=0.1, step_sizes=(0.0, 50.0), variant=variant)
    for n in range(1, limit + 1):
        error, w.grad = fun(w.data)
        if error <= target:
            return n
        optimizer.step(loss=error)
    return None


def quadratics():
    "For each ratio, basis and variant, the gradients needed from each of the random starts"
    return [{'ratio': ratio, 'turned': turned, 'variant': v,
             'gradients': [gradients_to(*quadratic(ratio, seed, turned), v) for seed in range(SEEDS)]}
            for turned in (True, False) for ratio in RATIOS for v in VARIANTS]


# Igel and Hüsken 2003: networks

CHECKS = (50, 200, 1000)


@cache
def data(name):
    "A small table, as numbers"
    return np.loadtxt(ROOT / 'nbs' / 'evidence' / 'data' / f'{name}.csv', delimiter=',', skiprows=1)


def scaled(columns, training):
    "Columns in units of their spread around their mean, both taken from the training rows"
    return (columns - columns[training].mean(0)) / columns[training].std(0)


@cache
def task(name):
    "Inputs, targets, whether these are classes, and the rows of training (half), validation and test"
    if name == 'sunspots':
        counts = np.loadtxt(ROOT / 'rprop_lit' / 'data' / 'sunspots.csv', delimiter=',', comments='#',
                            usecols=1, skiprows=skip())
        series = np.lib.stride_tricks.sliding_window_view(counts, 13)
        x, y = series[:, :12], series[:, 12:]
    else:
        table = data(name)
        x, y = table[:, :-1], table[:, -1:]
    classes = name in ('wdbc', 'wine')
    order = np.random.default_rng(0).permutation(len(x))
    parts = np.split(order, [len(x) // 2, 3 * len(x) // 4])
    y = np.eye(3)[y[:, 0].astype(int)] if name == 'wine' else y if classes else scaled(y, parts[0])
    return scaled(x, parts[0]), y, classes, parts


def skip():
    "How many lines of the sunspots' table come before its numbers"
    text = (ROOT / 'rprop_lit' / 'data' / 'sunspots.csv').read_text(encoding='utf-8').splitlines()
    return next(i for i, line in enumerate(text) if line[0].isdigit())


HIDDEN = {'wdbc': 6, 'wine': 5, 'diabetes': 8, 'sunspots': 8}


def net(name, rows):
    "A hidden layer of tanh, sigmoid outputs for classes: mean squared error and gradient at flat weights"
    x, y, classes, _ = task(name)
    x, y, hidden = np.column_stack([x[rows], np.ones(len(rows))]), y[rows], HIDDEN[name]
    cut = x.shape[1] * hidden

    def fun(w, error_only=False):
        a, b = w[:cut].reshape(-1, hidden), w[cut:].reshape(hidden + 1, -1)
        h = np.tanh(x @ a)
        out = h @ b[:-1] + b[-1]
        out = 0.5 * (1 + np.tanh(0.5 * out)) if classes else out
        miss = out - y
        error = (miss * miss).mean()
        if error_only:
            return error
        d = 2 / miss.size * miss * (out * (1 - out) if classes else 1)
        back = (d @ b[:-1].T) * (1 - h * h)
        return error, np.concatenate([(x.T @ back).ravel(), (h.T @ d).ravel(), d.sum(0)])
    return fun


def weights_of(name, seed):
    "Random weights, uniform within half a unit"
    x, y, _, _ = task(name)
    size = (x.shape[1] + 1) * HIDDEN[name] + (HIDDEN[name] + 1) * y.shape[1]
    return np.random.default_rng(seed).uniform(-0.5, 0.5, size)


def trained(name, method, seed, budget=CHECKS[-1]):
    "The lowest training error after each number of gradients in CHECKS"
    fun, x0 = net(name, task(name)[3][0]), weights_of(name, seed)
    errors = (errors_of if method in VARIANTS else scipys_errors)(fun, x0, method, budget)
    return [float(f'{e:.6g}') for e in lowest(errors)[[n - 1 for n in CHECKS if n <= budget]]]


def nets():
    "For each task and method, the training errors of each start"
    return [{'task': name, 'hidden': HIDDEN[name], 'method': m, 'gradients': list(CHECKS),
             'errors': [trained(name, m, seed) for seed in range(SEEDS)]} for name in HIDDEN
            for m in [*VARIANTS, 'CG', 'BFGS']]


# Blum and Riedmiller 2013: the likelihood of a Gaussian process

BOX, NEAR, PATIENCE = 10.0, 0.1, 100


@cache
def sample(name, rows=100):
    "Inputs and targets of a regression, scaled; some rows of it"
    if name == 'sunspots':
        x, y, _, _ = task('sunspots')
    elif name == 'wdbc':  # the area of a cell nucleus from the eight other means but the perimeter
        table = data('wdbc')
        x, y = np.delete(table, [2, 3, 10], axis=1), table[:, 3:4]
    else:
        x, y = data('diabetes')[:, :-1], data('diabetes')[:, -1:]
    rows = np.random.default_rng(1).permutation(len(x))[:rows]
    return scaled(x[rows], slice(None)), scaled(y[rows], slice(None))[:, 0]


def evidence(name):
    "Minus the log likelihood of a Gaussian process at the logs of lengths, signal and noise; its gradient"
    x, y = sample(name)
    apart = (x[:, None, :] - x[None, :, :]) ** 2

    def fun(p):
        if not (abs(p) <= 50).all():  # a method without bounds may ask for what no float holds
            return INF, np.full_like(p, np.nan)
        lengths, signal, noise = np.exp(-2 * p[:-2]), np.exp(2 * p[-2]), np.exp(2 * p[-1])
        smooth = signal * np.exp(-0.5 * (apart @ lengths))
        k = smooth + (noise + 1e-8 * signal) * np.eye(len(y))
        try:
            chol = np.linalg.cholesky(k)
        except np.linalg.LinAlgError:
            return INF, np.full_like(p, np.nan)
        inverse = scipy.linalg.cho_solve((chol, True), np.eye(len(y)))
        alpha = inverse @ y
        value = 0.5 * y @ alpha + np.log(np.diag(chol)).sum() + 0.5 * len(y) * np.log(2 * np.pi)
        inner = inverse - np.outer(alpha, alpha)
        weight = inner * smooth
        trace = np.trace(inner)
        lengthwise = 0.5 * np.einsum('ij,ijk->k', weight, apart) * lengths
        return value, np.concatenate([lengthwise, [weight.sum() + 1e-8 * signal * trace, noise * trace]])
    return fun


def guesses(name, seed):
    "A random start: lengths, signal and noise between a tenth and ten, evenly in their logarithm"
    return np.random.default_rng(seed).uniform(-np.log(10), np.log(10), sample(name)[0].shape[1] + 2)


def likelihood(name, method, seed, budget=PATIENCE):
    "The lowest value within `budget` evaluations, all points within e^-10 and e^10"
    fun, x0 = evidence(name), guesses(name, seed)
    box = [(-BOX, BOX)] * x0.size
    if method == 'L-BFGS-B':
        return float(lowest(scipys_errors(fun, x0, method, budget, box))[-1])
    if method == 'CG':
        return float(lowest(scipys_errors(fun, x0, method, budget))[-1])
    best = INF
    for p in rprop(fun, x0, variant=method, bounds=box, lr=0.1):
        best = min(best, p.fun if np.isfinite(p.fun) else INF)
        if p.nfev >= budget or p.nit >= 3 * budget:
            return float(best)


def gps():
    "For each data set and method, the value reached from each start"
    return [{'data': name, 'rows': len(sample(name)[1]), 'hyperparameters': guesses(name, 0).size,
             'evaluations': PATIENCE, 'method': m,
             'values': [round(likelihood(name, m, seed), 4) for seed in range(SEEDS)]}
            for name in ('diabetes', 'wdbc', 'sunspots') for m in [*VARIANTS, 'L-BFGS-B', 'CG']]


# Hinton 2012: batches

BATCHES, UPDATES = (284, 128, 64, 32, 16), 500


def logistic(rows):
    "Logistic regression on the ten features of wdbc: mean loss over some rows, and its gradient"
    x, y, _, (training, _, _) = task('wdbc')
    x, sides = np.column_stack([x, np.ones(len(x))])[training[rows]], (2 * y[training[rows], 0] - 1)

    def fun(w):
        margin = sides * (x @ w)
        return np.logaddexp(0, -margin).mean(), x.T @ (-sides / (1 + np.exp(margin))) / len(x)
    return fun


class Momentum:
    "Gradient descent with momentum 0.9"
    def __init__(self, w, lr=0.1):
        self.w, self.lr, self.v = w, lr, 0 * w.data

    def step(self, loss):
        self.v = 0.9 * self.v - self.lr * self.w.grad
        self.w.data += self.v


class RMSprop(Momentum):
    "A gradient divided by a running root mean square (Hinton 2012)"
    def step(self, loss):
        self.v = 0.9 * self.v + 0.1 * self.w.grad**2
        self.w.data -= self.lr * self.w.grad / (np.sqrt(self.v) + 1e-8)


def batched(method, batch, seed):
    "The loss over all rows after UPDATES updates by shuffled batches; for Rprop, the median step, too"
    random, whole = np.random.default_rng(seed), logistic(np.arange(BATCHES[0]))
    w = Parameter(random.uniform(-0.5, 0.5, 11))
    rates = {'momentum': Momentum, 'RMSprop': lambda w: RMSprop(w, 0.01)}
    optimizer = rates[method](w) if method in rates else Rprop([w], variant=method)
    order = np.array([], dtype=int)
    for _ in range(UPDATES):
        if len(order) < batch:
            order = random.permutation(BATCHES[0])
        error, w.grad = logistic(order[:batch])(w.data)
        order = order[batch:]
        optimizer.step(loss=error)
    step = float(np.median(optimizer.state[w]['step_size'])) if method in VARIANTS else None
    return [float(f'{whole(w.data)[0]:.6g}'), step if step is None else float(f'{step:.3g}')]


def batches():
    "For each size of a batch and each method, the final loss and the median step of each start"
    rows = [(batch, m, [batched(m, batch, seed) for seed in range(SEEDS)]) for batch in BATCHES
            for m in [*VARIANTS, 'momentum', 'RMSprop']]
    return [{'batch': batch, 'updates': UPDATES, 'method': m, 'losses': [loss for loss, _ in ends],
             'steps': [step for _, step in ends]}
            for batch, m, ends in rows]


# Prechelt 1998: when to stop

EPOCHS, STRIP = 2000, 5
LEVELS = {'GL': (1, 2, 3, 5), 'PQ': (0.5, 0.75, 1, 2, 3), 'UP': (2, 3, 4, 6, 8)}
CRITERIA = [(family, level) for family, levels in LEVELS.items() for level in levels]


def curves(name, seed, variant='rprop+', epochs=EPOCHS):
    "Training, validation and test error at every epoch"
    training, validation, test = (net(name, rows) for rows in task(name)[3])
    w, rows = Parameter(weights_of(name, seed)), []
    optimizer = Rprop([w], variant=variant)
    for _ in range(epochs):
        error, w.grad = training(w.data)
        rows.append((error, validation(w.data, error_only=True), test(w.data, error_only=True)))
        optimizer.step(loss=error)
    return np.array(rows).T


def stop(criterion, level, training, validation):
    """The epoch at which a criterion stops, looked at once a strip; the last one if it never does.

    GL: the validation error is `level` per cent above its lowest. PQ: that loss is `level` times the progress
    of training, 1000 times (mean / lowest error of the strip - 1). UP: it rose in `level` strips on end.
    """
    rises, before = 0, validation[0]
    for t in range(STRIP, len(training) + 1, STRIP):
        # an error of 0 has no per cents, and is no reason to stop
        with np.errstate(divide='ignore', invalid='ignore'):
            loss = 100 * (validation[t - 1] / validation[:t].min() - 1)
            progress = 1000 * (training[t - STRIP:t].mean() / training[t - STRIP:t].min() - 1)
        rises = rises + 1 if validation[t - 1] > before else 0
        before = validation[t - 1]
        if {'GL': loss > level, 'PQ': loss > level * progress, 'UP': rises >= level}[criterion]:
            return t
    return len(training)


def stopped(name, seed):
    "For each criterion: when it stops, and the test error at the lowest validation error until then"
    training, validation, test = curves(name, seed)
    ends = [stop(*c, training, validation) for c in CRITERIA]
    return [[t, float(f'{test[validation[:t].argmin()]:.6g}')] for t in ends]


def stopping():
    "For each task and criterion, epochs and test errors of each start"
    found = []
    for name in HIDDEN:
        runs = [stopped(name, seed) for seed in range(SEEDS)]
        found += [{'task': name, 'limit': EPOCHS, 'criterion': f'{c} {a:g}',
                   'epochs': [run[i][0] for run in runs],
                   'errors': [run[i][1] for run in runs]} for i, (c, a) in enumerate(CRITERIA)]
    return found


PARTS = {'quadratics': quadratics, 'nets': nets, 'gps': gps, 'batches': batches, 'stopping': stopping}


def main(names):
    results = read(RESULT) or {}
    for name in names or PARTS:
        results = {'made': made('numpy', 'scipy'), 'seeds': SEEDS,
                   **{k: v for k, v in results.items() if k in PARTS}, name: PARTS[name]()}
        write(RESULT, results)
        print(name, 'done', flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
