"""Laws on another version of transformers."""

from typing import Any

import pytest

from tests.another_version import skip_absent, why_apart


@pytest.fixture(autouse=True)
def is_there(request: pytest.FixtureRequest) -> None:
    """Skip what another version does not have, and expect what it does otherwise."""
    callspec: Any = getattr(request.node, "callspec", None)
    name = callspec.params.get("name") if callspec else None
    if name is None:
        return
    skip_absent(name)
    why = why_apart(name)
    if why and request.node.originalname == "test_every_law_holds":
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
