"""Where a model goes: to a device, to several, or in parts to several processes."""

import os
from collections.abc import Mapping
from typing import Any, Final

import torch

from funlens.errors import OptionError

MPS_VARIABLE: Final = "FUNLENS_ALLOW_MPS"
_PROCESSES: Final = "WORLD_SIZE"  # torchrun's
_STRATEGIES: Final = ("auto", "balanced", "balanced_low_0", "sequential")


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
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError("device", "torch finds no CUDA device here", ("cpu",))
    return device


def check_device_map(asked: Any, device: torch.device | str | None) -> None:
    """Refuse a map beside a device, an unknown word, and MPS without permission."""
    if asked is not None and device is not None:
        problem = "`device_map` says where already; give one of them"
        raise OptionError(option="device", problem=problem)
    if asked in _STRATEGIES:
        if not torch.cuda.is_available() and torch.backends.mps.is_available():
            chosen_device("mps")  # what accelerate would choose
        return
    targets: list[Any] = list(getattr(asked, "values", lambda: [asked])())
    for target in targets:
        if isinstance(target, str | torch.device) and target != "disk":
            _check_target(target)


def _check_target(target: str | torch.device) -> None:
    try:
        chosen_device(target)
    except OptionError as error:
        near = ("cpu", "cuda:0", "disk", *_STRATEGIES)
        raise OptionError("device_map", error.problem, near) from error


def check_tp_plan(asked: Any, beside: Mapping[str, Any]) -> None:
    """Refuse a plan without processes, of another kind, or beside what contradicts it.

    Args:
        asked: The plan.
        beside: Options that say where weights go, and what was asked for.
    """
    if asked is None:
        return
    if asked != "auto" and not isinstance(asked, Mapping):
        raise OptionError("tp_plan", f"{asked!r} is no plan", ("auto", "a mapping"))
    for option, value in beside.items():
        if value is not None:
            raise OptionError(option, "it cannot be used beside `tp_plan`")
    if int(os.environ.get(_PROCESSES, "1")) < 2:  # noqa: PLR2004 -- one is alone
        raise OptionError(
            "tp_plan",
            "there is one process, and nothing to split a model among; start several "
            "with `torchrun --nproc-per-node 2 script.py`",
        )


def distribution(tp_plan: Any) -> Any:
    """Tell transformers to split weights by a plan; None where there is none."""
    if tp_plan is None:
        return None
    from transformers.distributed.configuration_utils import DistributedConfig

    return DistributedConfig(tp_plan="auto" if tp_plan == "auto" else dict(tp_plan))
