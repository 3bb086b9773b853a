"""The arguments `residual=` and `dispersion=`: what they say, before there are data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..numerics.covariance.correlations import (
    ARMA11,
    Antedependence,
    Exponential,
    FreeCorrelations,
    SquaredExponential,
    Toeplitz,
)
from ..numerics.covariance.structures import (
    AR1,
    CompoundSymmetry,
    Diagonal,
    HomogeneousDiagonal,
    Structure,
    Unstructured,
)
from ..support.arguments import listed, texts

TAGS: dict[str, Structure] = {
    "us": Unstructured(),
    "cs": CompoundSymmetry(),
    "csh": CompoundSymmetry(heterogeneous=True),
    "ar1": AR1(),
    "ar1h": AR1(heterogeneous=True),
    "toep": Toeplitz(),
    "toeph": Toeplitz(heterogeneous=True),
    "ad": Antedependence(),
    "adh": Antedependence(heterogeneous=True),
    "arma11": ARMA11(),
    "diag": Diagonal(),
    "sp_exp": Exponential(),
    "sp_gau": SquaredExponential(),
}
"mmrm's and SAS's names: cs, toep, ad have one variance, those with h one for every visit."

_TEXT = re.compile(r"\s*(?P<tag>\w+)\s*\((?P<times>[^|]*)\|(?P<groups>[^|]*)\)\s*")


@dataclass(frozen=True)
class Residual:
    """How the residuals of one subject covary: the object that `residual=` takes beside text.

    structure: `Unstructured`, `CompoundSymmetry`, `AR1`, `Toeplitz`, `Antedependence`, `ARMA11`
    (most with `heterogeneous=True` for an SD of every visit), `Exponential`, `SquaredExponential`
    or `Matern` over coordinates, or a `Structure` of your own, whose matrix over the visits counts
    relative to that of the first.
    time: the column of visits or times; of coordinates one or several columns.
    subject: the column of the subjects, whose rows covary; rows of different subjects do not.
    by: a column of groups of subjects; every group has parameters of its own.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.AR1()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.structure.round(2)
                               estimate    se  lower  upper
    rho | Days within Subject       0.8  0.04    0.7   0.87
    """

    structure: Structure
    time: str | tuple[str, ...]
    subject: str
    by: str | None = None

    def __post_init__(self):
        if not isinstance(self.structure, Structure):
            raise TypeError(
                f"the structure of a Residual is one such as AR1(), not {self.structure!r}"
            )
        times = texts("time", self.time, "visit")
        if not times:
            raise TypeError("time must be the column of visits or times, or several of coordinates")
        for name, value in (("subject", self.subject), ("by", self.by)):
            if not (isinstance(value, str) or (name == "by" and value is None)):
                raise TypeError(f"{name} must be the name of a column, not {value!r}")
        object.__setattr__(self, "time", times)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the data that are needed."""
        return (*self.time, self.subject, *([self.by] if self.by else []))

    @property
    def within(self) -> Structure | None:
        """The structure of the correlations alone; None where residuals do not correlate."""
        if isinstance(self.structure, Unstructured):
            return FreeCorrelations(heterogeneous=True)
        return (
            None if isinstance(self.structure, Diagonal | HomogeneousDiagonal) else self.structure
        )

    @property
    def by_visit(self) -> bool:
        """Whether every visit has an SD of its own."""
        return isinstance(self.structure, Unstructured | Diagonal) or getattr(
            self.structure, "heterogeneous", False
        )

    def __str__(self) -> str:
        tag = next(
            (tag for tag, known in TAGS.items() if known == self.structure),
            type(self.structure).__name__,
        )
        return f"{tag}({', '.join(self.time)} | {f'{self.by} / ' if self.by else ''}{self.subject})"


@dataclass(frozen=True)
class Power:
    """An SD that is a power of a covariate, |x|^power: an argument of `dispersion=` (nlme's
    varPower).

    `Power("fitted")` is a power of the fitted values, random effects included: a fixed point of
    fits whose SDs are held at the last ones, as nlme's, and no maximum of one likelihood.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> power = interlace_jax.Power("week")
    >>> sleep["week"] = 1 + sleep["Days"]
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 | Subject)", sleep, dispersion=power)
    >>> fit.structure.round(2)
                estimate    se  lower  upper
    power week      0.21  0.11  -0.01   0.43
    """

    column: str

    def __post_init__(self):
        if not isinstance(self.column, str):
            raise TypeError(
                f'Power takes the name of a column, as in Power("dose"), not {self.column!r}'
            )

    @property
    def is_of_fitted(self) -> bool:
        """Whether it is a power of the fitted values, which are no column."""
        return self.column == "fitted"

    def __str__(self) -> str:
        return f"Power({self.column!r})"


def residual_of(given: Any) -> Residual | None:
    """What the argument `residual` says."""
    if given is None or isinstance(given, Residual):
        return given
    if not isinstance(given, str):
        raise TypeError(
            f'residual must be text such as "us(visit | id)" or a Residual, not {given!r}'
        )
    found = _TEXT.fullmatch(given)
    times = [name.strip() for name in found["times"].split(",")] if found else []
    groups = [name.strip() for name in found["groups"].split("/")] if found else []
    if not found or not all(times) or not all(groups) or len(groups) > 2:
        raise ValueError(
            f"residual={given!r} cannot be read; write structure(visit | subject), as in "
            '"us(visit | id)", or "ar1h(visit | arm / id)" for parameters by arm'
        )
    if found["tag"] not in TAGS:
        raise ValueError(
            f"residual={given!r}: there is no structure {found['tag']!r}; there are "
            f"{listed(TAGS, 20)}, where an h at the end gives every visit its own variance "
            "(glmmTMB's cs and toep have that without it)"
        )
    names = [name.strip("`") for name in (*times, *groups)]
    by = names[len(times)] if len(groups) == 2 else None
    return Residual(TAGS[found["tag"]], tuple(names[: len(times)]), names[-1], by)


def dispersion_of(given: Any) -> str | Power | None:
    """What the argument `dispersion` says: the right side of a formula, or a `Power`."""
    if given is None or isinstance(given, Power):
        return given
    if not isinstance(given, str):
        raise TypeError(
            f'dispersion must be a formula such as "~ sex + age" or Power("dose"), not {given!r}'
        )
    left, tilde, right = given.partition("~")
    if left.strip() or not tilde or not right.strip():
        raise ValueError(
            f"dispersion={given!r} must be a formula with a right side only, as in '~ sex + age'"
        )
    if "|" in right:
        raise ValueError(
            f"dispersion={given!r} has a random effect, which the residual SD cannot have: leave "
            "it out"
        )
    return right.strip()
