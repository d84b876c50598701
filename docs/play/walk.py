"""The walks of the live figures: surfaces, Rprop beside two others, and one sentence for each step.

The rule is not here. It is `step_one`, from the book's own files rule.py and variants.py, which the page
loads unchanged. Everything here needs the standard library alone, and only arithmetic that gives the same
bits on every machine: sines are rounded to twelve digits, noise is a sum of uniform numbers, and no power has
a broken exponent.
"""
import json
import math
import random
from pathlib import Path

from rprop_lit.variants import step_one

DEFAULTS = dict(surface='bowl', condition=10.0, degrees=15.0, noise=1.0, start=None, variant='irprop-',
                lr=0.1, eta_minus=0.5, eta_plus=1.2,
                floor=1e-6, steps=40, gd=None, adam=None, target=1e-6, relative=False, limit=0, grid=48)
CEILING = 50.0


def twin(curvature):
    "One of the two bowls of the first chapter, `curvature * w**2`"
    def fun(w):
        return curvature * w[0] * w[0], [2 * curvature * w[0]]
    return fun


def bowl(condition, degrees):
    "A bowl with curvatures 1 and `condition`, turned by `degrees`"
    def along(w):
        return w[0] * w[0] + condition * w[1] * w[1], [2 * w[0], 2 * condition * w[1]]

    def across(w):
        a, b = c * w[0] - s * w[1], s * w[0] + c * w[1]
        return a * a + condition * b * b, [c * (2 * a) + s * (2 * condition * b),
                                           c * (2 * condition * b) - s * (2 * a)]

    c, s = (round(f(math.radians(degrees)), 12) for f in (math.cos, math.sin))
    return across if degrees else along


def rosenbrock(w):
    "The curved valley; its minimum is at (1, 1)"
    bend, off = w[1] - w[0] * w[0], 1 - w[0]
    return 100 * (bend * bend) + off * off, [-400 * w[0] * bend - 2 * off, 200 * bend]


def plateau(w):
    "A dimple in a wide flat plain"
    g = [2 * x / ((1 + x * x) * (1 + x * x)) for x in w]
    return sum(x * x / (1 + x * x) for x in w), g


def noisy(fun, size, seed=0):
    """The same surface with noise of standard deviation `size` in its gradient:
    twelve uniform numbers, minus 6"""
    source = random.Random(seed)

    def rough(w):
        error, g = fun(w)
        return error, [x + size * (sum(source.random() for _ in range(12)) - 6) for x in g]
    return rough


def surface(config):
    "What is walked on: names and functions of its runs, the window that is shown, and where a walk starts"
    kind, bent = config['surface'], bowl(config['condition'], config['degrees'])
    wide = ((-4.0, 4.0), (-3.0, 3.0))
    return {
        'twin': ([('0.01 w²', twin(0.01)), ('100 w²', twin(100.0))], ((-1.5, 1.5),), [1.0]),
        'bowl': ([('', bent)], wide, [3.0, 2.0]),
        'noisy': ([('', noisy(bent, config['noise']))], wide, [3.0, 2.0]),
        'rosenbrock': ([('', rosenbrock)], ((-2.4, 2.4), (-0.9, 2.7)), [-1.2, 1.0]),
        'plateau': ([('', plateau)], ((-14.0, 34.0), (-18.0, 18.0)), [30.0, -8.0]),
    }[kind]


def rprop_walk(fun, start, config):
    """Points, errors and moves of Rprop, by the book's own `step_one`;
    `needed` steps bring the error below the target"""
    w, states = list(start), [(0, config['lr'])] * len(start)
    settings = dict(etas=(config['eta_minus'], config['eta_plus']), step_sizes=(config['floor'], CEILING))
    points, errors, moves, needed = [], [], [], None
    for k in range(max(config['steps'], config['limit']) + 1):
        error, g = fun(w)
        if k <= config['steps']:
            points.append(w)
            errors.append(error)
        if needed is None and error < config['target'] * (errors[0] if config['relative'] else 1):
            needed = k
        if k >= config['steps'] and (needed is not None or k >= config['limit']):
            break
        old = states
        dws, states = zip(*(step_one(config['variant'], slope, error, state, **settings)
                            for slope, state in zip(g, states)))
        if k < config['steps']:
            moves.append([dict(g=slope, sign=before[0], step=before[1], dw=dw, sign_after=after.sign,
                               step_after=after.step)
                          for slope, before, dw, after in zip(g, old, dws, states)])
        w = [x + dw for x, dw in zip(w, dws)]
    return dict(w=points, error=errors, moves=moves, needed=needed)


def descent(fun, start, rate, steps):
    "Gradient descent, for comparison: `w - rate * g`"
    w, points, errors = list(start), [], []
    for _ in range(steps + 1):
        error, g = fun(w)
        points.append(w)
        errors.append(error)
        w = [x - rate * slope for x, slope in zip(w, g)]
    return dict(w=points, error=errors)


def adam(fun, start, rate, steps):
    "Adam with its usual factors 0.9 and 0.999, for comparison (Kingma and Ba 2015)"
    w, points, errors = list(start), [], []
    mean, square, fade, fade_square = [0.0] * len(w), [0.0] * len(w), 1.0, 1.0
    for _ in range(steps + 1):
        error, g = fun(w)
        points.append(w)
        errors.append(error)
        mean = [0.9 * m + 0.1 * slope for m, slope in zip(mean, g)]
        square = [0.999 * v + 0.001 * (slope * slope) for v, slope in zip(square, g)]
        fade, fade_square = fade * 0.9, fade_square * 0.999
        w = [x - rate * (m / (1 - fade)) / (math.sqrt(v / (1 - fade_square)) + 1e-8)
             for x, m, v in zip(w, mean, square)]
    return dict(w=points, error=errors)


def number(x, signed=False):
    "A number for a sentence, with a true minus sign"
    return (f'{x:+.3g}' if signed else f'{x:.3g}').replace('-', '\u2212')


def is_flip(move):
    "Did the sign of the gradient turn?"
    return move['g'] > 0 > move['sign'] or move['g'] < 0 < move['sign']


def is_undone(move):
    "Was the last move taken back? Then the weight moves, and no sign is remembered"
    return move['sign_after'] == 0 and move['dw'] != 0


def told(name, move, eta_minus, error, before):
    "What the rule did to one weight in this step, and why"
    g, old, new = move['g'], number(move['step']), number(move['step_after'])
    moves = f'{name} moves by {number(move["dw"], True)}'
    if not math.isfinite(error) and is_undone(move):
        return (f'The error is not a finite number: the step of {old} shrinks to {new}, '
                f'and the last move of {name} is taken back.')
    if is_flip(move):
        shrinks = 'is halved to' if eta_minus == 0.5 else 'shrinks to'
        kept = move['step_after'] == move['step']
        step = f'the step stays {new}' if kept else f'the step of {old} {shrinks} {new}'
        why = ('' if before is None else ', because the error rose' if error > before
               else ', because the error did not rise')
        if is_undone(move):
            return f'The sign turned: {step}, and the last move of {name} is taken back{why}.'
        if move['sign_after'] == 0:
            return f'The sign turned: {step}, and {name} waits{why}.'
        return f'The sign turned: {step}, and {name} turns round by {number(move["dw"], True)}.'
    if not (g > 0 or g < 0):
        return f'The gradient has no sign: the step stays {new}, and {name} stays.'
    if move['sign'] == 0:
        return f'No sign is remembered: the step stays {new}, and {moves}.'
    grown = (f'the step grows from {old} to {new}' if move['step_after'] > move['step']
             else f'the step stays {new}, its limit')
    return f'The sign repeats: {grown}, and {moves}.'


def sentence(k, run, config, names):
    "One sentence for each weight about step `k` of a run, counted from 1"
    asks = config['variant'] == 'irprop+' and k > 1
    before = run['error'][k - 2] if asks else None
    return ' '.join(told(name, move, config['eta_minus'], run['error'][k - 1], before)
                    for name, move in zip(names, run['moves'][k - 1]))


def ground(fun, window, n):
    "Heights over the window, row by row, for contours; or along a line where there is one weight"
    def places(ends):
        return [ends[0] + (ends[1] - ends[0]) * i / (n - 1) for i in range(n)]

    if len(window) == 1:
        return [fun([x])[0] for x in places(window[0])]
    return [fun([x, y])[0] for y in places(window[1]) for x in places(window[0])]


def walk(config):
    "All that a figure draws for these settings"
    config = DEFAULTS | config
    # the two errors differ in size, and are compared with their first ones
    config['relative'] = config['surface'] == 'twin'
    functions, window, start = surface(config)
    start = [float(x) for x in config['start'] or start]
    names = ['w'] if len(window) == 1 else ['w₀', 'w₁']
    runs = []
    for label, fun in functions:
        run = rprop_walk(fun, start, config)
        run['label'], run['ground'] = label, ground(fun, window, config['grid'])
        run['flips'] = [[is_flip(m) for m in moves] for moves in run['moves']]
        run['undone'] = [any(is_undone(m) for m in moves) for moves in run['moves']]
        run['sentences'] = [sentence(k, run, config, names) for k in range(1, len(run['moves']) + 1)]
        for rival, method in (('gd', descent), ('adam', adam)):
            if config[rival]:
                run[rival] = method(dict(surface(config)[0])[label], start, config[rival], config['steps'])
        runs.append(run)
    return dict(config=dict(config, start=start), names=names, window=window, runs=runs)


def finite(x):
    "Errors may leave the numbers that JSON knows: those are None, a gap in a line"
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if isinstance(x, dict):
        return {k: finite(v) for k, v in x.items()}
    return [finite(v) for v in x] if isinstance(x, (list, tuple)) else x


def answer(question):
    "A walk as JSON for settings as JSON; floats are written so that they are read back to the last bit"
    return json.dumps(finite(walk(json.loads(question))))


def recorded():
    "The first walk of every figure"
    figures = json.loads((Path(__file__).parent / 'figures.json').read_text(encoding='utf-8'))
    return {name: finite(walk(figure['config'])) for name, figure in figures.items()}
