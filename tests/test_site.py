"""The site: what it says of the package is complete, its live figures walk as the package does, and it works
in a real browser.

The browser's tests read the folder _docs/ that `python docs/build.py` has built; `.ci/steps/site` builds it
and runs them.
"""
import ast
import copy
import functools
import http.server
import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

import rprop_lit
from rprop_lit import VARIANTS, init, problems, update

ROOT = Path(rprop_lit.__file__).parent.parent
DOCS, OUT = ROOT / 'docs', ROOT / '_docs'
sys.path[:0] = [str(DOCS), str(DOCS / 'play')]

import walk  # noqa: E402

# what the reference says

@pytest.fixture(scope='module')
def reference():
    "The module that writes the reference"
    return importlib.import_module('reference')


def public_modules():
    return sorted(p.stem for p in (ROOT / 'rprop_lit').glob('*.py') if not p.stem.startswith('_'))


@pytest.mark.parametrize('module', public_modules())
def test_every_public_name_has_an_entry(reference, module):
    tree = ast.parse((ROOT / 'rprop_lit' / f'{module}.py').read_text(encoding='utf-8'))
    names = next(ast.literal_eval(n.value) for n in tree.body
                 if isinstance(n, ast.Assign) and n.targets[0].id == '__all__')
    page = reference.page(module)
    assert names
    assert [name for name in names if f'## `{name}`\n' not in page] == []


def test_the_top_of_the_package_has_its_table(reference):
    page = reference.contents()
    for name in rprop_lit.__all__:
        home = re.search(rf'\| \[`{name}`\]\(#(rprop_lit\.[\w.]+)\)', page)[1]
        assert f'({home})=' in ''.join(reference.page(module) for module in reference.modules())


def public(reference):
    "(where, node) of all that is public: what the package or a public module has in `__all__`"
    homes = set(reference.exported().values())
    for module in public_modules():
        homes |= {reference.home_of(module, name) for name in reference.listed(reference.tree_of(module))}
    for module in reference.modules():
        for entry in reference.entries(module):
            if f'{module}.{entry.name}' in homes and isinstance(entry.node, (ast.FunctionDef, ast.ClassDef)):
                yield f'{module}.{entry.name}', entry.node
                yield from ((f'{module}.{entry.name}.{method.name}', method) for method in entry.methods)


def test_the_public_docstrings_miss_no_parameter_no_type_and_no_error(reference):
    found, unsaid, untyped, unwarned = dict(public(reference)), {}, {}, {}
    for where, node in found.items():
        if ast.get_docstring(node) is None:  # as the `forward` of a loss: its class says it
            node = copy.copy(node)
            node.body = [found[where.rpartition('.')[0]].body[0], *node.body]
        unsaid[where] = reference.unsaid(node)
        untyped[where] = [p.name for p in reference.parameters(node) if not p.type]
        text = ast.get_docstring(node) or ''
        unwarned[where] = [error for error in reference.raised(node) if error not in text]
    some = {'optim.Rprop.load', 'inside.walk.rprop', 'inside.results.Trace.plot', 'nn.Linear.forward',
            'pictures.heat', 'torch.Rprop.step', 'sunspots.train', 'rule.init', 'variants.update'}
    assert some <= set(found) and len(found) > 130
    for missing in (unsaid, untyped, unwarned):
        assert {where: names for where, names in missing.items() if names} == {}


def test_a_public_docstring_with_a_table_says_what_comes_back(reference):
    def returns(node):
        return isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) != 'None'

    tables = {where: node for where, node in public(reference) if returns(node) and reference.described(node)}
    silent = [where for where, node in tables.items() if not reference.documentation(node).many_returns]
    assert len(tables) > 25 and silent == []


# what somebody else has invented
RULES = ['optim.Rprop', 'torch.Rprop', 'jax.rprop', 'inside.walk.rprop', 'solver.minimize', 'rule.update_one',
         'variants.step_one', 'variants.update', 'scale.tree_sum', 'sunspots.linear', 'sunspots.arv',
         'problems.rosenbrock']
# what is public and has no example, by the reason
NO_EXAMPLE = {
    'its users meet it through what makes it or takes it, which has an example': [
        'problems.Problem', 'variants.Variant', 'variants.Flip', 'pictures.Table', 'scale.Alone',
        'scale.FullBatch', 'sunspots.Task', 'sunspots.Fit', 'jax.RpropState',
        'tensor.Record', 'inside.options.Options', 'inside.results.Result', 'inside.states.States',
        'inside.states.Unmatched', 'inside.habits.Report', 'inside.traces.GoldenTrace',
        'inside.traces.Walked'],
    'it is raised, and not called': ['inside.traces.Misuse'],
    'it changes the defaults of matplotlib for the whole process': ['pictures.style'],
    'it needs torch, without which the other examples of its module run': ['inside.memory.to_torch'],
    'its chapter shows it in the cell below, and the chapters that everybody reads stay short': [
        'conformance.check_program', 'pictures.contours', 'nn.Parameter', 'nn.Module', 'nn.Tanh',
        'nn.Sigmoid', 'nn.ReLU', 'nn.Sequential', 'nn.CrossEntropyLoss'],
}


def test_all_that_is_public_has_an_example_or_it_is_said_why_not(reference):
    found = dict(public(reference))
    whole = [where for where in found if where.rpartition('.')[0] not in found]  # methods are parts of these
    bare = [where for where in whole if not reference.example_of(found[where]).startswith('>>> ')]
    assert len(whole) > 100 and sorted(bare) == sorted(sum(NO_EXAMPLE.values(), []))
    assert '**Example**\n\n```pycon\n>>> ' in reference.page('solver')


def test_an_algorithm_names_its_paper(reference):
    found = dict(public(reference))
    year = re.compile(r'\b(1[89]|20)\d\d\b')
    assert [where for where in RULES if not year.search(ast.get_docstring(found[where]))] == []


def test_a_table_of_parameters_is_complete_and_invents_none(reference):
    entries = [entry for module in reference.modules() for entry in reference.entries(module)]
    nodes = {f'{entry.path}.{getattr(node, "name", "")}': node for entry in entries
             for node in (entry.node, *entry.methods) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    tables = {where: node for where, node in nodes.items() if reference.described(node)}
    assert len(tables) > 30
    assert {where: names for where, node in tables.items()
            if (names := reference.unsaid(node) + reference.invented(node))} == {}


def test_errors_are_read_from_the_lines_of_a_function(reference):
    text = 'def f(a):\n    if a:\n        raise ValueError("x")\n    def g(): raise KeyError("x")\n    raise'
    node = ast.parse(text).body[0]
    assert reference.raised(node) == {'ValueError'}
    text = ('class A:\n    def __init__(self):\n        raise TypeError("x")\n'
            '    def f(self):\n        raise ValueError("x")')
    node = ast.parse(text).body[0]
    assert reference.raised(node) == {'TypeError'}


def test_a_docstring_that_misses_a_parameter_is_seen(reference):
    node = ast.parse('def f(a, b, *, c=1):\n    """Say.\n\n    Parameters\n    ----------\n    a : int\n'
                     '        One.\n    d : int\n        Four.\n\n    Source: Me 2000.\n    """').body[0]
    assert reference.unsaid(node) == ['b', 'c'] and reference.invented(node) == ['d']
    assert '**Source** · Me 2000.' in reference.body(node) and '| `c` |  | `1` |  |' in reference.body(node)


# the live figures

WALKS = [dict(surface='bowl', condition=10.0, degrees=15.0),
         dict(surface='bowl', condition=1000.0, degrees=0.0, lr=2.0), dict(surface='rosenbrock'),
         dict(surface='plateau', lr=1.0), dict(surface='noisy', noise=3.0), dict(surface='twin'),
         dict(surface='bowl', eta_minus=0.3, eta_plus=1.7, floor=0.01)]


def array_walk(config):
    """The walks of a figure's settings by the package's array form:
    for each run its points, gradients, signs and steps before each step, moves"""
    config = walk.DEFAULTS | config
    functions, _, start = walk.surface(config)
    for _, fun in functions:
        w = np.array(config['start'] or start, dtype=float)
        state, rows = init(w, config['lr']), []
        for _ in range(config['steps']):
            error, g = fun(w.tolist())
            dw, new = update(np.array(g), state, variant=config['variant'],
                             etas=(config['eta_minus'], config['eta_plus']),
                             step_sizes=(config['floor'], walk.CEILING), loss=error)
            rows.append((w, error, np.array(g), state, dw, new))
            w, state = w + dw, new
        yield [*rows, (w, fun(w.tolist())[0], None, state, None, None)]


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('config', WALKS, ids=lambda c: '-'.join(map(str, c.values())))
def test_a_figure_walks_as_the_package_does(config, variant):
    config = dict(config, variant=variant, steps=60)
    runs = walk.walk(config)['runs']
    for run, rows in zip(runs, array_walk(config), strict=True):
        assert run['w'] == [row[0].tolist() for row in rows]
        assert [[(m['sign'], m['step'], m['dw']) for m in moves] for moves in run['moves']] == [
            list(zip(row[3].sign.tolist(), row[3].step.tolist(), row[4].tolist())) for row in rows[:-1]]


@pytest.mark.parametrize('name, config, problem', [
    ('along', dict(surface='bowl', condition=100.0, degrees=0.0), problems.bowl([1.0, 100.0])),
    ('across', dict(surface='bowl', condition=100.0, degrees=15.0), problems.bowl([1.0, 100.0], turn=15)),
    ('rosenbrock', dict(surface='rosenbrock'), problems.rosenbrock()),
    ('plateau', dict(surface='plateau'), problems.plateau()),
])
def test_the_surfaces_are_those_of_the_book(name, config, problem):
    (_, fun), = walk.surface(walk.DEFAULTS | config)[0]
    for w in np.random.default_rng(0).uniform(-2, 2, size=(50, 2)):
        mine, theirs = fun(w.tolist()), problem.fun(w)
        # the order of additions differs in the turned bowl, whose sines are rounded to twelve digits
        assert np.allclose([mine[0], *mine[1]], [theirs[0], *theirs[1]], rtol=1e-9, atol=1e-9)


def test_noise_has_the_size_that_the_slider_says():
    config = walk.DEFAULTS | dict(surface='noisy', noise=2.0)
    (_, rough), = walk.surface(config)[0]
    (_, smooth), = walk.surface(config | dict(surface='bowl'))[0]
    noise = np.array([rough([1.0, 1.0])[1] for _ in range(20000)]) - smooth([1.0, 1.0])[1]
    # twenty thousand draws: both are known to about two hundredths
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 2) < 0.05


def test_needed_counts_the_steps_to_the_target():
    run = walk.walk(dict(surface='bowl', steps=60))['runs'][0]
    assert run['needed'] == next(k for k, error in enumerate(run['error']) if error < 1e-6)
    two = walk.walk(dict(surface='twin', steps=60))['runs']
    assert two[0]['needed'] == two[1]['needed'] and two[0]['w'] == two[1]['w']
    assert walk.walk(dict(surface='rosenbrock', steps=10, limit=20))['runs'][0]['needed'] is None


def test_the_rivals_do_what_their_papers_say():
    run = walk.walk(dict(surface='bowl', degrees=0.0, gd=0.01, adam=0.1, steps=3))['runs'][0]
    w = np.array([3.0, 2.0])
    for point in run['gd']['w']:
        assert np.allclose(point, w)
        w = w - 0.01 * np.array([2, 20]) * w
    w, m, v = np.array([3.0, 2.0]), 0, 0
    for k, point in enumerate(run['adam']['w'], 1):
        assert np.allclose(point, w)
        g = np.array([2, 20]) * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.1 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)


def three(x, signed=False):
    return format(float(x), '+.3g' if signed else '.3g').replace('-', '\u2212')


def expected(config, rows, names):
    """What a sentence must say of each step, told from the arrays of the package alone:
    a list of lists of words"""
    said = []
    for k, (_, error, g, old, dw, new) in enumerate(rows[:-1]):
        words = []
        for i, name in enumerate(names):
            agree = np.sign(g[i]) * old.sign[i]
            before, after = float(old.step[i]), float(new.step[i])
            if agree < 0:
                words += (['The sign turned', three(before), three(after)] if before != after
                          else ['The sign turned', f'stays {three(after)}'])
                words += [f'of {name} is taken back' if new.sign[i] == 0 and dw[i] == old.sign[i] * before
                          else f'{name} waits' if dw[i] == 0
                          else f'{name} turns round by {three(dw[i], True)}']
                if config['variant'] == 'irprop+':
                    words += ['because the error rose' if error > rows[k - 1][1]
                              else 'because the error did not rise']
            elif agree > 0:
                words += ['The sign repeats', f'grows from {three(before)} to {three(after)}'
                          if after > before else f'stays {three(after)}',
                          f'{name} moves by {three(dw[i], True)}']
            else:
                words += ['No sign is remembered' if g[i] else 'has no sign', f'stays {three(after)}',
                          f'{name} moves by {three(dw[i], True)}' if g[i] else f'{name} stays']
        said.append(words)
    return said


def says(sentence, words):
    "Do the words stand in the sentence in this order?"
    at = 0
    for word in words:
        at = sentence.find(word, at)
        if at < 0:
            return False
    return True


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('config', WALKS, ids=lambda c: '-'.join(map(str, c.values())))
def test_a_sentence_agrees_with_the_trace(config, variant):
    config = walk.DEFAULTS | dict(config, variant=variant, steps=60)
    shown = walk.walk(config)
    for run, rows in zip(shown['runs'], array_walk(config), strict=True):
        pairs = zip(run['sentences'], expected(config, rows, shown['names']), strict=True)
        wrong = [(k, sentence, words) for k, (sentence, words) in enumerate(pairs, 1)
                 if not says(sentence, words)]
        assert wrong == []


def test_a_step_of_zero_gradient_and_one_of_no_finite_error_are_told():
    move = dict(g=0.0, sign=1, step=0.1, dw=-0.0, sign_after=0, step_after=0.1)
    assert (walk.told('w', move, 0.5, 1.0, None)
            == 'The gradient has no sign: the step stays 0.1, and w stays.')
    back = dict(g=math.nan, sign=1, step=0.12, dw=0.12, sign_after=0, step_after=0.06)
    assert (walk.told('w', back, 0.5, math.inf, 1.0)
            == 'The error is not a finite number: the step of 0.12 shrinks to 0.06, and the last move of w '
               'is taken back.')


def test_the_rule_needs_nothing_but_python(tmp_path):
    package = tmp_path / 'rprop_lit'
    package.mkdir()
    (package / '__init__.py').write_text('')
    for name in ('rule.py', 'variants.py'):
        shutil.copy(ROOT / 'rprop_lit' / name, package)
    code = f'''
import sys
sys.path[:] = [p for p in sys.path if 'site-packages' not in p and p not in ('', {str(ROOT)!r})]
sys.path.append({str(tmp_path)!r})
sys.modules['numpy'] = None  # an import of it fails
from rprop_lit.variants import VARIANTS, step_one
dw, state = step_one('irprop+', 1.0, 5.0, (0, 0.1))
assert dw == -0.1 and tuple(state) == (1, 0.1, 5.0) and len(VARIANTS) == 4
try:
    import numpy
except ImportError:
    print('alone')
'''
    run = subprocess.run([sys.executable, '-I', '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.strip() == 'alone', run.stderr


# the build

@pytest.fixture
def built(tmp_path):
    "Two pages that lead to each other"
    (tmp_path / 'a.html').write_text('<h1 id="top">A</h1><a href="b.html#end">b</a><a href="#top">top</a><a '
                                     'href="https://example.org/x">out</a>')
    (tmp_path / 'b.html').write_text('<p id="end">B</p><a href="a.html">a</a><img src="a.html" alt="A '
                                     'picture">')
    return tmp_path


@pytest.fixture(scope='module')
def build():
    return importlib.import_module('build')


def test_links_that_lead_somewhere_pass(build, built):
    assert build.check(built) == []


@pytest.mark.parametrize('text, told', [('<a href="c.html">c</a>', 'c.html'),
                                        ('<a href="b.html#no">b</a>', 'b.html#no'),
                                        ('<img src="a.html">', 'has no text'),
                                        ('<script src="missing.js"></script>', 'missing.js'),
                                        ('<script src="https://cdn.example.org/x.js"></script>',
                                         'cdn.example.org')])
def test_a_broken_link_a_silent_picture_and_a_foreign_script_are_seen(build, built, text, told):
    with (built / 'a.html').open('a') as file:
        file.write(text)
    assert len(build.check(built)) == 1 and told in build.check(built)[0]


def table_of(columns, width):
    "A table in HTML with names `width` letters long"
    head = ''.join(f'<th class="head"><p>{"n" * width}&amp;{k}</p></th>' for k in range(columns))
    row = '<td><p>1</p></td>' * columns
    return f'<table class="table"><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>'


def test_a_wide_table_carries_the_names_of_its_columns(build):
    narrow, wide, wider = table_of(3, 5), table_of(8, 4), table_of(14, 5)
    assert build.labelled(narrow) == narrow
    marked = build.labelled(f'{narrow}<p>{wide}</p>{wider}')
    assert marked.startswith(narrow)
    assert marked.count('class="table wide"') == marked.count('class="table wider"') == 1
    assert marked.count('data-label="nnnn&amp;7"') == marked.count('data-label="nnnnn&amp;13"') == 1
    assert marked.count('data-label') == 22
    spaced = table_of(8, 4).replace('nnnn', 'n n')  # a space is a place to break a line
    assert build.labelled(spaced) == spaced


def test_without_its_packages_the_build_stops_and_names_the_command(build, tmp_path, monkeypatch):
    shutil.copy(DOCS / 'package-lock.json', tmp_path)
    monkeypatch.setattr(build, 'DOCS', tmp_path)
    monkeypatch.setenv('PATH', str(tmp_path))  # where there is no npm
    with pytest.raises(SystemExit, match=re.escape(build.FETCH)):
        build.packages()


def test_every_package_is_locked_by_its_hash():
    lock = json.loads((DOCS / 'package-lock.json').read_text(encoding='utf-8'))['packages']
    assert {'node_modules/d3', 'node_modules/mathjax', 'node_modules/pyodide'} <= set(lock)
    assert [name for name, entry in lock.items()
            if name and not entry.get('integrity', '').startswith('sha512-')] == []


def test_the_table_of_chapters_is_in_step_with_the_book(build):
    stems = {path.stem for path in build.chapters.notebooks()}
    assert set(build.chapters.FACTS) <= stems and {'00_problems', '10_rule', '20_variants'} <= stems


def test_a_chapter_becomes_a_page(build, tmp_path):
    chapters = build.chapters

    def code(source, outputs=()):
        return dict(cell_type='code', source=source, outputs=list(outputs), metadata={}, id='x')

    cells = [code('#| export\nimport math'), code('#| exports\ndef _helper(): return 1'),
             code('#| exports\ndef shown(): return 1'), code('#| solution\nshown()')]
    path = tmp_path / 'idea' / '01_new.ipynb'
    marked = chapters.mark(dict(cells=cells), path)['cells']
    assert marked[0]['source'].startswith('#| exports\n')  # nbdev leaves `export` cells out of its pages
    tags = [chapters.tagged(cell, 'idea/01_new')['metadata']['tags'] for cell in marked]
    assert tags == [['hide-input'], ['hide-input'], [], ['hide-cell']]
    assert [cell['source'] for cell in marked] == ['import math', 'def _helper(): return 1',
                                                   'def shown(): return 1', 'shown()']
    silent = code('plot()', [dict(output_type='display_data', data={'image/png': ''})])
    with pytest.raises(chapters.Broken, match='fig-alt'):
        chapters.tagged(silent, 'idea/01_new')
    silent['source'] = '#| fig-alt: A line that falls\nplot()'
    chapters.mark(dict(cells=[silent]), path)
    assert (chapters.tagged(silent, 'idea/01_new')['metadata']['mystnb']['image']['alt']
            == 'A line that falls')


def test_every_picture_has_a_text_of_its_own(build):
    chapters, found = build.chapters, {}
    for path in (*chapters.notebooks(), ROOT / 'nbs' / 'index.ipynb'):
        for cell in chapters.read(path)['cells']:
            if chapters.has_picture(cell):
                found.setdefault(chapters.directives(cell).get('fig-alt', ''), []).append(path.stem)
    assert len(found) > 70 and {text: pages for text, pages in found.items() if len(pages) > 1} == {}
    assert [pages for text, pages in found.items() if len(text.split()) < 6 or not text.endswith('.')] == []


def test_code_names_lead_to_the_reference(build):
    where = build.chapters.targets()
    text = build.chapters.linked('Call `update_one` or `minimize()`, not `init`.\n\n```\n`update_one`\n```',
                                 where, 'rule', {'init'})
    assert text == ('Call [`update_one`](#rprop_lit.rule.update_one) or '
                    '[`minimize()`](#rprop_lit.solver.minimize), not `init`.\n\n```\n`update_one`\n```')


def test_links_of_a_notebook_become_links_of_the_site(build):
    def there(text):
        return build.chapters.repository_links(text, 'idea/10_rule.ipynb', 'https://example.org/repo')

    assert (there('[a](#A-first-run) [b](20_variants.ipynb#The-question) [c](20_variants.ipynb)')
            == '[a](#a-first-run) [b](20_variants.ipynb#the-question) [c](20_variants.ipynb)')
    apart = ' [e](https://example.org/A#B) [f](#rprop_lit.rule.class.State)'
    assert (there('[d](../../tests/book.py)' + apart)
            == '[d](https://example.org/repo/blob/main/tests/book.py)' + apart)
    with pytest.raises(build.chapters.Broken, match='not there'):
        there('[g](21_none.ipynb)')


# in a browser

ON = os.environ.get('RPROP_LIT_SITE') == '1'
browsing = pytest.mark.skipif(not ON, reason='RPROP_LIT_SITE is not 1: .ci/steps/site builds the site and '
                                             'reads it in a browser')
PAGES = (sorted(str(p.relative_to(OUT)) for p in OUT.rglob('*.html') if '_static' not in p.parts) if ON
         else ['index.html'])
QUIET = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync').split()


class Server(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, '.mjs': 'text/javascript',
                      '.wasm': 'application/wasm'}

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def browser():
    "The site on localhost: (headless browser, function that opens a page and notes what goes wrong there)"
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip('there is no Chromium and no Chrome here')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Server, directory=OUT))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_api.sync_playwright() as play:
        program = play.chromium.launch(executable_path=program, args=QUIET)

        def go(address, width=1280, dark=False, touch=False, hold=None):
            page = program.new_page(viewport=dict(width=width, height=900), has_touch=touch,
                                    color_scheme='dark' if dark else 'light')
            page.wrong = []
            page.on('console', lambda m: page.wrong.append(m.text) if m.type in ('error', 'warning')
                    else None)
            page.on('pageerror', lambda e: page.wrong.append(str(e)))
            page.on('requestfailed', lambda r: page.wrong.append(f'failed: {r.url}')
                    if 'ERR_ABORTED' not in (r.failure or '') else None)
            page.on('request', lambda r: page.wrong.append(f'leaves: {r.url}')
                    if urlparse(r.url).hostname not in (None, '', '127.0.0.1') else None)
            page.on('response', lambda r: page.wrong.append(f'{r.status}: {r.url}') if r.status >= 400
                    else None)
            page.held = []
            if hold:  # what is asked for waits in `held` until a test lets it go on
                page.route(hold, lambda route: page.held.append(route))
            page.goto(f'http://127.0.0.1:{server.server_port}/{address}', wait_until='load')
            return page

        yield program, go
        program.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(browser):
    "A function that opens a page; it is closed when its test ends, or the browser would grow without bounds"
    program, go = browser
    yield go
    for context in program.contexts:
        context.close()
    assert not program.contexts


DRAWN = """() => new Promise((done) => {
  const settled = () => [...document.querySelectorAll('.rprop-play')].every((f) => f.dataset.state)
    ? requestAnimationFrame(() => requestAnimationFrame(done)) : setTimeout(settled, 10);
  settled();
})"""


def drawn(page):
    "Wait until every live figure shows a walk, and the page is laid out for its present size"
    page.evaluate(DRAWN)


def live(page, timeout=110_000):
    "Wait until Python has answered the newest question"
    page.wait_for_function("[...document.querySelectorAll('.rprop-play')].every((f) => f.dataset.state === "
                           "'live')", timeout=timeout)


FITS = '''() => {
  const wide = document.documentElement.scrollWidth > innerWidth ? ['the page'] : [];
  const parts = '.bd-article :is(pre, table, img), .rprop-play, mjx-container[display="true"]';
  const inner = [...document.querySelectorAll(parts)].filter((e) => e.clientWidth
    && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth + 1));
  return wide.concat(inner.map((e) => `${e.tagName}: ${e.textContent.slice(0, 80)}`));
}'''


@browsing
@pytest.mark.parametrize('address', PAGES)
def test_a_page_loads_in_silence_and_fits(site, address):
    page = site(address)
    page.wait_for_function('!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)')
    assert page.locator('h1').count() or address in ('search.html', 'genindex.html')
    drawn(page)
    assert page.evaluate(FITS) == []
    page.set_viewport_size(dict(width=390, height=844))
    drawn(page)
    assert page.evaluate(FITS) == [] and page.wrong == []


@browsing
def test_math_is_rendered(site):
    page = site('idea/00_problems.html')
    page.wait_for_selector('mjx-container svg')
    page.wait_for_function('MathJax.startup.promise.then(() => true)')
    drawn = page.eval_on_selector_all('.bd-article .math',
                                      "all => all.map((m) => m.querySelector('mjx-container svg') !== null)")
    assert len(drawn) > 5 and all(drawn)
    assert page.locator('mjx-merror, [data-mjx-error]').count() == 0 and page.wrong == []


@browsing
def test_search_finds_backtracking(site):
    page = site('search.html?q=backtracking')
    page.wait_for_selector('#search-results li a')
    assert page.locator('#search-results li a[href*="20_variants"]').count() >= 1 and page.wrong == []


def coordinates(page):
    "The points that the first figure of a page shows, to the last bit"
    return [[float(x) for x in text.split()]
            for text in page.eval_on_selector_all('.ground .point',
                                                  'points => points.map((p) => p.dataset.w)')]


def pick(page, name, value):
    page.check(f'input[name="play-{name}"][value="{value}"]')
    live(page)


@browsing
def test_the_live_page_walks_as_the_package_does(site):
    page, paths, firsts = site('play.html', hold='**/worker.js'), set(), []
    drawn(page)
    state, recorded = page.get_attribute('.rprop-play', 'data-state'), coordinates(page)
    assert state == 'recorded' and len(recorded) == walk.DEFAULTS['steps'] + 1
    while not page.held:
        page.wait_for_timeout(10)
    page.held.pop().continue_()
    live(page)
    assert coordinates(page) == recorded  # until Python is there, the same walk stands there as a record
    for variant in VARIANTS:
        pick(page, 'variant', variant)
        config = walk.DEFAULTS | page.evaluate("document.querySelector('.rprop-play').trace.config")
        rows = next(array_walk(config))
        assert config['variant'] == variant and coordinates(page) == [row[0].tolist() for row in rows]
        undone = page.eval_on_selector_all('.ground .point',
                                           "points => points.map((p) => p.classList.contains('undone'))")
        assert undone == [bool(((row[4] != 0) & (row[5].sign == 0)).any()) for row in rows[:-1]] + [False]
        paths.add(page.get_attribute('.ground path.path', 'd'))
        firsts.append(rows[0][0].tolist())
    assert len(paths) == 4 and firsts == [firsts[0]] * 4 and page.wrong == []


@browsing
def test_the_scrubber_says_what_the_trace_holds(site):
    page = site('play.html')
    live(page)
    for variant in VARIANTS:
        pick(page, 'variant', variant)
        config = walk.DEFAULTS | page.evaluate("document.querySelector('.rprop-play').trace.config")
        words = expected(config, next(array_walk(config)), ['w\u2080', 'w\u2081'])
        for k in range(1, config['steps'] + 1):
            said, where = page.evaluate('''k => {
                const s = document.querySelector('.scrub');
                s.value = k;
                s.dispatchEvent(new Event('input', { bubbles: true }));
                return ['.sentence', '.scrubber'].map((c) => document.querySelector(c).innerText);
            }''', k)
            assert says(said, words[k - 1]) and f'step {k} of' in where
    assert page.wrong == []


@browsing
def test_the_surfaces_and_the_sliders_answer(site):
    page, seen = site('play.html'), set()
    live(page)
    for surface in ('twin', 'rosenbrock', 'plateau', 'noisy', 'bowl'):
        pick(page, 'surface', surface)
        config = walk.DEFAULTS | page.evaluate("document.querySelector('.rprop-play').trace.config")
        assert config['surface'] == surface
        shown, rows = coordinates(page), list(array_walk(config))
        assert shown == [row[0].tolist() for run in rows for row in run]
        seen.add(page.get_attribute('.ground path.path', 'd'))
    for name in ('condition', 'degrees', 'lr', 'eta_minus', 'eta_plus', 'floor', 'steps'):
        before = json.dumps(page.evaluate("document.querySelector('.rprop-play').trace"))
        page.focus(f'input[data-name="{name}"]')
        page.keyboard.press('ArrowRight')
        page.keyboard.press('ArrowRight')
        page.wait_for_function("k => document.querySelector('.rprop-play').dataset.state === 'live' && "
                               "JSON.stringify(document.querySelector('.rprop-play').trace) !== k",
                               arg=before)
    for rival in ('gd', 'adam'):
        page.check(f'.rival:has(input[data-name="{rival}"]) input[type="checkbox"]')
        live(page)
        assert page.locator(f'.ground .rival-line.{rival}').count() == 1
    assert len(seen) == 5 and page.wrong == []


def by_mouse(page, x, y):
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 40, steps=5)
    page.mouse.up()


def by_finger(page, x, y):
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        session.send('Input.dispatchTouchEvent',
                     dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in points]))

    touch('touchStart', (x, y))
    for k in range(1, 6):
        touch('touchMove', (x - 12 * k, y + 8 * k))
    touch('touchEnd')


@browsing
@pytest.mark.parametrize('width, drag', [(1280, by_mouse), (390, by_finger)])
def test_the_start_is_moved_by_hand_and_by_keys(site, width, drag):
    page = site('play.html', width=width, touch=drag is by_finger)
    live(page)
    start = coordinates(page)[0]
    page.locator('.start-ring').scroll_into_view_if_needed()
    box = page.locator('.start-ring').bounding_box()
    drag(page, box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    live(page)
    dragged = coordinates(page)[0]
    assert dragged[0] < start[0] and dragged[1] < start[1]
    page.focus('.start-ring')
    page.keyboard.press('ArrowLeft')
    live(page)
    assert coordinates(page)[0][0] < dragged[0] and coordinates(page)[0][1] == dragged[1]
    assert page.evaluate("document.activeElement.classList.contains('start-ring')") and page.wrong == []


CONTRAST = '''(selectors) => {
  const linear = (s) => s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (let n = e; n; n = n.parentElement) {
      const c = getComputedStyle(n).backgroundColor;
      if (c !== 'transparent' && !/, 0\\)$/.test(c)) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = (selector) => [...document.querySelectorAll(selector)].slice(0, 40);
  return selectors.flatMap(([selector, kind]) => found(selector).map((e) => {
    const [a, b] = [light(getComputedStyle(e)[kind]), light(behind(e))].sort((x, y) => y - x);
    return [selector, (a + 0.05) / (b + 0.05)];
  }));
}'''


@browsing
@pytest.mark.parametrize('dark', [False, True])
def test_text_and_lines_stand_out(site, dark):
    page = site('play.html', dark=dark)
    live(page)
    for variant in VARIANTS:
        pick(page, 'variant', variant)
        found = page.evaluate(CONTRAST, [['.bd-article p', 'color'], ['.bd-article p code', 'color'],
                                         ['.rprop-play .status', 'color'], ['.rprop-play legend', 'color'],
                                         ['.rprop-play .key', 'fill'], ['.rprop-play .axis text', 'fill']])
        assert len(found) > 10 and [(s, c) for s, c in found if c < 4.5] == []
        lines = page.evaluate(CONTRAST, [['.rprop-play .path', 'stroke'], ['.rprop-play .line', 'stroke'],
                                         ['.rprop-play .start-ring', 'stroke']])
        assert [(s, c) for s, c in lines if c < 3] == []


@browsing
def test_the_chapters_have_facts_a_way_on_and_links_to_the_reference(site):
    page = site('idea/10_rule.html')
    assert re.search(r'You need:.+You will have:.+Reading time: about \d+ minutes', page.inner_text('.facts'),
                     re.S)
    assert (page.locator('a.left-prev[href="00_problems.html"]').count() == 1
            and page.locator('a.right-next').count() == 1)
    assert page.locator('.bd-article a[href^="../api/"]').count() >= 1
    assert page.locator('details').count() >= 1


@browsing
@pytest.mark.parametrize('chapter, figure', [('00_problems', 'sign'), ('10_rule', 'etas'),
                                             ('20_variants', 'turn')])
def test_the_idea_has_folded_solutions_and_a_live_figure(site, chapter, figure):
    page = site(f'idea/{chapter}.html')
    solutions = page.locator('details:has(summary:has-text("Solution of exercise"))')
    assert solutions.count() == 4 and page.locator('details[open]').count() == 0
    hidden = solutions.first.locator('.highlight').first
    assert not hidden.is_visible()
    solutions.first.locator('summary').click()
    assert hidden.is_visible()
    live(page)
    recorded = json.loads((OUT / '_static' / 'play' / 'recorded.json').read_text(encoding='utf-8'))[figure]
    assert [w for run in recorded['runs'] for w in run['w']] == coordinates(page) and page.wrong == []


@browsing
def test_turning_the_bowl_makes_dozens_thousands(site):
    page = site('idea/20_variants.html')
    live(page)
    def needed():
        return page.evaluate("document.querySelector('.rprop-play').trace.runs[0].needed")

    before = needed()
    page.focus('input[data-name="degrees"]')
    for _ in range(15):
        page.keyboard.press('ArrowRight')
    page.wait_for_function("document.querySelector('.rprop-play').trace.config.degrees === 15")
    live(page)
    assert before < 100 and needed() > 1000 and str(needed()) in page.inner_text('.rprop-play .status')
