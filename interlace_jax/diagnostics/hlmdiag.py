"""HLMdiag's three functions under their names, for scripts that come from there: thin aliases of
methods of `Fit`.
"""

from __future__ import annotations

import pandas as pd

from ..inference.prediction import predict
from ..models.fitted import FittedModel
from ..resampling.regrouping import factor_named
from ..support.arguments import one_of
from ..support.wide import WideFrame
from .augment import rows_used
from .influence import influence
from .residuals import residuals


def hlm_resid(
    model: FittedModel,
    full_data: bool = True,
    type: str = "conditional",
    standardized: bool = False,
    level: int | str = 1,
) -> pd.DataFrame:
    """Residuals `.resid` and fitted values `.fitted`, or with level="g" the random effects
    `.ranef.g.term` by level.

    type: "conditional" or "marginal"; standardized: `Fit.residuals("standardized")`, or
    "normalized" for marginal ones.
    full_data: beside the columns of the data.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> interlace_jax.hlm_resid(fit).head(2).round(2)
       Reaction  Days Subject  .resid  .fitted
    0    249.56     0    S308   -4.10   253.66
    1    258.70     1    S308  -14.63   273.33
    >>> interlace_jax.hlm_resid(fit, level="Subject").head(2).round(2)
          .ranef.Subject.(Intercept)  .ranef.Subject.Days
    S308                        2.26                 9.20
    S309                      -40.40                -8.62
    """
    model.model.engine.require("hlmdiag")
    one_of("type", type, ("conditional", "marginal"))
    if level != 1:
        factor = factor_named(model.design, level)
        effects = pd.DataFrame(model.random_effects[factor.name])
        return effects.set_axis([f".ranef.{factor.name}.{name}" for name in factor.columns], axis=1)
    conditional = type == "conditional"
    kind = type if not standardized else "standardized" if conditional else "normalized"
    found = {".resid": residuals(model, kind), ".fitted": predict(model, include_re=conditional)}
    if not full_data:
        return pd.DataFrame(found)
    return rows_used(model).assign(**{name: values.to_numpy() for name, values in found.items()})


def hlm_influence(model: FittedModel, level: int | str = 1, approx: bool = False) -> pd.DataFrame:
    """`cooksd mdffits covtrace covratio` and `rvc.*` without each row (level=1) or each level of a
    factor.

    approx: `Fit.influence(method="onestep")` in place of refits. HLMdiag's approximation holds the
    variances and has no `rvc`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> interlace_jax.hlm_influence(fit, "Subject").iloc[:2, :4].round(3)
             cooksd  mdffits  covtrace  covratio
    Subject
    S308      0.092    0.101     0.042     1.032
    S309      0.149    0.188     0.084     0.890
    """
    found = influence(model, None if level == 1 else level, "onestep" if approx else "exact")
    return found[[name for name in found if not name.startswith("dfbetas.")]]


def hlm_augment(
    model: FittedModel, level: int | str = 1, include_influence: bool = True
) -> pd.DataFrame:
    """Residuals, and measures of influence beside them: of the rows (level=1), or of the levels
    of a factor.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> interlace_jax.hlm_augment(fit, "Subject").iloc[:2, :4].round(2)
          .ranef.Subject.(Intercept)  .ranef.Subject.Days  .cooksd  .mdffits
    S308                        2.26                 9.20     0.09      0.10
    S309                      -40.40                -8.62     0.15      0.19
    """
    found = hlm_resid(model, level=level)
    if not include_influence:
        return found
    measures = hlm_influence(model, level)
    named = {f".{name}": measures[name].to_numpy() for name in measures}
    return WideFrame(found).assign(**named)
