"""PEFT: a wrapped model runs as it is, and its weights are those that act."""

from collections.abc import Mapping
from typing import Any, Final

import peft
import pytest
import torch
from torch import nn

import funlens as fl
from funlens.errors import InputError, UnsupportedConfigError
from funlens.testing import tiny_hf_model, tiny_inputs

# Sums of at most 16 float32 products in another order; measured 5e-7.
CLOSE: Final = {"rtol": 1e-5, "atol": 1e-5}

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's, about what is asked for


def low_rank(*targets: str, **options: Any) -> Any:
    """A tiny model with low-rank adapters that do something."""
    config = peft.LoraConfig(
        r=2, target_modules=list(targets), init_lora_weights=False, **options
    )
    torch.manual_seed(0)
    return peft.get_peft_model(tiny_hf_model("llama"), config).eval()


def merged() -> Any:
    """Adapters that stand in the weights already."""
    model = low_rank("o_proj")
    model.merge_adapter()
    return model


def disabled() -> Any:
    """Adapters that are off."""
    model = low_rank("o_proj")
    model.base_model.disable_adapter_layers()
    return model


def several(*active: str) -> Any:
    """Two adapters, of which some are active."""
    model = low_rank("o_proj")
    second = peft.LoraConfig(r=3, target_modules=["o_proj"], init_lora_weights=False)
    model.add_adapter("second", second)
    model.base_model.set_adapter(list(active))
    return model.eval()


def saved_head() -> Any:
    """A head that was trained whole, beside the adapters."""
    model = low_rank("o_proj", modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.add_(1.0)
    return model


def with_bias() -> Any:
    """An adapter that adds a bias, too."""
    model = low_rank("o_proj", lora_bias=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B.default.bias"):
                parameter.fill_(0.5)
    return model


MODELS: Final[Mapping[str, Any]] = {
    "plain": lambda: low_rank("q_proj", "o_proj"),
    "inner wrapper": lambda: low_rank("q_proj", "o_proj").base_model,
    "merged": merged,
    "disabled": disabled,
    "two": lambda: several("default", "second"),
    "the second": lambda: several("second"),
    "embeddings": lambda: low_rank("embed_tokens", "lm_head"),
    "saved head": saved_head,
    "bias": with_bias,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_weights_of_an_adapted_model_are_those_that_act(make: Any) -> None:
    """Logits are the model's own, and activations follow from the weights."""
    inputs, untouched = tiny_inputs("llama"), make()
    with torch.no_grad():
        expected = untouched(**inputs).logits
    spec = fl.from_module(make())
    wanted = [fl.embed, fl.head_result(1), fl.attn_proj(1), fl.ln_final_normalized]
    logits, cache = fl.run_with_cache(spec, inputs, capture=wanted)
    assert torch.equal(expected, logits)
    pairs = (
        (cache[fl.embed], fl.W_E(spec)[inputs["input_ids"]]),
        (cache[fl.attn_proj(1)], cache[fl.head_result(1)].sum(2) + fl.b_O(spec)[1]),
        (logits, cache[fl.ln_final_normalized] @ fl.W_U(spec)),
    )
    for found, computed in pairs:
        torch.testing.assert_close(found, computed, **CLOSE)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(target_modules=["o_proj"], use_dora=True),
        peft.IA3Config(target_modules=["o_proj"], feedforward_modules=[]),
        peft.OFTConfig(target_modules=["o_proj"], r=0, oft_block_size=4),
    ],
    ids=lambda config: type(config).__name__,
)
def test_adapters_that_are_no_product_run_and_give_no_weight(config: Any) -> None:
    """They scale or rotate what passes: merged, they are a matrix again."""
    torch.manual_seed(0)
    model: Any = peft.get_peft_model(tiny_hf_model("llama"), config).eval()
    inputs = tiny_inputs("llama")
    with torch.no_grad():
        expected = model(**inputs).logits
    spec = fl.from_module(model)
    assert torch.equal(expected, fl.run(spec, inputs))
    with pytest.raises(UnsupportedConfigError, match="more than add a product"):
        fl.W_O(spec)
    assert fl.W_O(fl.from_module(model.merge_and_unload())).isfinite().all()


@pytest.mark.parametrize("kind", [peft.PromptTuningConfig, peft.PrefixTuningConfig])
def test_virtual_tokens_are_refused(kind: Any) -> None:
    """The model below the wrapper does not know them."""
    config = kind(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model: nn.Module = peft.get_peft_model(tiny_hf_model("llama"), config).eval()
    with pytest.raises(InputError, match="virtual tokens"):
        fl.from_module(model)


def test_merged_and_disabled_adapters_are_refused() -> None:
    """PEFT would take them out of the owner's weights during a run."""
    model = merged()
    model.base_model.disable_adapter_layers()
    weights = {name: held.clone() for name, held in model.state_dict().items()}
    with pytest.raises(InputError, match="merged into the weights and disabled"):
        fl.from_module(model)
    assert all(torch.equal(weights[n], held) for n, held in model.state_dict().items())


def test_adapters_of_two_kinds_run_and_give_no_weight() -> None:
    """PEFT lays one layer around the other."""
    first = peft.LoraConfig(target_modules=["o_proj"], init_lora_weights=False)
    second = peft.LoHaConfig(target_modules=["o_proj"], init_weights=False)
    torch.manual_seed(0)
    model: Any = peft.get_peft_model(tiny_hf_model("llama"), first, mixed=True)
    model.add_adapter("second", second)
    model.set_adapter(["default", "second"])
    inputs = tiny_inputs("llama")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
    spec = fl.from_module(model)
    assert torch.equal(expected, fl.run(spec, inputs))
    with pytest.raises(UnsupportedConfigError, match="adapters lie upon adapters"):
        fl.W_O(spec)


def test_weights_on_no_device_have_shapes() -> None:
    """As a dry run needs them."""
    spec = fl.from_module(tiny_hf_model("llama").to("meta"))
    assert fl.W_O(spec).is_meta
    assert fl.head_result(1) in {info.site for info in spec.sites}
