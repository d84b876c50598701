"""The sunspot command: its data, its training, its table and its behaviour as a program."""
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import rprop_lit
from rprop_lit import command
from rprop_lit import sunspots as page
from rprop_lit.command import main
from rprop_lit.rule import init
from rprop_lit.sunspots import (
    LINE,
    PERIODS,
    TARGET,
    _evaluations_to,
    ahead,
    arv,
    fit,
    forecast_of,
    kept,
    leading,
    linear,
    network,
    picture,
    standing,
    sunspot_task,
    sunspots,
    table,
    train,
    verdict,
    windows,
)
from rprop_lit.variants import VARIANTS, update

ROOT = Path(__file__).resolve().parent.parent
TASK = sunspot_task()


@pytest.fixture(scope='module')
def runs():
    "Each variant, trained for a short while from three starts"
    return train(TASK, seeds=range(3), epochs=60)


@pytest.fixture(scope='module')
def fits(runs):
    "The networks of the first start"
    return {variant: group[0] for variant, group in runs.items()}


def run(*args, cwd, python=('-m', 'rprop_lit')):
    "Run the command in a folder of its own, as a user would"
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '80', 'PYTHONIOENCODING': 'utf-8'}
    return subprocess.run([sys.executable, *python, *args], cwd=cwd, env=env, capture_output=True,
                          encoding='utf-8', timeout=120)


# The data

def test_the_numbers_are_those_of_the_source():
    years, counts = sunspots()
    assert years.tolist() == list(range(1700, 1980))
    known = {1700: 5, 1712: 0, 1750: 83.4, 1778: 154.4, 1816: 45.8, 1913: 1.4, 1920: 37.6,
             1957: 190.2, 1979: 155.4}
    assert {year: counts[year - 1700] for year in known} == known
    assert counts.min() == 0 and counts.max() == 190.2 and round(counts.sum(), 6) == 13365.1


def test_the_file_names_its_source():
    text = (files('rprop_lit') / 'data' / 'sunspots.csv').read_text(encoding='utf-8')
    assert 'Public domain' in text and 'National Geophysical Data Center' in text and 'statsmodels' in text
    assert sum(line[0].isdigit() for line in text.splitlines()) == 280


def test_windows_are_the_years_before_oldest_first():
    inputs, targets = windows(np.arange(20.0), 12)
    assert (inputs[0].tolist() == list(range(12)) and targets.tolist() == list(range(12, 20))
            and inputs.shape == (8, 12))


def test_the_periods_do_not_overlap_and_the_scale_is_of_the_training_years():
    assert ({name: (TASK.years[part].min(), TASK.years[part].max()) for name, part in TASK.parts.items()}
            == PERIODS)
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
    # gradients summed in another order; signs agree
    assert np.allclose(fitted.errors['training'], curve, rtol=1e-9)
    assert np.allclose(fitted.steps[-1], np.concatenate([s.step.ravel() for s in states]), rtol=1e-12)


def test_the_kept_weights_are_those_of_the_lowest_validation_error(fits):
    for f in fits.values():
        assert arv(forecast_of(f, TASK), TASK) == {name: curve[f.stopped] for name, curve in f.errors.items()}
        assert f.errors['validation'][f.stopped] == f.errors['validation'].min()
    # so that somewhere the last weights are not the kept ones
    assert min(f.stopped for f in fits.values()) < 59


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
    assert (len(ticks) == 7 and f.steps.shape == (7, 113)
            and all(len(curve) == 7 for curve in f.errors.values()))


# The starts

def test_every_variant_is_trained_from_every_start():
    ticks = []
    runs = train(TASK, ['rprop-', 'irprop+'], [4, 2, 9], 3, lambda: ticks.append(1))
    assert list(runs) == ['rprop-', 'irprop+'] and len(ticks) == 18
    for variant, group in runs.items():
        assert ([f.errors['training'].tolist() for f in group]
                == [fit(TASK, variant, seed, 3).errors['training'].tolist() for seed in (4, 2, 9)])


def test_kept_errors_and_wins(runs):
    for group in runs.values():
        errors = kept(group)
        for k, f in enumerate(group):
            assert arv(forecast_of(f, TASK), TASK) == {period: errors[period][k] for period in PERIODS}
        line = arv(linear(TASK), TASK)
        assert ahead(TASK, group) == {period: sum(x < line[period] for x in errors[period])
                                      for period in PERIODS}


def test_the_leading_start_is_that_of_the_lowest_validation_error(runs):
    for variant, f in leading(runs).items():
        assert any(f is g for g in runs[variant])
        assert f.errors['validation'].min() == min(g.errors['validation'].min() for g in runs[variant])
    assert any(f is not runs[variant][0] for variant, f in leading(runs).items())


# The table

def test_evaluations_are_counted_from_one():
    assert ([_evaluations_to(np.array([3.0, 2.0, 2.5, 1.0]), level) for level in (3, 2, 1.5, 0.5)]
            == [1, 2, 4, np.inf])


def test_a_standing_holds_medians():
    group = train(TASK, ['irprop+'], range(3), 200)['irprop+']
    row, level = standing(TASK, group), TARGET * arv(linear(TASK), TASK)['training']
    assert row['target'] == sorted(_evaluations_to(f.errors['training'], level) for f in group)[1] < 200
    assert row['kept'] == sorted(f.stopped + 1 for f in group)[1]
    assert ({period: row[period] for period in PERIODS}
            == {period: sorted(e)[1] for period, e in kept(group).items()})


def test_the_table_shows_the_standings(runs):
    lines = table(TASK, runs).splitlines()
    assert [line.split()[0] for line in lines[3:]] == list(VARIANTS) and max(map(len, lines)) <= 80
    assert lines[2].split() == [*LINE.split(), '-', '-',
                                *(f'{x:.4f}' for x in arv(linear(TASK), TASK).values()), '-', '-']
    for line, (variant, group) in zip(lines[3:], runs.items(), strict=True):
        row, test = standing(TASK, group), kept(group)['test']
        waits = '-' if row['target'] == np.inf else f"{row['target']:g}", f"{row['kept']:g}"
        errors = [f'{row[period]:.4f}' for period in PERIODS]
        assert line.split() == [variant, *waits, *errors, f'{test.min():.3f}-{test.max():.3f}',
                                f"{ahead(TASK, group)['test']}/3"]


@pytest.mark.parametrize('past, future, said',
                         [(3, 2, 'to forecast better too'), (2, 1, 'not to forecast better'),
                          (1, 0, 'not even'), (0, 3, 'lucky')])
def test_the_verdict_goes_by_majorities(past, future, said, monkeypatch):
    monkeypatch.setattr(page, 'ahead', lambda task, fits: {'training': past, 'test': future})
    assert verdict(TASK, {'a': [None], 'b': [None, None]}).startswith(
        f'Ahead of the line: {past} of 3 networks in the training years, {future} in the test years;\n')
    assert said in verdict(TASK, {'a': [None] * 3})
    monkeypatch.setattr(page, 'ahead', lambda task, fits: {'training': 2, 'test': 2})
    assert 'not even' in verdict(TASK, {'a': [None] * 4})  # half is no majority


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
    page.draw_forecast(fits, TASK, above)
    truth, line, net = above.lines[:3]
    best = min(fits, key=lambda variant: fits[variant].errors['validation'].min())
    assert truth.get_xdata().tolist() == list(range(1921, 1980))
    assert np.allclose(truth.get_ydata(), sunspots()[1][221:], rtol=1e-14)  # scaled and scaled back
    assert np.array_equal(line.get_ydata(), linear(TASK)[209:] * TASK.scale)
    assert (np.array_equal(net.get_ydata(), forecast_of(fits[best], TASK)[209:] * TASK.scale)
            and best in net.get_label())
    page.draw_curves(fits, TASK, middle)
    drawn = [line.get_ydata() for line in middle.lines]
    for f in fits.values():
        assert all(any(np.array_equal(y, f.errors[name]) for y in drawn)
                   for name in ('training', 'validation'))
        assert any(np.array_equal(line.get_xydata(), [[f.stopped, f.errors['validation'][f.stopped]]])
                   for line in middle.lines)
    page.draw_steps(fits, below)
    assert np.allclose(below.images[0].get_array(), np.log10(fits[best].steps).T)


# The program

def test_one_seed_one_table_and_a_picture(tmp_path):
    first, second = (run('--epochs', '20', '--starts', '2', '--seed', '7', cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout and all(f'\n{name} ' in first.stdout for name in [LINE, *VARIANTS])
    assert ((tmp_path / 'rprop_sunspots.png').read_bytes().startswith(b'\x89PNG')
            and 'rprop_sunspots.png' in first.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ['rprop_sunspots.png']
    assert '160/160' in first.stderr  # the progress bar
    assert ('113 weights' in first.stdout and 'seeds 7 to 8' in first.stdout
            and max(map(len, first.stdout.splitlines())) <= 81)
    other = run('--epochs', '20', '--starts', '2', '--seed', '8', '--no-plot', cwd=tmp_path)
    assert other.returncode == 0 and other.stdout.split('rprop- ')[1] != first.stdout.split('rprop- ')[1]


def test_several_starts_by_default():
    options = command._parser().parse_args([])
    assert (options.starts, options.seed, options.epochs, options.variant) == (5, 0, 500, 'all')


def test_one_variant_and_a_picture_elsewhere(tmp_path):
    (tmp_path / 'pictures').mkdir()
    done = run('--variant', 'IRPROP+', '--epochs', '20', '--starts', '1', '--out', 'pictures/sun.svg',
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'irprop+ ' in done.stdout and 'rprop- ' not in done.stdout
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*.*')] == ['pictures/sun.svg']


def test_without_a_picture_there_is_no_matplotlib(tmp_path):
    program = ("import runpy, sys\nsys.argv = ['rprop_lit', '--no-plot', '--epochs', '3', '--starts', '1']\n"
               "try:\n    runpy.run_module('rprop_lit', run_name='__main__')\n"
               "except SystemExit as end:\n    assert end.code == 0\n"
               "heavy = {'matplotlib', 'torch', 'scipy', 'cupy', 'numba', 'nbdev'}\n"
               "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))")
    done = run(cwd=tmp_path, python=('-c', program))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]' and not list(tmp_path.iterdir())


def test_the_version_names_what_a_report_needs(tmp_path):
    done = run('--version', cwd=tmp_path)
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    lines = done.stdout.splitlines()
    assert (lines[0] == f'rprop_lit {rprop_lit.__version__}' and lines[1].startswith('Python 3.')
            and f'numpy {np.__version__}' in lines)


BAD = [(['--variant', 'adam'], "'adam'"), (['--epochs', '0'], "'0' is not a whole number from 1 to"),
       (['--epochs', '1e3'], "'1e3'"),
       (['--epochs', '9' * 30], 'whole number'), (['--seed', '-1'], "'-1'"),
       (['--seed', '4294967296'], 'to 4294967295'),
       (['--seed'], '--seed'), (['--out', 'sun.txt'], '.png, .pdf or .svg'),
       (['--out', 'nowhere/sun.png'], "'nowhere/sun.png' cannot be written"),
       (['--out', '.png'], "'.png' names no picture"),
       (['--out', '/dev/null.png/x.png'], 'cannot be written'), (['--starts', '0'], 'to 1000'),
       (['--out', 'sun.png', '--no-plot'], '--no-plot'),
       (['--speed', '3'], '--speed'), (['--ep', '3'], '--ep'), (['now'], 'now')]


@pytest.mark.parametrize('args, said', BAD, ids=[' '.join(args)[:30] for args, _ in BAD])
def test_a_bad_option_is_one_line_and_status_2(args, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(args)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == '' and said in err and err.startswith('rprop_lit: ')
    assert err.count('\n') == 1 and err.endswith('\n')


def test_a_number_is_a_number_in_every_script():
    # as for Python's own int
    assert command._parser().parse_args(['--epochs', '\N{ARABIC-INDIC DIGIT THREE}']).epochs == 3


def test_a_bad_option_as_a_program(tmp_path):
    done = run('--epochs', 'many', cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1) and "'many'" in done.stderr
    assert not list(tmp_path.iterdir())


SHORT = ['--epochs', '2', '--starts', '1', '--variant', 'rprop-']


def test_help_is_named_only_where_it_helps(capsys):
    for args, named in ((['--speed', '3'], True), (['now'], True), (['--epochs', '0'], False),
                        (['--out', 'sun.txt'], False)):
        with pytest.raises(SystemExit):
            main(args)
        assert ('see --help' in capsys.readouterr().err) is named


@pytest.mark.parametrize('kind', ['a folder', 'no file'])
def test_the_place_of_the_picture_is_tried_before_training(kind, tmp_path, monkeypatch, capsys):
    place = tmp_path / 'sun.png'
    place.mkdir() if kind == 'a folder' else os.mkfifo(place)
    monkeypatch.setattr(command, 'train', lambda *_: pytest.fail('trained'))
    with pytest.raises(SystemExit) as end:
        main(['--out', str(place)])
    assert end.value.code == 2 and 'it is no file' in capsys.readouterr().err


def test_a_folder_that_takes_no_file_is_noticed_before_training(tmp_path, monkeypatch, capsys):
    def denied(dir):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(command.tempfile, 'TemporaryFile', denied)
    monkeypatch.setattr(command, 'train', lambda *_: pytest.fail('trained'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([])
    out, err = capsys.readouterr()
    assert ((end.value.code, out) == (2, '')
            and err == "rprop_lit: argument --out: 'rprop_sunspots.png' cannot be written: Permission "
                       "denied\n")


def test_a_picture_that_cannot_be_saved_is_one_line_after_the_table(monkeypatch, capsys, tmp_path):
    def full(task, fits, file):
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(command, 'picture', full)
    (tmp_path / 'sun.png').write_bytes(b'old')
    with pytest.raises(SystemExit) as end:
        main([*SHORT, '--out', str(tmp_path / 'sun.png')])
    out, err = capsys.readouterr()
    assert (end.value.code == 1 and LINE in out
            and err.splitlines()[-1] == 'rprop_lit: the picture was not saved: No space left on device')
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [('sun.png', b'old')]


def test_ctrl_c_ends_in_one_line_with_what_was_done(monkeypatch, capsys, tmp_path):
    calls = []

    def step(*args, loss):
        calls.append(loss)
        if len(calls) == 8:
            raise KeyboardInterrupt
    monkeypatch.setattr(page.optim.Rprop, 'step', step)
    monkeypatch.setattr(page.optim.Rprop, 'state',
                        property(lambda self: {p: {'step_size': p.data}
                                               for p in self.param_groups[0]['params']}))
    with pytest.raises((KeyboardInterrupt, SystemExit)) as end:
        main(['--epochs', '5', '--no-plot'])
    out, err = capsys.readouterr()
    assert (end.type is SystemExit and end.value.code == 130 and out == ''
            and err.splitlines()[-1] == 'rprop_lit: stopped after 7 of 100 evaluations, without a table and '
                                        'a picture')


@pytest.mark.parametrize('part', ['table', 'picture'])
def test_ctrl_c_after_the_training_is_one_line_and_leaves_no_draft(part, monkeypatch, capsys, tmp_path):
    def interrupted(*args):
        args[-1].write_bytes(b'half') if part == 'picture' else None
        raise KeyboardInterrupt
    monkeypatch.setattr(command, part, interrupted)
    (tmp_path / 'sun.png').write_bytes(b'old')
    with pytest.raises((KeyboardInterrupt, SystemExit)) as end:
        main([*SHORT, '--out', str(tmp_path / 'sun.png')])
    out, err = capsys.readouterr()
    assert end.type is SystemExit and end.value.code == 130 and (LINE in out) is (part == 'picture')
    assert (err.splitlines()[-1]
            == 'rprop_lit: stopped after the training, before all results were written')
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [('sun.png', b'old')]


def test_a_file_of_the_users_own_beside_the_picture_stays(capsys, tmp_path):
    (tmp_path / 'sun.part.png').write_bytes(b'mine')
    assert main([*SHORT, '--out', str(tmp_path / 'sun.png')]) == 0
    assert (tmp_path / 'sun.part.png').read_bytes() == b'mine'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['sun.part.png', 'sun.png']


STREAMS = {'a full disk': ('>/dev/full', 1, 'the table was not written: No space left on device'),
           'a closed pipe': ('| exit 0', 1, 'the table was not written: Broken pipe'),
           'no stderr': ('2>&-', 0, ''), 'a full stderr': ('2>/dev/full', 0, '')}


@pytest.mark.skipif(not Path('/dev/full').exists(),
                    reason='there is no /dev/full here: full disks are left out')
@pytest.mark.parametrize('name', STREAMS)
def test_streams_that_do_not_take_what_is_written(name, tmp_path):
    redirect, status, said = STREAMS[name]
    shell = f'set -o pipefail; "{sys.executable}" -m rprop_lit {" ".join(SHORT)} --no-plot {redirect}'
    done = subprocess.run(['bash', '-c', shell], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert 'Traceback' not in done.stderr and 'Exception' not in done.stderr
    assert ([line for line in done.stderr.replace('\r', '\n').splitlines() if line and 'training' not in line]
            == ([f'rprop_lit: {said}'] if said else []))
    assert (LINE in done.stdout) is (status == 0)


def test_help(tmp_path):
    done = run('--help', cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ''
    assert all(option in done.stdout for option in ('--variant', '--starts', '--seed', '--version',
                                                    '--epochs', '--out', '--no-plot', '--help'))


def test_importing_the_command_runs_nothing(tmp_path):
    done = run(cwd=tmp_path, python=('-c', 'import rprop_lit.__main__'))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '') and not list(tmp_path.iterdir())
