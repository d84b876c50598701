"""The reference: what the docstrings of the package say, read from the modules' text, as pages for the site.

Nothing is imported, so that a page exists for a module whose libraries are not installed.
"""
import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import docstring_parser

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'rprop_lit'
# the papers of an algorithm, a paragraph of its own at the end of a docstring
SOURCE = re.compile(r'^Sources?:\s*((?:.+\n?)+)', re.M)

# up to an empty line that no further example follows
EXAMPLE = re.compile(r'^Examples\n-{8}\n((?:.+\n?|\n(?=>>>))+)', re.M)


class Entry(NamedTuple):
    "A public name of a module: its node in the module's tree, and for a class its public methods"
    module: str
    name: str
    node: ast.AST
    methods: tuple = ()

    @property
    def path(self):
        "The whole name"
        return f'rprop_lit.{self.module}.{self.name}'

    @property
    def anchor(self):
        """Where its entry is found; anchors do not tell `Result` from `result` or `LEGAL` from `legal`,
        so they say what it is"""
        kind = ('class.' if isinstance(self.node, ast.ClassDef)
                else '' if isinstance(self.node, ast.FunctionDef) else 'constant.')
        return f'rprop_lit.{self.module}.{kind}{self.name}'


def modules(inside=True):
    "Names of the modules with a page: the public ones, then those of the machine room"
    found = [p for p in PACKAGE.glob('*.py') if not p.stem.startswith('_')]
    room = sorted((PACKAGE / 'inside').glob('*.py')) if inside else []
    return [p.stem for p in sorted(found)] + [f'inside.{p.stem}' for p in room if not p.stem.startswith('_')]


@cache
def tree_of(module):
    "A module's syntax tree"
    return ast.parse((PACKAGE / (module.replace('.', '/') + '.py')).read_text(encoding='utf-8'))


def listed(tree):
    "The names in a module's `__all__`"
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return ast.literal_eval(node.value)
    return []


def definitions(body):
    "Nodes of a body by the name that they define"
    found = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        if isinstance(node, (ast.If, ast.Try)):
            found |= definitions(node.body)
        targets = (node.targets if isinstance(node, ast.Assign) else [node.target]
                   if isinstance(node, ast.AnnAssign) else [])
        for target in targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    found[name.id] = node
    return found


def public_methods(node, nodes):
    "Methods of a class that a user calls, those of its bases in the module included; no setters"
    if not isinstance(node, ast.ClassDef):  # what a function defines within is its own affair
        return ()
    own = {m.name: m for m in reversed(node.body)
           if isinstance(m, ast.FunctionDef) and not m.name.startswith('_')}
    found = dict(reversed(own.items()))
    for base in node.bases:
        if isinstance(nodes.get(getattr(base, 'id', None)), ast.ClassDef):
            found = {m.name: m for m in public_methods(nodes[base.id], nodes)} | found
    return tuple(found.values())


@cache
def entries(module):
    "Every public name of a module that is defined there, in the order of its text"
    tree = tree_of(module)
    nodes = definitions(tree.body)
    names = [name for name in nodes if name in listed(tree) and not name.startswith('_')]
    return [Entry(module, name, nodes[name], public_methods(nodes[name], nodes)) for name in names]


def home_of(module, name):
    "Where a name of a module is defined: 'optim.Parameter' is 'inside.parameters.Parameter'"
    for node in tree_of(module).body:
        if (isinstance(node, ast.ImportFrom) and node.level
                and name in [alias.asname or alias.name for alias in node.names]):
            above = [''] + module.split('.')
            package = '.'.join(above[1:len(above) - node.level])
            return home_of('.'.join(filter(None, [package, node.module])), name)
    return f'{module}.{name}'


def exported():
    "The names at the top of the package, and where each is defined: {'Rprop': 'optim.Rprop', ...}"
    tree, homes = ast.parse((PACKAGE / '__init__.py').read_text(encoding='utf-8')), {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.asname or alias.name: home_of(node.module, alias.name) for alias in node.names}
    return {name: homes[name] for name in listed(tree)}


class Parameter(NamedTuple):
    "One row of a table of parameters"
    name: str
    type: str
    default: str
    text: str


def signature(node):
    """The parameters of a function, or of a class (its fields, or those of its `__init__`),
    as (name, annotation, default)"""
    if isinstance(node, ast.ClassDef):
        init = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == '__init__'), None)
        if init is not None:
            return signature(init)
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and not f.target.id.startswith('_')]
        return [(f.target.id, ast.unparse(f.annotation), ast.unparse(f.value) if f.value else '')
                for f in fields]
    a = node.args
    positional = a.posonlyargs + a.args
    pairs = (list(zip(positional, [None] * (len(positional) - len(a.defaults)) + a.defaults))
             + list(zip(a.kwonlyargs, a.kw_defaults)))
    pairs += [(arg, None) for arg in (a.vararg, a.kwarg) if arg]
    return [(arg.arg, ast.unparse(arg.annotation) if arg.annotation else '',
             ast.unparse(default) if default else '')
            for arg, default in pairs if arg.arg not in ('self', 'cls')]


def documentation(node):
    "The parsed docstring; the rest of a class's is that of its `__init__`"
    text = EXAMPLE.sub('', SOURCE.sub('', ast.get_docstring(node) or ''))
    return docstring_parser.parse(text, docstring_parser.DocstringStyle.NUMPYDOC)


def described(node):
    "Descriptions of parameters by name: {'etas': ('(float, float), default (0.5, 1.2)', 'Factors that ...')}"
    found = {}
    for part in documentation(node).params:
        if part.args[0] in ('param', 'attribute', 'other_param'):
            for name in re.split(r',\s*', part.arg_name):
                found[name.lstrip('*')] = part.type_name or '', part.description or ''
    return found


def parameters(node):
    "The rows of the table: each parameter of the signature, with what the docstring says of it"
    said, rows = described(node), []
    for name, annotation, default in signature(node):
        kind, text = said.get(name, (annotation, ''))
        kind, _, told = kind.partition(', default ')
        rows.append(Parameter(name, kind or annotation, default or told, text))
    return rows


def unsaid(node):
    "Parameters that a docstring says nothing about: neither in its table nor, in backticks, in its sentence"
    said, text = described(node), ast.get_docstring(node) or ''
    marked = set(re.findall(r'\w+', ' '.join(re.findall(r'`([^`]+)`', text))))
    return [name for name, _, _ in signature(node) if name not in said and name not in marked]


def raised(node):
    "The errors that a function, or the `__init__` of a class, raises by name in its own lines"
    if isinstance(node, ast.ClassDef):
        inits = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == '__init__']
        node = inits[0] if inits else ast.Pass()
    found, inner = set(), list(ast.iter_child_nodes(node))
    while inner:
        part = inner.pop()
        if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
            found.add(ast.unparse(part.exc.func))
        if not isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            inner += ast.iter_child_nodes(part)
    return found


def invented(node):
    """Parameters that a function's docstring describes and its signature does not have;
    `**` takes any, and a class may describe its attributes"""
    names = {name for name, _, _ in signature(node)}
    free = isinstance(node, ast.ClassDef) or node.args.kwarg
    return [] if free else [name for name in described(node) if name not in names]


def short(text):
    "Numbers as people write them: 1e-6 for 1e-06"
    return re.sub(r'e-0(?=\d\b)', 'e-', text)


def cell(text):
    "Text for a cell of a table"
    return short(re.sub(r'\s+', ' ', str(text))).replace('|', r'\|').strip()


def code(text):
    "Text as code in a cell, or nothing"
    return f'`{cell(text)}`' if text else ''


def table(head, rows):
    "A table in Markdown"
    lines = [head, ['---'] * len(head), *rows]
    return ':::{container} params\n' + '\n'.join('| ' + ' | '.join(row) + ' |' for row in lines) + '\n:::\n'


def head_of(node, name, returns):
    "The first line of a function that is called `name`, with air around the defaults"
    bare = ast.FunctionDef(name, node.args, [ast.Pass()], [], returns, lineno=0, type_params=[])
    head = ast.unparse(bare).split('\n')[0].removesuffix(':')
    for arg, annotation, default in signature(node):
        if annotation and default:
            head = head.replace(f'{arg}: {annotation}={default}', f'{arg}: {annotation} = {default}')
    return head


def call(entry, node):
    "How it is called, as a block of code"
    if isinstance(node, ast.FunctionDef):
        return fit(short(head_of(node, node.name, node.returns)))
    if isinstance(node, ast.ClassDef):
        init = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == '__init__'), None)
        if init is None:
            fields = (' = '.join(filter(None, (name, default))) for name, _, default in signature(node))
            return fit(f"class {node.name}({', '.join(fields)})")
        return fit(short(f'class {node.name}' + re.sub(r'^def x\(self(, )?', '(', head_of(init, 'x', None))))
    return ast.unparse(node)


def fit(head, width=88):
    "A long head, one parameter a line"
    if len(head) <= width or '(' not in head:
        return head
    start, rest = head.split('(', 1)
    inner, _, tail = rest.rpartition(')')
    depth, parts, last = 0, [], 0
    for i, c in enumerate(inner):
        depth += (c in '([{') - (c in ')]}')
        if c == ',' and depth == 0:
            parts.append(inner[last:i].strip())
            last = i + 1
    return start + '(\n    ' + ',\n    '.join([*parts, inner[last:].strip()]) + ',\n)' + tail


def source_of(node):
    "The papers that a docstring names"
    found = SOURCE.search(ast.get_docstring(node) or '')
    return cell(found[1]) if found else ''


def example_of(node):
    "The example of a docstring, as it would be typed"
    found = EXAMPLE.search(ast.get_docstring(node) or '')
    return found[1].strip() if found else ''


def body(node):
    "What the docstring of a node says, in Markdown"
    doc = documentation(node)
    parts = [doc.short_description, doc.long_description]
    shown = parameters(node)
    if shown:
        rows = [[f'`{p.name}`', cell(p.type), code(p.default), cell(p.text)] for p in shown]
        head = ['name', 'type', 'default', 'what it is']
        if not any(p.text for p in shown):  # the sentence above says it
            head, rows = head[:3], [row[:3] for row in rows]
        parts += ['**Parameters**', table(head, rows)]
    returns = [r for r in doc.many_returns if r.description or r.type_name]
    if returns:
        rows = [[code(r.return_name), cell(r.type_name or ''), cell(r.description or '')] for r in returns]
        parts += ['**Returns**', table(['name', 'type', 'what it is'], rows)]
    if doc.raises:
        rows = [[code(r.type_name), cell(r.description or '')] for r in doc.raises]
        parts += ['**Errors**', table(['error', 'when'], rows)]
    if example_of(node):
        parts += ['**Example**', f'```pycon\n{example_of(node)}\n```']
    if source_of(node):
        parts += [f'**Source** · {source_of(node)}']
    return '\n\n'.join(filter(None, parts))


def summary(node):
    "The first sentence of what it is"
    doc = documentation(node) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None
    return cell((doc.short_description or '').split('\n')[0]) if doc else code(ast.unparse(node)[:90])


def page(module, chapter=None):
    "The page of one module, in Markdown; `chapter` is the document that explains it"
    doc, whole = ast.get_docstring(tree_of(module)) or '', f'rprop_lit.{module}'
    lines = [f'# `{whole}`', doc]
    if chapter:
        lines.append(f'Explained and proved in {{doc}}`/{chapter}`.')
    if module.startswith('inside.'):
        lines.append('A module of the machine room: it may change without notice.')
    for name in listed(tree_of(module)):
        home = home_of(module, name)
        if home != f'{module}.{name}':
            there = next(e for e in entries(home.rpartition('.')[0]) if e.name == name)
            lines += [f'## `{name}`', f'From [`{there.path}`](#{there.anchor}): {summary(there.node)}']
    for entry in entries(module):
        node = entry.node
        lines += [f'({entry.anchor})=\n## `{entry.name}`', f'```python\n{call(entry, node)}\n```']
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            lines.append(body(node))
        for method in entry.methods:
            lines += [f'({entry.anchor}.{method.name})=\n### `{entry.name}.{method.name}`',
                      f'```python\n{call(entry, method)}\n```', body(method)]
    return '\n\n'.join(lines) + '\n'


def contents():
    "The first page: the names at the top of the package, then the modules"
    nodes = {f'{e.module}.{e.name}': e for module in modules() for e in entries(module)}
    top = [(name, nodes[home]) for name, home in exported().items()]
    top = [[f'[`{name}`](#{e.anchor})', f'`rprop_lit.{e.module}`', summary(e.node)] for name, e in top]

    def rows(names):
        return [[f'[`{name}`]({name}.md)', cell((ast.get_docstring(tree_of(name)) or '').split('\n')[0])]
                for name in names]

    public = modules(inside=False)
    room = [name for name in modules() if name not in public]
    parts = ['# Reference',
             'Every public name, from the docstrings of the package. '
             'The chapters explain them; this is where to look them up.',
             '## `from rprop_lit import`', table(['name', 'module', 'what it is'], top),
             '## Modules', table(['module', 'what it answers'], rows(public)),
             '## Machine room', 'How it is fast and safe. These may change without notice.',
             table(['module', 'what it answers'], rows(room)),
             '```{toctree}\n:hidden:\n\n' + '\n'.join(public + room) + '\n```']
    return '\n\n'.join(parts) + '\n'
