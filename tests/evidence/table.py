"""Eleven tasks, seven ways to spend gradients: the lowest losses after 100, 400 and 1,600 of them, into
table.json.

    python tests/evidence/table.py          # goes on where table.json ends; takes about an hour of one core
    python tests/evidence/table.py anew     # from the beginning

All gradients are full batch, in double precision, and by hand, in NumPy. Rprop runs at its defaults; Adam and
gradient descent get a grid of rates.
"""
import sys
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.optimize
from sklearn import datasets

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
from common import HERE, definitions, line, made, read, write  # noqa: E402
from moves import adam, momentum, rprop  # noqa: E402

from rprop_lit import VARIANTS  # noqa: E402

PAGE = definitions('81_table')
absolute, linear, spend = (PAGE[name] for name in ('absolute', 'linear', 'spend'))
FILE = HERE / 'table.json'

STAGES, MARKS = (4, 10), (100, 400, 1600)  # seeds; all rows grow together
ADAM = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# rates; the second one for tasks of very unequal units
DESCENT = {'net': (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), 'raw': (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)}
SCIPY = {'L-BFGS-B': {'ftol': 0, 'gtol': 0, 'maxfun': 10**6, 'maxiter': 10**6},
         'CG': {'gtol': 0, 'maxiter': 10**6},
         'TNC': {'ftol': 0, 'gtol': 0, 'xtol': 0, 'maxfun': 10**6}}


# Linear models of raw features: a seed draws four fifths of the rows, the start is 0

def logistic(score, y):
    "Mean logistic loss of answers -1 and 1, and its slope"
    e = np.exp(-np.abs(y * score))
    return ((np.log1p(e) - np.minimum(y * score, 0)).mean(),
            -y * np.where(y * score > 0, e, 1) / (1 + e) / len(y))


def ninth(score, y):
    "Mean quantile loss of the 0.9 quantile, and its slope (Koenker and Bassett 1978)"
    above = y > score
    return np.where(above, .9, -.1) @ (y - score) / len(y), np.where(above, -.9, .1) / len(y)


def rows(x, y, loss, seed):
    "A linear model with a constant, on four fifths of the rows"
    part = np.random.default_rng(seed).permutation(len(y))[:len(y) * 4 // 5]
    table = np.column_stack([x, np.ones(len(x))])[part]
    return (lambda w: linear(w, table, y[part], loss)), np.zeros(table.shape[1])


def cancer(seed):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return rows(x, np.where(y, 1.0, -1.0), logistic, seed)


def diabetes(seed):
    return rows(*datasets.load_diabetes(return_X_y=True, scaled=False), absolute, seed)


def wine(seed):
    x = datasets.load_wine().data
    return rows(x[:, :12], x[:, 12], ninth, seed)


# Networks: a seed draws the start

def tanh(x):
    return np.tanh(x), lambda a: 1 - a * a


def sigmoid(x):
    return 1 / (1 + np.exp(-x)), lambda a: a * (1 - a)


def relu(x):
    return np.maximum(x, 0), lambda a: a > 0


def softmax(out, y):
    "Mean cross entropy, and its slope"
    out = out - out.max(axis=1, keepdims=True)
    p = np.exp(out)
    total = p.sum(axis=1, keepdims=True)
    right = np.arange(len(y)), y
    loss = (np.log(total[:, 0]) - out[right]).mean()
    p /= total
    p[right] -= 1
    return loss, p / len(y)


def single(out, y):
    "The logistic loss for one output"
    loss, slope = logistic(out[:, 0], y)
    return loss, slope[:, None]


def layers(w, sizes):
    "Views of a flat array of weights: a matrix and a row of constants for each layer"
    found, at = [], 0
    for m, n in zip(sizes, sizes[1:]):
        found.append((w[at:at + m * n].reshape(m, n), w[at + m * n:at + m * n + n]))
        at += (m + 1) * n
    return found


def uniform(sizes, seed):
    "A start as PyTorch's Linear has it: uniform, up to one over the root of the inputs"
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(-1, 1, (m + 1) * n) / np.sqrt(m) for m, n in zip(sizes, sizes[1:])])


def network(w, sizes, bend, end, x, y):
    "Loss of a layered network, and its gradient by backpropagation"
    stack, outs, slope = layers(w, sizes), [x], None
    for matrix, constant in stack[:-1]:
        out, slope = bend(outs[-1] @ matrix + constant)
        outs.append(out)
    loss, delta = end(outs[-1] @ stack[-1][0] + stack[-1][1], y)
    parts = []
    for (matrix, _), out in zip(reversed(stack), reversed(outs)):
        parts[:0] = [(out.T @ delta).ravel(), delta.sum(axis=0)]
        if out is not x:
            delta = delta @ matrix.T * slope(out)
    return loss, np.concatenate(parts)


def net(sizes, bend, end, x, y, seed):
    return (lambda w: network(w, sizes, bend, end, x, y)), uniform(sizes, seed)


def spirals(seed):
    turn = np.arange(97) * np.pi / 16
    one = (6.5 * (104 - np.arange(97)) / 104)[:, None] * np.column_stack([np.sin(turn), np.cos(turn)])
    return net((2, 20, 20, 1), tanh, single, np.concatenate([one, -one]), np.repeat([1.0, -1.0], 97), seed)


def digits(sizes, bend, count, seed):
    x, y = datasets.load_digits(return_X_y=True)
    return net((64, *sizes, 10), bend, softmax, x[:count] / 16, y[:count], seed)


def sums(count=100, length=30):
    "The adding task (Hochreiter and Schmidhuber 1997): add the two marked numbers of a sequence"
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(size=(length, count)), np.zeros((length, count))], axis=2)
    for i in range(count):
        x[rng.choice(length, 2, replace=False), i, 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=0)


def recurrent(w, units, x, y):
    "Mean squared miss of a recurrent tanh network, and its gradient back through time"
    enter, stay, (leave, constant) = (layers(w, (2, units))[0],
                                      w[3 * units:][:units**2].reshape(units, units),
                                      layers(w[(3 + units) * units:], (units, 1))[0])
    outs, came = [np.zeros((x.shape[1], units))], x @ enter[0] + enter[1]
    for row in came:
        outs.append(np.tanh(row + outs[-1] @ stay))
    miss = (outs[-1] @ leave + constant)[:, 0] - y
    end = 2 * miss[:, None] / len(y)
    delta, deltas = end @ leave.T, np.empty_like(came)
    for t in reversed(range(len(x))):
        deltas[t] = delta * (1 - outs[t + 1] ** 2)
        delta = deltas[t] @ stay.T
    parts = (np.tensordot(x, deltas, ((0, 1), (0, 1))), deltas.sum(axis=(0, 1)),
             np.tensordot(np.stack(outs[:-1]), deltas, ((0, 1), (0, 1))), outs[-1].T @ end, end.sum())
    return miss @ miss / len(y), np.concatenate([np.ravel(part) for part in parts])


def adding(seed, units=12):
    x, y = sums()
    w = np.random.default_rng(seed).uniform(-1, 1, 3 * units + units**2 + units + 1) / np.sqrt(units)
    return (lambda w: recurrent(w, units, x, y)), w


# Others: a seed draws the start, and for the bowl its axes

def process(w, squares, y):
    """Negative log-likelihood of a Gaussian process a row, and its gradient:
    logarithms of one length a feature, of signal and noise"""
    lengths, signal, noise = np.exp(2 * w[:-2]), np.exp(2 * w[-2]), np.exp(2 * w[-1])
    smooth = signal * np.exp(-np.tensordot(1 / lengths, squares, 1) / 2)
    try:
        root = scipy.linalg.cholesky(smooth + (noise + 1e-8) * np.eye(len(y)), lower=True)
    except (ValueError, scipy.linalg.LinAlgError):
        return np.inf, np.full_like(w, np.nan)  # there is no such process
    inverse = scipy.linalg.cho_solve((root, True), np.eye(len(y)))
    a = inverse @ y
    loss = y @ a / 2 + np.log(np.diag(root)).sum() + len(y) / 2 * np.log(2 * np.pi)
    change = (inverse - np.outer(a, a)) / 2
    shares = np.tensordot(squares, change * smooth, 2) / lengths
    return (loss / len(y), np.array([*shares, 2 * (change * smooth).sum(), 2 * noise * np.trace(change)])
            / len(y))


def gauss(seed):
    x = datasets.load_breast_cancer().data[np.random.default_rng(0).permutation(569)[:100], :10]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y, x = x[:, 3], np.delete(x, [0, 3], axis=1)
    squares = ((x[:, None] - x) ** 2).transpose(2, 0, 1)
    return (lambda w: process(w, squares, y)), np.random.default_rng(seed).normal(size=10)


def rosenbrock(seed):
    w = np.tile([-1.2, 1.0], 5) + 0.1 * np.random.default_rng(seed).normal(size=10)
    return (lambda w: (scipy.optimize.rosen(w), scipy.optimize.rosen_der(w))), w


def bowl(seed):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    matrix = axes * np.logspace(0, 4, 10) @ axes.T
    return (lambda w: (w @ matrix @ w / 2, matrix @ w)), rng.normal(size=10)


TASKS = {
    'two spirals, 2-20-20-1 tanh': spirals,
    'logistic regression, raw cancer features': cancer,
    'least absolute deviations, raw diabetes features': diabetes,
    '0.9 quantile, raw wine features': wine,
    '600 digits, 64-32-10 ReLU': lambda seed: digits((32,), relu, 600, seed),
    '300 digits, nine tanh layers of 10': lambda seed: digits((10,) * 9, tanh, 300, seed),
    '300 digits, four sigmoid layers of 20': lambda seed: digits((20,) * 4, sigmoid, 300, seed),
    'adding task, recurrent net of 12': adding,
    'Gaussian process, 10 hyperparameters': gauss,
    'Rosenbrock, 10 weights': rosenbrock,
    'turned bowl, condition 10,000': bowl,
}
MOVES = {**{v: lambda w, _, v=v: rprop(w, v) for v in VARIANTS}, 'Adam': adam, 'momentum': momentum}


class Spent(Exception):
    "The gradients are used up"


def by_scipy(method, fun, w, budget):
    """The lowest loss so far after each gradient of a method of SciPy's, without tolerances;
    where it gives up, the last one stays"""
    lowest = []
    def counted(at):
        if len(lowest) == budget:
            raise Spent
        loss, g = fun(at)
        lowest.append(min([loss, *lowest[-1:]]) if np.isfinite(loss) else lowest[-1])
        return loss, g
    try:
        scipy.optimize.minimize(counted, w, jac=True, method=method, options=SCIPY[method])
    except Spent:
        pass
    return lowest + lowest[-1:] * (budget - len(lowest))


def lowest(task, method, setting, seed):
    "The lowest losses at the marks"
    fun, w = TASKS[task](seed)
    # a rate that is too large may overflow; what was reached before that counts
    with np.errstate(all='ignore'):
        path = (by_scipy(method, fun, w, MARKS[-1]) if method in SCIPY
                else spend(fun, w, MOVES[method](w, setting), MARKS[-1]))
    return [float(f'{path[mark - 1]:.4g}') for mark in MARKS]


def methods(task):
    "The columns for a task: methods and their settings"
    rates = DESCENT['raw' if TASKS[task] in (cancer, diabetes, wine, rosenbrock, bowl) else 'net']
    return [*((v, None) for v in VARIANTS), *(('Adam', r) for r in ADAM), *((m, None) for m in SCIPY),
            *(('momentum', r) for r in rates)]


def grown(row, seeds):
    """A row with the lowest losses of all seeds up to a number, for each mark:
    those that are in it already, and new ones"""
    old = row.get('losses', {str(mark): [] for mark in MARKS})
    new = [lowest(row['task'], row['method'], row['setting'], seed)
           for seed in range(len(old[str(MARKS[0])]), seeds)]
    return {**row, 'losses': {mark: [*found, *(losses[i] for losses in new)]
                              for i, (mark, found) in enumerate(old.items())}}


def main(anew):
    "Make what is not there yet, and write the file after each row"
    names = [{'task': task, 'method': method, 'setting': setting} for task in TASKS
             for method, setting in methods(task)]
    old = ((None if anew else read(FILE)) or {'rows': []})['rows']
    rows = {line(name): next((row for row in old if name.items() <= row.items()), name) for name in names}
    head = {'made': made('numpy', 'scipy', 'scikit-learn'),
            'settings': {'marks': list(MARKS), 'adam': list(ADAM),
                         'descent': {k: list(r) for k, r in DESCENT.items()}}}
    for stage in STAGES:
        for name, row in rows.items():
            rows[name] = grown(row, stage)
            if rows[name] != row:
                print(name, {mark: np.median(found) for mark, found in rows[name]['losses'].items()},
                      flush=True)
                write(FILE, {**head, 'rows': [row for row in rows.values() if 'losses' in row]})


if __name__ == '__main__':
    main('anew' in sys.argv[1:])
