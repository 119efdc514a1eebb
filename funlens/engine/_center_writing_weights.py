"""The mean of what is written to the stream, taken away."""

import torch

from funlens.adapters import (
    Draft,
    bare_readers,
    form_of,
    refusal,
    stream_norms,
    stream_writers,
)
from funlens.data import ModelSpec
from funlens.engine._inputs import Inputs
from funlens.engine._kept import if_kept


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
    return if_kept(spec, draft.spec(), "center_writing_weights", inputs)


def _check_centered(spec: ModelSpec) -> None:
    """Refuse where anything reads the mean of the stream."""
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
