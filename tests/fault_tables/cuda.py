"""Deliberate faults in the CUDA kernel and its calls, seen without CuPy;
those that need it stand in tests/cuda_emulation/faults.py."""
PLAYED, ERRORS = ('test_cuda.py::test_the_kernel_played_on_the_cpu_equals_the_rule',
                  'test_cuda.py::test_the_kernel_compares_errors_and_retreats_as_irprop_plus_does')
TEXT, CALLS = 'inside/cuda:', 'test_cuda.py::test_calls'

FAULTS = {
    'kernel: a flip is not forgotten': (PLAYED, TEXT, 'agree < 0 && forget ? 0 : s;', 's;'),
    'kernel: the last move is taken back by the new step': (
        PLAYED, TEXT, 'sign > 0 ? last : sign < 0 ? -last', 'sign > 0 ? step : sign < 0 ? -step'),
    'kernel: no clamp from above': (PLAYED, TEXT, 'step = step > hi ? hi : step;', ''),
    'kernel: downhill only': (PLAYED, TEXT, 'call.maximize ? -(T)gs.at[k] : (T)gs.at[k]', '(T)gs.at[k]'),
    'kernel: a missing gradient is read': (
        'test_cuda.py::test_calls', 'inside/cuda:calls_for', 'if n', 'if n >= 0'),
    'kernel: the rest of a pack is left out': (PLAYED, TEXT, 'count - 4 * packs,\\n', '0,\\n'),
    'kernel: a retreat is no rise': (ERRORS, TEXT, 'retreat = lost;', 'retreat = 0;'),
    'kernel: an error that is not finite is remembered': (ERRORS, TEXT, 'call.keep && !lost', 'call.keep'),
    'kernel: the error is not turned': (ERRORS, TEXT, 'call.maximize ? -loss : loss', 'loss'),
    'kernel: every error is a double': (
        ERRORS, TEXT,
        'call.wide ? *(const double*)call.loss : *(const float*)call.loss', '*(const double*)call.loss'),
    'kernel: halves are cut, not rounded to even': (
        'test_cuda.py::test_half_precision_is_rounded_as_numpy_rounds', TEXT, '+ (size >> 13 & 1)', ''),
    'kernel: subnormal halves are cut': (
        'test_cuda.py::test_half_precision_is_rounded_as_numpy_rounds', TEXT,
        '__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000', '0'),
    'calls: one size of chunks': (
        CALLS, 'inside/cuda:calls_for', '4096 if sum(sizes) >= 2 ** 21 else 1024', '4096'),
    'calls: starts are not in units of 16': (CALLS, 'inside/cuda:calls_for', 'starts[i] // 16', 'starts[i]'),
    'calls: no call without arrays': (CALLS, 'inside/cuda:calls_for', 'max(1, len(there))', 'len(there)'),
    'calls: more arrays than arguments hold': (
        'test_cuda.py::test_arguments_fit_the_limits_of_cuda', 'inside/cuda:',
        'FEW, MANY = (124, 1020)', 'FEW, MANY = (140, 1020)'),
}
