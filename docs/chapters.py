"""From the notebooks to pages that Sphinx reads: directives become tags, code names become links,
every chapter gets its facts."""
import ast
import json
import re
from pathlib import Path

import reference
import yaml

ROOT = Path(__file__).resolve().parent.parent
PARTS = {'idea': 'The idea', 'use': 'Use it', 'evidence': 'Evidence', 'inside': 'Inside'}
LEARN = ('idea', 'use', 'evidence')  # the track that tells; `inside` is the track that proves
FACTS = yaml.safe_load((Path(__file__).parent / 'chapters.yml').read_text(encoding='utf-8'))
FIGURES = json.loads((Path(__file__).parent / 'play' / 'figures.json').read_text(encoding='utf-8'))
FOLDED = {'hide-input', 'hide-cell', 'remove-input'}
DIRECTIVE = re.compile(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', re.M)
# how fast a chapter is read: prose, code, and minutes for a picture
WORDS_A_MINUTE, LINES_A_MINUTE, PICTURE = 200, 12, 0.25


class Broken(Exception):
    "What a chapter must have and has not; the build stops with its text"


def notebooks():
    "The chapters in reading order: by part, then by number"
    return [path for part in PARTS for path in sorted((ROOT / 'nbs' / part).glob('*.ipynb'))]


def directives(cell):
    "The directives of a code cell: {'exports': '', 'fig-alt': 'Two bowls ...'}"
    return dict(DIRECTIVE.findall(cell['source'])) if cell['cell_type'] == 'code' else {}


def read(path):
    "A notebook, every text in one piece"
    nb = json.loads(Path(path).read_text(encoding='utf-8'))
    for cell in nb['cells']:
        cell['source'] = ''.join(cell['source'])
    return nb


def parsed(source):
    "The syntax tree of a cell, empty for one that is no plain Python"
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def defined(nodes):
    "Names that a cell defines"
    return list(reference.definitions(nodes))


def is_plumbing(source, named):
    """Is this exported cell no part of the story: imports alone, helpers of the module's own,
    or a definition that the table of chapters folds?"""
    nodes = parsed(source)
    names = defined(nodes)
    if nodes and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes):
        return True
    return bool(names) and all(name.startswith('_') or name in named for name in names)


def mark(nb, path):
    "Write what the site needs to know of each cell into its metadata, before nbdev takes the directives away"
    part, named = path.parent.name, FACTS.get(path.stem, {}).get('fold', [])
    for name in named:
        if not any(name in defined(parsed(c['source'])) for c in nb['cells'] if c['cell_type'] == 'code'):
            raise Broken(f'docs/chapters.yml folds `{name}` in {path.stem}, where nothing of that name is '
                         'defined')
    for cell in nb['cells']:
        told = directives(cell)
        if cell['cell_type'] != 'code':
            continue
        plain = re.sub(DIRECTIVE, '', cell['source']).strip()
        folded = (part in LEARN and told.keys() & {'export', 'exports', 'exporti'}
                  and (is_plumbing(plain, named) or 'exports' not in told))
        cell['metadata'] = {'site': dict(alt=told.get('fig-alt') or '', solution='solution' in told,
                                         quiet=told.get('echo') == 'false',
                                         fold=bool(folded) or told.get('code-fold') == 'true')}
        if told.keys() & {'export', 'exporti'}:  # nbdev leaves these out: shown and folded instead
            cell['source'] = re.sub(r'^#\|\s*exporti?\b', '#| exports', cell['source'], flags=re.M)
    return nb


def has_picture(cell):
    "Does the cell show a picture?"
    return any(kind.startswith('image/') for out in cell.get('outputs', []) for kind in out.get('data', {}))


def tagged(cell, where):
    "A code cell with the tags that myst-nb reads, and a text for who cannot see its pictures"
    site = cell['metadata'].pop('site', {})
    tags, shown = [], {}
    if site.get('quiet'):
        tags.append('remove-input')
    if site.get('solution'):
        tags.append('hide-cell')
        of = re.search(r'^# Exercise (\d+)', cell['source'], re.M)
        label = f'Solution of exercise {of[1]}' if of else 'Solution'
        shown |= dict(code_prompt_show=label, code_prompt_hide=label)
    elif site.get('fold'):
        tags.append('hide-input')
        names = [name for name in defined(parsed(cell['source'])) if name.isidentifier()]
        label = 'Code: ' + (', '.join(names[:3]) if names else 'imports')
        shown |= dict(code_prompt_show=label, code_prompt_hide=label)
    if has_picture(cell):
        alt = site.get('alt')
        if not alt:
            raise Broken(f'{where}: a picture needs `#| fig-alt:` and what it shows, for who cannot see it:\n'
                         f'{cell["source"][:300]}')
        shown['image'] = dict(alt=re.sub(r'\s+', ' ', re.sub(r'[$\\]', '', alt)))
    cell['metadata'] = dict(tags=tags, **({'mystnb': shown} if shown else {}))
    cell['source'] = re.sub(r'^#\|.*\n?', '', cell['source'], flags=re.M).strip()
    return cell


def minutes(nb):
    "How long a reader needs, in minutes; folded cells are not counted"
    prose = sum(len(re.findall(r'\w+', c['source'])) for c in nb['cells'] if c['cell_type'] == 'markdown')
    open_code = [c for c in nb['cells']
                 if c['cell_type'] == 'code' and not FOLDED & set(c['metadata'].get('tags', []))]
    lines = sum(bool(line.strip()) for c in open_code for line in c['source'].splitlines())
    return max(1, round(prose / WORDS_A_MINUTE + lines / LINES_A_MINUTE
                        + PICTURE * sum(map(has_picture, nb['cells']))))


def module_of(nb):
    "The module that a notebook exports, or None"
    found = re.search(r'^#\|\s*default_exp ([\w.]+)', '\n'.join(c['source'] for c in nb['cells']), re.M)
    return found[1] if found else None


def chapter_of():
    "Which chapter explains a module: {'rule': 'idea/10_rule'}"
    return {module_of(read(path)): f'{path.parent.name}/{path.stem}' for path in notebooks()}


def targets():
    "Where a code name leads: {'update_one': ['rprop_lit.rule.update_one']}, public modules first"
    found, anchors = {}, {}
    for module in reference.modules():
        for entry in reference.entries(module):
            anchors[f'{module}.{entry.name}'] = entry.anchor
            for depth in range(module.count('.') + 2):
                name = '.'.join([*module.split('.')[-depth:], entry.name]) if depth else entry.name
                found.setdefault(name, []).append(entry.anchor)
            for method in entry.methods:
                found.setdefault(f'{entry.name}.{method.name}', []).append(f'{entry.anchor}.{method.name}')
    for name, home in reference.exported().items():
        found[name] = found[f'rprop_lit.{name}'] = [anchors[home]]
    return found


def linked(text, where, own, local):
    """Code names in prose lead to the reference; names that the chapter makes for itself, and ambiguous ones,
    stay as they are"""
    def link(match):
        name = match[1].removesuffix('()')
        options = where.get(name, [])
        mine = [o for o in options if o.startswith(f'rprop_lit.{own}.')]
        best = mine or [o for o in options if not o.startswith('rprop_lit.inside.')] or options
        return match[0] if len(best) != 1 or name in local else f'[{match[0]}](#{best[0]})'

    lines, fenced = text.split('\n'), False
    for i, line in enumerate(lines):
        fenced ^= line.lstrip().startswith('```')
        if not fenced and not line.startswith(('#', '    ')):
            lines[i] = re.sub(r'(?<![\[`])`([A-Za-z_][\w.]*(?:\(\))?)`(?![\]`])', link, line)
    return '\n'.join(lines)


def repository_links(text, page, url):
    """Links to files that have no page lead to the repository;
    headings have anchors in small letters here, and as they are written in Jupyter"""
    def link(match):
        target, _, anchor = match[1].partition('#')
        if re.match(r'[a-z]+:', target) or anchor.startswith('rprop_lit.'):
            return match[0]
        if not target:
            return f'](#{anchor.lower()})'
        path = (ROOT / 'nbs' / page).parent / target
        path = Path(path.resolve()) if path.exists() else None
        if path is None:
            raise Broken(f'{page} links to {match[1]}, which is not there')
        if path.suffix == '.ipynb':
            return f']({target}#{anchor.lower()})' if anchor else match[0]
        return f"]({url}/{'tree' if path.is_dir() else 'blob'}/main/{path.relative_to(ROOT)})"

    return re.sub(r'\]\(([^)\s]+)\)', link, text)


def facts(stem, summary, needs, time):
    "The box below a chapter's title"
    told = FACTS.get(stem, {})
    rows = [('You need', told.get('need') or needs), ('You will have', told.get('have') or summary),
            ('Reading time', f'about {time} minutes')]
    return '\n'.join([':::{container} facts',
                      *(f'**{name}:** {text}\\' for name, text in rows)]).removesuffix('\\') + '\n:::'


def needs_of(nb, chapters, own):
    "The chapters that a notebook leans on, as links, read from its imports"
    found = []
    for cell in nb['cells']:
        for node in ast.walk(ast.Module(parsed(cell['source']) if cell['cell_type'] == 'code' else [], [])):
            module = getattr(node, 'module', None) or ''
            if isinstance(node, ast.ImportFrom) and module.startswith('rprop_lit.'):
                chapter = chapters.get(module.removeprefix('rprop_lit.'))
                if chapter and chapter != own and chapter not in found:
                    found.append(chapter)
    return (', '.join(f'{{doc}}`/{chapter}`' for chapter in found)
            or 'nothing but school algebra and a little Python')


def live(text, stem):
    "A comment `<!-- live figure: NAME -->` in the prose becomes a figure that the reader can move"
    def figure(match):
        if match[1] not in FIGURES:
            raise Broken(f'{stem}: there is no live figure called {match[1]}')
        inner = 'This figure is drawn by a script; your browser runs none.'
        return f'\n```{{raw}} html\n<div class="rprop-play" data-figure="{match[1]}">{inner}</div>\n```\n'

    return re.sub(r'<!-- live figure: ([\w-]+) -->', figure, text)


def page(nb, path, where, chapters, url):
    "The notebook as Sphinx gets it, from what nbdev made of it"
    stem, document = path.stem, f'{path.parent.name}/{path.stem}'
    own = next((m for m, c in chapters.items() if c == document and m), '')
    local = {name for c in read(path)['cells']
             if c['cell_type'] == 'code' and not directives(c).keys() & {'export', 'exports'}
             for name in defined(parsed(c['source']))}
    front, cells = {}, []
    for cell in nb['cells']:
        if cell['cell_type'] == 'raw':
            front |= yaml.safe_load(cell['source'].strip().strip('-'))
            continue
        if 'AUTOGENERATED' in cell['source'] or (cell['cell_type'] == 'code' and not cell['source'].strip()):
            continue
        if cell['cell_type'] == 'code':
            cells.append(tagged(cell, document))
        else:
            text = repository_links(linked(cell['source'], where, own, local), f'{document}.ipynb', url)
            cells.append(dict(cell, metadata={}, source=live(text, stem)))
    nb['cells'] = cells
    summary = re.sub(r'\s+', ' ', front.get('description', '')).strip()
    top = (f"# {number(stem)}{front.get('title', stem)}\n\n"
           + facts(stem, summary, needs_of(read(path), chapters, document), minutes(nb)))
    nb['cells'].insert(0, dict(cell_type='markdown', id='title', metadata={}, source=top))
    nb['metadata'] = dict(kernelspec=dict(name='python3', display_name='python3', language='python'),
                          language_info=dict(name='python'))
    return nb


def number(stem):
    "The number that a chapter is called by"
    found = re.match(r'\d+', stem)
    return f'{found[0]} · ' if found else ''
