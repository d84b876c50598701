"""provisional: the real one is written in nbs/50_solver.ipynb"""
__all__ = ['Point', 'Trace', 'rprop', 'minimize', 'scipy_method']
import copy
import inspect
import math
import operator
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from rprop_lit.rule import State, init, namespace
from rprop_lit.variants import knobs, retreat, update


# ---- beside the rule: what bounds need

def project(x, box):
    "The nearest point inside the box"
    return namespace(x).clip(x, *box)


def inside(g, x, box):
    "The projected gradient: 0 where a step against `g` would leave the box"
    out = (x <= box[0]) & (g > 0) | (x >= box[1]) & (g < 0)
    return namespace(x).where(out, 0 * g, g)


def restore(new, old, back):
    "The new point, with the old coordinates, exactly, where the last move was taken back"
    return namespace(new).where(back, old, new)


def shorten(state, wish, new, x):
    "The state, with steps as long as the moves that the box cut short"
    cut = abs(new - x).astype(state.step.dtype)
    return state._replace(step=namespace(x).where(new == wish, state.step, cut))


def move(x, dw, state, old, box):
    "The next point, the state that belongs to it, and whether anything was taken back"
    wish, back = (x + dw).astype(x.dtype), (state.sign == 0) & (dw != 0)
    if box is None:
        return wish, state, bool(back.any())
    wish = restore(wish, old, back)
    new = project(wish, box)
    return new, shorten(state, wish, new, x), bool(back.any())


# ---- structure

def nested(tree):
    "Is there an array in this list or tuple, at any depth?"
    return isinstance(tree, (list, tuple)) and any(nested(part) or getattr(part, 'shape', ()) for part in tree)


def as_tree(x0):
    "The start as floating-point arrays, in the user's structure"
    if nested(x0):
        return getattr(x0, '_make', type(x0))([as_tree(part) for part in x0])
    x = x0 if hasattr(x0, 'dtype') else np.asarray(x0)
    return x if x.dtype.kind in 'fc' else x.astype(float)


def count(tree):
    "How many numbers are in it?"
    return sum(map(count, tree)) if isinstance(tree, (list, tuple)) else tree.size


def flat(values, tree, fit):
    "One vector of the values, which are laid out like tree"
    if not isinstance(tree, (list, tuple)):
        return fit(values, tree).reshape(-1)
    if not isinstance(values, (list, tuple)) or len(values) != len(tree):
        raise ValueError(f'expected {len(tree)} arrays, as in x0, not {type(values).__name__}')
    parts = [flat(v, part, fit) for v, part in zip(values, tree)]
    if len({part.dtype for part in parts}) > 1:
        raise TypeError(f'x0 mixes types ({", ".join(str(part.dtype) for part in parts)}): give its arrays one')
    return namespace(parts[0]).concatenate(parts)


def build(x, tree):
    "Copies of the parts of a vector, laid out like tree"
    if not isinstance(tree, (list, tuple)):
        return x.reshape(tree.shape).copy()
    ends = accumulate(map(count, tree))
    return getattr(tree, '_make', type(tree))([build(x[end - count(part):end], part) for end, part in zip(ends, tree)])


def exact(value, leaf):
    "A copy of the value, which must have the leaf's shape"
    value = namespace(leaf).array(value)
    if value.shape != leaf.shape:
        raise ValueError(f'the gradient has shape {value.shape} where x0 has {leaf.shape}')
    return value


def spread(value, x, tree):
    "A number as it is; arrays as one vector like x, in the type of steps"
    xp, wide = namespace(x), init(x, 0.0).step.dtype
    top = float(xp.finfo(wide).max)
    if isinstance(value, (list, tuple)) or getattr(value, 'shape', ()):
        return xp.minimum(flat(value, tree, lambda v, leaf: xp.broadcast_to(xp.asarray(v, dtype=wide), leaf.shape)), top)
    return min(float(value), top)


# ---- the walk

class Seen(NamedTuple):
    "A point whose error and gradient are at hand"
    x: Any
    fun: float
    g: Any


class Point(NamedTuple):
    "One point of a run; its arrays are copies."
    x: Any
    fun: float
    jac: Any
    step: Any
    nit: int
    nfev: int
    optimality: float
    reach: float
    undone: bool


def oracle(fun, jac, args, tree):
    "A function from a vector to what is seen there"
    if jac is not True and not callable(jac):
        raise ValueError(f'jac={jac!r}: Rprop needs gradients. Let fun return (error, gradient) and pass jac=True, or pass a function as jac; '
                         'the gradient may be written by hand or come from torch or JAX')

    def look(x):
        out = fun(build(x, tree), *args)
        if jac is True and not (isinstance(out, (tuple, list)) and len(out) == 2):
            raise TypeError(f'with jac=True, fun returns (error, gradient), not {type(out).__name__}')
        f, g = out if jac is True else (out, jac(build(x, tree), *args))
        return Seen(x, float(f.item() if hasattr(f, 'item') else f), flat(g, tree, exact))
    return look


def same(a, b):
    "Are they the same numbers, bit for bit?"
    return bool((a.view('u1') == b.view('u1')).all())


def finite(seen):
    "Are the error and all of the gradient finite?"
    return math.isfinite(seen.fun) and bool(namespace(seen.g).isfinite(seen.g).all())


def failed(here, last, safe):
    "Must the last move be taken back as a whole?"
    return not finite(here) or safe and here.fun > last.fun + 1e-4 * float((last.g * (here.x - last.x)).sum())


def box_of(bounds, x, tree):
    "Lowest and highest point, in the type of x and rounded inwards; None without any bound"
    if bounds is None:
        return None
    xp, inf = namespace(x), math.inf
    if hasattr(bounds, 'lb'):
        low, high = (flat(b, tree, lambda v, leaf: np.broadcast_to(np.asarray(v, dtype=float), leaf.shape)) for b in (bounds.lb, bounds.ub))
    else:
        pairs = [(-inf if low is None else low, inf if high is None else high) for low, high in bounds]
        if len(pairs) != x.size:
            raise ValueError(f'{len(pairs)} pairs of bounds for {x.size} coordinates')
        low, high = np.array(pairs, dtype=float).T
    if not (low <= high).all():
        i = int((low <= high).argmin())
        raise ValueError(f'bounds of coordinate {i} cross: {low[i]} > {high[i]}')
    if np.isinf(low).all() and np.isinf(high).all():
        return None
    a, b = xp.asarray(low).astype(x.dtype), xp.asarray(high).astype(x.dtype)
    a = xp.where(a < xp.asarray(low), xp.nextafter(a, xp.full_like(a, inf)), a)
    b = xp.where(b > xp.asarray(high), xp.nextafter(b, xp.full_like(a, -inf)), b)
    return a, xp.maximum(a, b)


AUTO = (0.1, 0.1)


def first_step(x):
    "A tenth of each coordinate"
    return namespace(x).maximum(AUTO[0] * abs(x), AUTO[1])


def demand(ok, name, value, rule):
    if not np.all(ok):
        raise ValueError(f'{name}={value!r}: need {rule}')


def rprop(fun, x0, args=(), *, jac=True, variant='irprop+', bounds=None, lr='auto', etas=(0.5, 1.2), step_sizes=(0.0, 50.0), safe=False):
    knobs(variant)
    tree = as_tree(x0)
    x = flat(tree, tree, exact)
    if not x.size:
        raise ValueError('x0 is empty: there is nothing to minimise')
    box = box_of(bounds, x, tree)
    x = x if box is None else project(x, box)
    step = first_step(x) if isinstance(lr, str) and lr == 'auto' else spread(lr, x, tree)
    (down, up), (low, high) = ([spread(v, x, tree) for v in pair] for pair in (etas, step_sizes))
    demand((0 < step) & (step < 1e38), 'lr', lr, '0 < lr < 1e38')
    demand((0 < down) & (down < 1) & (1 < up) & (up < 1e38), 'etas', etas, '0 < etas[0] < 1 < etas[1]')
    demand((0 <= low) & (low <= high), 'step_sizes', step_sizes, '0 <= step_sizes[0] <= step_sizes[1]')
    state = init(x, step)
    options = dict(etas=(down, up), step_sizes=(low, high))
    return walk(oracle(fun, jac, args, tree), x, tree, state, box, variant, options, safe)


def walk(look, x, tree, state, box, variant, options, safe):
    here = last = look(x)
    if not finite(here):
        raise ValueError(f'the error at x0 is {here.fun} and its gradient is not finite')
    nit, nfev, undone = 0, 1, False
    while True:
        g = here.g if box is None else inside(here.g, here.x, box)
        yield Point(build(here.x, tree), here.fun, build(here.g, tree), build(state.step, tree), nit, nfev,
                    float(abs(g).max()), float((state.step * (g != 0)).max()), undone)
        nit += 1
        if failed(here, last, safe):
            here, undone, (_, state) = last, True, retreat(state, **options)
            continue
        dw, state = update(g, state, variant=variant, loss=here.fun, **options)
        x, state, undone = move(here.x, dw, state, last.x, box)
        known = next((seen for seen in (here, last) if same(x, seen.x)), None)
        nfev += known is None
        last, here = here, known or look(x)


# ---- minimize

STOPS = dict(gtol=1e-5, xtol=0.0, ftol=1e-9, window=100, maxiter=10_000, maxfev=math.inf, max_time=math.inf, target=-math.inf)
RULE = ('lr', 'etas', 'step_sizes', 'safe')
WORDS = {'gtol': 'largest gradient', 'maxiter': 'steps', 'xtol': 'largest step', 'ftol': 'fall of the best error',
         'maxfev': 'evaluations', 'max_time': 'seconds', 'target': 'error'}


def reached(p, best, past, calm, seconds, o):
    "The first stopping rule that holds: its name, the value and the limit"
    fall = past[0] - best.fun if len(past) > o['window'] else math.inf
    rows = (('gtol', p.optimality, operator.le, o['gtol']), ('target', best.fun, operator.le, o['target']),
            ('xtol', p.reach if calm else math.inf, operator.le, o['xtol']), ('ftol', fall, operator.lt, o['ftol'] * abs(best.fun)),
            ('maxiter', p.nit, operator.ge, o['maxiter']), ('maxfev', p.nfev, operator.ge, o['maxfev']),
            ('max_time', seconds, operator.ge, o['max_time']))
    return next(((name, value, limit) for name, value, holds, limit in rows if holds(value, limit)), None)


class Result(dict):
    "A dictionary whose entries are attributes too, as SciPy's OptimizeResult"
    __getattr__ = dict.__getitem__


def result(**fields):
    try:
        from scipy.optimize import OptimizeResult
    except ImportError:
        OptimizeResult = Result
    return OptimizeResult(**fields)


class Trace:
    def __init__(self):
        self.points, self.errors, self.steps, self.undone = [], [], [], []

    def __call__(self, intermediate_result):
        p = intermediate_result
        if p.undone:
            self.undone.append(len(self.points) - 1)
        self.points.append(p.x)
        self.errors.append(p.fun)
        self.steps.append(p.step)


def teller(callback):
    "The callback, in either of SciPy's two signatures, as a function of a point"
    if set(inspect.signature(callback).parameters) == {'intermediate_result'}:
        return lambda p: callback(intermediate_result=result(**copy.deepcopy(p._asdict())))
    return lambda p: callback(copy.deepcopy(p.x))


def meter(o):
    from tqdm.auto import tqdm
    return tqdm(total=min(o['maxiter'], o['maxfev']), unit=' steps')


def minimize(fun, x0, args=(), *, jac=True, variant='irprop+', bounds=None, tol=None, callback=None, progress=False, options=None):
    o = STOPS | ({} if tol is None else {'gtol': tol}) | dict(options or {})
    unknown = set(o) - set(STOPS) - set(RULE) - {'trace'}
    if unknown:
        raise TypeError(f'unknown options {sorted(unknown)}')
    args = args if isinstance(args, tuple) else (args,)
    points = rprop(fun, x0, args, jac=jac, variant=variant, bounds=bounds, **{k: o[k] for k in RULE if k in o})
    trace = callback if isinstance(callback, Trace) else Trace() if o.get('trace') else None
    tells = ([trace] if trace else []) + ([teller(callback)] if callback and callback is not trace else [])
    best, stop = None, None
    start, past = time.monotonic(), deque(maxlen=o['window'] + 1)
    bar = meter(o) if progress else None
    try:
        for p in points:
            best = p if best is None or p.fun <= best.fun else best
            past.append(best.fun)
            first = p.optimality if p.nit == 0 else first
            calm = p.optimality <= 1e-3 * first
            if trace: trace(p)
            if p.nit and callback and callback is not trace:
                tells[-1](p)
            if bar:
                bar.update(1)
            stop = reached(p, best, past, calm, time.monotonic() - start, o)
            if stop:
                break
    except KeyboardInterrupt:
        if best is None: raise
        status, success, message = 98, False, 'interrupted'
    except StopIteration:
        status, success, message = 99, False, '`callback` raised `StopIteration`'
    finally:
        if bar: bar.close()
    if stop:
        name, value, limit = stop
        success = name in ('gtol', 'xtol', 'target') or name == 'ftol' and calm
        status = list(WORDS).index(name)
        message = f'{name}: {WORDS[name]} {value:.6g} reached {limit:.6g}'
    r = result(x=best.x, fun=best.fun, jac=best.jac, nit=p.nit, nfev=p.nfev, njev=p.nfev, success=success, status=status, message=message)
    if trace: r['trace'] = trace
    return r


def scipy_method(fun, x0, args=(), *, jac=None, hess=None, hessp=None, bounds=None, constraints=(), callback=None, tol=None, variant='irprop+', disp=False, **options):
    for name, given in (('hess', hess), ('hessp', hessp), ('constraints', constraints)):
        if given is not None and np.any(given):
            warnings.warn(f'Rprop does not use {name}', RuntimeWarning, stacklevel=3)
    return minimize(fun, x0, args, jac=jac, bounds=bounds, variant=variant, tol=tol, callback=callback, progress=disp, options=options)
