"""Loading: from a name to a spec."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from funlens.adapters._language import Architecture
from funlens.adapters._load_config import ContextLengthWarning, config_of, widened
from funlens.adapters._load_device import (
    check_device_map,
    check_tp_plan,
    chosen_device,
)
from funlens.adapters._load_module import drawn, loaded
from funlens.adapters._load_request import refuse_without_weights, request_of
from funlens.adapters._load_tokenizer import tokenizer_for
from funlens.adapters._registry import from_module
from funlens.data import BosPolicy, ModelSpec


def load(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: Any = None,
    tp_plan: Mapping[str, str] | str | None = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
    load_weights: bool = True,
    seed: int = 0,
    n_ctx: int | None = None,
    bos: BosPolicy = "tokenizer",
    adapter: Architecture | None = None,
    trust_remote_code: bool = False,
    tokenizer: Any = None,
    **from_pretrained_options: Any,
) -> ModelSpec:
    """Load a model and describe it.

    Weights are read from safetensors only. With `FUNLENS_HF_RETRY=1` in the
    environment, calls that the hub answers with HTTP 429 are repeated.

    Args:
        name: Hub id, local folder, or `"builtin:tiny"`, which needs no network.
        revision: Branch, tag or commit of the hub's repository.
        dtype: Of the weights; the checkpoint's own if left out.
        device: Where to; by default the first CUDA device if there is one, else the
            CPU. MPS is chosen or allowed with `FUNLENS_ALLOW_MPS=1` only.
        device_map: HuggingFace's map over several devices, in place of `device`.
        tp_plan: `"auto"`, or HuggingFace's plan by which the processes that `torchrun`
            started split the weights. Each must then make the same calls.
        attn_implementation: HuggingFace's name of one; its own choice if left out.
        quantization_config: HuggingFace's.
        load_weights: Whether to read the weights; if not, they are drawn at random.
        seed: Fixes the weights that are drawn.
        n_ctx: Longest input, in place of the one it was trained with.
        bos: Who decides about a beginning-of-sequence token.
        adapter: A table of your own, in place of the known ones.
        trust_remote_code: Whether code from the repository may run.
        tokenizer: Another tokenizer, or the name of one; the model's own if left out.
        **from_pretrained_options: More keywords of `from_pretrained`, and fields of the
            model's config.

    Returns:
        The spec, in evaluation mode.

    Raises:
        LoadError: The files are not there, cannot be reached, or are damaged.
        GatedModelError: The hub wants an agreement first.
        OptionError: A keyword is unknown, or would have no effect.
        UnsupportedArchitectureError: No table describes it.
        UnsupportedConfigError: The table does not fit it.
        PathNotFoundError: Another version of transformers renamed what it names.
    """
    if not load_weights:
        idle = {
            "device_map": device_map,
            "tp_plan": tp_plan,
            "quantization_config": quantization_config,
        }
        refuse_without_weights(from_pretrained_options, idle)
    beside = {
        "device": device,
        "device_map": device_map,
        "quantization_config": quantization_config,
    }
    check_tp_plan(tp_plan, beside)
    check_device_map(device_map, device)
    is_placed = device_map is not None or tp_plan is not None
    request = request_of(
        os.fspath(name),
        revision,
        from_pretrained_options,
        dtype=dtype,
        device=None if is_placed else chosen_device(device),
        device_map=device_map,
        tp_plan=tp_plan,
        quantization=quantization_config,
        attention=attn_implementation,
        trusts_code=trust_remote_code,
    )
    config = config_of(request)
    trained = widened(config, n_ctx, request)
    model = loaded(config, request) if load_weights else drawn(config, request, seed)
    spec = from_module(
        model,
        tokenizer_for(tokenizer, request),
        adapter=adapter,
        name=request.name,
        revision=revision,
        bos=bos,
    )
    if n_ctx is not None and trained is not None and n_ctx > trained:
        text = f"{request.name} reads {n_ctx} tokens, and was trained with {trained}"
        warnings.warn(text, ContextLengthWarning, stacklevel=2)
    return spec if n_ctx is None else attrs.evolve(spec, n_ctx=n_ctx)
