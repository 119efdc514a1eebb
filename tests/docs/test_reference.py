"""The reference is complete: every public name can be looked up."""

import importlib
import re
from pathlib import Path
from typing import Final

import pytest

import funlens
from tests.test_packaging import MODULES

REFERENCE: Final = Path(__file__).parents[2] / "docs" / "reference"
DIRECTIVE: Final = re.compile(r"^\.\. auto(\w+):: ([\w.]+)", re.MULTILINE)


def documented() -> set[str]:
    """The names that the pages document, without their packages."""
    names: set[str] = set()
    for page in sorted(REFERENCE.glob("*.md")):
        for kind, target in DIRECTIVE.findall(page.read_text()):
            if kind == "module":
                names.update(importlib.import_module(target).__all__)
            else:
                names.add(target.rsplit(".", 1)[-1])
    return names


def test_every_public_name_is_in_the_reference() -> None:
    """Each name of `funlens.__all__` is documented under docs/reference."""
    assert [] == sorted(
        name
        for name in set(funlens.__all__) - documented()
        if not name.startswith("__") and name not in MODULES
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_package_has_a_page(name: str) -> None:
    """Each public package has its page under docs/reference."""
    assert (REFERENCE / f"{name}.md").is_file()
