"""What each intervention makes of a value. Everything is out of place."""

from typing import Any, assert_never

import torch
from torch import Tensor

from funlens.data import (
    ActivationCache,
    Add,
    Apply,
    Backward,
    Clamp,
    ForwardEdit,
    Freeze,
    Interchange,
    Intervention,
    Mean,
    Noise,
    Patch,
    Project,
    ProjectOut,
    Scale,
    Set,
    Splice,
    Zero,
)
from funlens.errors import DtypeError, FunlensError, ShapeError, UserFunctionError


def operand(edit: Intervention) -> tuple[str, Tensor] | None:
    """Name the tensor of an edit that must fit its site, if it has one."""
    match edit:
        case Backward(edit=inner):
            return operand(inner)
        case Mean(value=value) | Set(value=value) if isinstance(value, Tensor):
            return "value", value
        case Add(vector=vector):
            return "vector", vector
        case Scale(factor=factor) if isinstance(factor, Tensor):
            return "factor", factor
        case Patch() | Freeze() | Interchange():
            return "source", _source(edit)
        case _:
            return None


def _source(edit: Patch | Freeze | Interchange) -> Tensor:
    """Give what a record took from its source when it was made."""
    source = edit.source
    if isinstance(source, ActivationCache):  # the record's converter takes it out
        raise AssertionError(str(edit.site))  # noqa: TRY004 -- our own bug, no caller's
    return source


def tensors(edit: Intervention) -> tuple[Tensor, ...]:
    """List every tensor that an edit holds, its module's parameters included."""
    if isinstance(edit, Backward):
        return tensors(edit.edit)
    if isinstance(edit, Splice):
        return tuple(edit.module.parameters())
    values = (getattr(edit, name) for name in type(edit).__match_args__)
    held = [value for value in values if isinstance(value, Tensor)]
    if isinstance(edit, Interchange):
        held.append(edit.directions)
    return tuple(held)


def fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Tell whether a shape is the expected one or its last axes; 0 is any length."""
    if len(shape) > len(expected):
        return False
    trailing = expected[len(expected) - len(shape) :]
    return all(size in {0, given} for size, given in zip(trailing, shape, strict=True))


def changed(  # noqa: C901, PLR0911 -- one short case for each kind
    edit: ForwardEdit, value: Tensor, *, where: str, generator: torch.Generator | None
) -> Tensor:
    """Carry an intervention out on the selected value.

    Args:
        edit: The intervention.
        value: What is there now.
        where: Name of the intervention, for errors.
        generator: Source of noise, for `Noise`.

    Raises:
        ShapeError: A tensor does not fit the value.
        UserFunctionError: The caller's function or module misbehaves.
    """
    held = operand(edit)
    if held is not None and not fits(tuple(held[1].shape), tuple(value.shape)):
        raise ShapeError(f"{where}.{held[0]}", tuple(held[1].shape), tuple(value.shape))
    match edit:
        case Zero():
            return torch.zeros_like(value)
        case Mean(value=new) | Set(value=new):
            return _filled(value, new)
        case Patch() | Freeze():
            return _filled(value, _source(edit))
        case Add(vector=vector, scale=scale):
            return value + (vector if scale == 1.0 else scale * vector)
        case Scale(factor=factor):
            return value * factor
        case Clamp(low=low, high=high):
            return value.clamp(min=low, max=high)
        case Noise(std=std):
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float32)
            return value + std * noise.to(value)
        case Project() | ProjectOut() | Interchange():
            return _in_span(edit, value)
        case Splice():
            return _spliced(edit, value, where)
        case Apply(function=function):
            return _applied(function, value.clone(), where=where, site=str(edit.site))
        case _:
            assert_never(edit)


def _filled(value: Tensor, new: Tensor | float) -> Tensor:
    if isinstance(new, Tensor):
        return new.expand(value.shape)
    return torch.full_like(value, new)


def _in_span(edit: Project | ProjectOut | Interchange, value: Tensor) -> Tensor:
    width = edit.directions.shape[-1]
    directions = edit.directions.reshape(-1, width).to(value.dtype)
    linalg: Any = torch.linalg
    basis: Tensor = linalg.qr(directions.mT)[0]
    if isinstance(edit, Interchange):
        return value + (_source(edit) - value) @ basis @ basis.mT
    inside = value @ basis @ basis.mT
    return inside if isinstance(edit, Project) else value - inside


def _spliced(edit: Splice, value: Tensor, where: str) -> Tensor:
    new = _applied(edit.module, value, where=where, site=str(edit.site))
    if not edit.keep_error:
        return new
    return new + (value - new).detach()


def _applied(function: Any, value: Tensor, *, where: str, site: str) -> Tensor:
    shape, dtype = value.shape, value.dtype
    try:
        new: object = function(value)
    except FunlensError:
        raise
    except Exception as error:
        problem = f"it raised {type(error).__name__}: {error}"
        raise UserFunctionError(where, site, problem) from error
    if not isinstance(new, Tensor):
        problem = f"it returned {type(new).__name__}; was `return` forgotten?"
        raise UserFunctionError(where, site, problem)
    if new.shape != shape:
        problem = f"it returned shape {tuple(new.shape)} for {tuple(shape)}"
        raise UserFunctionError(where, site, problem)
    if new.dtype != dtype:
        problem = f"it returned {new.dtype} for {dtype}"
        raise UserFunctionError(where, site, problem)
    return new


def check_dtype(edit: Intervention, dtype: torch.dtype, *, where: str) -> None:
    """Refuse an edit whose tensor has another dtype than the activations.

    Raises:
        DtypeError: It has.
    """
    held = operand(edit)
    if held is not None and held[1].dtype != dtype:
        raise DtypeError(f"{where}.{held[0]}", str(held[1].dtype), str(dtype))
