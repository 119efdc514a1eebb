"""`ModelSpec`: what an adapter makes of a HuggingFace model."""

from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import nn

from funlens.data._sites import Site

BosPolicy: TypeAlias = Literal["tokenizer", "always", "never"]


@attrs.frozen(kw_only=True)
class SiteInfo:
    """One site of a model.

    Attributes:
        site: The site, without a selection.
        axes: Names of its axes.
        shape: Sizes of its axes; a name where the size depends on the inputs.
        read_only: Why it cannot be changed; empty where it can.
        given: The input without which it is not met; empty where none is needed.
    """

    site: Site
    axes: tuple[str, ...]
    shape: tuple[int | str, ...]
    read_only: str = ""
    given: str = ""


@attrs.frozen(kw_only=True, eq=False, slots=False)
class ModelSpec:
    """A frozen description of a model, and what runs.

    Attributes:
        name: Where it was loaded from, or the class of the module.
        revision: Revision that was asked for, if any.
        model_type: HuggingFace's name of the architecture.
        n_layers: Blocks of the main stack.
        n_heads: Query heads of a layer; 0 without attention.
        n_kv_heads: Key and value heads of a layer; 0 without attention.
        d_model: Width of the residual stream.
        d_head: Width of a head; 0 without attention.
        d_mlp: Hidden width of the MLP; 0 where layers differ or have none.
        d_vocab: Size of the vocabulary.
        n_ctx: Longest input the model was built for; None if it has no limit.
        is_causal: Whether positions see only earlier ones.
        is_encoder_decoder: Whether an encoder stands beside the main stack.
        is_parallel: Whether attention and MLP read the same stream, so that there is
            no `resid_mid`.
        is_gated: Whether the MLPs have a gate.
        has_stream_norm: Whether a norm stands on the stream itself, so that
            components sum to what enters that norm.
        n_streams: Streams that blocks pass on: 1, or several with
            `streams_pre` and `streams_post` instead of `resid_pre` and `resid_post`.
        sites: Every site, in the order of the forward pass.
        inferred: Whether its sites were inferred, rather than told by a table.
        tokenizer: HuggingFace's tokenizer, or None.
        processor: HuggingFace's processor, if one was given in the tokenizer's place.
        bos: Who decides about a beginning-of-sequence token.
        engine: The private half: skeletons of the model and its taps.
    """

    name: str
    revision: str | None = None
    model_type: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int | None
    is_causal: bool
    is_encoder_decoder: bool
    is_parallel: bool
    is_gated: bool
    has_stream_norm: bool
    n_streams: int = 1
    sites: tuple[SiteInfo, ...] = attrs.field(repr=False)
    inferred: bool = False
    tokenizer: Any = attrs.field(default=None, repr=False)
    processor: Any = attrs.field(default=None, repr=False)
    bos: BosPolicy = "tokenizer"
    engine: Any = attrs.field(repr=False)

    @property
    def module(self) -> nn.Module:
        """The module that runs: a private copy of the structure, sharing tensors."""
        module: nn.Module = self.engine.module
        return module

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the activations."""
        dtype: torch.dtype = self.engine.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Device that inputs are moved to."""
        device: torch.device = self.engine.device
        return device
