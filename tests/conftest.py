"""What holds for every test: no network, one thread, shape checks on."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import attrs
import hypothesis
import pytest
import torch
from beartype import beartype
from jaxtyping import config as jaxtyping_config
from jaxtyping import jaxtyped

# One thread: tiny tensors gain nothing from two, sums keep their order, and the
# workers of pytest-xdist do not fight over the cores.
torch.set_num_threads(1)

hypothesis.settings.register_profile("dev", max_examples=25, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=200, deadline=None, derandomize=True
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
)

_FOLDERS: Final = {
    "weights_folder": "FUNLENS_WEIGHTS",
    "fixtures_folder": "FUNLENS_FIXTURES",
}
_seen_modules: Final[set[str]] = set()


def check_record(cls: type) -> None:
    """Check shapes whenever `cls` is built: jaxtyping's import hook skips attrs."""
    init = cls.__dict__.get("__init__")
    if attrs.has(cls) and init is not None and not hasattr(init, "__wrapped__"):
        cls.__init__ = jaxtyped(init, typechecker=beartype)


def check_new_records() -> None:
    """Check the attrs classes of every funlens module imported since the last call."""
    names = {name for name in sys.modules if name.split(".")[0] == "funlens"}
    for name in sorted(names - _seen_modules):
        for value in list(vars(sys.modules[name]).values()):
            if isinstance(value, type) and value.__module__ == name:
                check_record(value)
    _seen_modules.update(names)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need real weights."""
    check_new_records()
    for item in items:
        if not _FOLDERS.keys().isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.weights)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check the records of modules that an earlier test was the first to import."""
    check_new_records()


def _folder(fixture: str) -> Path:
    variable = _FOLDERS[fixture]
    path = os.environ.get(variable)
    if not path or not Path(path).is_dir():
        pytest.skip(f"the environment variable {variable} names no folder")
    return Path(path)


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The folder of real trained models; the test is skipped where there is none."""
    return _folder("weights_folder")


@pytest.fixture(scope="session")
def fixtures_folder() -> Path:
    """The folder of ground truth made elsewhere; skipped where there is none."""
    return _folder("fixtures_folder")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turn the runtime shape checks off, for tests that compile or measure."""
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", before)
