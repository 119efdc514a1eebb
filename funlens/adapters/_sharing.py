"""What a private copy of a module has in common with its owner's: everything heavy.

A copy is made by `copy.deepcopy` with a memo; what the memo holds is shared.
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from types import FunctionType, MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn

_OPAQUE: Final = (FunctionType, MethodType, type)


def shared_with(module: nn.Module) -> dict[int, Any]:
    """Say what a copy of a module shares: tensors wherever they lie, packed weights.

    Quantizers keep tensors beside the parameters, in plain attributes and in objects
    of their own. Some keep state on the parameter and move it in the first forward;
    such parameters become objects of the copy's own over the same storage, so that
    the owner's keep theirs.

    Returns:
        A memo for `copy.deepcopy`: by the `id` of an object what stands for it.
    """
    memo: dict[int, Any] = {id(held): held for held in _held(module)}
    stateful = [p for p in module.parameters() if _is_stateful(p)]
    for parameter in stateful:
        memo[id(parameter)] = _over_same_storage(parameter)
    for parameter in stateful:
        vars(memo[id(parameter)]).update(copy.deepcopy(vars(parameter), memo))
    return memo


def _is_stateful(parameter: nn.Parameter) -> bool:
    """Tell a class of parameters made by a quantizer, such as bitsandbytes."""
    kind = type(parameter)
    return kind is not nn.Parameter and issubclass(kind, nn.Parameter)


def _over_same_storage(parameter: nn.Parameter) -> Tensor:
    make: Any = torch.Tensor._make_subclass  # noqa: SLF001 -- what `nn.Parameter` is made with
    fresh: Tensor = make(type(parameter), parameter.data, parameter.requires_grad)
    return fresh


def _held(module: nn.Module) -> Iterator[Any]:
    """Walk to every tensor and packed weight of a module."""
    yield from chain(module.parameters(), module.buffers())
    seen: set[int] = set()
    todo: list[Any] = [vars(part) for part in module.modules()]
    todo += [vars(p) for p in module.parameters() if _is_stateful(p)]
    while todo:
        at = todo.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        if isinstance(at, Tensor | torch.ScriptObject):
            yield at
        elif isinstance(at, Mapping):
            todo.extend(at.values())
        elif isinstance(at, list | tuple | set):
            todo.extend(at)
        elif hasattr(at, "__dict__") and not isinstance(at, _OPAQUE):
            todo.append(vars(at))
