"""Next-token loss, without padding."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from funlens.data import Intervention, ModelSpec
from funlens.engine._inputs import Inputs, prepare
from funlens.engine._run import run
from funlens.errors import InputError


def loss_per_token(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    attention_mask: Tensor | None = None,
) -> Float[Tensor, "batch predicted"]:
    """Compute the loss of predicting each token from those before it.

    Args:
        spec: A causal model.
        inputs: As for `run`.
        interventions: What to change.
        attention_mask: As for `run`.

    Returns:
        Nats `[batch, pos - 1]`; NaN where the predicted token or the predicting one
        is padding.

    Raises:
        InputError: The model is not causal, or one token is too few.
    """
    makes_words = spec.engine.head == "words"
    if not spec.is_causal or spec.is_encoder_decoder or not makes_words:
        raise InputError(
            f"{spec.name} does not predict the next token",
            "a causal model with a language head",
            "Compute the loss from `run`'s logits",
        )
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    tokens: object = prepared.kwargs.get("input_ids")
    if not isinstance(tokens, Tensor):
        raise InputError("there are no tokens", "`input_ids`", "Pass text or tokens")
    if tokens.shape[1] < 2:  # noqa: PLR2004 -- one predicts, one is predicted
        raise InputError("there is one token", "two or more", "Pass a longer input")
    logits = run(spec, prepared.kwargs, interventions)
    log_probs = logits[:, :-1].float().log_softmax(-1)
    losses = -log_probs.gather(-1, tokens[:, 1:, None])[..., 0]
    mask = prepared.kwargs.get("attention_mask")
    if mask is None:
        return losses
    real = mask.bool()
    return torch.where(real[:, 1:] & real[:, :-1], losses, torch.nan)


def loss(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    attention_mask: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Compute the mean loss over all real tokens but each row's first, in nats.

    Args:
        spec: A causal model.
        inputs: As for `run`.
        interventions: What to change.
        attention_mask: As for `run`.
    """
    return loss_per_token(
        spec, inputs, interventions, attention_mask=attention_mask
    ).nanmean()
