"""Weights that accelerate keeps elsewhere, and loads for each forward of a module."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def is_offloaded(module: nn.Module) -> bool:
    """Tell whether some weights are there only while their module runs."""
    hooks = (hook for part in module.modules() for hook in _hooks(part))
    return any(getattr(hook, "offload", False) for hook in hooks)


def execution_device(module: nn.Module) -> torch.device | None:
    """Give the device that a dispatched module runs on; None without dispatch."""
    for hook in _hooks(module):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device(device)
    return None


def is_kept(module: nn.Module, name: str) -> bool:
    """Tell whether one tensor of an offloaded module can be found."""
    return any(name in kept for kept in _maps(module))


def kept_elsewhere(module: nn.Module, name: str) -> Tensor:
    """Load one tensor of an offloaded module."""
    kept = next(kept for kept in _maps(module) if name in kept)
    found: Tensor = kept[name]
    return found.to(execution_device(module))


def _maps(module: nn.Module) -> Iterator[Mapping[str, Any]]:
    for hook in _hooks(module):
        kept: Mapping[str, Any] | None = getattr(hook, "weights_map", None)
        if kept is not None:
            yield kept


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    hook: Any = getattr(module, "_hf_hook", None)
    several: Any = getattr(hook, "hooks", None)
    return tuple(several) if several is not None else (hook,)
