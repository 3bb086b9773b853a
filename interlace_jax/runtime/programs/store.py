"""Programs between processes: files of NumPy source or compiled code. Imports no JAX.

A program's name is a hash of the kernel's name, the description of its arguments, and the sources
that programs are made from; so an entry is never out of date, only unused. NumPy source is a Python
module, whose bytecode Python keeps beside it. The user's folder holds code, so it is theirs alone;
no folder, or one that cannot be written to, is no error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from ...support.later import Later

zipfile = Later("zipfile")
PACKAGE = Path(__file__).parents[2]
SHIPPED = Path(__file__).parent / "shipped.zip"  # by `scripts/ship_programs.py`
MADE_FROM = ("numerics", "runtime/programs")  # sources of programs, beside the kernel's own file
MOST_BYTES = 64 * 2**20
LAST_LINE = "# the end"
COMPILED = ".xla"  # suffix of files of compiled code, which begin with a hash of the rest
DAY = 86_400


@functools.cache
def fingerprint() -> str:
    """A hash of the sources that programs are made from."""
    found = hashlib.sha256()
    for folder in MADE_FROM:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            found.update(path.relative_to(PACKAGE).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()


@functools.cache
def _file_fingerprint(kernel: str) -> str:
    """A hash of the file in which a kernel "module:function" is written, if there is one."""
    path = PACKAGE.joinpath(*kernel.partition(":")[0].split(".")[1:]).with_suffix(".py")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def provenance(kernels) -> str:
    """What the programs of kernels were made from, as text: an archive of them says it."""
    files = {kernel: _file_fingerprint(kernel) for kernel in sorted(kernels)}
    return json.dumps({"sources": fingerprint(), "kernels": files})


def name_of(description: str) -> str:
    """The name of the entry of a program so described; the first line is the kernel's name."""
    own = _file_fingerprint(description.partition("\n")[0])
    return "p" + hashlib.sha256(f"{fingerprint()}\n{own}\n{description}".encode()).hexdigest()[:40]


def find(description: str) -> Callable | None:
    """The program so described, from the user's folder or the package; None where there is none,
    or a broken one.
    """
    name, folder = name_of(description), _own_folder()
    path = None if folder is None else folder / f"{name}.py"
    if path is not None and path.exists():
        found = _loaded(name, path)
        if found is not None:
            return found
    source = _shipped(name)
    if source is None:
        return None
    _keep_source(name, source)  # beside its bytecode it is found faster
    space: dict[str, Any] = {"__name__": f"{__package__}.stored.{name}"}
    exec(compile(source, name, "exec"), space)
    return space["program"]


def _shipped(name: str) -> str | None:
    """Source of a program that came with the package."""
    try:
        return _archive(SHIPPED).read(f"{name}.py").decode()
    except (OSError, KeyError, zipfile.BadZipFile):
        return None


@functools.cache
def _archive(path: Path) -> Any:
    """An archive of programs, in memory: to read its table of contents takes as long as a fit."""
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


def keep(description: str, source: str) -> None:
    """Keep a program for other processes, if there is a folder for it."""
    _keep_source(name_of(description), source)


def _keep_source(name: str, source: str) -> None:
    _write_if_possible(f"{name}.py", f"{source.rstrip()}\n{LAST_LINE}\n".encode())


def find_bytes(description: str) -> bytes | None:
    """The compiled code so described; None where there is none, or where it is damaged."""
    folder = _own_folder()
    path = None if folder is None else folder / f"{name_of(description)}{COMPILED}"
    if path is None or not path.exists():
        return None
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() == digest:
            _touch(path)
            return content
    _remove(path)
    return None


def remove_bytes(description: str) -> None:
    """Remove the compiled code so described."""
    folder = _own_folder()
    if folder is not None:
        _remove(folder / f"{name_of(description)}{COMPILED}")


def keep_bytes(description: str, content: bytes) -> None:
    """Keep compiled code for other processes, if there is a folder for it."""
    digest = hashlib.sha256(content).digest()
    _write_if_possible(f"{name_of(description)}{COMPILED}", digest + content)


def _write_if_possible(name: str, content: bytes) -> None:
    folder = _own_folder(make=True)
    if folder is not None:
        with contextlib.suppress(OSError):
            write(folder / name, content)
            _forget_oldest(folder)


def write(path: Path, content: bytes) -> None:
    """Write an entry at once: who reads it sees all of it or nothing."""
    handle, scratch = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def _loaded(name: str, path: Path) -> Callable | None:
    """The function that an entry defines; a broken entry is removed."""
    try:
        with open(path, "rb") as file:
            file.seek(-min(path.stat().st_size, len(LAST_LINE) + 1), os.SEEK_END)
            whole = file.read().decode().strip() == LAST_LINE
        if whole:
            spec = importlib.util.spec_from_file_location(f"{__package__}.stored.{name}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            _touch(path)
            return module.program
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the program is written anew
        pass
    _remove(path)
    return None


def _touch(path: Path) -> None:
    """Say that an entry was read, where that was long ago; its time of writing tells Python that
    bytecode is fresh.
    """
    with contextlib.suppress(OSError):
        known = path.stat()
        if time.time() - known.st_atime > DAY:
            os.utime(path, ns=(time.time_ns(), known.st_mtime_ns))


def _own_folder(make: bool = False) -> Path | None:
    """The user's folder; None where they want none (INTERLACE_JAX_CACHE=0), or where others may
    write to it.
    """
    if os.environ.get("INTERLACE_JAX_CACHE") == "0":
        return None
    try:
        folder = Path(platformdirs.user_cache_dir("interlace_jax")) / "programs"
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = folder.stat()
    except (OSError, RuntimeError):
        return None
    if hasattr(os, "getuid") and (
        known.st_uid != os.getuid() or known.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        return None
    return folder


def _forget_oldest(folder: Path) -> None:
    """Remove the entries that were not read for longest while there are too many bytes of them,
    and lost scratch.
    """
    known = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
    total = sum(found.st_size for _, found in known)
    for path, found in sorted(known, key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        is_lost = path.suffix == ".tmp" and time.time() - found.st_mtime > DAY
        if total > MOST_BYTES or is_lost:
            _remove(path)
            total -= found.st_size


def _remove(path: Path) -> None:
    """Remove an entry and its bytecode."""
    bytecode = [Path(importlib.util.cache_from_source(str(path)))] if path.suffix == ".py" else []
    for file in (path, *bytecode):
        with contextlib.suppress(OSError):
            file.unlink()
