"""Which first step? Small unconstrained CUTEst problems, solved by iRprop+ from several first steps.

    python -m pip install sif2jax && python tests/cutest.py    # about ten minutes; writes tests/cutest.json

CUTEst: N. I. M. Gould, D. Orban and P. L. Toint, Computational Optimization and Applications 60 (2015); here
as sif2jax states it in JAX: all unconstrained problems with at most 60 coordinates, each from its own start.
Solved means: the error has come down from the start by all but a millionth of the way to the best error that
any run found, L-BFGS-B and BFGS with 20,000 iterations among them.
"""
import math
import os
import sys
from pathlib import Path

os.environ['JAX_ENABLE_X64'] = '1'
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
from classics import BUDGET, TARGET, versions, write  # noqa: E402

from rprop_lit.inside.walk import rprop  # noqa: E402

LARGEST = 60
CAPS = {'': math.inf, ', steps to 50': 50.0}
FIRST = {'0.1': lambda x: 0.1, '0.01': lambda x: 0.01,
         '|x0|/100, at least 0.01': lambda x: 0.01 * np.maximum(abs(x), 1),
         '|x0|/10, at least 0.1': lambda x: 0.1 * np.maximum(abs(x), 1),
         '|x0|/10, at least 0.01': lambda x: np.maximum(0.1 * abs(x), 0.01)}


def lowest(fun, start, lr, cap):
    "The lowest error so far, after each evaluation"
    errors = [math.inf]
    for p in rprop(fun, start, lr=lr, step_sizes=(0.0, cap)):
        if p.nfev == len(errors):
            errors.append(min(errors[-1], p.fun if math.isfinite(p.fun) else math.inf))
        if p.nfev == BUDGET or p.nit == 10 * BUDGET or p.optimality == 0:
            return errors[1:]


def problem_of(case):
    "A function with gradient, and the start, as vectors"
    import jax
    both = jax.jit(jax.value_and_grad(lambda y: case.objective(y, case.args)))

    def fun(x):
        error, g = both(jax.numpy.asarray(x.reshape(np.shape(case.y0))))
        return float(error), np.asarray(g, dtype=float).ravel()
    return fun, np.array(case.y0, dtype=float).ravel()


def measure(case):
    "Evaluations that each first step needs, or None"
    from scipy.optimize import minimize
    fun, start = problem_of(case)
    runs = {name + note: lowest(fun, start, first(start), cap) for name, first in FIRST.items()
            for note, cap in CAPS.items()}
    others = [minimize(fun, start, jac=True, method=m, options=dict(maxiter=20_000, gtol=1e-12)).fun
              for m in ('L-BFGS-B', 'BFGS')]
    best = min(e for e in [*others, *(run[-1] for run in runs.values())] if math.isfinite(e))
    goal = best + TARGET * (fun(start)[0] - best)
    return {name: next((i + 1 for i, e in enumerate(run) if e <= goal), None) for name, run in runs.items()}


def main():
    import sif2jax
    cases = {case.name: case for case in sif2jax.cutest.unconstrained_minimisation_problems
             if np.size(case.y0) <= LARGEST}
    rows, failed = [], {}
    for name, case in sorted(cases.items()):
        try:
            with np.errstate(all='ignore'):
                rows.append(dict(name=name, n=int(np.size(case.y0)), evaluations=measure(case)))
        except Exception as e:  # a problem that sif2jax itself cannot evaluate is named, not counted
            failed[name] = f'{type(e).__name__}: {e}'[:80]
        print(name, rows[-1] if name not in failed else failed[name], flush=True)
    write(HERE / 'cutest.json', dict(made=versions('numpy', 'scipy', 'jax', 'sif2jax'), budget=BUDGET,
                                     target=TARGET, largest=LARGEST,
                                     solvers=list(rows[0]['evaluations']), failed=failed, problems=rows))


if __name__ == '__main__':
    main()
