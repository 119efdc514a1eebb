"""The rows of an unembedding that belong to a few tokens."""

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._machinery import Machinery
from funlens.adapters._tree import find


@attrs.frozen(eq=False)
class Unembedding:
    """A linear map from the stream to logits.

    Attributes:
        weight: `[vocab, d_model]`.
        bias: `[vocab]`, if there is one.
    """

    weight: Tensor
    bias: Tensor | None

    def logits(self, entering: Tensor, token: int | Tensor) -> Tensor:
        """Give one token's logit for each row.

        Args:
            entering: What enters the unembedding, `[batch, d_model]`.
            token: Its id, one or one for each row.
        """
        wide = torch.promote_types(entering.dtype, torch.float32)
        logit = (entering.to(wide) * self.weight[token].to(wide)).sum(-1)
        logit = logit if self.bias is None else logit + self.bias[token]
        return logit.to(entering.dtype)


def unembedding_of(machinery: Machinery) -> Unembedding | None:
    """Give the module that makes logits, where it is a plain linear map of tensors."""
    at: Any = find(machinery.module, machinery.unembed) if machinery.unembed else None
    if type(at) is not nn.Linear or machinery.weights_away:
        return None
    is_plain = type(at.weight) is nn.Parameter and at.weight.is_floating_point()
    bias = dict(at.named_parameters()).get("bias")
    shift = None if bias is None else bias.detach()
    return Unembedding(at.weight.detach(), shift) if is_plain else None
