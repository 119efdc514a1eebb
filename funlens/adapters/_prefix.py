"""Keys and values of an unedited run, for runs that go on from a position of it."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs
from torch import Tensor

KeysValues: TypeAlias = tuple[Tensor, Tensor]


@attrs.frozen(eq=False)
class Prefix:
    """What every layer's attention kept of a run.

    Attributes:
        layers: Keys and values of each layer, `[batch, head, pos, d_head]`.
    """

    layers: tuple[KeysValues, ...]

    def cache(self, length: int) -> Any:
        """Make a cache of HuggingFace's that holds the first positions.

        Nothing is ever added to it; it has as many rows as it is asked with.

        Args:
            length: How many positions it holds.
        """
        return _cache_of(
            [(k[..., :length, :], v[..., :length, :]) for k, v in self.layers]
        )


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


def _cache_of(layers: Sequence[KeysValues]) -> Any:
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class _Held(DynamicLayer):
        """A layer that shows what it holds before what it is given, and keeps none."""

        def update(
            self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
        ) -> KeysValues:
            times = len(key_states) // len(self.keys)
            held = (part.repeat(times, 1, 1, 1) for part in (self.keys, self.values))
            given = (key_states, value_states)
            keys, values = (
                torch.cat([before, after], dim=-2)
                for before, after in zip(held, given, strict=True)
            )
            return keys, values

    cache: Any = DynamicCache()
    for keys, values in layers:
        layer: Any = _Held()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.dtype, layer.device = keys.dtype, keys.device
        cache.layers.append(layer)
    return cache
