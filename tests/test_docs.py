"""docs/compatibility.md: every row has its test, and its versions are those the test runs with."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
PINS = {name.lower().replace("_", "-"): version for name, version in PINS.items()}


def rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "compatibility.md").read_text().splitlines()
    table = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def test_the_table_is_there_and_no_row_twice():
    assert len(rows()) > 5 and len({(what, test) for what, _, _, test in rows()}) == len(rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_row_names_tests_that_exist_and_the_versions_they_run_with(row):
    what, versions, shown, tests = row
    assert what and shown
    sources = ""
    for place in re.findall(r"`(tests/[^`]+)`", tests) or pytest.fail(f"no test in {tests}"):
        path, _, name = place.partition("::")
        sources += (ROOT / path).read_text()
        assert not name or re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), place
        assert name or re.search(r"^def test_|__main__", (ROOT / path).read_text(), re.M), f"{path} holds no test"
    for package, version in re.findall(r"([\w-]+) (\d[\w.]*)", versions) or pytest.fail(f"no version in {versions}"):
        pinned_here = f'"{package}=={version}"' in sources  # a client in an environment of its own
        assert pinned_here or PINS.get(package.lower().replace("_", "-")) == version, f"{package} {version}"
