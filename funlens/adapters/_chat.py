"""Conversations to tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from funlens.adapters._tokenizer import plain_ids, tokenizer_of
from funlens.data import ModelSpec
from funlens.errors import TokenizerError


def to_chat_tokens(
    spec: ModelSpec,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
) -> Int[Tensor, "batch pos"]:
    """Turn a conversation into token ids, with the tokenizer's chat template.

    The template writes the special tokens; no policy about them is applied.

    Args:
        spec: A model whose tokenizer has a chat template.
        messages: Records with `role` and `content`, oldest first.
        add_generation_prompt: Whether the assistant's turn is opened at the end.

    Returns:
        One row of ids on the spec's device.

    Raises:
        TokenizerError: There is no tokenizer, or it has no chat template.
    """
    tokenizer = tokenizer_of(spec)
    if not getattr(tokenizer, "chat_template", None):
        raise TokenizerError(
            problem=f"the tokenizer of {spec.name} has no chat template",
            advice="Use an instruction-tuned model, or write the prompt as plain text",
        )
    written: str = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )
    ids = plain_ids(spec, written)
    return torch.tensor([ids], dtype=torch.long, device=spec.device)
