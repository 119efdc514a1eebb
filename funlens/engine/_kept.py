"""Whether two ways of writing a model's weights mean the same."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from funlens.data import ModelSpec
from funlens.engine._inputs import Inputs
from funlens.engine._run import run
from funlens.errors import InputError, LogProbsMovedError

KEPT: Final[Mapping[torch.dtype, float]] = {
    torch.float64: 1e-5,  # some families compute norms in float32 whatever the dtype
    torch.float32: 1e-4,  # 24 bits, summed in another order in every layer
    torch.float16: 5e-3,  # 11 bits, and the new weights are rounded once more
    torch.bfloat16: 3e-2,  # 8 bits, likewise
}
"""How far log-probabilities may move, relative to the largest where that is above 1."""

_SHAPE: Final = (2, 8)  # enough for a router to send tokens to several experts
_LOWEST: Final = 4  # special tokens come first
_AXES: Final[Mapping[int, tuple[str, ...]]] = {
    2: ("row", "class"),
    3: ("row", "position", "token"),
}


def if_kept(
    before: ModelSpec, after: ModelSpec, function: str, inputs: Inputs | None
) -> ModelSpec:
    """Give a processed spec, if its log-probabilities are those it had.

    Args:
        before: The spec that was processed.
        after: What came out.
        function: Name of the processing, for the error.
        inputs: What to compare them on; a few random tokens if left out.

    Raises:
        LogProbsMovedError: They moved by more than rounding explains.
    """
    given = compared_on(before, inputs)
    expected, found = (_log_probs(run(spec, given)) for spec in (before, after))
    same = expected == found  # infinities, too
    moved = torch.where(same, 0.0, (expected - found).abs())
    worst = float(moved.max())
    size = float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max())
    tolerance = KEPT[before.dtype] * max(1.0, size)
    if worst <= tolerance:  # NaN is not
        return after
    at = torch.unravel_index(moved.argmax(), moved.shape)
    axes = _AXES.get(moved.ndim, ("index",) * moved.ndim)
    where = ", ".join(f"{axis} {int(one)}" for axis, one in zip(axes, at, strict=True))
    raise LogProbsMovedError(function, before.model_type, worst, tolerance, where)


def _log_probs(logits: Tensor) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide).log_softmax(-1)


def compared_on(spec: ModelSpec, inputs: Inputs | None) -> Inputs:
    """Give what to compare on: a few random tokens if nothing is given."""
    if inputs is not None:
        return inputs
    if not spec.d_vocab:
        raise InputError(
            "the model has no vocabulary to draw tokens from",
            "inputs to compare its outputs on",
            "Pass `inputs=`",
        )
    generator = torch.Generator().manual_seed(0)
    low = min(_LOWEST, spec.d_vocab - 1)
    drawn = torch.randint(low, spec.d_vocab, _SHAPE, generator=generator)
    names = ["input_ids", *(["decoder_input_ids"] if spec.is_encoder_decoder else [])]
    return dict.fromkeys(names, drawn.to(spec.device))
