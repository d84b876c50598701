"""Faults of the rule, the variants, their settings, the pictures."""

FAULTS = {
    'scalar: etas swapped': (
        'test_rule.py::test_arrays_are_scalars_side_by_side',
        'rule:update_one',
        'step = step * eta_plus',
        'step = step * eta_minus',
    ),
    'scalar: not clamped': (
        'test_rule.py::test_arrays_are_scalars_side_by_side',
        'rule:update_one',
        'min(max(step, lo), hi',
        'max(step, lo',
    ),
    'scalar: forget dropped': (
        'test_rule.py::test_arrays_are_scalars_side_by_side',
        'rule:update_one',
        's = 0',
        's = s',
    ),
    'scalar: undo with the wrong sign': (
        'test_rule.py::test_arrays_are_scalars_side_by_side',
        'rule:update_one',
        'last if sign > 0 else -last',
        '-last if sign > 0 else last',
    ),
    'scalar: zero counts as plus': (
        'test_rule.py::test_arrays_are_scalars_side_by_side',
        'rule:update_one',
        '1 if g > 0 else -1 if g < 0 else 0',
        '-1 if g < 0 else 1',
    ),
    'forget dropped': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        's = xp.where(flip, 0 * s, s)',
        's = xp.where(flip, s, s)',
    ),
    'etas swapped': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'etas[1], xp.where(flip, state.step * etas[0]',
        'etas[0], xp.where(flip, state.step * etas[1]',
    ),
    'undo with the wrong sign': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'signed(state.sign',
        '-signed(state.sign',
    ),
    'undo without a sign': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'signed(state.sign, state.step)',
        '-state.step',
    ),
    'undo by the new step': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'state.sign, state.step)',
        'state.sign, step)',
    ),
    'sign(0) counted as +': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:sign_of',
        'return xp.where(g > 0, one, xp.where(g < 0, -one, 0 * one))',
        'return xp.where(g >= 0, one, xp.where(g < 0, -one, 0 * one))',
    ),
    'gradients multiplied': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:sign_of',
        '> 0, one, xp.where(g',
        '* abs(g) > 0, one, xp.where(g * abs(g)',
    ),
    'the step is not clamped': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'xp.clip(step, *step_sizes)',
        'step + 0',
    ),
    'the bounds are swapped': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'step = xp.clip(step, *step_sizes)',
        'step = xp.clip(step, *step_sizes[::-1])',
    ),
    'moves with the old step': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'dw = xp.where(flip & undo, signed(state.sign, state.step), -signed(s, step))',
        'dw = xp.where(flip & undo, signed(state.sign, state.step), -signed(s, state.step))',
    ),
    'climbs': (
        'test_conformance.py::test_update_walks_every_trace',
        'rule:update_all',
        'dw = xp.where(flip & undo, signed(state.sign, state.step), -signed(s, step))',
        'dw = xp.where(flip & undo, signed(state.sign, state.step), signed(s, step))',
    ),
    'minus zero loses its sign': (
        'test_rule.py::test_not_to_move_leaves_even_minus_zero',
        'rule:update_all',
        'dw = xp.where(flip & undo, signed(state.sign, state.step), -signed(s, step))',
        'dw = xp.where(flip & undo, signed(state.sign, state.step), -signed(s, step) + 0.0)',
    ),
    'steps as narrow as half weights': (
        'test_rule.py::test_types_of_the_state',
        'rule:init',
        'xp.float64 if xp.finfo(w.dtype).bits > 32 else xp.float32',
        'w.dtype',
    ),
    'undo although the error fell': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:flip_for',
        'bool(loss > before)',
        'True',
    ),
    'no undo although the error rose': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:flip_for',
        'bool(loss > before)',
        'False',
    ),
    'an error that stays has risen': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:flip_for',
        'return Flip(forget, bool(loss > before), loss=loss)',
        'return Flip(forget, bool(loss >= before), loss=loss)',
    ),
    'the first error is compared for ever': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:flip_for',
        'return Flip(forget, bool(loss > before), loss=loss)',
        'return Flip(forget, bool(loss > before), loss=min(loss, before))',
    ),
    'a NaN error is taken for a small one': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:flip_for',
        'math.isfinite(loss)',
        'loss == loss or before < math.inf',
    ),
    'retreat forgets to shrink': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:retreat',
        'state.step * cast_pair(etas, state.step)[0]',
        'state.step',
    ),
    'retreat remembers the signs': (
        'test_conformance.py::test_update_walks_every_trace',
        'variants:retreat',
        '0 * state.sign',
        'state.sign',
    ),
    'two variants change names': (
        'test_conformance.py::test_update_walks_every_trace', 'variants:',
        "VARIANTS = {'rprop-': Variant(forget=False, undo='never'), "
        "'irprop-': Variant(forget=True, undo='never'), 'rprop+': Variant(forget=True, undo='always'), "
        "'irprop+': Variant(forget=True, undo='if worse')}",
        "VARIANTS = {'rprop-': Variant(forget=True, undo='never'), "
        "'irprop-': Variant(forget=True, undo='never'), 'rprop+': Variant(forget=True, undo='always'), "
        "'irprop+': Variant(forget=True, undo='if worse')}"),
    'the error of `maximize` not turned round': (
        'test_optim.py::test_maximize_is_minimizing_the_opposite',
        'variants:read_loss',
        '-float(value) if maximize else float(value',
        'float(value',
    ),
    'two settings need not fit each other': (
        'test_refused.py::test_settings_that_do_not_fit_are_refused_by_name',
        'inside/settings:_pair_of',
        'np.broadcast_shapes(np.shape(low), np.shape(high))',
        'pass',
    ),
    'a setting may be masked': (
        'test_refused.py::test_settings_that_do_not_fit_are_refused_by_name',
        'inside/settings:number_or_array',
        "not np.ma.is_masked(value) and 'complex'",
        "'complex'",
    ),
    'a setting may be complex': (
        'test_refused.py::test_settings_that_do_not_fit_are_refused_by_name',
        'inside/settings:number_or_array',
        "value) and 'complex' not in str(getattr(value, 'dtype', ''))",
        'value)',
    ),
    'an old error is compared': (
        'test_rule.py::test_an_error_from_before_a_change_of_variant_is_not_compared',
        'variants:flip_for',
        "Flip(forget, undo == 'always')",
        "Flip(forget, undo == 'always', loss=before)",
    ),
    'one step: the infinite limit is kept': (
        'test_rule.py::test_step_one_at_the_edges',
        'variants:step_one',
        'sys.float_info.max if limit == math.inf else limit',
        'limit',
    ),
    'one step: a retreat goes on': (
        'test_rule.py::test_step_one_walks_every_trace',
        'variants:step_one',
        'step if sign > 0 else -step if sign < 0 else -0.0',
        '-step if sign > 0 else step if sign < 0 else -0.0',
    ),
    'one step: a retreat keeps its step': (
        'test_rule.py::test_step_one_walks_every_trace',
        'variants:step_one',
        'step * etas[0]',
        'step',
    ),
    'one step: a retreat forgets the error': (
        'test_rule.py::test_step_one_walks_every_trace',
        'variants:step_one',
        'State(0, min(max(step * etas[0], lo), hi), before)',
        'State(0, min(max(step * etas[0], lo), hi), math.inf)',
    ),
    'one step: the error is forgotten': (
        'test_rule.py::test_step_one_walks_every_trace',
        'variants:step_one',
        'State(sign, step, flip.loss)',
        'State(sign, step)',
    ),
    'CuPy is not recognised': (
        'test_rule.py::test_a_library_without_the_standard_is_recognised',
        'rule:namespace',
        "{'cupy', 'numpy'}",
        "{'numpy'}",
    ),
}
