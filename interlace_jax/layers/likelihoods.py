"""What a layer of any framework can do by its `parameters` and `factors` alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ..numerics.families.family import Distribution
from ..support.later import jnp
from . import effects, laplace
from .batches import batch_nll
from .effects import Parameters, read_rows
from .factors import Factors


class _Layer:
    """What layers of both kinds have."""

    factors: Factors

    @property
    @abstractmethod
    def parameters(self) -> Parameters:
        """Values of the framework's own parameters."""

    @property
    def theta(self) -> Any:
        """lme4's theta (d,): lower triangles, column by column, relative to `sigma`; absolute where
        a layer has no sigma.
        """
        return self.factors.theta(self.parameters.raw)

    def priors(self) -> dict[str, Any]:
        """By factor the covariance of an unseen level's effects, Float[k, k], on the scale of the
        predictor.
        """
        return effects.priors(self.parameters, self.factors)


class ResidualLikelihood(_Layer):
    """The exact likelihood of what a network leaves over."""

    @property
    def sigma(self) -> Any:
        """Residual standard deviation ()."""
        return jnp.exp(self.parameters.log_sigma)

    def nll(
        self,
        residual: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
        *,
        levels: Mapping[str, int] | None = None,
        given: Mapping[str, Any] | None = None,
        scale: float = 1.0,
    ) -> Any:
        """-log likelihood of all rows, a sum, Float[].

        residual: y - f(x), Float[n]. groups: codes by factor, Int[n]. features: by factor with
        slopes Float[n, slopes], or Float[n] for one; they may be outputs of the network. mask:
        Float[n], 0 for padding, whatever stands there.

        For batches of whole groups: levels and scale are those of the batch (`batches_of_groups`);
        given are drawn effects of crossed factors (`draw`), by factor Float[levels, k], which the
        rest is then conditional on.
        """
        factors = self.factors.with_levels(levels)
        rows = read_rows(factors, residual, groups, features, mask)
        return batch_nll(self.parameters, factors, rows, given, scale)

    def draw(
        self,
        key: Any,
        residual: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
    ) -> dict[str, Any]:
        """One exact draw of all effects given these rows, by factor Float[levels, k]. Arguments as
        in `nll`.
        """
        rows = read_rows(self.factors, residual, groups, features, mask)
        return effects.draw(key, self.parameters, self.factors, rows)


class AnswerLikelihood(_Layer):
    """Laplace's approximation to the likelihood of answers or counts, given their predictor."""

    family: Distribution

    def nll(
        self,
        predictor: Any,
        y: Any,
        groups: Mapping[str, Any],
        features: Mapping[str, Any] | None = None,
        mask: Any = None,
        *,
        levels: Mapping[str, int] | None = None,
        scale: float = 1.0,
    ) -> Any:
        """-log likelihood of all rows, a sum, Float[].

        predictor: f(x) on the scale of the link, Float[n]. y: responses, Float[n]. groups: codes by
        factor, Int[n]. features: by factor with slopes Float[n, slopes], or Float[n] for one. mask:
        Float[n], 0 for padding. levels and scale: those of a batch of whole groups.
        """
        factors = self.factors.with_levels(levels)
        rows = laplace.read_answers(factors, predictor, y, groups, features, mask)
        return scale * laplace.nll(self.parameters.raw, factors, self.family, rows)
