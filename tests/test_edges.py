"""Kinds of small change that once went unseen: the edges of settings, files, counters, ties,
what a picture says."""
import math
import os
import time

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
from streams import bits

from rprop_lit import Parameter, Rprop, init, minimize, nn, scipy_method, update
from rprop_lit.inside import files, loop
from rprop_lit.inside.files import _digest as digest
from rprop_lit.inside.files import write_arrays
from rprop_lit.inside.settings import check_ranges
from rprop_lit.pictures import contours, heat, path, trace
from rprop_lit.problems import bowl, noisy, plateau, rosenbrock, slopes_of
from rprop_lit.sunspots import TARGET, draw_curves, fit, sunspot_task
from rprop_lit.tensor import Tensor


def stepped(gs, **settings):
    "A weight that has taken some steps, and its step size"
    p = Parameter(np.zeros(1))
    optimizer = Rprop([p], **settings)
    for g in gs:
        p.grad = np.array([float(g)])
        optimizer.step()
    return p.data[0], optimizer.state[p]['step_size'][0]


# ---- settings

@pytest.mark.parametrize('etas, limits', [
    ((5e-324, 1.2), (0, 1)), ((math.nextafter(1, 0), math.nextafter(1, 2)), (0, 1)), ((0.5, 1e308), (0, 1)),
    ((0.5, 1.2), (0, 0)), ((0.5, 1.2), (2, 2)), ((0.5, 1.2), (5e-324, math.inf))])
def test_edges_that_are_allowed(etas, limits):
    check_ranges(0.0, etas, limits)
    Rprop([Parameter([0.0])], etas=etas, step_sizes=limits)


def test_equal_limits_are_the_step():
    assert stepped([1, 1, -1, 1], lr=0.1, step_sizes=(0.25, 0.25)) == (-0.75, 0.25)  # irprop- waits once


@pytest.mark.parametrize('limits', [(-0.0, 50.0), (np.array([-0.0]), np.array([50.0]))],
                         ids=['numbers', 'arrays'])
def test_a_limit_of_minus_zero_is_zero(limits):
    _, step = stepped([1, -1, 1], lr=0.0, step_sizes=limits)
    assert bits(step) == bits(np.zeros(1))
    state = init(np.zeros(1), 0.0)
    for g in (1.0, -1.0, 1.0):
        _, state = update(np.array([g]), state, variant='rprop+', step_sizes=limits)
    assert bits(state.step) == bits(np.zeros(1))


@pytest.mark.parametrize('name, value', [('lr', np.array([True])), ('etas', (np.array([False]), 1.2)),
                                         ('step_sizes', (0, np.array([True])))])
def test_arrays_of_truth_values_are_no_settings(name, value):
    with pytest.raises(ValueError, match=f'{name}='):
        Rprop([Parameter([0.0])], **{name: value})


@pytest.mark.parametrize('dtype', [np.uint8, np.uint64, np.int16])
def test_whole_numbers_are_settings(dtype):
    settings = dict(lr=np.array([3], dtype), step_sizes=(np.array([0], dtype), np.array([4], dtype)))
    assert stepped([1, 1, 1], **settings) == (-3 - 3 * 1.2 - 4, 4.0)


# ---- files

def test_the_checksum_covers_names_types_and_shapes_in_any_order():
    a, b = np.arange(4.0), np.ones(2)
    whole = digest({'a': a, 'b': b})
    others = [{'b': a, 'a': b}, {'a': a.view(np.int64), 'b': b}, {'a': a.reshape(2, 2), 'b': b}, {'a': a},
              {'a': a, 'c': b}]
    assert digest({'b': b, 'a': a}) == whole and len({whole, *map(digest, others)}) == 6


def test_all_is_written_before_the_disk_is_asked_to_keep_it(tmp_path, monkeypatch):
    sizes, fsync = [], os.fsync
    def asked(number):
        sizes.append(os.fstat(number).st_size)
        fsync(number)
    monkeypatch.setattr(files.os, 'fsync', asked)
    write_arrays(tmp_path / 'a.npz', {'a': np.ones(3)})
    assert sizes == [(tmp_path / 'a.npz').stat().st_size]


# ---- results

def test_of_equal_points_the_last_is_the_best():
    r = minimize(lambda x: (1.0, np.ones(1)), [0.0], options={'maxiter': 7, 'ftol': 0, 'trace': True})
    assert r.nit == 7 and r.x == r.trace.points[-1] != 0


def test_of_equal_errors_the_smaller_gradient_is_the_best():
    slopes = iter([4.0, 1.0, 2.0, 3.0])
    r = minimize(lambda x: (1.0, np.array([next(slopes)])), [0.0],
                 options={'maxfev': 4, 'trace': True, 'ftol': 0})
    assert r.jac == 1.0 and r.x == r.trace.points[1]


def test_seconds_count_from_the_start(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(loop.time, 'monotonic', lambda: next(clock))
    r = minimize(rosenbrock().fun, [-1.2, 1.0], options={'max_time': 3})
    monkeypatch.undo()
    assert (r.nit, r.status) == (3, 5) and time.monotonic() > 0


def test_the_window_of_ftol_is_a_hundred_steps():
    r = minimize(lambda x: (1.0, np.ones(1)), [0.0], tol=0)
    assert r.nit == 100 and 'in 100 steps' in r.message
    assert minimize(lambda x: (1.0, np.ones(1)), [0.0], tol=0, options={'window': 3}).nit == 3


def test_scipys_options_reach_us(capsys):
    optimize = pytest.importorskip('scipy.optimize', reason='SciPy is not installed')
    how = dict(jac=True, method=scipy_method)
    for variant in ('rprop-', 'irprop+'):
        r = optimize.minimize(rosenbrock().fun, [-1.2, 1.0], **how,
                              options={'variant': variant, 'maxiter': 60})
        ours = minimize(rosenbrock().fun, [-1.2, 1.0], variant=variant, options={'maxiter': 60})
        assert (r.x == ours.x).all()
    assert capsys.readouterr().err == ''
    optimize.minimize(rosenbrock().fun, [-1.2, 1.0], **how, options={'disp': True, 'maxiter': 5})
    assert '5' in capsys.readouterr().err


# ---- classes as a list

def test_classes_may_be_a_list():
    scores = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    one, two = (nn.CrossEntropyLoss()(Tensor(scores), target).item() for target in ([1, 2], np.array([1, 2])))
    assert one == two


# ---- pictures

@pytest.fixture
def axes():
    yield plt.figure().add_subplot()
    plt.close('all')


def test_what_stands_at_the_axes(axes):
    trace([2, 1], axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('evaluation', 'error')
    assert trace([2, 1], axes, best=0.5).get_ylabel() == 'error above 0.5'
    other = heat(np.ones((3, 2)))
    assert (other.get_xlabel(), other.get_ylabel()) == ('evaluation', 'weight')
    assert other.figure.axes[1].get_ylabel() == 'log10 of the step'


def test_a_path_names_its_start_and_all_points_that_were_left(axes):
    points = np.array([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    path(points, undone=[2, 1], ax=axes, minimum=(0.5, 0.25))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('$w_0$', '$w_1$')
    start, = axes.texts
    assert start.get_text() == 'start' and tuple(start.xy) == (3.0, 0.0)
    assert start.xyann[0] < 0 and start.get_ha() == 'right'  # beside the point, not on the way
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn['left by an undone move'] == points[1:3].tolist() and drawn['minimum'] == [[0.5, 0.25]]


def test_contours_lie_below_and_follow_their_own_axes(axes):
    axes.set(xlim=(0, 1), ylim=(0, 10))
    contours(lambda w: (w[0], w), axes)  # it falls along the first weight only: all lines are upright
    drawn, = axes.collections
    assert drawn.get_zorder() == 0
    for line in drawn.get_paths():
        assert np.ptp(line.vertices[:, 0]) < 1e-9 < np.ptp(line.vertices[:, 1])


def test_the_dashed_line_is_the_linear_fit_of_the_training_years(axes):
    from rprop_lit.sunspots import arv, linear

    task = sunspot_task()
    draw_curves({'irprop+': fit(task, 'irprop+', epochs=3)}, task, axes)
    levels = [line.get_ydata()[0] for line in axes.lines
              if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2]
    assert arv(linear(task), task)['training'] in levels and TARGET == 2 / 3
    thick, thin, _, dashed = (line.get_linewidth() for line in axes.lines)
    assert thin < dashed < thick


# ---- practice problems

@pytest.mark.parametrize('w', [[0.0], [0.3], [-2.0], [40.0]])
def test_slopes_of_the_plateau(w):
    w = np.array(w)
    assert np.allclose(plateau().fun(w)[1], slopes_of(plateau().fun, w), rtol=1e-6, atol=1e-9)


def test_slopes_of_large_negative_weights():
    seen = []
    def fun(w):
        seen.append(w.copy())
        return (w ** 2).sum(), None
    assert np.allclose(slopes_of(fun, np.array([-1e6])), -2e6)
    assert max(abs(s[0] + 1e6) for s in seen) > 1  # the step grows with the size of the weight


def test_noise_is_of_each_weight_and_keeps_the_type():
    w = np.ones(4, np.float32)
    error, g = noisy(bowl([1.0] * 4), 0.5).fun(w)
    assert g.dtype == np.float32 and len(set((g - bowl([1.0] * 4).fun(w)[1]).tolist())) == 4


# ---- tensors that are conjugated, or negated, only when they are read

@pytest.mark.parametrize('first', [False, True])
def test_conjugate_and_negative_bits_of_tensors(first):
    torch = pytest.importorskip('torch', reason='torch is not installed: no tensor was conjugated')
    z = torch.tensor([1 + 2j, -3 - 1j, 0.5 - 2j])
    for lazy in (z.conj(), z.conj().imag):
        assert lazy.is_conj() or lazy.is_neg()
        plain = lazy.clone().resolve_conj().resolve_neg()
        ends = []
        for g in (lazy, plain):
            w = torch.zeros(3, dtype=g.dtype, requires_grad=True)
            optimizer = Rprop([w], lr=0.25)
            for now in (g, plain) if first else (plain, g):  # the bit comes, or goes, in mid-run
                w.grad = now
                optimizer.step()
            ends.append(w.detach())
        assert torch.equal(*ends) and (ends[0] != 0).all()


def test_weights_with_a_negative_bit_are_refused():
    torch = pytest.importorskip('torch', reason='torch is not installed: no tensor was negated')
    for w in (torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag):
        with pytest.raises(ValueError, match='whose numbers are not in its memory'):
            Rprop([w.requires_grad_()])


# ---- found by mutants

def test_a_gradient_for_a_list_is_a_list():
    start = [np.ones(2), np.ones(2)]
    with pytest.raises(ValueError, match='expected 2 arrays, as in x0, not ndarray'):
        minimize(lambda x: (1.0, np.ones((2, 2))), start)
    with pytest.raises(ValueError, match='expected 2 arrays, as in x0, not 3 in a list'):
        minimize(lambda x: (1.0, [np.ones(2)] * 3), start)


def test_an_array_that_lies_on_itself_beside_another_one():
    base = np.zeros(10)
    first = base[::2]  # the other one lies between its numbers
    second = np.lib.stride_tricks.as_strided(base[1:], (2, 2), (16, 16))
    with pytest.raises(ValueError, match='second is there twice'):
        Rprop([('first', Parameter(first)), ('second', Parameter(second))]).step()


def test_a_trace_may_begin_where_a_run_without_one_was_left(tmp_path):
    how = {'checkpoint': str(tmp_path / 'run'), 'gtol': 0, 'ftol': 0}
    first = minimize(rosenbrock().fun, [-1.2, 1.0], options={**how, 'maxiter': 7})
    second = minimize(rosenbrock().fun, [-1.2, 1.0], options={**how, 'maxiter': 12, 'trace': True})
    assert first.nit == 7 and second.nit == 12 and 5 <= len(second.trace) <= 6
