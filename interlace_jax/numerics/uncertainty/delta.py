"""The delta method: functions of all parameters and their standard errors by exact derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace

from ...support.containers import container
from ...support.later import jax, jnp
from ..covariance.block import Block
from ..covariance.parameters import factors, natural
from ..families.special import sigmoid
from ..likelihood.coordinates import to_user


@container
class Parameters:
    """All parameters of a model, as a function given to `delta` receives them."""

    beta: jax.Array  # (p,)
    theta: jax.Array  # (d,) lme4's theta
    sigma: jax.Array  # ()
    columns: tuple[str, ...] = field(metadata=dict(static=True))
    groups: tuple[str, ...] = field(metadata=dict(static=True))
    blocks: tuple[Block, ...] = field(metadata=dict(static=True))

    def __getitem__(self, column: str):
        """A coefficient by its name."""
        return self.beta[_place(column, self.columns, "coefficient")]

    def covariance(self, group: str):
        """Covariance matrix (k, k) of the random effects of a grouping factor, in the squared
        unit of the response.
        """
        return self.sigma**2 * self.covariances[_place(group, self.groups, "grouping factor")]

    @property
    def covariances(self):
        """Relative covariance matrices Lambda Lambda' (k, k), one a factor."""
        return [Lam @ Lam.T for Lam in factors(self.theta, self.blocks)]

    def structure(self, group: str):
        """Parameters (r,) of the covariance structures of a grouping factor: those of Lambda,
        then those of K.
        """
        return natural(self.theta, self.blocks)[_place(group, self.groups, "grouping factor")]


@container
class FamilyParameters(Parameters):
    """All parameters of a generalised model; theta is absolute, and sigma is 1."""

    gamma: jax.Array  # (r,) numbers of the family, on their free scales
    # their names and domains
    numbers: tuple[tuple[str, str], ...] = field(metadata=dict(static=True))

    def number(self, name: str):
        """A number of the family on its natural scale, as `size` or a threshold; coefficients of
        predictors as such.
        """
        place = _place(name, [known for known, _ in self.numbers], "number of the family")
        domain, free = self.numbers[place][1], self.gamma[place]
        if domain == "threshold":
            return self.gamma[0] + jnp.sum(jnp.exp(self.gamma[1 : place + 1]))
        if domain in ("coefficient", "real"):
            return free
        return jnp.exp(free) if domain == "positive" else sigmoid(free)


def _place(name, names, what):
    if name not in names:
        raise ValueError(f"there is no {what} {name!r}; there are {', '.join(map(repr, names))}")
    return names.index(name)


def slopes(fn: Callable, at: Parameters, t, layout, A, data=()):
    """Value (r,) of fn(Parameters, *data) and its derivatives by beta (r, p) and by x = (t, log
    sigma) (r, d + 1).
    """
    d = t.shape[0]

    def value(beta, x):
        theta = to_user(x[:d], layout, A)
        return jnp.atleast_1d(fn(replace(at, beta=beta, theta=theta, sigma=jnp.exp(x[d])), *data))

    x = jnp.append(t, jnp.log(at.sigma))
    return value(at.beta, x), *jax.jacfwd(value, argnums=(0, 1))(at.beta, x)


def propagate(fn: Callable, at: Parameters, t, vcov, W, layout, A, data=()):
    """Value of fn(Parameters, *data) and its covariance by the delta method, with derivatives by
    JAX.

    at: the estimate; vcov (p, p) of beta, W (d + 1, d + 1) of (t, log sigma). beta is uncorrelated
    with the variance parameters, as it is asymptotically. fn returns a scalar or a vector (r,); the
    covariance is (r, r).
    """
    value, by_beta, by_x = slopes(fn, at, t, layout, A, data)
    return value, by_beta @ vcov @ by_beta.T + by_x @ W @ by_x.T


def propagate_jointly(fn: Callable, at: FamilyParameters, V, data=()):
    """Value of fn(FamilyParameters, *data) and its covariance by the delta method, with derivatives
    by JAX.

    V: covariance of (theta, beta, gamma). fn returns a scalar or a vector (r,); the covariance is
    (r, r).
    """
    d, p = at.theta.shape[0], at.beta.shape[0]

    def value(x):
        moved = replace(at, theta=x[:d], beta=x[d : d + p], gamma=x[d + p :])
        return jnp.atleast_1d(fn(moved, *data))

    x = jnp.concatenate([at.theta, at.beta, at.gamma])
    slopes = jax.jacfwd(value)(x)
    return value(x), slopes @ V @ slopes.T
