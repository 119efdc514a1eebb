"""Loading: from folders, with every way in which it can fail."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from funlens.adapters import _load
from funlens.adapters._load import ContextLengthWarning, load
from funlens.adapters._retry import retrying
from funlens.builtin import folder
from funlens.errors import (
    GatedModelError,
    LoadError,
    OptionError,
    UnsupportedArchitectureError,
)
from funlens.testing._recipes import tiny_hf_model, tiny_inputs

TINY = folder("tiny")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Copy the builtin model to a folder that a test may damage."""
    copy = tmp_path / "saved"
    shutil.copytree(TINY, copy)
    return copy


def change_config(where: Path, **fields: Any) -> None:
    """Write other fields into a saved config; None takes one out."""
    file = where / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    kept = {field: value for field, value in config.items() if value is not None}
    file.write_text(json.dumps(kept))


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "opt"])
def test_a_folder_gives_the_model_that_was_saved(name: str, tmp_path: Path) -> None:
    """Class, weights and logits are the saved model's own."""
    model: Any = tiny_hf_model(name)
    model.save_pretrained(tmp_path)
    spec = load(tmp_path, device="cpu")
    inputs = tiny_inputs(name)
    with torch.no_grad():
        expected, logits = model(**inputs).logits, spec.module(**inputs).logits
    assert type(model).__name__ == type(spec.module).__name__
    assert torch.equal(expected, logits)
    assert spec.tokenizer is None
    assert not spec.module.training


def test_the_builtin_model_needs_no_network() -> None:
    """It comes in float32, with its tokenizer."""
    spec = load("builtin:tiny", device="cpu")
    assert ("builtin:tiny", torch.float32) == (spec.name, spec.dtype)
    assert [0] == spec.tokenizer("")["input_ids"]


def test_an_unknown_builtin_model_lists_those_there_are() -> None:
    """The error names what can be asked for."""
    with pytest.raises(LoadError, match="builtin:tiny"):
        load("builtin:huge")


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_dtype_is_as_asked_for(saved: Path, dtype: Any) -> None:
    """By word or by value."""
    assert torch.bfloat16 == load(saved, dtype=dtype, device="cpu").dtype


def test_dtype_is_the_checkpoints_by_default(tmp_path: Path) -> None:
    """As HuggingFace does it."""
    model: Any = tiny_hf_model("gpt2")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert torch.bfloat16 == load(tmp_path, device="cpu").dtype


def test_random_weights_come_from_the_seed_alone(saved: Path) -> None:
    """The same seed is the same model, without weights on disk or a global draw."""
    (saved / "model.safetensors").unlink()
    before = torch.get_rng_state()
    first, again, other = (
        load(saved, load_weights=False, seed=seed, device="cpu").module.state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_reading_weights_draws_nothing(saved: Path) -> None:
    """The global generator is as it was."""
    before = torch.get_rng_state()
    load(saved, device="cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_attention_implementation_is_passed_on(saved: Path) -> None:
    """With and without weights."""
    for with_weights in (True, False):
        spec = load(
            saved, attn_implementation="eager", load_weights=with_weights, device="cpu"
        )
        assert "eager" == spec.engine.attention


def test_config_fields_can_be_given_by_name(saved: Path) -> None:
    """As `from_pretrained` takes them."""
    spec = load(saved, num_hidden_layers=2, load_weights=False, device="cpu")
    assert 2 == spec.n_layers


def test_an_unknown_keyword_is_refused_with_near_names(saved: Path) -> None:
    """Before any weight is read."""
    (saved / "model.safetensors").unlink()
    with pytest.raises(OptionError, match="rms_norm_eps") as caught:
        load(saved, rms_norm_esp=1e-5)
    assert "rms_norm_esp" == caught.value.option
    with pytest.raises(OptionError) as caught:
        load(saved, attn_implementaton="eager")
    assert "attn_implementation" == caught.value.near[0]


@pytest.mark.parametrize(
    "options",
    [{"use_safetensors": False}, {"weights_only": False}, {"state_dict": {}}],
)
def test_pickle_cannot_be_asked_for(saved: Path, options: dict[str, Any]) -> None:
    """Safetensors only."""
    with pytest.raises(OptionError, match="cannot be used here"):
        load(saved, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"revision": "main"},
        {"load_weights": False, "device_map": "auto"},
        {"load_weights": False, "quantization_config": {"bits": 4}},
        {"load_weights": False, "variant": "fp16"},
        {"device": "cpu", "device_map": "cpu"},
        {"device": "nowhere"},
        {"n_ctx": 0},
    ],
    ids=str,
)
def test_options_that_could_not_act_are_refused(
    saved: Path, options: dict[str, Any]
) -> None:
    """An option acts or raises."""
    with pytest.raises(OptionError) as caught:
        load(saved, **options)
    assert caught.value.option in options


@pytest.mark.parametrize("options", [{"device": "mps"}, {"device_map": {"": "mps:0"}}])
def test_mps_needs_the_variable(
    saved: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The error names it."""
    monkeypatch.delenv(_load.MPS_VARIABLE, raising=False)
    with pytest.raises(OptionError, match="FUNLENS_ALLOW_MPS=1"):
        load(saved, **options)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (("mps",), "cpu"),
        (("mps", "allowed"), "mps"),
        (("allowed",), "cpu"),
        (("cuda", "mps", "allowed"), "cuda"),
    ],
    ids=str,
)
def test_the_default_device(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], expected: str
) -> None:
    """CUDA, else MPS where it is allowed, else the CPU."""
    monkeypatch.setenv(_load.MPS_VARIABLE, str(int("allowed" in there)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert expected == _load._device(None).type


def test_quantized_weights_are_placed_while_they_are_read(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    """They cannot be moved afterwards, so the device becomes HuggingFace's map."""
    seen: dict[str, Any] = {}

    def read(*args: Any, **options: Any) -> Any:
        seen.update(options)
        return tiny_hf_model("llama"), {"missing_keys": set()}

    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", read)
    load(saved, quantization_config={"bits": 4}, device="cpu")
    assert {"": torch.device("cpu")} == seen["device_map"]


def test_a_longer_context_warns(saved: Path) -> None:
    """Rotary positions can go on; nobody trained them."""
    with pytest.warns(ContextLengthWarning, match="512 tokens.* trained with 256"):
        spec = load(saved, n_ctx=512, device="cpu")
    assert 512 == spec.n_ctx
    assert 64 == load(saved, n_ctx=64, device="cpu").n_ctx


def test_learned_positions_cannot_be_extended(tmp_path: Path) -> None:
    """There are no weights for them."""
    model: Any = tiny_hf_model("gpt2")
    model.save_pretrained(tmp_path)
    with pytest.raises(OptionError, match="positions are learned"):
        load(tmp_path, n_ctx=100_000, device="cpu")


def test_a_tokenizer_can_be_given(saved: Path) -> None:
    """As an object, or by name."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    assert tokenizer is load(saved, tokenizer=tokenizer, device="cpu").tokenizer
    for file in saved.glob("tokenizer*"):
        file.unlink()
    assert load(saved, device="cpu").tokenizer is None
    by_name = load(saved, tokenizer=str(TINY), device="cpu").tokenizer
    assert tokenizer.get_vocab() == by_name.get_vocab()


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


@pytest.mark.parametrize("named", [["LlamaModel"], ["NoSuchClass"], None])
def test_a_headless_class_gets_its_language_head(saved: Path, named: Any) -> None:
    """The type of the config tells, where its architectures do not."""
    change_config(saved, architectures=named)
    assert "LlamaForCausalLM" == type(load(saved, device="cpu").module).__name__


def answer(status: int, **headers: str) -> httpx2.Response:
    """Make an answer of the hub."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx2.Request("GET", "https://huggingface.co/some/model")
    return httpx2.Response(status, headers=named, request=request)


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


def refused(**headers: str) -> HfHubHTTPError:
    """Make the error of an HTTP 429."""
    return HfHubHTTPError("too many", response=answer(429, **headers))


def calls_and_waits(errors: list[Exception]) -> SimpleNamespace:
    """Call something that fails with these errors and then gives 7."""
    pending, waits = list(errors), list[float]()

    def call() -> int:
        if pending:
            raise pending.pop(0)
        return 7

    def now() -> datetime:
        return NOON + timedelta(seconds=sum(waits))

    result = retrying(call, sleep=waits.append, now=now)
    return SimpleNamespace(result=result, waits=waits)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn retries on."""
    monkeypatch.setenv("FUNLENS_HF_RETRY", "1")


@pytest.mark.usefixtures("patient")
def test_waits_double_without_a_hint() -> None:
    """1, 2, 4, 8 seconds."""
    seen = calls_and_waits([refused() for _ in range(4)])
    assert (7, [1, 2, 4, 8]) == (seen.result, seen.waits)


@pytest.mark.usefixtures("patient")
def test_retry_after_is_honored_as_seconds_and_as_a_date() -> None:
    """A date that has passed is no wait; nonsense is no hint."""
    date = format_datetime(NOON + timedelta(seconds=60), usegmt=True)
    hints = ["30", date, date, "soon"]
    seen = calls_and_waits([refused(retry_after=hint) for hint in hints])
    assert [30, 30, 0, 8] == seen.waits


@pytest.mark.usefixtures("patient")
def test_a_wrapped_refusal_is_found() -> None:
    """Transformers raises OSError from the hub's error."""
    wrapped = OSError("wrapped")
    wrapped.__cause__ = refused(retry_after="5")
    assert [5] == calls_and_waits([wrapped]).waits


@pytest.mark.usefixtures("patient")
def test_retries_end() -> None:
    """The sixth refusal is raised unchanged."""
    errors: list[Exception] = [refused() for _ in range(6)]
    with pytest.raises(HfHubHTTPError) as caught:
        calls_and_waits(errors)
    assert caught.value is errors[-1]


@pytest.mark.usefixtures("patient")
def test_other_errors_are_not_retried() -> None:
    """Only HTTP 429 is."""
    with pytest.raises(HfHubHTTPError, match="broken"):
        calls_and_waits([HfHubHTTPError("broken", response=answer(500))])


def test_nothing_is_retried_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error says how to ask."""
    monkeypatch.delenv("FUNLENS_HF_RETRY", raising=False)
    with pytest.raises(HfHubHTTPError):
        calls_and_waits([refused()])

    def refuse(*args: Any, **options: Any) -> Any:
        raise refused()

    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", refuse)
    with pytest.raises(LoadError, match="FUNLENS_HF_RETRY=1"):
        load("some/model")


def test_importing_the_loader_does_not_import_transformers() -> None:
    """`import funlens` stays cheap."""
    code = (
        "import sys, funlens.adapters._load, funlens.adapters._tokens;"
        "print([m for m in ('transformers', 'tenacity') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "[]" == done.stdout.strip()
