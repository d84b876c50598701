"""What the scripts of this folder share: the functions that a chapter shows,
and result files that say where they come from."""
import ast
import json
import os
import platform
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHAPTERS = HERE.parent.parent / 'nbs' / 'evidence'
STATEMENTS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def shown(chapter):
    "The code cells of a chapter that hold nothing but imports, functions and classes, as their sources"
    cells = json.loads((CHAPTERS / f'{chapter}.ipynb').read_text(encoding='utf-8'))['cells']
    sources = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    return [s for s in sources
            if ast.parse(s).body and all(isinstance(node, STATEMENTS) for node in ast.parse(s).body)]


def definitions(chapter):
    """What those cells define, by name: a script runs the text that the reader of the chapter reads,
    and its experiments are left out"""
    space = {'__name__': chapter}
    for source in shown(chapter):
        exec(compile(source, f'{chapter}.ipynb', 'exec'), space)
    return space


def processor():
    "The name of the processor, as far as the system tells it"
    try:
        names = [line.split(':')[1].strip() for line in open('/proc/cpuinfo', encoding='utf-8')
                 if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def made(*packages):
    "How a result file was made: command, day, hardware, versions"
    command = ' '.join(['python', Path(sys.argv[0]).resolve().relative_to(HERE.parent.parent).as_posix(),
                        *sys.argv[1:]])
    return {'command': command, 'date': date.today().isoformat(),
            'hardware': f'{processor()}, one core of {os.cpu_count()}',
            'versions': {'python': platform.python_version(),
                         **{name: metadata.version(name) for name in packages}}}


def line(value):
    "JSON on one line"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def block(value):
    "A list as JSON, an item a line; anything else on one line"
    return ('[\n  ' + ',\n  '.join(map(line, value)) + '\n ]' if isinstance(value, list) and value
            else line(value))


def write(path, results):
    "Write results as JSON that reads well line by line; a crash leaves the old file as it was"
    text = '{\n' + ',\n'.join(f' {line(key)}: {block(value)}' for key, value in results.items()) + '\n}\n'
    new = Path(path).with_suffix('.new')
    new.write_text(text, encoding='utf-8')
    new.replace(path)


def read(path):
    "The results in a file, or None where there is none"
    return json.loads(Path(path).read_text(encoding='utf-8')) if Path(path).exists() else None
