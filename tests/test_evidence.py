"""The result files of the evidence part: each has a schema and keeps to it."""
import copy
import json
from pathlib import Path

import pytest

jsonschema = pytest.importorskip('jsonschema')  # nbformat, which the notebooks need, brings it along

EVIDENCE = Path(__file__).parent / 'evidence'
RESULTS = sorted(p for p in EVIDENCE.glob('*.json') if not p.name.endswith('.schema.json'))
MADE = {'type': 'object', 'required': ['command', 'date', 'hardware', 'versions'], 'properties': {
    'command': {'type': 'string', 'pattern': r'^python tests/evidence/\w+\.py'}, 'date': {'type': 'string', 'pattern': r'^\d{4}-\d\d-\d\d$'},
    'hardware': {'type': 'string', 'minLength': 3},
    'versions': {'type': 'object', 'required': ['python', 'numpy'], 'additionalProperties': {'type': 'string', 'pattern': r'^\d+\.\d+'}}}}


def load(path):
    return json.loads(path.read_text(encoding='utf-8'))


def schema_of(path):
    "The schema beside a result file, with the part that all have in common"
    schema = load(path.with_suffix('.schema.json'))
    return {**schema, 'required': ['made', *schema['required']], 'properties': {'made': MADE, **schema['properties']}}


def complaints(results, schema):
    "What a result file breaks"
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(results)]


def lists(value, path=()):
    "Paths to all lists with dicts in them"
    if isinstance(value, dict):
        for key, item in value.items():
            yield from lists(item, (*path, key))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        yield path


def test_there_are_results_and_each_schema_has_its_file():
    schemas = {p.name.removesuffix('.schema.json') for p in EVIDENCE.glob('*.schema.json')}
    assert schemas == {p.stem for p in RESULTS}


@pytest.mark.parametrize('path', RESULTS, ids=lambda p: p.stem)
def test_a_result_file_keeps_to_its_schema(path):
    schema = schema_of(path)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert complaints(load(path), schema) == []


@pytest.mark.parametrize('path', RESULTS, ids=lambda p: p.stem)
def test_the_schema_sees_what_is_missing_and_what_is_new(path):
    results, schema = load(path), schema_of(path)
    for key in results:
        less = {name: value for name, value in results.items() if name != key}
        assert complaints(less, schema), f'{key} may be missing'
    assert complaints({**results, 'surprise': 1}, schema)
    for place in lists(results):
        for damage in ('missing', 'new'):
            broken = copy.deepcopy(results)
            row = broken
            for key in (*place, 0):
                row = row[key]
            if damage == 'missing':
                row.pop(next(iter(row)))
            else:
                row['surprise'] = 1
            assert complaints(broken, schema), f'a row of {place} may lack a column or have one more'


@pytest.mark.parametrize('path', RESULTS, ids=lambda p: p.stem)
def test_the_script_that_is_named_exists(path):
    script = load(path)['made']['command'].split()[1]
    assert (EVIDENCE.parent.parent / script).is_file()
