"""The mixed model as a distribution for NumPyro; needs numpyro."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arrays.groups import Grouping, check_nesting, check_rows, level_counts, read_groups
from .arrays.moments import moments_by_host, moments_by_levels
from .arrays.precision import in_own_precision
from .arrays.simulation import contribution, draw_effects
from .functional import log_likelihood, random_effects
from .numerics.crossproducts.moments import Moments
from .runtime.calls import own_rules
from .support.later import jax, jnp

try:
    import numpyro.distributions as dist
    from numpyro.distributions import constraints
except ImportError as err:
    raise ImportError(
        "interlace_jax.numpyro needs numpyro 0.21 or newer: python -m pip install numpyro"
    ) from err


class MixedModel(dist.Distribution):
    """y ~ N(loc, sigma^2 (I + Z Lambda Lambda' Z')): every random effect integrated out exactly.

    Parameters
    ----------
    loc
        The mean without random effects, Float[n]: any function of parameters.
    groups
        By the name of each factor its codes, Int[n], or `(codes, Z)`, as `interlace_jax.moments`
        takes them.
    theta
        lme4's, Float[d]: lower triangles, column by column, relative to sigma; see `theta_of`.
    sigma
        Residual standard deviation, Float[].
    levels, nested
        As in `moments`: how many levels there are, where codes are traced.

    Notes
    -----
    The sampler sees theta, sigma and the parameters of loc alone, whatever the number of levels;
    `draw_effects` gives the effects afterwards. One response: several are for `jax.vmap`.

    The rows are made into cross-products at every step. Where loc is X @ beta, do that once, which
    is several times faster::

        m = interlace.moments(y, X, groups)
        numpyro.factor("y", interlace.log_likelihood(theta, m, reml=False, sigma=sigma, beta=beta))

    Source of the marginalisation: Bates, Maechler, Bolker and Walker (2015), Journal of
    Statistical Software 67(1), equation 34 with beta and sigma held.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import numpyro
    >>> from numpyro import distributions as dist
    >>> from interlace_jax.numpyro import MixedModel, theta_of
    >>> codes, x = np.repeat([0, 1, 2, 3], 5), np.tile(np.arange(5.0), 4)
    >>> Z = np.column_stack([np.ones(20), x])
    >>> def model(y=None):
    ...     slope = numpyro.sample("slope", dist.Normal(0, 10))
    ...     sd = numpyro.sample("sd", dist.HalfNormal(1).expand([2]).to_event(1))
    ...     corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
    ...     sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    ...     mixed = MixedModel(slope * x, {"g": (codes, Z)}, theta_of(sd, corr), sigma)
    ...     return numpyro.sample("y", mixed, obs=y)
    >>> numpyro.handlers.seed(model, 0)().shape
    (20,)
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "theta": constraints.real_vector,
        "sigma": constraints.positive,
    }
    support = constraints.real_vector
    reparametrized_params = ["loc", "theta", "sigma"]
    pytree_data_fields = ("loc", "theta", "sigma", "codes", "Z")
    pytree_aux_fields = ("factors", "nested")

    def __init__(
        self,
        loc: Any,
        groups: Mapping[str, Any] | Sequence[tuple],
        theta: Any,
        sigma: Any,
        *,
        levels: Mapping[str, int] | Sequence[int] | None = None,
        nested: Mapping[str, str] | None = None,
        validate_args: bool | None = None,
    ):
        self.loc, self.theta, self.sigma = map(in_own_precision, (loc, theta, sigma))
        if self.loc.ndim != 1:
            raise ValueError(f"loc has shape {self.loc.shape}; it is one mean for each row, (n,)")
        read = [g.filled(len(self.loc)) for g in read_groups(groups)]
        check_rows(self.loc, None, read, None, None)
        self.codes, self.Z = tuple(g.codes for g in read), tuple(g.Z for g in read)
        counts = level_counts(read, levels)
        self.factors = tuple((g.key, g.third, m) for g, m in zip(read, counts, strict=True))
        self.nested = tuple(check_nesting(read, nested or {}).items())
        if any(block.across is not None for block in self._blocks()):
            raise ValueError(
                "levels that covary, by Known or Kernel, are not for MixedModel: use "
                "numpyro.factor with interlace_jax.log_likelihood"
            )
        super().__init__((), self.loc.shape, validate_args=validate_args)

    def log_prob(self, value: Any) -> Any:
        """Log-density, Float[], of responses, Float[n]; leading axes of value are a batch."""
        return jnp.vectorize(self._log_prob, signature="(n)->()")(value)

    @own_rules()
    def _log_prob(self, value):
        m, none = self._moments(value), jnp.zeros(0)
        return log_likelihood(self.theta, m, reml=False, sigma=self.sigma, beta=none)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Responses, Float[*sample_shape, n], with effects and residuals of their own."""
        keys = jax.random.split(key, int(np.prod(sample_shape, dtype=int)))
        drawn = jax.vmap(lambda own: self._simulated(own)[1])(keys)
        return drawn.reshape(*sample_shape, *self.event_shape)

    def draw_effects(self, key: Any, value: Any) -> dict[str, Any] | list[Any]:
        """One exact draw of the effects, Float[levels, k] per factor, given responses, Float[n].

        A dict by name where `groups` was one. For the effects of a posterior, `jax.vmap` over its
        draws. Matheron's rule: effects b* and responses y* are simulated, and the BLUPs of y - y*
        are added to b*.
        """
        b, simulated = self._simulated(key)
        m = self._moments(value - simulated + self.loc)
        correction = random_effects(self.theta, m)
        if isinstance(correction, dict):
            return {name: own + correction[name] for name, own in zip(correction, b, strict=True)}
        return [own + more for own, more in zip(b, correction, strict=True)]

    @own_rules()
    def _simulated(self, key):
        """Effects, and responses (n,) with them."""
        key_b, key_e = jax.random.split(key)
        b = draw_effects(key_b, self.theta, self.sigma, self._blocks())
        y = self.loc + self.sigma * jax.random.normal(key_e, self.loc.shape, self.loc.dtype)
        return b, y + sum(map(contribution, self.codes, self.Z, b))

    def _moments(self, value) -> Moments:
        """Cross-products of value - loc, without fixed effects."""
        residual = in_own_precision(value) - self.loc
        groups, levels = self._groupings(), [m for *_, m in self.factors]
        X = jnp.zeros((len(residual), 0), residual.dtype)
        if any(g.is_traced for g in groups):
            return moments_by_levels(residual, X, groups, levels, dict(self.nested), None, None)
        return moments_by_host(residual, X, groups, levels, None, None)

    def _groupings(self):
        keys = [(key, third) for key, third, _ in self.factors]
        rows = zip(keys, self.codes, self.Z, strict=True)
        return [Grouping(key, codes, Z, third) for (key, third), codes, Z in rows]

    def _blocks(self):
        levels = [m for *_, m in self.factors]
        return [g.structure(m)[0] for g, m in zip(self._groupings(), levels, strict=True)]


def theta_of(sd: Any, corr: Any) -> Any:
    """lme4's theta, Float[k (k + 1) / 2], of a factor with k effects a level.

    sd: standard deviations relative to sigma, Float[k]. corr: the Cholesky factor of their
    correlation matrix, Float[k, k], as `numpyro.distributions.LKJCholesky` draws it. The thetas of
    several factors are concatenated in their order.

    >>> import numpy as np
    >>> from interlace_jax.numpyro import theta_of
    >>> [round(float(number), 2) for number in theta_of(np.array([2.0, 0.5]), np.eye(2))]
    [2.0, 0.0, 0.5]
    """
    L = jnp.asarray(sd)[:, None] * jnp.asarray(corr)
    rows, columns = np.array([(i, j) for j in range(len(L)) for i in range(j, len(L))]).T
    return L[rows, columns]
