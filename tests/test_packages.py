"""The packages, as far as that can be seen without building them (`.ci/steps/packages` builds,
installs and uses them)."""
import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import book
from test_docstrings import NEEDS

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip('setuptools', reason='setuptools is not installed: setup.py is left out')
spec = importlib.util.spec_from_file_location('setup', ROOT / 'setup.py')
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def test_links_of_the_readme_lead_to_files_and_become_addresses():
    cfg = build.settings()
    relative = re.findall(r'\]\((?!https?:|#)([^)\s]+)\)', README)
    assert (len(relative) > 20
            and not [link for link in relative if not (ROOT / link.partition('#')[0]).exists()])
    text = build.absolute(README, cfg)
    assert not re.findall(r'\]\((?!https?:|#)[^)]*\)|(?:src|href)="(?!https?:|#)', text)
    assert f"{cfg['git_url']}/blob/v{cfg['version']}/nbs/idea/10_rule.ipynb" in text
    assert f"]({cfg['git_url']}/raw/v{cfg['version']}/nbs/images/readme/" in text


def test_links_that_stay():
    cfg = build.settings()
    for link in ('[a](https://b.c)', '[a](#part)', '```python\nf[0](y)\n```', '[a](mailto:b@c.d)'):
        assert build.absolute(link, cfg) == link
    root = cfg['git_url']
    assert (build.absolute('![a](b.png) [c](d/e.md#f)', cfg)
            == '![a](ROOT/raw/vNOW/b.png) [c](ROOT/blob/vNOW/d/e.md#f)'.replace('ROOT', root)
                                                                       .replace('NOW', cfg['version']))
    assert build.absolute('[![a](b.png)](c.md)', cfg).count(root) == 2


def test_one_version_and_one_address():
    cfg = build.settings()
    citation = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    assert f"\nversion: {cfg['version']}\n" in citation and f"repository-code: {cfg['git_url']}\n" in citation
    import rprop_lit
    assert rprop_lit.__version__ == cfg['version']


def test_extras_are_the_lines_of_settings():
    extras = build.extras(build.settings())
    assert (extras['gpu-cuda12'] == ['cupy-cuda12x[ctk]>=14']
            and {'dev', 'fast', 'torch', 'jax', 'dask', 'gpu-cuda13'} <= set(extras))
    assert '' not in extras and not [name for name in extras if '_' in name]


@pytest.mark.skipif(sys.platform == 'win32',
                    reason='Windows has no executable bit: the steps of CI are left out')
def test_steps_of_ci_are_executable_and_strict():
    steps = [ROOT / '.ci' / 'run', *(ROOT / '.ci' / 'steps').iterdir()]
    assert len(steps) > 1
    for step in steps:
        assert step.stat().st_mode & 0o111 and 'set -euo pipefail' in step.read_text(encoding='utf-8'), step


def test_no_skip_for_want_of_a_library_goes_unseen():
    # `.ci/run` looks for these reasons in what pytest said; the rest is installed by a step of its own
    installed = re.search("^installed='(.+)'$", (ROOT / '.ci' / 'run').read_text(encoding='utf-8'),
                          re.M)[1].split('|')
    elsewhere = {'CuPy', 'ml_dtypes', 'playwright', 'docstring_parser'}
    seen = set()
    for path in sorted((ROOT / 'tests').glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith('importorskip'):
                given = {word.arg: word.value for word in node.keywords}
                reason = given.get('reason', ast.Constant(''))
                if ast.unparse(reason) == "f'{name} is not installed'":
                    seen |= {name for names in NEEDS.values() for name in names.values()}
                    continue
                reason = ast.literal_eval(reason)
                assert re.match(r'[\w-]+ is not installed(: |$)', reason), f'{path.name}:{node.lineno}'
                seen.add(reason.partition(' ')[0])
    assert seen - elsewhere <= set(installed) and not elsewhere & set(installed)
    # the cells that test_notebooks leaves out
    assert {flag.lower() for flag in book.NEEDS} <= {name.lower() for name in installed}


def test_the_workflow_calls_what_is_there():
    text = (ROOT / '.github' / 'workflows' / 'ci.yml').read_text(encoding='utf-8')
    called = re.findall(r'run: (?:python )?(\S+)$', text, re.M)
    assert called and not [path for path in called if not (ROOT / path).exists()]
