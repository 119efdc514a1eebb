"""Which attention heads do induction, and which look at the previous token."""

from typing import Final

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from funlens.builtin._batches import repeated_tokens
from funlens.builtin._tokenizer import BOS_ID

LENGTH: Final = 50
ROWS: Final = 32
CLEAR: Final = 0.5


@torch.no_grad()
def head_scores(model: LlamaForCausalLM, *, seed: int) -> dict[str, dict[str, float]]:
    """Score all heads on repeated random tokens after BOS.

    Args:
        model: A model whose attention is computed eagerly, so that it can be read.
        seed: Seed of the random tokens.

    Returns:
        For `induction` (attention from a repeated token to the one after its first
        occurrence) and `previous token`, the mean attention of each head above 0.5,
        named `layer.head`, the highest first.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = repeated_tokens(
        generator, batch=ROWS, length=LENGTH, vocab=model.config.vocab_size
    )
    bos = torch.full((ROWS, 1), BOS_ID)
    out = model(torch.cat([bos, tokens], dim=1), output_attentions=True)
    pattern = torch.stack(out.attentions).mean(dim=1)
    induction = pattern.diagonal(offset=1 - LENGTH, dim1=-2, dim2=-1)[..., 2:]
    previous = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)
    return {
        "induction": _clear(induction.mean(dim=-1)),
        "previous token": _clear(previous.mean(dim=-1)),
    }


def _clear(scores: Tensor) -> dict[str, float]:
    named = {
        f"{layer}.{head}": round(float(scores[layer, head]), 3)
        for layer in range(scores.shape[0])
        for head in range(scores.shape[1])
    }
    ranked = sorted(named.items(), key=lambda item: -item[1])
    return {name: score for name, score in ranked if score > CLEAR}
