"""What is done to the private copy of a few families before anything else."""

from collections.abc import Iterator
from types import MethodType, SimpleNamespace
from typing import Any

from torch import Tensor, nn

from funlens.adapters._skeleton import bare_copy


def unroll_groups(module: Any) -> None:
    """Give ALBERT's groups, which run several times, a copy for each time."""
    encoder = module.base_model.encoder
    encoder.albert_layer_groups = _Turns(
        encoder.albert_layer_groups, encoder.config.num_hidden_layers
    )
    encoder.config.num_hidden_groups = encoder.config.num_hidden_layers


class _Turns(nn.ModuleList):
    """Groups of layers under their own names, and a copy for each time one runs."""

    def __init__(self, groups: nn.ModuleList, n_turns: int) -> None:
        super().__init__(groups)
        for turn in range(n_turns):
            group = groups[turn * len(groups) // n_turns]
            self.add_module(f"turn{turn}", bare_copy(group))

    def __getitem__(self, turn: int) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride] (slices are not asked for)
        """Give the copy for one time."""
        return getattr(self, f"turn{turn}")


def call_layers(module: Any) -> None:
    """Let SqueezeBERT call its layers, rather than their `forward` past all hooks."""
    encoder = module.base_model.encoder
    encoder.layers = _Called(encoder.layers)


class _Called(nn.ModuleList):
    """Layers whose `forward`, as the encoder asks for it, calls them."""

    def __iter__(self) -> Iterator[Any]:
        """Go through the layers."""
        return (SimpleNamespace(forward=layer) for layer in self._modules.values())


def show_scaled(module: Any) -> None:
    """Let InternVL's blocks pass what they add through a module, once it is scaled."""
    for part in module.modules():
        if type(part).__name__ == "InternVLVisionLayer":
            part.scaled_attention, part.scaled_mlp = nn.Identity(), nn.Identity()
            part.forward = MethodType(_scale_and_add, part)


def _scale_and_add(layer: Any, hidden_states: Tensor) -> Tensor:
    """Run an InternVL block as HuggingFace does, operation by operation."""
    attended, _ = layer.attention(layer.layernorm_before(hidden_states))
    added = layer.scaled_attention(layer.lambda_1 * attended)
    hidden_states = added + hidden_states
    fed = layer.dropout(layer.mlp(layer.layernorm_after(hidden_states)))
    return layer.scaled_mlp(layer.lambda_2 * fed) + hidden_states
