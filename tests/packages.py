"""What is in a source distribution and a wheel: every module and data file, no test, a description whose
links are addresses.

    python tests/packages.py dist/rprop_lit-0.1.0.tar.gz dist/rprop_lit-0.1.0-py3-none-any.whl
"""
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def expected():
    "The package's files, as git knows them"
    listed = subprocess.run(['git', 'ls-files', 'rprop_lit'], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.split()
    assert ('rprop_lit/py.typed' in listed and 'rprop_lit/inside/engine.py' in listed
            and 'rprop_lit/data/sunspots.csv' in listed)
    return set(listed)


def check_metadata(text):
    "Requirements, extras, licence and links are there, and no link is relative"
    meta = message_from_string(text)
    assert (meta['License-Expression'] == 'MIT' and meta['Requires-Python']
            and 'License-File' in meta), meta.keys()
    assert {'torch', 'jax', 'fast', 'dev'} <= set(meta.get_all('Provides-Extra'))
    assert len(meta.get_all('Project-URL')) >= 3
    relative = re.findall(r'\]\((?!https?:|#)[^)]*\)|(?:src|href)="(?!https?:|#)[^"]*"', meta.get_payload())
    assert not relative, relative


def main(source, wheel):
    with tarfile.open(source) as file:
        names = {name.partition('/')[2] for name in file.getnames()}
        text = file.extractfile(next(name for name in file.getnames()
                                     if re.fullmatch(r'[^/]+/PKG-INFO', name))).read().decode()
    assert (expected() | {'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE',
                          'CITATION.cff'}
            <= names), expected() - names
    assert not [name for name in names if name.startswith(('tests', 'nbs', 'docs', '.'))]
    check_metadata(text)
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        text = file.read(next(name for name in names if name.endswith('.dist-info/METADATA'))).decode()
    kept = {name for name in names if '.dist-info/' not in name}
    assert kept == expected(), kept ^ expected()
    check_metadata(text)
    print(f'{Path(source).name} and {Path(wheel).name}: {len(kept)} files of the package, no test, no '
          'relative link')


if __name__ == '__main__':
    main(*sys.argv[1:])
