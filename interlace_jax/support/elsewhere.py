"""Names that lme4, glmmTMB, statsmodels and scikit-learn have for what has another name here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, TypeVar

T = TypeVar("T")

# of a fit: what to write instead
ATTRIBUTES = {
    **dict.fromkeys(("params", "coef", "coef_", "fixef", "beta"), "fe_params"),
    **dict.fromkeys(("bse", "std_errors"), "fe_bse"),
    **dict.fromkeys(("pvalues", "p_values"), "fe_pvalues"),
    **dict.fromkeys(("tvalues", "zvalues"), "fe_tvalues"),
    **dict.fromkeys(("conf_int", "conf_ints"), "fe_conf_int, or confint() of all parameters"),
    **dict.fromkeys(("vcov", "cov_params", "cov_fe"), "fe_cov"),
    **dict.fromkeys(("ranef", "blups"), "random_effects"),
    **dict.fromkeys(("VarCorr", "var_corr"), "varcorr"),
    **dict.fromkeys(("cov_re", "vcomp"), "varcov, or varcorr"),
    **dict.fromkeys(("fitted", "fitted_values"), "fittedvalues"),
    **dict.fromkeys(("logLik", "loglik", "loglike", "loglikelihood"), "llf"),
    **dict.fromkeys(("AIC", "BIC"), "aic and bic"),
    "ddf": "fe_df",
    "df_resid": "glance(), whose df_residual it is",
    **dict.fromkeys(("isSingular", "singular"), "is_singular"),
    **dict.fromkeys(("emmeans", "marginal_means"), "interlace_jax.emmeans(fit, ...)"),
    "plot": "interlace_jax.plot, as plot.effects(fit)",
    "rsquared": "r2()",
    **dict.fromkeys(("t_test", "f_test", "wald_test"), "test(...), or anova()"),
}
# of the package, beside those of a fit: what to write instead
FUNCTIONS = {
    **dict.fromkeys(("lmer", "lme", "gls", "glmer", "glmmTMB", "mmrm"), "fit"),
    **dict.fromkeys(("mixedlm", "MixedLM"), "fit"),
    **{
        name: f"fit(...).{name}(...)"
        for name in (
            *("confint", "influence", "ranova", "drop1", "residuals", "bootstrap", "profile"),
            *("varcorr", "update", "tidy", "glance", "augment", "icc", "r2", "robust"),
        )
    },
    "emtrends": "emmeans(fit, ..., trend=)",
    **dict.fromkeys(("simr", "powerSim"), "power"),
}
# of `fit`: what to write instead
ARGUMENTS = {
    **dict.fromkeys(("REML", "reml"), "method='REML' or method='ML'"),
    **dict.fromkeys(("re_formula", "vc_formula"), "terms such as (1 + x | g) in the formula"),
    **dict.fromkeys(("control", "optimizer"), "nothing: searches end at the optimum by themselves"),
    **dict.fromkeys(("nAGQ", "nagQ"), "nagq"),
    **dict.fromkeys(("ziformula", "zi"), "zero_inflation='~ 1'"),
    **dict.fromkeys(("dispformula", "sigma_formula"), "dispersion='~ x'"),
    **dict.fromkeys(("start", "start_params"), "theta0"),
    **dict.fromkeys(("missing", "na_rm"), "na_action='drop' or 'raise'"),
    **dict.fromkeys(("ddf", "df"), "df_method"),
    **dict.fromkeys(("correlation", "covariance"), "residual='ar1(time | id)'"),
    "exposure": "offset(log(exposure)) in the formula",
    "subset": "data.query(...) in place of data",
    "link": "family=interlace_jax.Binomial('probit')",
    "random_effects": "random=['(1 | g)'], or terms in the formula",
}


def refuse_attribute(name: str) -> None:
    """Refuse a name that other packages have for what a fit has under another, and say which."""
    if name in ATTRIBUTES:
        raise AttributeError(f"a fit has no {name!r}: write {ATTRIBUTES[name]}")


def refuse_name(name: str) -> NoReturn:
    """Refuse a name that the package does not have: `__getattr__` of the package."""
    if name in FUNCTIONS:
        raise AttributeError(f"interlace_jax has no {name!r}: write {FUNCTIONS[name]}")
    if name in ATTRIBUTES:
        raise AttributeError(f"interlace_jax has no {name!r}: of a fit, write {ATTRIBUTES[name]}")
    raise AttributeError(f"module 'interlace_jax' has no attribute {name!r}")


def answers(cls: type[T]) -> type[T]:
    """Let the objects of a class say what is written instead of names of other packages.

    Set from outside, as a type checker would take every name for one that a class with
    `__getattr__` has.
    """

    def answer(self, name):
        refuse_attribute(name)
        return object.__getattribute__(self, name)  # raises; in a property what it raised before

    cls.__getattr__ = answer  # type: ignore[attr-defined]
    return cls


def refuse_arguments(names: Iterable[str]) -> None:
    """Refuse arguments that `fit` does not have, with those it has in their place."""
    for name in names:
        instead = f": write {ARGUMENTS[name]}" if name in ARGUMENTS else ""
        raise TypeError(f"fit() got an unexpected keyword argument {name!r}{instead}")
