"""Rows of the result files of the papers and of the sunspots, measured again."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('scipy', reason='SciPy is not installed')
sys.path.insert(0, str(Path(__file__).parent / 'evidence'))
import papers
import sunspots


def stored(name, part, **keys):
    "The one row of a part of a result file that has these entries"
    rows = json.loads((papers.HERE / f'{name}.json').read_text(encoding='utf-8'))[part]
    row, = [r for r in rows if all(r[key] == value for key, value in keys.items())]
    return row


# Products of matrices are rounded otherwise by another BLAS, which can shift a flip: hence the tolerances.

def test_a_row_of_the_quadratics():
    row = stored('papers', 'quadratics', ratio=3, turned=True, variant='rprop+')
    again = [papers.gradients_to(*papers.quadratic(3, seed), 'rprop+') for seed in range(papers.SEEDS)]
    assert len(again) == len(row['gradients']) and abs(np.median(again) - np.median(row['gradients'])) <= 2
    assert np.mean(np.array(again) == row['gradients']) > 0.5


def test_a_row_of_the_networks():
    row = stored('papers', 'nets', task='diabetes', method='irprop-')
    again = [papers.trained('diabetes', 'irprop-', seed, budget=50)[0] for seed in range(papers.SEEDS)]
    assert np.isclose(np.median(again), np.median([errors[0] for errors in row['errors']]), rtol=0.02)


def test_a_row_of_the_batches():
    row = stored('papers', 'batches', batch=16, method='momentum')
    again = [papers.batched('momentum', 16, seed) for seed in range(5)]
    assert np.allclose([loss for loss, _ in again], row['losses'][:5], rtol=1e-4)
    assert row['steps'] == [None] * papers.SEEDS


def test_a_start_of_the_likelihoods():
    row = stored('papers', 'gps', data='diabetes', method='irprop+')
    # NEAR, which the page counts by
    assert np.isclose(papers.likelihood('diabetes', 'irprop+', 3), row['values'][3], atol=0.1)


def test_a_start_of_the_stopping_rules():
    row = stored('papers', 'stopping', task='diabetes', criterion='GL 1')
    training, validation, test = papers.curves('diabetes', 1, epochs=300)
    end = papers.stop('GL', 1, training, validation)
    assert row['epochs'][1] < 300 and abs(end - row['epochs'][1]) <= 2 * papers.STRIP
    assert np.isclose(test[validation[:end].argmin()], row['errors'][1], rtol=0.02)


def test_stopping_rules_by_hand():
    falls = np.linspace(2, 1, 60)
    rises = np.concatenate([np.linspace(2, 1, 20), np.linspace(1.001, 1.4, 40)])
    assert [papers.stop(c, 1, falls, falls) for c in ('GL', 'PQ', 'UP')] == [60, 60, 60]
    assert papers.stop('UP', 1, falls, rises) == 25 and papers.stop('UP', 3, falls, rises) == 35
    assert papers.stop('GL', 1, falls, rises) == 25 and papers.stop('GL', 20, falls, rises) == 45
    assert papers.stop('PQ', 1, np.ones(60), rises) == 25  # no progress at all
    # a progress of 2 in every strip; the loss is 4, 9, 14 from epoch 25 on
    slow = np.tile([1.01, 1, 1, 1, 1], 12)
    assert [papers.stop('PQ', level, slow, rises) for level in (1, 3, 5)] == [25, 30, 35]


def test_gradients_of_networks_and_likelihoods():
    from rprop_lit.problems import slopes_of
    for name in papers.HIDDEN:
        fun, w = papers.net(name, papers.task(name)[3][0]), papers.weights_of(name, 0)
        assert np.allclose(fun(w)[1], slopes_of(fun, w), atol=1e-7) and fun(w)[0] == fun(w, error_only=True)
    fun, p = papers.evidence('diabetes'), papers.guesses('diabetes', 0)
    assert np.allclose(fun(p)[1], slopes_of(fun, p), rtol=1e-5, atol=1e-5) and fun(p + 100)[0] == np.inf


def test_a_start_of_the_sunspots():
    row = stored('sunspots', 'rows', method='Adam 0.1')
    assert np.isclose(min(sunspots.adams(0, 0.1, budget=100)), row['errors'][0][0], rtol=1e-3)
    first = stored('sunspots', 'rows', method='L-BFGS-B')['errors'][0][0]
    assert np.isclose(min(sunspots.lbfgs(0, budget=100)), first, rtol=0.05)
