"""Scripts put together from the pages alone, as a reader would: imports, then cells as they stand there,
run outside the tree.

What else a reader tries has tests of its own: the packages in `.ci/steps/packages`, which installs from the
source distribution, and a chapter that is saved in Jupyter and cleaned in test_in_step.py.
"""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def cells(page, *starts):
    "The cells of a page with these words in them, each in one cell only, without directives"
    sources = [re.sub(r'^#\|.*\n', '', ''.join(cell['source']), flags=re.M)
               for cell in json.loads((ROOT / 'nbs' / page).read_text(encoding='utf-8'))['cells']
               if cell['cell_type'] == 'code']
    for words in starts:
        found = [source for source in sources if words in source]
        assert len(found) == 1, f'{page}: {len(found)} cells hold {words!r}'
        yield found[0]


def run(tmp_path, imports, page, *starts, end):
    "Run a script of some imports, cells of a page and a line that prints; what it prints"
    script = tmp_path / 'script.py'
    script.write_text('\n\n'.join([imports, *cells(page, *starts), f'print({end})']), encoding='utf-8')
    env = {key: value for key, value in os.environ.items() if not key.startswith('COV')}
    env |= {'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg'}
    done = subprocess.run([sys.executable, '-W', 'error', script], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == ['script.py']
    return done.stdout


def test_torch_with_a_scheduler(tmp_path):
    pytest.importorskip('torch', reason='torch is not installed: its scheduler was not tried')
    said = run(tmp_path, 'import torch\nfrom rprop_lit.torch import Rprop', 'use/55_torch.ipynb',
               'def trained(make', 'ours, optimizer, calls', 'without, fixed, _ =', end='rates[0] < rates[1]')
    assert said == 'True\n'


def test_optax_with_jit(tmp_path):
    pytest.importorskip('jax', reason='JAX is not installed: its compiler was not tried')
    pytest.importorskip('optax', reason='Optax is not installed: its updates were not tried')
    said = run(tmp_path, 'import jax, jax.numpy as jnp, optax\nfrom rprop_lit.jax import rprop',
               'use/60_jax.ipynb', '@jax.jit\ndef step', end="round(float(params['a']), 2)")
    assert said == '3.0\n'


def test_gradients_by_differences(tmp_path):
    said = run(tmp_path, '', 'use/65_gradients.ipynb', 'import numpy as np', 'def error(p', 'found = {}',
               'def by_hand', "('2-point', '3-point', 'cs')", end='sorted(rows)')
    assert said == "['2-point', '3-point', 'cs']\n"


def test_scipys_own_call_with_a_gradient_by_differences(tmp_path):
    pytest.importorskip('scipy', reason='SciPy is not installed: its own call was not tried')
    script = ('import scipy.optimize\nfrom rprop_lit import scipy_method\n'
              'r = scipy.optimize.minimize(lambda x: ((x - [1.0, 20.0])**4).sum(), [3.0, 0.0], '
              'jac="3-point", method=scipy_method)')
    said = run(tmp_path, script, 'use/35_solver.ipynb', end='r.success, abs(r.x - [1, 20]).max() < 0.05')
    assert said == 'True True\n'


def test_pandas_from_a_trace(tmp_path):
    pytest.importorskip('pandas', reason='pandas is not installed: no trace was made a table')
    imports = ('import pandas\nfrom rprop_lit import rprop\nfrom rprop_lit.problems import rosenbrock\n'
               'from rprop_lit.solver import Trace')
    table = 'pandas.DataFrame(trace.to_dict())'
    said = run(tmp_path, imports, 'inside/67_results.ipynb', 'trace = Trace()',
               end=f'len({table}), list(columns) == list({table})')
    assert said == '60 True\n'
