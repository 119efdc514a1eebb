"""Inside a module: its softmax, its products and its projections, seen as they run."""

from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from funlens.adapters._active import Active, Point, Seen
from funlens.adapters._tap import Side

_SOFTMAX: Final = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_SQUARE: Final[tuple[Side, ...]] = ("scores", "pattern")
_PRODUCT: Final = frozenset(
    {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
)


class Inside(TorchFunctionMode):
    """While a module runs: its softmax, its first product, its first projection."""

    def __init__(
        self, active: Active, path: str, module: nn.Module, *, products: int = 0
    ) -> None:
        super().__init__()
        self.active = active
        self.path = path
        self.seen = Seen(module, None)
        self.products = products
        self.projections = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Let the run look before and after."""
        del types
        kwargs = kwargs or {}
        if func in _SOFTMAX and _is_last(args, kwargs):
            args = (self._act("scores", args[0]), *args[1:])
            return self._act("pattern", func(*args, **kwargs))
        if func in _PRODUCT and args[0].ndim == 4:  # noqa: PLR2004 -- batch head query key
            self.products += 1
            if self.products == 1:
                keys = self._act("rot_k", args[1].transpose(-1, -2))
                args = (self._act("rot_q", args[0]), keys.transpose(-1, -2), *args[2:])
        if func is F.scaled_dot_product_attention and self._looks():
            return self._attend(*args, **kwargs)
        if func is F.linear:
            self.projections += 1
            if self.projections == 1:
                return self._act("linear", func(*args, **kwargs))
        return func(*args, **kwargs)

    def _looks(self) -> bool:
        """Tell whether the run asks for scores or a pattern."""
        return any(self.active.wants((self.path, side)) for side in _SQUARE)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *,
        scale: float | None = None,
        **unused: Any,
    ) -> Tensor:
        """Attend step by step, for a family that calls torch's attention itself."""
        if unused.get("is_causal"):  # no such family shows its pattern
            raise AssertionError(self.path)
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = (query @ key.transpose(-1, -2)) * factor
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        pattern = F.softmax(self._act("scores", scores), dim=-1)
        return self._act("pattern", pattern) @ value

    def _act(self, side: Side, raw: Any) -> Any:
        point: Point = (self.path, side)
        if not self.active.wants(point):
            return raw
        return self.active.act(point, raw, self.seen)


def _is_last(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a softmax runs along the last axis, as one over keys does."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    return dim in (-1, args[0].ndim - 1)
