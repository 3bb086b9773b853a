"""Links: from the linear predictor eta to the mean mu. Elementwise; arrays of any shape."""

from __future__ import annotations

from ...support.later import Later, jnp
from .special import log1mexp, log_normal_cdf, sigmoid, softplus

scipy_special = Later("jax.scipy.special")

# mu of eta
INVERSE = {
    "identity": lambda eta: eta,
    "log": lambda eta: jnp.exp(eta),
    "sqrt": lambda eta: eta * eta,
    "inverse": lambda eta: 1.0 / eta,
    "1/mu^2": lambda eta: 1.0 / jnp.sqrt(eta),
    "logit": sigmoid,
    "probit": lambda eta: scipy_special.ndtr(eta),
    "cloglog": lambda eta: -jnp.expm1(-jnp.exp(eta)),
    "loglog": lambda eta: jnp.exp(-jnp.exp(-eta)),
    "cauchit": lambda eta: jnp.exp(_cauchit(eta)[0]),
}

# eta of mu
LINK = {
    "identity": lambda mu: mu,
    "log": lambda mu: jnp.log(mu),
    "sqrt": lambda mu: jnp.sqrt(mu),
    "inverse": lambda mu: 1.0 / mu,
    "1/mu^2": lambda mu: 1.0 / (mu * mu),
    "logit": lambda mu: jnp.log(mu) - jnp.log1p(-mu),
    "probit": lambda mu: scipy_special.ndtri(mu),
    "cloglog": lambda mu: jnp.log(-jnp.log1p(-mu)),
    "loglog": lambda mu: -jnp.log(-jnp.log(mu)),
    "cauchit": lambda mu: jnp.tan(jnp.pi * (mu - 0.5)),
}


def _cauchit(eta):
    """The far tail by arctan(1/x), or 1 - p would lose its digits."""

    def upper(x):
        far = x > 1.0
        near = jnp.where(far, 0.0, x)
        beyond = jnp.where(far, x, 1.0)
        return jnp.where(
            far,
            jnp.log(jnp.arctan(1.0 / beyond) / jnp.pi),
            jnp.log(0.5 - jnp.arctan(near) / jnp.pi),
        )

    return upper(-eta), upper(eta)


def _cloglog(eta):
    rate = jnp.exp(eta)
    return log1mexp(rate), -rate


def _loglog(eta):
    failure, success = _cloglog(-eta)
    return success, failure


# log p and log(1 - p) of eta, each without cancellation
LOGS = {
    "logit": lambda eta: (-softplus(-eta), -softplus(eta)),
    "probit": lambda eta: (log_normal_cdf(eta), log_normal_cdf(-eta)),
    "cloglog": _cloglog,
    "loglog": _loglog,
    "cauchit": _cauchit,
    "log": lambda eta: (eta, log1mexp(-eta)),
}

# log mu and mu of eta, for means that are positive
POSITIVE = {
    "log": lambda eta: (eta, jnp.exp(eta)),
    "sqrt": lambda eta: (2.0 * jnp.log(jnp.abs(eta)), eta * eta),
    "identity": lambda eta: (jnp.log(eta), eta),
    "inverse": lambda eta: (-jnp.log(eta), 1.0 / eta),
    "1/mu^2": lambda eta: (-0.5 * jnp.log(eta), 1.0 / jnp.sqrt(eta)),
}
