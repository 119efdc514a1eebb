"""The device: MPS only where the environment allows it."""

import os
from typing import Any, Final

import torch

from funlens.errors import OptionError

MPS_VARIABLE: Final = "FUNLENS_ALLOW_MPS"


def chosen_device(asked: torch.device | str | None) -> torch.device:
    """Choose a device; MPS only where the environment allows it."""
    allows_mps = os.environ.get(MPS_VARIABLE) == "1"
    if asked is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        has_mps = allows_mps and torch.backends.mps.is_available()
        return torch.device("mps" if has_mps else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        problem = f"{asked!r} is no device"
        raise OptionError(
            option="device", problem=problem, near=("cpu", "cuda", "cuda:1")
        ) from error
    if device.type == "mps" and not allows_mps:
        problem = f"MPS gives wrong numbers in places; set {MPS_VARIABLE}=1 to allow it"
        raise OptionError(option="device", problem=problem, near=("cpu", "cuda"))
    return device


def check_device_map(asked: Any, device: torch.device | str | None) -> None:
    """Refuse a map beside a device, and MPS in it where it is not allowed."""
    if asked is not None and device is not None:
        problem = "`device_map` says where already; give one of them"
        raise OptionError(option="device", problem=problem)
    targets: list[Any] = list(getattr(asked, "values", lambda: [asked])())
    if any(str(target).partition(":")[0] == "mps" for target in targets):
        chosen_device("mps")
