"""The front door: `fit` a formula, or `compile` it to functions of theta."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from .batch import GeneralizedMany, Many
from .design.auxiliary import check_dispersion, with_zero_inflation
from .design.files import is_scanned
from .design.formula import parse, with_auxiliary
from .design.residual_formula import Power, Residual
from .generalized import GeneralizedFit
from .many.categories import numbered
from .many.designs import Groups
from .many.generalized import GeneralizedGroups, GeneralizedResponses, OrdinalResponses
from .many.responses import Responses, responses_of
from .maps.scan import Scan, scan
from .models.compiled import CompiledModel
from .models.fitted import METHODS
from .models.generalized import CompiledGeneralizedModel
from .models.identifiability import confounded_message
from .numerics.families.family import Distribution, Gaussian, Ordinal, family_of
from .result import Fit
from .support.arguments import chosen, one_of
from .support.elsewhere import refuse_arguments
from .support.later import is_imported, jax
from .support.warnings import SingularFitWarning


def fit(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    method: str | None = None,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    df_method: str | None = None,
    theta0: Iterable[float] | None = None,
    na_action: str = "drop",
    cov: Mapping[str, Any] | None = None,
    residual: str | Residual | None = None,
    dispersion: str | Power | None = None,
    core: str = "auto",
    family: str | Distribution = "gaussian",
    trials: str | float | Iterable[float] | None = None,
    nagq: int = 1,
    zero_inflation: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    **elsewhere: Any,
) -> Fit | GeneralizedFit:
    """Fit a linear mixed model, or with `family` a generalised one.

    Parameters
    ----------
    formula
        lme4's grammar, `"y ~ x + (1 + x | g)"`; the fixed part may use everything formulaic knows.
        Random effects may stand in the formula, in `groups` or in `random`, also mixed.
    data
        A pandas or polars frame (or another that narwhals reads). It is not modified. Or rows that
        do not fit into memory: the path of a Parquet file (or of a folder of them), a pyarrow
        dataset, or a lazy frame of polars or duckdb. They are read in batches, twice (needs
        pyarrow).
    groups
        Factors with a random intercept: `"g"`, `["g1", "g2"]`.
    random
        Random-effects terms: `"(1 + x | g)"`, `["(1 + x || g)", "(1 | h)"]`. With `||` every column
        has its own variance and no correlations, dummy columns of a categorical included (lme4
        keeps those correlated).
    method
        `"REML"` (default) or `"ML"`; generalised models are fitted by ML.
    weights
        Prior weights w: a column name or one number per row. Rows of weight zero are left out.
        Var(eps_i) = sigma^2 / w_i; so too of families whose variance a dispersion scales (gamma,
        inverse Gaussian). In other families a weight multiplies the log-density of its row: 2 is
        the row twice. Of a proportion without `trials` it is the trials.
    offset
        Known part of the linear predictor: a column name or one number per row. It adds to
        `offset(...)` in the formula.
    df_method
        `"satterthwaite"` (default), `"kenward-roger"` (REML only) or `"normal"`, which generalised
        models have. With `residual=` or `dispersion=` Kenward-Roger is that of 2009, which does not
        depend on how the covariance is parametrised, and `"kenward-roger-linear"` leaves its
        second-order term out (SAS's kr(linear)); both with the observed information.
        `"between-within"` is the rule of Schluchter and Elashoff, as mmrm has it.
    theta0
        Start values on lme4's theta scale, in place of moment estimates.
    na_action
        `"drop"` leaves out rows with missing values in the columns used, `"raise"` refuses them.
    cov
        Covariance structures by grouping factor, `{"subject": AR1(), "id": Known(kinship)}`: how
        the columns of a level covary (`Unstructured`, `Diagonal`, `HomogeneousDiagonal`,
        `CompoundSymmetry`, `AR1`, or a `Structure` of your own), how the levels do (`Known`,
        `Kernel`), or a tuple of both; with priors, if wanted.
    residual
        How the residuals of one subject covary: `"us(visit | id)"` for any covariance of the visits
        (an MMRM, whose formula may have no random effects), `"ar1h(visit | arm / id)"` with
        parameters by arm, or a `Residual`. Names are mmrm's and SAS's: us; cs, ar1, toep, ad with
        one variance, csh, ar1h, toeph, adh with one for every visit; arma11, diag; sp_exp(t1, t2 |
        id), sp_gau. Numbers are times, whose differences count; other labels are visits in order.
    dispersion
        On what the residual SD depends: a formula of fixed effects for its logarithm, `"~ sex +
        age"`, or `Power("dose")` for a power of a covariate, `Power("fitted")` of fitted values.
        `sigma` is then the SD at its reference. With a family, a formula for the logarithm of its
        first parameter (dispersion, size, precision); without it that is one number.
    core
        How crossed factors are handled. `"dense"` holds the levels that cannot be eliminated one by
        one as a matrix: exact, up to a few thousand of them. `"sparse"` eliminates those that meet
        few others before: exact too, for many levels that nearly nest, such as songs, albums and
        artists. `"iterative"` never forms a matrix: linear time and memory, for any number of
        levels; the log-likelihood is known up to a small noise and `theta` to a small part of its
        standard error, given in `optimum.noise` and `optimum.theta_noise`. `"auto"` takes the dense
        core where an evaluation of it is predicted to take under a second and two gigabytes, then
        the sparse one where that takes under a second.
    family
        The distribution of the response: `"gaussian"`, `"binomial"`, `"poisson"`, `"nbinom2"`,
        `"nbinom1"`, `"gamma"`, `"inverse_gaussian"`, `"beta"`, `"betabinomial"`, `"student"`,
        `"ordinal"`, `"truncated_poisson"`, `"truncated_nbinom2"`, or an object that has another
        link: `Binomial("probit")`. A family of one's own is `Family(name, log_density)`. The
        likelihood is Laplace's approximation with the observed information, as glmmTMB's.
    trials
        Of binomial families: out of how many the response counts successes (a column name, one
        number per row or one number). Other spellings: `cbind(successes, failures)` on the left of
        the formula, a proportion with `weights`; without trials the response has two values, of
        which the second is success.
    nagq
        1 is Laplace's approximation; 2 to 25 nodes a dimension are adaptive Gauss-Hermite
        quadrature, for one grouping factor with up to three effects: what there is to gain with few
        or binary rows a level. 0 is glmer's `nAGQ = 0`, for binomial and Poisson families: the
        coefficients maximise the penalised likelihood together with the random effects, theta alone
        is searched outside, and standard errors of the coefficients are those given theta. It is no
        maximum of the likelihood: a rescue, and a way to compare.
    zero_inflation
        A one-sided formula for the logit of the probability of a zero beside those of the counts;
        `"~ 1"` for one number. With a truncated family all zeros are of that kind (a hurdle model).
    contrasts
        How columns of categories are coded, in all terms: `{"prime": "sum"}`. `"treatment"` (the
        default), `("treatment", level)`, `"sum"`, `"helmert"`, `"sdif"` (each level against the one
        before it, as MASS's), `"poly"`, `"SAS"`; or the matrix itself, as R has it: an array
        (levels, contrasts), a mapping from names to columns, or a frame whose index has the levels.
        Coefficients are called `prime[S.a]`; of a mapping or frame by its names.
    **elsewhere
        None: what other packages call otherwise, such as `REML=False`, is refused with its name
        here.

    Raises
    ------
    ValueError, TypeError
        For input that does not determine a model; the message names the column or term.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    <Fit of Reaction ~ Days + (1 + Days | Subject) by REML, 180 rows>
    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> round(fit.deviance, 2)
    184.05
    """
    refuse_arguments(elsewhere)
    arguments = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
    arguments |= dict(contrasts=contrasts)
    predictors = dict(dispersion=dispersion, zero_inflation=zero_inflation)
    generalized = dict(family=family, trials=trials, nagq=nagq, **predictors)
    model = _compiled(formula, data, groups, random, core, residual, generalized, arguments)
    return model.fit(method, df_method=df_method, theta0=theta0)


def fit_many(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    responses: Any = None,
    by: str | None = None,
    predictors: Any = None,
    exact: int = 0,
    method: str | None = None,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    df_method: str | None = None,
    na_action: str = "drop",
    dtype: str = "float64",
    cov: Mapping[str, Any] | None = None,
    residual: str | Residual | None = None,
    dispersion: str | Power | None = None,
    family: str | Distribution = "gaussian",
    trials: str | float | Iterable[float] | None = None,
    nagq: int = 1,
    zero_inflation: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: bool | None = None,
) -> Many | GeneralizedMany | Scan:
    """Fit one formula many times.

    Parameters
    ----------
    formula, data, groups, random, method, offset, na_action, cov, residual, dispersion, contrasts
        As in `fit`. With `responses` the formula has no left side: `"~ x + (1 + x | g)"`.
    responses
        The responses, one column a model and one row for each row of `data`: a frame, an array
        (rows, models), a memory map (read in slices), a list of column names of `data`, or a
        DataArray of xarray with any dimensions (row, channel, time), whose models are labelled by
        its coordinates. Rooms of `interlace_jax.doors` read brain images, MNE and AnnData. A
        missing value leaves that row out of that model only. The formula is evaluated once, so
        `poly(x, 2)` or `scale(x)` is that of all rows in every model; `many[label]` evaluates it in
        the rows that this model has, and its coefficients then differ in unit.
    weights
        As in `fit`; with `responses` also a matrix of precision weights, one for each value of the
        responses (a frame needs their columns, in the same order). A weight of 0, or a missing one,
        leaves that value out.
    by
        Instead of `responses`, a column of `data` whose values tell the models apart: one model per
        value, each with its own rows and levels.
    predictors
        Instead of `responses`, candidate predictors of one response, each of which is added to the
        formula alone: an array (rows of `data`, candidates), a memory map, a frame, or the path of
        a Parquet file or a pyarrow dataset with a column for each (needs pyarrow). Gives a `Scan`:
        tests with the variances of the model without candidates, a matter of microseconds for each.
    exact
        With `predictors`: so many candidates with the smallest p-values are fitted with variances
        of their own.
    df_method
        `"satterthwaite"` (default) or `"normal"`, which generalised models have.
    family, trials, nagq, zero_inflation
        As in `fit`, for `responses` and `by`. Responses of binomial families with `trials` are
        counts of successes. Ordinal responses are numbers, bools or ordered categories; their
        categories are those of all columns together (`many.family.categories`). The result is a
        `GeneralizedMany`.
    dtype
        Of the search, `"float64"` or `"float32"` (quicker where double precision is slow).
        Its last steps, cross-products, the test of the boundary and the estimates are in double
        precision either way, so that it ends at the same optimum.
    checkpoint
        A folder. Results of finished chunks are kept there as Parquet files (needs pyarrow); a run
        that was killed goes on from them and ends with the same numbers as one that was not.
    progress
        Show a progress bar; by default when there is more than one chunk.

    >>> cake = interlace_jax.load_dataset("cake")
    >>> many = interlace_jax.fit_many("angle ~ temp + (1 | replicate)", cake, by="recipe")
    >>> many.fe_params.shape
    (3, 6)

    A model that cannot be fitted (a constant response, one level, too few rows) does not stop the
    others: its row is missing and its `status` says why.

    Raises
    ------
    ValueError, TypeError
        For input that determines none of the models.
    """
    one_of("method", method or "REML", METHODS)
    df_method = df_method and chosen("df_method", df_method, ("satterthwaite", "normal"))
    one_of("dtype", dtype, ("float64", "float32"))
    if is_scanned(data):
        raise TypeError(
            f"fit_many takes a pandas or polars data frame, not {type(data).__name__}: read the "
            "file first"
        )
    if sum(source is not None for source in (responses, by, predictors)) != 1:
        raise ValueError(
            "fit_many needs one of responses=, by= and predictors=: responses= (many responses "
            "of one design) or by= (one model per group) or predictors= (many candidates beside "
            "one formula)"
        )
    arguments = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
    if family_of(family) != Gaussian() or zero_inflation is not None:
        _check_generalized(family, method, df_method, dtype, predictors, residual)
        given = dict(arguments, family=family, trials=trials, nagq=nagq, contrasts=contrasts)
        given |= dict(dispersion=dispersion, zero_inflation=zero_inflation)
        source = formula, data, groups, random, responses, by
        return _fit_many_generalized(*source, given, checkpoint, progress)
    _check_linear(trials, nagq)
    method, df_method = method or "REML", df_method or "satterthwaite"
    parsed = parse(formula, groups, random, residual, dispersion, contrasts=contrasts)
    covarying = dict(residual=residual, dispersion=dispersion)
    if (parsed.residual or parsed.dispersion) and dtype != "float64":
        raise ValueError("residual= and dispersion= need dtype='float64'")
    if isinstance(dispersion, Power) and dispersion.is_of_fitted:
        raise ValueError(f"dispersion={dispersion} needs a fit after another: use fit one by one")
    if predictors is not None:
        given = dict(arguments, method=method, contrasts=contrasts, **covarying)
        return scan(fit(formula, data, groups, random, **given), predictors, exact, progress)
    if exact:
        raise ValueError("exact= belongs to predictors=")
    source = (parsed, data, responses if by is None else by, arguments, dtype)
    work = responses_of(*source) if by is None else Groups(*source)
    if isinstance(work, Responses) and work.confounded.any():
        warnings.warn(
            f"in all models {confounded_message(work.design)}", SingularFitWarning, stacklevel=2
        )
    given = dict(work.arguments, method=method, df_method=df_method, **covarying)
    given |= dict(contrasts=contrasts)
    single = functools.partial(_one_of_many, work, given)
    many = Many.of(work, method, df_method, single, checkpoint, progress)
    if is_imported() and jax.process_count() > 1:
        many.fe_df  # noqa: B018 - while all processes are here
    return many


def _check_generalized(family, method, df_method, dtype, predictors, residual) -> None:
    """Refuse arguments of `fit_many` that belong to linear mixed models."""
    linear = {
        "predictors=": predictors is not None,
        "residual=": residual is not None,
        "method='REML'": method == "REML",
        "df_method='satterthwaite'": df_method == "satterthwaite",
        "dtype='float32'": dtype == "float32",
    }
    if found := [name for name, is_given in linear.items() if is_given]:
        name = family_of(family).name
        raise ValueError(f"{found[0]} belongs to linear mixed models, not to family={name!r}")


def _check_linear(trials, nagq) -> None:
    """Refuse arguments that belong to generalised models."""
    if trials is not None:
        raise ValueError("trials= belongs to binomial families: say family='binomial'")
    if nagq != 1:
        raise ValueError(
            "nagq= belongs to generalised models: a Gaussian likelihood has its integral in "
            "closed form"
        )


def _fit_many_generalized(
    formula, data, groups, random, responses, by, given, checkpoint, progress
) -> GeneralizedMany:
    """What `fit_many` does with a family. given: the arguments of `fit` that say what it is."""
    predictors = {name: given[name] for name in ("dispersion", "zero_inflation")}
    family = with_zero_inflation(family_of(given["family"]), given["zero_inflation"])
    check_dispersion(family, given["dispersion"])
    written = dict(contrasts=given["contrasts"], proportion=family.has_trials)
    parsed = parse(formula, groups, random, **written)
    parsed = with_auxiliary(parsed, **predictors)
    names, kind = ("weights", "offset", "na_action", "cov", "trials"), GeneralizedResponses
    if by is None and isinstance(family, Ordinal):
        responses, family = numbered(responses, data, family)
        kind = OrdinalResponses
    rows = {name: given[name] for name in names} | {"family": family}
    if by is None:
        kind = functools.partial(kind, nodes=given["nagq"])
        work = responses_of(parsed, data, responses, rows, kind=kind)
    else:
        work = GeneralizedGroups(parsed, data, by, rows, given["nagq"])
    single = functools.partial(
        _one_of_many, work, given | work.arguments | {"family": given["family"]}
    )
    return GeneralizedMany.of(work, "ML", "normal", single, checkpoint, progress)


def _one_of_many(work: Responses | Groups, arguments: dict[str, Any], place: int) -> Fit:
    formula, data, more = work.problem(place)
    return fit(formula, data, **arguments | more)


def compile(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    na_action: str = "drop",
    cov: Mapping[str, Any] | None = None,
    residual: str | Residual | None = None,
    dispersion: str | Power | None = None,
    core: str = "auto",
    family: str | Distribution = "gaussian",
    trials: str | float | Iterable[float] | None = None,
    nagq: int = 1,
    zero_inflation: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
) -> Model | GeneralizedModel:
    """Turn a formula and data into functions of theta, without fitting.

    Arguments and errors as in `fit`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> round(float(model.loglik([0.97, 0.02, 0.23])), 2)
    -871.82
    """
    if isinstance(dispersion, Power) and dispersion.is_of_fitted:
        raise ValueError(
            f"dispersion={dispersion} is a fixed point of fits, and has no likelihood as a "
            "function of theta: use interlace_jax.fit"
        )
    arguments = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
    arguments |= dict(contrasts=contrasts)
    predictors = dict(dispersion=dispersion, zero_inflation=zero_inflation)
    generalized = dict(family=family, trials=trials, nagq=nagq, **predictors)
    return _compiled(formula, data, groups, random, core, residual, generalized, arguments)


def _compiled(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None,
    random: str | Iterable[str] | None,
    core: str,
    residual: str | Residual | None,
    generalized: dict[str, Any],
    arguments: dict[str, Any],
) -> Model | GeneralizedModel:
    """The model of the arguments of `fit`; generalized: those of a family, and `dispersion`."""
    family, dispersion = family_of(generalized["family"]), generalized["dispersion"]
    if family != Gaussian() or generalized["zero_inflation"] is not None:
        if residual is not None:
            raise ValueError(
                f"residual= belongs to linear mixed models, not to family={family.name!r}"
            )
        return GeneralizedModel.of(formula, data, groups, random, core, **arguments | generalized)
    _check_linear(generalized["trials"], generalized["nagq"])
    return Model.of(formula, data, groups, random, core, residual, dispersion, **arguments)


class Model(CompiledModel):
    """A mixed model as functions of theta: lme4's theta, relative scale, in lme4's order.

    Of a factor with a covariance structure theta has the scale and the free numbers of the
    structure, then those of the covariance across levels (logs of a kernel's parameters).
    `loglik` and `deviance` can be differentiated, batched and compiled by JAX; they are evaluated
    in float64 whatever JAX's setting, and return the dtype that they are given.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> model
    <Model of Reaction ~ Days + (1 + Days | Subject), 180 rows>
    >>> round(float(model.loglik([0.97, 0.02, 0.23])), 2)
    -871.82
    >>> model.fit(method="ML")
    <Fit of Reaction ~ Days + (1 + Days | Subject) by ML, 180 rows>
    """

    def fit(
        self,
        method: str | None = None,
        *,
        df_method: str | None = None,
        theta0: Iterable[float] | None = None,
    ) -> Fit:
        """Estimate the model. Arguments as in `fit`.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> model.fit(method="ML", df_method="normal")
        <Fit of Reaction ~ Days + (1 + Days | Subject) by ML, 180 rows>
        """
        return Fit.of(self, method or "REML", df_method or "satterthwaite", theta0)


class GeneralizedModel(CompiledGeneralizedModel):
    """A generalised mixed model before it is fitted: `compile(..., family=)`."""

    def fit(
        self,
        method: str | None = None,
        *,
        df_method: str | None = None,
        theta0: Iterable[float] | None = None,
    ) -> GeneralizedFit:
        """Estimate the model by maximum likelihood. Arguments as in `fit`."""
        return GeneralizedFit.of(self, method, df_method, theta0)
