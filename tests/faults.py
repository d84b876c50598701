"""Deliberate faults: the tests must see each of them.

    python tests/faults.py            # every fault: which test catches it; exit status 1 if one goes unseen
    python tests/faults.py undo       # only faults whose name holds this word
    python tests/faults.py --find     # all quick tests on every fault instead of the named one, to find names

The tables stand in tests/fault_tables: `name: (test, 'module:function', old, new, ...)`. A fault belongs to a
function (or to a method, `module:Class.method`, or to the rest of a module, `module:`): `old` is an
expression that `ast.unparse` prints exactly once in it, and `new` takes its place; where `old` is None, `new`
is the whole body. So a fault does not depend on how lines are broken, and it says so where its function is
gone.

The tree is copied; in the copy, one fault at a time is put into the modules, and the test that is named
beside it must fail. Before that, all the named tests must pass in the unchanged copy. None of them is one of
the tests that compare modules, notebooks and README with each other, which would notice any change at all;
the notebooks are not in the copy either.
"""
import ast
import contextlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# these notice any change, so they prove nothing here
IN_STEP = ('test_in_step', 'test_notebooks', 'test_house')
# seconds for the tests of one copy, which take a few; how long one test may take stands in pytest.ini
PATIENCE = 300
QUICK = ['test_rule.py', 'test_arrays.py', 'test_conformance.py', 'test_properties.py', 'test_optim.py',
         'test_hostile.py', 'test_solver.py']


def tables():
    "All faults of all tables; a name stands in one table only"
    found = {}
    for path in sorted((ROOT / 'tests' / 'fault_tables').glob('*.py')):
        for name, fault in runpy.run_path(str(path))['FAULTS'].items():
            assert name not in found, f'{path.name}: {name!r} is the name of another fault, too'
            found[name] = fault
    return found


FAULTS = tables()


def furnish(folder):
    "A copy of the package and its tests, without the notebooks"
    for name in ('rprop_lit', 'tests'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    for name in ('pytest.ini', 'settings.ini'):
        shutil.copy(ROOT / name, folder)
    return folder


def changes(name):
    "The changes of a fault: place, old, new"
    return zip(*[iter(FAULTS[name][1:])] * 3)


def find(tree, function):
    "The definition of `function` in a module, `Class.method` for a method, the module itself for ''"
    node = tree
    for part in filter(None, function.split('.')):
        node = next((n for n in node.body if getattr(n, 'name', None) == part), None)
        if node is None:
            return None
    return node


def spoilt(source, function, old, new):
    """The source of a module with a fault in one of its functions;
    LookupError, saying why, where it does not fit"""
    tree = ast.parse(source)
    node = find(tree, function)
    if node is None:
        raise LookupError(f'there is no {function}')
    if old is None:
        node.body = ast.parse(textwrap.dedent(new)).body
        return ast.unparse(tree)
    text = ast.unparse(node)
    if text.count(old) != 1:
        raise LookupError(f'{function or "the module"} holds {text.count(old)} times, not once: {old!r}')
    fresh = ast.parse(text.replace(old, new)).body
    if node is tree:
        return ast.unparse(ast.Module(fresh, []))
    owner = find(tree, function.rpartition('.')[0])
    at = owner.body.index(node)
    owner.body[at:at + 1] = fresh
    return ast.unparse(tree)


def misplaced():
    "Faults that do not fit their function: what the list says of them"
    for name in FAULTS:
        for place, old, new in changes(name):
            module, _, function = place.partition(':')
            path = ROOT / 'rprop_lit' / f'{module}.py'
            try:
                source = path.read_text(encoding='utf-8')
                if ast.unparse(ast.parse(source)) == spoilt(source, function, old, new):
                    yield f'{name}: {place} is not changed'
            except (LookupError, SyntaxError, FileNotFoundError) as error:
                yield f'{name}: {place}: {error}'


def spoil(folder, name):
    "Put a fault into the modules of a copy"
    for place, old, new in changes(name):
        module, _, function = place.partition(':')
        path = folder / 'rprop_lit' / f'{module}.py'
        path.write_text(spoilt(path.read_text(encoding='utf-8'), function, old, new), encoding='utf-8')


def tested(folder, tests, *options):
    """Run tests in a copy: whether they passed, the names of those that failed,
    and the end of what pytest said if it did not end as it should"""
    env = dict(os.environ, PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE='1', RPROP_LIT_BACKEND='numpy')
    env.pop('PYTEST_ADDOPTS', None)
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--tb=no', '-rf', '-n', '0',
               '--assert=plain', *options, *tests]
    # a file: who reads a pipe waits for every process that a test left behind
    with tempfile.TemporaryFile('w+', encoding='utf-8') as log:
        run = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                               start_new_session=True)
        try:
            code = run.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = f'nothing, and was stopped after {PATIENCE} s'
            run.send_signal(signal.SIGABRT)  # pytest then says where each of its threads stands
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        log.seek(0)
        said = log.read()
    failed = [line.split()[1] for line in said.splitlines() if line.startswith('FAILED')]
    fine = code == 0 or code == 1 and failed  # 1 without a failure: a fixture could not be had
    return code == 0, failed, '' if fine else f'pytest ended with {code}: {said[-3000:]}'


def seen(name, search):
    """Put in one fault, and say which test catches it: a test must fail,
    it is not enough that pytest cannot start or does not end"""
    test, start = FAULTS[name][0], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = furnish(Path(folder))
        spoil(folder, name)
        tests = ([f'tests/{t}' for t in QUICK if (folder / 'tests' / t).exists()] if search
                 else [f'tests/{test}'])
        _, failed, trouble = tested(folder, tests, *([] if search else ['-x']))
        if trouble and not failed:  # no test has answered: ask once more
            print(f'once more: {name}: {trouble}', flush=True)
            _, failed, trouble = tested(folder, tests, *([] if search else ['-x']))
    names = dict.fromkeys(f.split('[')[0].removeprefix('tests/') for f in failed)
    print(f'{"caught" if names else "UNSEEN"}: {time.monotonic() - start:3.0f} s  {name:50} '
          f'{", ".join(names)} {trouble}'.rstrip(), flush=True)
    return bool(names)


def main(words):
    search = '--find' in words
    chosen = [name for name in FAULTS if all(word in name for word in words if word != '--find')]
    if not chosen:
        sys.exit(f'no fault has {" ".join(words)} in its name')
    named = sorted({FAULTS[name][0] for name in chosen})
    assert not any(test.startswith(IN_STEP) for test in named)
    wrong = list(misplaced())
    if wrong:
        sys.exit('\n'.join(wrong))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        passed, *what = tested(furnish(Path(folder)), [f'tests/{test}' for test in named])
    print(f'{"green" if passed else "RED"}: the unchanged copy, {len(named)} tests',
          *([] if passed else what), flush=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        unseen = sum(not caught for caught in pool.map(lambda name: seen(name, search), chosen))
    print(f'{len(chosen)} faults, {unseen} unseen, {time.monotonic() - start:.0f} s')
    return int(bool(unseen) or not passed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
