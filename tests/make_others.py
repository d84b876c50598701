"""Record what other implementations do with the golden traces: each in a throw-away environment, into
tests/others.json.

    python tests/make_others.py                       # all peers
    python tests/make_others.py torch pybrain         # only these; the other records stay
    PYTHONS=/opt/pythons python tests/make_others.py  # look for bin/python3.8 and the like there too

It needs a package index, and some gigabytes in the temporary folder.

The chapter 75_others reads the file. Nothing in it depends on the hardware: the weights are compared bit for
bit.
"""
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

from make_traces import text

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / 'tests' / 'others.json'
TRACES = ROOT / 'rprop_lit' / 'data' / 'traces.json'

# environment: (Python, what is installed); the older packages need the older Pythons
PLACES = {
    'torch': ('3.11', ['torch==2.13.0', 'numpy']),
    'torchzero': ('3.11', ['torch==2.13.0', 'torchzero==0.4.4']),
    'optax': ('3.11', ['optax==0.2.8']), 'paddle': ('3.10', ['paddlepaddle==3.3.1']),
    'pints': ('3.10', ['pints==0.6.1']), 'pybop': ('3.11', ['pybop==26.3']),
    'neurolab': ('3.8', ['neurolab==0.3.5', 'numpy<1.20']),
    'climin': ('3.8', ['climin==0.1a1', 'numpy<1.20', 'scipy<1.6']),
    'downhill': ('3.8', ['downhill==0.4.0', 'theano==1.0.5', 'numpy<1.20']),
    'neupy': ('3.7', ['neupy==0.8.2', 'protobuf<3.21', 'numpy==1.21.6']),
    'pybrain': ('2.7', ['pybrain==0.3', 'numpy<1.17', 'scipy<1.3']),
}
# peer: (environment, package, types, what it says it is)
PEERS = {
    'torch': ('torch', 'torch', 'float32,float64,float16',
              'torch.optim.Rprop: resilient backpropagation, citing the paper of 1993'),
    'torch foreach': ('torch', 'torch', 'float32,float64,float16', 'the same with foreach=True'),
    'torchzero': ('torchzero', 'torchzero', 'float32,float64', 'Rprop of 1993 with backtracking'),
    'torchzero without backtrack': ('torchzero', 'torchzero', 'float32,float64',
                                    'with backtrack=False: "this exactly matches pytorch Rprop"'),
    'paddle': ('paddle', 'paddlepaddle', 'float32,float64',
               'paddle.optimizer.Rprop, citing the paper of 1993'),
    'optax': ('optax', 'optax', 'float32,float64,float16', 'optax.rprop, citing the papers of 1993 and 2003'),
    'pints': ('pints', 'pints', 'float64', 'IRPropMin: iRprop- of 2003'),
    'pybop': ('pybop', 'pybop', 'float64', 'IRPropPlus: iRprop+, with weight backtracking'),
    'neupy RPROP': ('neupy', 'neupy', 'float32',
                    'resilient backpropagation, which reverts updates at a flip'),
    'neupy IRPROPPlus': ('neupy', 'neupy', 'float32', 'iRPROP+ of 2000'),
    'climin': ('climin', 'climin', 'float32,float64', 'resilient propagation of 1992'),
    'downhill': ('downhill', 'downhill', 'float64', 'iRprop- of 2000'),
    'neurolab TrainRprop': ('neurolab', 'neurolab', 'float64', 'resilient backpropagation'),
    'neurolab TrainRpropM': ('neurolab', 'neurolab', 'float64',
                             'a modification with a back-step when the gradient changes its sign'),
    'pybrain': ('pybrain', 'PyBrain', 'float64',
                'RPropMinusTrainer: Rprop- of 2003, without weight backtracking'),
}


def interpreter(version):
    "Path of a Python of this version"
    at = which(f'python{version}')
    for folder in filter(None, [os.environ.get('PYTHONS')]):
        at = next(map(str, sorted(Path(folder).glob(f'**/bin/python{version}'))), at)
    if not at:
        sys.exit(f'no python{version}: install one, or say in PYTHONS where they are')
    return at


def furnish(place, folder):
    "Make an environment; the command that runs its Python, and what must be in its surroundings"
    version, packages = PLACES[place]
    python, target = interpreter(version), folder / place
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
    if version == '2.7':  # no venv there: a folder of packages will do
        subprocess.run([python, '-m', 'pip', 'install', '-q', '--target', target, *packages],
                       check=True, env=env)
        return python, dict(env, PYTHONPATH=str(target))
    subprocess.run([python, '-m', 'venv', target], check=True, env=env)
    subprocess.run([target / 'bin' / 'python', '-m', 'pip', 'install', '-q', *packages], check=True, env=env)
    return target / 'bin' / 'python', env


def record(name, python, env):
    "Run one peer through the traces"
    place, package, dtypes, says = PEERS[name]
    done = subprocess.run([python, ROOT / 'tests' / 'peers.py', name, package, dtypes, TRACES], env=env,
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{name}: {done.stderr.strip()}')
    seen = json.loads(done.stdout.splitlines()[-1])
    for run in filter(None, (row['run'] for row in seen['runs'])):
        run['weights'] = [text(float.fromhex(w)) for w in run['weights']]
    return {'name': name, 'package': package, 'version': seen['version'], 'says': says,
            'python': seen['python'], 'numpy': seen['numpy'], 'installed': PLACES[place][1],
            'date': datetime.date.today().isoformat(), 'runs': seen['runs']}


def dump(records):
    "The file's text: one line for each run"
    def row(entry):
        head = ''.join(f'  {json.dumps(k)}: {json.dumps(v)},\n' for k, v in entry.items() if k != 'runs')
        return (' {\n' + head + '  "runs": [\n' + ',\n'.join('   ' + json.dumps(r) for r in entry['runs'])
                + '\n  ]\n }')
    return '[\n' + ',\n'.join(map(row, records)) + '\n]\n'


def main(names):
    old = {r['name']: r for r in json.loads(FILE.read_text())} if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        places = {}
        for name in names or PEERS:
            place = PEERS[name][0]
            places[place] = places.get(place) or furnish(place, Path(folder))
            old[name] = record(name, *places[place])
            print(name, old[name]['version'], flush=True)
    FILE.write_text(dump([old[name] for name in PEERS if name in old]))


if __name__ == '__main__':
    main(sys.argv[1:])
