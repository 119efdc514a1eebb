"""One attention function for every family that asks transformers for one."""

import sys
from typing import Any, Final

import torch
from torch import Tensor, nn

from funlens.adapters._active import ACTIVE, Active, Seen
from funlens.adapters._inside import Inside

ATTENTION: Final = "funlens"
EAGER_ATTENTION: Final = "funlens_eager"  # with the masks that eager attention has
# Towers that pack pictures into one row then hand it over whole, with its seams.
PACKED_ATTENTION: Final = "funlens_flash"

_FLASH_ONLY: Final = frozenset({"cu_seq_lens_k", "max_length_q", "max_length_k"})


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend for every family: SDPA, or eager where the run looks inside."""
    active = ACTIVE.get()
    path = module.__dict__.get("funlens_path", "")
    watched = False
    if active is not None:
        watched = active.wants_inside(path)
        query, key = _rotated(active, path, module, query, key)
    return _attended(
        module, query, key, value, attention_mask, watched=watched, **kwargs
    )


def _attended(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    watched: bool,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend with SDPA, or eager where that is asked for."""
    from transformers import modeling_utils

    active = ACTIVE.get()
    base = module.__dict__.get("funlens_base") or "eager"
    if watched or (active is not None and active.forces_eager):
        base = "eager"
    if base != "eager":
        functions: Any = modeling_utils.ALL_ATTENTION_FUNCTIONS
        return functions[base](module, query, key, value, attention_mask, **kwargs)
    names: Any = vars(sys.modules[type(module).__module__])
    eager = names["eager_attention_forward"]
    if "Vision" in type(module).__name__:  # one file may have a function for each half
        eager = names.get("vision_eager_attention_forward", eager)
    is_causal = kwargs.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    mask = _additive(attention_mask, query, key, is_causal=bool(is_causal))
    if active is None or not watched:
        return eager(module, query, key, value, mask, **kwargs)
    path = module.__dict__["funlens_path"]
    with Inside(active, path, module, products=1):  # its keys were seen as arguments
        return eager(module, query, key, value, mask, **kwargs)


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend within each stretch of one packed row, as HuggingFace does in a loop.

    Where the run looks inside, the stretches are attended to at once, so that there is
    one pattern, which is 0 between them.
    """
    if cu_seq_lens_q is None:  # rows as usual, in a family that can also pack them
        return attend(module, query, key, value, attention_mask, **kwargs)
    kept = {name: held for name, held in kwargs.items() if name not in _FLASH_ONLY}
    active = ACTIVE.get()
    path = module.__dict__.get("funlens_path", "")
    if active is not None and active.wants_inside(path):
        lengths = cu_seq_lens_q.diff()
        which = torch.arange(len(lengths), device=lengths.device)
        which = which.repeat_interleave(lengths).to(query.device)
        mask = (which[:, None] == which)[None, None]
        return attend(module, query, key, value, mask, **kept)
    if active is not None:
        query, key = _rotated(active, path, module, query, key)
    sizes = [int(size) for size in cu_seq_lens_q.diff().unbind()]
    queries, keys, values = (
        torch.split(at, sizes, dim=2) for at in (query, key, value)
    )
    outs = [
        _attended(module, q, k, v, attention_mask, watched=False, **kept)[0]
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outs, dim=1), None


def _rotated(
    active: Active, path: str, module: nn.Module, query: Tensor, key: Tensor
) -> tuple[Tensor, Tensor]:
    seen = Seen(module, None)
    if active.wants((path, "rot_q")):
        query = active.act((path, "rot_q"), query, seen)
    if active.wants((path, "rot_k")):
        key = active.act((path, "rot_k"), key, seen)
    return query, key


def _additive(
    mask: Tensor | None, query: Tensor, key: Tensor, *, is_causal: bool
) -> Tensor | None:
    """Turn SDPA's mask into the one that is added to scores."""
    lowest = torch.finfo(query.dtype).min
    if mask is None:
        n_queries, n_keys = query.shape[2], key.shape[2]
        if not is_causal:
            return None
        seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        # One query sees all; several are aligned as SDPA's, keys may be spare slots.
        mask = (seen if n_queries == 1 else seen.tril())[None, None]
    if mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=query.dtype, device=query.device)
    return torch.where(mask, zero, lowest)


def register_attention() -> None:
    """Make funlens's names known to transformers; twice is once."""
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    masks: Any = masking_utils
    for name, function, mask in (
        (ATTENTION, attend, masks.sdpa_mask),
        (EAGER_ATTENTION, attend, masks.eager_mask),
        (PACKED_ATTENTION, attend_packed, masks.sdpa_mask),
    ):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, mask)
