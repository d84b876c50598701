"""What several test files need from pytest."""
import pytest

from rprop_lit.inside.config import config


@pytest.fixture(params=['numpy', 'numba'])
def path(request):
    "Both ways to step arrays in memory, chosen while a test runs; the second needs Numba"
    if request.param == 'numba':
        pytest.importorskip('numba', reason='Numba is not installed: the compiled path is left out')
    before, config.backend = config.backend, request.param
    yield request.param
    config.backend = before
