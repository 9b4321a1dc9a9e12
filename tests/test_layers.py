"""The house keeps its shape: who may import whom, who may speak to the terminal, how long a file may be and what it is called."""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

import tinygpt_hf

PACKAGE = Path(tinygpt_hf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

# Rooms in the order data passes through them. Each may import these three, its own files and the rooms before it; the files
# that stand outside the rooms bring them together and may import anything.
FOR_ALL = {"errors", "storage", "settings"}
ROOMS = (
    "toyland", "reading", "tokenizing", "rows", "model", "inference", "evaluation", "inspection", "cards", "curation", "export",
    "hub", "planning", "training",
)  # fmt: skip
MAY_SPEAK = {"cli.py", "commands.py", "training/log.py", "inference/chat.py"}
# A program that runs in a process of its own, where our package cannot be imported, and answers with a line of JSON.
PROVERS = {"export/verify.py"}
OWN_PICKLES = {"tokenizing/process_map.py"}  # between a process and those it started, through a pipe nobody else has
LONGEST, LONGEST_SEALED = 450, 500
NO_CONCEPT = {"utils", "util", "helpers", "helper", "common", "misc"}

# The sealed pair travels to the Hub: what it imports must be there on the reader's machine.
SEALED = {"model/configuration_tinygpt.py", "model/modeling_tinygpt.py"}
ON_EVERY_MACHINE = {"torch", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)

# On the path of `import tinygpt_hf` and of every --help: only the standard library at the top.
LIGHT = {"__init__.py", "__main__.py", "_moved.py", "_register.py", "cli.py", "commands.py", "errors.py", "storage.py"}


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def own_imports(node: ast.AST, room: str) -> set[str]:
    """The first word after `tinygpt_hf` of everything imported below `node`, wherever it stands in the file."""
    modules = []
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            modules += [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            assert part.level <= 1, "relative imports stay inside their room"
            base = ".".join(filter(None, [f"tinygpt_hf.{room}" if part.level else "", part.module]))
            modules += [f"{base}.{alias.name}" for alias in part.names]
    return {module.split(".")[1] for module in modules if module.startswith("tinygpt_hf.")}


def all_imports(node: ast.AST) -> set[str]:
    """The top package of everything imported below `node`; a dot for relative imports."""
    parts = list(ast.walk(node))
    names = [alias.name for part in parts if isinstance(part, ast.Import) for alias in part.names]
    names += ["." if part.level else part.module for part in parts if isinstance(part, ast.ImportFrom)]
    return {name if name == "." else name.split(".")[0] for name in names}


def room_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("name", [name for name in NAMES if room_of(name) in ROOMS])
def test_a_room_imports_itself_and_the_rooms_before_it(name):
    room = room_of(name)
    assert own_imports(tree(name), room) <= FOR_ALL | set(ROOMS[: ROOMS.index(room) + 1])


@pytest.mark.parametrize("name", [name for name in NAMES if room_of(name) in FOR_ALL])
def test_what_every_room_may_import_imports_no_room(name):
    assert own_imports(tree(name), room_of(name)) <= FOR_ALL


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {"settings", *ROOMS}


def test_the_table_sees_imports_inside_functions_and_of_the_package():
    code = "def f():\n    from tinygpt_hf.rows import store\n    import tinygpt_hf.model.conversion\nfrom tinygpt_hf import storage"
    assert own_imports(ast.parse(code), "training") == {"rows", "model", "storage"}
    assert own_imports(ast.parse("from .configuration_tinygpt import x"), "model") == {"model"}


@pytest.mark.parametrize("name", sorted(SEALED))
def test_the_sealed_pair_imports_nothing_of_ours(name):
    assert all_imports(tree(name)) - {"."} <= ON_EVERY_MACHINE
    assert own_imports(tree(name), "model") <= {"model"}
    siblings = {part.module for part in ast.walk(tree(name)) if isinstance(part, ast.ImportFrom) and part.level}
    assert siblings <= {"configuration_tinygpt"}


@pytest.mark.parametrize("name", [n for n in NAMES if n in LIGHT or n.startswith("settings/")])
def test_files_on_the_path_of_help_import_only_the_standard_library_at_the_top(name):
    top = ast.Module([node for node in tree(name).body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
    assert all_imports(top) <= set(sys.stdlib_module_names) | {"tinygpt_hf"}
    assert own_imports(top, room_of(name)) <= FOR_ALL | {"cli", "commands", "_moved", "_register", "__version__"}


@pytest.mark.parametrize("name", sorted(PROVERS))
def test_a_prover_imports_nothing_of_ours(name):
    assert not {"tinygpt_hf", "."} & all_imports(tree(name))


STREAMS = {"sys.stdout.write", "sys.stderr.write", "sys.__stdout__.write", "sys.stdout.buffer", "sys.stderr.buffer"}


def speaks(node: ast.AST) -> list[str]:
    """Calls of print and writes to the standard streams, as source text."""
    parts = list(ast.walk(node))
    calls = [part for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)]
    spoken = [ast.unparse(call) for call in calls if call.func.id in ("print", "input")]
    return spoken + [
        text for part in parts if isinstance(part, ast.Attribute) and (text := ast.unparse(part)) in STREAMS
    ]


@pytest.mark.parametrize("name", [n for n in NAMES if n not in MAY_SPEAK | PROVERS])
def test_only_four_files_speak_to_the_terminal(name):
    assert speaks(tree(name)) == []


def test_the_check_of_speech_hears():
    assert len(speaks(ast.parse("print(1)\nsys.stdout.write('x')\nx = input()\nsys.stderr.buffer"))) == 4
    assert speaks(ast.parse('"""print(1)"""\nsys.stdout.isatty()')) == []
    assert all(speaks(tree(name)) for name in MAY_SPEAK - {"inference/chat.py"})


@pytest.mark.parametrize("name", NAMES)
def test_files_are_short_named_by_a_noun_and_say_what_they_promise(name):
    path = PACKAGE / name
    longest = LONGEST_SEALED if name in SEALED else LONGEST
    assert len(path.read_text(encoding="utf-8").splitlines()) <= longest
    assert path.stem not in NO_CONCEPT
    assert path.stat().st_size == 0 or ast.get_docstring(tree(name))


@pytest.mark.parametrize("name", NAMES)
def test_no_machine_or_pickle_is_named(name):
    text = (PACKAGE / name).read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.*<])/(?:home|mnt|root|tmp|work)/", text)
    assert name in OWN_PICKLES or "pickle" not in all_imports(tree(name))
    assert "trust_remote_code=True" not in text
