"""Build the site: nbdev's own processing of the notebooks, then Sphinx, into the folder _docs/.

    python -m pip install -e '.[dev,docs]'    # once
    python docs/build.py                        # everything; then: python -m http.server -d _docs

A warning is an error, and so is a link within the site that leads nowhere. What the reader's browser runs
(formulas, drawing, Python) comes from npm packages that docs/package-lock.json locks by version and hash, and
is served by the site itself.
"""
import base64
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import chapters
import reference

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
WORK, OUT = ROOT / 'build' / 'site', ROOT / '_docs'
FETCH = 'npm ci --ignore-scripts --prefix docs'
SERVED = {  # what of the npm packages the site serves
    'd3/dist/d3.min.js': 'd3.min.js',
    'mathjax/tex-svg.js': 'mathjax/tex-svg.js',
    'mathjax/sre': 'mathjax/sre',
    'mathjax/input/tex/extensions': 'mathjax/input/tex/extensions',
    'mathjax/a11y': 'mathjax/a11y',
    'mathjax/ui': 'mathjax/ui',
    '@mathjax/mathjax-newcm-font/svg': 'mathjax-newcm-font/svg',
    'pyodide/pyodide.mjs': 'pyodide/pyodide.mjs',
    'pyodide/pyodide.asm.mjs': 'pyodide/pyodide.asm.mjs',
    'pyodide/pyodide.asm.wasm': 'pyodide/pyodide.asm.wasm',
    'pyodide/python_stdlib.zip': 'pyodide/python_stdlib.zip',
    'pyodide/pyodide-lock.json': 'pyodide/pyodide-lock.json',
}
PHONE, TABLET = 358, 480  # pixels that a table has there
LETTER = {'th': 8, 'td': 7}  # pixels of a letter in a phone's table, if it is a wide one
# what docs/reference.py and docs/chapters.py do here
NO_DOCS = 'skip_procs = add_show_docs,exec_show_docs,clean_show_doc,add_links,mv_exports,add_fold'


def settings():
    "The project's settings.ini"
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


def packages():
    "Have the npm packages of the lock file in docs/node_modules, or stop and say what to run"
    lock, have = DOCS / 'package-lock.json', DOCS / 'node_modules' / '.package-lock.json'

    def hashes(path):
        held = json.loads(path.read_text(encoding='utf-8'))['packages'] if path.exists() else {}
        return {name: entry['integrity'] for name, entry in held.items() if name}

    if hashes(have) == hashes(lock):
        return
    print(FETCH, flush=True)
    try:
        done = subprocess.run(FETCH.split(), cwd=ROOT).returncode
    except FileNotFoundError:
        done = 'there is no npm'
    if done or hashes(have) != hashes(lock):
        sys.exit('The site needs the npm packages of docs/package-lock.json. With Node.js and a connection, '
                 f'run:\n\n    {FETCH}\n')


def processed():
    "The notebooks as nbdev's own processing leaves them, by path"
    from nbdev.serve import proc_nbs

    copy = WORK / 'copy'
    for path in chapters.notebooks():
        target = copy / 'nbs' / path.relative_to(ROOT / 'nbs')
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(chapters.mark(chapters.read(path), path)), encoding='utf-8')
    (copy / 'rprop_lit').symlink_to(ROOT / 'rprop_lit')
    ini = (ROOT / 'settings.ini').read_text(encoding='utf-8')
    (copy / 'settings.ini').write_text(ini.replace('[DEFAULT]', f'[DEFAULT]\n{NO_DOCS}'), encoding='utf-8')
    os.chdir(copy)
    made = Path(proc_nbs(n_workers=2, force=True))
    os.chdir(ROOT)
    return {path: chapters.read(made / path.relative_to(ROOT / 'nbs')) for path in chapters.notebooks()}


def static(target):
    "What is served as it is: styles, the live page, the book's two modules, and what comes from npm"
    shutil.copytree(DOCS / '_static', target)
    for name, to in SERVED.items():
        source, place = DOCS / 'node_modules' / name, target / 'npm' / to
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)
    (target / 'play').mkdir()
    for name in ('rule.py', 'variants.py'):  # unchanged: the page runs the text that the book explains
        shutil.copy(ROOT / 'rprop_lit' / name, target / 'play' / name)
    for path in (DOCS / 'play').glob('*.*'):
        shutil.copy(path, target / 'play' / path.name)
    record(target / 'play' / 'recorded.json')


def record(path):
    "The walks that a live figure shows until Python has come up in the browser, made by the same files"
    code = 'import sys, json; sys.path[:0] = sys.argv[1:3]; import walk; print(json.dumps(walk.recorded()))'
    made = subprocess.run([sys.executable, '-c', code, DOCS / 'play', ROOT], check=True, capture_output=True,
                          text=True)
    path.write_text(made.stdout, encoding='utf-8')


def landing():
    "The first page, docs/index.md with the code that nbs/index.ipynb ran, and its picture"
    cells = [c for c in chapters.read(ROOT / 'nbs' / 'index.ipynb')['cells'] if c['cell_type'] == 'code']

    def code(match):
        found = [c for c in cells if re.search(match[1], c['source'])]
        if not found:
            raise chapters.Broken(f'docs/index.md wants a cell of nbs/index.ipynb with {match[1]!r}')
        return '```python\n' + re.sub(r'^#\|.*\n', '', found[0]['source'], flags=re.M).strip() + '\n```'

    drawn = next(c for c in cells if chapters.has_picture(c))
    alt = chapters.directives(drawn).get('fig-alt')
    data = next(out['data']['image/png'] for out in drawn['outputs'] if 'image/png' in out.get('data', {}))
    text = re.sub(r'<!-- cell: (.+?) -->', code, (DOCS / 'index.md').read_text(encoding='utf-8'))
    return text.replace('<!-- picture -->', f'![{alt}](bowls.png)'), base64.b64decode(data)


def tree():
    "The order of all pages, for the menu at the left and for previous and next"
    def block(caption, documents):
        return '```{toctree}\n:hidden:\n:caption: ' + caption + '\n\n' + '\n'.join(documents) + '\n```'

    parts = {part: [f'{part}/{path.stem}' for path in chapters.notebooks() if path.parent.name == part]
             for part in chapters.PARTS}
    captions = {'idea': 'Learn: the idea', 'use': 'Learn: use it', 'evidence': 'Learn: evidence',
                'inside': 'Inside: fast and safe'}
    book = [block(captions[part], docs) for part, docs in parts.items() if docs]
    return '\n\n'.join([block('Start', ['play']), *book, block('Look up', ['api/index'])])


def track(parts):
    "A list of the chapters of a track, for the landing page"
    lines = []
    for part in parts:
        own = [path.stem for path in chapters.notebooks() if path.parent.name == part]
        found = [f'- {{doc}}`/{part}/{stem}`' for stem in own]
        lines += [*([f'**{chapters.PARTS[part]}**\n'] if len(parts) > 1 else []), *found, '']
    return '\n'.join(lines)


def first(*documents):
    "The address of the first of these chapters that is there"
    return next(f'{name}.html' for name in documents if (ROOT / 'nbs' / f'{name}.ipynb').exists())


def sources():
    "Write all that Sphinx reads; returns the folder"
    source, names = WORK / 'source', settings()
    url = names['git_url'].replace('%(user)s', names['user']).replace('%(repo)s', names['repo'])
    os.environ['RPROP_LIT_URL'] = url
    static(source / '_static')
    shutil.copy(DOCS / 'conf.py', source)
    explained, where = chapters.chapter_of(), chapters.targets()
    for path, nb in processed().items():
        target = source / path.relative_to(ROOT / 'nbs')
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(chapters.page(nb, path, where, explained, url)), encoding='utf-8')
    (source / 'api').mkdir()
    for module in reference.modules():
        text = chapters.linked(reference.page(module, explained.get(module)), where, module, ())
        (source / 'api' / f'{module}.md').write_text(text, encoding='utf-8')
    (source / 'api' / 'index.md').write_text(reference.contents(), encoding='utf-8')
    shutil.copy(DOCS / 'play.md', source)
    text, picture = landing()
    for name, value in dict(learn=track(chapters.LEARN), inside=track(['inside']),
                            torch=first('use/55_torch', 'use/30_optim'),
                            gpu=first('use/50_gpu', 'inside/50_cuda'),
                            port=first('idea/25_port', 'use/75_others')).items():
        text = text.replace(f'<!-- {name} -->', value)
    (source / 'bowls.png').write_bytes(picture)
    (source / 'index.md').write_text(text + '\n\n' + tree() + '\n', encoding='utf-8')
    return source


def labelled(html):
    """A page whose wide tables can be shown as blocks: a number has its column's name, the table a class.

    The width is that of the longest words, in pixels; docs/_static/site.css says what happens with less room.
    """
    def plain(text):
        return unescape(re.sub(r'<[^>]+>', '', text)).strip()

    def words(text):
        return re.split(r'\s|(?<=\w-)(?=\w)', text)

    def mark(match):
        rows = [re.findall(r'<(t[hd])\b[^>]*>(.*?)</\1>', row, re.S)
                for row in re.findall(r'<tr\b.*?</tr>', match[0], re.S)]
        widths = [max(LETTER[tag] * len(word) for tag, text in column for word in words(plain(text)))
                  for column in zip(*rows)]
        need = sum(widths) + 9 * len(widths)
        if need <= PHONE:
            return match[0]
        names = [plain(text) for _, text in rows[0]]

        def row(match):
            cells = iter(names)
            return re.sub(r'<td\b', lambda _: f'<td data-label="{escape(next(cells), quote=True)}"', match[0])

        body = re.sub(r'<tr\b.*?</tr>', row, match[0], flags=re.S)
        kind = 'wide' if need <= TABLET else 'wider'
        return body.replace('<table class="table"', f'<table class="table {kind}"', 1)

    return re.sub(r'<table class="table".*?</table>', mark, html, flags=re.S)


class Links(HTMLParser):
    "The links and the anchors of a page, its pictures without a text, and what it fetches from elsewhere"
    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.silent, self.foreign = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[k] for k in ('id', 'name') if attrs.get(k)}
        self.links += [attrs[k] for k in ('href', 'src') if attrs.get(k)]
        fetched = (attrs.get('src')
                   or (attrs.get('href') if tag == 'link' and 'stylesheet' in (attrs.get('rel') or '')
                       else ''))
        self.foreign += [fetched] if re.match(r'https?:|//', fetched or '') else []
        if tag == 'img' and (not attrs.get('alt') or attrs['alt'].endswith('.png')):
            self.silent.append(attrs.get('src'))


def check(out):
    """Every link within the site leads somewhere, nothing is fetched from elsewhere,
    and every picture has a text"""
    pages = {path: Links(path.read_text(encoding='utf-8')) for path in out.rglob('*.html')
             if '_static' not in path.parts}
    wrong = []
    for path, page in pages.items():
        wrong += [f'{path.relative_to(out)}: the picture {src} has no text' for src in page.silent]
        wrong += [f'{path.relative_to(out)} fetches {link} from elsewhere' for link in page.foreign]
        for link in page.links:
            target, anchor = urldefrag(link)
            if re.match(r'[a-z]+:|//', target):
                continue
            there = (path.parent / unquote(target.split('?')[0])).resolve() if target else path
            there = there / 'index.html' if there.is_dir() else there
            if (not there.exists()
                    or (anchor and there in pages and unquote(anchor) not in pages[there].anchors)):
                wrong.append(f'{path.relative_to(out)} links to {link}, which is not there')
    return wrong


def main():
    "Build, and stop at the first thing that is wrong"
    began = time.perf_counter()
    packages()
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(OUT, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        source = sources()
    except chapters.Broken as error:
        sys.exit(f'The site is not built: {error}')
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-j', '2', '-d',
                           WORK / 'doctrees', source, WORK / 'html'])
    if done.returncode:
        sys.exit('The site is not built: Sphinx had something to say, see above')
    for path in (p for part in chapters.PARTS for p in (WORK / 'html' / part).glob('*.html')):
        path.write_text(labelled(path.read_text(encoding='utf-8')), encoding='utf-8')
    (WORK / 'html').rename(OUT)
    wrong = check(OUT)
    if wrong:
        sys.exit('The site is not built:\n' + '\n'.join(wrong))
    size = sum(p.stat().st_size for p in OUT.rglob('*') if p.is_file()) / 2**20
    print(f'{len(list(OUT.rglob("*.html")))} pages, {size:.0f} MB in {OUT.name}/, built in '
          f'{time.perf_counter() - began:.0f} s')


if __name__ == '__main__':
    main()
