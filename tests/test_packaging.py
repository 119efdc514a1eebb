"""What the project promises about itself: names, floors, files, versions."""

import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

import funlens
from funlens._version import __version__

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = sorted((ROOT / "funlens").rglob("*.py"))
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES: Final = sorted(
    info.name
    for info in pkgutil.iter_modules(funlens.__path__)
    if not info.name.startswith("_")
)
PUBLIC: Final = ["funlens", *(f"funlens.{name}" for name in MODULES)]
KINDS: Final = {row["directory"] for row in PROJECT["tool"]["towncrier"]["type"]}


def lines_with(pattern: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """The lines of the package that match `pattern`, outside the folders `but`."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[1] not in but
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(pattern, line)
    ]


def floors() -> set[str]:
    """The packages that the import contract places on a floor."""
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    return set(re.findall(r"\w+", " ".join(contract["layers"])))


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_sorted_and_unique(name: str) -> None:
    """Each public package lists its names in one order, each once."""
    exported = importlib.import_module(name).__all__
    assert sorted(set(exported)) == list(exported)


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_complete(name: str) -> None:
    """What a public package exports exists, and what it defines is exported."""
    module = importlib.import_module(name)
    public = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, type(importlib))
        and str(getattr(value, "__module__", "")).startswith("funlens")
    }
    missing = sorted(public - set(module.__all__))
    absent = sorted(key for key in module.__all__ if not hasattr(module, key))
    assert ([], []) == (missing, absent)


def test_every_package_has_a_floor() -> None:
    """The import contract knows every module of the top level."""
    assert set() == set(MODULES) - floors()


def test_init_files_only_reexport() -> None:
    """A package's `__init__` defines no function and no class."""
    found = [
        line
        for line in lines_with(r"^(async def|def|class) ")
        if line.split(":")[0].endswith("__init__.py")
    ]
    assert [] == found


def test_no_module_hides_its_types() -> None:
    """Types are real at run time, for the checkers and for autodoc."""
    assert [] == lines_with(r"from __future__ import annotations|\bTYPE_CHECKING\b")


@pytest.mark.parametrize(
    "pattern", [r"\.register_\w*hook\(", r"import _pytree|utils\._pytree"]
)
def test_hooks_and_pytrees_are_met_in_one_file_each(pattern: str) -> None:
    """One file registers hooks, and one registers records as pytrees."""
    found = lines_with(pattern, but=("builtin", "testing"))
    assert len({line.split(":")[0] for line in found}) <= 1, found


def test_a_suppression_says_why() -> None:
    """`noqa` and `pyright: ignore` name a rule and give a reason on the same line."""
    reasoned = r"# (noqa: [A-Z0-9, ]+|pyright: ignore\[[\w, ]+\]) (-- |\()\S"
    found = lines_with(r"# *(noqa|pyright: *ignore|type: *ignore)")
    assert [] == [line for line in found if not re.search(reasoned, line)]


def test_importing_funlens_loads_no_heavy_package() -> None:
    """`import funlens` loads torch, and nothing of the kind beside it."""
    heavy = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    program = "import sys, torch; before = set(sys.modules); import funlens\n"
    program += "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True,
        check=True,
        text=True,
    )
    loaded = set(done.stdout.split())
    assert [] == sorted(loaded.intersection(heavy["banned-module-level-imports"]))


def test_fragments_have_valid_names() -> None:
    """Every changelog fragment has a slug and a kind that towncrier knows."""
    names = [path.name for path in (ROOT / "changelog.d").iterdir()]
    shape = re.compile(rf"(\+[a-z0-9-]+|\d+)\.({'|'.join(sorted(KINDS))})\.md")
    wrong = [
        name for name in names if name != "README.md" and not shape.fullmatch(name)
    ]
    assert [] == wrong


def test_the_version_stands_in_one_place() -> None:
    """The installed distribution carries the version of `funlens/_version.py`."""
    assert __version__ == importlib.metadata.version("funlens")


def test_the_floors_of_the_dependencies_are_the_tested_ones() -> None:
    """Each `>=` of the project has its `==` in constraints-minimums.txt."""
    stated = {
        re.sub(r"\[.*\]", "", name): floor
        for name, floor in (
            requirement.split(">=")
            for requirement in PROJECT["project"]["dependencies"]
        )
    }
    lines = (ROOT / "constraints-minimums.txt").read_text().splitlines()
    tested = dict(
        line.split("==") for line in lines if line and not line.startswith("#")
    )
    differing = {
        name: (floor, tested.get(name))
        for name, floor in stated.items()
        if not f"{tested.get(name, '')}.".startswith(f"{floor}.")
    }
    assert {} == differing


def test_the_wheel_carries_its_data() -> None:
    """The types marker and the embedded model are installed with the package."""
    package = Path(funlens.__file__).parent
    model = package / "builtin" / "tiny"
    assert (package / "py.typed").is_file()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in model.iterdir()
    }


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_import_leaves_the_collector_as_it_was(state: str) -> None:
    """Collection pauses while funlens is imported, and only then."""
    program = f"import gc; gc.{state}(); import funlens; print(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert str(state == "enable") == done.stdout.strip()
