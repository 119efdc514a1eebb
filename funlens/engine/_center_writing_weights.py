"""The mean of what is written to the stream, taken away."""

from typing import Final

import torch

from funlens.adapters import (
    Draft,
    bare_readers,
    form_of,
    refusal,
    stream_norms,
    stream_writers,
)
from funlens.data import ModelSpec, Part
from funlens.engine._inputs import Inputs
from funlens.engine._kept import compared_on, if_kept
from funlens.engine._run import run_with_cache

_ROUNDINGS: Final = 16  # of the largest value, from all that was added


@torch.no_grad()
def center_writing_weights(
    spec: ModelSpec, *, inputs: Inputs | None = None
) -> ModelSpec:
    """Take the mean over `d_model` away from all that is written to the stream.

    Layer norms take it away before anything reads the stream, so that it means nothing.
    Embeddings, positions, output projections and their biases are centered. Where the
    unembedding is tied to the embedding, it is parted from it and stays as it is.

    Args:
        spec: The model; it and its tensors stay as they are.
        inputs: What to compare log-probabilities on; a few random tokens if left out.

    Returns:
        A new spec with the same log-probabilities, whose stream has mean 0 everywhere;
        memory for all weights that write.

    Raises:
        UnsupportedConfigError: It cannot be done here, as with RMS norms, which keep
            the mean; the error gives the reason.
        LogProbsMovedError: Log-probabilities would not stay the same.
    """
    draft = Draft(spec)
    _check_centered(spec)
    for writer in stream_writers(spec):
        weight = draft.matrix(writer.matrix)
        draft.set_matrix(writer.matrix, weight - weight.mean(-1, keepdim=True))
        bias = draft.bias(writer.matrix)
        if bias is not None:
            draft.set_bias(writer.matrix, bias - bias.mean(-1, keepdim=True))
    centered = draft.spec()
    _check_stream(centered, inputs)
    return if_kept(spec, centered, "center_writing_weights", inputs)


def _check_stream(centered: ModelSpec, inputs: Inputs | None) -> None:
    """Refuse where the stream still has a mean: something else writes to it, too."""
    cache = run_with_cache(
        centered, compared_on(centered, inputs), capture=[Part("resid_post")]
    ).cache
    for site, stream in cache.items():
        wide = stream.to(torch.promote_types(stream.dtype, torch.float32))
        rounding = torch.finfo(centered.dtype).eps * wide.abs().max()
        if wide.mean(-1).abs().max() > _ROUNDINGS * rounding:
            raise refusal(
                centered.model_type,
                f"what its table does not tell of writes to the stream before {site}",
            )


def _check_centered(spec: ModelSpec) -> None:
    """Refuse where anything reads the mean of the stream, or several streams run."""
    if spec.n_streams > 1:
        raise refusal(
            spec.model_type, f"its blocks pass {spec.n_streams} streams, and mix them"
        )
    for norm in stream_norms(spec):
        if not form_of(spec, norm.path).centered:
            raise refusal(
                spec.model_type,
                f"{norm.path} is an RMS norm, which does not take the mean away: the "
                "mean of the stream is read",
            )
    bare = bare_readers(spec)
    if bare:
        raise refusal(
            spec.model_type,
            f"{bare[0]} reads the stream without a norm before it, with its mean",
        )
