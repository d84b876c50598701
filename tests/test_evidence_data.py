"""The tables of the evidence pages are those of their packages; each has a source and licence."""
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / 'evidence'))
import make_data

TABLES = sorted(make_data.DATA.glob('*.csv'))


def test_tables_are_what_the_packages_hold(tmp_path, monkeypatch):
    pytest.importorskip('sklearn', reason='scikit-learn is not installed')
    pytest.importorskip('statsmodels', reason='statsmodels is not installed')
    committed = {p.name: p.read_text(encoding='utf-8') for p in TABLES if p.stem != 'lynx_hare'}
    monkeypatch.setattr(make_data, 'DATA', tmp_path)
    make_data.main()
    assert {p.name: p.read_text(encoding='utf-8') for p in tmp_path.glob('*.csv')} == committed


@pytest.mark.parametrize('path', TABLES, ids=lambda p: p.stem)
def test_a_table_is_small_and_whole_and_has_a_source(path):
    rows = np.loadtxt(path, delimiter=',', skiprows=1)
    names = path.read_text(encoding='utf-8').splitlines()[0].split(',')
    assert np.isfinite(rows).all() and rows.shape[1] == len(set(names)) and path.stat().st_size < 50_000
    assert f'| `{path.name}` |' in (path.parent / 'README.md').read_text(encoding='utf-8')
