"""Finished chunks of a run kept in a folder, so that a run that was killed can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

from .designs import Designs
from .lanes import Rounds
from .responses import Responses


class Store:
    """Finished chunks in a folder; a file is complete or not there.

    What a chunk is, and how its lanes are gathered, is kept with them and used again: it depends on the machine, and
    with it the last digits of the results.
    """

    def __init__(self, folder: Path, work: Responses | Designs, method: str):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"checkpoint={str(folder)!r} is a file; give the name of a folder, existing or not")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, plan = folder, folder / "run.json"
        mine = dict(formula=str(work.formula), method=method, dtype=str(work.dtype), models=len(work.labels))
        mine |= dict(data=work.fingerprint())
        if plan.exists():
            found = json.loads(plan.read_text())
            work.size, work.rounds = found.pop("size"), Rounds(*found.pop("rounds"))
            if other := [name for name in mine if mine[name] != found[name]]:
                raise ValueError(
                    f"the checkpoint {str(folder)!r} belongs to another run: its {other[0]} is {found[other[0]]!r}, "
                    f"here it is {mine[other[0]]!r}; give this run a folder of its own"
                )
        else:
            _write(plan, lambda path: path.write_text(json.dumps(mine | dict(size=work.size, rounds=work.rounds))))

    def _path(self, i: int) -> Path:
        return self.folder / f"chunk-{i:06d}.parquet"

    def read(self, i: int) -> pd.DataFrame | None:
        """A chunk's table, if it is there."""
        return pd.read_parquet(self._path(i)) if self._path(i).exists() else None

    def write(self, i: int, table: pd.DataFrame) -> None:
        """Keep a chunk's table."""
        _write(self._path(i), table.to_parquet)


def _write(path: Path, write) -> None:
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)
