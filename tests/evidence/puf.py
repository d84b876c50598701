"""Break XOR arbiter PUFs by several optimizers, and write who needed how many gradients into puf.json.

    python tests/evidence/puf.py          # goes on where puf.json ends; takes about two hours of one core
    python tests/evidence/puf.py anew     # from the beginning

The simulation, the loss and its gradient are the functions that chapter 80 shows. Every attack has a device,
challenges and a start of its own, drawn from its number; all methods get the same ones.
"""
import sys
from pathlib import Path

import numpy as np
import scipy.optimize

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
from common import HERE, definitions, line, made, read, write  # noqa: E402
from moves import adam, fixed, momentum, rprop  # noqa: E402

from rprop_lit import VARIANTS  # noqa: E402

PAGE = definitions('80_puf')
draw, loss_and_gradient, right = (PAGE[name] for name in ('draw', 'loss_and_gradient', 'right'))
FILE = HERE / 'puf.json'

CHALLENGES = {2: 3000, 3: 6000, 4: 12_000, 5: 30_000}
BUDGET, LOOK, ENOUGH = 2400, 20, 0.95
# attacks; the long rows grow together, so that the file is fair whenever it ends
STAGES = {2: (30,), 3: (30,), 4: (5, 10, 20, 30), 5: (5, 10, 20, 30)}
RIVALS = ([('Adam', rate) for rate in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)] + [('L-BFGS-B', None)]
          + [('momentum', rate) for rate in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)])
PARTS = ([('Adam, beta2 = 0.9', rate) for rate in (0.01, 0.03, 0.1, 0.3, 1.0)]
         + [('fixed steps', rate) for rate in (0.003, 0.01, 0.03, 0.1)])
RPROPS = [(variant, None) for variant in VARIANTS]
SOME = [('irprop-', None), ('irprop+', None), ('Adam', 0.03), ('Adam', 0.1), ('Adam', 0.3), ('momentum', 0.1),
        ('momentum', 0.3), ('L-BFGS-B', None)]
SCALED = [*RPROPS, ('Adam', 0.3), ('Adam', 1.0), ('momentum', 0.3), ('L-BFGS-B', None)]
COUNTS = {2: (250, 500, 1000, 2000, 4000, 8000, 16_000), 3: (1000, 2000, 4000, 8000, 16_000, 32_000),
          4: (4000, 8000, 12_000, 16_000, 32_000)}
DEVICES, RESTARTS, LEARN = 5, 5, {2: 400, 3: 400, 4: 1200}
MOVES = {**{v: lambda w, _, v=v: rprop(w, v) for v in VARIANTS}, 'Adam': adam, 'momentum': momentum,
         'fixed steps': fixed,
         'Adam, beta2 = 0.9': lambda w, rate: adam(w, rate, beta=0.9)}


def attack(method, setting, w, known, fresh, budget, scale=1.0):
    """Gradients until 95 % of the fresh answers are right, None if they do not suffice;
    and the gradients that were used"""
    if method == 'L-BFGS-B':
        return lbfgs(w, known, fresh, budget, scale)
    move = MOVES[method](w, setting)
    # a rate that is too large may overflow; the attack then has failed, and ends
    with np.errstate(all='ignore'):
        for n in range(1, budget + 1):
            loss, g = loss_and_gradient(w, *known)
            if not np.isfinite(loss):
                return None, n
            move(loss * w.dtype.type(scale), g * w.dtype.type(scale))
            if n % LOOK == 0 and right(w, *fresh) >= ENOUGH:
                return n, n
    return None, budget


class Spent(Exception):
    "The gradients are used up"


def lbfgs(w, known, fresh, budget, scale=1.0):
    "The same by SciPy's L-BFGS-B without tolerances, in double precision; looked at after each of its steps"
    x, y = (a.astype(float) for a in known)
    fresh, used = [a.astype(float) for a in fresh], 0
    def fun(flat):
        nonlocal used
        if used == budget:
            raise Spent
        used += 1
        loss, g = loss_and_gradient(flat.reshape(w.shape), x, y)
        return scale * loss, scale * g.ravel()
    def look(flat):
        if right(flat.reshape(w.shape), *fresh) >= ENOUGH:
            raise StopIteration
    try:
        end = scipy.optimize.minimize(fun, w.ravel().astype(float), jac=True, method='L-BFGS-B',
                                      callback=look,
                                      options={'ftol': 0, 'gtol': 0, 'maxiter': 10**6, 'maxfun': 10**6})
    except Spent:
        return None, used
    return (used if end.status == 99 or right(end.x.reshape(w.shape), *fresh) >= ENOUGH else None), used


def attacks(row, starts):
    "The row of a method with all attacks up to a number: those that are in it already, and new ones"
    k, scale, first, solved, used = (row['k'], row.get('loss times', 1), row.get('start times', 1),
                                     row.get('solved', []), row.get('used', []))
    for number in range(len(used), starts):
        w, known, fresh = draw(k, CHALLENGES[k], np.random.default_rng([k, number]))
        found = attack(row['method'], row['setting'], w * w.dtype.type(first), known, fresh, BUDGET, scale)
        solved, used = [*solved, found[0]], [*used, found[1]]
    return {**row, 'solved': solved, 'used': used}


def learned(k, count, device):
    "Error on 10,000 fresh answers of the best of up to five starts, by the answers that the attacker knows"
    rng = np.random.default_rng([k, count, device])
    w, known, fresh = draw(k, count, rng, fresh=10_000)
    best = 0.0, 1.0
    for _ in range(RESTARTS):
        move = rprop(w, 'irprop-')
        for n in range(1, LEARN[k] + 1):
            loss, g = loss_and_gradient(w, *known)
            move(loss, g)
            if n % LOOK == 0 and right(w, *known) == 1:
                break
        best = max(best, (right(w, *known), 1 - right(w, *fresh)))
        if best[0] >= ENOUGH:
            break
        w = rng.normal(size=w.shape).astype(w.dtype)
    return round(best[1], 4)


def jobs():
    "In this order: the list that a row belongs to, its name, and how many attacks it is to have"
    def some(part, k, methods, starts, **more):
        for method, setting in methods:
            yield part, {'k': k, 'method': method, 'setting': setting, **more}, starts
    def curve(k):
        for count in COUNTS[k]:
            yield 'curve', {'k': k, 'challenges': count}, None
    for k in (2, 3):
        yield from some('race', k, [*RPROPS, *RIVALS, *PARTS], STAGES[k][0])
    for k in (2, 3):
        yield from curve(k)
    for factor in (1e-3, 1e3):
        yield from some('scaled', 3, SCALED, 5, **{'loss times': factor})
    yield from some('small', 3, SOME, STAGES[3][0], **{'start times': 0.1})
    yield from some('race', 4, [*RPROPS, *RIVALS], STAGES[4][0])
    yield from curve(4)
    for stage in STAGES[4]:
        yield from some('race', 4, [*RPROPS, *RIVALS], stage)
        yield from some('small', 4, SOME, stage, **{'start times': 0.1})
    for stage in STAGES[5]:
        yield from some('race', 5, [*RPROPS, *RIVALS], stage)


def finished(name, row, starts):
    "The row, made or completed"
    if starts is None:
        return row or {**name, 'errors': [learned(*name.values(), device) for device in range(DEVICES)]}
    return attacks(row or name, starts)


def main(anew):
    "Make what is not there yet, and write the file after each row"
    results = (None if anew else read(FILE)) or {}
    head = {'made': made('numpy', 'scipy'), 'settings': {
        'challenges': {str(k): n for k, n in CHALLENGES.items()}, 'budget': BUDGET, 'look': LOOK,
        'enough': ENOUGH, 'devices': DEVICES,
        'restarts': RESTARTS, 'learn': {str(k): n for k, n in LEARN.items()}}}
    parts = {part: {line(name): None for p, name, _ in jobs() if p == part}
             for part in ('race', 'scaled', 'small', 'curve')}
    for part, rows in parts.items():
        for row in results.get(part, []):
            rows[line({key: value for key, value in row.items()
                       if key not in ('solved', 'used', 'errors')})] = row
    for part, name, starts in jobs():
        row = parts[part][line(name)]
        parts[part][line(name)] = finished(name, row, starts)
        if row != parts[part][line(name)]:
            print(part, parts[part][line(name)], flush=True)
            write(FILE, {**head, **{p: [row for row in rows.values() if row] for p, rows in parts.items()}})


if __name__ == '__main__':
    main('anew' in sys.argv[1:])
