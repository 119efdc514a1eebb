"""Every way in which loading can fail."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from funlens.adapters import load
from funlens.errors import (
    GatedModelError,
    LoadError,
    UnsupportedArchitectureError,
)
from tests.adapters.folders import TINY, change_config
from tests.adapters.hub import answer


def cut_weights(where: Path) -> None:
    """Truncate the file."""
    file = where / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def pickle_weights(where: Path) -> None:
    """Leave only a pickled checkpoint."""
    (where / "model.safetensors").rename(where / "pytorch_model.bin")


def drop_head(where: Path) -> None:
    """Take one tensor out of the file."""
    from safetensors.torch import load_file, save_file

    file = where / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


DAMAGES: dict[str, tuple[Any, str]] = {
    "truncated weights": (cut_weights, "damaged or truncated"),
    "pickled weights": (pickle_weights, "nothing is loaded by pickle"),
    "missing weights": (drop_head, r"1 weights .*lm_head.weight.* would be random"),
    "no config": (lambda at: (at / "config.json").unlink(), "no config.json"),
    "broken config": (
        lambda at: (at / "config.json").write_text("{"),
        "not valid JSON",
    ),
    "no type": (lambda at: change_config(at, model_type=None), "`model_type`"),
    "wrong field": (lambda at: change_config(at, hidden_size="big"), "wrong type"),
    "wrong sizes": (lambda at: change_config(at, vocab_size=7), "other shapes"),
    "broken tokenizer": (lambda at: (at / "tokenizer.json").write_text("{"), "cannot"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_says_what_is_wrong(
    saved: Path, damage: Any, words: str
) -> None:
    """Every fault is a LoadError that names the folder, what is wrong and a way out."""
    damage(saved)
    with pytest.raises(LoadError, match=words) as caught:
        load(saved, device="cpu")
    assert str(saved) == caught.value.name
    assert caught.value.advice


def test_others_errors_stay_the_cause(saved: Path) -> None:
    """What transformers said is not lost."""
    cut_weights(saved)
    with pytest.raises(LoadError) as caught:
        load(saved, device="cpu")
    assert "SafetensorError" == type(caught.value.__cause__).__name__


def test_an_unknown_architecture_names_near_ones(saved: Path) -> None:
    """A misspelled model type."""
    change_config(saved, model_type="lama")
    with pytest.raises(UnsupportedArchitectureError) as caught:
        load(saved)
    assert "llama" in caught.value.near


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody/nothing", "not in the local cache"),
        ("./nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("not an id!", "neither a folder nor a hub id"),
        (str(TINY / "config.json"), "it is a file"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, words: str) -> None:
    """Offline, misspelled, or a file."""
    with pytest.raises(LoadError, match=words):
        load(name)


def test_code_from_a_repository_needs_consent(saved: Path) -> None:
    """Remote code is off unless it is asked for by name."""
    change_config(saved, model_type="own", auto_map={"AutoConfig": "own.Config"})
    with pytest.raises(LoadError, match="trust_remote_code=True"):
        load(saved)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (RevisionNotFoundError, "no such revision"),
        (RepositoryNotFoundError, "no such repository"),
        (GatedRepoError, "https://huggingface.co/some/model"),
    ],
)
def test_the_hubs_refusals_are_translated(
    monkeypatch: pytest.MonkeyPatch, kind: Any, words: str
) -> None:
    """Also where transformers has wrapped them."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError from kind("refused", response=answer(403))

    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", refuse)
    with pytest.raises(LoadError, match=words) as caught:
        load("some/model")
    is_gated = kind is GatedRepoError
    assert is_gated == isinstance(caught.value, GatedModelError)
    assert is_gated == ("HF_TOKEN to a token" in str(caught.value))
