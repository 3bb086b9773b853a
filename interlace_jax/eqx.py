"""Random effects as a layer of an Equinox network; needs equinox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .layers import effects, laplace
from .layers.batches import batches_of_groups as batches_of_groups
from .layers.effects import Parameters, State, read_rows
from .layers.encoder import Encoder as Encoder
from .layers.factors import Factors
from .layers.likelihoods import AnswerLikelihood, ResidualLikelihood
from .numerics.families.family import Bernoulli, Distribution
from .support.later import jax, jnp

try:
    import equinox as eqx
except ImportError as err:
    raise ImportError(
        "interlace_jax.eqx needs equinox 0.13.1 or newer: python -m pip install equinox"
    ) from err


class RandomEffects(ResidualLikelihood, eqx.Module):
    """Random effects of any number of grouping factors, integrated out exactly: y = f(x) + sum of Z
    b + e.

    Parameters
    ----------
    groups
        How many levels each factor has, `{"user": 50_000, "item": 2_000}`. More than there are
        costs nothing.
    slopes
        How many features have a slope of each level's own, `{"user": 1}`; an intercept is always
        there.
    nested
        Factors that lie in others, `{"class": "school"}`: found quickly level by level. Levels are
        numbered through, so that a class has one code, whatever its school.
    terms
        Columns of mutually uncorrelated terms, `{"user": (1, 1)}` for `(1 + x || user)`; by default
        all are correlated.

    Notes
    -----
    The likelihood is that of the whole data, so that the shrinkage is part of the loss. `raw` (d,)
    and `log_sigma` () are leaves as any other, which weight decay is to leave alone: `decayed` is
    the mask for it. All is computed in JAX's own precision, whatever that of the network. Codes may
    be traced, one program serves all batches of one length, and a code outside of 0 to levels - 1
    is an unseen id: in `nll` its row counts nothing, its prediction is 0 with the prior's variance.

    Pairs of levels that meet are held as a dense matrix, levels of the largest factor (with those
    it lies in) by levels of the others: two crossed factors of 50,000 and 2,000 take 0.8 GB in
    64-bit mode.

    Source: Pinheiro and Bates (2000), Mixed-Effects Models in S and S-PLUS, section 2.2; the
    parametrisation is the log-Cholesky one of Pinheiro and Bates (1996), with rows scaled by their
    diagonal.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from interlace_jax.eqx import RandomEffects
    >>> layer = RandomEffects({"subject": 3}, slopes={"subject": 1})
    >>> y, x = jnp.array([1.0, 2.0, 0.5, 2.5, 1.0, 4.0]), jnp.array([[0.0], [1.0]] * 3)
    >>> codes = jnp.array([0, 0, 1, 1, 2, 2])
    >>> loss = layer.nll(y - 1.5 * x[:, 0], {"subject": codes}, {"subject": x}) / len(y)
    >>> loss.shape
    ()
    """

    raw: Any
    log_sigma: Any
    factors: Factors = eqx.field(static=True)

    def __init__(
        self,
        groups: Mapping[str, int],
        slopes: Mapping[str, int] | None = None,
        *,
        nested: Mapping[str, str] | None = None,
        terms: Mapping[str, tuple[int, ...]] | None = None,
    ):
        self.factors = Factors.of(groups, slopes, nested, terms)
        self.raw, self.log_sigma = effects.start(self.factors)

    @classmethod
    def from_formula(cls, formula: str, data: Any) -> tuple[RandomEffects, Encoder]:
        """The layer of `"(1 + x | user) + (1 | item)"`, and what makes its codes and features of a
        frame.
        """
        encoder = Encoder(formula, data)
        return cls(**encoder.sizes), encoder

    @property
    def parameters(self) -> Parameters:
        """The values of `raw` and `log_sigma`."""
        return Parameters(self.raw, self.log_sigma)

    def start(self, residual: Any, mask: Any = None) -> RandomEffects:
        """The layer with sigma at the size of the residuals (n,), so that their unit does not
        matter to the rate.
        """
        log_sd = effects.log_sd(residual, mask).astype(self.log_sigma.dtype)
        return eqx.tree_at(lambda layer: layer.log_sigma, self, log_sd)

    def condition(
        self,
        residual: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
    ) -> State:
        """BLUPs `modes` given these rows, all of them, and their `covariances`. Arguments as in
        `nll`.
        """
        return effects.condition(
            self.parameters, self.factors, read_rows(self.factors, residual, groups, features, mask)
        )

    def __call__(
        self,
        state: State | None,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
    ) -> tuple[Any, Any]:
        """What the effects add to rows, Float[n], and its variance, Float[n].

        state: of `condition`, or None. Without one, or for unseen ids: 0, and the prior's variance.
        Covariances between effects of different factors are left out of the variance, which is
        exact for one factor.
        """
        state = effects.prior_state(self.parameters, self.factors) if state is None else state
        return effects.predict(self.parameters, self.factors, state, groups, features)


class GeneralizedRandomEffects(AnswerLikelihood, eqx.Module):
    """Random effects on the linear predictor of a network: y ~ family(f(x) + sum of Z b).

    Parameters
    ----------
    groups, slopes, nested, terms
        As of `RandomEffects`.
    family
        `interlace_jax.Bernoulli(link)`, the default, or `interlace_jax.Poisson(link)`.

    Notes
    -----
    The effects are integrated out by Laplace's approximation with the observed information, as
    formulas with `family=` are; derivatives are exact, by the implicit function theorem. Variances
    are absolute, on the scale of the link: all start at 1. With few rows of 0 and 1 a level the
    approximation makes variances too small; `fit(..., family=, nagq=)` tells by how much.
    Everything else (unseen ids, padding, batches of whole groups) is as of `RandomEffects`.

    Source: Kristensen, Nielsen, Berg, Skaug and Bell (2016), Journal of Statistical Software 70(5).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from interlace_jax.eqx import GeneralizedRandomEffects
    >>> layer = GeneralizedRandomEffects({"user": 2})
    >>> logits, clicked = jnp.zeros(4), jnp.array([0.0, 1.0, 1.0, 1.0])
    >>> loss = layer.nll(logits, clicked, {"user": jnp.array([0, 0, 1, 1])}) / len(clicked)
    >>> loss.shape
    ()
    """

    raw: Any
    factors: Factors = eqx.field(static=True)
    family: Distribution = eqx.field(static=True)

    def __init__(
        self,
        groups: Mapping[str, int],
        slopes: Mapping[str, int] | None = None,
        *,
        family: Distribution | None = None,
        nested: Mapping[str, str] | None = None,
        terms: Mapping[str, tuple[int, ...]] | None = None,
    ):
        self.factors = Factors.of(groups, slopes, nested, terms)
        self.family = Bernoulli() if family is None else family
        laplace.check_family(self.family)
        self.raw = effects.start(self.factors).raw

    @property
    def parameters(self) -> Parameters:
        """The value of `raw`, and 0 for the log of what it is relative to."""
        return Parameters(self.raw, jnp.zeros_like(self.raw, shape=()))

    def condition(
        self,
        predictor: Any,
        y: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
    ) -> State:
        """Modes given these rows, all of them, and their `covariances`. Arguments as in `nll`."""
        rows = laplace.read_answers(self.factors, predictor, y, groups, features, mask)
        return laplace.condition(self.raw, self.factors, self.family, rows)

    def __call__(
        self,
        state: State | None,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
    ) -> tuple[Any, Any]:
        """What the effects add to the predictor of rows, Float[n], and its variance, Float[n].

        state: of `condition`, or None. Without one, or for unseen ids: 0, and the prior's variance.
        """
        state = effects.prior_state(self.parameters, self.factors) if state is None else state
        return effects.predict(self.parameters, self.factors, state, groups, features)


_LAYERS = (RandomEffects, GeneralizedRandomEffects)


def decayed(model: Any) -> Any:
    """Which leaves weight decay may touch: the mask of `optax.adamw`, all but those of random
    effects.

    >>> from interlace_jax.eqx import RandomEffects, decayed
    >>> decayed(RandomEffects({"user": 300})).raw
    False
    """

    def of_part(part):
        may_be = not isinstance(part, _LAYERS)
        return jax.tree.map(lambda _: may_be, part)

    return jax.tree.map(of_part, model, is_leaf=lambda part: isinstance(part, _LAYERS))
