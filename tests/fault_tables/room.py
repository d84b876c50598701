"""Faults of the machine room."""

FAULTS = {
    'a row: new gradients are not noticed': (
        'test_optim.py::test_a_part_of_a_row_with_a_new_gradient_is_refused_before_anything_moves',
        'inside/parameters:Row.grad',
        'not all(map(is_, [p.grad for p in self.params], self.views))',
        'False',
    ),
    'a row: a copy keeps old parts': (
        'test_optim.py::test_a_copy_of_a_row_is_a_row',
        'inside/parameters:Row.__setstate__',
        'self.lay()',
        'pass',
    ),
    'a row: a part may be there twice': (
        'test_optim.py::test_what_a_row_is_not_made_of',
        'inside/rows:flatten',
        'len(set(map(id, seen))) < len(seen)',
        'False',
    ),
    'block: signs are scratch': (
        'test_arrays.py::test_a_block_that_is_interrupted_holds_old_or_new_numbers',
        'inside/arrays:step_block',
        'multiply(s, sign, agree',
        'agree = multiply(s, sign, sign',
    ),
    'blocks: the last one is left out': (
        'test_rows.py::test_every_number_of_threads_makes_the_bits_of_the_readable_rule',
        'inside/arrays:step_blocks',
        'for a in range(0, w.size, size):',
        'for a in range(0, w.size - size, size):',
    ),
    'rows: the last number is in no part': (
        'test_rows.py::test_parts_are_a_partition',
        'inside/rows:parts',
        'ends = [size * k // count // 64 * 64 for k in range(count)] + [size]',
        'ends = [size * k // count // 64 * 64 for k in range(count)] + [size - 1]',
    ),
    'a row: other weights are not noticed': (
        'test_optim.py::test_a_row_with_other_weights_is_refused_before_anything_moves',
        'inside/parameters:Row.grad',
        'self.data is not self.rows[0]',
        'False',
    ),
    'threads: an interrupt leaves the others alone': (
        'test_rows.py::test_an_interrupt_waits_for_the_others',
        'inside/rows:together',
        'KeyboardInterrupt',
        'KeyError',
    ),
    'an empty array begins no bundle': (
        'test_replaced.py::test_an_empty_parameter_before_a_large_one',
        'inside/rows:bundles',
        'if i > cuts[-1] and total + size > most:',
        'if total and total + size > most:',
    ),
    'settings need not fit': (
        'test_refused.py::test_settings_that_do_not_fit_are_refused_by_name',
        'inside/groups:check_fit',
        'if not fits:',
        'if False:',
    ),
    'arrays for pairs of reals': (
        'test_refused.py::test_arrays_for_complex_weights',
        'inside/groups:check_fit',
        "if name != 'lr' and 'complex' in str(held(p).dtype):",
        "if False and 'complex' in str(held(p).dtype):",
    ),
    'sets have an order': (
        'test_refused.py::test_what_is_no_list_of_parameters',
        'inside/parameters:members',
        'isinstance(params, (set, frozenset))',
        'False',
    ),
    'any pair has a name': (
        'test_refused.py::test_what_is_no_list_of_parameters',
        'inside/groups:read_group',
        "not all((len(pair) == 2 and (not hasattr(pair[0], 'grad')) for pair in pairs))",
        'False',
    ),
    'masks of gradients are dropped': (
        'test_refused.py::test_a_masked_gradient_is_refused_and_one_without_a_mask_is_taken',
        'inside/parameters:gradient',
        'np.ma.is_masked(g)',
        'False',
    ),
    'a lazy minus is not made': (
        'test_refused.py::test_a_gradient_with_a_lazy_minus',
        'inside/parameters:gradient',
        ').resolve_neg()',
        ')',
    ),
    'bfloat16 cannot be read': (
        'test_refused.py::test_bfloat16_states_of_torch_are_read',
        'inside/memory:on_host',
        "(value.float() if 'bfloat16' in str(value.dtype) else value).numpy(",
        'value.numpy(',
    ),
}
