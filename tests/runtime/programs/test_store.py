"""Programs on disk: found again, never half written, never believed when broken, never needed."""

import json
import os
import subprocess
import sys
import textwrap
import zipfile

import pytest

from interlace_jax.runtime.programs import store

SOURCE = "def program(x):\n    return x + 1\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setattr(store.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    monkeypatch.delenv("INTERLACE_JAX_CACHE", raising=False)
    return tmp_path / "cache" / "programs"


def test_a_program_is_found_by_what_it_is_made_for():
    assert store.find("a program") is None
    store.keep("a program", SOURCE)
    assert store.find("a program")(1) == 2
    assert store.find("another") is None


def test_the_folder_is_its_owners_alone(home):
    store.keep("a program", SOURCE)
    assert home.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_may_write_to_is_not_read(home):
    store.keep("a program", SOURCE)
    home.chmod(0o777)
    assert store.find("a program") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "not Python (\n" + store.LAST_LINE + "\n",
        lambda text: "raise ValueError\n" + store.LAST_LINE + "\n",
        lambda text: store.LAST_LINE + "\n",
        lambda text: "\0" * 100,
    ],
)
def test_a_broken_entry_is_removed_and_never_an_error(home, damage):
    store.keep("a program", SOURCE)
    path = home / f"{store.name_of('a program')}.py"
    path.write_text(damage(path.read_text()))
    assert store.find("a program") is None
    assert not path.exists()
    store.keep("a program", SOURCE)
    assert store.find("a program")(1) == 2


def test_compiled_code_is_found_whole_or_not_at_all(home):
    store.keep_bytes("a program", b"code")
    (path,) = home.glob("*.xla")
    assert store.find_bytes("a program") == b"code" and store.find_bytes("another") is None
    for damaged in (b"", path.read_bytes()[:-1], b"x" + path.read_bytes()[1:]):
        store.keep_bytes("a program", b"code")
        path.write_bytes(damaged)
        assert store.find_bytes("a program") is None
        assert not path.exists()


def test_a_change_of_the_kernels_own_file_makes_another_program(tmp_path, monkeypatch):
    before = store.name_of("interlace_jax.engines.dense:_search\n")
    monkeypatch.setattr(store, "_file_fingerprint", lambda kernel: f"changed {kernel}")
    assert store.name_of("interlace_jax.engines.dense:_search\n") != before


def test_the_switch_turns_it_off(home, monkeypatch):
    monkeypatch.setenv("INTERLACE_JAX_CACHE", "0")
    store.keep("a program", SOURCE)
    assert not home.exists() and store.find("a program") is None


def test_without_a_home_there_is_no_store_and_no_error(monkeypatch):
    def none(name):
        raise RuntimeError("no home")

    monkeypatch.setattr(store.platformdirs, "user_cache_dir", none)
    store.keep("a program", SOURCE)
    assert store.find("a program") is None


def test_a_place_that_is_no_folder_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(store.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "file"))
    store.keep("a program", SOURCE)
    assert store.find("a program") is None


def test_what_was_not_read_for_longest_goes_first(home, monkeypatch):
    monkeypatch.setattr(store, "MOST_BYTES", 3 * 400)
    text = SOURCE + "#" * 350 + "\n"
    for i in range(3):
        store.keep(f"program {i}", text)
        path = home / f"{store.name_of(f'program {i}')}.py"
        os.utime(path, (1_000_000 + i, 1_000_000 + i))
    assert store.find("program 0") is not None  # read now
    store.keep("program 3", text)
    assert [store.find(f"program {i}") is not None for i in range(4)] == [True, False, True, True]


def test_an_interrupted_write_leaves_nothing_behind(home, monkeypatch):
    store.keep("a program", SOURCE)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.keep("another", SOURCE)
    assert {path.suffix for path in home.iterdir() if path.is_file()} == {".py"}


def packed(tmp_path, monkeypatch, name, text):
    """An archive of one program in place of the package's own."""
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "shipped.zip")
    with zipfile.ZipFile(tmp_path / "shipped.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(f"{store.name_of(name)}.py", text)


def test_programs_come_with_the_package_and_move_to_the_users_folder(home, tmp_path, monkeypatch):
    packed(tmp_path, monkeypatch, "a program", SOURCE)
    assert store.find("another") is None and not home.exists()
    assert store.find("a program")(1) == 2
    assert (home / f"{store.name_of('a program')}.py").exists()
    monkeypatch.setenv("INTERLACE_JAX_CACHE", "0")
    assert store.find("a program")(1) == 2


def test_a_broken_archive_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "shipped.zip")
    store.SHIPPED.write_bytes(b"PK no archive")
    assert store.find("a program") is None


def test_the_programs_that_come_with_the_package_are_of_its_kernels():
    with zipfile.ZipFile(store.SHIPPED) as archive:
        made_from = archive.comment.decode()
    kernels = json.loads(made_from)["kernels"]
    assert store.provenance(kernels) == made_from, "run scripts/ship_programs.py"


def test_eight_processes_write_and_read_the_same_entries_at_once(tmp_path):
    code = f"""
        from interlace_jax.runtime.programs import store
        long = "# " + 12_000 * "x" + "\\n"
        store.platformdirs.user_cache_dir = lambda name: {str(tmp_path / "shared")!r}
        for i in range(30):
            store.keep(f"program {{i % 5}}", long + {SOURCE!r})
            assert store.find(f"program {{i % 5}}")(i) == i + 1
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate()[1] for process in processes] == [""] * 8
