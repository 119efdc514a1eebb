"""What the tests of laws share: which rows run always, and the check itself."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

import funlens as fl
from funlens.testing import Recipe, tiny_inputs
from tests.models._verified import built


def marked(rows: Iterable[Recipe], always: Collection[str]) -> list[Any]:
    """Mark all rows but those that always run as belonging to the whole table."""
    whole = pytest.mark.architectures
    return [
        pytest.param(row.name, marks=[] if row.name in always else [whole])
        for row in rows
    ]


def check_every_law(name: str) -> None:
    """Check each law that applies, against a model that funlens never saw."""
    spec, untouched = fl.from_module(built(name)), built(name)
    certificate = fl.verify(spec, tiny_inputs(name), untouched=untouched)
    assert [] == [row for row in certificate.rows if not row.holds]
