"""The models that figures are measured on, each built once."""

from collections.abc import Callable
from functools import cache
from typing import Any

import attrs
import torch
import transformers
from torch import Tensor

import funlens as fl


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """A random GPT-2, its spec, and tokens.

    Attributes:
        spec: The spec of the module.
        module: HuggingFace's own, as it came.
        tokens: One row of 64.
    """

    spec: fl.ModelSpec
    module: Any
    tokens: Tensor

    def forward(self, **options: Any) -> Callable[[], Any]:
        """Give HuggingFace's forward, without a graph and a cache of keys."""

        def call() -> Any:
            with torch.no_grad():
                return self.module(self.tokens, use_cache=False, **options)

        return call


@cache
def subject(*, attention: str = "sdpa", **sizes: int) -> Subject:
    """Build a model of some sizes; of GPT-2 small's where none are given."""
    config = transformers.GPT2Config(
        **sizes,
        attn_implementation=attention,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = transformers.GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (1, 64), generator=generator)
    return Subject(spec=fl.from_module(module), module=module, tokens=tokens)
