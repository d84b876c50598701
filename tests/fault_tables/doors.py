"""Deliberate faults in the doors: the main job, torch's optimizer, Optax's transformation."""
from importlib.util import find_spec

MAIN = 'test_main.py::'

FAULTS = {
    'sunspots: starts are all the same': (
        MAIN + 'test_every_variant_is_trained_from_every_start', 'sunspots:train',
        'fit(task, variant, seed, epochs, tick)', 'fit(task, variant, 0, epochs, tick)'),
    'sunspots: a tie with the line is a win': (
        MAIN + 'test_the_verdict_goes_by_majorities', 'sunspots:verdict',
        '> len(fits) / 2', '>= len(fits) / 2'),
    'sunspots: the leading start is the first': (
        MAIN + 'test_the_leading_start_is_that_of_the_lowest_validation_error', 'sunspots:leading',
        "min(fits, key=lambda f: f.errors['validation'].min())", 'fits[0]'),
    'sunspots: means for medians': (
        MAIN + 'test_a_standing_holds_medians', 'sunspots:standing',
        'np.median([f.stopped + 1 for f in fits])', 'np.mean([f.stopped + 1 for f in fits])'),
    'command: the place of the picture is not tried': (
        MAIN + 'test_a_folder_that_takes_no_file_is_noticed_before_training', 'command:_picture_file',
        'tempfile.TemporaryFile(dir=path.parent).close()', 'pass'),
    'command: the old picture is written over': (
        MAIN + 'test_a_picture_that_cannot_be_saved_is_one_line_after_the_table', 'command:_save',
        "path.with_stem(f'{path.stem}.{secrets.token_hex(6)}.part')", 'path'),
    "command: a user's own file is the draft": (
        MAIN + 'test_a_file_of_the_users_own_beside_the_picture_stays', 'command:_save',
        '{secrets.token_hex(6)}.part', 'part'),
    'command: Ctrl-C after the training is a traceback': (
        MAIN + 'test_ctrl_c_after_the_training_is_one_line_and_leaves_no_draft', 'command:main',
        'except KeyboardInterrupt:', 'except ZeroDivisionError:'),
    'command: Ctrl-C is a traceback': (
        MAIN + 'test_ctrl_c_ends_in_one_line_with_what_was_done', 'command:_trained',
        'except KeyboardInterrupt:', 'except ZeroDivisionError:'),
    'command: a full stderr ends the command': (
        MAIN + 'test_streams_that_do_not_take_what_is_written', 'command:_Stderr.write',
        'contextlib.suppress(AttributeError, OSError, ValueError)', 'contextlib.suppress(ValueError)'),

    'torch: settings of a group are not handed over': (
        'test_torch_face.py::test_settings_that_are_written_into_a_group_are_used_and_checked',
        'torch:Rprop._hand_over',
        'ours.update(zip(_SETTINGS, values))', 'pass'),
    'torch: what is written in place is not noticed': (
        'test_torch_face.py::test_groups_may_be_changed_as_in_torch', 'torch:_mark',
        '[_mark(item) for item in value]', '[id(item) for item in value]'),
    'torch: a filled tensor is not noticed': (
        'test_torch_face.py::test_a_tensor_lr_that_is_filled_counts_for_a_late_parameter', 'torch:_mark',
        'value._version', '0'),
    'torch: groups are not followed': (
        'test_torch_face.py::test_groups_may_be_changed_as_in_torch', 'torch:Rprop._align',
        'if here != there:', 'if False:'),
    'torch: settings of another group are taken for handed over': (
        'test_torch_face.py::test_groups_may_be_changed_as_in_torch', 'torch:Rprop._hand_over',
        'self._given.get(id(ours), (None,))[0]', 'self._given.get(0, (None,))[0] or marks'),
    'torch: weights may be in two groups': (
        'test_torch_face.py::test_a_dict_that_torch_has_not_seen_is_refused', 'torch:_regrouped',
        'check_apart(labelled(found))', 'pass'),
    'torch: names are cut': (
        'test_torch_face.py::test_a_dict_that_torch_has_not_seen_is_refused', 'torch:_as_ours',
        'len(names) != len(params)', 'False'),
    'torch: names come from the file': (
        'test_torch_face.py::test_names_stay_with_their_parameters_through_two_loads',
        'torch:Rprop.load_state_dict', "{} if own is None else {'param_names': own}", '{}'),
    'torch: a failed group stays': (
        'test_torch_face.py::test_what_cannot_be_added_leaves_the_optimizer_whole',
        'torch:Rprop.add_param_group', 'self.param_groups.pop()', 'pass'),
    'torch: the closure comes last': (
        'test_torch_face.py::test_what_a_closure_writes_counts_at_once', 'torch:Rprop.step',
        'closure, loss = (None, loss_of(closure))', 'pass'),
    'torch: the last error stays behind': (
        'test_torch_face.py::test_a_step_is_one_of_our_own_class', 'torch:Rprop.step',
        "theirs['loss'] = ours['loss']", 'pass'),
    'torch: a refused group stays': (
        'test_torch_face.py::test_groups_that_join_and_groups_that_are_refused',
        'torch:Rprop.add_param_group',
        'self.param_groups.pop()', 'pass'),
    'torch: the state is cast to the type of the weights': (
        'test_torch_face.py::test_half_types_keep_their_steps', 'torch:Rprop.load_state_dict',
        'self._ours.load_state_dict(given, strict)',
        "self._ours.load_state_dict({**given, 'state': {i: {k: v if k == 'step' else v.bfloat16() for k, v "
        "in m.items()} for i, m in given['state'].items()}})"),
    'torch: a copy shares its memory': (
        'test_torch_face.py::test_copies_go_on_alone', 'torch:Rprop.__getstate__',
        "'_given': {}",
        "'_given': {}, '_ours': optim.Rprop([_as_ours(g) for g in self.param_groups])"),
    'torch: names are dropped': (
        'test_torch_face.py::test_names_appear_in_messages', 'torch:_as_ours',
        "group.get('param_names')", 'None'),
    'torch: differentiable is taken': (
        'test_torch_face.py::test_what_is_refused', 'torch:Rprop.__init__',
        'if differentiable:', 'if False:'),
}

JAX = {  # seen only where JAX and Optax are installed: the tests are skipped elsewhere
    'jax: the value is not remembered': (
        'test_jax.py::test_updates_are_pure', 'jax:rprop',
        'jnp.where(finite, loss, state.loss)', 'state.loss'),
    'jax: a value that is not finite is compared': (
        'test_jax.py::test_a_first_value_that_is_not_finite_moves_nothing', 'jax:rprop',
        'jnp.isfinite(loss) if judged else True', 'True'),
    'jax: leaves get the first sign': (
        'test_jax.py::test_a_tree_under_jit_and_scan_is_the_readable_form_on_each_array',
        'jax:_update_leaf',
        'state = State(sign, step)', 'state = State(abs(sign), step)'),
    'jax: shapes are not compared': (
        'test_jax.py::test_refusals', 'jax:_update_leaf', 'g.shape != step.shape', 'False'),
    'jax: settings are not checked': (
        'test_jax.py::test_refusals', 'jax:rprop', 'check_ranges(lr, etas, step_sizes)', 'pass'),
}

if find_spec('jax') and find_spec('optax'):
    FAULTS |= JAX
