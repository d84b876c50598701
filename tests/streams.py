"""Streams of gradients and errors that the tests share:
flips, steps after flips, zeros, NaN, infinities, all sizes."""
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np

ETAS = [(0.5, 1.2), (0.3, 1.7), (0.5, 3.0)]
VARIANTS = ['rprop+', 'rprop-', 'irprop-', 'irprop+']


def gradients(shape, length, dtype, seed=0):
    "A stream of gradients, about a fifth of them flips, with zeros, -0.0, NaN and infinities"
    random = np.random.default_rng(seed)
    now = np.sign(random.standard_normal(shape))
    for _ in range(length):
        now = np.where(random.random(shape) < 0.2, -now, now)
        g = now * 10.0 ** random.uniform(-30, 30, shape)
        odd = random.random(shape)
        g = np.select([odd < .05, odd < .1, odd < .12, odd < .14], [0.0, -0.0, np.nan, now * np.inf], g)
        with np.errstate(over='ignore', under='ignore'):
            yield np.asarray(g.astype(dtype))


def errors(length, seed=1):
    "A stream of errors that rises and falls, and is sometimes not finite, but not at first"
    random = np.random.default_rng(seed)
    yield 5.0
    for _ in range(length - 1):
        yield math.nan if random.random() < .03 else float(random.normal())


class Bits(bytes):
    """Bytes that show their length and a check sum: pytest writes both sides of a comparison that failed,
    and megabytes of them take it minutes"""
    def __repr__(self):
        return f'<{len(self)} bytes, CRC {zlib.crc32(self):08x}>'


def bits(a):
    "The bits of an array, for a comparison in which -0.0 is not 0.0"
    return Bits(np.ascontiguousarray(a).tobytes())


def alone(module, function, *args):
    """What a function of a test file prints in a process of its own.

    A process that forks must hold no library with threads: JAX warns, and a lock that another thread holds
    would stay closed in the child for ever.
    """
    code = f'import sys; import {module}; {module}.{function}(*sys.argv[1:])'
    tests = Path(__file__).resolve().parent
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tests.parent), str(tests)]))
    done = subprocess.run([sys.executable, '-W', 'ignore:This process:DeprecationWarning', '-c', code, *args],
                          env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout
