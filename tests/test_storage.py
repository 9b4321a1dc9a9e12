"""Storage: what is written is complete or absent, failures raise, and damage is named."""

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
    """A system whose Nth disk call fails, as on a full disk."""

    def __init__(self, nth: int):
        self.left, self.done = nth, []

    def _call(self, name: str):
        self.done.append(name)
        self.left -= 1
        if self.left == 0:
            raise OSError(28, f"No space left on device ({name})")


def _counted(name: str):
    def call(self, *words):
        self._call(name)
        return getattr(storage.System, name)(self, *words)

    return call


for _name in ("open", "write", "fsync", "rename", "make_folder"):
    setattr(Failing, _name, _counted(_name))


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


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_write_that_fails_leaves_the_old_file_or_the_new_and_nothing_else(tmp_path, failing, nth):
    storage.write_file(tmp_path / "f", b"old")
    failing(nth)
    with pytest.raises(OSError, match="No space left"):
        storage.write_file(tmp_path / "f", b"new")
    # the last call syncs the folder: the file is complete, and reported as not safe
    assert (tmp_path / "f").read_bytes() == (b"new" if nth == 5 else b"old") and names(tmp_path) == ["f"]


def test_pieces_are_hashed_while_they_are_written(tmp_path):
    pieces = [b"a" * 100_000, memoryview(b"b" * 5), b"", bytearray(b"c")]
    with ThreadPoolExecutor(1) as hashing:
        written = storage.write_file(tmp_path / "target", iter(pieces), hashing)
        written["sha256"] = written["sha256"].result()
    data = b"".join(bytes(piece) for piece in pieces)
    assert (tmp_path / "target").read_bytes() == data
    assert written == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert storage.file_hash(tmp_path / "target") == written["sha256"]


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
    fill(tmp_path)
    with pytest.raises(OSError), storage.new_folder(tmp_path / "deep") as tmp:
        fill(tmp)
    assert names(tmp_path) == ["a.txt", "deep", "deep/b.txt"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "tmp-1-checkpoint").mkdir()
    (tmp_path / "tmp-1-checkpoint" / "x").write_text("x")
    (tmp_path / "tmp-2-run.json").write_text("x")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").write_text("x")
    os.symlink(tmp_path / "kept", tmp_path / "tmp-link")
    storage.remove_temporary(tmp_path)
    assert names(tmp_path) == ["kept", "kept/mine"]


def test_sweep_removes_leftovers_of_killed_processes_only(tmp_path):
    for name in ("tmp-1-new", "tmp-2-new", "tmp-1-other-new", "tmp-1-new.unfinished"):
        (tmp_path / name / "deep").mkdir(parents=True)
    with storage.new_folder(tmp_path / "new") as alive:
        storage.sweep(tmp_path / "new")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {alive.name, "tmp-1-other-new", "tmp-1-new.unfinished"}
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
    assert storage.find_damage(sealed) is None
    manifest = storage.read_json(sealed / storage.MANIFEST)
    assert manifest["step"] == 3 and set(manifest["files"]) == {"a.txt", "deep/b.txt"}
    (sealed / "later.txt").write_text("more is no damage")
    assert storage.find_damage(sealed) is None


def in_manifest(old: str, new: str):
    def harm(folder) -> None:
        text = (folder / "manifest.json").read_text()
        assert old in text
        (folder / "manifest.json").write_text(text.replace(old, new))

    return harm


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "a.txt").unlink(), "a.txt is missing"),
        (lambda f: (f / "a.txt").write_text("aa"), "a.txt has 2 bytes instead of 1"),
        (lambda f: (f / "deep/b.txt").write_text("c"), "deep/b.txt has other content than when it was saved"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: ((f / "manifest.json").unlink(), (f / "manifest.json").mkdir()), "manifest.json is damaged"),
        (in_manifest('"step": 3', '"step": 4'), "manifest.json is damaged"),
        *(
            (lambda f, text=text: (f / "manifest.json").write_text(text), "manifest.json is damaged")
            for text in ("{", "[1]", "{}", '{"files": {"a.txt": 3}}', '{"files": {"a.txt": {"size": 1}}}')
        ),
    ],
)
def test_damage_is_described(sealed, harm, words):
    harm(sealed)
    assert storage.find_damage(sealed) == words


def test_the_hash_of_a_value_depends_on_content_not_order():
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
        print("held", flush=True)
        sys.stdin.read()
except UsageError as error:
    print(error)
"""


def second_process(folder) -> str:
    command = [sys.executable, "-c", SECOND, folder]
    return subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout.strip()


def test_a_second_owner_is_refused_until_the_first_ends_or_is_killed(tmp_path):
    with pytest.raises(ValueError), storage.lock(tmp_path):
        line = second_process(tmp_path)
        assert line.startswith(f"{tmp_path} is in use by process {os.getpid()} on ")
        with pytest.raises(UsageError, match="is in use by process"):
            with storage.lock(tmp_path):
                raise AssertionError("a second owner")
        raise ValueError  # an error releases the lock too
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    owner = subprocess.Popen([sys.executable, "-c", SECOND, tmp_path], **pipes)
    assert owner.stdout.readline().strip() == "held"
    assert f"process {owner.pid} " in second_process(tmp_path)
    owner.kill()
    owner.communicate()
    assert second_process(tmp_path) == "held"


def test_sizes_are_written_for_people():
    sizes = [storage.format_size(n) for n in (5, 1536, 3 * 2**30, 2**60)]
    assert sizes == ["5 bytes", "1.5 KiB", "3.0 GiB", "1024.0 PiB"]


def test_devices_are_written_directly_and_links_keep_their_target(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    storage.write_file(storage.resolve_link(tmp_path / "pipe"), "heard")
    assert os.read(reader, 9) == b"heard" and [path.name for path in tmp_path.iterdir()] == ["pipe"]
    os.close(reader)
    for name in ("file", "nowhere"):
        (tmp_path / f"to {name}").symlink_to(name)
        storage.write_file(storage.resolve_link(tmp_path / f"to {name}"), "new")
        assert (tmp_path / f"to {name}").is_symlink() and (tmp_path / name).read_text() == "new"
    assert storage.resolve_link(tmp_path / "pipe") == tmp_path / "pipe"
