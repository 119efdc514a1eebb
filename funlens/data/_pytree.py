"""Records as pytrees, so that they cross `torch.func` and `torch.compile`.

Tensors are children; sites, numbers, functions and modules are context. A record is put
together again without its constructor: what stands in a tensor's place may be an axis
number, None or a marker of torch's own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
from torch.utils import _pytree

from funlens.data._cache import ActivationCache, Receipt
from funlens.data._factored import FactoredMatrix
from funlens.data._interventions import (
    Add,
    Apply,
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
    Splice,
    Zero,
)

_Key: TypeAlias = Any
_Context: TypeAlias = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]

_TENSORS: Final[Mapping[type, tuple[str, ...]]] = {
    Add: ("vector",),
    Apply: (),
    Backward: ("edit",),
    Clamp: (),
    FactoredMatrix: ("A", "B"),
    Freeze: ("source",),
    Interchange: ("source", "directions"),
    Mean: ("value",),
    Noise: (),
    Patch: ("source",),
    Project: ("directions",),
    ProjectOut: ("directions",),
    Receipt: ("change",),
    Scale: ("factor",),
    Set: ("value",),
    Splice: (),
    Zero: (),
}
"""Fields that hold a tensor; where one may hold a number, a number is context."""

_NUMBER_TOO: Final = frozenset({(Set, "value"), (Scale, "factor")})


class _PlacedInt(int):
    """A number in a tensor's place, which stays a child: torch puts axes there."""


class _PlacedFloat(float):
    """The same for a float."""


def _is_number(value: object) -> bool:
    """Tell whether a caller's number stands where a tensor could."""
    placed = isinstance(value, (_PlacedInt, _PlacedFloat, bool))
    return isinstance(value, (int, float)) and not placed


def _placed(value: Any) -> Any:
    if not _is_number(value):
        return value
    return _PlacedInt(value) if isinstance(value, int) else _PlacedFloat(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _PlacedInt):
        return int(value)
    return float(value) if isinstance(value, _PlacedFloat) else value


def _made(cls: type[Any], fields: Sequence[tuple[str, Any]]) -> Any:
    """Put a record together without its constructor, converters and validators."""
    record: Any = object.__new__(cls)
    for name, value in fields:
        object.__setattr__(record, name, value)
    return record


def _register_record(cls: type, names: tuple[str, ...]) -> None:
    every = tuple(field.name for field in attrs.fields(cls))
    rest = tuple(name for name in every if name not in names)

    def children(record: Any) -> tuple[str, ...]:
        """Name the fields that are children now: a number is none."""
        return tuple(
            name
            for name in names
            if (cls, name) not in _NUMBER_TOO or not _is_number(getattr(record, name))
        )

    def flatten(record: Any) -> tuple[list[Any], _Context]:
        held = children(record)
        others = (*rest, *(name for name in names if name not in held))
        context = tuple((name, getattr(record, name)) for name in others)
        return [_plain(getattr(record, name)) for name in held], (held, context)

    def unflatten(values: Any, context: _Context) -> Any:
        held, others = context
        placed = tuple(
            (name, _placed(value) if (cls, name) in _NUMBER_TOO else value)
            for name, value in zip(held, values, strict=True)
        )
        return _made(cls, (*others, *placed))

    def flatten_with_keys(record: Any) -> tuple[list[tuple[_Key, Any]], _Context]:
        values, context = flatten(record)
        keys = [_pytree.GetAttrKey(name) for name in context[0]]
        return list(zip(keys, values, strict=True)), context

    _register(cls, flatten, unflatten=unflatten, with_keys=flatten_with_keys)


def _register(
    cls: type,
    flatten: Callable[[Any], tuple[list[Any], Any]],
    *,
    unflatten: Callable[[Any, Any], Any],
    with_keys: Callable[[Any], tuple[list[tuple[_Key, Any]], Any]],
) -> None:
    _pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"funlens.{cls.__name__}",
        flatten_with_keys_fn=with_keys,
    )


_CACHE_CONTEXT: Final = tuple(
    field.name
    for field in attrs.fields(ActivationCache)
    if field.name not in {"entries", "receipts"}
)


def _flatten_cache(cache: Any) -> tuple[list[Any], Any]:
    sites = tuple(site for site, _ in cache.entries)
    tensors = [tensor for _, tensor in cache.entries]
    context = (sites, tuple((name, getattr(cache, name)) for name in _CACHE_CONTEXT))
    return [*tensors, cache.receipts], context


def _unflatten_cache(values: Any, context: Any) -> Any:
    # No cache in these annotations: the shape checks would look for tensors in it.
    sites, others = context
    *tensors, receipts = values
    entries = tuple(zip(sites, tensors, strict=True))
    fields = (("entries", entries), ("receipts", receipts), *others)
    return _made(ActivationCache, fields)


def _flatten_cache_with_keys(cache: Any) -> tuple[list[tuple[_Key, Any]], Any]:
    values, context = _flatten_cache(cache)
    keys: list[_Key] = [_pytree.MappingKey(str(site)) for site in context[0]]
    keys.append(_pytree.GetAttrKey("receipts"))
    return list(zip(keys, values, strict=True)), context


for _cls, _names in _TENSORS.items():
    _register_record(_cls, _names)
_register(
    ActivationCache,
    _flatten_cache,
    unflatten=_unflatten_cache,
    with_keys=_flatten_cache_with_keys,
)
