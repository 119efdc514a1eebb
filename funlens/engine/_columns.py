"""Logits of a few tokens, where a model's head is one linear map and nothing else."""

from functools import partial
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from funlens.adapters import Machinery, Unembedding, unembedding_of
from funlens.data import ModelSpec, PerRow, Scale, Selection, Site
from funlens.engine._inputs import Prepared, prepare
from funlens.engine._metrics import Metric, check_token
from funlens.engine._options import Options
from funlens.engine._plan import make_plan
from funlens.engine._traced import traced

_STREAM: Final = Site(part="ln_final_normalized")
_FAR: Final = 64.0  # times as large: a cap on logits bends what it lets through else
_CLOSE: Final = 1e-3


def columns_of(
    spec: ModelSpec, prepared: Prepared, at: Selection | None
) -> Unembedding | None:
    """Give what maps the stream to single logits; None where all are needed.

    What the model makes of logits afterwards, a run of two positions tells, once for
    each model.

    Args:
        spec: The model.
        prepared: Its inputs.
        at: The position of the logits that are read, if it is one.
    """
    machinery: Machinery = spec.engine
    is_one = isinstance(at, int | PerRow)
    is_text = "input_ids" in prepared.kwargs and not spec.is_encoder_decoder
    if not is_one or not is_text or _STREAM not in machinery.taps:
        return None
    head = unembedding_of(machinery)
    if head is None:
        return None
    is_plain: bool = machinery.noted("plain_head", lambda: _is_plain(spec, head))
    return head if is_plain else None


def from_stream(metric: Metric, head: Unembedding) -> Metric:
    """Let a metric of a few tokens read what enters the unembedding."""
    return attrs.evolve(metric, function=partial(_read, metric, head))


def _read(metric: Metric, head: Unembedding, entering: Tensor) -> Tensor:
    combine: Any = metric.of_tokens
    n_tokens = len(head.weight)
    for token in metric.tokens:
        check_token(token, len(entering), n_tokens)
    found: Tensor = combine(*(head.logits(entering, token) for token in metric.tokens))
    return found


def _is_plain(spec: ModelSpec, head: Unembedding) -> bool:
    """Compare a model's logits with those of the linear map, far from 0 too."""
    tokens = torch.arange(2, device=spec.device)[None] % max(1, spec.d_vocab)
    prepared = prepare(spec, tokens)
    plan = make_plan(spec, prepared.frames, [Scale(_STREAM, _FAR)])
    plain = Options(grad=False)
    entering, _ = traced(spec, prepared, plan, options=plain, enters_unembed=True)
    logits, _ = traced(spec, prepared, plan, options=plain)
    expected = torch.nn.functional.linear(entering, head.weight, head.bias)
    size = float(expected.abs().max())
    return logits.shape == expected.shape and torch.allclose(
        logits.to(expected.dtype), expected, rtol=0, atol=_CLOSE * size
    )
