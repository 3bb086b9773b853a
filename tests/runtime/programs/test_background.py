"""One piece of work at a time, and nothing in the way of what is going on."""

import threading

from interlace_jax.runtime.programs import background


def test_one_piece_of_work_at_a_time():
    began, end, done = threading.Event(), threading.Event(), []

    def work(goes_on):
        began.set()
        end.wait()
        done.append(goes_on())

    background.wait()
    assert background.start(work)
    began.wait()
    assert not background.start(work)
    end.set()
    background.wait()
    assert done == [True]
    assert background.start(work)
    background.wait()
    assert done == [True, True]


def test_at_the_end_of_the_process_nothing_begins_and_what_goes_on_is_waited_for(monkeypatch):
    ends, done = threading.Event(), []
    monkeypatch.setattr(background, "_ends", ends)

    def work(goes_on):
        ends.wait()
        done.append(goes_on())

    assert background.start(work)
    background._end()
    assert done == [False]
    assert not background.start(work)
