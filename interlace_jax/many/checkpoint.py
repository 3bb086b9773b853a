"""Finished chunks of a run kept in a folder, so that a run that was killed can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .chunks import Chunking
from .lanes import Rounds


class Store:
    """Finished chunks in a folder; a file is complete or not there.

    How a run is divided into chunks, and how lanes are gathered, is kept with them: it depends on
    the machine, and with it the last digits of the results.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        """Open a folder, made if it is not there. identity: what the numbers of the run depend on,
        by name.

        Raises ValueError for a file, or for the folder of a run with another identity.
        """
        if folder.exists() and not folder.is_dir():
            raise ValueError(
                f"checkpoint={str(folder)!r} is a file; give the name of a folder, existing or not"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.identity = folder, dict(identity)
        found = self._plan()
        for name, mine in self.identity.items() if found else ():
            if found.get(name) != mine:
                raise ValueError(
                    f"the checkpoint {str(folder)!r} belongs to another run: its {name} is "
                    f"{found.get(name)!r}, here it is {mine!r}; give this run a folder of its own"
                )

    def chunking(self, default: Chunking) -> Chunking:
        """How the run in this folder is divided: as it began, or by default, which is then kept."""
        found = self._plan()
        if found:
            return Chunking(found["size"], Rounds(*found["rounds"]))
        text = json.dumps(self.identity | default._asdict())
        _write(self.folder / "run.json", lambda path: path.write_text(text))
        return default

    def _plan(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _path(self, i: int) -> Path:
        return self.folder / f"chunk-{i:06d}.parquet"

    def read(self, i: int) -> pd.DataFrame | None:
        """A chunk's table, if it is there."""
        return pd.read_parquet(self._path(i)) if self._path(i).exists() else None

    def write(self, i: int, table: pd.DataFrame) -> None:
        """Keep a chunk's table."""
        _write(self._path(i), table.to_parquet)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)
