"""Warnings are of Python's kind for users, so that one filter tells them from those of
libraries.
"""

import inspect

from interlace_jax.support import warnings


def test_all_are_user_warnings_that_say_what_they_mean():
    kinds = [kind for _, kind in inspect.getmembers(warnings, inspect.isclass)]
    assert {kind.__name__ for kind in kinds} >= {
        "SingularFitWarning",
        "ConvergenceWarning",
        "RankWarning",
    }
    assert all(issubclass(kind, UserWarning) and kind.__doc__ for kind in kinds)
