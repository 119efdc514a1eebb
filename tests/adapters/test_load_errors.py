"""Every way in which loading can fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from funlens.adapters import from_module, load
from funlens.engine import run
from funlens.errors import (
    GatedModelError,
    LoadError,
    UnsupportedArchitectureError,
)
from funlens.testing import tiny_hf_model, tiny_inputs
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


def cut_tail(where: Path) -> None:
    """Lose the last bytes, as an interrupted copy does."""
    file = where / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def spoil_header(where: Path) -> None:
    """Change some bytes of the header."""
    file = where / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[20:40] = b"x" * 20
    file.write_bytes(raw)


def write_weights(raw: bytes) -> Callable[[Path], None]:
    """Put something else where the weights were."""

    def write(where: Path) -> None:
        (where / "model.safetensors").write_bytes(raw)

    return write


def split_weights(where: Path) -> None:
    """Write the weights as two files, and lose the second."""
    from safetensors.torch import load_file, save_file

    file = where / "model.safetensors"
    tensors = load_file(file)
    halves = {
        name: f"model-0000{1 + at % 2}-of-00002.safetensors"
        for at, name in enumerate(tensors)
    }
    first = {n: tensors[n] for n, half in halves.items() if "-00001-" in half}
    save_file(first, where / "model-00001-of-00002.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": halves}
    (where / "model.safetensors.index.json").write_text(json.dumps(index))
    file.unlink()


DAMAGES: dict[str, tuple[Any, str]] = {
    "truncated weights": (cut_weights, "damaged or truncated"),
    "lost tail": (cut_tail, "damaged or truncated"),
    "spoiled header": (spoil_header, "damaged or truncated"),
    "no bytes": (write_weights(b""), "damaged or truncated"),
    "a page in place of weights": (
        write_weights(b"<html>not found</html>"),
        "damaged or truncated",
    ),
    "a pointer in place of weights": (
        write_weights(b"version https://git-lfs.github.com/spec/v1\n"),
        "damaged or truncated",
    ),
    "a lost shard": (split_weights, "one of its files is missing"),
    "pickled weights": (pickle_weights, "nothing is loaded by pickle"),
    "missing weights": (drop_head, r"1 weights .*lm_head.weight.* would be random"),
    "no config": (lambda at: (at / "config.json").unlink(), "no config.json"),
    "broken config": (
        lambda at: (at / "config.json").write_text("{"),
        "not valid JSON",
    ),
    "a list for a config": (
        lambda at: (at / "config.json").write_text("[]"),
        "no config.json that names",
    ),
    "no config's text": (
        lambda at: (at / "config.json").write_bytes(b"\xff\xfe"),
        "not valid JSON",
    ),
    "fewer layers": (
        lambda at: change_config(at, num_hidden_layers=2),
        "more layers than its config says",
    ),
    "no layers": (
        lambda at: change_config(at, num_hidden_layers=-1),
        "more layers than its config says",
    ),
    "more layers": (
        lambda at: change_config(at, num_hidden_layers=9),
        "45 weights are not in the checkpoint",
    ),
    "heads that do not fit": (
        lambda at: change_config(at, num_attention_heads=3),
        "wrong type or value",
    ),
    "another width": (lambda at: change_config(at, hidden_size=64), "other shapes"),
    "no such activation": (lambda at: change_config(at, hidden_act="no"), "KeyError"),
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


def test_layers_are_left_out_where_that_is_asked_for(saved: Path) -> None:
    """By name, and the rest is the checkpoint's."""
    whole, spec = (
        load(saved, device="cpu"),
        load(saved, num_hidden_layers=2, device="cpu"),
    )
    assert (4, 2) == (whole.n_layers, spec.n_layers)
    for name, held in spec.module.state_dict().items():
        assert torch.equal(whole.module.state_dict()[name], held)


@pytest.mark.filterwarnings("ignore")  # peft's, about the base model's card
def test_a_folder_of_adapters_says_what_it_is(tmp_path: Path) -> None:
    """PEFT loads it, and `from_module` takes the result."""
    config = peft.LoraConfig(target_modules=["o_proj"], init_lora_weights=False)
    adapted: Any = peft.get_peft_model(tiny_hf_model("llama"), config).eval()
    adapted.save_pretrained(tmp_path)
    with pytest.raises(LoadError, match="adapters for another model"):
        load(tmp_path, device="cpu")
    again = peft.PeftModel.from_pretrained(tiny_hf_model("llama"), tmp_path).eval()
    inputs = tiny_inputs("llama")
    with torch.no_grad():
        expected = adapted(**inputs).logits
    assert torch.equal(expected, run(from_module(again), inputs))


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
        (HfHubHTTPError, "does not know this token"),
    ],
)
def test_the_hubs_refusals_are_translated(
    monkeypatch: pytest.MonkeyPatch, kind: Any, words: str
) -> None:
    """Also where transformers has wrapped them."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError from kind("refused", response=answer(401))

    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", refuse)
    with pytest.raises(LoadError, match=words) as caught:
        load("some/model")
    is_gated = kind is GatedRepoError
    assert is_gated == isinstance(caught.value, GatedModelError)
    assert is_gated == ("HF_TOKEN to a token" in str(caught.value))


def test_a_refused_tokenizer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agreement is the tokenizer's, not the model's."""

    def refuse(*args: Any, **options: Any) -> Any:
        assert "mine" == options["token"]
        raise OSError from GatedRepoError("refused", response=answer(403))

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(
        GatedModelError, match=r"huggingface\.co/other/words,"
    ) as caught:
        load(TINY, tokenizer="other/words", token="mine", device="cpu")  # noqa: S106 -- no secret
    assert "other/words" == caught.value.name
