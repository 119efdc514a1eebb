"""Keys and values of an unedited run, for runs that go on from a position of it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

KeysValues: TypeAlias = tuple[Tensor, Tensor]
Told: TypeAlias = Callable[[Tensor, Tensor], None]


@attrs.frozen(eq=False)
class Prefix:
    """What every layer's attention kept of a run.

    Attributes:
        layers: Keys and values of each layer, `[batch, head, pos, d_head]`.
    """

    layers: tuple[KeysValues, ...]

    def cache(self, length: int, *, told: Told | None = None) -> Any:
        """Make a cache of HuggingFace's that holds the first positions.

        Nothing is ever added to it; it has as many rows as it is asked with.

        Args:
            length: How many positions it holds.
            told: Called with the keys and values that the last layer attends to.
        """
        cut = ([part[..., :length, :] for part in layer] for layer in self.layers)
        return _cache_of([(keys, values) for keys, values in cut], told)

    def with_last(self, keys: Tensor, values: Tensor) -> "Prefix":
        """Let the last layer have kept something else, for more rows perhaps."""
        return Prefix((*self.layers[:-1], (keys, values)))


def recording() -> Any:
    """Make an empty cache, to be passed to a run."""
    from transformers import DynamicCache

    return DynamicCache()


def recorded(cache: Any) -> Prefix | None:
    """Give what a run left in a cache; None where it is more than keys and values."""
    from transformers.cache_utils import DynamicLayer

    layers: list[Any] = list(cache.layers)
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    if any(layer.keys is None for layer in layers):
        return None
    return Prefix(tuple((layer.keys, layer.values) for layer in layers))


def _cache_of(layers: Sequence[KeysValues], told: Told | None) -> Any:
    """Make a cache whose layers show what they hold before what they are given."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache: Any = DynamicCache()
    for at, (keys, values) in enumerate(layers, start=1):
        layer: Any = DynamicLayer()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.dtype, layer.device = keys.dtype, keys.device
        tell = told if at == len(layers) else None
        layer.update = partial(_shown, (keys, values), tell)  # keeps none of it
        cache.layers.append(layer)
    return cache


def _shown(
    held: KeysValues,
    tell: Told | None,
    key_states: Tensor,
    value_states: Tensor,
    *_: Any,
    **__: Any,
) -> KeysValues:
    """Put what is held, for as many rows, before what comes."""
    times = len(key_states) // len(held[0])
    before = (part.repeat(times, 1, 1, 1) for part in held)
    pairs = zip(before, (key_states, value_states), strict=True)
    keys, values = (torch.cat(pair, dim=-2) for pair in pairs)
    if tell is not None:
        tell(keys, values)
    return keys, values
