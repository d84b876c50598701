"""The golden traces, and the check that others can hold their Rprop against."""
import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rprop_lit import conformance
from rprop_lit.conformance import (
    AFTER,
    BEFORE,
    Misuse,
    Walked,
    check,
    check_program,
    departs,
    explained,
    imitate,
    judge,
    main,
    ours,
    run,
    run_program,
    side_by_side,
    traces,
)
from rprop_lit.inside import habits as habits_module
from rprop_lit.rule import State, init
from rprop_lit.variants import VARIANTS, step_one, update

TESTS = Path(__file__).parent
DTYPES = ['float64', 'float32', 'float16']
EVERY = [trace for dtype in DTYPES for trace in traces(dtype)]
BY_NAME = {(trace.name, trace.dtype): trace for trace in EVERY}
PUBLISHED = {  # rounded, written down by hand from the four rules
    'rprop+': [-.1, -.12, .12, .06, .072, -.072, 0, -.036, -.0432],
    'rprop-': [-.1, -.12, .06, .072, .0864, -.0432, 0, -.0432, -.05184],
    'irprop-': [-.1, -.12, 0, .06, .072, 0, 0, -.036, -.0432],
    'irprop+': [-.1, -.12, .12, .06, .072, 0, 0, -.036, -.0432],
}


# ---- the file, against something other than the code that made it

def rounded(x, bits, smallest):
    "A fraction rounded to a binary number of so many bits, ties to even: IEEE rounding in exact arithmetic"
    if x == 0:
        return x
    exponent = max(math.floor(math.log2(abs(x))), smallest)
    while abs(x) >= Fraction(2) ** (exponent + 1):  # the logarithm is a float and may be off by one
        exponent += 1
    while exponent > smallest and abs(x) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - bits + 1)
    return round(x / unit) * unit


FORMATS = {'float16': (11, -14), 'float32': (24, -126), 'float64': (53, -1022)}


def by_fractions(trace, variant):
    "Signs, steps, moves and weights from the papers' words, in exact arithmetic, each result rounded once"
    narrow, wide = FORMATS[trace.dtype], FORMATS[trace.step_dtype]
    eta_minus, eta_plus, lo, hi = map(Fraction, (*trace.etas, *trace.step_sizes))
    w, step, sign, last, before = Fraction(trace.start), Fraction(trace.lr), 0, Fraction(0), math.inf
    rows = []
    for g, error in zip(trace.gradients, trace.errors):
        s = (g > 0) - (g < 0)
        if variant == 'irprop+' and not math.isfinite(error):
            # a sign of 0: the last move is taken back already, or there was none
            move = -last if sign else Fraction(0)
            sign, step = 0, min(max(rounded(step * eta_minus, *wide), lo), hi)
        else:
            factor = {1: eta_plus, -1: eta_minus, 0: 1}[s * sign]
            step = min(max(rounded(step * factor, *wide), lo), hi)
            if s * sign < 0 and variant != 'rprop-':
                back = variant == 'rprop+' or (variant == 'irprop+' and error > before)
                move, sign = (-last if back else Fraction(0)), 0
            else:
                move, sign = -s * step, s
            before = error
        w, last = rounded(w + move, *narrow), move
        rows.append((sign, step, move, w))
    return rows


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('trace', EVERY, ids=lambda t: f'{t.name}-{t.dtype}')
def test_traces_equal_exact_arithmetic_rounded_step_by_step(trace, variant):
    kept = trace.variants[variant]
    rows = list(zip(kept['signs'], *(map(Fraction, kept[key]) for key in ('steps', 'moves', 'weights')),
                    strict=True))
    assert rows == by_fractions(trace, variant)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_golden_trace_is_the_one_written_down_by_hand(variant, dtype):
    golden = BY_NAME['golden', dtype]
    assert [round(x, 5) for x in golden.variants[variant]['moves']] == PUBLISHED[variant]
    assert golden.gradients == (1, 1, -1, -1, -1, 1, 0, 1, 1)


def test_the_script_makes_the_file():
    done = subprocess.run([sys.executable, TESTS / 'make_traces.py', '--check'], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


def test_the_file_explains_each_of_its_fields():
    file = json.loads((Path(conformance.__file__).parent / 'data' / 'traces.json').read_text())
    fields, ways = file['about']['traces'], file['about']['traces']['variants']
    for trace in file['traces']:
        assert set(trace) == set(fields) and set(trace['variants']) == set(VARIANTS)
        for way in trace['variants'].values():
            assert (set(way) == set(ways) and {len(x) for x in way.values()} == {len(trace['gradients'])}
                    == {len(trace['errors'])})


@pytest.mark.parametrize('dtype', DTYPES)
def test_traces_show_what_they_promise(dtype):
    by_name = {trace.name: trace for trace in traces(dtype)}
    signs = {name: np.sign(np.nan_to_num(trace.gradients)) for name, trace in by_name.items()}
    def ways(name, key):
        return {variant: by_name[name].variants[variant][key] for variant in VARIANTS}
    assert len({tuple(moves) for moves in ways('golden', 'moves').values()}) == 4
    for tiny, g in [('tiny gradients', 0), ('huge gradients', math.inf)]:
        with np.errstate(all='ignore'):
            assert abs(np.dtype(dtype).type(by_name[tiny].gradients[0])
                       * np.dtype(dtype).type(by_name[tiny].gradients[1])) == g
        assert ways(tiny, 'moves') == ways('sizes', 'moves') == ways('golden', 'moves')
    assert min(ways('floor', 'steps')['irprop-']) == by_name['floor'].step_sizes[0] < by_name['floor'].lr
    assert max(ways('cap', 'steps')['irprop-']) == by_name['cap'].step_sizes[1] > by_name['cap'].lr
    assert by_name['start below the floor'].lr < by_name['start below the floor'].step_sizes[0]
    assert by_name['start above the cap'].lr > by_name['start above the cap'].step_sizes[1]
    assert ways('flip, error fell', 'moves')['irprop+'] != ways('flip, error rose', 'moves')['irprop+']
    assert ways('flip, error same', 'moves')['irprop+'] == ways('flip, error fell', 'moves')['irprop+']
    assert (any(math.isnan(g) for g in by_name['nan'].gradients)
            and any(math.isinf(g) for g in by_name['inf'].gradients))
    assert list(signs['two flips'][1:5]) == [1, -1, 1, -1]


# ---- this package against the file

@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('trace', EVERY, ids=lambda t: f'{t.name}-{t.dtype}')
def test_update_walks_every_trace(trace, variant):
    w = np.full(3, trace.start, trace.dtype)
    state, kept = init(w, trace.lr), trace.variants[variant]
    for i, (g, error) in enumerate(zip(trace.gradients, trace.errors)):
        dw, state = update(np.full(3, g, trace.dtype), state, variant=variant, etas=trace.etas,
                           step_sizes=trace.step_sizes, loss=error)
        w = (w + dw).astype(trace.dtype)
        assert isinstance(state, State) and dw.dtype == state.step.dtype == trace.step_dtype
        assert (state.sign == kept['signs'][i]).all() and (state.step == kept['steps'][i]).all()
        assert (dw == kept['moves'][i]).all() and (w == kept['weights'][i]).all()
        assert (np.signbit(dw) == np.signbit(kept['moves'][i])).all()  # not moving is -0.0


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_our_optimizer_walks_every_trace(variant, dtype):
    report = check(ours(variant), dtype)
    assert (report.variant, report.habits, report.steps, report.unexplained) == (variant, (), {}, ())
    assert set(report.verdicts.values()) == {report.beside} == {'bits'}


# ---- the check itself

def made(variant, *habits):
    "What somebody with these habits does with every trace"
    return [(trace, Walked(imitate(trace, variant, habits))) for trace in traces()]


# the variant that shows a habit; `rprop-` neither forgets nor undoes, so little can be spoiled there
SHOWN_BY = {'takes moves back without their sign': 'rprop+',
            'repeats the overshoot where it should stay': 'irprop+',
            'compares the errors of the two steps before': 'irprop+',
            'does not ask whether the error is finite': 'irprop+'}


@pytest.mark.parametrize('habit', BEFORE | AFTER)
def test_every_habit_is_found_out(habit):
    variant = SHOWN_BY.get(habit, 'irprop-')
    also = ('is one step late',) if habit.startswith('drops') else ()
    report = judge(made(variant, habit, *also))
    assert report.steps and not report.unexplained
    assert set(report.habits) == {habit, *also}
    # these leave no trace of the variant
    if habit not in ('moves at a flip', 'tries half the move again in the old direction'):
        assert report.variant == variant


def test_two_habits_are_found_together():
    report = judge(made('irprop-', 'grows at the first step', 'never recovers from one NaN'))
    assert (report.variant == 'irprop-'
            and set(report.habits) == {'grows at the first step', 'never recovers from one NaN'})


def test_a_habit_without_a_name_is_left_unexplained():
    def spoiled(w, lr, etas, step_sizes):
        step = ours('irprop-')(w, lr, etas, step_sizes)
        count = iter(range(1000))
        return lambda w, g, loss: step(w, g, loss) + (7.0 if next(count) == 1 else 0.0)
    report = check(spoiled)
    assert report.unexplained and 'not explained' in str(report)


def test_rounding_is_told_from_going_astray():
    def rough(w, lr, etas, step_sizes):
        step = ours('irprop-')(w, lr, etas, step_sizes)
        return lambda w, g, loss: step(w, g, loss) * (1 + 2**-52)
    report = check(rough)
    assert (report.variant == 'irprop-' and not report.habits
            and set(report.verdicts.values()) == {'rounding'}
            and report.beside == 'bits')


def test_manners_toward_the_callers_gradient():
    def rude(w, lr, etas, step_sizes):
        step = ours('irprop-')(w, lr, etas, step_sizes)

        def act(w, g, loss):
            new = step(w, g, loss).copy()
            g *= 0.5
            return new
        return act
    assert check(rude).habits == ('writes into the gradient it is given',)

    def clinging(w, lr, etas, step_sizes):
        last, step = [np.zeros(1)], np.full(1, lr)

        def act(w, g, loss):
            agree = np.sign(g) * np.sign(last[0])
            step[:] = np.clip(step * np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1)),
                              *step_sizes)
            last[0] = g
            return w - np.sign(g) * step
        return act
    report = check(clinging)
    assert report.variant == 'rprop-' and 'keeps the gradient array instead of a copy' in report.habits


def test_a_nan_that_is_wiped_from_the_callers_gradient_is_seen():
    def tidy(w, lr, etas, step_sizes):
        step = ours('irprop-')(w, lr, etas, step_sizes)

        def act(w, g, loss):
            np.nan_to_num(g, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
            return step(w, g, loss)
        return act
    assert check(tidy).habits == ('writes into the gradient it is given',)


# ---- two weights

MIXERS = {
    'the sum of the products decides': lambda products: products.sum(),
    'one flip makes all flip': lambda products: products.min(),
    'one that agrees keeps all from flipping': lambda products: products.max(),
    'the first decides': lambda products: products[0],
    'the last decides': lambda products: products[-1],
    'neighbours change places': lambda products: products[::-1],
}


def mixed(mix, forget=True):
    "irprop- or rprop-, where `mix` makes the products of signs into what decides"
    def factory(w, lr, etas, step_sizes):
        sign, size = np.zeros_like(w), np.full_like(w, lr)

        def step(w, g, loss):
            agree = mix(np.nan_to_num(np.sign(g)) * sign)
            size[:] = np.clip(size * np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1)),
                              *step_sizes)
            sign[:] = np.where(np.logical_and(agree < 0, forget), 0, np.nan_to_num(np.sign(g)))
            return w - sign * size
        return step
    return factory


@pytest.mark.parametrize('forget', [True, False])
@pytest.mark.parametrize('mixer', MIXERS)
def test_weights_that_mix_are_seen_side_by_side_alone(mixer, forget):
    report = check(mixed(MIXERS[mixer], forget))
    assert report.variant == ('irprop-' if forget else 'rprop-') and set(report.verdicts.values()) == {'bits'}
    assert report.beside == 'astray' and report.habits == ('mixes weights that walk side by side',)
    assert 'two weights side by side: astray' in str(report)
    assert check(mixed(lambda products: products, forget)).beside == 'bits'


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('dtype', DTYPES)
def test_two_weights_see_no_other_error(variant, dtype):
    assert side_by_side(ours(variant), BY_NAME['golden', dtype]) == 'bits'

    def dropped(w, lr, etas, step_sizes):
        step = ours(variant)(w[:1].copy(), lr, etas, step_sizes)
        return lambda w, g, loss: np.concatenate([step(w[:1], g[:1], loss), w[1:]])
    assert side_by_side(dropped, BY_NAME['golden', dtype]) == 'astray'


def single(w, lr, etas, step_sizes):
    "irprop- for one number and no more"
    step = ours('irprop-')(np.full(1, w.item()), lr, etas, step_sizes)
    return lambda w, g, loss: step(w, g, loss)


def first_only(w, lr, etas, step_sizes):
    "irprop- that looks at the first number and returns it alone"
    step = ours('irprop-')(w[:1].copy(), lr, etas, step_sizes)
    return lambda w, g, loss: float(step(w[:1], g[:1], loss)[0])


@pytest.mark.parametrize('factory', [single, first_only])
def test_who_takes_one_weight_is_not_set_for_two(factory):
    report = check(factory)
    assert report.beside == 'not set' and not report.habits and set(report.verdicts.values()) == {'bits'}
    assert main([f'{__name__}:{factory.__name__}']) == 0


def test_settings_that_cannot_be_had_and_refusals():
    def picky(w, lr, etas, step_sizes):
        if not step_sizes[0] <= lr <= step_sizes[1]:
            return None
        step = ours('irprop+')(w, lr, etas, step_sizes)

        def act(w, g, loss):
            if not np.isfinite(g).all():
                raise FloatingPointError
            return step(w, g, loss)
        return act
    report = check(picky)
    assert report.variant == 'irprop+' and not report.steps
    assert ({name for name, verdict in report.verdicts.items() if verdict == 'not set'}
            == {'start below the floor', 'start above the cap', 'pitfalls'})
    assert {name for name, verdict in report.verdicts.items() if verdict == 'refused'} == {'nan', 'inf'}


def test_an_error_in_the_wrap_is_not_hidden():
    def broken(w, lr, etas, step_sizes):
        return lambda w, g, loss: undefined  # noqa: F821
    with pytest.raises(NameError):
        check(broken)
    with pytest.raises(ValueError, match='float8'):
        check(ours('irprop-'), 'float8')


def test_run_gives_fresh_arrays_or_one():
    kept = []
    golden = traces()[0]
    run(lambda w, *settings: lambda w, g, loss: kept.append(g) or w, golden)
    assert [float(g[0]) for g in kept] == list(golden.gradients)
    kept.clear()
    run(lambda w, *settings: lambda w, g, loss: kept.append(g) or w, golden, reuse=True)
    assert len({id(g) for g in kept}) == 1


def test_command(capsys):
    assert main(['--list']) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(traces())
    assert main(['rprop_lit.conformance:ours:rprop-', '--dtype', 'float16']) == 0
    assert 'rprop-: 24 of 24 traces bit for bit' in capsys.readouterr().out
    assert main([f'{__name__}:stale']) == 1
    assert 'it is one step late' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(['--dtype', 'float8'])
    assert stop.value.code == 2


def nobody(w, lr, etas, step_sizes):
    "Cannot be set in any way"


def only_odd(w, lr, etas, step_sizes):
    "irprop- where the papers are silent, and not to be set elsewhere"
    return None if step_sizes[0] <= lr <= step_sizes[1] else ours('irprop-')(w, lr, etas, step_sizes)


joined = mixed(MIXERS['the sum of the products decides'])


def keeper(w, lr, etas, step_sizes):
    "irprop- for one weight, which remembers the caller's array of gradients"
    size, kept = np.full_like(w, lr), [np.zeros_like(w)]

    def step(w, g, loss):
        agree = np.sign(g) * np.sign(kept[0])
        size[:] = np.clip(size * np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1)), *step_sizes)
        kept[0] = np.zeros_like(g) if agree < 0 else g
        return w if agree < 0 else w - np.nan_to_num(np.sign(g)) * size
    return step if w.size == 1 else None


def writer(w, lr, etas, step_sizes):
    "irprop- that leaves zeros in the caller's array of gradients"
    step = ours('irprop-')(w, lr, etas, step_sizes)
    return lambda w, g, loss: (step(w, g.copy(), loss), g.fill(0))[0]


@pytest.mark.parametrize('new, said', [(None, 'returned None: return the new weights, 1 of them'),
                                       (np.zeros(3), '1 of them'), ([], '1 of them')])
def test_who_returns_no_weights_is_told_so(new, said):
    with pytest.raises(ValueError, match=said):
        check(lambda w, lr, etas, step_sizes: lambda w, g, loss: new)


def test_a_step_may_return_a_tensor():
    torch = pytest.importorskip('torch', reason='torch is not installed')

    def factory(w, lr, etas, step_sizes):
        p = torch.tensor(w, requires_grad=True)
        optimizer = torch.optim.Rprop([p], lr, etas, step_sizes)

        def step(w, g, loss):
            p.grad = torch.tensor(g)
            optimizer.step()
            return p.detach()
        return step
    report = check(factory)
    assert (report.variant, list(report.steps), report.beside) == ('irprop-', ['tiny gradients'], 'bits')


def test_who_loses_its_weight_to_nan_did_not_therefore_keep_the_gradient():
    report = check(lambda w, lr, etas, step_sizes: lambda w, g, loss: w * np.nan)
    assert (not any('keeps' in habit for habit in report.habits)
            and not set(report.verdicts.values()) & {'bits'})


def test_of_variants_that_explain_equally_much_the_nearer_is_named():
    habit = 'tries half the move again in the old direction'
    walked = {'cap': (habit,), 'huge gradients': (habit,), 'flip, error rose': (habit,), 'other etas': ()}
    pairs = [(trace, Walked(imitate(trace, 'irprop-', walked[trace.name]))) for trace in traces()
             if trace.name in walked]
    assert ({variant: explained(pairs, variant, (habit,)) for variant in ('rprop-', 'irprop-')}
            == {'rprop-': 3, 'irprop-': 3})
    assert judge(pairs).variant == 'irprop-' and judge(pairs).habits == (habit,)


@pytest.mark.parametrize('name, said', [('nobody', 'unknown: 0 of 25'), ('only_odd', ': 3 of 25'),
                                        ('joined', 'irprop-: 25 of 25'),
                                        ('keeper', '25 of 25 traces'),
                                        ('keeper', 'it keeps the gradient array'),
                                        ('writer', '25 of 25 traces'), ('writer', 'it writes into')])
def test_command_fails_where_nothing_or_something_wrong_was_seen(name, said, capsys):
    assert main([f'{__name__}:{name}']) == 1
    assert said in capsys.readouterr().out


NO_FACTORY = ['nonsense', '', ':', 'no_such_module:f', '.relative:f', 'rprop_lit.conformance:nope',
              'rprop_lit.conformance:ours', 'math:pi',
              'os:getcwd', 'rprop_lit.conformance:ours:bogus', 'rprop_lit.conformance:ours:irprop-:more']


@pytest.mark.parametrize('name', NO_FACTORY)
def test_what_is_no_factory_is_one_line_and_status_2(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name])
    out, err = capsys.readouterr()
    assert (stop.value.code == 2 and out == '' and err.count('\n') == 1 and repr(name) in err
            and err.endswith('\n'))


def stale(w, lr, etas, step_sizes):
    "irprop-, one step late"
    step, waiting = ours('irprop-')(w.copy(), lr, etas, step_sizes), [w.copy()]

    def act(w, g, loss):
        waiting.append(np.array(step(w, g, loss)))
        return waiting.pop(0)
    return act


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('trace', traces('float64'), ids=lambda t: t.name)
def test_the_scalar_step_walks_every_trace(trace, variant):
    w, state, kept = trace.start, (0, trace.lr), trace.variants[variant]
    for i, (g, error) in enumerate(zip(trace.gradients, trace.errors)):
        dw, state = step_one(variant, g, error, state, trace.etas, trace.step_sizes)
        w += dw
        assert (dw, math.copysign(1, dw)) == (kept['moves'][i], math.copysign(1, kept['moves'][i]))
        assert (state.sign, state.step, w) == (kept['signs'][i], kept['steps'][i], kept['weights'][i])


# ---- what is no optimizer at all

@pytest.mark.parametrize('new, said', [(np.array([1 + 0j]), 'complex128: return real numbers'),
                                       (np.array([1j], np.complex64), 'complex64'),
                                       (1j, 'complex'), ('0.1', 'of type <U3'), (['0.1'], 'of type <U3'),
                                       ([np.array([True])], 'bool'),
                                       ([[0.1], [0.2, 0.3]], 'return the new weights'), ([None], 'object'),
                                       (b'1', 'return real numbers')])
@pytest.mark.parametrize('origin', ['papers', 'convention'])
def test_what_is_no_real_weight_is_refused(new, said, origin):
    trace = next(t for t in traces() if t.origin == origin)
    with pytest.raises(Misuse, match=said):
        run(lambda w, lr, etas, step_sizes: lambda w, g, loss: new, trace)


def test_weights_that_grow_an_imaginary_part_later():
    def growing(w, lr, etas, step_sizes):
        step, count = ours('irprop-')(w, lr, etas, step_sizes), iter(range(99))
        return lambda w, g, loss: step(w, g, loss) + (1e-30j if next(count) == 4 else 0)
    with pytest.raises(Misuse, match='complex128: return real numbers'):
        check(growing)


@pytest.mark.parametrize('made', [3.5, 0, '', [], np.zeros(1)])
def test_what_is_no_step_is_refused(made):
    with pytest.raises(Misuse,
                       match=r'the factory returned .*: return a function step\(w, g, loss\), or None'):
        check(lambda w, lr, etas, step_sizes: made)


def test_who_spoils_the_weights_it_was_given_harms_nobody():
    def careless(w, lr, etas, step_sizes):
        step = ours('rprop+')(w, lr, etas, step_sizes)

        def act(w, g, loss):
            new = step(w, g, loss)
            w *= np.nan
            return new
        return act
    report = check(careless)
    assert set(report.verdicts.values()) == {report.beside} == {'bits'}


def uncallable(w, lr, etas, step_sizes):
    return 3.5


def texts(w, lr, etas, step_sizes):
    return lambda w, g, loss: '0.1'


def ragged(w, lr, etas, step_sizes):
    return lambda w, g, loss: [[0.1], [0.2, 0.3]]


def imaginary(w, lr, etas, step_sizes):
    return lambda w, g, loss: w + 0j


def broken(w, lr, etas, step_sizes):
    return lambda w, g, loss: undefined  # noqa: F821


@pytest.mark.parametrize('name, said', [('uncallable', 'return a function step'),
                                        ('texts', 'return real numbers'),
                                        ('ragged', 'return the new weights'),
                                        ('imaginary', 'complex128'),
                                        ('broken',
                                         "NameError: name 'undefined' is not defined (test_conformance.py, "
                                         "line ")])
def test_the_command_says_so_in_one_line(name, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main([f'{__name__}:{name}'])
    out, err = capsys.readouterr()
    assert (stop.value.code == 2 and out == '' and err.count('\n') == 1 and said in err
            and 'Traceback' not in err)


def test_a_name_without_a_colon_is_told_what_is_missing(capsys):
    with pytest.raises(SystemExit):
        main(['nope'])
    assert "'nope' is not the package.module:function of a factory" in (err := capsys.readouterr().err)
    assert 'the colon and the function are missing, as in mine:factory' in err


def test_help_shows_the_factory_and_the_protocol(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and 'factory(w, lr, etas, step_sizes)' in out and 'step(w, g, loss)' in out
    assert ("--command './mine'" in out and '0.0 0.1 0.5 1.2 1e-06 50.0' in out
            and max(map(len, out.splitlines())) <= 120)


# ---- programs in any language

PORT = '''
import math, struct, sys
variant, kind = sys.argv[1:]
def cast(x):
    return struct.unpack('f', struct.pack('f', x))[0] if kind == 'float32' else x
w, step, minus, plus, low, high = map(float, sys.stdin.readline().split())
sign, last, before = 0, 0.0, math.inf
for line in sys.stdin:
    g, error = map(float, line.split())
    g = cast(g)
    s = (g > 0) - (g < 0)
    if variant == 'irprop+' and not math.isfinite(error):
        dw, sign, step = -last, 0, min(max(cast(step * minus), low), high)
    else:
        step = min(max(cast(step * (plus if s * sign > 0 else minus if s * sign < 0 else 1)), low), high)
        if s * sign < 0 and variant != 'rprop-':
            dw, sign = (-last if variant == 'rprop+' or variant == 'irprop+' and error > before else 0.0), 0
        else:
            dw, sign = -s * step, s
        before = error
    w, last = cast(w + dw), dw if sign else 0.0
    print(w.hex() if variant == 'rprop+' else w)
'''


@pytest.fixture
def port(tmp_path):
    "The command that runs a Python text as a foreign program"
    def command(text, *args):
        (tmp_path / 'mine.py').write_text(text)
        return ' '.join([f'"{sys.executable}" -I -S', f'"{tmp_path / "mine.py"}"', *args])
    return command


@pytest.mark.parametrize('variant, dtype', list(zip(VARIANTS, ['float64', 'float32', 'float32', 'float64'])))
def test_a_program_is_checked_like_a_factory(variant, dtype, port):
    report = check_program(port(PORT, variant, dtype), dtype)
    assert (report.variant, report.habits, report.steps, report.beside) == (variant, (), {}, 'not set')
    assert set(report.verdicts.values()) == {'bits'}


def test_a_program_with_a_fault_is_told_which(port):
    report = check_program(port(PORT.replace('g = cast(g)', 'g = cast(g) or 1.0'), 'irprop-', 'float64'))
    assert report.variant == 'irprop-' and report.habits == ('counts a zero gradient as positive',)


@pytest.mark.parametrize('text, said', [
    ('print(1)', "trace 'golden': it printed 1 numbers for 9 gradients"),
    ('print("hello")', "it printed 'hello'"),
    ('print("0x1p5000")', "trace 'golden': it printed '0x1p5000'"),
    (r'import sys; sys.stdout.buffer.write(b"1.5\xff\n")', "trace 'golden': it printed '1.5"),
    (r'import sys; sys.stderr.buffer.write(b"no\xff\n"); sys.exit(3)',
     "trace 'golden': it ended with status 3: no"),
    ('import sys; sys.exit("no such thing")', 'it ended with status 1: no such thing'),
    ('1/0', 'status 1: ZeroDivisionError')])
def test_a_program_that_is_none_is_one_line_and_status_2(text, said, port, capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--command', port(text)])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == '' and err.count('\n') == 1 and said in err


@pytest.mark.parametrize('command', ['./no_such_program', '', '"'])
def test_a_program_that_cannot_be_started(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--command', command])
    assert stop.value.code == 2 and capsys.readouterr().err.count('\n') == 1


def test_a_program_that_does_not_end_is_stopped(port):
    with pytest.raises(Misuse, match='not ended after 0.5 seconds'):
        run_program(port('import time; time.sleep(60)'), traces()[0], seconds=0.5)


def test_a_program_that_cannot_be_set_so_or_refuses(port):
    text = PORT.replace('sign, last,', 'if not low <= step <= high: sys.exit()\nsign, last,')
    text = text.replace('    g = cast(g)\n', '    g = cast(g)\n    if g - g != 0: sys.exit("not finite")\n')
    report = check_program(port(text, 'irprop-', 'float64'))
    assert ({name for name, verdict in report.verdicts.items() if verdict == 'not set'}
            == {'start below the floor', 'start above the cap', 'pitfalls'})
    assert ({name for name, verdict in report.verdicts.items() if verdict == 'refused'} == {'nan', 'inf'}
            and not report.steps)


def test_the_lines_read_back_exactly(tmp_path, port):
    for trace in traces('float32'):
        run_program(port(f'import sys; open({str(tmp_path / "seen")!r}, "w").write(sys.stdin.read())'), trace)
        first, *rest = [tuple(map(float, line.split()))
                        for line in (tmp_path / 'seen').read_text().splitlines()]
        assert first == (trace.start, trace.lr, *trace.etas, *trace.step_sizes)
        assert repr(rest) == repr(list(zip(trace.gradients, trace.errors)))


# ---- numbers of the check

def test_rounding_is_a_unit_in_the_last_place_at_each_step():
    trace = BY_NAME['golden', 'float32']
    want = (1.0, 4.0, -2.0)
    unit = float(np.finfo(np.float32).eps) * 3 * 4.0
    assert (departs((1.0, 4.0 + unit, -2.0), want, trace) is None
            and departs((1.0, 4.0 + 1.01 * unit, -2.0), want, trace) == 1)
    assert (departs((1.0, 4.0, -2.0 - unit), want) == 2 and departs((1.0, 4.0), want) == 2
            and departs((1.0,), want, trace) == 1)


def test_a_habit_costs_half_a_trace():
    pairs = [(trace, Walked(imitate(trace, 'rprop+'))) for trace in traces()
             if trace.name in ('flip', 'flip, error rose')]
    assert judge(pairs).variant == 'rprop+' and judge(pairs).habits == ()
    found = habits_module._add_habits(
        [(BY_NAME['flip', 'float64'],
          Walked(imitate(BY_NAME['flip', 'float64'], 'irprop-', ('moves at a flip',))))], 'irprop-')
    assert [(score, bare, len(habits)) for score, bare, _, habits in found] == [(0.0, 0, 0), (0.5, 0, 1)]


def test_the_report_counts_steps_from_0():
    report = check(stale)
    first, step = next(iter(report.steps.items()))
    assert f'first in {first!r} at step {step} from 0' in str(report) and step == 0


def test_command_as_a_module():
    done = subprocess.run([sys.executable, '-m', 'rprop_lit.conformance', '--list'], capture_output=True,
                          text=True, check=True)
    assert done.stdout.startswith('golden') and not done.stderr


# ---- the others

RECORDS = {record['name']: record for record in json.loads((TESTS / 'others.json').read_text())}


def recorded(name, dtype):
    runs = {row['name']: row['run'] for row in RECORDS[name]['runs'] if row['dtype'] == dtype}
    return [(trace, Walked(tuple(map(float.fromhex, runs[trace.name]['weights'])),
                           runs[trace.name]['refused'], runs[trace.name]['wrote'])
             if runs[trace.name] else None) for trace in traces(dtype) if trace.name in runs]


def test_records_are_whole():
    for name, record in RECORDS.items():
        assert record['version'] and record['installed'] and record['date'] and record['python'], name
        for row in record['runs']:
            assert (row['name'], row['dtype']) in BY_NAME
            trace = BY_NAME[row['name'], row['dtype']]
            assert (row['run'] is None or row['run']['refused']
                    or len(row['run']['weights']) == len(trace.gradients))


@pytest.mark.parametrize('foreach', [False, True])
@pytest.mark.parametrize('dtype', DTYPES)
def test_torch_live_is_as_recorded(dtype, foreach):
    torch = pytest.importorskip('torch', reason='torch is not installed')

    def factory(w, lr, etas, step_sizes):
        p = torch.from_numpy(w.copy()).requires_grad_()
        optimizer = torch.optim.Rprop([p], lr=lr, etas=etas, step_sizes=step_sizes, foreach=foreach)

        def step(w, g, loss):
            p.grad = torch.from_numpy(g)
            optimizer.step()
            return p.detach().numpy()
        return step
    live = check(factory, dtype)
    assert live.variant == 'irprop-' and live.habits == ('multiplies gradients, and small products vanish',)
    assert list(live.steps) == ['tiny gradients'] and not live.unexplained and live.beside == 'bits'
    assert set(live.verdicts.values()) == ({'bits', 'rounding', 'astray'} if dtype == 'float16'
                                           else {'bits', 'astray'})
    if torch.__version__.split('+')[0] == RECORDS['torch']['version'].split('+')[0]:
        stored = judge(recorded('torch foreach' if foreach else 'torch', dtype))
        # the records are older than this trace
        assert set(live.verdicts) - set(stored.verdicts) == {'pitfalls'}
        assert live._replace(beside='not set',
                             verdicts={name: live.verdicts[name] for name in stored.verdicts}) == stored

