"""The sunspot command: its data, its training, its table and its behaviour as a program."""
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from rprop_lit import __main__ as command
from rprop_lit.__main__ import (
    LINE,
    PERIODS,
    arv,
    evaluations_to,
    fit,
    forecast_of,
    linear,
    main,
    network,
    picture,
    standings,
    sunspot_task,
    sunspots,
    table,
    windows,
)
from rprop_lit.rule import init
from rprop_lit.variants import VARIANTS, update

ROOT = Path(__file__).resolve().parent.parent
TASK = sunspot_task()


@pytest.fixture(scope='module')
def fits():
    "Each variant, trained for a short while"
    return {variant: fit(TASK, variant, epochs=60) for variant in VARIANTS}


def run(*args, cwd, python=('-m', 'rprop_lit')):
    "Run the command in a folder of its own, as a user would"
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '100', 'PYTHONIOENCODING': 'utf-8'}
    return subprocess.run([sys.executable, *python, *args], cwd=cwd, env=env, capture_output=True, encoding='utf-8', timeout=120)


# The data

def test_the_numbers_are_those_of_the_source():
    years, counts = sunspots()
    assert years.tolist() == list(range(1700, 1980))
    known = {1700: 5, 1712: 0, 1750: 83.4, 1778: 154.4, 1816: 45.8, 1913: 1.4, 1920: 37.6, 1957: 190.2, 1979: 155.4}
    assert {year: counts[year - 1700] for year in known} == known
    assert counts.min() == 0 and counts.max() == 190.2 and round(counts.sum(), 6) == 13365.1


def test_the_file_names_its_source():
    text = (files('rprop_lit') / 'data' / 'sunspots.csv').read_text(encoding='utf-8')
    assert 'Public domain' in text and 'National Geophysical Data Center' in text and 'statsmodels' in text
    assert sum(line[0].isdigit() for line in text.splitlines()) == 280


def test_windows_are_the_years_before_oldest_first():
    inputs, targets = windows(np.arange(20.0), 12)
    assert inputs[0].tolist() == list(range(12)) and targets.tolist() == list(range(12, 20)) and inputs.shape == (8, 12)


def test_the_periods_do_not_overlap_and_the_scale_is_of_the_training_years():
    assert {name: (TASK.years[part].min(), TASK.years[part].max()) for name, part in TASK.parts.items()} == PERIODS
    counts = sunspots()[1]
    assert TASK.scale == 154.4 and np.array_equal(TASK.targets, counts[12:] / 154.4)
    assert np.array_equal(TASK.inputs[-1], counts[-13:-1] / 154.4)


# The score and the line

def test_arv_is_the_mean_square_over_the_variance_of_all_280_years():
    counts = sunspots()[1]
    miss = np.where(TASK.years > 1955, 30.0, 10.0) / TASK.scale
    scores = arv(TASK.targets + miss, TASK)
    expected = np.array([100, 100, 900]) / np.mean((counts - counts.mean())**2)
    assert np.allclose(list(scores.values()), expected, rtol=1e-12)  # summed in another order


def test_the_line_solves_the_normal_equations_of_the_training_years_alone():
    X = np.hstack([TASK.inputs, np.ones((268, 1))])
    residual = (linear(TASK) - TASK.targets)[TASK.parts['training']]
    assert np.abs(X[TASK.parts['training']].T @ residual).max() < 1e-10  # zero but for rounding
    assert [round(score, 4) for score in arv(linear(TASK), TASK).values()] == [0.1319, 0.1296, 0.3679]
    later = TASK._replace(targets=np.where(TASK.years > 1920, 0, TASK.targets))
    assert np.array_equal(linear(later), linear(TASK))


# The network

@pytest.mark.parametrize('variant', VARIANTS)
def test_training_is_that_of_a_network_written_out_by_hand(variant):
    w = [p.data.copy() for p in network(3).parameters()]
    states = [init(p, 0.01) for p in w]
    n = TASK.parts['training'].stop
    x, y, curve = TASK.inputs[:n], TASK.targets[:n], []
    for _ in range(100):
        h = np.tanh(x @ w[0].T + w[1])
        miss = (h @ w[2].T + w[3])[:, 0] - y
        curve.append(np.mean(miss**2) / TASK.variance)
        out = 2 * miss[:, None] / n
        back = (out @ w[2]) * (1 - h**2)
        for i, g in enumerate([back.T @ x, back.sum(0), out.T @ h, out.sum(0)]):
            dw, states[i] = update(g, states[i], variant=variant, loss=np.mean(miss**2))
            w[i] = w[i] + dw
    fitted = fit(TASK, variant, seed=3, epochs=100)
    assert np.allclose(fitted.errors['training'], curve, rtol=1e-9)  # gradients summed in another order; signs agree
    assert np.allclose(fitted.steps[-1], np.concatenate([s.step.ravel() for s in states]), rtol=1e-12)


def test_the_kept_weights_are_those_of_the_lowest_validation_error(fits):
    for f in fits.values():
        assert arv(forecast_of(f, TASK), TASK) == {name: curve[f.stopped] for name, curve in f.errors.items()}
        assert f.errors['validation'][f.stopped] == f.errors['validation'].min()
    assert min(f.stopped for f in fits.values()) < 59  # so that somewhere the last weights are not the kept ones


def test_validation_and_test_years_take_no_part_in_the_gradient(fits):
    other = TASK._replace(targets=np.where(TASK.years > 1920, 0.5, TASK.targets))
    again = fit(other, 'irprop+', epochs=60)
    assert np.array_equal(again.errors['training'], fits['irprop+'].errors['training'])
    assert np.array_equal(again.steps, fits['irprop+'].steps)
    assert not np.array_equal(again.errors['validation'], fits['irprop+'].errors['validation'])


def test_a_seed_is_a_start(fits):
    one, two = fit(TASK, 'rprop+', 0, 5), fit(TASK, 'rprop+', 1, 5)
    assert np.array_equal(one.errors['training'], fits['rprop+'].errors['training'][:5])
    assert not np.array_equal(one.errors['training'], two.errors['training'])
    hidden, output = (p.data for p in list(network(0).parameters())[::2])
    assert hidden.shape == (8, 12) and output.shape == (1, 8) and hidden.dtype == float


def test_the_bar_is_told_of_every_evaluation():
    ticks = []
    f = fit(TASK, 'irprop-', epochs=7, tick=lambda: ticks.append(1))
    assert len(ticks) == 7 and f.steps.shape == (7, 113) and all(len(curve) == 7 for curve in f.errors.values())


# The table

def test_evaluations_are_counted_from_one():
    assert [evaluations_to(np.array([3.0, 2.0, 2.5, 1.0]), level) for level in (3, 2, 1.5, 0.5)] == [1, 2, 4, None]


def test_the_table_shows_the_standings(fits):
    lines, scores = table(TASK, fits).splitlines(), standings(TASK, fits)
    assert [line.split()[0] for line in lines[3:-1]] == list(VARIANTS) and lines[2].startswith(LINE)
    level = scores[LINE]['training'] * 2 / 3
    for line, (variant, f) in zip(lines[3:-1], fits.items(), strict=True):
        target = evaluations_to(f.errors['training'], level)
        numbers = [f'{x:.4f}' for x in (*scores[variant].values(), f.errors['training'].min())]
        assert line.split() == [variant, str(target or '-'), str(f.stopped + 1), *numbers]
    best = [min(scores, key=lambda name: scores[name][period]) for period in ('validation', 'test')]
    assert lines[-1] == f'Best in the validation years: {best[0]}; in the test years: {best[1]}.'


# The picture

@pytest.mark.parametrize('suffix, head', [('png', b'\x89PNG'), ('svg', b'<?xml'), ('pdf', b'%PDF')])
def test_the_picture_is_saved_and_leaves_matplotlib_alone(fits, tmp_path, suffix, head):
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    before = plt.get_fignums(), dict(matplotlib.rcParams)
    picture(TASK, fits, tmp_path / f'sun.{suffix}')
    assert (tmp_path / f'sun.{suffix}').read_bytes().startswith(head)
    assert (plt.get_fignums(), dict(matplotlib.rcParams)) == before


def test_what_the_pictures_draw(fits):
    from matplotlib.figure import Figure
    above, middle, below = Figure().subplots(3, 1)
    command.draw_forecast(fits, TASK, above)
    truth, line, net = above.lines[:3]
    best = min(fits, key=lambda variant: fits[variant].errors['validation'].min())
    assert truth.get_xdata().tolist() == list(range(1921, 1980))
    assert np.allclose(truth.get_ydata(), sunspots()[1][221:], rtol=1e-14)  # scaled and scaled back
    assert np.array_equal(line.get_ydata(), linear(TASK)[209:] * TASK.scale)
    assert np.array_equal(net.get_ydata(), forecast_of(fits[best], TASK)[209:] * TASK.scale) and best in net.get_label()
    command.draw_curves(fits, TASK, middle)
    drawn = [line.get_ydata() for line in middle.lines]
    for f in fits.values():
        assert all(any(np.array_equal(y, f.errors[name]) for y in drawn) for name in ('training', 'validation'))
        assert any(np.array_equal(line.get_xydata(), [[f.stopped, f.errors['validation'][f.stopped]]]) for line in middle.lines)
    command.draw_steps(fits, below)
    assert np.allclose(below.images[0].get_array(), np.log10(fits[best].steps).T)


# The program

def test_one_seed_one_table_and_a_picture(tmp_path):
    first, second = (run('--epochs', '40', '--seed', '7', cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout and all(f'\n{name} ' in first.stdout for name in [LINE, *VARIANTS])
    assert (tmp_path / 'rprop_sunspots.png').read_bytes().startswith(b'\x89PNG') and 'rprop_sunspots.png' in first.stdout
    assert '160/160' in first.stderr  # the progress bar
    other = run('--epochs', '40', '--seed', '8', '--no-plot', cwd=tmp_path)
    assert other.returncode == 0 and other.stdout.split(LINE)[0] == first.stdout.split(LINE)[0]
    assert other.stdout.split('rprop- ')[1] != first.stdout.split('rprop- ')[1]


def test_one_variant_and_a_picture_elsewhere(tmp_path):
    (tmp_path / 'pictures').mkdir()
    done = run('--variant', 'IRPROP+', '--epochs', '20', '--out', 'pictures/sun.svg', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'irprop+ ' in done.stdout and 'rprop- ' not in done.stdout
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*.*')] == ['pictures/sun.svg']


def test_without_a_picture_there_is_no_matplotlib(tmp_path):
    program = ("import runpy, sys\nsys.argv = ['rprop_lit', '--no-plot', '--epochs', '3']\n"
               "try:\n    runpy.run_module('rprop_lit', run_name='__main__')\n"
               "except SystemExit as end:\n    assert end.code == 0\n"
               "heavy = {'matplotlib', 'torch', 'scipy', 'cupy', 'numba', 'nbdev'}\n"
               "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))")
    done = run(cwd=tmp_path, python=('-c', program))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]' and not list(tmp_path.iterdir())


BAD = [(['--variant', 'adam'], "'adam'"), (['--epochs', '0'], "'0' is not a whole number from 1 to"), (['--epochs', '1e3'], "'1e3'"),
       (['--epochs', '9' * 30], 'whole number'), (['--seed', '-1'], "'-1'"), (['--seed', '4294967296'], 'to 4294967295'),
       (['--seed'], '--seed'), (['--out', 'sun.txt'], '.png, .pdf or .svg'),
       (['--out', 'nowhere/sun.png'], "'nowhere/sun.png' cannot be written"), (['--out', 'sun.png', '--no-plot'], '--no-plot'),
       (['--speed', '3'], '--speed'), (['--ep', '3'], '--ep'), (['now'], 'now')]


@pytest.mark.parametrize('args, said', BAD, ids=[' '.join(args)[:30] for args, _ in BAD])
def test_a_bad_option_is_one_line_and_status_2(args, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(args)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == '' and said in err and err.startswith('rprop_lit: ')
    assert err.count('\n') == 1 and err.endswith('\n')


def test_a_number_is_a_number_in_every_script():
    assert command.parser().parse_args(['--epochs', '\N{ARABIC-INDIC DIGIT THREE}']).epochs == 3  # as for Python's own int


def test_a_bad_option_as_a_program(tmp_path):
    done = run('--epochs', 'many', cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1) and "'many'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_saved_is_one_line_after_the_table(monkeypatch, capsys, tmp_path):
    def full(*_):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(command, 'picture', full)
    with pytest.raises(SystemExit) as end:
        main(['--epochs', '2', '--variant', 'rprop-', '--out', str(tmp_path / 'sun.png')])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and LINE in out and 'No space left on device' in err.splitlines()[-1]


def test_help(tmp_path):
    done = run('--help', cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ''
    assert all(option in done.stdout for option in ('--variant', '--seed', '--epochs', '--out', '--no-plot', '--help'))


def test_importing_the_command_runs_nothing(tmp_path):
    done = run(cwd=tmp_path, python=('-c', 'import rprop_lit.__main__'))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '') and not list(tmp_path.iterdir())
