"""Small changes of the package, made by chance: a test must see each of them, or it is said why none can.

    python tests/mutants.py                # those of mutants.json again, each against the test beside it
    python tests/mutants.py minimize       # only mutants whose module or function holds this word
    python tests/mutants.py --make 100     # new ones are put into mutants.json until it holds so many

A mutant is a fault as in faults.py: a function, an expression that stands in it once, and what takes its
place. The kinds take turns: comparisons turned or moved by their boundary, clauses of `and` and `or` left
out, `not` and minus left out, numbers off by one, operations turned, branches swapped, arguments swapped, one
name in place of another. Messages, docstrings and type hints are left alone, and so are modules that only the
steps of CI try (an emulated GPU, a cluster of processes). A mutant whose module cannot be imported is not
counted.

A new mutant meets the test files of its module, then all other quick ones, then the chapters that export or
import its module. There it is put into the exported cells too, since they define anew what the module holds.
Checks that compare modules with notebooks prove nothing here. `--quick` stops after the files of the module;
run again without it, and the mutants that are still alive, with no reason beside them, meet the rest.
"""
import argparse
import ast
import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import faults

ROOT = faults.ROOT
LIST = ROOT / 'tests' / 'mutants.json'
ELSEWHERE = ('inside/cuda', 'inside/cluster', '_modidx', '__init__', '__main__')
SLOW = (*faults.IN_STEP, 'test_site', 'test_cluster', 'test_cuda', 'test_cupy', 'test_packages')
FILES = {module: files.split() for modules, files in {  # the test files of a module, the quick ones first
    'rule': 'rule conformance properties', 'variants': 'rule conformance',
    'conformance habits traces': 'conformance',
    'jax': 'jax', 'nn tensor': 'nn documents', 'torch': 'torch_face torch', 'pictures': 'pictures edges',
    'problems': 'pictures edges solver', 'sunspots command': 'main', 'scale sums pieces': 'scale',
    'solver walk loop options results shapes differences checkpoint': 'solver',
    'optim states': 'optim replaced hostile room refused', 'step': 'optim replaced room refused',
    'groups': 'optim refused replaced', 'settings': 'refused optim solver',
    'floats': 'nn refused torch optim',
    'parameters': 'refused replaced optim', 'memory': 'replaced optim hostile room',
    'files': 'hostile room refused', 'config': 'rows arrays', 'arrays': 'arrays rows optim',
    'rows': 'rows optim arrays', 'engine': 'optim replaced arrays room refused',
}.items() for module in modules.split()}
TURNED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
          ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
          ast.In: ast.NotIn, ast.NotIn: ast.In,
          ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
MIRRORED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}


def variations(node, names):
    "What may stand in place of an expression, by kind"
    def but(**changes):
        return ast.copy_location(type(node)(**{**vars(node), **changes}), node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for table in (TURNED, MIRRORED):
            if type(node.ops[0]) in table:
                yield 'comparison', but(ops=[table[type(node.ops[0])]()])
    elif isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            rest = node.values[:i] + node.values[i + 1:]
            yield 'clause', but(values=rest) if len(rest) > 1 else rest[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield 'not' if isinstance(node.op, ast.Not) else 'sign', node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in TURNED:
        yield 'arithmetic', but(op=TURNED[type(node.op)]())
    elif isinstance(node, ast.IfExp):
        yield 'branches', but(body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield 'constant', but(value=not node.value if isinstance(node.value, bool) else node.value + 1)
    elif (isinstance(node, ast.Call) and len(node.args) > 1
          and not any(isinstance(a, ast.Starred) for a in node.args[:2])):
        yield 'arguments', but(args=[node.args[1], node.args[0], *node.args[2:]])
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        for name in names:
            if name != node.id:
                yield 'name', but(id=name)


def walk(node, above=()):
    "Every expression below a node that may be changed, with those that hold it"
    for field, value in ast.iter_fields(node):
        if field in ('annotation', 'returns', 'decorator_list', 'exc', 'msg'):  # type hints, what errors say
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                if isinstance(child, ast.expr):
                    yield child, (*above, node)
                yield from walk(child, (*above, node))


def replaced(tree, node, new):
    "A copy of a tree with another node in the place of one"
    memo = {id(node): new}
    return copy.deepcopy(tree, memo)


def functions(tree):
    "Name and definition of every function and method; functions within functions belong to the outer one"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f'{node.name}.{inner.name}', inner


def candidates(module, source):
    "All mutants of a module"
    for function, node in functions(ast.parse(source)):
        text = ast.unparse(node)
        given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        arguments = [a.arg for a in given if a.arg not in ('self', 'cls')]
        for part, above in walk(node):
            for kind, new in variations(part, arguments):
                whole = ast.unparse(replaced(node, part, new))
                for holder in (part, *reversed(above[1:])):  # the smallest expression that stands there once
                    old = ast.unparse(holder)
                    fresh = ast.unparse(new if holder is part else replaced(holder, part, new))
                    if text.count(old) == 1 and old != fresh:
                        if parsed(text.replace(old, fresh)) == parsed(whole) != parsed(text):
                            yield dict(module=module, function=function, kind=kind, old=old, new=fresh)
                            break


def parsed(text):
    "The text as ast would write it, None where it cannot be read"
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:
        return None


def modules():
    "The modules that are changed, and their sources"
    for path in sorted((ROOT / 'rprop_lit').rglob('*.py')):
        module = path.relative_to(ROOT / 'rprop_lit').with_suffix('').as_posix()
        if not module.endswith(ELSEWHERE):
            yield module, path.read_text(encoding='utf-8')


def every():
    "All mutants of all modules"
    for module, source in modules():
        yield from candidates(module, source)


# ---- one mutant

def exporting(folder, module):
    "The chapters that export a module, and those that import it"
    name = module.replace('/', '.')
    for path in sorted((folder / 'nbs').rglob('[!.]*.ipynb')):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        text = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
        if re.search(rf'^#\|\s*default_exp {name}$', text, re.M):
            yield 0, path
        elif re.search(rf'rprop_lit\.{name}\b', text):
            yield 1, path


def spoil_chapters(folder, mutant):
    "Put a mutant into the exported cells of its chapter"
    for kind, path in exporting(folder, mutant['module']):
        if kind == 0:
            nb, found = json.loads(path.read_text(encoding='utf-8')), 0
            for cell in nb['cells']:
                source = ''.join(cell['source'])
                if cell['cell_type'] == 'code' and re.search(r'^#\|\s*exports?\b', source, re.M):
                    try:
                        new = faults.spoilt(source, mutant['function'], mutant['old'], mutant['new'])
                    except LookupError:
                        continue
                    cell['source'] = '\n'.join([*re.findall(r'^#\|.*$', source, re.M), new])
                    found += 1
            assert found == 1, f'{path.name} defines {mutant["function"]} {found} times'
            path.write_text(json.dumps(nb), encoding='utf-8')


def failed(folder, tests):
    "The first of some tests that fails; a file of them, if what they need could not be made"
    if not tests:
        return None
    passed, names, trouble = faults.tested(folder, [f'tests/{test}' for test in tests], '-x', '--timeout=120')
    if not names and trouble:
        print(trouble, flush=True)
    if passed or not names:
        return None if passed else tests[0].partition('::')[0]
    name = names[0].removeprefix('tests/')
    whole = name.count('[') == name.count(']')  # a case with a space in it is cut there
    return name if whole else name.partition('[')[0]


def imports(folder, module):
    "Can the module be imported? A mutant that cannot proves nothing"
    command = [sys.executable, '-c', f'import rprop_lit.{module.replace("/", ".")}']
    env = dict(os.environ, PYTHONPATH=str(folder))
    return not subprocess.run(command, env=env, capture_output=True).returncode


def spoilt_copy(folder, mutant):
    "The whole tree, with a mutant in its module"
    left_out = shutil.ignore_patterns('.git', '_docs', '_proc', 'node_modules', '__pycache__', '.*_cache')
    shutil.copytree(ROOT, folder, ignore=left_out)
    path = folder / 'rprop_lit' / f'{mutant["module"]}.py'
    source = path.read_text(encoding='utf-8')
    path.write_text(faults.spoilt(source, mutant['function'], mutant['old'], mutant['new']), encoding='utf-8')
    return folder


def killer(mutant, quick=False):
    "The test that sees a mutant; `quick` asks the files of its module only"
    with tempfile.TemporaryDirectory() as scratch:
        folder = spoilt_copy(Path(scratch) / 'tree', mutant)
        if not imports(folder, mutant['module']):
            return ''
        own = FILES[mutant['module'].rpartition('/')[2]]
        others = [p.stem.removeprefix('test_') for p in sorted((folder / 'tests').glob('test_*.py'))
                  if not p.stem.startswith(SLOW)]
        for part in (own[:1], own[1:], [] if quick else [name for name in others if name not in own]):
            if found := failed(folder, [f'test_{name}.py' for name in part]):
                return found
        if quick:
            return None
        spoil_chapters(folder, mutant)
        chapters = [path.stem for _, path in sorted(exporting(folder, mutant['module']))]
        return failed(folder, [f'test_notebooks.py::test_notebook[{stem}]' for stem in chapters])


def stored():
    "The mutants of mutants.json"
    return json.loads(LIST.read_text(encoding='utf-8')) if LIST.exists() else []


def store(known):
    "Write the mutants down"
    LIST.write_text(json.dumps(known, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def drawn(seed):
    "All mutants in the order of chance, each kind in its turn"
    kinds = {}
    for mutant in every():
        kinds.setdefault(mutant['kind'], []).append(mutant)
    print({kind: len(group) for kind, group in kinds.items()}, flush=True)
    for group in kinds.values():
        random.Random(seed).shuffle(group)
    return [mutant for turn in zip_longest(*kinds.values()) for mutant in turn if mutant]


def make(count, seed, quick):
    "Draw mutants until there are enough; each is stored as soon as it has met the tests"
    known = stored()
    for mutant in known if not quick else []:
        if mutant.get('reason') == '' and (found := killer(mutant)):
            del mutant['reason']
            mutant['killed_by'] = found
            print(f'after all: {mutant}', flush=True)
            store(known)
    met = {(m['module'], m['function'], m['old'], m['new']) for m in known}
    for mutant in drawn(seed):
        if len(known) >= count:
            break
        if (mutant['module'], mutant['function'], mutant['old'], mutant['new']) not in met:
            found = killer(mutant, quick)
            if found == '':
                continue
            mutant.update(killed_by=found) if found else mutant.update(reason='')
            print(f'{len(known) + 1}: {mutant}', flush=True)
            known.append(mutant)
            store(known)


def again(words):
    "Every mutant with a test against that test"
    alive = []
    for mutant in stored():
        place = f'{mutant["module"]}:{mutant["function"]}'
        if 'killed_by' in mutant and all(word in place for word in words):
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    folder = spoilt_copy(Path(scratch) / 'tree', mutant)
                except LookupError as error:  # the package has changed since
                    print('gone ', place, error, flush=True)
                    continue
                if 'test_notebook' in mutant['killed_by']:
                    spoil_chapters(folder, mutant)
                dead = failed(folder, [mutant['killed_by']])
            alive += [] if dead else [mutant]
            state, (module, function, _, old, new) = 'dead ' if dead else 'ALIVE', list(mutant.values())[:5]
            print(state, module, function, old, '->', new, flush=True)
    return len(alive)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('words', nargs='*')
    parser.add_argument('--make', type=int, metavar='COUNT')
    parser.add_argument('--seed', type=int, default=14)
    parser.add_argument('--quick', action='store_true', help='ask only the files that concern a module')
    args = parser.parse_args()
    if not args.make:
        return int(bool(again(args.words)))
    make(args.make, args.seed, args.quick)


if __name__ == '__main__':
    sys.exit(main())
