"""Progress bars appear when something takes longer than a second, and can be turned off."""

import time

from interlace_jax.support.progress import progress_bar


def test_a_bar_tells_what_is_done_once_a_second_has_passed(capsys):
    bar = progress_bar(2, "model", "fitting")
    bar.update()
    assert capsys.readouterr().err == ""
    bar.start_t = bar.last_print_t = time.time() - 1.5
    bar.update()
    bar.close()
    assert "fitting: 100%" in capsys.readouterr().err


def test_a_bar_can_be_hidden(capsys):
    bar = progress_bar(2, "model", "fitting", show=False)
    bar.update(2)
    bar.close()
    assert bar.disable and capsys.readouterr().err == ""
