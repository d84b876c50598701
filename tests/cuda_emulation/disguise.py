"""Torch's CPU tensors that pass for CUDA tensors of the emulated device.

Their memory is announced to the driver, so CuPy's kernels may work on it. What torch itself computes with
them runs at once, but only after all that waits in torch's current stream, as it would on a GPU. As torch
does, it refuses to mix them with tensors on the host.
"""
import ctypes
from collections import deque

import torch
from cupy.cuda import runtime
from torch.overrides import TorchFunctionMode

DRIVER = ctypes.CDLL('libcuda.so.1')
DRIVER.emu_adopt.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LOOKS = {'data_ptr', 'is_contiguous', 'is_neg', 'is_conj', 'numel', 'size', 'stride', 'dim', 'element_size',
         'is_floating_point', 'is_complex', 'storage_offset', 'untyped_storage', 'requires_grad_',
         'is_inference', '__get__', '__set__', 'detach', '__hash__', '_version'}
# what torch lets a tensor of the host and one of a GPU do together
MIXES = {'copy_', '__setitem__', '__set__', 'to', 'cpu'}
CAPTURED = {'view', 'reshape', '__getitem__', 'view_as_real', 'as_strided', 'contiguous', 'resolve_conj',
            'resolve_neg', 'is_same_size'}


class Stream:
    "As much of torch.cuda.Stream as matters here"
    def __init__(self, pointer):
        self.cuda_stream = pointer


CURRENT = [Stream(0)]
# torch's memory pool lets queued work finish before it gives memory to others; here it lives a while longer
HELD = deque(maxlen=1000)


def flat(values):
    "All tensors among arguments"
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flat(value)
        elif isinstance(value, torch.Tensor):
            yield value


class Disguised(torch.Tensor):
    "A tensor whose memory is the device's"
    is_cuda = property(lambda self: True)
    device = property(lambda self: torch.device('cuda', getattr(self, 'number', 0)))

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, '__name__', ''), kwargs or {}
        tensors = list(flat([*args, *kwargs.values()]))
        on_host = [t for t in tensors if not isinstance(t, Disguised) and t.dim()]
        if on_host and name not in MIXES:
            raise RuntimeError('Expected all tensors to be on the same device, but found at least two '
                               f'devices, cuda:0 and cpu! ({name})')
        if name not in LOOKS:
            pointer = CURRENT[0].cuda_stream
            if pointer > 2 and runtime.streamIsCapturing(pointer):
                if name not in CAPTURED:
                    raise NotImplementedError(f'{name} of a tensor in a capture is not played')
            else:
                runtime.streamSynchronize(pointer)
        result = super().__torch_function__(function, types, args, kwargs)
        if name in ('cpu', 'numpy', 'tolist', 'item'):
            return result.as_subclass(torch.Tensor) if isinstance(result, torch.Tensor) else result
        if isinstance(result, torch.Tensor) and (name == '__get__' or isinstance(result, Disguised)):
            return disguised(result)  # what backward() put into `.grad` is on the device as well
        return result

    def __dlpack__(self, **how):
        raise AssertionError('DLPack orders two streams, which spoils a capture: take data_ptr()')


def adopt(tensor):
    "Announce a tensor's memory to the driver"
    with torch._C.DisableTorchFunctionSubclass():
        plain = tensor.as_subclass(torch.Tensor)
        store = plain.untyped_storage()
        DRIVER.emu_adopt(store.data_ptr(), max(1, store.nbytes()), 0)
        HELD.append(plain)


class Factories(TorchFunctionMode):
    "What is made with device='cuda', or moved there, is disguised"
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        places = [x for x in (*args[1:], kwargs.get('device'))
                  if isinstance(x, (str, torch.device)) and 'cuda' in str(x)]
        if not places:
            return function(*args, **kwargs)
        kwargs.pop('device', None)
        args = [x for k, x in enumerate(args)
                if not (k and isinstance(x, (str, torch.device)) and 'cuda' in str(x))]
        if (getattr(function, '__name__', '') == 'cuda'
                or (getattr(function, '__name__', '') == 'to' and len(args) < 2 and not kwargs)):
            return disguised(args[0].clone())
        return disguised(function(*args, **kwargs))


def disguised(tensor):
    "A tensor as one of the device"
    found = tensor if isinstance(tensor, Disguised) else tensor.as_subclass(Disguised)
    adopt(found)
    return found


def install():
    "From now on torch seems to have a GPU"
    torch.cuda.current_stream = lambda device=None: CURRENT[0]
    torch.cuda.is_available = lambda: True
    Factories().__enter__()
