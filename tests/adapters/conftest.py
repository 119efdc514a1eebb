"""Fixtures of the loading and token tests."""

import shutil
from pathlib import Path

import pytest

from funlens.data import ModelSpec
from tests.adapters.folders import TINY
from tests.adapters.words import FULL, spec_of, word_tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Copy the builtin model to a folder that a test may damage."""
    copy = tmp_path / "saved"
    shutil.copytree(TINY, copy)
    return copy


@pytest.fixture
def spec() -> ModelSpec:
    """Give a model whose tokenizer has every special token, and puts BOS in front."""
    return spec_of(word_tokenizer(**FULL))
