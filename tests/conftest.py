"""What several test files need from pytest."""
import os
from collections import Counter

import pytest

# before NumPy is imported, here and in what the tests start: one test runs on each core, and BLAS's threads
# that wait for each other there took a chapter ten times as long
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

from rprop_lit.inside.config import config  # noqa: E402


@pytest.fixture(params=['numpy', 'numba'])
def path(request):
    "Both ways to step arrays in memory, chosen while a test runs; the second needs Numba"
    if request.param == 'numba':
        pytest.importorskip('numba', reason='Numba is not installed: the compiled path is left out')
    before, config.backend = config.backend, request.param
    yield request.param
    config.backend = before


def pytest_collection_modifyitems(items):
    "Chapters first: they take seconds each, and the tests that are left for the end should be short ones"
    items.sort(key=lambda item: item.path.stem != 'test_notebooks')


def pytest_terminal_summary(terminalreporter):
    "One line for each reason to skip, with the number of tests; `-rs` shows them one by one"
    reasons = Counter(report.longrepr[2].removeprefix('Skipped: ')
                      for report in terminalreporter.stats.get('skipped', []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f'SKIPPED {count}: {reason}')
