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

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many
    <4 fits of ~ Days + (1 + Days | Subject) by REML: 4 converged, 0 singular>
    >>> many.fe_params.round(1)
        Intercept  Days
    y0      248.2  10.9
    y1      241.9   9.5
    y2      248.7  10.2
    y3      253.6   9.0
    >>> many["y2"]
    <Fit of response ~ Days + (1 + Days | Subject) by REML, 180 rows>
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

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> responses = fit.simulate(3, seed=1)
    >>> given = dict(responses=responses, family="binomial", trials="size")
    >>> many = interlace_jax.fit_many("~ period + (1 | herd)", cbpp, **given)
    >>> many.fe_params.round(1)
       Intercept  period[T.p2]  period[T.p3]  period[T.p4]
    0       -1.4          -0.8          -1.3          -1.6
    1       -1.3          -1.5          -1.3          -1.6
    2       -1.4          -0.5          -1.1          -1.4
    """

    test = test
    anova = chi_squares
    emmeans = emmeans
    compare = compare
    top = top
