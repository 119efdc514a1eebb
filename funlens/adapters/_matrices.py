"""The matrix that a module acts with: a plain, an adapted or a quantized module's."""

from typing import Any, Final

from torch import Tensor, nn

from funlens.adapters._collectives import is_part, whole
from funlens.adapters._offload import is_kept, kept_elsewhere
from funlens.errors import UnsupportedConfigError

# Set where activations are quantized or scaled too, by torchao on its tensors and by
# quanto on its modules: then no matrix gives what the module gives.
_ACTIVATIONS: Final = (
    "act_mapping_type",
    "act_pre_scale",
    "act_quant_kwargs",
    "act_quant_scale",
    "activation_qtype",
    "activation_quantization",
    "input_quant_func",
)
_QUANTIZERS: Final = "transformers.integrations."


def acting_weight(module: nn.Module) -> Tensor:
    """Give the weight that a linear map or an embedding acts with, as it is stored.

    LoRA layers give the base's and the active adapters' together, modules whose
    weights alone are quantized give them dequantized: both are copies.

    Raises:
        UnsupportedConfigError: There is no one matrix, or it cannot be read.
    """
    reason = unreadable(module)
    if reason:
        raise UnsupportedConfigError(
            type(_base(module)).__name__,
            reason,
            "Look at weights of the model without quantization, and of adapters after "
            "`merge_and_unload()`.",
        )
    weight: Any = _present(_base(module), "weight")
    weight = weight.dequantize() if _is_composed(weight) else weight
    layer: Any = module
    for name in _adapters(module):
        weight = weight + layer.get_delta_weight(name)
    is_wide = isinstance(_base(module), nn.Conv1d)  # a convolution of width 1
    found: Tensor = weight.squeeze(-1) if is_wide else weight
    return found


def acting_bias(module: nn.Module) -> Tensor | None:
    """Give the bias that a linear map acts with; None where there is none."""
    bias = _present(_base(module), "bias")
    layer: Any = module
    for name in _adapters(module):
        if getattr(layer, "lora_bias", {}).get(name):
            own: Tensor = layer.lora_B[name].bias * layer.scaling[name]
            bias = bias + own if isinstance(bias, Tensor) else own
    return bias if isinstance(bias, Tensor) else None


def _present(base: nn.Module, name: str) -> Any:
    """Give a tensor of a module, or load it from where accelerate keeps it."""
    held = getattr(base, name, None)
    is_away = isinstance(held, Tensor) and held.is_meta and is_kept(base, name)
    if is_away:
        return kept_elsewhere(base, name)
    return whole(held) if isinstance(held, Tensor) else held


def stored_input_first(module: nn.Module) -> bool:
    """Tell whether a projection's weight is stored as `[input, output]`."""
    return type(_base(module)).__name__ == "Conv1D"


def unreadable(module: nn.Module) -> str:
    """Say why a module acts with no matrix that can be read; empty where it does."""
    return _unreadable_base(_base(module)) or _unreadable_adapter(module)


def _unreadable_base(base: nn.Module) -> str:
    weight = getattr(base, "weight", None)
    if hasattr(base, "base_layer"):
        return "adapters lie upon adapters"
    if not isinstance(weight, Tensor):
        return "it holds no plain weight"
    if any(_sets(at, word) for at in (base, weight) for word in _ACTIVATIONS):
        return "its activations are quantized like its weight"
    return "" if _is_matrix(base, weight) else "its weight is quantized"


def _is_matrix(base: nn.Module, weight: Tensor) -> bool:
    """Tell a weight that is the matrix, or can give it."""
    if _is_composed(weight):
        return type(weight).dequantize is not Tensor.dequantize
    # eight-bit floats need a scale, which stands elsewhere
    is_wide = weight.is_floating_point() and weight.dtype.itemsize > 1
    return is_wide and not type(base).__module__.startswith(_QUANTIZERS)


def _unreadable_adapter(module: nn.Module) -> str:
    layer: Any = module
    for name in _adapters(module):
        if not hasattr(layer, "lora_A") or name in layer.lora_variant:
            return f"adapter {name!r} does more than add a product of two matrices"
    return ""


def _sets(at: object, word: str) -> bool:
    return getattr(at, word, None) is not None


def _is_composed(weight: Tensor) -> bool:
    """Tell a tensor that is made of others, as torchao's and quanto's are."""
    return hasattr(weight, "__tensor_flatten__") and not is_part(weight)


def _base(module: nn.Module) -> nn.Module:
    """Look under PEFT's layer."""
    base = getattr(module, "base_layer", None)
    return base if isinstance(base, nn.Module) else module


def _adapters(module: nn.Module) -> tuple[str, ...]:
    """Name PEFT's adapters that act beside the base, and not within its weight."""
    layer: Any = module
    if _base(module) is module or layer.disable_adapters or layer.merged:
        return ()
    held = {name for word in layer.adapter_layer_names for name in getattr(layer, word)}
    return tuple(name for name in layer.active_adapters if name in held)
