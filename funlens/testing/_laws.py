"""The laws that hold on every architecture, as checks of a loaded model."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from funlens.adapters import to_tokens, versions
from funlens.data import ModelSpec
from funlens.engine import run_with_cache
from funlens.engine._progress import steps
from funlens.errors import InputError
from funlens.testing._laws_edits import (
    all_editable,
    neutral_edits,
    own_value,
    restart,
    transplant,
)
from funlens.testing._laws_files import stored
from funlens.testing._laws_runs import batch, padding, same_logits, unchanged
from funlens.testing._laws_sums import (
    blocks_join,
    heads_mix,
    heads_sum,
    patterns,
    recurrences_read,
    writes_sum,
)
from funlens.testing._laws_sweeps import sweep_loops
from funlens.testing._laws_transforms import slopes, vmap_loops
from funlens.testing._laws_weights import processing
from funlens.testing._subject import PADS, Certificate, LawResult, Subject

_ROWS: Final = 2
_COLUMNS: Final = 7


def verify(
    spec: ModelSpec,
    inputs: Mapping[str, Any] | Tensor | str | None = None,
    *,
    untouched: nn.Module | None = None,
) -> Certificate:
    """Check the laws on a model.

    Args:
        spec: The model.
        inputs: What to run; random tokens if left out.
        untouched: A module that funlens never saw, to compare logits with; the
            spec's own copy of the structure without taps if left out.

    Returns:
        A certificate with one row for each law. Costs two forwards for each site, and
        memory for a second set of weights.
    """
    given = example_inputs(spec, inputs)
    logits, cache = run_with_cache(spec, given)
    subject = Subject(
        spec=spec, inputs=given, untouched=untouched, cache=cache, logits=logits
    )
    rows = [law(subject) for law in steps(LAWS, "laws")]
    return Certificate(
        model=spec.name,
        model_type=spec.model_type,
        versions=versions(),
        rows=rows,
    )


def example_inputs(
    spec: ModelSpec, inputs: Mapping[str, Any] | Tensor | str | None
) -> Mapping[str, Any]:
    """Make what a law is checked on: what was given, or random tokens."""
    if isinstance(inputs, Mapping):
        return inputs
    if isinstance(inputs, Tensor):
        return {"input_ids": inputs}
    if isinstance(inputs, str):
        return {"input_ids": to_tokens(spec, inputs)}
    if not spec.d_vocab:
        raise InputError("the model has no vocabulary", "inputs", "Pass `inputs=`")
    generator = torch.Generator().manual_seed(0)
    low = min(4, spec.d_vocab - 1)

    def draw(columns: int) -> Tensor:
        shape = (_ROWS, columns)
        return torch.randint(low, spec.d_vocab, shape, generator=generator)

    room = _COLUMNS if spec.n_ctx is None else max(1, spec.n_ctx - PADS)
    drawn = {"input_ids": draw(min(_COLUMNS, room)).to(spec.device)}
    if spec.engine.head == "sequences" and spec.is_encoder_decoder:
        drawn["input_ids"][:, -1] = spec.engine.config.eos_token_id  # where it looks
    elif spec.is_encoder_decoder:
        drawn["decoder_input_ids"] = draw(_COLUMNS - 2).to(spec.device)
    return drawn


LAWS: Final[tuple[Callable[[Subject], LawResult], ...]] = (
    same_logits,
    blocks_join,
    writes_sum,
    patterns,
    heads_mix,
    heads_sum,
    recurrences_read,
    own_value,
    all_editable,
    neutral_edits,
    transplant,
    restart,
    batch,
    padding,
    vmap_loops,
    sweep_loops,
    slopes,
    unchanged,
    stored,
    processing,
)
"""Every law that `verify` checks, in order."""
