"""Quantized models: runs, edits, weights, gradients, and what their owner keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import transformers
from torch import Tensor, nn
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)

import funlens as fl
from funlens.errors import SiteNotFoundError, UnsupportedConfigError
from funlens.testing import tiny_hf_model, tiny_inputs
from tests.adapters.folders import TINY

NAMES: Final = ("llama", "opt", "bert", "t5")
# Sums over at most 32 float32 products in another order; measured 1e-6.
CLOSE: Final = {"rtol": 1e-5, "atol": 1e-5}


def weights_only(name: str) -> nn.Module:
    """Eight-bit weights, activations as they were."""
    module = tiny_hf_model(name)
    quantize_(module, Int8WeightOnlyConfig())
    return module


def with_activations(name: str) -> nn.Module:
    """Eight-bit weights and activations."""
    module = tiny_hf_model(name)
    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return module


def packed(name: str) -> nn.Module:
    """Torch's own dynamic quantization: weights are packed out of reach."""
    return torch.ao.quantization.quantize_dynamic(tiny_hf_model(name), {nn.Linear})


MAKERS: Final = (weights_only, with_activations, packed)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_model_gives_its_own_logits(
    name: str, make: Callable[[str], nn.Module]
) -> None:
    """Bit for bit those of an untouched copy, captures on; and not the float ones."""
    inputs, untouched = tiny_inputs(name), make(name)
    with torch.no_grad():
        expected = untouched(**inputs).logits
        plain = tiny_hf_model(name)(**inputs).logits
    spec = fl.from_module(make(name))
    kept = fl.run_with_cache(spec, inputs, capture=[fl.resid_post, fl.z])
    assert torch.equal(expected, fl.run(spec, inputs))
    assert torch.equal(expected, kept.logits)
    assert not torch.equal(expected, plain)


@pytest.mark.parametrize("make", MAKERS)
def test_edits_of_a_quantized_model_act(make: Callable[[str], nn.Module]) -> None:
    """At projections, heads and the stream."""
    spec, inputs = fl.from_module(make("llama")), tiny_inputs("llama")
    before = fl.run(spec, inputs)
    assert fl.dry_run(spec, inputs, [fl.Zero(fl.z(1))], capture=[fl.resid_post])
    for site in (fl.q(0), fl.z(0, head=1), fl.mlp_post(1), fl.resid_pre(1, pos=-1)):
        assert not torch.equal(before, fl.run(spec, inputs, [fl.Zero(site)]))


def test_every_law_holds_on_quantized_weights(unchecked: None) -> None:
    """As on any other model."""
    module, untouched = (weights_only("llama") for _ in range(2))
    certificate = fl.verify(
        fl.from_module(module), tiny_inputs("llama"), untouched=untouched
    )
    assert [] == [row for row in certificate.rows if not row.holds]


@pytest.mark.parametrize("make", MAKERS)
def test_the_owner_of_a_quantized_module_keeps_it(
    make: Callable[[str], nn.Module],
) -> None:
    """Its logits have the same bits, and its tensors are the same objects."""
    module, inputs = make("llama"), tiny_inputs("llama")
    tensors = [id(tensor) for tensor in (*module.parameters(), *module.buffers())]
    with torch.no_grad():
        before = module(**inputs).logits
    fl.run_with_cache(fl.from_module(module), inputs, [fl.Zero(fl.resid_pre(1))])
    with torch.no_grad():
        assert torch.equal(before, module(**inputs).logits)
    assert tensors == [id(t) for t in (*module.parameters(), *module.buffers())]


def test_weights_that_alone_are_quantized_are_given_dequantized() -> None:
    """With the orientation and the heads of any other model's."""
    module: Any = weights_only("llama")
    spec = fl.from_module(module)
    query = module.model.layers[1].self_attn.q_proj.weight.dequantize()
    assert torch.equal(query.view(4, 4, 16).mT, fl.W_Q(spec)[1])
    assert torch.equal(module.lm_head.weight.dequantize().mT, fl.W_U(spec))
    assert torch.equal(fl.W_U(spec)[:, 5], fl.tokens_to_directions(spec, 5))
    assert torch.equal(torch.zeros(2, 4, 4), fl.b_Q(spec))


def test_heads_of_quantized_weights_sum_to_the_projection() -> None:
    """The dequantized matrix is the one that acts."""
    spec, inputs = fl.from_module(weights_only("llama")), tiny_inputs("llama")
    wanted = [fl.head_result(1), fl.attn_proj(1)]
    cache = fl.run_with_cache(spec, inputs, capture=wanted).cache
    torch.testing.assert_close(
        cache[fl.attn_proj(1)], cache[fl.head_result(1)].sum(2), **CLOSE
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_activations, "its activations are quantized"),
        (packed, "it holds no plain weight"),
    ],
)
def test_weights_that_do_not_act_alone_are_refused(
    make: Callable[[str], nn.Module], reason: str
) -> None:
    """There is no matrix to give, and no head's result."""
    spec = fl.from_module(make("llama"))
    for look in (fl.W_Q, fl.W_O, fl.W_in, fl.W_out, fl.W_U, fl.b_O):
        with pytest.raises(UnsupportedConfigError, match=reason):
            look(spec)
    with pytest.raises(UnsupportedConfigError, match=reason):
        fl.tokens_to_directions(spec, 5)
    with pytest.raises(SiteNotFoundError):
        fl.run_with_cache(spec, tiny_inputs("llama"), capture=[fl.head_result(1)])


def test_eight_bit_floats_are_no_weight_without_their_scale() -> None:
    """They are floating-point numbers, and not the matrix."""
    module: Any = tiny_hf_model("llama")
    projection = module.model.layers[0].self_attn.o_proj
    stored = projection.weight.detach().to(torch.float8_e4m3fn)
    projection.weight = nn.Parameter(stored, requires_grad=False)
    with pytest.raises(UnsupportedConfigError, match="its weight is quantized"):
        fl.W_O(fl.from_module(module))


def steered(spec: fl.ModelSpec, inputs: dict[str, Tensor]) -> Callable[..., Tensor]:
    """Make a function from a vector that is added to one logit."""

    def logit(vector: Tensor) -> Tensor:
        return fl.run(spec, inputs, [fl.Add(fl.resid_pre(1), vector)])[0, -1, 5]

    return logit


def test_gradients_pass_quantized_weights() -> None:
    """They are those of the same model with the dequantized weights."""
    module: Any = weights_only("llama")
    plain: Any = tiny_hf_model("llama")
    state = {name: held.dequantize() for name, held in module.state_dict().items()}
    plain.load_state_dict(state)
    inputs, vector = tiny_inputs("llama"), torch.zeros(16)
    expected, got = (
        torch.func.grad(steered(fl.from_module(each), inputs))(vector)
        for each in (plain, module)
    )
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(expected, got, **CLOSE)


def test_gradients_that_would_be_lost_are_refused() -> None:
    """Torch's packed kernels give 0 and a warning; edits without gradients run."""
    spec, inputs = fl.from_module(packed("llama")), tiny_inputs("llama")
    vector = torch.zeros(16, requires_grad=True)
    with pytest.raises(UnsupportedConfigError, match="has no derivative"):
        steered(spec, inputs)(vector)
    with pytest.raises(UnsupportedConfigError, match="has no derivative"):
        torch.func.grad(steered(spec, inputs))(vector.detach())
    with pytest.raises(UnsupportedConfigError, match="has no derivative"):
        fl.run_with_grads(spec, inputs, lambda logits: logits[:, -1, 5])
    with pytest.raises(UnsupportedConfigError, match="has no derivative"):
        fl.run(spec, inputs, grad=True)
    assert steered(spec, inputs)(vector.detach()).isfinite()


def test_packed_weights_are_shared() -> None:
    """Nothing is copied, wherever a quantizer keeps its weights."""
    module: Any = packed("llama")
    copy: Any = fl.from_module(module).module
    for path in ("lm_head", "model.layers.0.self_attn.q_proj"):
        own, shared = (each.get_submodule(path) for each in (module, copy))
        assert own._packed_params._packed_params is shared._packed_params._packed_params


class _Held(nn.Parameter):
    """A parameter with state, as bitsandbytes' are."""

    scale: Tensor | None


class _Moving(nn.Linear):
    """A layer that moves its scale off the parameter in the first forward."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        self.weight: _Held = _Held(plain.weight.detach().sign(), requires_grad=False)
        self.weight.scale = plain.weight.detach().abs()
        self.moved: dict[str, Tensor | None] = {"scale": None}

    def forward(self, entered: Tensor) -> Tensor:
        """Multiply, as if nothing had moved."""
        if self.weight.scale is not None:
            self.moved["scale"], self.weight.scale = self.weight.scale, None
        scale = self.moved["scale"]
        return entered @ (self.weight if scale is None else self.weight * scale).mT


def moving() -> nn.Module:
    """A model with such a layer."""
    module: Any = tiny_hf_model("llama")
    attention = module.model.layers[0].self_attn
    attention.q_proj = _Moving(attention.q_proj)
    return module.eval()


@pytest.mark.parametrize("owner_first", [True, False])
def test_state_on_a_parameter_stays_its_owners(owner_first: bool) -> None:
    """Whoever runs first, both give the same logits, and share the tensors."""
    module, inputs = moving(), tiny_inputs("llama")
    with torch.no_grad():
        expected = moving()(**inputs).logits
        if owner_first:
            module(**inputs)
    spec = fl.from_module(module)
    assert torch.equal(expected, fl.run(spec, inputs))
    assert torch.equal(expected, fl.run_with_cache(spec, inputs, capture=[fl.z]).logits)
    with torch.no_grad():
        assert torch.equal(expected, module(**inputs).logits)
    path = "model.layers.0.self_attn.q_proj"
    own, copy = (each.get_submodule(path) for each in (module, spec.module))
    assert own.moved["scale"] is copy.moved["scale"]
    assert own.weight.data_ptr() == copy.weight.data_ptr()


def quantized(folder: Path) -> Any:
    """Let transformers quantize the builtin model."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=transformers.TorchAoConfig(Int8WeightOnlyConfig()),
        device_map={"": "cpu"},
        dtype=torch.float32,
    ).eval()


def test_a_quantization_config_is_passed_on(tmp_path: Path) -> None:
    """While loading, and by a checkpoint that was saved quantized."""
    untouched = quantized(TINY)
    config = transformers.TorchAoConfig(Int8WeightOnlyConfig())
    spec = fl.load(TINY, quantization_config=config, dtype=torch.float32, device="cpu")
    tokens = fl.to_tokens(spec, "Mary and John went to the store")
    with torch.no_grad():
        expected = untouched(tokens).logits
    assert torch.equal(expected, fl.run(spec, tokens))
    untouched.save_pretrained(tmp_path)
    again = fl.load(tmp_path, device="cpu")
    assert torch.equal(expected, fl.run(again, tokens))
    projection: Any = again.module.get_submodule("model.layers.0.mlp.up_proj")
    assert "Int8Tensor" == type(projection.weight).__name__
