"""Faults of the machine room: kernels, rows, plans, memories, groups, files, the optimizer;
one at least in each backend."""
WALK = 'test_conformance.py::test_our_optimizer_walks_every_trace'
FRESH = 'test_arrays.py::test_into_fresh_memory_a_kernel_writes_its_moves'
BUNDLES = 'test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule'
THREADS = 'test_rows.py::test_every_number_of_threads_makes_the_bits_of_the_readable_rule'
LOOP = 'test_arrays.py::test_blocks_and_loop_equal_the_readable_rule'
LARGEST = 'test_refused.py::test_steps_and_factors_beyond_the_type_are_the_largest_that_it_holds'

FAULTS = {
    # kernels
    'block: sign(0) counted as +': (
        WALK, 'inside/arrays:step_block',
        '(less if climb else greater)(g', '(less if climb else greater_equal)(g'),
    'block: forget dropped': (WALK, 'inside/arrays:step_block', 'keep if forget else _ONE', '_ONE'),
    'block: undo of what agreed': (
        WALK, 'inside/arrays:step_block',
        'less(agree, _ZERO, flipped)', 'greater_equal(agree, _ZERO, flipped)'),
    'block: the clamp is left out': (
        WALK, 'inside/arrays:step_block', 'size.clip(lo, hi, step)', 'copyto(step, size)'),
    'block: signs are scratch': (
        'test_arrays.py::test_a_block_that_is_interrupted_holds_old_or_new_numbers',
        'inside/arrays:step_block',
        'multiply(s, sign, agree', 'agree = multiply(s, sign, sign'),
    'block: climbing goes down': (
        'test_optim.py::test_maximize_is_minimizing_the_opposite', 'inside/arrays:step_block',
        '(greater if climb else less)', '(greater if climb else greater)'),
    'block: undone by the new step': (
        WALK, 'inside/arrays:_choose', 'add(size, last, size)', 'multiply(keep, step, size)'),
    'retreat: steps do not shrink': (
        'test_optim.py::test_a_loss_that_is_not_finite_sends_everybody_back', 'inside/arrays:_retreat_block',
        'multiply(step, limits.eta_minus, step)', 'pass'),
    'retreat: signs are kept': (
        'test_optim.py::test_a_loss_that_is_not_finite_sends_everybody_back', 'inside/arrays:_retreat_block',
        'sign.fill(0)', 'pass'),
    'retreat: forwards': (
        'test_optim.py::test_a_loss_that_is_not_finite_sends_everybody_back', 'inside/arrays:_retreat_block',
        'negative(sign, back)', 'copyto(back, sign)'),
    'limits: one squaring too few': (
        'test_properties.py::test_the_weight_is_the_old_one_plus_the_move_rounded_once',
        'inside/arrays:limits_of',
        '(bits - 1).bit_length()', '0'),
    'limits: a factor may be infinite': (
        LARGEST, 'inside/arrays:limits_of', 'cast_pair(settings.etas, step)', 'settings.etas'),
    'limits: rows are not cut': (
        'test_arrays.py::test_each_array_gets_its_own_part_of_settings_that_are_arrays',
        'inside/arrays:Limits.cut',
        'row[part]', 'row'),
    'blocks: the last one is left out': (
        THREADS, 'inside/arrays:_step_blocks',
        'for a in range(0, w.size, size):', 'for a in range(0, w.size - size, size):'),
    'loop: the last weight is left out': (
        LOOP, 'inside/arrays:compiled', 'range(w.size)', 'range(w.size - 1)'),
    'loop: knobs are swapped': (
        LOOP, 'inside/arrays:compiled_kernel',
        '(bool(flip.forget), bool(flip.undo), limits.climb, fresh)',
        '(bool(flip.undo), bool(flip.forget), limits.climb, fresh)'),
    # backends
    'readable: the gradient is not turned': (
        'test_room.py::test_the_readable_backend_climbs', 'inside/engine:Readable.step',
        '-g if plan.settings.maximize else g', 'g'),
    'readable: steps are not kept': (
        'test_arrays.py::test_a_type_without_a_fast_path_is_stepped_too', 'inside/engine:Readable.step',
        '(new.sign, new.step)', '(new.sign, step)'),
    'readable: no retreat': (
        'test_room.py::test_the_readable_backend_climbs', 'inside/engine:Readable.step',
        'if flip.retreat:', 'if False:'),
    'blocks: another flip': (
        WALK, 'inside/engine:Blocks.step',
        'blocks_kernel(flip)', 'blocks_kernel(flip._replace(undo=False))'),
    'compiled: another flip': (
        'test_arrays.py::test_rprop_on_awkward_arrays', 'inside/engine:Compiled.step',
        'compiled_kernel(flip)', 'compiled_kernel(flip._replace(forget=not flip.forget))'),
    'compiled: halves are compiled': (
        'test_arrays.py::test_rprop_on_awkward_arrays', 'inside/engine:Compiled.fits', 'FAST[1:]', 'FAST'),
    # rows
    'bundle: moves are added twice': (
        BUNDLES, 'inside/rows:step_bundle',
        'map(np.add, ws, places, ws)', 'map(np.add, ws, [p + p for p in places], ws)'),
    'bundle: moves are added to the last ones': (
        BUNDLES, 'inside/rows:step_bundle', 'fresh=True', 'fresh=False'),
    'bundle: -0.0 becomes 0.0': (
        'test_rows.py::test_bundles_of_every_kind_make_the_bits_of_the_readable_rule',
        'inside/arrays:step_block', 'negative(size, w)', 'subtract(0.0, size, w)'),
    'bundle: a compiled move is added to the last one': (
        FRESH, 'inside/arrays:compiled', 'weight(dw) if fresh else w[i] + weight(dw)', 'w[i] + weight(dw)'),
    'bundle: rows of settings, a compiled move is added to the last one': (
        FRESH, 'inside/arrays:_compiled_rows', 'weight(dw) if fresh else w[i] + weight(dw)',
        'w[i] + weight(dw)'),
    'bundle: a retreat is added to the last move': (
        FRESH, 'inside/arrays:_retreat_block', 'negative(size, w) if fresh else subtract(w, size, w)',
        'subtract(w, size, w)'),
    'bundle: places after a gap are wrong': (
        'test_arrays.py::test_rprop_on_awkward_arrays', 'inside/engine:_step_rows',
        'ends[a] - ends[first]', '0'),
    'bundles: an empty array begins none': (
        'test_replaced.py::test_an_empty_parameter_before_a_large_one', 'inside/rows:bundles',
        'if i > cuts[-1] and total + size > most:', 'if total and total + size > most:'),
    'runs: what follows a gap is left out': (
        'test_arrays.py::test_rprop_on_awkward_arrays', 'inside/rows:runs',
        '[*gone, end]', '[*gone, first]'),
    'rows: the last number is in no part': (
        'test_rows.py::test_parts_are_a_partition', 'inside/rows:parts', '[size]', '[size - 1]'),
    'a gradient changes while it is read': (
        'test_replaced.py::test_a_gradient_that_is_a_view_of_its_weights', 'inside/engine:_step_rows',
        'clear(gs[a], ws[a])', 'gs[a]'),
    # threads and interrupts
    'threads: scratch is shared by all': (
        'test_rows.py::test_each_thread_has_scratch_of_its_own', 'inside/engine:_step_row',
        'zip(cuts, rooms)', 'zip(cuts, rooms[:1] * len(cuts))'),
    'threads: an error is swallowed': (
        'test_rows.py::test_what_a_job_raises_is_raised_when_all_are_done', 'inside/rows:together',
        'raise error', 'pass'),
    'threads: nobody waits for the others': (
        'test_rows.py::test_all_jobs_are_done_before_it_returns', 'inside/rows:together',
        'wait(working)', 'pass'),
    'threads: a child waits for those of its parent': (
        'test_rows.py::test_a_forked_process_gets_threads_of_its_own', 'inside/rows:_helpers',
        'os.getpid()', '0'),
    'threads: the settings of the caller are lost': (
        'test_rows.py::test_settings_of_a_thread_travel_with_the_job', 'inside/rows:_helpers',
        'submit(copy_context().run, task, *args)', 'submit(task, *args)'),
    'threads: none is an error': (
        'test_rows.py::test_too_few_threads_can_be_started', 'inside/rows:_helpers',
        'RuntimeError', 'KeyError'),
    'threads: a thread waits for itself': (
        'test_rows.py::test_a_job_may_have_jobs_of_its_own', 'inside/rows:together',
        'if not helper.cancel()', 'if True'),
    'threads: the others leave jobs undone': (
        'test_rows.py::test_what_a_job_raises_is_raised_when_all_are_done', 'inside/rows:_work_off',
        'errors.append(error)', 'raise'),
    'interrupts: they do not wait': (
        'test_rows.py::test_an_interrupt_waits_for_the_step', 'inside/rows:Uninterrupted.__enter__',
        'if self.here:', 'if False:'),
    'interrupts: they are lost': (
        'test_rows.py::test_an_interrupt_waits_for_the_step', 'inside/rows:Uninterrupted.__exit__',
        'self.usual(*self.caught[0])', 'pass'),
    'interrupts: the handler is not put back': (
        'test_rows.py::test_an_interrupt_waits_for_the_step', 'inside/rows:Uninterrupted.__exit__',
        'signal.signal(signal.SIGINT, self.usual)', 'pass'),
    'interrupts: a short step is not taken back': (
        'test_rows.py::test_a_short_step_is_taken_back', 'inside/engine:TakenBack.__exit__',
        'a[...] = before', 'pass'),
    'interrupts: a long step is taken back': (
        'test_rows.py::test_which_steps_are_taken_back', 'inside/engine:whole', 'count <= SHORT', 'True'),
    # plans
    'plan: new weights are not read': (
        'test_arrays.py::test_new_weights_are_noticed', 'inside/engine:Plan.read',
        '[p.data for p in self.params]', '[self.own.setdefault(id(p), p.data) for p in self.params]'),
    'plan: weights of another type are taken': (
        'test_replaced.py::test_the_memory_follows_the_type_of_the_weights', 'inside/engine:Plan.read',
        'kinds(ws, self.tensors) != self.kinds', 'False'),
    'plan: gradients of another shape are taken': (
        'test_arrays.py::test_a_gradient_that_does_not_fit_changes_nothing', 'inside/engine:Plan._checked',
        'kinds(there, self.tensors) != wanted', 'False'),
    'plan: read-only weights are written': (
        'test_arrays.py::test_weights_that_became_read_only_are_refused_before_anything_is_written',
        'inside/engine:Plan.read',
        'w.flags.writeable', 'True'),
    'plan: a new shape is not noticed': (
        'test_replaced.py::test_a_parameter_that_grows_is_refused_before_anything_moves',
        'inside/engine:Plan.check_shapes',
        'then != shape', 'False'),
    'plan: all memories begin at once': (
        'test_optim.py::test_no_gradient_no_move', 'inside/engine:Plan.step_all',
        'self.store.counts += there', 'self.store.counts += 1'),
    'plan: a cleared memory does not begin anew': (
        'test_replaced.py::test_a_state_that_is_cleared_starts_anew', 'inside/memory:Memory.clear',
        'self._store.waiting = (-1, True)', 'self._store.waiting = (-1, False)'),
    'plan: `lr` ignored': (
        'test_optim.py::test_lr_only_seeds', 'inside/engine:Plan.begin',
        'self._first(self.settings.lr, i)', '0.01'),
    'plan: a first step may be infinite': (LARGEST, 'inside/engine:Plan._first', 'min(lr, top)', 'lr'),
    'plan: the memory is left behind': (
        'test_replaced.py::test_the_memory_follows_the_type_of_the_weights', 'inside/memory:Memory.move',
        'if keep and len(self):', 'if False:'),
    'plan: a gradient that is not finite passes': (
        'test_optim.py::test_nonfinite_gradients', 'inside/engine:Plan.check_finite',
        'raise gone_wrong(g, label)', 'pass'),
    'plan: torch is not told': (
        'test_torch.py::test_a_stale_backward_is_noticed', 'inside/engine:Plan.step_all',
        'if self.tensors:', 'if False:'),
    'plan: a turned tensor is not noticed': (
        'test_replaced.py::test_a_parameter_that_becomes_a_lazy_conjugate_is_refused',
        'inside/parameters:kinds',
        'a.is_conj()', 'False'),
    'plan: a lazy minus is not noticed': (
        'test_replaced.py::test_a_parameter_that_becomes_a_lazy_minus_is_refused', 'inside/engine:Plan.read',
        'w.is_neg()', 'False'),
    'plan: new settings are not pushed': (
        'test_replaced.py::test_settings_that_change_take_effect', 'inside/groups:Group.update',
        'plan.use(settings)', 'pass'),
    # memory
    'memory: the loaded signs are lost': (
        'test_optim.py::test_resume_is_going_on', 'inside/memory:read_memory',
        'sign_of(prev, np.zeros(prev.shape, np.int8))', 'np.zeros(prev.shape, np.int8)'),
    'memory: steps of any kind are taken': (
        'test_refused.py::test_a_memory_that_does_not_fit_is_refused_before_anything_moves',
        'inside/memory:checked',
        "kind not in str(getattr(values[key], 'dtype', ''))", 'False'),
    'memory: a step that is NaN is loaded': (
        'test_hostile.py::test_files_that_are_whole_and_wrong_are_refused', 'inside/memory:checked',
        'if not fine:', 'if False:'),
    'memory: halves of steps': (
        'test_refused.py::test_a_memory_that_does_not_fit_is_refused_before_anything_moves',
        'inside/memory:_count_of',
        'steps % 1', 'False'),
    'memory: a count of any size': (
        'test_states.py::test_a_count_that_cannot_be_is_refused_before_anything_is_written',
        'inside/memory:_count_of',
        '0 <= steps < 2 ** 63', '0 <= steps'),
    'memory: a copy is none': (
        'test_optim.py::test_state_dict_is_a_copy', 'inside/memory:_paired', 'pairs + 0', 'pairs'),
    'memory: bfloat16 cannot be read': (
        'test_refused.py::test_bfloat16_states_of_torch_are_read', 'inside/memory:on_host',
        "value.float() if 'bfloat16' in str(value.dtype) else value", 'value'),
    'memory: a device leaks': (
        'test_room.py::test_nothing_leaks_from_a_device_context', 'inside/memory:_zeros',
        ', device=like.device', ''),
    'memory: doubles for all': (
        'test_replaced.py::test_the_memory_follows_the_type_of_the_weights', 'inside/memory:_step_type',
        "'float64' if namespace(w).finfo(w.dtype).bits > 32 else 'float32'", "'float64'"),
    # files
    'file: one name for all drafts': (
        'test_replaced.py::test_two_threads_may_save_to_one_file', 'inside/files:_put',
        'secrets.token_hex(6)', '0'),
    'file: the checksum is not looked at': (
        'test_hostile.py::test_one_flipped_bit_of_the_data_breaks_the_checksum', 'inside/files:read_arrays',
        "str(arrays.pop('checksum')) != _digest(arrays)", "not arrays.pop('checksum')"),
    'file: pickles are read': (
        'test_hostile.py::test_a_pickle_inside_is_not_run', 'inside/files:read_arrays',
        'allow_pickle=False', 'allow_pickle=True'),
    'file: the disk is not waited for': (
        'test_hostile.py::test_a_failed_save_leaves_the_old_file', 'inside/files:_put',
        'os.fsync(file.fileno())', 'pass'),
    'file: a draft is left behind': (
        'test_hostile.py::test_a_failed_save_leaves_the_old_file', 'inside/files:_put',
        'draft.unlink(missing_ok=True)', 'pass'),
    'file: bombs are unpacked': (
        'test_hostile.py::test_a_bomb_is_refused_before_it_is_unpacked', 'inside/files:read_arrays',
        'if size > most:', 'if False:'),
    'file: access rights are lost': (
        'test_refused.py::test_access_rights_and_links_survive', 'inside/files:_resembling',
        'shutil.copymode(old, draft)', 'pass'),
    'file: links are replaced': (
        'test_refused.py::test_access_rights_and_links_survive', 'inside/files:write_arrays',
        'os.path.realpath(path)', 'path'),
    'file: pipes are replaced': (
        'test_room.py::test_what_is_no_regular_file_is_left_alone', 'inside/files:write_arrays',
        'path.exists() and (not path.is_file())', 'False'),
    'file: one attempt': (
        'test_room.py::test_a_reader_that_is_in_the_way_on_windows', 'inside/files:_replace',
        'if not left:', 'if True:'),
    'file: read from its beginning': (
        'test_room.py::test_open_files', 'inside/files:read_arrays', 'file.seek(start)', 'file.seek(0)'),
    # parameters
    'a row: new gradients are not noticed': (
        'test_optim.py::test_a_part_of_a_row_with_a_new_gradient_is_refused_before_anything_moves',
        'inside/parameters:Row.grad',
        'not all(map(is_, [p.grad for p in self.params], self.views))', 'False'),
    'a row: other weights are not noticed': (
        'test_optim.py::test_a_row_with_other_weights_is_refused_before_anything_moves',
        'inside/parameters:Row.grad',
        'self.data is not self.rows[0]', 'False'),
    'a row: a copy keeps old parts': (
        'test_optim.py::test_a_copy_of_a_row_is_a_row', 'inside/parameters:Row.__setstate__',
        'self.lay()', 'pass'),
    'a row: rows are parts': (
        'test_optim.py::test_a_row_of_rows_is_refused', 'inside/parameters:Row.__init__',
        'isinstance(p, Row)', 'False'),
    'a row: a part may be there twice': (
        'test_optim.py::test_what_a_row_is_not_made_of', 'inside/rows:flatten',
        'len(set(map(id, seen))) < len(seen)', 'False'),
    'a row: its tensors are not told': (
        'test_optim.py::test_a_row_of_tensors_makes_the_bits_of_its_parts', 'inside/parameters:tensors_of',
        'if isinstance(p, Row)', 'if False'),
    'weights may share memory': (
        'test_room.py::test_weights_that_share_memory_are_refused_by_name', 'inside/parameters:_crowded',
        'if marks.any():', 'if False:'),
    'weights may share memory with themselves': (
        'test_room.py::test_weights_that_share_memory_are_refused_by_name', 'inside/parameters:_span',
        'free and stride >= end', 'True'),
    'columns share memory': (
        'test_room.py::test_weights_side_by_side_are_not_refused', 'inside/parameters:_marks',
        '(*strides, 1)', '(*[abs(s) // 2 for s in strides], 1)'),
    'a parameter may be there twice': (
        'test_optim.py::test_an_empty_parameter_is_there_once_too', 'inside/parameters:check_apart',
        'len({id(p) for _, p in labelled}) < len(labelled)', 'False'),
    'sets have an order': (
        'test_refused.py::test_what_is_no_list_of_parameters', 'inside/parameters:members',
        'isinstance(params, (set, frozenset))', 'False'),
    'masks of gradients are dropped': (
        'test_refused.py::test_a_masked_gradient_is_refused_and_one_without_a_mask_is_taken',
        'inside/parameters:gradient',
        'np.ma.is_masked(g)', 'False'),
    'a tensor is viewed as it stands': (
        'test_refused.py::test_a_gradient_with_a_lazy_minus', 'inside/engine:_viewer',
        '.numpy(force=True)', '.numpy()'),
    'graphs grow': (
        'test_room.py::test_no_graph_grows', 'inside/parameters:wipe',
        'g.requires_grad_(False) if g.grad_fn is None else g.detach_()', 'pass'),
    # settings and groups
    'settings need not fit': (
        'test_refused.py::test_settings_that_do_not_fit_are_refused_by_name', 'inside/groups:check_fit',
        'if not fits:', 'if False:'),
    'arrays of settings are shared': (
        'test_refused.py::test_settings_that_are_arrays_cannot_change_unseen', 'inside/settings:own_copy',
        'np.array(', 'np.asarray('),
    'arrays for pairs of reals': (
        'test_refused.py::test_arrays_for_complex_weights', 'inside/groups:check_fit',
        "name != 'lr' and 'complex' in str(held(p).dtype)", 'False'),
    'settings of groups ignored': (
        'test_optim.py::test_a_group_that_joins_late', 'inside/groups:read_group',
        '**defaults, **{name: group[name] for name in NAMES if name in group}',
        '**{name: group[name] for name in NAMES if name in group}, **defaults'),
    'any pair has a name': (
        'test_refused.py::test_what_is_no_list_of_parameters', 'inside/groups:read_group',
        "not all((len(pair) == 2 and (not hasattr(pair[0], 'grad')) for pair in pairs))", 'False'),
    # the optimizer
    'a wrong variable is met in the second half': (
        'test_room.py::test_a_wrong_variable_is_refused_before_anything_moves', 'inside/engine:Plan.choose',
        'config.threads and backend.fits(ws)', 'backend.fits(ws)'),
    'only a missing Numba is left alone': (
        'test_room.py::test_a_numba_that_breaks_with_any_error_is_left_alone', 'inside/arrays:numba_works',
        'except Exception as error:', 'except ImportError as error:'),
    'only Ctrl-C takes a step back': (
        'test_room.py::test_an_exception_out_of_a_short_step_takes_it_back',
        'inside/engine:TakenBack.__exit__', 'kind is not None', 'kind is KeyboardInterrupt'),
    'replaced parameters are kept': (
        'test_room.py::test_parameters_that_are_replaced_and_deleted_are_let_go', 'inside/engine:plan_anew',
        'del memories[p]', 'pass'),
    'the last error is not remembered': (WALK, 'inside/step:step_all', 'group.remember(flip.loss)', 'pass'),
    'errors stop in the middle of a step': (
        'test_refused.py::test_numpy_may_be_told_to_raise', 'inside/step:step_all',
        "np.errstate(all='ignore')", 'np.errstate()'),
    'replaced parameters are not noticed': (
        'test_replaced.py::test_tensors_that_are_replaced_in_the_list_are_noticed', 'inside/step:_ready',
        "all(map(is_, group['params'], group.planned))", 'True'),
    'the gradient is zeroed in place of being forgotten': (
        'test_optim.py::test_zero_grad', 'optim:Rprop.zero_grad', 'p.grad = None', 'p.grad[...] = 0'),
    'a number may be there twice': (
        'test_refused.py::test_a_number_that_is_there_twice_in_a_state', 'inside/states:_matched',
        'len(set(keys)) < len(keys)', 'False'),
    'names do not decide': (
        'test_room.py::test_names_decide_where_both_sides_have_them', 'inside/states:_by_name',
        'None not in names', 'False'),
    'settings stay with the place of a group': (
        'test_states.py::test_settings_and_the_last_error_follow_the_names', 'inside/states:_partners',
        'mine == theirs[i]', 'True'),
    'a model in other groups is taken': (
        'test_states.py::test_a_model_in_other_groups_is_refused_or_keeps_its_settings',
        'inside/states:_partners',
        'strict and sorted(map(sorted, theirs)) != sorted(map(sorted, ours))', 'False'),
    'a state is put in place before it is checked': (
        'test_states.py::test_a_state_that_is_refused_changes_nothing', 'inside/states:replaced',
        '{p: Memory() for p in memories}', 'memories'),
    'a state that is assigned goes by unseen': (
        'test_states.py::test_an_empty_state_starts_everything_anew', 'inside/states:replaced',
        'renew(groups)', 'pass'),
    'a memory of another shape goes by unseen': (
        'test_states.py::test_a_memory_for_a_shape_that_came_and_went_is_used',
        'inside/states:States.__setitem__',
        'renew(self._groups)', 'pass'),
    'numbers begin anew in each group': (
        'test_states.py::test_parameters_without_a_name_are_numbered_through_all_groups',
        'inside/groups:read_groups',
        "sum((len(done['params']) for done in groups))", '0'),
    'a group gives up its settings': (
        'test_states.py::test_what_every_group_has_cannot_be_taken_out', 'inside/groups:Group._spare',
        "key in ('params', 'names', 'loss', *NAMES)", 'False'),
    'sparse weights are taken': (
        'test_states.py::test_a_tensor_without_strides_is_refused_by_name', 'inside/parameters:strided',
        "layout != 'torch.strided'", 'False'),
    'an entry without a form in a file has no name': (
        'test_states.py::test_an_entry_that_has_no_form_in_a_file_is_named', 'inside/files:_entry',
        'except (TypeError, ValueError) as error:', 'except ZeroDivisionError as error:'),
    'whatever has a `get` is of CuPy': (
        'test_states.py::test_a_column_of_a_table_is_an_array', 'inside/settings:of_cupy',
        "any((kind.__module__.partition('.')[0] == 'cupy' for kind in type(value).__mro__))",
        "hasattr(value, 'get')"),
    'names that only one side has pass': (
        'test_room.py::test_a_part_of_a_model', 'inside/states:_matched',
        'strict and (left.missing or left.unknown)', 'False'),
    'a state is loaded by half': (
        'test_hostile.py::test_a_state_that_fails_at_the_end_changes_nothing', 'inside/states:parsed',
        'saved, state = (state_dict[\'param_groups\'], dict(state_dict[\'state\']))',
        'saved, state = (state_dict[\'param_groups\'], dict(state_dict[\'state\']))\n'
        '    [group.update(saved_items(old, group)) for old, group in zip(saved, groups)]'),
    'a compiler looks into the step': (
        'test_room.py::test_a_compiled_training_step', 'inside/step:outside_compilers',
        "'torch._dynamo' not in sys.modules", 'True'),
    'empty parameters weigh nothing': (
        'test_refused.py::test_many_empty_parameters_can_be_saved', 'optim:Rprop.load',
        '1 + math.prod', '0 * math.prod'),
}
