"""Categories in calls: `C(f, contr.sum)`, `factor(k)`, and R's `contr.*` with its own arguments."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import formulaic.transforms
import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.transforms import ContrastsRegistry
from formulaic.transforms.contrasts import Contrasts
from formulaic.utils.sentinels import UNSET

from ..support.arguments import listed


@dataclass(frozen=True)
class SizedContrasts:
    """`contr.treatment(3, base=2)`: contrasts for a number of levels, made when the levels are
    known.

    Raises ValueError where the levels are more or fewer, or base is no position among them.
    """

    name: str
    size: int | None
    base: Any = UNSET
    "Position of the reference level, from 1."
    options: Mapping[str, Any] = field(default_factory=dict)

    def of(self, levels: Sequence[Any]) -> Contrasts:
        """The contrasts, as formulaic has them, for these levels."""
        if self.size is not None and self.size != len(levels):
            raise ValueError(
                f"contr.{self.name}({self.size}) is for {self.size} levels, but there are "
                f"{len(levels)}: {listed(levels)}; write contr.{self.name} for all there are"
            )
        if self.base is UNSET:
            return getattr(ContrastsRegistry, self.name)(**self.options)
        if self.base not in range(1, len(levels) + 1):
            raise ValueError(
                f"base={self.base!r} in contr.{self.name} is no position among the {len(levels)} "
                f"levels {listed(levels)}; write contr.{self.name}(base={levels[0]!r}) for a "
                "level by its name"
            )
        return getattr(ContrastsRegistry, self.name)(levels[int(self.base) - 1], **self.options)


def _size(name: str, n: Any) -> int | None:
    """Number of levels from R's argument n, which may list them."""
    if n is None or n is UNSET:
        return None
    size = len(n) if isinstance(n, list | tuple) else n
    if isinstance(size, bool) or not isinstance(size, int | float | np.number) or size != int(size):
        raise ValueError(f"contr.{name}({n!r}): its first argument is the number of levels")
    return int(size)


def _check_reduced(name: str, contrasts: Any) -> None:
    if not contrasts:
        raise ValueError(
            f"contr.{name}(contrasts=FALSE) has a column for every level; write 0 + f for those"
        )


def _with_base(name: str) -> Any:
    """`contr.treatment` or `contr.SAS`: in R of n levels and a position; with a level alone, as
    formulaic has it.
    """

    def contrast(n: Any = UNSET, base: Any = UNSET, contrasts: bool = True) -> Any:
        _check_reduced(name, contrasts)
        if n is UNSET or isinstance(n, str):
            return getattr(ContrastsRegistry, name)(n if base is UNSET else base)
        return SizedContrasts(name, _size(name, n), base)

    return contrast


def _without_base(name: str) -> Any:
    def contrast(n: Any = UNSET, contrasts: bool = True, **options: Any) -> Any:
        _check_reduced(name, contrasts)
        return SizedContrasts(name, _size(name, n), options=options)

    return contrast


contr = types.SimpleNamespace(
    treatment=_with_base("treatment"),
    SAS=_with_base("SAS"),
    sum=_without_base("sum"),
    helmert=_without_base("helmert"),
    poly=_without_base("poly"),
    diff=_without_base("diff"),
    sdif=_without_base("diff"),
    custom=ContrastsRegistry.custom,
)
"R's `contr.sum` and the like, in formulas."


def C(
    data: Any,
    contrasts: Any = None,
    *,
    levels: Iterable[Any] | None = None,
    spans_intercept: bool = True,
    **options: Any,
) -> FactorValues:
    """Values as categories. Whole numbers are labelled without decimals, however they are stored.

    contrasts: as formulaic's `C` takes them, R's `contr.*` by name or called, or what makes them
    of the levels, `of(levels)`; options: of a
    `contr.*` by name, as R has them (`base=2` is the second level). levels: of these only, in this
    order.
    """
    if isinstance(contrasts, str):
        contrasts = getattr(contr, contrasts.removeprefix("contr."), contrasts)
    if isinstance(contrasts, types.FunctionType):
        contrasts = contrasts(None, **options) if options else contrasts()
    elif options:
        raise TypeError(f"C() has no {listed(options)}; of R's factor() there is levels=")
    data = _labelled(data.__wrapped__ if isinstance(data, FactorValues) else data)
    levels = None if levels is None else list(levels)

    def encoder(values, reduced_rank, drop_rows, encoder_state, model_spec):
        coded = contrasts
        if hasattr(contrasts, "of"):
            known = (
                levels
                or encoder_state.get("categories")
                or list(pd.Series(data).astype("category").cat.categories)
            )
            coded = contrasts.of(known)
        plain = formulaic.transforms.C(data, coded, levels=levels).__formulaic_metadata__.encoder
        return plain(values, reduced_rank, drop_rows, encoder_state, model_spec)

    return FactorValues(data, kind="categorical", spans_intercept=spans_intercept, encoder=encoder)


def _labelled(data: Any) -> Any:
    """Whole numbers as integers."""
    if getattr(getattr(data, "dtype", None), "kind", "") != "f":
        return data
    values = np.asarray(data)
    is_whole = (
        np.isfinite(values).all()
        and (values == np.rint(values)).all()
        and np.abs(values).max(initial=0) < 2**53
    )
    return data.astype(np.int64) if is_whole else data


CODING = {"C": C, "contr": contr}
"What formulas call to make categories."
