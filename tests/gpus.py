"""The GPU that tests run on: a real one, or the emulated one of tests/cuda_emulation,
where torch's CPU tensors pass for CUDA tensors."""
import sys
from pathlib import Path

import pytest

cupy = pytest.importorskip('cupy', reason='CuPy is not installed: nothing was run on a GPU (.ci/steps/cupy '
                                          'does it on an emulated one)')
try:
    DEVICES = cupy.cuda.runtime.getDeviceCount()
    NAME = cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()
except cupy.cuda.runtime.CUDARuntimeError as error:
    pytest.skip(f'CuPy is installed and finds no GPU ({error}): nothing was run on one',
                allow_module_level=True)
EMULATED = NAME == 'emulated device'


def torch_on_gpu():
    "Torch, with CUDA or in disguise"
    torch = pytest.importorskip('torch', reason='torch is not installed')
    if EMULATED and 'disguise' not in sys.modules:
        sys.path.append(str(Path(__file__).parent / 'cuda_emulation'))
        import disguise
        disguise.install()
    if not torch.cuda.is_available():
        pytest.skip('this build of torch has no CUDA: tensors were not tried on the GPU')
    return torch


class TorchStream:
    "Within it, torch works in a stream of its own, which waits for nobody"
    def __init__(self):
        self.torch, self.stream = torch_on_gpu(), cupy.cuda.Stream(non_blocking=True)

    def __enter__(self):
        if EMULATED:
            disguise = sys.modules['disguise']
            self.before, disguise.CURRENT[0] = disguise.CURRENT[0], disguise.Stream(self.stream.ptr)
        else:
            self.context = self.torch.cuda.stream(self.torch.cuda.ExternalStream(self.stream.ptr))
            self.context.__enter__()
        return self.stream

    def __exit__(self, *error):
        if EMULATED:
            sys.modules['disguise'].CURRENT[0] = self.before
        else:
            self.context.__exit__(*error)
