"""Deliberate faults: the tests must see each of them.

    python tests/faults.py            # every fault: which test catches it; exit status 1 if one goes unseen
    python tests/faults.py undo       # only faults whose name holds this word
    python tests/faults.py --find     # run all quick tests on every fault instead of the named one, to find names

The tree is copied; in the copy, one fault at a time is put into the modules (its text must be there exactly once), and the test that is named
beside it must fail. Before that, all the named tests must pass in the unchanged copy. None of them is one of the tests that compare modules,
notebooks and README with each other, which would notice any change at all; the notebooks are not in the copy either.
Faults of the CUDA kernel are put in by tests/test_cuda.py itself.
"""
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IN_STEP = ('test_in_step', 'test_notebooks', 'test_house')  # these notice any change, so they prove nothing here
PATIENCE = 300  # seconds for the tests of one copy, which take a few; how long one test may take stands in pytest.ini
QUICK = ['test_rule.py', 'test_arrays.py', 'test_conformance.py', 'test_properties.py', 'test_optim.py', 'test_hostile.py', 'test_solver.py']

WALKS = 'test_conformance.py::test_update_walks_every_trace'
OURS = 'test_conformance.py::test_our_optimizer_walks_every_trace'
SCALAR = 'test_rule.py::test_arrays_are_scalars_side_by_side'

# name: (the test that catches it, what is changed: module, text, replacement, ...)
FAULTS = {
    # the rule, for one weight and for arrays
    'scalar: etas swapped': (SCALAR, 'rule', 'step = step * eta_plus\n', 'step = step * eta_minus\n'),
    'scalar: not clamped': (SCALAR, 'rule', 'step = min(max(step, lo), hi)', 'step = max(step, lo)'),
    'scalar: forget dropped': (SCALAR, 'rule', 'if agree < 0 and forget:\n        s = 0', 'if agree < 0 and forget:\n        s = s'),
    'scalar: undo with the wrong sign': (SCALAR, 'rule', 'dw = last if sign > 0 else -last', 'dw = -last if sign > 0 else last'),
    'scalar: zero counts as plus': (SCALAR, 'rule', 's = 1 if g > 0 else -1 if g < 0 else 0', 's = -1 if g < 0 else 1'),
    'forget dropped': (WALKS, 'rule', 's = xp.where(flip, 0 * s, s)', 's = xp.where(flip, s, s)'),
    'etas swapped': (WALKS, 'rule', 'xp.where(same, state.step * etas[1], xp.where(flip, state.step * etas[0]',
                     'xp.where(same, state.step * etas[0], xp.where(flip, state.step * etas[1]'),
    'undo with the wrong sign': (WALKS, 'rule', 'signed(state.sign, state.step), -signed', '-signed(state.sign, state.step), -signed'),
    'undo without a sign': (WALKS, 'rule', 'signed(state.sign, state.step), -signed', '-state.step, -signed'),
    'undo by the new step': (WALKS, 'rule', 'signed(state.sign, state.step), -signed', 'signed(state.sign, step), -signed'),
    'sign(0) counted as +': (WALKS, 'rule', 'xp.where(g > 0, one', 'xp.where(g >= 0, one'),
    'gradients multiplied': (WALKS, 'rule', 'xp.where(g > 0, one, xp.where(g < 0,', 'xp.where(g * abs(g) > 0, one, xp.where(g * abs(g) < 0,'),
    'the step is not clamped': (WALKS, 'rule', 'step = xp.clip(step, *step_sizes)', 'step = step + 0'),
    'the bounds are swapped': (WALKS, 'rule', 'step = xp.clip(step, *step_sizes)', 'step = xp.clip(step, *step_sizes[::-1])'),
    'moves with the old step': (WALKS, 'rule', '-signed(s, step))', '-signed(s, state.step))'),
    'climbs': (WALKS, 'rule', '-signed(s, step))', 'signed(s, step))'),
    'minus zero loses its sign': ('test_rule.py::test_not_to_move_leaves_even_minus_zero', 'rule', '-signed(s, step))', '-signed(s, step) + 0.0)'),
    'steps as narrow as half weights': ('test_rule.py::test_types_of_the_state', 'rule',
                                        'xp.float64 if xp.finfo(w.dtype).bits > 32 else xp.float32', 'w.dtype'),

    # the variants
    'undo although the error fell': (WALKS, 'variants', 'return Flip(forget, bool(loss > before), loss=loss)', 'return Flip(forget, True, loss=loss)'),
    'no undo although the error rose': (WALKS, 'variants', 'return Flip(forget, bool(loss > before), loss=loss)', 'return Flip(forget, False, loss=loss)'),
    'an error that stays has risen': (WALKS, 'variants', 'bool(loss > before)', 'bool(loss >= before)'),
    'the first error is compared for ever': (WALKS, 'variants', 'return Flip(forget, bool(loss > before), loss=loss)',
                                             'return Flip(forget, bool(loss > before), loss=min(loss, before))'),
    'a NaN error is taken for a small one': (WALKS, 'variants', 'if math.isfinite(loss):', 'if loss == loss or before < math.inf:'),
    'retreat forgets to shrink': (WALKS, 'variants', 'shrunk = state.step * cast_pair(etas, state.step)[0]', 'shrunk = state.step'),
    'retreat remembers the signs': (WALKS, 'variants', 'State(0 * state.sign, step, state.loss)', 'State(state.sign, step, state.loss)'),
    'two variants change names': (WALKS, 'variants', "'rprop-': Variant(forget=False", "'rprop-': Variant(forget=True"),

    # the fast paths
    'block: sign(0) counted as +': (OURS, 'inside/arrays', 'greater(g, room.zero, up)', 'greater_equal(g, room.zero, up)'),
    'block: forget dropped': (OURS, 'inside/arrays', 'multiply(s, keep if forget else ONE, sign)', 'multiply(s, ONE, sign)'),
    'block: undo of what agreed': (OURS, 'inside/arrays', 'less(agree, ZERO, flipped)', 'greater_equal(agree, ZERO, flipped)'),
    'block: the clamp is left out': (OURS, 'inside/arrays', '    clip(size, lo, hi, step)\n', '    copyto(step, size)\n'),
    'block: one squaring too few': ('test_properties.py::test_the_weight_is_the_old_one_plus_the_move_rounded_once', 'inside/arrays', 'range((bits - 1).bit_length())', 'range(0)'),
    'engine: moves are added twice': ('test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule', 'inside/rows',
                                      'map(np.add, ws, places, ws)', 'map(np.add, ws, [p + p for p in places], ws)'),
    'bytes: weights are not fetched': ('test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule', 'inside/rows', '        copy_each(places, ws)\n', ''),
    'bytes: weights are not brought back': ('test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule', 'inside/rows', 'return copy_each(ws, places)', 'return None'),
    'bytes: half weights lose digits': ('test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule', 'inside/engine', 'if places and places[0].dtype == ws[0].dtype and separate(ws):\n',
                                        'places = [p.astype(w.dtype) for p, w in zip(places, ws)]\n        if places and separate(ws):\n'),
    'bytes: arrays that overlap are taken for separate': ('test_rows.py::test_weights_that_overlap_make_both_moves', 'inside/rows', 'start + size <= following', 'True'),
    'bytes: only neighbours in the list are compared': ('test_rows.py::test_arrays_are_separate_in_any_order', 'inside/rows', 'places = sorted(', 'places = list('),
    'bytes: arrays with holes are taken for whole': ('test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule', 'inside/rows', 'return all(a.flags.c_contiguous for a in arrays) and', 'return'),
    'a row: new gradients are not noticed': ('test_optim.py::test_a_part_of_a_row_with_a_new_gradient_is_refused_before_anything_moves', 'inside/parameters',
                                             'if not all(map(is_, [p.grad for p in self.params], self.views)):', 'if False:'),
    'a row: None is not zero': ('test_optim.py::test_a_row_is_cleared_and_filled_in_place', 'inside/parameters', 'self.slope[...] = 0 if g is None else g', 'self.slope[...] = 1 if g is None else g'),
    'a row: a copy keeps old parts': ('test_optim.py::test_a_copy_of_a_row_is_a_row', 'inside/parameters', '            self.lay()  # a deep copy', '            pass  # a deep copy'),
    'a row: its parts may come beside it': ('test_optim.py::test_a_row_and_one_of_its_parts_are_refused', 'inside/parameters', 'p.params if isinstance(p, Row) else ()', '()'),
    'a row: a part may be there twice': ('test_optim.py::test_what_a_row_is_not_made_of', 'inside/rows', 'if len(set(map(id, seen))) < len(seen):', 'if False:'),
    'engine: new weights are not noticed': ('test_arrays.py::test_new_weights_are_noticed', 'inside/engine',
                                            'all([p.data is x and w.flags', 'all([w.flags'),
    'engine: settings of the last step are kept': ('test_replaced.py::test_settings_that_change_take_effect', 'inside/engine',
                                                   'if not all(map(is_, how, self.how)):', 'if self.run is None:'),
    'engine: gradients of another shape are taken': ('test_arrays.py::test_a_gradient_that_does_not_fit_changes_nothing', 'inside/engine',
                                                     ' and [g.shape for g in grads] == self.shapes', ''),
    'addresses: one array too few': ('test_rows.py::test_small_arrays_at_their_addresses', 'inside/arrays', 'range(places.size)', 'range(places.size - 1)'),
    'addresses: the rows are not followed': ('test_rows.py::test_small_arrays_at_their_addresses', 'inside/arrays', 'loop(w, g[a:b], sign[a:b]', 'loop(w, g[0:b], sign[a:b]'),
    'addresses: arrays with holes are taken for whole': ('test_rows.py::test_small_arrays_at_their_addresses', 'inside/engine', 'all(w.flags.carray for w in ws)', 'ws'),
    'block: signs are scratch': ('test_arrays.py::test_a_block_that_is_interrupted_holds_old_or_new_numbers', 'inside/arrays',
                                 'multiply(s, sign, agree)', 'agree = multiply(s, sign, sign)'),
    'blocks: the last one is left out': ('test_rows.py::test_every_number_of_threads_makes_the_bits_of_the_readable_rule', 'inside/arrays',
                                         'for a in range(0, w.size, size):', 'for a in range(0, w.size - size, size):'),
    'rows: the last number is in no part': ('test_rows.py::test_parts_are_a_partition', 'inside/rows', '+ [size]', '+ [size - 1]'),
    'threads: scratch is shared by all': ('test_rows.py::test_each_thread_has_scratch_of_its_own', 'inside/engine', 'zip_longest(cuts, self.rooms[:len(cuts)])', 'zip(cuts, self.rooms[:1] * len(cuts))'),
    'threads: an error is swallowed': ('test_rows.py::test_what_a_job_raises_is_raised_when_all_are_done', 'inside/rows', 'for error in filter(None, errors):', 'for error in []:'),
    'threads: nobody waits for the others': ('test_rows.py::test_all_jobs_are_done_before_it_returns', 'inside/rows',
                                             '        while left:\n', '        while False:\n'),
    'threads: the jobs keep the arrays alive': ('test_rows.py::test_a_waiting_thread_holds_no_arrays', 'inside/rows', '        job = done = None', '        pass'),
    'threads: a child waits for those of its parent': ('test_rows.py::test_a_forked_process_gets_threads_of_its_own', 'inside/rows', 'crew(os.getpid())', 'crew(0)'),
    'threads: the settings of the caller are lost': ('test_rows.py::test_settings_of_a_thread_travel_with_the_job', 'inside/rows', 'partial(copy_context().run, job)', 'job'),
    'threads: none is an error': ('test_rows.py::test_too_few_threads_can_be_started', 'inside/rows', 'except RuntimeError:', 'except KeyError:'),
    'engine: the scratch is not cleared': ('test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule', 'inside/rows', '    row.fill(-0.0)\n', ''),

    # the optimizer and what it keeps
    '`lr` ignored': ('test_optim.py::test_lr_only_seeds', 'optim', "begin(w, first_step(p, group['lr']))", 'begin(w, 0.01)'),
    'step state rebound instead of kept': ('test_optim.py::test_resume_is_going_on', 'inside/engine',
                                            'flat[a:b].reshape(memory[name].shape)', 'flat[a:b].reshape(memory[name].shape).copy()'),
    'the update is one step late': (OURS, 'optim', '        if grads:\n            self.engines', "        grads, self.late = self.__dict__.get('late'), "
                                    '[g.copy() for g in grads or ()]\n        if grads:\n            self.engines'),
    '`maximize` ignored': ('test_optim.py::test_maximize_is_minimizing_the_opposite', 'optim',
                           "[-g for g in grads] if group['maximize'] else grads", 'grads'),
    'the error of `maximize` not turned round': ('test_optim.py::test_maximize_is_minimizing_the_opposite', 'variants',
                                                 '-float(value) if maximize else float(value)', 'float(value)'),
    'the last error is not remembered': (OURS, 'optim', "self.param_groups[i]['loss'] = turned.loss", 'pass'),
    'settings of groups ignored': ('test_optim.py::test_a_group_that_joins_late', 'inside/groups', 'full = {**defaults, **group,', 'full = {**group, **defaults,'),
    'the gradient is zeroed in place of being forgotten': ('test_optim.py::test_zero_grad', 'optim', '                p.grad = None\n', '                p.grad[...] = 0\n'),
    'a parameter may be there twice': ('test_optim.py::test_refusals_at_construction', 'inside/groups', 'if seen.keys() & mine.keys():', 'if False:'),
    'a state is loaded by half': ('test_hostile.py::test_a_state_that_fails_at_the_end_changes_nothing', 'optim',
                                  'settings = [read_settings(old, group) for old, group in zip(saved, self.param_groups)]',
                                  'self.param_groups[:] = settings = [read_settings(old, group) for old, group in zip(saved, self.param_groups)]'),
    'the loaded signs are lost': ('test_optim.py::test_resume_is_going_on', 'inside/memory', "memory['sign'][...] = sign_of(prev, memory['sign'])", 'pass'),
    'a new shape is not noticed': ('test_replaced.py::test_a_parameter_that_grows_is_refused_before_anything_moves', 'optim',
                                   "if tuple(then) != tuple(now):", 'if False:'),
    'a turned tensor is not noticed': ('test_replaced.py::test_a_tensor_that_is_turned_moves_the_right_weights', 'inside/engine',
                                       '[layout(p) for p in params]', '[p.data_ptr() for p in params]'),
    'a cleared state is not noticed': ('test_replaced.py::test_a_state_that_is_cleared_starts_anew', 'inside/engine', 'all(map(is_, map(state.get, params), self.memories))', 'True'),
    'a state that was handed out is not looked at': ('test_replaced.py::test_a_memory_that_is_held_and_replaced_later_is_used', 'optim',
                                                     '        self.seen = True  # from now on', '        self.seen = False  # from now on'),
    'a copy shares the state unseen': ('test_replaced.py::test_a_shallow_copy_and_the_original_see_one_memory', 'optim', '        self.seen = True  # a shallow', '        pass  # a shallow'),
    'steps of an engine that goes are lost': ('test_replaced.py::test_steps_are_counted_whenever_somebody_looks', 'optim', '        if jobs:\n            self.counted()\n', '        if jobs:\n'),
    'steps are not counted for who holds the state': ('test_replaced.py::test_steps_are_counted_whenever_somebody_looks', 'optim', 'if self.seen:\n                self.engines[i].settle()', 'if False:\n                self.engines[i].settle()'),
    'a replaced memory is not noticed': ('test_replaced.py::test_a_memory_that_is_replaced_is_used', 'inside/engine',
                                         " and m.get('step_size') is size", ''),
    'a replaced sign is not noticed': ('test_replaced.py::test_an_array_put_into_a_memory_is_used', 'inside/engine', "m.get('sign') is sign and ", ''),
    'a memory is left to an engine that another one has taken': ('test_replaced.py::test_groups_that_leave_and_come_back', 'optim', 'if mine.isdisjoint(map(id, e.memories))}', 'if e}'),
    'steps wider than weights are compiled': ('test_replaced.py::test_steps_wider_than_weights', 'inside/engine', 'self.weights[0].dtype == self.step.dtype', 'True'),
    'an array may be resized under the engine': ('test_replaced.py::test_an_array_that_is_stepped_is_not_resized', 'inside/engine', '        self.pins = list(map(ref', '        self.pins = list(map(str'),
    'a gradient changes while it is read': ('test_replaced.py::test_a_gradient_that_is_a_view_of_its_weights', 'inside/engine', 'g = clear(g, ws[0])', 'pass'),
    'read-only complex weights are written': ('test_replaced.py::test_weights_of_complex_numbers_that_became_read_only', 'inside/engine', 'x, w in zip(params, self.held, self.written)])', 'x, w in zip(params, self.held, self.weights)])'),
    'a parameter around a tensor is asked for flags': ('test_optim.py::test_a_parameter_around_a_tensor', 'inside/engine', '[x if type(x) is ndarray else w for', '[x for'),
    'half steps are compiled': ('test_replaced.py::test_half_steps_that_somebody_put_into_a_memory', 'inside/engine', ' == self.step.dtype != np.float16:', ' == self.step.dtype:'),
    'a row: other weights are not noticed': ('test_optim.py::test_a_row_with_other_weights_is_refused_before_anything_moves', 'inside/parameters', 'if self.data is not self.rows[0]:', 'if False:'),
    'a row: any gradient will do': ('test_optim.py::test_a_gradient_that_does_not_fit_a_row', 'inside/parameters', 'if g is not None and (np.shape(g), kind) != (self.shape, self.dtype):', 'if False:'),
    'a row: rows are parts': ('test_optim.py::test_a_row_of_rows_is_refused', 'inside/parameters', 'isinstance(p, Row) or', 'False or'),
    'counts are lost to another thread': ('test_replaced.py::test_counts_read_by_another_thread', 'inside/engine', "        due, self.due = self.due, 0  # at once: another thread may be stepping\n        for memory in self.memories if due else ():\n            memory['step'] += due\n",
                                          "        for memory in self.memories if self.due else ():\n            memory['step'] += self.due\n        __import__('time').sleep(1e-4)\n        self.due = 0\n"),
    'turned gradients in a row are not seen': ('test_replaced.py::test_gradients_of_tensors_in_a_row_that_are_turned', 'inside/engine', 'at = [layout(g)', 'at = [g.data_ptr()'),
    'threads that have stopped are waited for': ('test_rows.py::test_a_step_while_the_interpreter_ends', 'inside/rows', 'if sys.is_finalizing() or getattr', 'if getattr'),
    'a thread waits for itself': ('test_rows.py::test_a_job_may_have_jobs_of_its_own', 'inside/rows', "sys.is_finalizing() or getattr(HERE, 'serves', False)", 'sys.is_finalizing()'),
    'threads: more are hired at each call': ('test_rows.py::test_the_crew_is_no_larger_than_needed', 'inside/rows', 'while len(members) < count:', 'for _ in range(count):'),
    'threads: an interrupt leaves the others alone': ('test_rows.py::test_an_interrupt_waits_for_the_others', 'inside/rows', 'except KeyboardInterrupt as interrupt:', 'except KeyError as interrupt:'),
    'rows: a missing gradient is not seen': ('test_replaced.py::test_gradients_in_a_row_some_of_which_are_missing', 'inside/engine', 'len(found) == len(self.home or ()) and ', ''),
    'replaced gradients are not noticed': ('test_replaced.py::test_gradients_whose_data_are_replaced', 'inside/engine', 'if at == self.at and known:', 'if known:'),
    'an empty array begins no bundle': ('test_replaced.py::test_an_empty_parameter_before_a_large_one', 'inside/rows', 'if i > cuts[-1] and total + size', 'if total and total + size'),
    'changed settings are not checked': ('test_replaced.py::test_settings_that_change_are_checked_before_anything_moves', 'optim',
                                         'group.update(check_options(group))', 'pass'),
    'an old error is compared': ('test_replaced.py::test_an_error_from_before_a_change_of_variant_is_not_compared', 'variants',
                                 "return forget, undo == 'always', math.inf", "return forget, undo == 'always', before"),
    'one name for all drafts': ('test_replaced.py::test_two_threads_may_save_to_one_file', 'inside/memory', 'secrets.token_hex(6)', '0'),
    'a state dict is no copy': ('test_optim.py::test_state_dict_is_a_copy', 'inside/memory', 'else pairs + 0', 'else pairs'),

    # files
    'the checksum is not looked at': ('test_hostile.py::test_one_flipped_bit_of_the_data_breaks_the_checksum', 'inside/memory',
                                      "if str(arrays.pop('checksum')) != digest(arrays):", "if not arrays.pop('checksum'):"),
    'pickles are read': ('test_hostile.py::test_a_pickle_inside_is_not_run', 'inside/memory', 'allow_pickle=False', 'allow_pickle=True'),
    'files are written in place': ('test_hostile.py::test_many_kills_inside_one_process_tree', 'inside/memory',
                                   "draft = path.with_name(f'{path.name}.{secrets.token_hex(6)}.part')", 'draft = path',
                                   'inside/memory', "open(draft, 'xb')", "open(draft, 'wb')"),
    'the disk is not waited for': ('test_hostile.py::test_a_failed_save_leaves_the_old_file', 'inside/memory', 'os.fsync(file.fileno())', 'pass'),
    'a draft is left behind': ('test_hostile.py::test_a_failed_save_leaves_the_old_file', 'inside/memory', 'draft.unlink(missing_ok=True)', 'pass'),
    'bombs are unpacked': ('test_hostile.py::test_a_bomb_is_refused_before_it_is_unpacked', 'inside/memory', 'if size > most:', 'if False:'),
    'a step that is NaN is loaded': ('test_hostile.py::test_files_that_are_whole_and_wrong_are_refused', 'inside/memory',
                                     '((size >= 0) & (size < math.inf)).all()', 'True'),
    'scratch is shared by all': ('test_hostile.py::test_two_threads_share_no_scratch', 'inside/arrays',
                                 'class Room(dict):\n', 'class Room(dict):\n    def __new__(cls, *what):\n        '
                                 "return Room.__dict__.get('one') or setattr(Room, 'one', super().__new__(cls)) or Room.one\n\n"),

    # what is refused at the door
    'settings need not fit': ('test_refused.py::test_settings_that_do_not_fit_are_refused_by_name', 'inside/groups',
                              '    if not fits:\n', '    if False:\n'),
    'two settings need not fit each other': ('test_refused.py::test_settings_that_do_not_fit_are_refused_by_name', 'variants',
                                             'np.broadcast_shapes(np.shape(low), np.shape(high))', 'pass'),
    'a setting may be masked': ('test_refused.py::test_settings_that_do_not_fit_are_refused_by_name', 'variants',
                                'not np.ma.is_masked(value) and ', ''),
    'a setting may be complex': ('test_refused.py::test_settings_that_do_not_fit_are_refused_by_name', 'variants',
                                 " and 'complex' not in str(getattr(value, 'dtype', ''))", ''),
    'arrays of settings are shared': ('test_refused.py::test_settings_that_are_arrays_cannot_change_unseen', 'inside/groups',
                                      '    value = value.copy()\n', ''),
    'a memory begins unseen': ('test_refused.py::test_a_first_step_is_looked_at_again_where_a_memory_begins_anew', 'optim',
                               '            check_settings(p, label, group)\n            return w', '            return w'),
    'arrays for pairs of reals': ('test_refused.py::test_arrays_for_complex_weights', 'inside/groups',
                                  "if name != 'lr' and", 'if False and'),
    'a first step may be infinite': ('test_refused.py::test_steps_and_factors_beyond_the_type_are_the_largest_that_it_holds', 'inside/memory',
                                     '    lr, _ = capped((lr, lr), init(w[None, ...][:0, ...], 0.0).step)', '    lr, _ = (lr, lr)'),
    'a factor may be infinite': ('test_refused.py::test_steps_and_factors_beyond_the_type_are_the_largest_that_it_holds', 'inside/arrays',
                                 'factors = capped(etas, step)', 'factors = etas'),
    'dead arrays are compared': ('test_refused.py::test_anything_with_an_array_and_a_gradient_is_a_parameter', 'inside/parameters',
                                 'found = {id(x): x for x in', 'found = {id(x): None for x in'),
    'sets have an order': ('test_refused.py::test_what_is_no_list_of_parameters', 'inside/parameters',
                           'if isinstance(params, (set, frozenset)):', 'if False:'),
    'any pair has a name': ('test_refused.py::test_what_is_no_list_of_parameters', 'inside/groups',
                            "    if not all(len(pair) == 2 and not hasattr(pair[0], 'grad') for pair in pairs):", '    if False:'),
    'masks of gradients are dropped': ('test_refused.py::test_a_masked_gradient_is_refused_and_one_without_a_mask_is_taken', 'inside/parameters',
                                       'if np.ma.is_masked(g):', 'if False:'),
    'a lazy minus is not made': ('test_refused.py::test_a_gradient_with_a_lazy_minus', 'inside/parameters',
                                 '.resolve_neg()', ''),
    'numbers are written in place': ('test_refused.py::test_gradients_that_cannot_be_written_are_cleared_too', 'inside/parameters',
                                     "elif getattr(getattr(p.grad, 'flags', None), 'writeable', True):", 'else:\n        p.grad[...] = 0\n    if False:\n        pass\n    elif False:'),
    'errors stop in the middle of a step': ('test_refused.py::test_numpy_may_be_told_to_raise', 'optim',
                                            "with np.errstate(all='ignore'):  # a move", 'with np.errstate():  # a move'),
    'steps of any kind are taken': ('test_refused.py::test_a_memory_that_does_not_fit_is_refused_before_anything_moves', 'optim',
                                    "if kind not in named(getattr(memory[key], 'dtype', '')):", 'if False:'),
    'long doubles have no row': ('test_refused.py::test_steps_of_long_doubles_are_used', 'inside/engine',
                                 'if self.sign is None or self.step is None:', 'if False:'),
    'bfloat16 cannot be read': ('test_refused.py::test_bfloat16_states_of_torch_are_read', 'inside/memory',
                                "value.float() if 'bfloat16' in str(value.dtype) else value", 'value'),
    'a number may be there twice': ('test_refused.py::test_a_number_that_is_there_twice_in_a_state', 'optim',
                                    'if len(set(keys)) < len(keys):', 'if False:'),
    'access rights are lost': ('test_refused.py::test_access_rights_and_links_survive', 'inside/memory',
                               '            shutil.copymode(path, draft)', '            pass'),
    'links are replaced': ('test_refused.py::test_access_rights_and_links_survive', 'inside/memory',
                           'Path(os.path.realpath(path))', 'Path(path)'),
    'empty parameters weigh nothing': ('test_refused.py::test_many_empty_parameters_can_be_saved', 'optim',
                                       'sum(1 + math.prod', 'sum(0 + math.prod'),

    # the conformance check
    'manners are not looked at': ('test_conformance.py::test_command_fails_where_nothing_or_something_wrong_was_seen', 'conformance', ' or not set(MANNERS).isdisjoint(report.habits)', ''),
    'of equal variants the last name is named': ('test_conformance.py::test_of_variants_that_explain_equally_much_the_nearer_is_named', 'conformance',
                                                 "len(habits) / 2, plain, variant", "len(habits) / 2, 0, variant"),

    # the solver
    'bounds are left': ('test_solver.py::test_a_thousand_bounded_quadratics', 'inside/walk', 'new = project(wish, box)', 'new = wish'),
    'steps are not shortened at a bound': ('test_solver.py::test_a_step_that_the_box_cuts_is_shortened', 'inside/walk',
                                           'return new, shorten(state, wish, new, x)', 'return new, state'),
    'undo under bounds is not the very point': ('test_solver.py::test_undo_under_bounds_is_the_previous_point', 'inside/walk',
                                                'wish = restore(wish, old, back)', 'wish = wish'),
    'the gradient is not projected': ('test_solver.py::test_a_thousand_bounded_quadratics', 'inside/walk', 'where(out, 0.0, seen.g)', 'where(out, seen.g, seen.g)'),
    'points at hand are evaluated again': ('test_solver.py::test_no_point_is_evaluated_twice_in_a_row', 'inside/walk',
                                           'if same(x, seen.x)), None)', 'if False), None)'),
    'what is not finite is kept': ('test_solver.py::test_nonfinite_at_a_trial_is_backed_out_of', 'inside/walk', 'return not finite(here) or', 'return'),
    'safe mode lets every point pass': ('test_solver.py::test_safe_mode_never_keeps_a_worse_point', 'inside/walk', 'or safe and not here.fun', 'or False and not here.fun'),
    'the last point is returned': ('test_solver.py::test_the_best_point_is_kept', 'solver',
                                   'elif (p.fun, p.optimality) <= (best.fun, best.optimality) and math.isfinite(p.fun) and math.isfinite(p.optimality):', 'else:'),
    '`tol` ignored': ('test_solver.py::test_tol_is_gtol', 'solver', "({} if tol is None else {'gtol': legal('tol', tol)})", '{}'),
    'a small step is a certificate': ('test_solver.py::test_small_steps_under_noise_are_no_certificate', 'solver', 'p.span[1] if calm and p.optimality else math.inf', 'p.span[1]'),
    'the last point gives the certificate': ('test_solver.py::test_the_certificate_is_of_the_point_that_is_returned', 'solver',
                                             "'largest gradient', best.optimality", "'largest gradient', p.optimality"),
    'the last point is calm': ('test_solver.py::test_the_certificate_is_of_the_point_that_is_returned', 'solver',
                               'best.optimality <= 1e-3', 'p.optimality <= 1e-3'),
    'of equal points the last is best': ('test_solver.py::test_of_equal_errors_the_smaller_gradient_is_best', 'solver',
                                         '(p.fun, p.optimality) <= (best.fun, best.optimality)', 'p.fun <= best.fun'),
    'xtol speaks where nothing moves': ('test_solver.py::test_where_nothing_wants_to_move_xtol_is_silent', 'solver', 'calm and p.optimality else', 'calm else'),
    'a masked error is a number': ('test_solver.py::test_a_masked_error_is_no_number', 'inside/shapes', 'np.ma.is_masked(error) or ', ''),
    'a named tuple is a vector': ('test_solver.py::test_a_structure_of_single_numbers_stays_a_structure', 'inside/shapes',
                                                   "hasattr(tree, '_make') or ", ''),
    'an infinite slope at a bound has failed': ('test_solver.py::test_an_infinite_slope_at_a_bound_does_not_stop_the_others', 'inside/shapes',
                                                'namespace(seen.slope).isfinite(seen.slope)', 'namespace(seen.g).isfinite(seen.g)'),
    'safe mode promises a slope that is not followed': ('test_solver.py::test_an_infinite_slope_at_a_bound_does_not_stop_the_others', 'inside/walk',
                                                        '(last.slope * (here.x - last.x))', '(last.g * (here.x - last.x))'),
    'the function is asked at infinity': ('test_solver.py::test_nobody_is_asked_at_infinity', 'inside/walk', ' or beyond(x, here)', ''),
    'what was tried last is forgotten': ('test_solver.py::test_a_trial_that_fails_again_and_again_is_made_once', 'inside/walk', 'in (here, last, tried) if', 'in (here, last) if'),
    'an empty callback is none': ('test_solver.py::test_an_empty_list_may_be_a_callback', 'solver', 'if c is not None]', 'if c]'),
    'a limit is kept as it comes': ('test_solver.py::test_limits_of_every_kind_of_number', 'solver', 'return kind(value)', 'return value'),
    'error and gradient are added': ('test_solver.py::test_the_best_is_found_where_error_and_gradient_add_up_to_too_much', 'solver',
                                     'math.isfinite(p.fun) and math.isfinite(p.optimality)', 'math.isfinite(p.fun + p.optimality)'),
    'trace and result share a point': ('test_solver.py::test_the_trace_and_the_result_share_nothing', 'solver', 'copy.deepcopy(p.x))\n        self.errors', 'p.x)\n        self.errors'),
    'limits are not checked': ('test_solver.py::test_bad_limits_are_refused_before_the_function_is_called', 'solver', 'if not np.ndim(value) and holds(value):', 'if True:'),
    'any type is a gradient': ('test_solver.py::test_no_answer_is_misunderstood', 'inside/shapes', 'array.dtype.kind not in kinds or', 'False or'),
    'masks are dropped': ('test_solver.py::test_no_answer_is_misunderstood', 'inside/shapes', 'or np.ma.is_masked(value)', 'or False'),
    'text is an error': ('test_solver.py::test_no_answer_is_misunderstood', 'inside/shapes', 'isinstance(value, (str, bytes, bool))', 'False'),
    'the gradient keeps its type': ('test_solver.py::test_the_gradient_is_returned_in_the_type_of_the_start', 'inside/walk',
                                    'jac = here.g.astype(here.x.dtype, copy=False)', 'jac = here.g'),
    'infinity times zero in the box': ('test_solver.py::test_an_infinite_gradient_that_leaves_the_box', 'inside/walk', 'where(out, 0.0, seen.g)', 'where(out, 0 * seen.g, seen.g)'),
    'overflow is not silent': ('test_solver.py::test_overflow_is_dealt_with_in_silence', 'inside/walk',
                               "with np.errstate(all='ignore'):\n            dw, state", 'if True:\n            dw, state'),
    'a start may be infinite': ('test_solver.py::test_a_bad_start_is_called_so', 'inside/walk', 'or not namespace(x).isfinite(x).all()', 'or False'),
    'a first step may vanish': ('test_solver.py::test_the_first_step_fits_the_type', 'inside/walk', 'everywhere((0 < state.step) &', 'everywhere('),
    'bounds may hold nothing': ('test_solver.py::test_crossing_bounds', 'inside/walk', '    if not good.all():\n', '    if not (low <= high).all():\n'),
    'Ctrl-C forgets the best point': ('test_solver.py::test_ctrl_c_returns_the_best_point', 'solver', 'return best, p, (98,', 'return first, p, (98,'),
    'the variant is not passed on': ('test_solver.py::test_same_bits_as_the_optimizer', 'inside/walk', 'box, dict(variant=variant,', "box, dict(variant='irprop-',"),
}


def furnish(folder):
    "A copy of the package and its tests, without the notebooks"
    for name in ('rprop_lit', 'tests'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    for name in ('pytest.ini', 'settings.ini'):
        shutil.copy(ROOT / name, folder)
    return folder


def changes(name):
    "The changes of a fault: module, text, replacement"
    return zip(*[iter(FAULTS[name][1:])] * 3)


def misplaced():
    "Faults whose text is not in its module exactly once: what the list says of them"
    for name in FAULTS:
        for module, old, _ in changes(name):
            count = (ROOT / 'rprop_lit' / f'{module}.py').read_text(encoding='utf-8').count(old)
            if count != 1:
                yield f'{name}: {module}.py holds {count} times, not once: {old!r}'


def spoil(folder, name):
    "Put a fault into the modules of a copy"
    for module, old, new in changes(name):
        path = folder / 'rprop_lit' / f'{module}.py'
        path.write_text(path.read_text(encoding='utf-8').replace(old, new), encoding='utf-8')


def tested(folder, tests, *options):
    "Run tests in a copy: whether they passed, the names of those that failed, and the end of what pytest said if it did not end as it should"
    env = dict(os.environ, PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE='1', RPROP_LIT_BACKEND='numpy')
    env.pop('PYTEST_ADDOPTS', None)
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--tb=no', '-rf', '-n', '0', '--assert=plain', *options, *tests]
    with tempfile.TemporaryFile('w+', encoding='utf-8') as log:  # a file: who reads a pipe waits for every process that a test left behind
        run = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            code = run.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = f'nothing, and was stopped after {PATIENCE} s'
            run.send_signal(signal.SIGABRT)  # pytest then says where each of its threads stands
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        log.seek(0)
        said = log.read()
    failed = [line.split()[1] for line in said.splitlines() if line.startswith('FAILED')]
    return code == 0, failed, '' if code in (0, 1) else f'pytest ended with {code}: {said[-3000:]}'


def seen(name, find):
    "Put in one fault, and say which test catches it: a test must fail, it is not enough that pytest cannot start or does not end"
    test, start = FAULTS[name][0], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = furnish(Path(folder))
        spoil(folder, name)
        tests = [f'tests/{t}' for t in QUICK if (folder / 'tests' / t).exists()] if find else [f'tests/{test}']
        _, failed, trouble = tested(folder, tests, *([] if find else ['-x']))
    names = dict.fromkeys(f.split('[')[0].removeprefix('tests/') for f in failed)
    print(f'{"caught" if names else "UNSEEN"}: {time.monotonic() - start:3.0f} s  {name:50} {", ".join(names)} {trouble}'.rstrip(), flush=True)
    return bool(names)


def main(words):
    find = '--find' in words
    chosen = [name for name in FAULTS if all(word in name for word in words if word != '--find')]
    named = sorted({FAULTS[name][0] for name in chosen})
    assert not any(test.startswith(IN_STEP) for test in named)
    wrong = list(misplaced())
    if wrong:
        sys.exit('\n'.join(wrong))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        passed, *what = tested(furnish(Path(folder)), [f'tests/{test}' for test in named])
    print(f'{"green" if passed else "RED"}: the unchanged copy, {len(named)} tests', *([] if passed else what), flush=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        unseen = sum(not caught for caught in pool.map(lambda name: seen(name, find), chosen))
    print(f'{len(chosen)} faults, {unseen} unseen, {time.monotonic() - start:.0f} s')
    return int(bool(unseen) or not passed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
