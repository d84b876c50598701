"""Deliberate faults of full batches: the tree, the pieces, their names in errors."""
SCALE = 'test_scale.py::'

FAULTS = {
    'tree: pairs are not merged': (
        SCALE + 'test_few_sums_are_kept', 'scale:tree_sum', 'while number & 1:', 'while False:'),
    'tree: what is left is added from the left': (
        SCALE + 'test_the_tree_is_the_recursive_one', 'scale:tree_sum',
        'while len(sums) > 1:\n        sums[-2:] = [add(*sums[-2:])]',
        'while len(sums) > 1:\n        sums[:2] = [add(*sums[:2])]'),
    'tree: left and right change places': (
        SCALE + 'test_the_tree_is_the_recursive_one', 'scale:tree_sum',
        'while number & 1:\n            sums[-2:] = [add(*sums[-2:])]',
        'while number & 1:\n            sums[-2:] = [add(*sums[:-3:-1])]'),
    'tree: an empty sum is an index error': (
        SCALE + 'test_nothing_to_add', 'scale:tree_sum', 'if not sums:', 'if False:'),
    'rows are not added': (
        SCALE + 'test_a_mean_is_over_rows', 'inside/sums:added', 'a.rows + b.rows', 'a.rows'),
    'sums keep the type of the gradients': (
        SCALE + 'test_sums_are_accumulated_in_float64_and_rounded_once', 'inside/sums:_widened',
        'accumulate or ', ''),
    'a piece that fails has no number': (
        SCALE + 'test_a_piece_that_raises_is_named', 'inside/pieces:failure',
        'piece {number}', 'piece'),
    'a piece that fails has no name': (
        SCALE + 'test_a_piece_that_raises_is_named', 'inside/pieces:failure', 'if name', 'if False'),
    'weights stay at home': (
        SCALE + 'test_weights_go_where_the_pieces_are_and_gradients_come_back', 'inside/sums:piece_sum',
        'each_array(partial(_own, xp=_library(data)), w)', 'w'),
    'a function writes in the weights of others': (
        SCALE + 'test_a_function_may_write_in_the_weights_that_it_is_given', 'inside/sums:_own',
        "there.copy(order='K')", 'there'),
    'gradients stay with the pieces': (
        SCALE + 'test_weights_go_where_the_pieces_are_and_gradients_come_back', 'inside/sums:piece_sum',
        'moved(g, namespace(v))', 'g'),
    'another shape is broadcast': (
        SCALE + 'test_a_gradient_of_another_layout_is_refused', 'inside/sums:_widened',
        'if g.shape != w.shape:', 'if False:'),
    'threads are not put back': (
        SCALE + 'test_threads_of_blas_are_fixed_while_a_piece_is_computed', 'scale:Alone.run',
        'restore()', 'pass'),
    'a changing number of pieces goes unseen': (
        SCALE + 'test_another_number_of_pieces_is_refused', 'scale:FullBatch.__call__',
        'if self.pieces not in (None, sum(done)):', 'if False:'),
    'the mean is a sum': (
        SCALE + 'test_a_mean_is_over_rows', 'scale:FullBatch._finished',
        'whole.rows if self.mean else 1', '1'),
    'half weights get half gradients': (
        SCALE + 'test_half_weights_get_single_gradients', 'scale:_rounded',
        'xp.result_type(w.dtype, xp.float32)', 'w.dtype'),
    'a generator is data': (
        SCALE + 'test_data_that_can_be_read_only_once_is_refused', 'scale:_checked_data',
        "hasattr(data, '__next__')", 'False'),
    'a piece is kept while the next one is read': (
        SCALE + 'test_one_piece_is_in_memory_at_a_time', 'inside/pieces:_listed_pieces',
        'del piece\n            yield from described', 'yield from described'),
    'a file is read as a whole': (
        SCALE + 'test_a_file_larger_than_what_the_process_may_hold', 'inside/pieces:_rows',
        "np.memmap(part.path, part.dtype, 'r', part.offset + start * width, shape).view(np.ndarray)",
        'np.load(part.path)[start:stop]'),
    'columns are read as rows': (
        SCALE + 'test_a_file_in_columns_gives_the_bits_of_an_array_in_columns', 'inside/pieces:_located',
        'whole.flags.c_contiguous', 'True'),
    'a short file gives few rows': (
        SCALE + 'test_a_file_that_becomes_shorter_is_named', 'inside/pieces:_rows',
        'os.path.getsize(part.path)', 'float("inf")'),
    'the last rows are lost': (
        SCALE + 'test_every_kind_of_data_gives_the_same_bits', 'inside/pieces:cut',
        'range(0, rows, batch_size)', 'range(0, rows - batch_size, batch_size)'),
    'arrays of other lengths are cut': (
        SCALE + 'test_arrays_of_different_lengths_are_refused', 'inside/pieces:rows_of',
        'if len(set(counts)) > 1:', 'if False:'),
    'arrays stay where the wire left them': (
        SCALE + 'test_where_an_array_lies_does_not_matter', 'inside/pieces:read',
        '_over(aligned, data)', 'data'),
    'weights stay where the wire left them': (
        SCALE + 'test_where_an_array_lies_does_not_matter', 'inside/sums:_own',
        "there.copy(order='K')", 'there'),
    'one thread alone limits BLAS': (
        SCALE + 'test_any_thread_fixes_the_threads_of_blas', 'inside/pieces:_let_any_thread_set',
        'openblas.clear_controlling_thread(force=True)', 'pass'),
    'threads need nothing': (
        SCALE + 'test_threads_without_threadpoolctl', 'inside/pieces:limit_blas',
        "if threads is None or not (needed or find_spec('threadpoolctl')):",
        "if threads is None or not find_spec('threadpoolctl'):"),
    'blocks of any size': (
        SCALE + 'test_block_sizes_are_powers_of_two_and_keep_threads_busy', 'inside/cluster:block_size',
        'size *= 2', 'size += 1'),
    'a value goes to all workers at once': (
        SCALE + 'test_one_value_goes_to_one_worker', 'inside/cluster:_sent',
        'hash=False)', 'hash=False, broadcast=True)'),
    'what Dask blames is named': (
        SCALE + 'test_blocks_that_live_alone_are_done', 'inside/cluster:Workers.run',
        'self.finish(w, [block], results, tell)', "CancelledError('so it was')"),
    'an error of a worker that died ends the run': (
        SCALE + 'test_the_block_that_workers_die_of_is_found_alone', 'inside/cluster:Workers.finish',
        'return error', 'raise'),
    'data that cannot be read is a worker that died': (
        SCALE + 'test_data_that_cannot_be_read_is_no_worker_that_died', 'inside/cluster:_read_again',
        '(CancelledError, OSError)', '()'),
    'a paused worker is sent data': (
        SCALE + 'test_pieces_of_a_paused_worker_go_to_another', 'inside/cluster:Workers.place',
        'address in running', 'True'),
    'all is sent again': (
        SCALE + 'test_what_has_arrived_is_not_sent_again', 'inside/cluster:Workers.place',
        'piece.number in gone', 'True'),
    'without workers it goes on': (
        SCALE + 'test_nobody_left_ends_the_attempts', 'inside/cluster:Workers.finish',
        'ConnectionError', '()'),
    'no client without a word': (
        SCALE + 'test_without_dask_a_client_names_the_extra', 'inside/cluster:checked',
        "if not find_spec('distributed'):", 'if False:'),
}
