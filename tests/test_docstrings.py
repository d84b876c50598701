"""The examples in docstrings are run as they stand. test_site.py compares the rest with signatures."""
import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

import rprop_lit

PACKAGE = Path(rprop_lit.__file__).parent
NEEDS = {'torch': {'torch': 'torch'}, 'jax': {'jax': 'JAX', 'optax': 'Optax'}}  # what a module imports


def with_examples():
    "Names of the modules whose docstrings have examples"
    found = [path for path in PACKAGE.rglob('*.py') if '\n    >>> ' in path.read_text('utf-8')]
    return sorted('.'.join(path.relative_to(PACKAGE).with_suffix('').parts) for path in found)


def test_the_examples_are_found():
    some = {'inside.walk', 'jax', 'nn', 'optim', 'rule', 'solver', 'torch', 'variants'}
    assert some <= set(with_examples())


@pytest.mark.parametrize('module', with_examples())
def test_examples_in_docstrings(module):
    for library, name in NEEDS.get(module, {}).items():
        pytest.importorskip(library, reason=f'{name} is not installed')
    found = doctest.testmod(importlib.import_module(f'rprop_lit.{module}'), extraglobs={'np': np},
                            optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed
