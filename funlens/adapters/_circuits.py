"""What a head reads and writes, as matrices of the stream: QK and OV."""

import torch
from torch import Tensor

from funlens.adapters._weights import W_K, W_O, W_Q, W_V
from funlens.data import FactoredMatrix, ModelSpec


def QK(spec: ModelSpec, layer: int | None = None, *, stack: str = "") -> FactoredMatrix:
    """Give `W_Q @ W_K.T` of each head: which stream looks at which.

    The score of a query and a key is `query @ QK @ key`, up to the model's scale of
    scores and its biases. What a model does to queries and keys afterwards is not in
    it: rotary positions and norms of heads. A key head that several queries share is
    repeated for each.

    Args:
        spec: The model.
        layer: The layer; all of them if left out.
        stack: `"encoder"` for the one beside the main stack.

    Returns:
        `[head, d_model, d_model]` of one layer, `[layer, head, d_model, d_model]` of
        all; never multiplied out.

    Raises:
        UnsupportedConfigError: A layer has no attention, or layers differ in shape.
        OptionError: There is no such layer or stack.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> fl.QK(spec)
        FactoredMatrix([4, 4, 128, 128] through 32, float32)
        >>> fl.QK(spec, 3)[2].norm().shape
        torch.Size([])
    """
    queries = W_Q(spec, layer, stack=stack)
    keys = _for_each(queries, W_K(spec, layer, stack=stack))
    return FactoredMatrix(queries, keys.mT)


def OV(spec: ModelSpec, layer: int | None = None, *, stack: str = "") -> FactoredMatrix:
    """Give `W_V @ W_O` of each head: what it adds for the stream that it looks at.

    A value head that several queries share is repeated for each.

    Args:
        spec: The model.
        layer: The layer; all of them if left out.
        stack: `"encoder"` for the one beside the main stack.

    Returns:
        As `QK`.

    Raises:
        UnsupportedConfigError: A layer has no attention, or layers differ in shape.
        OptionError: There is no such layer or stack.
    """
    outputs = W_O(spec, layer, stack=stack)
    values = _for_each(outputs, W_V(spec, layer, stack=stack))
    return FactoredMatrix(values, outputs)


def _for_each(heads: Tensor, shared: Tensor) -> Tensor:
    """Repeat shared heads, so that there is one for each of the others."""
    times = heads.shape[-3] // shared.shape[-3]
    return shared if times == 1 else torch.repeat_interleave(shared, times, dim=-3)
