"""Interventions as files, and records compared by what they hold."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import attrs
import torch
from torch import Tensor

from funlens.data._cache import ActivationCache, Receipt
from funlens.data._files import (
    load_tensors,
    save_tensors,
    to_path,
    write_atomically,
)
from funlens.data._interventions import (
    Add,
    Apply,
    Backward,
    Clamp,
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
    Zero,
)
from funlens.data._sites import Site
from funlens.errors import FunlensError, InputError, LoadError, NotSerializableError

Record: TypeAlias = Intervention | ActivationCache | Receipt
"""A record whose content can be hashed and compared."""

_FORMAT: Final = 1
_KINDS: Final[Mapping[str, Callable[..., Intervention]]] = {
    kind.__name__: kind
    for kind in (
        Add,
        Backward,
        Clamp,
        Freeze,
        Interchange,
        Mean,
        Noise,
        Patch,
        Project,
        ProjectOut,
        Scale,
        Set,
        Zero,
    )
}
"""The kinds that a file can name: nothing else is ever made from one."""


def to_json(interventions: Sequence[Intervention], path: str | PathLike[str]) -> None:
    """Write interventions as JSON, their tensors in a safetensors file beside it.

    Tensors are written as they are, from whatever device. Both files are put in place
    whole, the JSON last.

    Args:
        interventions: What to write; none of them may be `Apply` or `Splice`.
        path: Of the JSON file. The other has the suffix `.safetensors` in place of
            its own.

    Raises:
        NotSerializableError: One holds a function or a module.
        InputError: The path is that of the safetensors file, or its folder is missing.
    """
    target = to_path(path)
    beside = _beside(target)
    tensors: dict[str, Tensor] = {}
    rows = [
        _row(f"{index}", record, tensors=tensors)
        for index, record in enumerate(interventions)
    ]
    content = {
        "format": _FORMAT,
        "sha256": content_hash(interventions),
        "tensors": beside.name if tensors else None,
        "interventions": rows,
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if tensors:
        save_tensors(tensors, beside, about={"format": "pt"})
    write_atomically(target, lambda part: part.write_text(text, encoding="utf-8"))


def from_json(path: str | PathLike[str]) -> tuple[Intervention, ...]:
    """Read interventions that `to_json` wrote; tensors come to the CPU.

    Raises:
        LoadError: A file is missing, is no such file, or the two do not belong
            together.
    """
    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        version = content["format"]
        if version != _FORMAT:
            raise _unreadable(source, f"it has format {version!r}, not {_FORMAT}")
        held: Mapping[str, Tensor] = {}
        if content["tensors"] is not None:
            held, _ = load_tensors(_beside(source))
        made = tuple(_record(row, held) for row in content["interventions"])
        is_whole = content_hash(made) == content["sha256"]
    except LoadError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(source, f"{type(error).__name__}: {error}") from error
    if not is_whole:
        raise _unreadable(source, "its content is not what was written")
    return made


def content_hash(records: Record | Sequence[Record]) -> str:
    """Hash what records hold: kinds, sites, numbers, and tensors to the bit.

    The device, the strides and the identity of a tensor do not count. Reads every
    tensor once.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        NotSerializableError: One holds a function or a module.
    """
    return _digest(records, _refused)


def same_record(first: object, second: object) -> bool:
    """Tell whether two records hold the same, tensors compared to the bit.

    Functions and modules are the same if they are the same object.
    """
    return _digest(first, _by_identity) == _digest(second, _by_identity)


def _unreadable(path: Path, problem: str) -> LoadError:
    return LoadError(
        str(path), problem, "Expected the two files that `to_json` wrote; write again"
    )


def _beside(path: Path) -> Path:
    beside = path.with_suffix(".safetensors")
    if beside == path:
        problem = f"{path} is the name of the tensors' file"
        raise InputError(
            problem,
            "a path that ends in .json",
            "Change the suffix",
        )
    return beside


def _row(
    index: str, record: Intervention, *, tensors: dict[str, Tensor]
) -> Mapping[str, Any]:
    """Write one intervention, leaving its tensors in `tensors`."""
    kind = type(record).__name__
    if kind not in _KINDS:
        holds = "function" if isinstance(record, Apply) else "module"
        where = f"interventions[{index}], {kind}"
        raise NotSerializableError(where, holds)
    row: dict[str, Any] = {"kind": kind}
    for field in attrs.fields(type(record)):
        value: object = getattr(record, field.name)
        if isinstance(value, Tensor):
            key = f"{index}.{field.name}"
            tensors[key] = value
            row[field.name] = {"tensor": key}
        elif isinstance(value, Site):
            row[field.name] = str(value)
        elif isinstance(record, Backward):
            key = f"{index}.{field.name}"
            row[field.name] = _row(key, record.edit, tensors=tensors)
        elif isinstance(value, float) and not math.isfinite(value):
            row[field.name] = {"number": str(value)}
        else:
            row[field.name] = value
    return row


def _record(row: Mapping[str, Any], held: Mapping[str, Tensor]) -> Intervention:
    fields = {name: _value(value, held) for name, value in row.items()}
    try:
        return _KINDS[str(fields.pop("kind"))](**fields)
    except FunlensError as error:
        raise ValueError(str(error)) from error


def _value(value: object, held: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": str() as key}:
            return held[key]
        case {"number": str() as text}:
            return float(text)
        case {"kind": str()}:
            return _record(cast("Mapping[str, Any]", value), held)
        case None | bool() | int() | float() | str():
            return value
        case _:
            problem = f"a {type(value).__name__} stands for a value"
            raise TypeError(problem)


def _digest(value: object, opaque: Callable[[object], bytes]) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(value, opaque):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: object, opaque: Callable[[object], bytes]) -> Iterator[Any]:
    """Spell a value out in bytes; each piece is told apart by its length."""
    match value:
        case Tensor():
            yield f"{value.dtype} {[*value.shape]}".encode()
            yield _bytes(value)
        case Site():
            yield f"site {value}".encode()
        case None | bool() | str():
            yield f"{type(value).__name__} {value}".encode()
        case int() | float():
            yield f"number {_number(value)}".encode()
        case tuple() | list():
            items = cast("Sequence[object]", value)
            yield f"items {len(items)}".encode()
            for item in items:
                yield from _pieces(item, opaque)
        case _ if attrs.has(type(value)):
            yield from _fields(value, opaque)
        case _:
            yield opaque(value)


def _fields(record: object, opaque: Callable[[object], bytes]) -> Iterator[Any]:
    cls: type[Any] = type(record)
    yield cls.__name__.encode()
    for field in attrs.fields(cls):
        yield field.name.encode()
        yield from _pieces(getattr(record, field.name), opaque)


def _number(value: int | float) -> str:
    """Write a number so that 2 and 2.0 are the same, and 0.0 and -0.0 are not."""
    if isinstance(value, float) and value.is_integer() and str(value) != "-0.0":
        return str(int(value))
    return repr(value)


def _bytes(tensor: Tensor) -> memoryview:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _by_identity(value: object) -> bytes:
    return f"{type(value).__name__} {id(value)}".encode()


def _refused(value: object) -> bytes:
    where = f"a record with a {type(value).__name__}"
    raise NotSerializableError(where, "function or a module")
