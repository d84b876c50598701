"""What is generated is what is committed: modules exported, notebooks clean,
README.md in step with nbs/index.ipynb."""
import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import book
from streams import Bits


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the tree, exported and cleaned once more"
    folder = tmp_path_factory.mktemp('copy')
    for name in ('nbs', 'rprop_lit'):
        shutil.copytree(book.ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    shutil.copy(book.ROOT / 'settings.ini', folder)
    tools = Path(sys.executable).parent
    for tool in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([tools / tool], cwd=folder, check=True, capture_output=True)
    return folder


def differing(copy, folder, pattern):
    "Files of the copy that are not, byte for byte, those of the tree"
    files = sorted(p.relative_to(copy) for p in (copy / folder).rglob(pattern))
    assert files
    return [str(f) for f in files
            if not (book.ROOT / f).exists() or not filecmp.cmp(copy / f, book.ROOT / f, shallow=False)]


def test_modules_are_exported(copy):
    assert not differing(copy, 'rprop_lit', '*.py'), 'run `python tests/book.py`'


def test_notebooks_are_clean(copy):
    assert not differing(copy, 'nbs', '*.ipynb'), 'run `python tests/book.py`'


def test_a_chapter_saved_in_jupyter_and_cleaned_is_as_it_was(copy):
    import nbformat

    for path in (copy / 'nbs').rglob('*.ipynb'):
        nb = nbformat.read(path, as_version=4)
        nb.metadata |= {'language_info': {'name': 'python', 'version': '3.12.0'}}
        nb.metadata.kernelspec.display_name = 'Python 3 (ipykernel)'
        for number, cell in enumerate(c for c in nb.cells if c.cell_type == 'code'):
            cell.execution_count = number
            cell.metadata['collapsed'] = False
        nbformat.write(nb, path)
    subprocess.run([Path(sys.executable).parent / 'nbdev_clean'], cwd=copy, check=True, capture_output=True)
    assert not differing(copy, 'nbs', '*.ipynb'), 'run `python tests/book.py`'


def test_readme_is_the_index():
    text, pictures = book.readme()
    assert (book.ROOT / 'README.md').read_text(encoding='utf-8') == text, 'run `python tests/book.py`'
    assert pictures
    for name, data in pictures.items():
        assert (Bits((book.ROOT / name).read_bytes())
                == Bits(data)), f'{name} is not the picture of nbs/index.ipynb: run `python tests/book.py`'
