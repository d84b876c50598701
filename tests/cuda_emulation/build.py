"""The real CuPy over an emulated device: `python tests/cuda_emulation/build.py FOLDER`, inside a virtual
environment of its own.

CuPy's wheel is installed as it is. One of its modules is linked to the CUDA runtime; that one is compiled
again, from CuPy's own source distribution, against the driver in this folder. So everything of CuPy but that
layer is what a user gets. It prints the environment variables to set. EMU_LAZY=1 delays work as long as CUDA
permits, EMU_DEVICES is the number of devices.
"""
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CUPY = '14.2.0'
# declarations only; no driver, no device
HEADERS = ['nvidia-cuda-runtime-cu12==12.9.79', 'nvidia-cuda-nvcc-cu12==12.9.86']
# fortified longjmp forbids stacks of our own
FLAGS = ['g++', '-std=c++17', '-O1', '-w', '-shared', '-fPIC', '-U_FORTIFY_SOURCE']
PROFILER = ('#pragma once\n#include <cuda_runtime_api.h>\n'
            'extern "C" cudaError_t cudaProfilerStart(); extern "C" cudaError_t cudaProfilerStop();\n')


def call(*command, **how):
    "Run a command, and show what it said if it fails"
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **how)
    if done.returncode:
        sys.exit(f'{" ".join(map(str, command))}\n{done.stdout}')
    return done.stdout


def pip(*arguments, **how):
    call(sys.executable, '-m', 'pip', *arguments, '--quiet', '--disable-pip-version-check', **how)


def build_driver(out, includes):
    "The driver and the compiler, and the headers that kernels are compiled with"
    shutil.copytree(HERE / 'device', out / 'device', dirs_exist_ok=True)
    hidden = [*FLAGS, '-fvisibility=hidden', f'-I{HERE}', *includes]
    call(*hidden, '-o', out / 'libcuda.so.1', '-Wl,-soname,libcuda.so.1', HERE / 'driver.cpp',
         HERE / 'refused.cpp', '-ldl', '-lpthread')
    call(*hidden, '-o', out / 'libnvrtc.so.12', '-Wl,-soname,libnvrtc.so.12', HERE / 'compiler.cpp', '-ldl')
    # g++ takes the one that fits its flags
    for k, how in enumerate((['-ffp-contract=off'], ['-mfma', '-ffp-contract=fast'])):
        (out / 'device' / 'kernel.h.gch').mkdir(exist_ok=True)
        call('g++', '-std=c++17', '-O1', '-w', '-fpermissive', '-fPIC', '-fvisibility=hidden', *how,
             '-x', 'c++-header',
             '-o', out / 'device' / 'kernel.h.gch' / str(k), out / 'device' / 'kernel.h')


def build_runtime(source, out, site, includes):
    "CuPy's runtime module, from CuPy's text, over our driver"
    import Cython
    from Cython.Build import cythonize
    from setuptools import Extension
    path = 'cupy_backends/cuda/api/runtime'
    module = Extension(path.replace('/', '.'), [f'{path}.pyx'], language='c++')
    how = {'language_level': 3, 'embedsignature': True, 'c_api_binop_methods': True, 'binding': False,
           'freethreading_compatible': True}
    known = {'CUPY_USE_CUDA_PYTHON': False, 'CUPY_CUFFT_STATIC': False,
             'CUPY_CYTHON_VERSION': Cython.__version__,
             'CUPY_CUDA_VERSION': 12090, 'CUPY_HIP_VERSION': 0}
    cythonize([module], force=True, quiet=True, compiler_directives=how, compile_time_env=known)
    target = site / f'{path}{sysconfig.get_config_var("EXT_SUFFIX")}'
    call(*FLAGS, *includes, f'-I{sysconfig.get_paths()["include"]}', '-I.', '-Icupy_backends/cuda/api',
         '-Icupy_backends',
         '-o', target, f'{path}.cpp', out / 'libcuda.so.1')


def main(folder):
    out, site = Path(folder).resolve(), Path(sysconfig.get_paths()['purelib'])
    out.mkdir(parents=True, exist_ok=True)
    pip('install', f'cupy-cuda12x=={CUPY}', 'cython==3.2.4', 'setuptools', *HEADERS)
    with tempfile.TemporaryDirectory() as scratch:
        import contextlib
        import os
        # no CUDA is looked for
        pip('download', '--no-deps', '--no-binary', 'cupy', '--dest', scratch, f'cupy=={CUPY}',
            env={**os.environ, 'READTHEDOCS': 'True'})
        with tarfile.open(next(Path(scratch).glob('cupy-*.tar.gz'))) as packed:
            # the first releases of Python 3.10 and 3.11 have no filters
            packed.extractall(scratch, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        # the wheels with the headers lack this one
        (Path(scratch) / 'cuda_profiler_api.h').write_text(PROFILER)
        includes = ([f'-I{site / "nvidia" / name / "include"}' for name in ('cuda_runtime', 'cuda_nvcc')]
                    + [f'-I{scratch}'])
        build_driver(out, includes)
        with (contextlib.chdir(next(Path(scratch).glob('cupy-*/'))) if hasattr(contextlib, 'chdir')
              else contextlib.nullcontext(), open(os.devnull, 'w') as quiet,
              contextlib.redirect_stderr(quiet)):
            build_runtime(Path.cwd(), out, site, includes)
    print(f'LD_LIBRARY_PATH={out} CUPY_ACCELERATORS= CUPY_CACHE_DIR={out}/cache')


if __name__ == '__main__':
    main(*sys.argv[1:])
