"""Deliberate faults that only the real CuPy can show: `python tests/cuda_emulation/faults.py [words]`, with
the emulated device in place.

The same runner as tests/faults.py, with this table. With `--nvrtc`, faults that NVIDIA's own compiler shows,
which must be in a process without the emulated one: the folder NVRTC_WHEEL holds its wheel.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import faults  # noqa: E402

T, CUDA = 'test_cupy.py::', 'inside/cuda:'
CAPTURE = T + 'test_what_a_graph_cannot_contain_is_refused'
SURVIVES = T + 'test_the_last_error_survives'

FAULTS = {
    'CuPy is not recognised': (
        T + 'test_arrays_are_recognised', 'rule:namespace', "'cupy', 'numpy'", "'numpy'"),
    'memory on the host': (T + 'test_tensors_on_the_gpu', 'inside/memory:_zeros', ', device=like.device', ''),
    'subnormal numbers are flushed': (
        T + 'test_subnormal_numbers_are_not_flushed', CUDA + '_options', "'--ftz=false'", "'--ftz=true'"),
    'the last error stays on the GPU': (
        T + 'test_the_last_error_is_a_number_for_everybody', 'inside/groups:Group.last_loss',
        'value is not None', 'False'),
    'a number written there is not taken': (
        T + 'test_the_last_error_is_a_number_for_everybody', 'inside/groups:Group.update',
        "'loss' in new", 'False'),
    'a host error forgets that of the GPU': (
        SURVIVES, 'inside/groups:Group.flip', 'self.last_loss()', "self['loss']"),
    'a new place for the error forgets the last one': (
        SURVIVES, CUDA + '_compared_there', 'DeviceLoss(w, group.last_loss())', 'DeviceLoss(w, math.inf)'),
    'the error is remembered by each launch': (
        T + 'test_more_arrays_than_arguments_hold_take_another_launch', CUDA + 'Launcher.launch',
        ' and (one is self.launches[-1])', ''),
    'a capture fills in the last error': (CAPTURE, CUDA + 'flip_of', 'if captured and (', 'if False and ('),
    'a capture reads the error': (CAPTURE, CUDA + 'flip_of', 'if captured:', 'if False:'),
    'a capture keeps a copy': (CAPTURE, CUDA + '_copy', 'place.captured', 'False'),
    'a graph loses its rows': (
        T + 'test_a_graph_outlives_the_plan_that_it_was_made_from', CUDA + '_keep', None, 'pass'),
    'a capture begins a memory': (
        T + 'test_the_first_step_is_refused_in_a_capture', CUDA + 'check_capture', None, 'pass'),
    "torch's work in CuPy's stream": (
        T + 'test_a_side_stream_of_torch', CUDA + 'Place.__init__',
        "sys.modules['torch'].cuda.current_stream(x.device).cuda_stream",
        'cuda.get_current_stream(self.device).ptr'),
    "CuPy's work in the null stream": (
        T + 'test_a_graph_replays_steps', CUDA + 'Place.__init__', 'cuda.get_current_stream(self.device).ptr',
        '0'),
    'a stream of another device': (
        T + 'test_two_devices', CUDA + 'Place.__init__', 'cuda.get_current_stream(self.device).ptr',
        'cuda.get_current_stream().ptr'),
    'a gradient across its weights is read and written': (
        T + 'test_a_gradient_that_lies_across_its_weights', CUDA + 'Launcher.found',
        'np.count_nonzero(near & (g_at != w_at))', 'False'),
    'array settings go to the kernel': (
        T + 'test_settings_that_are_arrays', CUDA + 'Cuda.step', 'plan.limits.rowwise', 'False'),
    'array settings compare on the GPU': (
        T + 'test_settings_that_are_arrays', CUDA + 'flip_of',
        ' and (not any((plan.limits.rowwise for plan in group.plans)))', ''),
    'arrays on the current device': (
        T + 'test_two_devices', 'inside/memory:beside', None, 'return nullcontext()'),
    'a gradient of another device': (
        T + 'test_two_devices', 'inside/parameters:kinds',
        'found.append([a.data.device_id for a in arrays])', 'pass'),
    'an error of another device': (
        T + 'test_two_devices', CUDA + '_check_place',
        'there is not None and None not in here and (there not in here)', 'False'),
    'one kernel for all devices': (
        T + 'test_two_devices', CUDA + 'Launcher.launch',
        'one.rows, self.device)', 'one.rows, 0)'),
    'lazy negatives as they lie': (
        T + 'test_lazy_and_sparse_gradients_of_torch', 'inside/parameters:gradient',
        '.resolve_neg()', '', CUDA + '_all_whole', ' and (not x.is_neg())', ''),
    'parts of rows begin anywhere': (
        T + 'test_one_launch_a_step_gives_numpys_bits', 'inside/memory:Store.__init__',
        '16 if _on_gpu(weights[0]) else 1', '1'),
    'gradients with holes as if whole': (
        T + 'test_arrays_with_holes_give_numpys_bits', CUDA + '_all_whole', 'x.flags.c_contiguous', 'True'),
}

READ = 'test_cuda.py::test_the_reading_of_ptx_can_fail'
BY_NVRTC = {
    'NVIDIA may fuse': (READ, CUDA + '_options', "'--fmad=false', ", ''),
    'NVIDIA may flush': (
        'test_cuda.py::test_what_nvidias_compiler_makes_of_it', CUDA + '_options',
        "'--ftz=false'", "'--ftz=true'"),
    'one weight at a time': (
        'test_cuda.py::test_what_nvidias_compiler_makes_of_it', CUDA,
        'alignas(sizeof(X) * N < 16 ? sizeof(X) * N : 16)', ''),
}

if __name__ == '__main__':
    faults.FAULTS = BY_NVRTC if '--nvrtc' in sys.argv else FAULTS
    sys.argv = [word for word in sys.argv if word != '--nvrtc']
    faults.PATIENCE = 600
    sys.exit(faults.main(sys.argv[1:]))
