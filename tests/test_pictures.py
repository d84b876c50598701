"""Chapter 15: what the pictures draw, read back from matplotlib."""
import math

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rprop_lit import pictures
from rprop_lit.pictures import COLOURS, colour, contours, heat, path, trace
from rprop_lit.problems import bowl
from rprop_lit.variants import VARIANTS

POINTS = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, 4.0], [1.0, 0.5], [1.5, -1.0]])


@pytest.fixture(autouse=True)
def no_figures_left():
    "Each test starts and ends with no figure open"
    plt.close('all')
    yield
    plt.close('all')


def markers(ax, face):
    "Lines of `ax` that are drawn as round markers, filled with the face colour `face`"
    return [line for line in ax.lines
            if line.get_marker() == 'o' and to_rgb(line.get_markerfacecolor()) == to_rgb(face)]


def test_every_variant_has_a_colour_of_its_own():
    assert set(COLOURS) == set(VARIANTS)
    assert len({to_rgb(c) for c in COLOURS.values()}) == len(COLOURS)


def test_colours_stay_apart_for_colour_blind_eyes():
    # Machado, Oliveira and Fernandes 2009, severity 1: deuteranopia, protanopia; the usual four colours are
    # at 0.12 and 0.09
    eyes = [[[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
             [-0.011820, 0.042940, 0.968881]],
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
             [-0.003882, -0.048116, 1.051998]]]
    for matrix in eyes:
        light = np.array([to_rgb(c) for c in COLOURS.values()]) ** 2.2
        seen = np.clip(light @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 0.3


def test_colour_is_not_case_sensitive_and_refuses_others():
    assert colour('iRprop+') == COLOURS['irprop+'] and colour(None) is None
    with pytest.raises(ValueError, match="variant='adam'.*'rprop-'"):
        colour('adam')


@pytest.mark.parametrize('draw, data', [(trace, [3, 2, 1]), (path, POINTS), (heat, np.ones((4, 2)))])
def test_takes_and_returns_an_axes_and_makes_one(draw, data):
    ax = plt.figure().add_subplot()
    assert draw(data, ax=ax) is ax
    new = draw(data)
    assert new is not ax and new.figure is not ax.figure


def test_trace_draws_each_error_at_its_evaluation():
    ax = trace([8.0, 4.0, 0.5], variant='Rprop-')
    line, = ax.lines
    assert line.get_xdata().tolist() == [0, 1, 2] and line.get_ydata().tolist() == [8.0, 4.0, 0.5]
    assert ax.get_yscale() == 'log' and to_rgb(line.get_color()) == to_rgb(COLOURS['rprop-'])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ['Rprop-']


def test_trace_label_goes_before_variant_and_none_means_no_legend():
    assert trace([2, 1], variant='rprop-', label='mine').get_legend().get_texts()[0].get_text() == 'mine'
    assert trace([2, 1]).get_legend() is None


def test_trace_is_above_best_with_gaps_where_there_is_no_logarithm():
    drawn = trace([1.0, 0.0, -1.0, -0.5], best=-1).lines[0].get_ydata()
    assert np.array_equal(drawn, [2.0, 1.0, np.nan, 0.5], equal_nan=True)


def test_path_goes_through_the_points_in_order():
    line = path(POINTS, variant='irprop-').lines[0]
    assert (line.get_xydata().tolist() == POINTS.tolist()
            and to_rgb(line.get_color()) == to_rgb(COLOURS['irprop-']))


def test_undone_points_are_hollow_and_the_others_are_not():
    ax = path(POINTS, undone=[2], variant='rprop+')
    hollow, = markers(ax, 'white')
    filled, = markers(ax, COLOURS['rprop+'])
    assert hollow.get_xydata().tolist() == POINTS[[2]].tolist()
    assert filled.get_xydata().tolist() == POINTS[[0, 1, 3, 4]].tolist()
    assert to_rgb(hollow.get_markeredgecolor()) == to_rgb(COLOURS['rprop+'])


def test_nothing_is_hollow_where_nothing_was_undone():
    assert not markers(path(POINTS), 'white')


def test_path_shows_all_points_or_the_window_asked_for():
    (left, right), (low, high) = (path(POINTS).get_xlim(), path(POINTS).get_ylim())
    assert left < 0 and right > 2 and low < -1 and high > 4
    ax = path(POINTS, bowl([1.0, 4.0]).fun, window=((-3, 3), (-2, 2)))
    assert ax.get_xlim() == (-3, 3) and ax.get_ylim() == (-2, 2)


@pytest.mark.parametrize('answer',
                         [lambda e: e, lambda e: np.array([e]), lambda e: math.nan if math.isinf(e) else e])
def test_contours_of_answers_that_a_walk_takes(answer):
    def fun(w):
        return answer(math.inf if w[0] < 0 else float(w @ w)), 2 * w
    ax = plt.figure().add_subplot()
    ax.set(xlim=(-2, 2), ylim=(-2, 2))
    contours(fun, ax)
    assert len(ax.collections[0].levels) == 7 and np.isfinite(ax.collections[0].levels).all()


def test_contours_share_out_the_area_whatever_the_height():
    levels = []
    for height in (1e-6, 1e6):
        ax = plt.figure().add_subplot()
        ax.set(xlim=(-1, 1), ylim=(-1, 1))
        contours(bowl([height, 9 * height]).fun, ax, bands=4, grid=41)
        levels.append(ax.collections[0].levels / height)
    x, y = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
    assert np.allclose(levels[0], levels[1])
    assert np.allclose(np.mean((x**2 + 9 * y**2)[..., None] < levels[0], axis=(0, 1)), [1 / 4, 2 / 4, 3 / 4],
                       atol=.01)
    assert ax.get_xlim() == (-1, 1) and ax.get_ylim() == (-1, 1)


@pytest.mark.parametrize('shape', [(5,), (5, 3), (5, 2, 1)])
def test_path_refuses_what_is_not_two_weights_and_opens_no_figure(shape):
    with pytest.raises(ValueError, match=r'shape \(5,.*two weights'):
        path(np.zeros(shape))
    assert not plt.get_fignums()


def test_heat_has_evaluations_across_and_weights_down():
    steps = np.array([[0.1, 1.0, 10.0], [0.01, 1.0, 50.0]])
    ax = heat(steps)
    image, = ax.images
    assert image.get_array().shape == (3, 2)
    assert np.allclose(image.get_array(), np.log10(steps).T, rtol=1e-15)
    assert image.get_clim() == (-2.0, np.log10(50.0))
    assert ax.yaxis_inverted()  # the first weight is on top


def test_heat_lays_out_matrices_and_hides_zero_steps():
    steps = np.full((2, 2, 3), 0.1)
    steps[1, 0, 2] = 0.0
    table = heat(steps).images[0].get_array()
    assert table.shape == (6, 2) and table.mask.sum() == 1 and table.mask[2, 1]


def test_heat_shares_a_scale_and_may_go_without_its_bar():
    ax = heat(np.full((3, 2), 0.1), limits=(1e-6, 50.0), bar=False)
    assert np.allclose(ax.images[0].get_clim(), (-6, np.log10(50)))
    assert ax.figure.axes == [ax]
    assert len(heat(np.full((3, 2), 0.1)).figure.axes) == 2


def test_a_table_rounds_floats_and_leaves_whole_numbers_and_text():
    shown = pictures.table({'run': {'error': 0.123456, 'steps': 123456, 'end': 'gtol'}}, digits=2).rows
    assert shown == [['', 'error', 'steps', 'end'], ['run', '0.12', '123456', 'gtol']]
    assert pictures.table({'run': {'error': np.float32(0.5)}}).rows[1] == ['run', '0.5']


def test_imports_only_the_problems_of_the_package():
    modules = {getattr(thing, '__module__', None) or getattr(thing, '__name__', '')
               for thing in vars(pictures).values()}
    assert {m for m in modules if m.startswith('rprop_lit')} <= {'rprop_lit.pictures', 'rprop_lit.problems'}
