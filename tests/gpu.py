"""Everything that needs a GPU, in one command: `python tests/gpu.py --out FILE`.

It names the card, runs every test of CuPy on it, the captures among them, and times a step: ours, eager and
captured, and its rivals. One JSON holds the results with hardware, versions and date. Plan eight minutes for
a large card. `--quick` tries all of it on tiny sizes, also on the emulated device (tests/cuda_emulation),
where times mean nothing.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import cupy
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from rprop_lit import Parameter, Rprop  # noqa: E402
from rprop_lit.inside import cuda as engine  # noqa: E402

# a step reads g and reads and writes w, step and sign
BYTES = {'float16': 16, 'bfloat16': 16, 'float32': 22, 'float64': 42}
LEFT = [480.0]  # seconds for the whole run


def card():
    "The GPU, its driver and the versions of everything"
    found = cupy.cuda.runtime.getDeviceProperties(0)
    versions = {}
    for name in ('cupy-cuda12x', 'cupy-cuda13x', 'torch', 'numpy', 'rprop_lit'):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {'name': found['name'].decode(), 'compute capability': f"{found['major']}.{found['minor']}",
            'processors': found['multiProcessorCount'],
            'memory': found['totalGlobalMem'], 'driver': cupy.cuda.runtime.driverGetVersion(),
            'runtime': cupy.cuda.runtime.runtimeGetVersion(),
            'nvrtc': list(cupy.cuda.nvrtc.getVersion()), 'python': platform.python_version(),
            'host': platform.machine(), 'cores': os.cpu_count(),
            'versions': versions, 'date': datetime.now(UTC).isoformat(timespec='seconds')}


def tests(only):
    "Run the tests on this card"
    command = [sys.executable, '-m', 'pytest', '-q', '-n', '0', '-rfEs', '-p', 'no:cacheprovider',
               str(HERE / 'test_cuda.py'), str(HERE / 'test_cupy.py'), *(['-k', only] if only else [])]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=HERE.parent,
                          env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}, capture_output=True,
                          text=True)
    lines = done.stdout.strip().splitlines()
    return {'passed': done.returncode == 0, 'summary': lines[-1] if lines else done.stderr[-500:],
            'seconds': round(time.perf_counter() - start, 1),
            'failed': [line for line in lines if re.match('FAILED|ERROR', line)],
            'skipped': [line for line in lines if line.startswith('SKIPPED')]}


def seconds(work, stream=None, least=3, most=30):
    "Median time of one call, from events of the GPU around each; and the host's time for it"
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    stream = stream or cupy.cuda.get_current_stream()
    work()
    stream.synchronize()
    times, host, began = [], [], time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - began < 0.5):
        t = time.perf_counter()
        start.record(stream)
        work()
        end.record(stream)
        host.append(time.perf_counter() - t)
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / 1000)
    return statistics.median(times), statistics.median(host)


def bandwidth(n):
    "Bytes a second of a plain copy on the card, read and written"
    a, b = cupy.zeros(n, np.uint8), cupy.empty(n, np.uint8)
    return 2 * n / seconds(lambda: cupy.copyto(b, a))[0]


def made(sizes, dtype):
    "Parameters of some sizes, with gradients that flip at times"
    there = [Parameter(cupy.zeros(n, dtype)) for n in sizes]
    for p in there:
        p.grad = (cupy.arange(p.data.size) % 7 - 3).astype(dtype)
    return there


def ours(sizes, dtype):
    "Our step: eager, and captured in a graph"
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        there = made(sizes, dtype)
        optimizer = Rprop(there)
        found = {'ours, eager': seconds(optimizer.step, stream)}
        stream.begin_capture()
        optimizer.step()
        graph = stream.end_capture()
        found['ours, captured'] = seconds(lambda: graph.launch(stream), stream)
    return found


def host(count):
    "Microseconds of the host for arrays of four weights, with the launch itself left out: minima"
    there = made([4] * count, 'float32')
    optimizer = Rprop(there)
    optimizer.step()
    plan, = optimizer.param_groups[0].plans
    launcher, flip = plan.own['cuda'], optimizer.param_groups[0].flip(None)
    def least(work, calls=max(2, 20 // count)):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            for _ in range(calls):
                work()
            times.append((time.perf_counter() - start) / calls)
        return round(min(times) * 1e6, 1)
    kernel, engine._kernel = engine._kernel, lambda *_: lambda *_, **__: None
    try:
        return {'arrays': count, 'read': least(plan.read),
                'read, and fill in a launch': least(lambda: launcher.launch(plan, *plan.read(), flip)),
                'whole step': least(optimizer.step)}
    finally:
        engine._kernel = kernel


def naive(sizes, dtype):
    "The step that one would write first, with CuPy's own operations"
    there = made(sizes, dtype)
    state = [[cupy.zeros_like(p.data), cupy.full_like(p.data, 0.01)] for p in there]

    def step():
        for p, (before, size) in zip(there, state):
            agree = p.grad * before
            size[...] = cupy.clip(
                size * cupy.where(agree > 0, 1.2, cupy.where(agree < 0, 0.5, 1.0)).astype(dtype), 1e-6, 50)
            before[...] = cupy.where(agree < 0, 0, p.grad)
            p.data -= cupy.sign(before) * size
    return {'CuPy, naive': seconds(step)}


def torchs(sizes, dtype, compiled):
    """The rivals in torch: foreach, capturable and captured, fused where there is one, compiled;
    and ours on the same tensors"""
    import torch
    kind = getattr(torch, dtype)
    found, side = {}, torch.cuda.Stream()
    with torch.cuda.stream(side):
        stream = cupy.cuda.Stream.from_external(side)

        def fresh():
            there = [torch.zeros(n, dtype=kind, device='cuda', requires_grad=True) for n in sizes]
            for p in there:
                p.grad = (torch.arange(p.numel(), device='cuda') % 7 - 3).to(kind)
            return there

        def timed(name, make):
            try:
                found[name] = seconds(make(), stream)
            except Exception as error:  # what this version of torch does not have is said, not hidden
                found[name] = f'{type(error).__name__}: {str(error).splitlines()[0][:120]}'
            torch.cuda.empty_cache()

        def graph_of(optimizer):
            for _ in range(3):
                optimizer.step()
            side.synchronize()
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin()
            optimizer.step()
            graph.capture_end()
            return graph.replay
        timed('ours on tensors, eager', lambda: Rprop(fresh()).step)
        timed('torch, foreach', lambda: torch.optim.Rprop(fresh(), foreach=True).step)
        timed('torch, foreach, captured',
              lambda: graph_of(torch.optim.Rprop(fresh(), foreach=True, capturable=True)))
        timed('torch, fused', lambda: torch.optim.Rprop(fresh(), fused=True).step)
        if compiled:
            timed('torch, compiled', lambda: torch.compile(torch.optim.Rprop(fresh(), foreach=True).step))
    return found


def rows(name, sizes, dtype, copied, with_torch, compiled):
    "Timings of one problem, as rows of a table"
    total, measured = sum(sizes), {}
    for some in (ours, naive, torchs):
        if (some is naive and dtype == 'bfloat16') or (some is torchs and not with_torch):
            continue
        try:
            measured |= some(sizes, dtype, compiled) if some is torchs else some(sizes, dtype)
        except (cupy.cuda.memory.OutOfMemoryError, RuntimeError) as error:
            measured[some.__name__] = f'{type(error).__name__}: {str(error)[:120]}'
        cupy.get_default_memory_pool().free_all_blocks()
    for what, value in measured.items():
        row = {'problem': name, 'type': dtype, 'arrays': len(sizes), 'weights': total, 'step': what}
        if isinstance(value, str):
            yield {**row, 'failed': value}
        else:
            yield {**row, 'seconds': value[0], 'host seconds': value[1],
                   'share of the copy bandwidth': BYTES[dtype] * total / value[0] / copied}


def problems(quick):
    "What is timed: name, sizes, type"
    for n in (10**3, 10**4) if quick else (10**5, 10**6, 10**7, 10**8, 10**9):
        yield f'one array of {n:.0e}', [n], 'float32'
    many = np.random.default_rng(0).integers(100, 1000, 20 if quick else 1000).tolist()
    yield f'{len(many)} arrays of 100 to 1000', many, 'float32'
    for dtype in ('float16', 'bfloat16', 'float64'):
        yield 'one array', [10**3 if quick else 10**8], dtype


def has_torch():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, help='the JSON file to write')
    parser.add_argument('--quick', action='store_true',
                        help='tiny sizes and a few tests, to see that everything runs')
    given = parser.parse_args()
    command = f'python tests/gpu.py --out {Path(given.out).name}{" --quick" if given.quick else ""}'
    began, result = time.perf_counter(), {'command': command, 'card': card()}
    print(f"{result['card']['name']}: tests")
    result['tests'] = tests('thousand or graph or subnormal' if given.quick else '')
    print(result['tests']['summary'])
    result['host, microseconds'] = [host(1), host(1000)]
    print(*result['host, microseconds'], sep='\n')
    copied = bandwidth(10**6 if given.quick else 10**9)
    result['copy bandwidth'], result['timings'], with_torch = copied, [], has_torch()
    for name, sizes, dtype in problems(given.quick):
        if dtype == 'bfloat16' and not importlib.util.find_spec('ml_dtypes'):
            result['timings'].append({'problem': name, 'type': dtype, 'failed': 'ml_dtypes is not installed'})
            continue
        if time.perf_counter() - began > LEFT[0]:
            result['timings'].append({'problem': name, 'type': dtype, 'failed': 'no time was left'})
            continue
        for row in rows(name, sizes, dtype, copied, with_torch, len(sizes) < 100):
            result['timings'].append(row)
            print(row)
    result['seconds'] = round(time.perf_counter() - began, 1)
    Path(given.out).write_text(json.dumps(result, indent=1) + '\n')
    return 0 if result['tests']['passed'] else 1


if __name__ == '__main__':
    sys.exit(main())
