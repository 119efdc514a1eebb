"""Laws on another version of transformers: what it lacks is skipped, with a reason."""

from collections.abc import Mapping
from typing import Any, Final

import pytest
import transformers

from funlens.adapters._verified import VERIFIED
from funlens.testing import RECIPES

TYPES: Final = {row.name: row.config_type or row.model_type for row in RECIPES}
UNBUILT: Final[Mapping[str, str]] = {
    "cohere_compass_text": "5.20.0",  # it rotates by no less than three sections
}
"""Recipes that a version of HuggingFace's own code cannot build."""


@pytest.fixture(autouse=True)
def is_there(request: pytest.FixtureRequest) -> None:
    """Skip what another version does not have; the verified one has everything."""
    installed = transformers.__version__
    callspec: Any = getattr(request.node, "callspec", None)
    name = callspec.params.get("name") if callspec else None
    if name not in TYPES or installed == VERIFIED:
        return
    if TYPES[name] not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {installed} has no {TYPES[name]}")
    if installed == UNBUILT.get(name):
        pytest.skip(f"transformers {installed} cannot build this {name}")
