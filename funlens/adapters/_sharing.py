"""What a private copy of a module has in common with its owner's: everything heavy.

A copy is made by `copy.deepcopy` with a memo; what the memo holds is shared.
"""

import copy
import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from types import CellType, FunctionType, MethodType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

_CACHES: Final = "transformers.cache_utils"


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
    return (
        nn.Parameter in type(parameter).__mro__[1:]
    )  # torchao's tensors only pass for one


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
        if isinstance(at, Tensor | torch.ScriptObject):
            yield at
        elif id(at) not in seen:
            seen.add(id(at))
            todo += _parts(at)


def _parts(at: Any) -> list[Any]:
    """Open containers and plain objects; code not, nor what a forward writes to."""
    if type(at).__module__ == _CACHES:
        return []
    match at:
        case dict():  # no other mapping: accelerate's read from the disk
            return list(cast("dict[Any, Any]", at).values())
        case list() | tuple() | set():
            return list(cast("Iterable[Any]", at))
        case FunctionType() | MethodType() | type():
            return []
        case _:
            return [at.__dict__] if hasattr(at, "__dict__") else []


def rebound(copied: nn.Module, memo: Mapping[int, Any]) -> nn.Module:
    """Let forwards that somebody wrapped call the copy, not its owner's module.

    A function in the place of a forward knows its module by a closure, and
    `copy.deepcopy` leaves functions as they are.

    Args:
        copied: The copy.
        memo: What stands for each object of the owner's, by its `id`.
    """
    for part in copied.modules():
        forward = vars(part).get("forward")
        if isinstance(forward, FunctionType):
            part.forward = _rebound(forward, memo, frozenset())
    return copied


def _rebound(
    function: FunctionType, memo: Mapping[int, Any], around: frozenset[int]
) -> FunctionType:
    """Make a function of the same code that closes over the copy's modules."""
    cells = function.__closure__ or ()
    within = around | {id(function)}
    ours = tuple(_cell(cell, memo, within) for cell in cells)
    if all(map(operator.is_, cells, ours)):
        return function
    fresh = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        ours,
    )
    fresh.__kwdefaults__ = function.__kwdefaults__
    vars(fresh).update(vars(function))
    return fresh


def _cell(cell: CellType, memo: Mapping[int, Any], around: frozenset[int]) -> CellType:
    """Give the cell itself where it holds nothing of the owner's."""
    try:
        held: Any = cell.cell_contents
    except ValueError:  # empty yet
        return cell
    match held:
        case nn.Module() if id(held) in memo:
            return CellType(memo[id(held)])
        case MethodType() if id(held.__self__) in memo:
            return CellType(MethodType(held.__func__, memo[id(held.__self__)]))
        case FunctionType() if id(held) not in around:
            ours = _rebound(held, memo, around)
            return cell if ours is held else CellType(ours)
        case _:
            return cell
