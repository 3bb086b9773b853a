"""The delta method: functions of all parameters and their standard errors by exact derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from ...support.containers import container
from ...support.later import jax, jnp
from ..covariance.block import Block
from ..covariance.parameters import factors, natural
from ..families.special import sigmoid
from ..likelihood.coordinates import to_user, user_blocks


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


def slopes(fn: Callable, names, beta, sigma, t, layout, A, data=()):
    """Value (r,) of fn(Parameters, *data) and its derivatives by beta (r, p) and by x = (t, log
    sigma) (r, d + 1).

    names: those of the columns and of the grouping factors that fn may ask for.
    """
    d, blocks = t.shape[0], user_blocks(layout)

    def value(beta, x):
        theta, sigma = to_user(x[:d], layout, A), jnp.exp(x[d])
        return jnp.atleast_1d(fn(Parameters(beta, theta, sigma, *names, blocks), *data))

    x = jnp.append(t, jnp.log(sigma))
    return value(beta, x), *jax.jacfwd(value, argnums=(0, 1))(beta, x)


def propagate(fn: Callable, names, beta, sigma, t, vcov, W, layout, A, data=()):
    """Value of fn(Parameters, *data) and its covariance by the delta method, with derivatives by
    JAX.

    names: as of `slopes`; vcov (p, p) of beta, W (d + 1, d + 1) of (t, log sigma). beta is
    uncorrelated with the variance parameters, as it is asymptotically. fn returns a scalar or a
    vector (r,); the covariance is (r, r).
    """
    value, by_beta, by_x = slopes(fn, names, beta, sigma, t, layout, A, data)
    return value, by_beta @ vcov @ by_beta.T + by_x @ W @ by_x.T


def propagate_jointly(fn: Callable, names, theta, beta, gamma, V, layout, data=()):
    """Value of fn(FamilyParameters, *data) and its covariance by the delta method, with derivatives
    by JAX.

    names: those of the columns, of the grouping factors and of the numbers of the family, with
    their domains, that fn may ask for; V: covariance of (theta, beta, gamma). fn returns a scalar
    or a vector (r,); the covariance is (r, r).
    """
    d, p, blocks = theta.shape[0], beta.shape[0], user_blocks(layout)
    columns, groups, numbers = names

    def value(x):
        theta, beta, gamma = x[:d], x[d : d + p], x[d + p :]
        given = beta, theta, jnp.ones(()), columns, groups, blocks, gamma, numbers
        return jnp.atleast_1d(fn(FamilyParameters(*given), *data))

    x = jnp.concatenate([theta, beta, gamma])
    slopes = jax.jacfwd(value)(x)
    return value(x), slopes @ V @ slopes.T
