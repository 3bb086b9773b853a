# ruff: noqa: D102 - what overridden methods are is said once, in the base class
"""What a family is, but for its density: names, links, parameters, the values a response may have,
random draws.

NumPy only. A family is frozen and hashable and holds no arrays, so that it can be static in
compiled programs; `densities.density` has the JAX half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

PROBABILITIES = ("logit", "probit", "cloglog", "cauchit", "log")
ORDERED = ("logit", "probit", "cloglog", "loglog", "cauchit")
DOMAINS = ("real", "positive", "unit")  # of the parameters of a family of one's own


class Parameter(NamedTuple):
    """A number that a family has besides the mean, such as the size of a negative binomial."""

    name: str
    domain: str  # one of DOMAINS, or "logit" or "threshold"
    # of its free number: a logarithm where it is positive, a logit where it is a probability
    start: float = 0.0


@dataclass(frozen=True)
class Distribution:
    """The distribution of a response, given its linear predictor."""

    link: str

    name: ClassVar[str]
    links: ClassVar[tuple[str, ...]]
    values: ClassVar[str] = "numbers"  # what a response may have, in words
    has_trials: ClassVar[bool] = False  # responses are successes out of trials
    is_count: ClassVar[bool] = False  # values are whole numbers
    # a dispersion scales the variance, and prior weights divide it
    has_scale: ClassVar[bool] = False

    def __post_init__(self):
        if self.link not in self.links:
            known = ", ".join(map(repr, self.links))
            raise ValueError(
                f"link must be one of {known} with family {self.name!r}, not {self.link!r}"
            )

    @property
    def title(self) -> str:
        """Name of the family as tables show it."""
        return self.name

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Numbers besides the mean."""
        return ()

    @property
    def is_concave(self) -> bool:
        """Whether the log-density is concave in eta, so that no observed weight is negative."""
        return False

    @property
    def has_zeros(self) -> bool:
        """Whether a count may be 0, or a mixture with zeros has a meaning."""
        return self.is_count

    def outside(self, y: np.ndarray, m: np.ndarray) -> np.ndarray:
        """Which of the responses y (n,), out of m (n,) trials, cannot be: (n,) bool."""
        return np.zeros(len(y), bool)

    def simulate(self, rng, mu, phi, w, m) -> np.ndarray:
        """Random responses. mu: what `Density.location` gives; phi: natural parameters; w, m:
        weights and trials.

        All broadcast against mu.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Gaussian(Distribution):
    """Normal responses; with a link other than the identity their mean is curved, not they.

    Parameter `sigma`.

    >>> family = interlace_jax.Gaussian("log")
    >>> family.name, family.link, family.values
    ('gaussian', 'log', 'numbers')
    >>> [number.name for number in family.parameters]
    ['sigma']
    """

    link: str = "identity"
    name = "gaussian"
    links = ("identity", "log", "sqrt", "inverse")
    has_scale = True

    @property
    def parameters(self):
        return (Parameter("sigma", "positive"),)

    @property
    def is_concave(self):
        return self.link == "identity"

    def simulate(self, rng, mu, phi, w, m):
        return rng.normal(mu, phi[0] / np.sqrt(w))


@dataclass(frozen=True)
class Binomial(Distribution):
    """Successes out of trials; of one trial, a response of two values.

    >>> data = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> family = interlace_jax.Binomial("probit")
    >>> fit = interlace_jax.fit(formula, data, family=family, trials="size")
    >>> fit.fe_params.round(2)
    Intercept      -0.83
    period[T.p2]   -0.53
    period[T.p3]   -0.62
    period[T.p4]   -0.80
    dtype: float64
    """

    link: str = "logit"
    name = "binomial"
    links = PROBABILITIES
    values = "successes from 0 to the number of trials"
    has_trials = True
    is_count = True

    @property
    def is_concave(self):
        return self.link != "cauchit"

    def outside(self, y, m):
        return (y < 0) | (y > m)

    def simulate(self, rng, mu, phi, w, m):
        return rng.binomial(np.round(m).astype(int), mu) * 1.0


@dataclass(frozen=True)
class Bernoulli(Binomial):
    """One trial a row: a response of two values.

    >>> data = interlace_jax.load_dataset("sleepstudy")
    >>> data["slow"] = data["Reaction"] > 300
    >>> formula = "slow ~ Days + (1 | Subject)"
    >>> family = interlace_jax.Bernoulli()
    >>> fit = interlace_jax.fit(formula, data, family=family)
    >>> fit.fe_params.round(2)
    Intercept   -3.20
    Days         0.59
    dtype: float64
    """

    link: str = "logit"
    name = "bernoulli"
    values = "0 or 1"


@dataclass(frozen=True)
class BetaBinomial(Distribution):
    """Successes out of trials whose probability varies by a beta distribution of some `precision`.

    Variance m p (1 - p) (precision + m) / (precision + 1).

    >>> family = interlace_jax.BetaBinomial("cloglog")
    >>> family.name, family.link, family.values
    ('betabinomial', 'cloglog', 'successes from 0 to the number of trials')
    >>> [number.name for number in family.parameters]
    ['precision']
    """

    link: str = "logit"
    name = "betabinomial"
    links = ("logit", "probit", "cloglog")
    values = "successes from 0 to the number of trials"
    has_trials = True
    is_count = True

    @property
    def parameters(self):
        return (Parameter("precision", "positive", 1.0),)

    def outside(self, y, m):
        return (y < 0) | (y > m)

    def simulate(self, rng, mu, phi, w, m):
        return rng.binomial(np.round(m).astype(int), rng.beta(mu * phi[0], (1 - mu) * phi[0])) * 1.0


@dataclass(frozen=True)
class Poisson(Distribution):
    """Counts whose variance is their mean.

    >>> data = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + offset(log(size)) + (1 | herd)"
    >>> family = interlace_jax.Poisson()
    >>> fit = interlace_jax.fit(formula, data, family=family)
    >>> fit.fe_params.round(2)
    Intercept      -1.65
    period[T.p2]   -0.84
    period[T.p3]   -0.97
    period[T.p4]   -1.39
    dtype: float64
    """

    link: str = "log"
    name = "poisson"
    links = ("log", "sqrt", "identity")
    values = "counts 0, 1, 2, ..."
    is_count = True

    @property
    def is_concave(self):
        return True

    def outside(self, y, m):
        return y < 0

    def simulate(self, rng, mu, phi, w, m):
        return rng.poisson(mu) * 1.0


@dataclass(frozen=True)
class NegativeBinomial(Distribution):
    """Counts that vary more than Poisson's.

    variance: "quadratic", mu + mu^2 / size (R's and glmmTMB's nbinom2), or "linear", mu (1 + alpha)
    (nbinom1).

    >>> family = interlace_jax.NegativeBinomial(variance="linear")
    >>> family.name, family.link, family.values
    ('nbinom1', 'log', 'counts 0, 1, 2, ...')
    >>> [number.name for number in family.parameters]
    ['alpha']
    """

    link: str = "log"
    variance: str = "quadratic"
    links = ("log", "sqrt")
    values = "counts 0, 1, 2, ..."
    is_count = True

    def __post_init__(self):
        if self.variance not in ("quadratic", "linear"):
            raise ValueError(f"variance must be 'quadratic' or 'linear', not {self.variance!r}")
        super().__post_init__()

    @property
    def name(self):
        return "nbinom2" if self.variance == "quadratic" else "nbinom1"

    @property
    def parameters(self):
        return (Parameter("size" if self.variance == "quadratic" else "alpha", "positive"),)

    @property
    def is_concave(self):
        return self.variance == "quadratic" and self.link == "log"

    def outside(self, y, m):
        return y < 0

    def simulate(self, rng, mu, phi, w, m):
        size = phi[0] + 0.0 * mu if self.variance == "quadratic" else mu / phi[0]
        return rng.poisson(rng.gamma(size, mu / size)) * 1.0


@dataclass(frozen=True)
class Gamma(Distribution):
    """Positive responses of variance dispersion mu^2 / w.

    >>> family = interlace_jax.Gamma("inverse")
    >>> family.name, family.link, family.values
    ('gamma', 'inverse', 'numbers above 0')
    >>> [number.name for number in family.parameters]
    ['dispersion']
    """

    link: str = "log"
    name = "gamma"
    links = ("log", "inverse", "identity")
    values = "numbers above 0"
    has_scale = True

    @property
    def parameters(self):
        return (Parameter("dispersion", "positive"),)

    @property
    def is_concave(self):
        return self.link in ("log", "inverse")

    def outside(self, y, m):
        return ~(y > 0)

    def simulate(self, rng, mu, phi, w, m):
        return rng.gamma(w / phi[0], mu * phi[0] / w)


@dataclass(frozen=True)
class InverseGaussian(Distribution):
    """Positive responses of variance dispersion mu^3 / w.

    >>> family = interlace_jax.InverseGaussian("inverse")
    >>> family.name, family.link, family.values
    ('inverse_gaussian', 'inverse', 'numbers above 0')
    >>> [number.name for number in family.parameters]
    ['dispersion']
    """

    link: str = "log"
    name = "inverse_gaussian"
    links = ("log", "inverse", "1/mu^2", "identity")
    values = "numbers above 0"
    has_scale = True

    @property
    def parameters(self):
        return (Parameter("dispersion", "positive"),)

    def outside(self, y, m):
        return ~(y > 0)

    def simulate(self, rng, mu, phi, w, m):
        return rng.wald(mu, w / phi[0])


@dataclass(frozen=True)
class Beta(Distribution):
    """Proportions strictly between 0 and 1, of variance mu (1 - mu) / (1 + precision).

    >>> family = interlace_jax.Beta("probit")
    >>> family.name, family.link, family.values
    ('beta', 'probit', 'numbers between 0 and 1, neither 0 nor 1 themselves')
    >>> [number.name for number in family.parameters]
    ['precision']
    """

    link: str = "logit"
    name = "beta"
    links = ("logit", "probit", "cloglog")
    values = "numbers between 0 and 1, neither 0 nor 1 themselves"

    @property
    def parameters(self):
        return (Parameter("precision", "positive", 1.0),)

    def outside(self, y, m):
        return ~((y > 0) & (y < 1))

    def simulate(self, rng, mu, phi, w, m):
        return rng.beta(mu * phi[0], (1 - mu) * phi[0])


@dataclass(frozen=True)
class Student(Distribution):
    """Responses with heavy tails: Student's t about the mean, of some `scale` and `nu` degrees
    of freedom.

    >>> family = interlace_jax.Student()
    >>> family.name, family.link, family.values
    ('student', 'identity', 'numbers')
    >>> [number.name for number in family.parameters]
    ['scale', 'nu']
    """

    link: str = "identity"
    name = "student"
    links = ("identity",)

    @property
    def parameters(self):
        return Parameter("scale", "positive"), Parameter("nu", "positive", 1.5)

    def simulate(self, rng, mu, phi, w, m):
        return mu + phi[0] * rng.standard_t(phi[1] + 0.0 * mu)


@dataclass(frozen=True)
class Ordinal(Distribution):
    """Ordered categories: P(y <= j) = F(threshold_j - eta), with F the inverse of the link (a
    cumulative model).

    There is no intercept: the thresholds are what it would be.

    >>> family = interlace_jax.Ordinal("probit")
    >>> family.name, family.link, family.values
    ('ordinal', 'probit', 'ordered categories')
    >>> family.links
    ('logit', 'probit', 'cloglog', 'loglog', 'cauchit')
    """

    link: str = "logit"
    categories: tuple[str, ...] = ()  # known when there are data
    name = "ordinal"
    links = ORDERED
    values = "ordered categories"

    @property
    def parameters(self):
        pairs = zip(self.categories, self.categories[1:], strict=False)
        return tuple(Parameter(f"{low}|{high}", "threshold") for low, high in pairs)

    @property
    def is_concave(self):
        return self.link != "cauchit"

    def simulate(self, rng, mu, phi, w, m):
        """mu: probabilities (n, categories)."""
        below = np.cumsum(mu, axis=-1)[..., :-1]
        return (rng.random((*mu.shape[:-1], 1)) > below).sum(-1) * 1.0


@dataclass(frozen=True)
class Truncated(Distribution):
    """Counts of a family without their zeros.

    >>> family = interlace_jax.Truncated(interlace_jax.NegativeBinomial())
    >>> family.name, family.link, family.values
    ('truncated_nbinom2', 'log', 'counts 1, 2, 3, ...')
    >>> [number.name for number in family.parameters]
    ['size']
    """

    base: Distribution
    link: str = field(init=False, default="")
    values = "counts 1, 2, 3, ..."
    is_count = True

    def __post_init__(self):
        if not isinstance(self.base, Poisson | NegativeBinomial):
            raise ValueError(
                f"only counts can be truncated: Truncated(Poisson()), not {self.base!r}"
            )
        object.__setattr__(self, "link", self.base.link)

    @property
    def name(self):
        return f"truncated_{self.base.name}"

    @property
    def parameters(self):
        return self.base.parameters

    @property
    def is_concave(self):
        return isinstance(self.base, Poisson) and self.link == "log"

    def outside(self, y, m):
        return y < 1

    def simulate(self, rng, mu, phi, w, m):
        y = self.base.simulate(rng, mu, phi, w, m)
        while (again := y == 0).any():
            y = np.where(again, self.base.simulate(rng, mu, phi, w, m), y)
        return y


@dataclass(frozen=True)
class ZeroInflated(Distribution):
    """A mixture of zeros and a family's counts; with a truncated family all zeros are the
    mixture's (hurdle model).
    """

    base: Distribution
    link: str = field(init=False, default="")
    is_count = True

    def __post_init__(self):
        if not self.base.has_zeros:
            raise ValueError(
                f"zero_inflation= adds zeros to counts, and {self.base.name!r} has "
                f"{self.base.values}: use a family of counts"
            )
        object.__setattr__(self, "link", self.base.link)

    @property
    def name(self):
        return f"zero_inflated_{self.base.name}"

    @property
    def title(self):
        kind = "hurdle" if isinstance(self.base, Truncated) else "zero-inflated"
        return f"{kind} {self.base.name.removeprefix('truncated_')}"

    @property
    def values(self):
        return "counts 0, 1, 2, ..." if isinstance(self.base, Truncated) else self.base.values

    @property
    def has_trials(self):
        return self.base.has_trials

    @property
    def parameters(self):
        return (*self.base.parameters, Parameter("zero_probability", "logit", -1.0))

    def outside(self, y, m):
        return self.base.outside(y, m) & (y != 0)

    def simulate(self, rng, mu, phi, w, m):
        y = self.base.simulate(rng, mu, phi[:-1], w, m)
        return np.where(rng.random(y.shape) < phi[-1], 0.0, y)


class Family(Distribution):
    """A family of one's own, from its log-density.

    Parameters
    ----------
    name
        How tables call it.
    log_density
        `log_density(y, mu, *parameters)`, elementwise, written with `jax.numpy`: the log of the
        density (or probability) of y at a location mu, the inverse link of the linear predictor. A
        prior weight multiplies it.
    link
        One of "identity", "log", "sqrt", "inverse", "1/mu^2", "logit", "probit", "cloglog",
        "loglog", "cauchit".
    parameters
        Other numbers of the density, each with its domain: "positive", "real" or "unit" (between 0
        and 1).
    variance
        `variance(mu, *parameters)`, for Pearson residuals.
    simulate
        `simulate(rng, mu, *parameters)` with a `numpy.random.Generator`, for simulation, scaled
        residuals and bootstrap.
    start
        `start(y)`: values near which the means are to be searched first; by default y itself.

    The log-density is not assumed concave, and the range of y is not checked: where it has no value
    at the start of the search, the row is named.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> def weibull(y, mu, shape):
    ...     return jnp.log(shape / mu) + (shape - 1) * jnp.log(y / mu) - (y / mu) ** shape
    >>> numbers = {"shape": "positive"}
    >>> family = interlace_jax.Family("weibull", weibull, link="log", parameters=numbers)
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> interlace_jax.compile("Reaction ~ Days + (1 | Subject)", sleep, family=family)
    <Model of Reaction ~ Days + (1 | Subject), 180 rows>
    """

    links = tuple(dict.fromkeys(("identity", "log", "sqrt", "inverse", "1/mu^2", *ORDERED)))

    def __init__(
        self,
        name: str,
        log_density: Callable,
        *,
        link: str = "identity",
        parameters: Mapping[str, str] | None = None,
        variance: Callable | None = None,
        simulate: Callable | None = None,
        start: Callable | None = None,
    ):
        domains = dict(parameters or {})
        for parameter, domain in domains.items():
            if domain not in DOMAINS:
                known = ", ".join(map(repr, DOMAINS))
                raise ValueError(
                    f"the domain of {parameter!r} must be one of {known}, not {domain!r}"
                )
        own = dict(
            name=name,
            log_density=log_density,
            link=link,
            domains=tuple(domains.items()),
            variance=variance,
            draw=simulate,
            start=start,
        )
        for key, value in own.items():
            object.__setattr__(self, key, value)
        self.__post_init__()

    def _key(self):
        return tuple(sorted(vars(self).items(), key=lambda item: item[0]))

    def __eq__(self, other):
        return type(other) is Family and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def __repr__(self):
        return f"Family({self.name!r}, link={self.link!r})"

    @property
    def parameters(self):
        return tuple(Parameter(name, domain) for name, domain in self.domains)

    def simulate(self, rng, mu, phi, w, m):
        if self.draw is None:
            raise ValueError(
                f"the family {self.name!r} has no simulate=: give Family(..., simulate=) to draw "
                "from it"
            )
        return np.asarray(self.draw(rng, mu, *phi), float)


_NAMES: dict[str, Callable[[], Distribution]] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "bernoulli": Bernoulli,
    "poisson": Poisson,
    "nbinom1": lambda: NegativeBinomial(variance="linear"),
    "nbinom2": NegativeBinomial,
    "gamma": Gamma,
    "inverse_gaussian": InverseGaussian,
    "beta": Beta,
    "betabinomial": BetaBinomial,
    "student": Student,
    "ordinal": Ordinal,
    "truncated_poisson": lambda: Truncated(Poisson()),
    "truncated_nbinom1": lambda: Truncated(NegativeBinomial(variance="linear")),
    "truncated_nbinom2": lambda: Truncated(NegativeBinomial()),
}
_OTHER_NAMES = {"beta_family": "beta", "t_family": "student", "t": "student", "normal": "gaussian"}


def family_of(given: str | Distribution) -> Distribution:
    """The family that a name or an object stands for; R's and glmmTMB's spellings are known too."""
    if isinstance(given, Distribution):
        return given
    if isinstance(given, type) and issubclass(given, Distribution) and given is not Family:
        return given()
    if not isinstance(given, str):
        raise TypeError(
            "family must be a name or an object such as Binomial('probit'), not "
            f"{type(given).__name__}"
        )
    plain = given.lower().replace(".", "_")
    plain = _OTHER_NAMES.get(plain, plain)
    if plain not in _NAMES:
        raise ValueError(
            f"family must be one of {', '.join(map(repr, _NAMES))}, or an object, not {given!r}"
        )
    return _NAMES[plain]()
