"""What is written is complete or was never there; what fails is an error; what was damaged is named."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError


class Failing(storage.System):
    """An operating system whose Nth durable call fails, as on a full disk."""

    def __init__(self, nth: int):
        self.left, self.done = nth, []

    def call(self, name: str):
        self.done.append(name)
        self.left -= 1
        if self.left == 0:
            raise OSError(28, f"No space left on device ({name})")

    def write(self, file, data):
        self.call("write")
        super().write(file, data)

    def fsync(self, descriptor):
        self.call("fsync")
        super().fsync(descriptor)

    def rename(self, old, new):
        self.call("rename")
        super().rename(old, new)

    def open(self, path):
        self.call("open")
        return super().open(path)

    def make_folder(self, folder):
        self.call("make_folder")
        super().make_folder(folder)


@pytest.fixture
def failing(monkeypatch):
    def install(nth: int) -> Failing:
        system = Failing(nth)
        monkeypatch.setattr(storage, "system", system)
        return system

    return install


def fill(folder):
    (folder / "a.txt").write_text("a")
    (folder / "deep").mkdir()
    storage.write_file(folder / "deep" / "b.txt", "b")


def names(folder) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# Files.


def test_a_file_is_written_synced_renamed_and_its_folder_synced(tmp_path, failing):
    system = failing(0)
    storage.write_file(tmp_path / "f", "héllo")
    assert (tmp_path / "f").read_bytes() == "héllo".encode()
    assert system.done == ["open", "write", "fsync", "rename", "fsync"]
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, failing, nth):
    storage.write_file(tmp_path / "f", b"old")
    failing(nth)
    with pytest.raises(OSError, match="No space left"):
        storage.write_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old" and names(tmp_path) == ["f"]


def test_a_failed_sync_of_the_folder_is_a_failed_write(tmp_path, failing):
    failing(5)
    with pytest.raises(OSError, match="No space left"):
        storage.write_file(tmp_path / "f", b"new")
    assert names(tmp_path) == ["f"]  # complete, and reported as not safe


def test_pieces_are_hashed_and_written_atomically_too(tmp_path, failing):
    pieces = [b"a" * 100_000, memoryview(b"b" * 5), b"", bytearray(b"c")]
    with ThreadPoolExecutor(1) as hashing:
        written = storage.write_file(tmp_path / "target", iter(pieces), hashing)
        written["sha256"] = written["sha256"].result()
    whole = b"".join(bytes(piece) for piece in pieces)
    assert (tmp_path / "target").read_bytes() == whole
    assert written == {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    for nth in range(1, 7):
        failing(nth)
        with pytest.raises(OSError, match="No space left"):
            storage.write_file(tmp_path / "target", iter([b"new"] * 4))
        assert (tmp_path / "target").read_bytes() == whole and names(tmp_path) == ["target"]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path, monkeypatch):
    storage.system.append(tmp_path / "log", b"old\n")
    real, room = os.write, 6

    def nearly_full(descriptor, data):
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        taken = real(descriptor, data[:room])
        room -= taken
        return taken

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="No space left"):
        storage.system.append(tmp_path / "log", b"a long line\n")
    assert (tmp_path / "log").read_bytes() == b"old\n"


def test_a_tree_is_removed_and_its_links_are_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    fill(tmp_path / "kept")
    (tmp_path / "doomed" / "deep").mkdir(parents=True)
    os.symlink(tmp_path / "kept", tmp_path / "doomed" / "deep" / "link")
    storage.remove_tree(tmp_path / "doomed")
    assert names(tmp_path) == ["kept", "kept/a.txt", "kept/deep", "kept/deep/b.txt"]


def test_json_is_written_readably_and_read_back(tmp_path):
    value = {"z": [1, 2.5, None], "ä": "四"}
    storage.write_json(tmp_path / "v.json", value)
    assert storage.read_json(tmp_path / "v.json") == value
    text = (tmp_path / "v.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "四" in text and text.index('"z"') < text.index('"ä"')
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "v.json", {"loss": float("nan")})
    assert storage.read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1} x'])
def test_damaged_json_is_named(tmp_path, data):
    (tmp_path / "v.json").write_bytes(data)
    with pytest.raises(RunError, match=r"v\.json is damaged"):
        storage.read_json(tmp_path / "v.json")


# Folders.


def test_a_folder_appears_complete(tmp_path):
    with storage.new_folder(tmp_path / "up" / "new") as tmp:
        fill(tmp)
        assert not (tmp_path / "up" / "new").exists() and tmp.name.startswith(storage.TEMPORARY)
    assert names(tmp_path) == ["up", "up/new", "up/new/a.txt", "up/new/deep", "up/new/deep/b.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_whose_filling_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        with storage.new_folder(tmp_path / "new") as tmp:
            fill(tmp)
            raise error
    assert names(tmp_path) == []


def test_a_failing_system_leaves_no_folder_at_any_call(tmp_path, failing):
    system = failing(0)
    with storage.new_folder(tmp_path / "probe") as tmp:
        fill(tmp)
    calls = len(system.done)
    storage.remove_tree(tmp_path / "probe")
    assert calls >= 8
    for nth in range(1, calls):  # the last one syncs the folder above, when the new one is there already
        failing(nth)
        with pytest.raises(OSError, match="No space left"):
            with storage.new_folder(tmp_path / "new") as tmp:
                fill(tmp)
        assert names(tmp_path) == []


def test_a_folder_that_is_there_already_is_kept(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "old.txt").write_text("old")
    with pytest.raises(OSError):
        with storage.new_folder(tmp_path / "new") as tmp:
            fill(tmp)
    assert names(tmp_path) == ["new", "new/old.txt"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "tmp-1-checkpoint").mkdir()
    (tmp_path / "tmp-1-checkpoint" / "x").write_text("x")
    (tmp_path / "tmp-2-run.json").write_text("x")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").write_text("x")
    os.symlink(tmp_path / "kept", tmp_path / "tmp-link")
    storage.remove_temporary(tmp_path)
    assert names(tmp_path) == ["kept", "kept/mine"]


def test_sweep_removes_what_a_killed_process_left_of_one_name_and_lets_the_living_be(tmp_path):
    for name in ("tmp-1-new", "tmp-2-new", "tmp-1-other-new", "tmp-1-new.unfinished"):
        (tmp_path / name / "deep").mkdir(parents=True)
    with storage.new_folder(tmp_path / "new") as alive:
        storage.sweep(tmp_path / "new")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [alive.name, "tmp-1-other-new", "tmp-1-new.unfinished"]
        )
    assert (tmp_path / "new").is_dir()
    storage.sweep(tmp_path / "nowhere" / "new")


def test_files_get_the_mode_of_a_plain_write(tmp_path):
    (tmp_path / "private").write_text("x")
    (tmp_path / "private").chmod(0o600)
    (tmp_path / "plain").write_text("x")
    storage.open_to_umask(tmp_path)
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Manifests.


@pytest.fixture
def sealed(tmp_path):
    fill(tmp_path)
    storage.write_manifest(tmp_path, {"step": 3})
    return tmp_path


def test_an_unharmed_folder_has_no_damage(sealed):
    assert storage.damage(sealed) is None
    manifest = storage.read_json(sealed / storage.MANIFEST)
    assert manifest["step"] == 3 and set(manifest["files"]) == {"a.txt", "deep/b.txt"}
    (sealed / "later.txt").write_text("more is no damage")
    assert storage.damage(sealed) is None


def flip_a_bit(path, after: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(after) + len(after)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "a.txt").unlink(), "a.txt is missing"),
        (lambda f: (f / "a.txt").write_text("aa"), "a.txt has 2 bytes instead of 1"),
        (lambda f: (f / "deep/b.txt").write_text("c"), "deep/b.txt has other content than when it was saved"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text("[1]"), "manifest.json is damaged"),
        (lambda f: flip_a_bit(f / "manifest.json", b'"step": '), "manifest.json is damaged"),
        (lambda f: flip_a_bit(f / "manifest.json", b'  "ste'), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text("{}"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text('{"files": {"a.txt": 3}}'), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text('{"files": {"a.txt": {"size": 1}}}'), "manifest.json is damaged"),
        (lambda f: ((f / "manifest.json").unlink(), (f / "manifest.json").mkdir()), "manifest.json is damaged"),
    ],
)
def test_damage_is_told_in_words(sealed, harm, words):
    harm(sealed)
    assert storage.damage(sealed) == words


def test_hashes_follow_the_content(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert storage.file_hash(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert storage.value_hash({"a": 1, "b": [2]}) == storage.value_hash(json.loads('{"b": [2], "a": 1}'))
    assert storage.value_hash({"a": 1}) != storage.value_hash({"a": 2})


# The lock.

SECOND = """
import sys
from pathlib import Path
from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
try:
    with storage.lock(Path(sys.argv[1])):
        print("held")
except UsageError as error:
    print(error)
"""


def second_process(folder) -> str:
    return subprocess.run(
        [sys.executable, "-c", SECOND, folder], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    with storage.lock(tmp_path):
        line = second_process(tmp_path)
        assert line.startswith(f"{tmp_path} is in use by process {os.getpid()} on ")
        assert "one run per folder" in line and "another --output_dir" in line
        with pytest.raises(UsageError, match="is in use by process"):
            with storage.lock(tmp_path):
                raise AssertionError("a second owner")
    assert second_process(tmp_path) == "held"


def test_the_lock_dies_with_a_killed_owner(tmp_path):
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SECOND.replace('print("held")', 'print("held", flush=True); sys.stdin.read()'),
            tmp_path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout.readline().strip() == "held"
    assert f"process {owner.pid} " in second_process(tmp_path)
    owner.kill()
    owner.communicate()
    assert second_process(tmp_path) == "held"


def test_the_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ValueError):
        with storage.lock(tmp_path):
            raise ValueError
    with storage.lock(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / storage.LOCK).read_text()


def test_sizes_are_written_for_people():
    sizes = [storage.format_size(n) for n in (5, 1536, 3 * 2**30, 2**60)]
    assert sizes == ["5 bytes", "1.5 KiB", "3.0 GiB", "1024.0 PiB"]
