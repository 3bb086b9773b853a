"""The result of `fit_many`: what can be asked of many fits."""

from __future__ import annotations

from .many.fits import ManyFits
from .many.generalized import ManyGeneralizedFits
from .maps.clusters import clusters
from .maps.comparison import compare
from .maps.contrasts import test
from .maps.curves import curves
from .maps.marginal_means import emmeans
from .maps.moderation import moderate, top
from .maps.modes import predict, random_effects, variance_fractions
from .maps.permutation import permutation_test
from .maps.terms import anova, chi_squares


class Many(ManyFits):
    """Results of `fit_many`: tables with one row a model (its response name, its number, or its
    group).

    `many[label]` is the full `Fit` of one model. A coefficient or variance that a model does not
    have is missing in its row.
    """

    # Hypotheses, in every model

    test = test
    anova = anova
    emmeans = emmeans
    compare = compare
    moderate = moderate
    top = top

    # Random effects, in every model

    random_effects = random_effects
    predict = predict
    variance_fractions = variance_fractions

    # All models together

    clusters = clusters
    curves = curves
    permutation_test = permutation_test


class GeneralizedMany(ManyGeneralizedFits):
    """Results of `fit_many(..., family=)`: tables with one row a model.

    Coefficients are on the scale of the link. `many[label]` is the full `GeneralizedFit` of one
    model. Tests are z and chi-square tests. A number that a model does not have is missing in its
    row; `status` says why a model could not be fitted, or what separates its outcomes.
    """

    test = test
    anova = chi_squares
    emmeans = emmeans
    compare = compare
    top = top
