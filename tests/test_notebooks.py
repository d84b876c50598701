"""Every notebook is a test: its cells run from a fresh process, as nbdev would run them,
and its stored outputs are those of its cells."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import book

NOTEBOOKS = book.notebooks()
SKIPPED = set(book.flags())


def shape(cell):
    """What a cell shows, with every number replaced by a mark:
    figures may differ in the last digit on another machine, the rest may not"""
    shown = []
    for out in cell['outputs']:
        text = ''.join(out.get('data', {}).get('text/plain', '')) or ''.join(out.get('text', ''))
        kinds = sorted(out.get('data', {}))
        shown.append([out['output_type'], kinds,
                      re.sub(r'[-+]?[\d.]+(e[-+]?\d+)?|inf\b|nan\b|\s', '#', text).replace('#', '')
                      if 'image/png' not in kinds else ''])
    return shown


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, tmp_path):
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    # the copy runs where the original stands, with the tree as it is
    env = dict(os.environ, PYTHONPATH=str(book.ROOT), MPLBACKEND='agg', RPROP_LIT_CWD=str(path.parent))
    done = subprocess.run([sys.executable, book.__file__, book.ONE, str(copy)], env=env, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    stored, fresh = (json.loads(p.read_text(encoding='utf-8'))['cells'] for p in (path, copy))
    code = [(old, new) for old, new in zip(stored, fresh) if old['cell_type'] == 'code']
    stale = [i for i, (old, new) in enumerate(code) if shape(old) != shape(new)]
    assert not stale, (f'code cells {stale} of {path.name} show something else than is stored: '
                       'run `python tests/book.py`')
    if missing := book.left_out(path):
        pytest.skip(f"{', '.join(f'{name} is not installed' for name in missing)}: the cells of a page that "
                    "need it are left out, the others ran")


def test_every_chapter_is_found():
    names = {path.stem for path in NOTEBOOKS}
    assert {'index', '00_problems', '10_rule', '15_pictures', '20_variants', '35_memory', '30_optim', '45_nn',
            '88_sunspots'} <= names


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.parent.name in book.LEARN], ids=lambda p: p.stem)
def test_a_chapter_of_the_learn_track_opens_online(path):
    line = ''.join(json.loads(path.read_text(encoding='utf-8'))['cells'][1]['source'])
    assert line == book.online(path), 'run `python tests/book.py`'
    assert (line.count(f'nbs/{path.parent.name}/{path.name}') == 2
            and f"git+{book.settings()['git_url']}`" in line)


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.parent.name in book.LEARN], ids=lambda p: p.stem)
def test_each_exercise_of_the_learn_track_has_a_solution_that_asserts_and_shows(path):
    cells = [dict(cell, source=''.join(cell['source']))
             for cell in json.loads(path.read_text(encoding='utf-8'))['cells']]
    asked = [n for cell in cells if cell['cell_type'] == 'markdown'
             for section in re.findall(r'^#+ Exercises\n(.*?)(?=^#|\Z)', cell['source'], re.M | re.S)
             for n in re.findall(r'^(\d+)\. ', section, re.M)]
    solved = [cell for cell in cells if re.match(r'#\| solution\b', cell['source'])]
    assert [n for cell in solved for n in re.findall(r'^# Exercise (\d+)\b', cell['source'], re.M)] == asked
    silent = [cell['id'] for cell in solved
              if not (re.search(r'^ *assert ', cell['source'], re.M) and cell['outputs'])]
    assert not silent


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_figures_share_one_style_and_survive_a_phone(path):
    code = '\n'.join(''.join(cell['source']) for cell in json.loads(path.read_text(encoding='utf-8'))['cells']
                     if cell['cell_type'] == 'code')
    if '"image/png"' in path.read_text(encoding='utf-8'):
        assert re.search(r'^(pictures\.)?style\(\)$', code, re.M), 'call style() before the first figure'
    small = re.findall(r"fontsize=(?:[1-8]\b|'small')", code)
    wide = [width for width in re.findall(r'plt\.\w+\(.*figsize=\(([\d.]+)', code) if float(width) > 5.5]
    assert not small and not wide


def test_size_of_the_book():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 6 * 2**20
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            for out in cell.get('outputs', []):
                assert (len(''.join(out.get('data', {}).get('image/png', ''))) * 3 / 4
                        < 80 * 1024), f'a picture of {path.name} is over 80 KB'
