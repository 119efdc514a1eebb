"""What is done to the private copy of a few families before anything else."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from torch import nn

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


def record_every_cycle(module: Any) -> None:
    """Let HRM record a graph in all of its cycles: it would in the last ones only."""
    body, config = module.base_model, module.config
    body.L_bp_cycles_padded = [config.L_cycles] * config.H_cycles


def call_layers(module: Any) -> None:
    """Let SqueezeBERT call its layers, rather than their `forward` past all hooks."""
    encoder = module.base_model.encoder
    encoder.layers = _Called(encoder.layers)


class _Called(nn.ModuleList):
    """Layers whose `forward`, as the encoder asks for it, calls them."""

    def __iter__(self) -> Iterator[Any]:
        """Go through the layers."""
        return (SimpleNamespace(forward=layer) for layer in self._modules.values())
