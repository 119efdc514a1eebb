"""Loading, from folders."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from funlens.adapters import ContextLengthWarning, _load_device, load
from funlens.adapters._load_request import (
    HUB_OPTIONS,
    MODEL_OPTIONS,
    OWN_OPTIONS,
    REFUSED,
)
from funlens.engine import run
from funlens.errors import InputError, LoadError, OptionError
from funlens.testing import tiny_hf_model, tiny_inputs
from tests.adapters.folders import TINY, change_config


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
        {"device": "cuda"},
        {"n_ctx": 0},
        {"n_ctx": "64"},
        {"dtype": "float33"},
        {"attn_implementation": "sdp"},
        {"bos": "nver"},
        {"device_map": "aut"},
        {"device_map": {"": "cpu", "model.layer.0": "cpu"}},
        {"max_memory": {"cpu": "1GB"}},
        {"offload_folder": "there"},
        {"code_revision": "main"},
        {"ignore_mismatched_sizes": True},
        {"tp_plan": "auto"},
        {"torch_dtype": torch.float32},
    ],
    ids=str,
)
def test_options_that_could_not_act_are_refused(
    saved: Path,
    options: dict[str, Any],
    unchecked: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An option acts or raises."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError) as caught:
        load(saved, **options)
    assert caught.value.option in options


def test_every_keyword_of_from_pretrained_is_known() -> None:
    """None of them is taken for a field of the config."""
    source = inspect.getsource(transformers.PreTrainedModel.from_pretrained)
    popped = re.findall(r'kwargs\.pop\("([a-z]\w+)"', source)
    named = inspect.signature(transformers.PreTrainedModel.from_pretrained).parameters
    ours = {*OWN_OPTIONS, *HUB_OPTIONS, *MODEL_OPTIONS, *REFUSED}
    others = {"pretrained_model_name_or_path", "model_args", "kwargs"}
    assert {"cache_dir", "variant"} < {*popped, *named}
    assert set() == {*popped, *named} - ours - others


def test_keywords_reach_from_pretrained(saved: Path) -> None:
    """A folder in the folder, a variant of the weights, other names of weights."""
    expected = load(saved, device="cpu").module.state_dict()
    inner = saved / "inner"
    inner.mkdir()
    for file in [*saved.iterdir()]:
        if file != inner:
            file.rename(inner / file.name)
    weights = inner / "model.safetensors"
    renamed = {f"old.{name}": held for name, held in load_file(weights).items()}
    save_file(renamed, inner / "model.other.safetensors", metadata={"format": "pt"})
    weights.unlink()
    found = load(
        saved,
        subfolder="inner",
        variant="other",
        key_mapping={r"^old\.": ""},
        dtype=torch.float16,
        device="cpu",
    )
    assert found.tokenizer is not None
    for name, held in found.module.state_dict().items():
        assert torch.equal(expected[name], held)


def test_code_from_a_repository_runs_where_it_is_trusted(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes are loaded, and a table describes them."""
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(saved / "cache")
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    (saved / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Config(LlamaConfig):\n    model_type = 'own'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    code = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    change_config(saved, model_type="own", architectures=["Model"], auto_map=code)
    llama = load(TINY, device="cpu")
    own = load(saved, trust_remote_code=True, adapter=llama.engine.arch, device="cpu")
    assert ("own", "Model") == (own.model_type, type(own.module).__name__)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(run(llama, tokens), run(own, tokens))


@pytest.mark.parametrize(
    "options",
    [{"device": "mps"}, {"device_map": {"": "mps:0"}}, {"device_map": "auto"}],
    ids=str,
)
def test_mps_needs_the_variable(
    saved: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The error names it, also where accelerate would have chosen it."""
    monkeypatch.delenv(_load_device.MPS_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
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
    monkeypatch.setenv(_load_device.MPS_VARIABLE, str(int("allowed" in there)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert expected == _load_device.chosen_device(None).type


def test_quantized_weights_are_placed_while_they_are_read(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    """They cannot be moved afterwards, so the device becomes HuggingFace's map."""
    seen: dict[str, Any] = {}

    def read(*args: Any, **options: Any) -> Any:
        seen.update(options)
        none: set[str] = set()
        return tiny_hf_model("llama"), {"missing_keys": none, "unexpected_keys": none}

    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", read)
    load(saved, quantization_config={"bits": 4}, device="cpu")
    assert {"": torch.device("cpu")} == seen["device_map"]


def test_a_longer_context_warns(saved: Path) -> None:
    """Rotary positions can go on; nobody trained them."""
    with pytest.warns(ContextLengthWarning, match="512 tokens.* trained with 256"):
        spec = load(saved, n_ctx=512, device="cpu")
    assert 512 == spec.n_ctx
    assert 64 == load(saved, n_ctx=64, device="cpu").n_ctx


@pytest.mark.parametrize("name", ["llama", "gptj", "mpt"])
def test_a_longer_context_runs(name: str, tmp_path: Path) -> None:
    """Rotary positions, a table of sines, slopes: short inputs give the same bits."""
    model: Any = tiny_hf_model(name)
    model.save_pretrained(tmp_path)
    plain = load(tmp_path, device="cpu")
    assert plain.n_ctx is not None
    with pytest.warns(ContextLengthWarning):
        longer = load(tmp_path, n_ctx=plain.n_ctx + 5, device="cpu")
    tokens = tiny_inputs(name, pos=plain.n_ctx + 5)["input_ids"]
    short = tokens[:, : plain.n_ctx]
    assert torch.equal(run(plain, short), run(longer, short))
    assert run(longer, tokens).isfinite().all()
    with pytest.raises(InputError, match=f"at most {plain.n_ctx}"):
        run(plain, tokens)


def test_a_longer_context_does_not_scale_rotary_positions(tmp_path: Path) -> None:
    """HuggingFace's own override of the field changes what short inputs give."""
    model: Any = tiny_hf_model("phi3")
    model.save_pretrained(tmp_path)
    scaled = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 3.0],
    }
    change_config(tmp_path, rope_parameters=scaled, original_max_position_embeddings=32)
    tokens = tiny_inputs("phi3")["input_ids"]
    expected = run(load(tmp_path, device="cpu"), tokens)
    with pytest.warns(ContextLengthWarning):
        longer = load(tmp_path, n_ctx=128, device="cpu")
    other = load(tmp_path, max_position_embeddings=128, device="cpu")
    assert torch.equal(expected, run(longer, tokens))
    assert not torch.equal(expected, run(other, tokens))


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


@pytest.mark.parametrize("named", [["LlamaModel"], ["NoSuchClass"], None])
def test_a_headless_class_gets_its_language_head(saved: Path, named: Any) -> None:
    """The type of the config tells, where its architectures do not."""
    change_config(saved, architectures=named)
    assert "LlamaForCausalLM" == type(load(saved, device="cpu").module).__name__


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_model_without_a_head_is_loaded_without_one(
    name: str, tmp_path: Path
) -> None:
    """A base model was saved: no head is drawn for it."""
    config: Any = tiny_hf_model(name).config
    body = transformers.AutoModel.from_config(config).eval()
    body.save_pretrained(tmp_path)
    spec = load(tmp_path, device="cpu")
    assert type(body) is type(spec.module)
    inputs = tiny_inputs(name)
    with torch.no_grad():
        expected = body(**inputs).last_hidden_state
        assert torch.equal(expected, spec.module(**inputs).last_hidden_state)


def test_importing_the_loader_does_not_import_transformers() -> None:
    """`import funlens` stays cheap."""
    code = (
        "import sys, funlens.adapters;"
        "print([m for m in ('transformers', 'tenacity') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "[]" == done.stdout.strip()
