"""Random effects as a layer of a Flax network; needs flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .layers import effects, laplace
from .layers.batches import batches_of_groups as batches_of_groups
from .layers.effects import Parameters, read_rows
from .layers.encoder import Encoder as Encoder
from .layers.factors import Factors
from .layers.likelihoods import AnswerLikelihood, ResidualLikelihood
from .numerics.families.family import Bernoulli, Distribution
from .support.later import jnp

try:
    from flax import nnx
except ImportError as err:
    raise ImportError(
        "interlace_jax.nnx needs flax 0.12 or newer: python -m pip install flax"
    ) from err


class Covariance(nnx.Param):
    """A covariance parameter: trained as any other, but not to be decayed; see `decayed`."""


class Modes(nnx.Variable):
    """BLUPs and their covariances: saved with the network, never trained."""


class RandomEffects(ResidualLikelihood, nnx.Module):
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
    and `log_sigma` () are ordinary parameters, of the type `Covariance`, which weight decay is to
    leave alone: `decayed` is the mask for it. All is computed in JAX's own precision, whatever that
    of the network. Codes may be traced, one program serves all batches of one length, and a code
    outside of 0 to levels - 1 is an unseen id: in `nll` its row counts nothing, its prediction is 0
    with the prior's variance.

    Pairs of levels that meet are held as a dense matrix, levels of the largest factor (with those
    it lies in) by levels of the others: two crossed factors of 50,000 and 2,000 take 0.8 GB in
    64-bit mode.

    Source: Pinheiro and Bates (2000), Mixed-Effects Models in S and S-PLUS, section 2.2; the
    parametrisation is the log-Cholesky one of Pinheiro and Bates (1996), with rows scaled by their
    diagonal.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from interlace_jax.nnx import RandomEffects
    >>> effects = RandomEffects({"subject": 3}, slopes={"subject": 1})
    >>> y, x = jnp.array([1.0, 2.0, 0.5, 2.5, 1.0, 4.0]), jnp.array([[0.0], [1.0]] * 3)
    >>> codes = jnp.array([0, 0, 1, 1, 2, 2])
    >>> loss = effects.nll(y - 1.5 * x[:, 0], {"subject": codes}, {"subject": x}) / len(y)
    >>> loss.shape
    ()
    """

    def __init__(
        self,
        groups: Mapping[str, int],
        slopes: Mapping[str, int] | None = None,
        *,
        nested: Mapping[str, str] | None = None,
        terms: Mapping[str, tuple[int, ...]] | None = None,
    ):
        self.factors = Factors.of(groups, slopes, nested, terms)
        parameters = effects.start(self.factors)
        self.raw, self.log_sigma = Covariance(parameters.raw), Covariance(parameters.log_sigma)
        self.state = Modes(effects.prior_state(parameters, self.factors))

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
        return Parameters(self.raw[...], self.log_sigma[...])

    def start(self, residual: Any, mask: Any = None) -> None:
        """Set sigma to the size of the residuals (n,), so that their unit does not matter to the
        learning rate.
        """
        self.log_sigma[...] = effects.log_sd(residual, mask).astype(self.log_sigma[...].dtype)

    def condition(
        self,
        residual: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
    ) -> None:
        """Remember the BLUPs given these rows, all of them, and their covariances: `state`.
        Arguments as in `nll`.
        """
        rows = read_rows(self.factors, residual, groups, features, mask)
        self.state.set_value(effects.condition(self.parameters, self.factors, rows))

    def __call__(
        self, groups: Mapping[str, Any], features: Mapping[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """What the effects add to rows, Float[n], and its variance, Float[n], by the rows of the
        last `condition`.

        Without it, or for unseen ids: 0, and the prior's variance. Covariances between effects of
        different factors are left out of the variance, which is exact for one factor.
        """
        return effects.predict(
            self.parameters, self.factors, self.state.get_value(), groups, features
        )


class GeneralizedRandomEffects(AnswerLikelihood, nnx.Module):
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
    >>> from interlace_jax.nnx import GeneralizedRandomEffects
    >>> layer = GeneralizedRandomEffects({"user": 2})
    >>> logits, clicked = jnp.zeros(4), jnp.array([0.0, 1.0, 1.0, 1.0])
    >>> loss = layer.nll(logits, clicked, {"user": jnp.array([0, 0, 1, 1])}) / len(clicked)
    >>> loss.shape
    ()
    """

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
        parameters = effects.start(self.factors)
        self.raw = Covariance(parameters.raw)
        self.state = Modes(effects.prior_state(parameters, self.factors))

    @property
    def parameters(self) -> Parameters:
        """The value of `raw`, and 0 for the log of what it is relative to."""
        return Parameters(self.raw[...], jnp.zeros_like(self.raw[...], shape=()))

    def condition(
        self,
        predictor: Any,
        y: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
    ) -> None:
        """Remember the modes given these rows, all of them, and their covariances: `state`.
        Arguments as in `nll`.
        """
        rows = laplace.read_answers(self.factors, predictor, y, groups, features, mask)
        found = laplace.condition(self.raw[...], self.factors, self.family, rows)
        self.state.set_value(found)

    def __call__(
        self, groups: Mapping[str, Any], features: Mapping[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """What the effects add to the predictor of rows, Float[n], and its variance, Float[n], by
        the rows of the last `condition`; without it, or for unseen ids, 0 and the prior's variance.
        """
        state = self.state.get_value()
        return effects.predict(self.parameters, self.factors, state, groups, features)


def decayed(parameters: Any) -> Any:
    """Which parameters weight decay may touch: the mask of `optax.adamw`, all but those of random
    effects.

    >>> import optax
    >>> from flax import nnx
    >>> from interlace_jax.nnx import RandomEffects, decayed
    >>> model = RandomEffects({"user": 300})
    >>> optimizer = nnx.Optimizer(model, optax.adamw(1e-3, mask=decayed), wrt=nnx.Param)
    """
    return nnx.map_state(lambda _, variable: not isinstance(variable, Covariance), parameters)
