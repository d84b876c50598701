"""Write rprop_lit/data/traces.json: the golden traces, made by the plain scalar definition `update_one`.

    python tests/make_traces.py            # write the file
    python tests/make_traces.py --check    # exit with 1 if the file is not what this script makes

The fields are explained in the file itself, under "about". Nothing here draws on NumPy's random numbers: the
streams come from `random.random()`, whose sequence Python guarantees, and are made of exact operations, so
every machine writes the same bytes.
"""
import json
import math
import sys
from pathlib import Path
from random import Random

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / 'rprop_lit' / 'data' / 'traces.json'
sys.path.insert(0, str(ROOT))

from rprop_lit.rule import update_one  # noqa: E402

ABOUT = {
    'what': 'Rprop step by step: streams of gradients and errors for one coordinate, and the exact steps and '
            'moves of each variant.',
    'numbers': 'Hexadecimal floats, as Python float.fromhex and C strtod read them; nan and inf as such; no '
               'trailing zeros.',
    'traces': {
        'name': 'what to call the stream; it occurs once for each dtype',
        'shows': 'what the stream is there for, in one sentence',
        'origin': 'papers: the papers say what happens; convention: they are silent, and this is what '
                  'rprop_lit does',
        'dtype': 'type of the weight and of the gradients',
        'step_dtype': 'type of the step sizes and of the moves; etas, bounds and lr are rounded to it once',
        'lr': 'first step size (the papers: Delta_0)',
        'etas': '[factor at a flip, factor when signs agree]',
        'step_sizes': '[smallest, largest step size]',
        'start': 'weight before the first step',
        'gradients': 'gradient at each step',
        'errors': 'error (loss) at each step, at the weight before the step, in float64; only irprop+ looks '
                  'at it',
        'variants': {
            'signs': 'remembered sign after each step: -1, 0 or 1',
            'steps': 'step size after each step',
            'moves': 'what is added to the weight at each step; not moving is -0x0p+0, that is -0.0, and 0.0 '
                     'is as good',
            'weights': 'weight after each step: (weight + move) rounded once to dtype',
        },
    },
}
VARIANTS = {'rprop+': (True, 'always'), 'rprop-': (False, 'never'), 'irprop-': (True, 'never'),
            'irprop+': (True, 'if worse')}
TYPES = {'float32': (np.float32, np.float32), 'float64': (np.float64, np.float64),
         'float16': (np.float16, np.float32)}
TINY = {'float16': 1e-6, 'float32': 1e-30, 'float64': 1e-200}  # squares to 0 in its type
HUGE = {'float16': 6e4, 'float32': 1e30, 'float64': 1e200}     # squares to inf
NAN, INF = math.nan, math.inf
GOLDEN = {'gradients': [1, 1, -1, -1, -1, 1, 0, 1, 1], 'errors': [5, 4, 4.5, 4, 3, 2.9, 2.8, 2.7, 2.6]}


def falling(n):
    "n errors, each below the one before"
    return [float(n - i) for i in range(n)]


def wander(n, seed, calm=0.6, silent=0.08):
    """A long stream: the sign stays with probability `calm`, the size is any;
    errors rise as often as they fall"""
    random = Random(seed).random
    sign, error, gradients, errors = 1, 100.0, [], []
    for _ in range(n):
        sign = sign if random() < calm else -sign
        size = math.ldexp(0.5 + int(random() * 1024) / 2048, int(random() * 24) - 12)
        gradients.append(0.0 if random() < silent else sign * size)
        error += (int(random() * 1024) - 512) / 64
        errors.append(error)
    return {'gradients': gradients, 'errors': errors}


def streams(dtype):
    "Every stream: name, what it shows, and what differs from the usual settings"
    tiny, huge = TINY[dtype], HUGE[dtype]
    long = {'gradients': [1, 1, -1, -1, 1, 1, 1, 1], 'errors': falling(8)}
    yield 'golden', 'a bit of everything: the trace to try first', GOLDEN
    yield 'agree', 'as long as the sign stays the step grows, but not at the first step', {
        'gradients': [1] * 6}
    yield 'flip', 'a flip halves the step; what the weight does then is what the variants differ in', {
        'gradients': [1, 1, 1, -1]}
    yield 'after a flip', 'a variant that forgets does not adapt the step after a flip', {
        'gradients': [1, 1, -1, -1, -1]}
    yield 'flip, error rose', 'the error rose: both + variants take the last move back', {
        'gradients': [-1, -1, 1, 1, 1], 'errors': [3, 2, 2.5, 2, 1]}
    yield ('flip, error fell',
           'the error fell although the sign flipped: rprop+ takes the move back, irprop+ does not',
           {'gradients': [-1, -1, 1, 1, 1], 'errors': [3, 2, 1.5, 1, 0.5]})
    yield 'flip, error same', 'an error that stays has not risen', {
        'gradients': [-1, -1, 1, 1, 1], 'errors': [3, 2, 2, 1, 0.5]}
    yield 'two flips', 'gradients that alternate: nothing is taken back twice', {
        'gradients': [1, 1, -1, 1, -1, 1, 1, -1, 1], 'errors': [5, 4, 4.5, 5, 5.5, 5, 4, 5, 6]}
    yield 'error rose, no flip', 'a rising error alone changes nothing', {
        'gradients': [1, 1, 1, -1, -1], 'errors': [1, 2, 3, 2, 4]}
    yield ('zero before a flip',
           'a zero gradient moves nothing, and the sign before it is forgotten: no flip is seen',
           {'gradients': [1, 1, 0, -1, -1, -1]})
    yield 'zero after a flip', 'a zero gradient right after a flip', {
        'gradients': [1, 1, -1, 0, -1, -1], 'errors': [5, 4, 4.5, 4, 3, 2]}
    yield 'zeros first', 'zero and minus zero are neither positive nor negative', {
        'gradients': [0.0, -0.0, 1, 1, -0.0, 1, -1]}
    yield 'sizes', 'the golden signs with other magnitudes: the same moves', {
        'gradients': [g * m for g, m in zip(GOLDEN['gradients'], [3, 2**-9, 500, 2**-12, 7, 1e3, 1, 2**-7, 2],
                                            strict=True)],
        'errors': GOLDEN['errors']}
    yield 'floor', 'flip upon flip: the step stops at the smallest allowed, and comes back', {
        'gradients': [1, -1, 1, -1, 1, -1, 1, -1, -1, -1, -1], 'errors': falling(11), 'lr': 4e-6}
    yield 'cap', 'the step stops at the largest allowed, and a flip halves from there', {
        'gradients': [1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1], 'errors': falling(11), 'lr': 30.0}
    yield 'tiny gradients', 'gradients whose product is 0 in their type still have signs', {
        'gradients': [g * tiny for g in GOLDEN['gradients']], 'errors': GOLDEN['errors']}
    yield 'huge gradients', 'gradients whose product is infinite still have signs', {
        'gradients': [g * huge for g in GOLDEN['gradients']], 'errors': GOLDEN['errors']}
    yield 'other etas', 'factors of 0.3 and 1.7, and narrow bounds', dict(
        wander(40, 2), etas=(0.3, 1.7), step_sizes=(1e-3, 0.5), lr=0.05)
    if dtype != 'float16':
        yield 'long', 'two hundred steps of everything', wander(200, 1)
    yield 'start below the floor', 'convention: a first step below the bounds is raised to them', dict(
        long, lr=1e-9, origin='convention')
    yield 'start above the cap', 'convention: a first step above the bounds is lowered to them', dict(
        long, lr=100.0, origin='convention')
    yield 'nan', 'convention: a gradient that is not a number counts as 0', {
        'gradients': [1, 1, NAN, 1, 1, -1, NAN, -1, -1], 'errors': falling(9), 'origin': 'convention'}
    yield 'inf', 'convention: an infinite gradient has a sign', {
        'gradients': [1, INF, INF, -INF, -1, -1, INF], 'errors': falling(7), 'origin': 'convention'}
    yield 'error not finite', ('convention: irprop+ takes the last move back, halves the step '
                               'and forgets the sign; others do not look'), {
        'gradients': [1, 1, 1, 1, -1, -1, -1], 'errors': [5, 4, NAN, 3, INF, 2, 1], 'origin': 'convention'}
    yield 'pitfalls', ('convention: a first step below the floor, a gradient of 1e-50, one of NaN, '
                       'infinite ones, a tie of errors, two errors in a row that are not finite, '
                       'an error that rose'), {
        'gradients': [1, 1e-50, 1, NAN, INF, -1, -1, -1, -1, -INF, 1, 1],
        'errors': [5, 4, 3, 2, 1, 1, .5, NAN, INF, .6, .7, .6],
        'lr': .01, 'step_sizes': (.1, 50.0), 'origin': 'convention'}


def walked(variant, gradients, errors, start, lr, etas, step_sizes, types):
    "Signs, steps, moves, weights of one variant, by `update_one` and nothing else"
    forget, undo = VARIANTS[variant]
    weight, wide = types
    w, sign, step, before = weight(start), 0, wide(lr), math.inf
    eta_minus, eta_plus, lo, hi = map(wide, (*etas, *step_sizes))
    rows = []
    for g, error in zip(map(weight, gradients), errors, strict=True):
        if undo == 'if worse' and not math.isfinite(error):  # the whole last move is taken back, flip or not
            dw, sign, step = -(-sign * step), 0, min(max(step * eta_minus, lo), hi)
        else:
            back = undo == 'always' or (undo == 'if worse' and error > before)
            dw, sign, step = update_one(g, sign, step, forget, back, eta_minus, eta_plus, lo, hi)
            before = error
        assert type(step) is wide and type(wide(dw)) is wide
        w = weight(w + wide(dw))
        rows.append((sign, step, dw, w))
    return dict(zip(('signs', 'steps', 'moves', 'weights'), map(list, zip(*rows, strict=True)), strict=True))


def text(x):
    "A float as short hexadecimal: 0x1.8p-3"
    head, p, power = float(x).hex().partition('p')
    head = head.rstrip('0').rstrip('.') if '.' in head else head
    return (head if head[-1] != 'x' else head + '0') + p + power


def traces():
    "All traces as the file holds them"
    for dtype, types in TYPES.items():
        for name, shows, given in streams(dtype):
            case = dict({'lr': 0.1, 'etas': (0.5, 1.2), 'step_sizes': (1e-6, 50.0), 'start': 0.0,
                         'origin': 'papers'}, **given)
            case.setdefault('errors', falling(len(case['gradients'])))
            origin = case.pop('origin')
            ways = {v: walked(v, types=types, **case) for v in VARIANTS}
            yield {'name': name, 'shows': shows, 'origin': origin, 'dtype': dtype,
                   'step_dtype': np.dtype(types[1]).name,
                       'lr': text(types[1](case['lr'])), 'start': text(case['start']),
                       'etas': [text(types[1](x)) for x in case['etas']],
                       'step_sizes': [text(types[1](x)) for x in case['step_sizes']],
                       'gradients': [text(types[0](g)) for g in case['gradients']],
                       'errors': [text(e) for e in case['errors']],
                       'variants': {v: {k: x if k == 'signs' else [text(y) for y in x]
                                        for k, x in way.items()} for v, way in ways.items()}}


def dump():
    "The file's text: JSON with one list a line"
    def flat(value, pad):
        if isinstance(value, dict):
            return '{\n' + ',\n'.join(f'{pad} {json.dumps(k)}: {flat(v, pad + " ")}'
                                      for k, v in value.items()) + f'\n{pad}}}'
        return json.dumps(value)
    rows = ',\n'.join('  ' + flat(t, '  ') for t in traces())
    return f'{{\n "format": 1,\n "about": {flat(ABOUT, " ")},\n "traces": [\n{rows}\n ]\n}}\n'


if __name__ == '__main__':
    if sys.argv[1:] == ['--check']:
        sys.exit(0 if FILE.read_text() == dump() else f'{FILE} is not what {sys.argv[0]} makes')
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(dump())
