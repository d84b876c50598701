"""The list of mutants is whole: each was seen by a test that exists, or it is said why none can see it."""
import json
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
MUTANTS = json.loads((TESTS / 'mutants.json').read_text(encoding='utf-8'))


def test_each_mutant_is_seen_or_has_a_reason():
    assert len(MUTANTS) >= 100
    keys = [tuple(m[key] for key in ('module', 'function', 'kind', 'old', 'new')) for m in MUTANTS]
    assert len(set(keys)) == len(keys)
    for m in MUTANTS:
        assert bool(m.get('killed_by')) != bool(m.get('reason')), m
        assert m['old'] != m['new'] and m['module'] and m['function'], m


@pytest.mark.parametrize('name', sorted({m['killed_by'] for m in MUTANTS if 'killed_by' in m}))
def test_the_test_that_saw_it_exists(name):
    file, _, test = name.partition('::')
    text = (TESTS / file).read_text(encoding='utf-8')
    function, _, case = test.partition('[')
    assert test.count('[') == test.count(']')  # half a name is no test, and would fail without a mutant
    assert not test or f'\ndef {function}(' in text
    if function == 'test_notebook':
        assert list((TESTS.parent / 'nbs').rglob(f'{case.rstrip("]")}.ipynb'))
