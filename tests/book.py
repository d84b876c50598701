"""Make the book: execute the notebooks in place, export the package, clean, write README.md.

    python tests/book.py                      # everything
    python tests/book.py nbs/10_rule.ipynb    # only these notebooks are executed; the rest is the same

Cells that nbdev's tests would skip (`#| eval: false`, or flagged as in `tst_flags`) keep the outputs they
have. Each notebook starts in a fresh process, so that no chapter leans on what another one imported.
"""
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ONE = '--one'  # how this script calls itself for one notebook


def notebooks():
    "All chapters, in reading order"
    return sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb')
                  if not any(s.startswith(('.', '_')) for s in p.relative_to(ROOT).parts))


def quiet(bundle):
    "Drop what differs from run to run: object addresses, and progress bars written to stderr"
    for out in bundle:
        if 'text/plain' in out.get('data', {}):
            out['data']['text/plain'] = [re.sub(r' at 0x[0-9a-f]+', '', ''.join(out['data']['text/plain']))]
    return as_jupyter([out for out in bundle if out.get('name') != 'stderr'])


def as_jupyter(bundle):
    """Outputs as Jupyter stores them, text as a list of lines,
    so that a chapter saved in JupyterLab does not differ"""
    for out in bundle:
        for part, keys in ((out, ['text']),
                           (out.get('data', {}), [key for key in out.get('data', {})
                                                  if key.startswith('text/') or key == 'image/svg+xml'])):
            part.update({key: ''.join(part[key]).splitlines(True) for key in keys if key in part})
    return bundle


# flag: what its cells import
NEEDS = {'torch': ['torch'], 'jax': ['jax', 'optax'], 'autograd': ['autograd'], 'sympy': ['sympy']}


def flags():
    """Cells with these flags are not run: nbdev's `tst_flags`, without those whose libraries are installed,
    and without `cuda` where there is a GPU"""
    there = ({flag for flag, names in NEEDS.items() if all(map(find_spec, names))}
             | ({'cuda'} if has_gpu() else set()))
    return set(settings()['tst_flags'].split()) - there


def left_out(path):
    "Flags of a notebook's cells whose libraries are missing here"
    import json

    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    found = {flag for cell in cells for flag in re.findall(r'^#\|\s*(\S+)', ''.join(cell['source']), re.M)}
    return sorted(found & flags() & NEEDS.keys())


def execute(path):
    "Run one notebook in place, skipping the cells that nbdev's tests skip, and keep the outputs"
    from execnb.nbio import write_nb
    from execnb.shell import CaptureShell
    from fastcore.xtras import working_directory
    from nbdev.process import NBProcessor

    skip = flags()
    nb = NBProcessor(path, rm_directives=False).nb

    def skipped(cell):
        flags = cell.directives_ if cell.cell_type == 'code' else {}
        return ('nbdev_export(' in cell.source or flags.get('eval:', [''])[0].lower() == 'false'
                or bool(skip & flags.keys()))

    shell = CaptureShell(path, mpl_format='png')
    with working_directory(os.environ.get('RPROP_LIT_CWD', path.parent)):
        try:
            shell.run_all(nb, exc_stop=True, preproc=skipped)
        except Exception:
            sys.exit(shell.prettytb(fname=path))
    for cell in nb.cells:
        cell.pop('directives_', None)
        if cell.cell_type == 'code' and not skipped_source(cell.source, skip):
            cell.outputs = quiet(cell.outputs)
    write_nb(nb, path)


def skipped_source(source, skip):
    "Is this the source of a cell that is not run?"
    flags = re.findall(r'^#\|\s*(\S+)', source, re.M)
    return bool(skip & set(flags)) or bool(re.search(r'^#\|\s*eval:\s*false', source, re.M | re.I))


def has_gpu():
    "Is there a CUDA device that CuPy can use?"
    try:
        import cupy
        return bool(cupy.cuda.is_available())
    except Exception:  # an absent or broken CuPy only means: no GPU cells
        return False


LEARN = ('idea', 'use', 'evidence')  # the chapters that a reader may want to try out at once


def settings():
    "The entries of settings.ini"
    from configparser import ConfigParser

    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


def online(path):
    "The line of a chapter that opens it in Colab and in Binder"
    cfg, place = settings(), path.relative_to(ROOT).as_posix()
    name = f"{cfg['user']}/{cfg['repo']}"
    return (f"Open in [Colab](https://colab.research.google.com/github/{name}/blob/{cfg['branch']}/{place}) "
            f"(first `%pip install git+{cfg['git_url']}`) "
            f"or [Binder](https://mybinder.org/v2/gh/{name}/{cfg['branch']}?labpath={place}).")


def furnish(path):
    "Store the outputs of a chapter as Jupyter does, and put the line that opens it online below its title"
    import json

    nb = json.loads(path.read_text(encoding='utf-8'))
    for cell in nb['cells']:
        if cell['cell_type'] == 'code':
            cell['outputs'] = as_jupyter(cell['outputs'])
    if path.parent.name in LEARN:
        line = {'cell_type': 'markdown', 'id': 'open-online', 'metadata': {}, 'source': [online(path)]}
        nb['cells'] = [nb['cells'][0], line, *(c for c in nb['cells'][1:] if c['id'] != 'open-online')]
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')


def readme():
    """README.md is nbs/index.ipynb, its prose, its code, its stored outputs:
    the text, and the pictures by name"""
    import nbformat
    from nbconvert import MarkdownExporter

    nb = nbformat.read(ROOT / 'nbs' / 'index.ipynb', as_version=4)
    keep = [c for c in nb.cells if not re.search(r'^#\|\s*(hide|default_exp)\b', c.source, re.M)]
    alts = iter([re.search(r'^#\|\s*fig-alt:\s*(.+)$', c.source, re.M)[1] for c in keep
                 if any('image/png' in out.get('data', {}) for out in c.get('outputs', []))])
    for cell in keep:
        if re.search(r'^#\|\s*echo:\s*false', cell.source, re.M):
            cell.metadata['tags'] = ['no-source']
        cell.source = '\n'.join(line for line in cell.source.splitlines() if not line.startswith('#|'))
    nb.cells = [c for c in keep if c.source.strip()]
    nb.metadata['language_info'] = {'name': 'python'}
    exporter = MarkdownExporter(
        config={'TagRemovePreprocessor': {'enabled': True, 'remove_input_tags': {'no-source'}}})
    text, extra = exporter.from_notebook_node(nb, resources=dict(output_files_dir='nbs/images/readme'))
    # chapters are linked from nbs/
    text = re.sub(r'\]\((?!https?:|#|nbs/)([\w/]+\.ipynb)', r'](nbs/\1', text)
    text = re.sub(r'!\[png\]', lambda _: f'![{next(alts)}]', re.sub(r'[ ]+$', '', text, flags=re.M))
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n', extra['outputs']


def tidy():
    "Export the modules and clean the notebooks, as nbdev does"
    tools = Path(sys.executable).parent
    for tool in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([tools / tool], cwd=ROOT, check=True)


def main(args):
    if args[:1] == [ONE]:
        sys.path.insert(0, str(ROOT))
        return execute(Path(args[1]))
    tidy()  # the chapters import what the chapters export
    env = dict(os.environ, PYTHONHASHSEED='0', MPLBACKEND='agg', PYTHONWARNINGS='ignore::DeprecationWarning',
               OPENBLAS_NUM_THREADS='1')  # as in the tests
    for path in [Path(a).resolve() for a in args] or notebooks():
        print(path.relative_to(ROOT), flush=True)
        done = subprocess.run([sys.executable, __file__, ONE, str(path)], env=env)
        if done.returncode:
            sys.exit(done.returncode)
        furnish(path)
    tidy()
    if (ROOT / 'nbs' / 'index.ipynb').exists():
        text, pictures = readme()
        (ROOT / 'README.md').write_text(text, encoding='utf-8')
        for name, data in pictures.items():
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_bytes(data)


if __name__ == '__main__':
    main(sys.argv[1:])
