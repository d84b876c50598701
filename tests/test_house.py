"""The order of the house: what importing brings along, which floor may lean on which."""
import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rprop_lit

HERE = Path(rprop_lit.__file__).parent
MODULES = sorted(p for p in HERE.rglob('*.py') if p.stem not in ('__init__', '__main__', '_modidx'))
PARTS = ('idea', 'inside', 'use', 'evidence')  # from the ground up
HEAVY = ['matplotlib', 'torch', 'cupy', 'scipy', 'numba', 'dask', 'fastcore', 'nbdev', 'tqdm', 'IPython']


def python(code):
    "What a fresh interpreter prints"
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=True).stdout.split()


@pytest.mark.parametrize('name', ['rprop_lit', 'rprop_lit.nn', 'rprop_lit.optim', 'rprop_lit.inside.arrays',
                                  'rprop_lit.conformance'])
def test_import_brings_numpy_alone(name):
    found = python(f'import sys, {name}; print(*[m for m in {HEAVY} if m in sys.modules], "numpy" in '
                   'sys.modules)')
    assert found == ['True']


def test_import_brings_few_modules():
    # what makes an import slow is what it imports, and that can be counted
    code = 'import sys, numpy; before = set(sys.modules); import rprop_lit; print(*set(sys.modules) - before)'
    found = {name for name in python(code) if name.partition('.')[0] not in ('rprop_lit', 'numpy')}
    assert ({name.partition('.')[0] for name in found} <= sys.stdlib_module_names
            and len(found) <= 60), sorted(found)


@pytest.mark.parametrize('setting', ['', 'true'])
def test_a_comparison_of_megabytes_fails_at_once(tmp_path, setting):
    # where CI is set, pytest writes both sides in full and looks for every line that differs: of plain bytes,
    # that takes it longer than a test may last
    (tmp_path / 'test_long.py').write_text('import numpy as np\nfrom streams import bits\n\n'
                                           'def test_long():\n'
                                           '    one, other = (np.random.default_rng(n).normal(size=10**5) '
                                           'for n in range(2))\n    assert [bits(one)] == [bits(other)]\n')
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parent), CI=setting)
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist', 'test_long.py'],
                         cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and '<800000 bytes, CRC' in run.stdout and len(run.stdout) < 3000


def floors():
    "The modules with the part of the book and the chapter that export them"
    found = {}
    for notebook in sorted((HERE.parent / 'nbs').glob('*/*.ipynb')):
        for cell in json.loads(notebook.read_text(encoding='utf-8'))['cells']:
            name = re.match(r'#\|\s*default_exp ([\w.]+)', ''.join(cell['source']))
            if name:
                found[name[1]] = PARTS.index(notebook.parent.name), int(re.match(r'\d*', notebook.name)[0])
    return found


def name_of(path):
    "A module's name within the package"
    return '.'.join(path.relative_to(HERE).with_suffix('').parts)


def imported(path):
    "Modules of the package that a module imports"
    package, names = ['rprop_lit', *path.relative_to(HERE).parts[:-1]], set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            whole = '.'.join([*base, *filter(None, [node.module])])
            for module in (whole, *(f'{whole}.{alias.name}' for alias in node.names)):
                names.add(module)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return ({name.removeprefix('rprop_lit.') for name in names if name.startswith('rprop_lit.')}
            & {name_of(p) for p in MODULES})


@pytest.mark.parametrize('path', MODULES, ids=name_of)
def test_a_module_leans_only_on_floors_below(path):
    floor = floors()
    below = {name for name, number in floor.items() if number < floor[name_of(path)]}
    allowed = ({'problems'} if path.stem == 'pictures' else below if path.stem in ('sunspots', 'command')
               else below - {'pictures'})
    assert imported(path) <= allowed


def code_lines(path):
    "Lines of code, docstrings, comments and blanks not counted"
    text = path.read_text(encoding='utf-8')
    doc = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, 'body', None)
        if (isinstance(body, list) and body and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str)):
            doc |= set(range(body[0].lineno, body[0].end_lineno + 1))
    return sum(bool(line.strip()) and not line.strip().startswith('#') and i not in doc
               for i, line in enumerate(text.splitlines(), 1))


def test_the_command_is_a_few_lines():
    assert code_lines(HERE / '__main__.py') <= 5


def test_few_public_names():
    assert len(rprop_lit.__all__) <= 15 and all(hasattr(rprop_lit, name) for name in rprop_lit.__all__)


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_every_definition_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    silent = [n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))
              and not n.name.startswith('_')
              and n.col_offset == 0 and not ast.get_docstring(n)]
    assert not silent


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_public_functions_have_type_hints(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    bare = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith('_')
            and (n.returns is None or any(a.annotation is None for a in n.args.args))]
    assert not bare


def pages():
    "Every page of the book, and the pages beside it"
    root = HERE.parent
    return [root / 'README.md', root / 'CONTRIBUTING.md', *sorted((root / 'nbs').rglob('[!.]*.ipynb'))]


@pytest.mark.parametrize('page', pages(), ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding='utf-8')
    if page.suffix == '.ipynb':
        text = '\n'.join(''.join(cell['source']) for cell in json.loads(text)['cells']
                         if cell['cell_type'] == 'markdown')
    links = [link.partition('#')[0] for link in re.findall(r'\]\((?!https?:|#|mailto:)([^)\s]+)\)', text)]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize('page', pages()[2:], ids=lambda p: p.stem)
def test_lines_of_code_are_short(page):
    # exported or not; directives such as `#| fig-alt:` are one line each, as nbdev reads them
    cells = json.loads(page.read_text(encoding='utf-8'))['cells']
    code = [''.join(cell['source']).splitlines() for cell in cells if cell['cell_type'] == 'code']
    assert [line for line in sum(code, []) if len(line) > 110 and not line.startswith('#|')] == []


def test_no_page_speaks_of_a_machine():
    for page in pages():
        assert not re.search(r'(?<![\w.:/~])/(tmp|work|root|home|Users)/',
                             page.read_text(encoding='utf-8')), page


LEARN = [HERE.parent / 'nbs' / f'{name}.ipynb' for name in (
    'idea/00_problems', 'idea/10_rule', 'idea/15_pictures', 'idea/20_variants',
    'use/30_optim', 'use/35_solver', 'use/40_tensor', 'use/45_nn', 'use/75_others')]


def words(page):
    "Words of a chapter: of its cells, and of the text that they show"
    text = []
    for cell in json.loads(page.read_text(encoding='utf-8'))['cells']:
        text.append(''.join(cell['source']))
        for out in cell.get('outputs', []):
            text += [''.join(out.get('text', '')), ''.join(out.get('data', {}).get('text/plain', ''))]
    return sum(len(part.split()) for part in text)


def test_the_chapters_that_everybody_reads_stay_short():
    assert sum(map(words, LEARN)) <= 30_000, {page.stem: words(page) for page in LEARN}


@pytest.mark.parametrize('page', LEARN, ids=lambda p: p.stem)
def test_code_of_the_chapters_that_everybody_reads_fits_the_page(page):
    cells = json.loads(page.read_text(encoding='utf-8'))['cells']
    cells = [cell for cell in cells if cell['cell_type'] == 'code']
    lines = [line for cell in cells for line in ''.join(cell['source']).splitlines()]
    assert not [line for line in lines if len(line) > 110]
    drawn = [cell for cell in cells if any('image/png' in out.get('data', {}) for out in cell['outputs'])]
    assert drawn and all(cell['source'][0].startswith('#| fig-alt: ') for cell in drawn)
