"""Classic test functions, typed from their publications, and the benchmark that chapter 50 draws.

    python tests/classics.py    # about two minutes; writes tests/classics.json (needs torch and SciPy)

MGH: J. J. More, B. S. Garbow and K. E. Hillstrom, Testing unconstrained optimization software, ACM
Transactions on Mathematical Software 7 (1981) 17-41: all 35 functions, each from the start published there,
numbered as there; the minima are the published ones, with the digits beyond the sixth computed here.
NIST: nonlinear regressions of the Statistical Reference Datasets, each from both published starts; data in
nist.json.

A problem is a list of residuals whose squares are summed. Residuals take `x` with one row a coordinate, and
any number of columns, so that one call at complex points x + ih gives all derivatives (the complex step:
exact but for rounding).
"""
import json
import platform
import sys
from datetime import date
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from rprop_lit.problems import ZOO, Problem  # noqa: E402

TINY = 1e-30  # the complex step: its square is lost beside 1


def least_squares(name, residuals, start, best):
    "The sum of squared residuals as a Problem, with its gradient by the complex step"
    def fun(w):
        x = w[:, None] + 1j * TINY * np.eye(w.size)
        with np.errstate(all='ignore'):
            r = np.stack([v + 0 * x[0] for v in residuals(x)])
            return (r[:, 0].real**2).sum(), 2 * r[:, 0].real @ (r.imag / TINY)
    return Problem(name, fun, np.array(start, dtype=float), best)


def rows(*values):
    "Numbers in a column, one row for each residual"
    return np.array(values, dtype=float)[:, None]


MGH = []


def mgh(start, best):
    "Add the decorated residuals to the list of problems"
    def keep(residuals):
        title = residuals.__doc__.partition(' (')[0]
        MGH.append(least_squares(f'{len(MGH) + 1} {title}', residuals, start, best))
        return residuals
    return keep


@mgh([-1.2, 1], 0)
def rosenbrock(x):
    "Rosenbrock"
    return 10 * (x[1] - x[0]**2), 1 - x[0]


@mgh([0.5, -2], 0)
def freudenstein_roth(x):
    "Freudenstein and Roth (another local minimum: 48.9842...)"
    a, b = x
    return -13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b


@mgh([0, 1], 0)
def powell_badly_scaled(x):
    "Powell badly scaled"
    return 1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001


@mgh([1, 1], 0)
def brown_badly_scaled(x):
    "Brown badly scaled"
    return x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2


@mgh([1, 1], 0)
def beale(x):
    "Beale"
    return [y - x[0] * (1 - x[1]**i) for i, y in ((1, 1.5), (2, 2.25), (3, 2.625))]


@mgh([0.3, 0.4], 124.362182355615)
def jennrich_sampson(x):
    "Jennrich and Sampson"
    return [2 + 2 * i - (np.exp(i * x[0]) + np.exp(i * x[1])) for i in range(1, 11)]


@mgh([-1, 0, 0], 0)
def helical_valley(x):
    "Helical valley"
    angle = np.arctan(x[1] / x[0]) / (2 * np.pi) + np.where(x[0].real < 0, 0.5, 0)
    return 10 * (x[2] - 10 * angle), 10 * (np.sqrt(x[0]**2 + x[1]**2) - 1), x[2]


@mgh([1, 1, 1], 8.21487730657897e-3)
def bard(x):
    "Bard"
    y = rows(.14, .18, .22, .25, .29, .32, .35, .39, .37, .58, .73, .96, 1.34, 2.10, 4.39)
    u = rows(*range(1, 16))
    v, w = 16 - u, np.minimum(u, 16 - u)
    return y - (x[0] + u / (v * x[1] + w * x[2]))


@mgh([0.4, 1, 0], 1.12793276961912e-8)
def gaussian(x):
    "Gaussian"
    y = [.0009, .0044, .0175, .0540, .1295, .2420, .3521, .3989]
    t = (8 - rows(*range(1, 16))) / 2
    return x[0] * np.exp(-x[1] * (t - x[2])**2 / 2) - rows(*y, *y[-2::-1])


@mgh([0.02, 4000, 250], 87.9458551700411)
def meyer(x):
    "Meyer"
    y = rows(34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427,
             3820, 3307, 2872)
    return x[0] * np.exp(x[1] / (45 + 5 * rows(*range(1, 17)) + x[2])) - y


@mgh([5, 2.5, 0.15], 0)
def gulf(x):
    "Gulf research and development (99 residuals)"
    t = rows(*range(1, 100)) / 100
    far = 25 + (-50 * np.log(t))**(2 / 3) - x[1]
    far = np.where(far.real < 0, -far, far)  # the absolute value, with its derivative
    return np.exp(-far**x[2] / x[0]) - t


@mgh([0, 10, 20], 0)
def box(x):
    "Box three-dimensional (10 residuals)"
    t = rows(*range(1, 11)) / 10
    return np.exp(-t * x[0]) - np.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


@mgh([3, -1, 0, 1], 0)
def powell_singular(x):
    "Powell singular"
    return x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3]), (x[1] - 2 * x[2])**2, 10**0.5 * (x[0] - x[3])**2


@mgh([-3, -1, -3, -1], 0)
def wood(x):
    "Wood"
    a, b, c, d = x
    return (10 * (b - a**2), 1 - a, 90**0.5 * (d - c**2), 1 - c, 10**0.5 * (b + d - 2), (b - d) / 10**0.5)


@mgh([0.25, 0.39, 0.415, 0.39], 3.07505603849238e-4)
def kowalik_osborne(x):
    "Kowalik and Osborne"
    y = rows(.1957, .1947, .1735, .1600, .0844, .0627, .0456, .0342, .0323, .0235, .0246)
    u = rows(4, 2, 1, .5, .25, .167, .125, .1, .0833, .0714, .0625)
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


@mgh([25, 5, -5, -1], 85822.2016263563)
def brown_dennis(x):
    "Brown and Dennis (20 residuals)"
    t = rows(*range(1, 21)) / 5
    return (x[0] + t * x[1] - np.exp(t))**2 + (x[2] + x[3] * np.sin(t) - np.cos(t))**2


@mgh([0.5, 1.5, -1, 0.01, 0.02], 5.46489469748255e-5)
def osborne_1(x):
    "Osborne 1"
    y = rows(.844, .908, .932, .936, .925, .908, .881, .850, .818, .784, .751, .718, .685, .658, .628, .603,
             .580, .558, .538, .522, .506, .490, .478, .467, .457, .448, .438, .431, .424, .420,
             .414, .411, .406)
    t = 10 * rows(*range(33))
    return y - (x[0] + x[1] * np.exp(-t * x[3]) + x[2] * np.exp(-t * x[4]))


@mgh([1, 2, 1, 1, 1, 1], 0)
def biggs_exp6(x):
    "Biggs EXP6 (13 residuals; another local minimum: 5.65565e-3)"
    t = rows(*range(1, 14)) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * np.exp(-t * x[0]) - x[3] * np.exp(-t * x[1]) + x[5] * np.exp(-t * x[4]) - y


@mgh([1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], 4.01377362935477e-2)
def osborne_2(x):
    "Osborne 2"
    y = rows(1.366, 1.191, 1.112, 1.013, .991, .885, .831, .847, .786, .725, .746, .679, .608, .655, .616,
             .606, .602, .626, .651, .724, .649, .649, .694, .644, .624, .661, .612, .558, .533, .495, .500,
             .423, .395, .375, .372, .391, .396, .405, .428, .429, .523, .562, .607, .653, .672, .708, .633,
             .668, .645, .632, .591, .559, .597, .625, .739, .710, .729, .720, .636, .581, .428, .292,
             .162, .098, .054)
    t = rows(*range(65)) / 10
    return y - (x[0] * np.exp(-t * x[4]) + x[1] * np.exp(-x[5] * (t - x[8])**2)
                + x[2] * np.exp(-x[6] * (t - x[9])**2)
                + x[3] * np.exp(-x[7] * (t - x[10])**2))


@mgh([0] * 6, 2.28767005355236e-3)
def watson(x):
    "Watson (6 coordinates)"
    t = rows(*range(1, 30)) / 29
    slope = sum(j * x[j] * t**(j - 1) for j in range(1, 6))
    return *(slope - sum(x[j] * t**j for j in range(6))**2 - 1), x[0], x[1] - x[0]**2 - 1


@mgh([-1.2, 1] * 5, 0)
def extended_rosenbrock(x):
    "Extended Rosenbrock (10 coordinates)"
    return *(10 * (x[1::2] - x[::2]**2)), *(1 - x[::2])


@mgh([3, -1, 0, 1] * 3, 0)
def extended_powell(x):
    "Extended Powell singular (12 coordinates)"
    return [r for i in range(0, 12, 4) for r in powell_singular(x[i:i + 4])]


@mgh([1, 2, 3, 4], 2.24997750089865e-5)
def penalty_1(x):
    "Penalty I (4 coordinates)"
    return *(1e-5**0.5 * (x - 1)), (x**2).sum(0) - 0.25


@mgh([0.5] * 4, 9.37629300735545e-6)
def penalty_2(x):
    "Penalty II (4 coordinates)"
    a, i = 1e-5**0.5, rows(2, 3, 4)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    return (x[0] - 0.2, *(a * (np.exp(x[1:] / 10) + np.exp(x[:-1] / 10) - y)),
            *(a * (np.exp(x[1:] / 10) - np.exp(-0.1))),
            (rows(4, 3, 2, 1) * x**2).sum(0) - 1)


@mgh(1 - np.arange(1, 11) / 10, 0)
def variably_dimensioned(x):
    "Variably dimensioned (10 coordinates)"
    total = (rows(*range(1, 11)) * (x - 1)).sum(0)
    return *(x - 1), total, total**2


@mgh([0.1] * 10, 0)
def trigonometric(x):
    "Trigonometric (10 coordinates; another local minimum: 2.79506e-5)"
    return 10 - np.cos(x).sum(0) + rows(*range(1, 11)) * (1 - np.cos(x)) - np.sin(x)


@mgh([0.5] * 10, 0)
def brown_almost_linear(x):
    "Brown almost-linear (10 coordinates; another local minimum: 1)"
    return *(x[:-1] + x.sum(0) - 11), x.prod(0) - 1


def ends(x):
    "The unknowns between two zeros"
    return np.concatenate([0 * x[:1], x, 0 * x[:1]])


GRID = np.arange(1, 11) / 11


@mgh(GRID * (GRID - 1), 0)
def discrete_boundary_value(x):
    "Discrete boundary value (10 coordinates)"
    t, z = rows(*GRID), ends(x)
    return 2 * x - z[:-2] - z[2:] + (x + t + 1)**3 / 242


@mgh(GRID * (GRID - 1), 0)
def discrete_integral(x):
    "Discrete integral equation (10 coordinates)"
    t = rows(*GRID)
    cube = (x + t + 1)**3
    return [x[i] + ((1 - t[i]) * (t[:i + 1] * cube[:i + 1]).sum(0)
                    + t[i] * ((1 - t[i + 1:]) * cube[i + 1:]).sum(0)) / 22 for i in range(10)]


@mgh([-1] * 10, 0)
def broyden_tridiagonal(x):
    "Broyden tridiagonal (10 coordinates)"
    z = ends(x)
    return (3 - 2 * x) * x - z[:-2] - 2 * z[2:] + 1


@mgh([-1] * 10, 0)
def broyden_banded(x):
    "Broyden banded (10 coordinates)"
    near = [[j for j in range(max(0, i - 5), min(10, i + 2)) if j != i] for i in range(10)]
    return [x[i] * (2 + 5 * x[i]**2) + 1 - sum(x[j] * (1 + x[j]) for j in near[i]) for i in range(10)]


@mgh([1] * 10, 10)
def linear_full(x):
    "Linear, full rank (10 coordinates, 20 residuals)"
    mean = x.sum(0) / 10
    return *(x - mean - 1), *[-mean - 1] * 10


@mgh([1] * 10, 20 * 19 / 82)
def linear_rank_1(x):
    "Linear, rank 1 (10 coordinates, 20 residuals)"
    return rows(*range(1, 21)) * (rows(*range(1, 11)) * x).sum(0) - 1


@mgh([1] * 10, 454 / 74)
def linear_rank_1_zeros(x):
    "Linear, rank 1 with zero columns and rows (10 coordinates, 20 residuals)"
    inner = (rows(*range(2, 10)) * x[1:9]).sum(0)
    return -1 + 0 * inner, *(rows(*range(1, 19)) * inner - 1), -1 + 0 * inner


@mgh(np.arange(1, 9) / 9, 3.51687372567e-3)
def chebyquad(x):
    "Chebyquad (8 coordinates)"
    before, now, out = 1 + 0 * x, 2 * x - 1, []
    for i in range(1, 9):
        out.append(now.mean(0) - (0 if i % 2 else -1 / (i * i - 1)))
        before, now = now, 2 * (2 * x - 1) * now - before
    return out


def nist(name, row, start):
    "One nonlinear regression of NIST's, from one of its starts; the formula is NIST's own text"
    code, x, y = compile(row['model'], name, 'eval'), rows(*row['x']), rows(*row['y'])
    return least_squares(f'{name}, start {start + 1}', lambda b: misfit(code, x, y, b), row['starts'][start],
                         row['rss'])


def misfit(code, x, y, b):
    "The residuals of a formula in x and b1, b2, ..."
    return y - eval(code, {'x': x, 'exp': np.exp, 'arctan': np.arctan, 'pi': np.pi,
                           **{f'b{i + 1}': v for i, v in enumerate(b)}})


ROWS = json.loads((HERE / 'nist.json').read_text())['problems']
NIST = [nist(name, row, start) for name, row in ROWS.items() for start in (0, 1)]
SETS = {'zoo': list(ZOO.values()), 'MGH': MGH, 'NIST': NIST}


BUDGET, TARGET = 2000, 1e-6
VARIANTS = ('irprop+', 'irprop-', 'rprop+', 'rprop-')


class Solved(Exception):
    "Raised from inside a function as soon as its error is low enough"


class Spent(Exception):
    "Raised from inside a function that was called too often"


class Counted:
    "A problem's function that counts its calls, and ends the run at success or when the budget is spent"
    def __init__(self, problem, budget=BUDGET):
        self.problem, self.budget, self.calls = problem, budget, 0
        self.goal = problem.best + TARGET * (problem.fun(problem.start)[0] - problem.best)

    def __call__(self, w):
        if self.calls == self.budget:
            raise Spent
        self.calls += 1
        error, g = self.problem.fun(w)
        if error <= self.goal:
            raise Solved
        return error, g


def ours(variant, **options):
    "A run of minimize that only success or the budget ends"
    def run(fun, start):
        from rprop_lit.solver import minimize
        minimize(fun, start, variant=variant, options=dict(gtol=0, ftol=0, maxiter=10 * BUDGET, **options))
    return run


def with_torch(**options):
    "A run of torch.optim.Rprop in float64"
    def run(fun, start):
        import torch
        w = torch.tensor(start, requires_grad=True)
        optimizer = torch.optim.Rprop([w], **options)
        while True:
            w.grad = torch.from_numpy(np.asarray(fun(w.detach().numpy().copy())[1]))
            optimizer.step()
    return run


def lbfgsb(fun, start):
    "A run of SciPy's L-BFGS-B without its own stopping rules"
    from scipy.optimize import minimize
    minimize(fun, start, jac=True, method='L-BFGS-B',
             options=dict(ftol=0, gtol=0, maxiter=BUDGET, maxfun=BUDGET))


SOLVERS = {**{v: ours(v) for v in VARIANTS}, 'safe': ours('irprop+', safe=True), 'torch': with_torch(),
           'torch, lr=0.1': with_torch(lr=0.1), 'L-BFGS-B': lbfgsb}


def evaluations(problem, run, budget=BUDGET):
    "How many evaluations a run needs, or None"
    fun = Counted(problem, budget)
    try:
        with np.errstate(all='ignore'):
            run(fun, problem.start.copy())
    except Solved:
        return fun.calls
    except Spent:
        pass


def versions(*modules):
    "What this was measured with"
    from importlib import metadata
    return {'date': date.today().isoformat(), 'python': platform.python_version(),
            **{m: metadata.version(m) for m in modules}}


def measure():
    "All problems by all solvers"
    rows = []
    for group, problems in SETS.items():
        for p in problems:
            rows.append(dict(set=group, name=p.name, n=p.start.size,
                             evaluations={k: evaluations(p, run) for k, run in SOLVERS.items()}))
            print(group, p.name, *rows[-1]['evaluations'].values(), flush=True)
    return dict(made=versions('numpy', 'scipy', 'torch'), budget=BUDGET, target=TARGET, solvers=list(SOLVERS),
                problems=rows)


def write(path, result):
    "One line a problem"
    head = {k: v for k, v in result.items() if k != 'problems'}
    lines = ',\n'.join('  ' + json.dumps(row) for row in result['problems'])
    path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "problems": [\n' + lines + '\n ]\n}\n')


if __name__ == '__main__':
    write(HERE / 'classics.json', measure())
