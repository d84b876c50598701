"""The rule on whole arrays is the scalar rule on each element, exactly: variant x type x shape x factors."""
import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from streams import ETAS, VARIANTS, bits, errors, gradients

import rprop_lit
from rprop_lit import rule
from rprop_lit.inside.settings import check_ranges
from rprop_lit.problems import bowl
from rprop_lit.rule import State, init, namespace, sign_of, update_one
from rprop_lit.variants import Flip, cast_pair, flip_for, retreat, step_one, update, variant_named

LIMITS = (1e-6, 50.0)


def one_by_one(g, state, variant, etas, loss):
    "A step of a named variant in which every element is moved by `update_one`, or sent back, on its own"
    cast = state.step.dtype.type
    forget, undo = variant_named(variant)
    lost = undo == 'if worse' and not math.isfinite(loss)
    undo_now = undo == 'always' or (undo == 'if worse' and loss > state.loss)
    moves, signs, steps = np.empty_like(state.step), np.empty_like(state.sign), np.empty_like(state.step)
    for i in np.ndindex(g.shape):
        sign, step = int(state.sign[i]), state.step[i]
        if lost:
            moves[i], signs[i], steps[i] = ((sign * step if sign else -0.0), 0,
                                            min(max(step * cast(etas[0]), cast(LIMITS[0])), cast(LIMITS[1])))
        else:
            moves[i], signs[i], steps[i] = update_one(g[i], sign, step, forget, undo_now,
                                                      *map(cast, (*etas, *LIMITS)))
    return moves, State(signs, steps, loss if undo == 'if worse' and not lost else state.loss)


@pytest.mark.parametrize('etas', ETAS, ids=str)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('shape', [(17,), (), (3, 4), (0,)], ids=str)
def test_arrays_are_scalars_side_by_side(variant, dtype, etas, shape):
    mine = theirs = init(np.zeros(shape, dtype), 0.1)
    length = 120
    for g, loss in zip(gradients(shape, length, dtype), errors(length)):
        dw, mine = update(g, mine, variant=variant, etas=etas, step_sizes=LIMITS, loss=loss)
        expected, theirs = one_by_one(g, theirs, variant, etas, loss)
        assert np.asarray(dw).dtype == dtype
        assert ((bits(dw), bits(mine.sign), bits(mine.step), mine.loss)
                == (bits(expected), bits(theirs.sign), bits(theirs.step), theirs.loss))


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_the_strictest_library_agrees(variant, dtype):
    xp = array_api_strict
    mine, theirs = init(xp.zeros(31, dtype=getattr(xp, dtype)), 0.1), init(np.zeros(31, dtype), 0.1)
    for g, loss in zip(gradients((31,), 100, dtype), errors(100)):
        dw, mine = update(xp.asarray(g), mine, variant=variant, loss=loss)
        expected, theirs = update(g, theirs, variant=variant, loss=loss)
        assert namespace(dw) is namespace(xp.zeros(1))
        assert bits(np.asarray(dw)) == bits(expected) and bits(np.asarray(mine.step)) == bits(theirs.step)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_golden_traces(variant, dtype):
    traces = json.loads(
        (Path(rprop_lit.__file__).parent / 'data' / 'traces.json').read_text(encoding='utf-8'))['traces']
    checked = 0
    for one in traces:
        if one['dtype'] != dtype:
            continue
        number, known = float.fromhex, one['variants'][variant]
        etas, limits = map(number, one['etas']), tuple(map(number, one['step_sizes']))
        etas, w = tuple(etas), np.array([number(one['start'])], dtype)
        state = init(w, number(one['lr']))
        for k, (g, loss) in enumerate(zip(map(number, one['gradients']), map(number, one['errors']))):
            dw, state = update(np.array([g], dtype), state, variant=variant, etas=etas, step_sizes=limits,
                               loss=loss)
            w = w + dw
            got = (dw.item(), state.sign.item(), state.step.item(), w.item())
            assert got == (number(known['moves'][k]), known['signs'][k], number(known['steps'][k]),
                           number(known['weights'][k])), (one['name'], k)
        checked += 1
    assert checked >= 20


def test_the_golden_trace_by_exact_arithmetic():
    """The moves of the first golden trace, by fractions, without the package:
    tenths and the factors 1/2 and 6/5 are exact"""
    g, error = [1, 1, -1, -1, -1, 1, 0, 1, 1], [5, 4, 4.5, 4, 3, 2.9, 2.8, 2.7, 2.6]
    known = {'rprop+': '-.1 -.12 .12 .06 .072 -.072 0 -.036 -.0432',
             'rprop-': '-.1 -.12 .06 .072 .0864 -.0432 0 -.0432 -.05184',
             'irprop-': '-.1 -.12 0 .06 .072 0 0 -.036 -.0432',
             'irprop+': '-.1 -.12 .12 .06 .072 0 0 -.036 -.0432'}
    for variant, moves in known.items():
        step, sign, last, before, made = Fraction(1, 10), 0, Fraction(0), math.inf, []
        for s, loss in zip(g, error):
            flip, dw = s * sign < 0, None
            step = step * Fraction(6, 5) if s * sign > 0 else step / 2 if flip else step
            if flip and variant != 'rprop-':
                dw = -last if variant == 'rprop+' or (variant == 'irprop+' and loss > before) else Fraction(0)
            dw, sign = (-s * step, s) if dw is None else (dw, 0)
            last, before = dw, loss
            made.append(dw)
        assert made == [Fraction(m) for m in moves.split()]
        state, rounded = init(np.zeros(1), 0.1), []
        for s, loss in zip(g, error):
            dw, state = update(np.array([float(s)]), state, variant=variant, loss=loss)
            rounded.append(dw.item())
        # at most nine roundings of one part in 2**53 each
        assert np.allclose(rounded, [float(m) for m in made], rtol=1e-15, atol=0)


def test_nothing_is_written_to():
    g, state = np.array([1.0, -1.0]), State(np.array([-1, -1], np.int8), np.array([.1, .2]))
    kept = [bits(a) for a in (g, *state[:2])]
    for variant in VARIANTS:
        update(g, state, variant=variant, loss=1.0)
    retreat(state, etas=(0.5, 1.2), step_sizes=LIMITS)
    assert kept == [bits(a) for a in (g, *state[:2])]


def test_not_to_move_leaves_even_minus_zero():
    w = np.array([-0.0, 0.0])
    for variant in VARIANTS:
        dw, state = update(np.array([0.0, np.nan]), init(w, 0.1), variant=variant, loss=1.0)
        assert bits(w + dw) == bits(w)
    back, _ = retreat(init(w, 0.1), etas=(0.5, 1.2), step_sizes=LIMITS)
    assert bits(w + back) == bits(w)


def test_first_step_outside_the_limits_is_clamped():
    for lr, size in ((1e9, 50.0), (0.0, 1e-6)):
        dw, state = update(np.ones(2), init(np.zeros(2), lr), variant='irprop-')
        assert dw.tolist() == [-size] * 2 and state.step.tolist() == [size] * 2


def test_infinite_limit_is_the_largest_number():
    for dtype in (np.float32, np.float64):
        state = init(np.zeros(1, dtype), float(np.finfo(dtype).max) / 2)
        with np.errstate(over='ignore'):
            for _ in range(5):
                dw, state = update(np.ones(1, dtype), state, variant='irprop-', step_sizes=(0, math.inf))
        assert state.step == np.finfo(dtype).max and np.isfinite(dw)
    assert cast_pair((0, math.inf), np.zeros(1, np.float32)) == (0, float(np.finfo(np.float32).max))
    assert str(cast_pair((-0.0, 1), np.zeros(1))[0]) == '0.0'  # -0.0 * lo shall move nothing
    lo, hi = cast_pair((0, np.array([1.0, math.inf])), np.zeros(2))
    assert hi.tolist() == [1.0, np.finfo(float).max]


def test_types_of_the_state():
    for dtype, wide in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        state = init(np.zeros(2, dtype), 0.1)
        assert state.step.dtype == wide and state.sign.dtype == np.int8 and state.loss == math.inf
    assert init(np.zeros(2), np.array([1.0, 2.0])).step.tolist() == [1, 2]


@pytest.mark.parametrize('dtype', [int, bool, complex])
def test_init_refuses_other_types(dtype):
    with pytest.raises(TypeError, match='pass complex ones as pairs of reals'):
        init(np.zeros(2, dtype), 0.1)


def test_namespace():
    assert namespace(np.float32(1)) is np and namespace(np.zeros(1)) is np
    with pytest.raises(TypeError, match='list is not an array'):
        namespace([1.0])


def test_signs():
    g = np.array([2.0, -3.0, 0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324])
    assert sign_of(g, np.zeros(1, np.int8)).tolist() == [1, -1, 0, 0, 0, 1, -1, 1]


def test_answers():
    assert flip_for('RPROP-', None, math.inf) == Flip(False, False)
    assert flip_for('irprop-', math.nan, 3.0) == Flip(True, False)
    assert flip_for('rprop+', 9.0, 3.0) == Flip(True, True)
    assert flip_for('iRprop+', 9.0, 3.0) == Flip(True, True, loss=9.0)
    assert flip_for('irprop+', 3.0, 3.0) == Flip(True, False, loss=3.0)
    assert flip_for('irprop+', math.inf, 3.0) == Flip(True, True, retreat=True, loss=3.0)
    with pytest.raises(ValueError, match='pass loss='):
        flip_for('irprop+', None, 3.0)
    with pytest.raises(ValueError, match='loss=nan at the first step'):
        flip_for('irprop+', math.nan, math.inf)
    with pytest.raises(ValueError,
                       match="variant='sgd' is unknown: choose one of rprop-, irprop-, rprop\\+, irprop\\+"):
        flip_for('sgd', 1.0, 1.0)


@pytest.mark.parametrize('setting, name, says', [
    (dict(etas=(1.2, 0.5)), 'etas', '0 < eta- < 1 < eta+'), (dict(etas=(0, 1.2)), 'etas', '0 < eta-'),
    (dict(etas=(0.5, 1)), 'etas', '1 < eta+'),
    (dict(etas=(0.5, math.inf)), 'etas', '1 < eta+'), (dict(etas=(0.5, math.nan)), 'etas', '1 < eta+'),
    (dict(etas=0.5), 'etas', 'pair'),
    (dict(etas=('a', 'b')), 'etas', "'a': need a number"), (dict(etas=(0.5, 1.2, 2)), 'etas', 'pair'),
    (dict(step_sizes=(1, 0.1)), 'step_sizes', '0 <= smallest <= largest'),
    (dict(step_sizes=(-1, 1)), 'step_sizes', '0 <= smallest'),
    (dict(step_sizes=(math.inf, math.inf)), 'step_sizes', 'smallest'),
    (dict(step_sizes=(math.nan, 1)), 'step_sizes', 'smallest'), (dict(step_sizes=None), 'step_sizes', 'pair'),
    (dict(lr=-0.1), 'lr', 'at least 0'),
    (dict(lr=math.inf), 'lr', 'finite'), (dict(lr=math.nan), 'lr', 'finite'),
    (dict(lr='x'), 'lr', "'x': need a number"), (dict(lr=[0.1, -1]), 'lr', 'at least 0')], ids=str)
def test_settings_that_cannot_work(setting, name, says):
    with pytest.raises(ValueError) as caught:
        check_ranges(**{'lr': 0.01, 'etas': (0.5, 1.2), 'step_sizes': (1e-6, 50.0), **setting})
    message = str(caught.value)
    assert message.startswith(f'{name}=') and says in message


def test_settings_that_work():
    check_ranges(0.0, (0.5, 1.2), (0, math.inf))
    check_ranges(np.array([0.1, 0.0]), [0.3, 3], (np.zeros(2), [1.0, 2.0]))


def test_knobs_of_rule_may_be_arrays():
    "`undo` as a 0-d array, as a comparison of errors on a device would give it"
    state = State(np.array([1], np.int8), np.array([0.1]))
    for undo in (True, False):
        a, _ = rule.update_all(np.array([-1.0]), state, forget=True, undo=np.array(undo), etas=(0.5, 1.2),
                               step_sizes=LIMITS)
        b, _ = rule.update_all(np.array([-1.0]), state, forget=True, undo=undo, etas=(0.5, 1.2),
                               step_sizes=LIMITS)
        assert bits(a) == bits(b)


def test_per_element_settings():
    "Arrays of factors and limits: each element goes its own way"
    etas, limits = ((np.array([0.5, 0.3]), np.array([1.2, 1.7])),
                    (np.array([0.0, 0.05]), np.array([1.0, 0.11])))
    state, alone = init(np.zeros(2), 0.1), [init(np.zeros(1), 0.1), init(np.zeros(1), 0.1)]
    for g in gradients((2,), 60, np.float64):
        dw, state = update(g, state, variant='irprop-', etas=etas, step_sizes=limits)
        for i in range(2):
            pair = dict(etas=(etas[0][i], etas[1][i]), step_sizes=(limits[0][i], limits[1][i]))
            one, alone[i] = update(g[i:i + 1], alone[i], variant='irprop-', **pair)
            assert bits(one) == bits(dw[i:i + 1]) and bits(alone[i].step) == bits(state.step[i:i + 1])


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_step_one_walks_every_trace(variant, dtype):
    real, number, walked = np.dtype(dtype).type, float.fromhex, 0
    for trace in json.loads((Path(rule.__file__).parent / 'data' / 'traces.json').read_text())['traces']:
        if trace['dtype'] != dtype:
            continue
        top = float(np.finfo(dtype).max)
        etas, limits = ([real(min(number(x), top)) for x in trace[key]] for key in ('etas', 'step_sizes'))
        state, known = rule.State(0, real(number(trace['lr']))), trace['variants'][variant]
        for g, error, dw, sign, step in zip(trace['gradients'], trace['errors'], known['moves'],
                                            known['signs'], known['steps'], strict=True):
            move, state = step_one(variant, real(number(g)), number(error), state, etas, limits)
            assert (float(move).hex() == number(dw).hex() and state.sign == sign
                    and float(state.step) == number(step))
        walked += 1
    assert walked >= 24


def test_step_one_at_the_edges():
    largest = sys.float_info.max
    assert (step_one('rprop-', 1.0, None, (1, largest), step_sizes=(0, math.inf))
            == (-largest, rule.State(1, largest)))
    assert step_one('IRPROP+', 1.0, math.nan, (-1, 0.5, 2.0)) == (-0.5, rule.State(0, 0.25, 2.0))
    assert str(step_one('irprop+', 1.0, math.inf, (0, 0.5, 2.0))[0]) == '-0.0'
    assert step_one('irprop-', 1.0, math.nan, (1, 50.0)) == (-50.0, rule.State(1, 50.0))
    with pytest.raises(ValueError, match='first step: start where'):
        step_one('irprop+', 1.0, math.inf, (0, 0.1))


def test_an_error_from_before_a_change_of_variant_is_not_compared():
    "Through both forms: what rose while another variant walked is no rise"
    walk = ('irprop+', 1.0, 1.0), ('irprop-', 1.0, 9.0), ('irprop+', -1.0, 5.0)
    one, state = State(0, 1.0), init(np.zeros(1), 1.0)
    for variant, g, loss in walk:
        dw_one, one = step_one(variant, g, loss, one)
        dw, state = update(np.full(1, g), state, variant=variant, loss=loss)
    assert dw_one == dw == 0  # not known to have risen, so not undone
    assert one.loss == state.loss == 5.0


def test_a_library_without_the_standard_is_recognised(monkeypatch):
    library = type(sys)('cupy')
    monkeypatch.setitem(sys.modules, 'cupy', library)
    kind = type('ndarray', (), {'dtype': np.dtype(float), '__module__': 'cupy'})
    assert rule.namespace(kind()) is library
    assert rule.namespace(np.float32(1)) is np
    for thing in (np.random.default_rng(), 1.0, [1.0]):
        with pytest.raises(TypeError, match='is not an array'):
            rule.namespace(thing)


def test_which_variant_is_fastest_depends_on_the_bowl():
    "Twenty starts in a bowl of condition 100: mean number of gradients until the error is below a millionth"
    def needs(problem, variant):
        w, state, count = problem.start.copy(), init(problem.start, 0.1), 0
        while (found := problem.fun(w))[0] >= 1e-6:
            dw, state = update(found[1], state, variant=variant, loss=found[0])
            w, count = w + dw, count + 1
        return count

    starts = 3 * np.random.default_rng(2).normal(size=(20, 2))
    mean = {turn: {variant: np.mean([needs(bowl([1.0, 100.0], turn, start), variant) for start in starts])
                   for variant in VARIANTS} for turn in (0, 15)}
    assert min(mean[0], key=mean[0].get) == 'rprop-' and min(mean[15], key=mean[15].get) == 'irprop+'
