"""Every Python block in README, docs and docstrings runs."""

import contextlib
import os
from pathlib import Path
from typing import Final
from unittest import SkipTest

import pytest
from sybil import Document, Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers import myst, rest

import funlens

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = Path(funlens.__file__).parent
PROSE: Final = Sybil(
    parsers=[myst.PythonCodeBlockParser(), myst.SkipParser()],
    path=str(ROOT),
)
DOCSTRINGS: Final = Sybil(
    parsers=[rest.DocTestParser(), rest.SkipParser()],
    path=str(PACKAGE),
    document_types={".py": PythonDocStringDocument},
)
PAGES: Final = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "```python" in path.read_text()
]
MODULES: Final = [
    path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()
]


def run_all(document: Document, folder: Path) -> None:
    """Run a document's examples in order, in one namespace, in an empty folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for example in document.examples():
            with contextlib.suppress(SkipTest):  # this example only, not the page
                example.evaluate()
    finally:
        os.chdir(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """A page read from top to bottom runs as it stands."""
    run_all(PROSE.parse(page), tmp_path)


@pytest.mark.parametrize(
    "module",
    MODULES,
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_examples_of_a_module_run(module: Path, tmp_path: Path) -> None:
    """The examples in a module's docstrings give the results that stand there."""
    run_all(DOCSTRINGS.parse(module), tmp_path)
