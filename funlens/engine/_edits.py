"""What each intervention makes of a value. Everything is out of place."""

from collections.abc import Sequence
from typing import Any, assert_never

import torch
from torch import Tensor

from funlens.data import (
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
    Site,
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


def operands(edit: ForwardEdit) -> tuple[Any, ...]:  # noqa: PLR0911 -- one short case for each kind
    """List the values of an edit, as `changed` takes them."""
    match edit:
        case Set(value=value):
            return (value,)
        case Patch() | Freeze() | Mean():
            return (_source(edit),)
        case Add(vector=vector, scale=scale):
            return vector, scale
        case Scale(factor=factor):
            return (factor,)
        case Clamp(low=low, high=high):
            return low, high
        case Project(directions=directions) | ProjectOut(directions=directions):
            return (directions,)
        case Interchange(directions=directions):
            return directions, _source(edit)
        case _:
            return ()


def span(edit: Intervention) -> Tensor | None:
    """Give the directions of an edit that acts within their span."""
    if isinstance(edit, (Project, ProjectOut, Interchange)):
        return edit.directions
    return None


def _source(edit: Patch | Freeze | Interchange | Mean) -> Tensor:
    """Give what a record took from its source when it was made."""
    source = edit.value if isinstance(edit, Mean) else edit.source
    if not isinstance(source, Tensor):  # the record's converter takes it out
        raise AssertionError(str(edit.site))  # noqa: TRY004 -- our own bug, no caller's
    return source


def read_by(edit: Intervention) -> tuple[Site, ...]:
    """List the other sites that an edit reads."""
    match edit:
        case Backward(edit=inner):
            return read_by(inner)
        case Apply(reads=reads):
            return reads
        case _:
            return ()


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
    edit: ForwardEdit,
    value: Tensor,
    *,
    where: str,
    generator: torch.Generator | None = None,
    given: tuple[Any, ...] | None = None,
    read: Sequence[Tensor] = (),
) -> Tensor:
    """Carry an intervention out on the selected value.

    Args:
        edit: The intervention.
        value: What is there now.
        where: Name of the intervention, for errors.
        generator: Source of noise, for `Noise`.
        given: Operands to use instead of the intervention's own, known to fit.
        read: What was at other sites before, for `Apply`.

    Raises:
        ShapeError: A tensor does not fit the value.
        DtypeError: A tensor is wider than the value.
        UserFunctionError: The caller's function or module misbehaves.
    """
    if given is None:
        _check_operand(edit, value, where)
        given = operands(edit)
    match edit:
        case Zero():
            return torch.zeros_like(value)
        case Mean() | Set() | Patch() | Freeze():
            return _filled(value, *given)
        case Add():
            return _added(value, *given)
        case Scale():
            return value * given[0]
        case Clamp():
            return value.clamp(*given)
        case Noise(std=std):
            return value + std * _noise(value, generator)
        case Project() | ProjectOut() | Interchange():
            return _in_span(edit, value, *given)
        case Splice():
            return _spliced(edit, value, where)
        case Apply(function=function):
            site = str(edit.site)
            return applied(function, value.clone(), where=where, site=site, read=read)
        case _:
            assert_never(edit)


def _check_operand(edit: Intervention, value: Tensor, where: str) -> None:
    """Check what the plan cannot know: what this value is in this run."""
    held = operand(edit)
    if held is None:
        return
    name, tensor = f"{where}.{held[0]}", held[1]
    if not fits(tuple(tensor.shape), tuple(value.shape)):
        raise ShapeError(name, tuple(tensor.shape), tuple(value.shape))
    if torch.promote_types(tensor.dtype, value.dtype) != value.dtype:
        raise DtypeError(name, str(tensor.dtype), str(value.dtype))


def _filled(value: Tensor, new: Tensor | float) -> Tensor:
    if isinstance(new, Tensor):
        return new.to(value.dtype).expand(value.shape)
    return torch.full_like(value, new)


def _added(value: Tensor, vector: Tensor, scale: float) -> Tensor:
    return value + (vector if scale == 1.0 else scale * vector)


def _noise(value: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw outside of any transform: the same for every mapped value."""
    core: Any = getattr(torch, "_C")  # noqa: B009 -- torch has no public name for it
    with core._DisableFuncTorch():  # noqa: SLF001 -- as above
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float32)
    return noise.to(value)


def _in_span(
    edit: Project | ProjectOut | Interchange,
    value: Tensor,
    spanning: Tensor,
    source: Tensor | None = None,
) -> Tensor:
    """Project with the pseudo-inverse: directions may depend on each other, or be 0."""
    wide = torch.promote_types(value.dtype, torch.float32)
    directions = spanning.reshape(-1, spanning.shape[-1]).to(wide)
    linalg: Any = torch.linalg
    coordinates: Tensor = linalg.pinv(directions)

    def inside(part: Tensor) -> Tensor:
        return (part.to(wide) @ coordinates @ directions).to(value.dtype)

    if source is not None:
        return value + inside(source - value)
    return inside(value) if isinstance(edit, Project) else value - inside(value)


def _spliced(edit: Splice, value: Tensor, where: str) -> Tensor:
    new = applied(edit.module, value, where=where, site=str(edit.site))
    if not edit.keep_error:
        return new
    return new + (value - new).detach()


def applied(
    function: Any,
    value: Tensor,
    *,
    where: str,
    site: str,
    read: Sequence[Tensor] = (),
) -> Tensor:
    """Call a function of the caller's, and look at what it returns.

    Raises:
        UserFunctionError: It raises, or returns something else than such a value.
    """
    shape, dtype = value.shape, value.dtype
    try:
        new: object = function(value, *read)
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


def check_tensors(
    edit: Intervention,
    dtypes: frozenset[torch.dtype],
    *,
    device: torch.device | None,
    where: str,
) -> None:
    """Refuse an edit whose tensors have another dtype or device than the activations.

    Args:
        edit: The intervention.
        dtypes: Dtypes that the activations can have.
        device: Where they lie, if that is known.
        where: Name of the intervention, for errors.

    Raises:
        DtypeError: It has.
    """
    directions = span(edit)
    named = [operand(edit), None if directions is None else ("directions", directions)]
    for name, tensor in filter(None, named):
        place = f"{where}.{name}"
        if tensor.dtype not in dtypes:
            expected = " or ".join(sorted(map(str, dtypes)))
            raise DtypeError(place, str(tensor.dtype), expected)
        if device is not None and tensor.device != device:
            raise DtypeError(place, f"on {tensor.device}", f"a tensor on {device}")
