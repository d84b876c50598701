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
from rprop_lit.conformance import AFTER, BEFORE, Seen, check, explained, follow, judge, main, ours, run, side_by_side, traces
from rprop_lit.rule import State, init
from rprop_lit.variants import VARIANTS, update

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
            move, sign, step = -last, 0, min(max(rounded(step * eta_minus, *wide), lo), hi)
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
    rows = list(zip(kept['signs'], *(map(Fraction, kept[key]) for key in ('steps', 'moves', 'weights')), strict=True))
    assert rows == by_fractions(trace, variant)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_golden_trace_is_the_one_written_down_by_hand(variant, dtype):
    golden = BY_NAME['golden', dtype]
    assert [round(x, 5) for x in golden.variants[variant]['moves']] == PUBLISHED[variant]
    assert golden.gradients == (1, 1, -1, -1, -1, 1, 0, 1, 1)


def test_the_script_makes_the_file():
    done = subprocess.run([sys.executable, TESTS / 'make_traces.py', '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_file_explains_each_of_its_fields():
    file = json.loads((Path(conformance.__file__).parent / 'data' / 'traces.json').read_text())
    fields, ways = file['about']['traces'], file['about']['traces']['variants']
    for trace in file['traces']:
        assert set(trace) == set(fields) and set(trace['variants']) == set(VARIANTS)
        for way in trace['variants'].values():
            assert set(way) == set(ways) and {len(x) for x in way.values()} == {len(trace['gradients'])} == {len(trace['errors'])}


@pytest.mark.parametrize('dtype', DTYPES)
def test_traces_show_what_they_promise(dtype):
    by_name = {trace.name: trace for trace in traces(dtype)}
    signs = {name: np.sign(np.nan_to_num(trace.gradients)) for name, trace in by_name.items()}
    def ways(name, key):
        return {variant: by_name[name].variants[variant][key] for variant in VARIANTS}
    assert len({tuple(moves) for moves in ways('golden', 'moves').values()}) == 4
    for tiny, g in [('tiny gradients', 0), ('huge gradients', math.inf)]:
        with np.errstate(all='ignore'):
            assert abs(np.dtype(dtype).type(by_name[tiny].gradients[0]) * np.dtype(dtype).type(by_name[tiny].gradients[1])) == g
        assert ways(tiny, 'moves') == ways('sizes', 'moves') == ways('golden', 'moves')
    assert min(ways('floor', 'steps')['irprop-']) == by_name['floor'].step_sizes[0] < by_name['floor'].lr
    assert max(ways('cap', 'steps')['irprop-']) == by_name['cap'].step_sizes[1] > by_name['cap'].lr
    assert by_name['start below the floor'].lr < by_name['start below the floor'].step_sizes[0]
    assert by_name['start above the cap'].lr > by_name['start above the cap'].step_sizes[1]
    assert ways('flip, error fell', 'moves')['irprop+'] != ways('flip, error rose', 'moves')['irprop+']
    assert ways('flip, error same', 'moves')['irprop+'] == ways('flip, error fell', 'moves')['irprop+']
    assert any(math.isnan(g) for g in by_name['nan'].gradients) and any(math.isinf(g) for g in by_name['inf'].gradients)
    assert list(signs['two flips'][1:5]) == [1, -1, 1, -1]


# ---- this package against the file

@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('trace', EVERY, ids=lambda t: f'{t.name}-{t.dtype}')
def test_update_walks_every_trace(trace, variant):
    w = np.full(3, trace.start, trace.dtype)
    state, kept = init(w, trace.lr), trace.variants[variant]
    for i, (g, error) in enumerate(zip(trace.gradients, trace.errors)):
        dw, state = update(np.full(3, g, trace.dtype), state, variant=variant, etas=trace.etas, step_sizes=trace.step_sizes, loss=error)
        w = (w + dw).astype(trace.dtype)
        assert isinstance(state, State) and dw.dtype == state.step.dtype == trace.step_dtype
        assert (state.sign == kept['signs'][i]).all() and (state.step == kept['steps'][i]).all()
        assert (dw == kept['moves'][i]).all() and (w == kept['weights'][i]).all()


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_our_optimizer_walks_every_trace(variant, dtype):
    report = check(ours(variant), dtype)
    assert (report.variant, report.habits, report.steps, report.unexplained) == (variant, (), {}, ())
    assert set(report.verdicts.values()) == {report.beside} == {'bits'}


# ---- the check itself

def made(variant, *habits):
    "What somebody with these habits does with every trace"
    return [(trace, Seen(follow(trace, variant, habits))) for trace in traces()]


# the variant that shows a habit; `rprop-` neither forgets nor undoes, so little can be spoiled there
SHOWN_BY = {'takes moves back without their sign': 'rprop+', 'repeats the overshoot where it should stay': 'irprop+',
            'compares the errors of the two steps before': 'irprop+', 'does not ask whether the error is finite': 'irprop+'}


@pytest.mark.parametrize('habit', BEFORE | AFTER)
def test_every_habit_is_found_out(habit):
    variant = SHOWN_BY.get(habit, 'irprop-')
    also = ('is one step late',) if habit.startswith('drops') else ()
    report = judge(made(variant, habit, *also))
    assert report.steps and not report.unexplained
    assert set(report.habits) == {habit, *also}
    if habit not in ('moves at a flip', 'tries half the move again in the old direction'):  # these leave no trace of the variant
        assert report.variant == variant


def test_two_habits_are_found_together():
    report = judge(made('irprop-', 'grows at the first step', 'never recovers from one NaN'))
    assert report.variant == 'irprop-' and set(report.habits) == {'grows at the first step', 'never recovers from one NaN'}


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
    assert report.variant == 'irprop-' and not report.habits and set(report.verdicts.values()) == {'rounding'} and report.beside == 'bits'


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
            step[:] = np.clip(step * np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1)), *step_sizes)
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
            size[:] = np.clip(size * np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1)), *step_sizes)
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
    assert {name for name, verdict in report.verdicts.items() if verdict == 'not set'} == {'start below the floor', 'start above the cap'}
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
    assert 'rprop-: 23 of 23 traces bit for bit' in capsys.readouterr().out
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


@pytest.mark.parametrize('new, said', [(None, 'returned None: return the new weights, 1 of them'), (np.zeros(3), '1 of them'), ([], '1 of them')])
def test_who_returns_no_weights_is_told_so(new, said):
    with pytest.raises(ValueError, match=said):
        check(lambda w, lr, etas, step_sizes: lambda w, g, loss: new)


def test_a_step_may_return_a_tensor():
    torch = pytest.importorskip('torch')

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
    assert not any('keeps' in habit for habit in report.habits) and not set(report.verdicts.values()) & {'bits'}


def test_of_variants_that_explain_equally_much_the_nearer_is_named():
    habit = 'tries half the move again in the old direction'
    walked = {'cap': (habit,), 'huge gradients': (habit,), 'flip, error rose': (habit,), 'other etas': ()}
    pairs = [(trace, Seen(follow(trace, 'irprop-', walked[trace.name]))) for trace in traces() if trace.name in walked]
    assert {variant: explained(pairs, variant, (habit,)) for variant in ('rprop-', 'irprop-')} == {'rprop-': 3, 'irprop-': 3}
    assert judge(pairs).variant == 'irprop-' and judge(pairs).habits == (habit,)


@pytest.mark.parametrize('name, said', [('nobody', 'unknown: 0 of 24'), ('only_odd', ': 2 of 24'), ('joined', 'irprop-: 24 of 24'),
                                        ('keeper', '24 of 24 traces'), ('keeper', 'it keeps the gradient array'), ('writer', '24 of 24 traces'), ('writer', 'it writes into')])
def test_command_fails_where_nothing_or_something_wrong_was_seen(name, said, capsys):
    assert main([f'{__name__}:{name}']) == 1
    assert said in capsys.readouterr().out


NO_FACTORY = ['nonsense', '', ':', 'no_such_module:f', '.relative:f', 'rprop_lit.conformance:nope', 'rprop_lit.conformance:ours', 'math:pi',
              'os:getcwd', 'rprop_lit.conformance:ours:bogus', 'rprop_lit.conformance:ours:irprop-:more']


@pytest.mark.parametrize('name', NO_FACTORY)
def test_what_is_no_factory_is_one_line_and_status_2(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == '' and err.count('\n') == 1 and repr(name) in err and err.endswith('\n')


def stale(w, lr, etas, step_sizes):
    "irprop-, one step late"
    step, waiting = ours('irprop-')(w.copy(), lr, etas, step_sizes), [w.copy()]

    def act(w, g, loss):
        waiting.append(np.array(step(w, g, loss)))
        return waiting.pop(0)
    return act


def test_command_as_a_module():
    done = subprocess.run([sys.executable, '-m', 'rprop_lit.conformance', '--list'], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('golden') and not done.stderr


# ---- the others

RECORDS = {record['name']: record for record in json.loads((TESTS / 'others.json').read_text())}


def recorded(name, dtype):
    runs = {row['name']: row['run'] for row in RECORDS[name]['runs'] if row['dtype'] == dtype}
    return [(trace, Seen(tuple(map(float.fromhex, runs[trace.name]['weights'])), runs[trace.name]['refused'], runs[trace.name]['wrote'])
             if runs[trace.name] else None) for trace in traces(dtype)]


def test_records_are_whole():
    for name, record in RECORDS.items():
        assert record['version'] and record['installed'] and record['date'] and record['python'], name
        for row in record['runs']:
            assert (row['name'], row['dtype']) in BY_NAME
            trace = BY_NAME[row['name'], row['dtype']]
            assert row['run'] is None or row['run']['refused'] or len(row['run']['weights']) == len(trace.gradients)


@pytest.mark.parametrize('foreach', [False, True])
@pytest.mark.parametrize('dtype', DTYPES)
def test_torch_live_is_as_recorded(dtype, foreach):
    torch = pytest.importorskip('torch')

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
    assert set(live.verdicts.values()) == ({'bits', 'rounding', 'astray'} if dtype == 'float16' else {'bits', 'astray'})
    if torch.__version__.split('+')[0] == RECORDS['torch']['version'].split('+')[0]:
        assert live._replace(beside='not set') == judge(recorded('torch foreach' if foreach else 'torch', dtype))

