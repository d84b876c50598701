"""Deliberate faults in the doors: the main job, torch's optimizer, Optax's transformation."""
MAIN = 'test_main.py::'

FAULTS = {
    'sunspots: starts are all the same': (MAIN + 'test_every_variant_is_trained_from_every_start', 'sunspots:train',
                                          'fit(task, variant, seed, epochs, tick)', 'fit(task, variant, 0, epochs, tick)'),
    'sunspots: a tie with the line is a win': (MAIN + 'test_the_verdict_goes_by_majorities', 'sunspots:verdict', '> len(fits) / 2', '>= len(fits) / 2'),
    'sunspots: the leading start is the first': (MAIN + 'test_the_leading_start_is_that_of_the_lowest_validation_error', 'sunspots:leading',
                                                 "min(fits, key=lambda f: f.errors['validation'].min())", 'fits[0]'),
    'sunspots: means for medians': (MAIN + 'test_a_standing_holds_medians', 'sunspots:standing', 'np.median([f.stopped + 1 for f in fits])', 'np.mean([f.stopped + 1 for f in fits])'),
    'command: the place of the picture is not tried': (MAIN + 'test_a_folder_that_takes_no_file_is_noticed_before_training', 'command:_picture_file',
                                                        'tempfile.TemporaryFile(dir=path.parent).close()', 'pass'),
    'command: the old picture is written over': (MAIN + 'test_a_picture_that_cannot_be_saved_is_one_line_after_the_table', 'command:_save',
                                                  "part = path.with_stem(path.stem + '.part')", 'part = path'),
    'command: Ctrl-C is a traceback': (MAIN + 'test_ctrl_c_ends_in_one_line_with_what_was_done', 'command:_trained', 'except KeyboardInterrupt:', 'except ZeroDivisionError:'),
    'command: stdout is flushed again at the end': (MAIN + 'test_streams_that_do_not_take_what_is_written', 'command:_say', 'sys.stdout.close()', 'pass'),
    'command: a full stderr ends the command': (MAIN + 'test_streams_that_do_not_take_what_is_written', 'command:_Stderr.write',
                                                 'contextlib.suppress(AttributeError, OSError, ValueError)', 'contextlib.suppress(ValueError)'),
}
