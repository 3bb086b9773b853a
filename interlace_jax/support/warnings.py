"""Warnings that say what is the matter with a fit."""


class SingularFitWarning(UserWarning):
    """A variance is estimated at 0 or a correlation at -1 or 1: the data do not support all
    random effects.
    """


class ConvergenceWarning(UserWarning):
    """The optimiser ended where the deviance may still fall; the message carries the numbers."""


class RankWarning(UserWarning):
    """Fixed-effects columns that depend linearly on the others were left out."""


class SeparationWarning(UserWarning):
    """Predictors tell the outcomes apart without error: a coefficient has no finite estimate."""
