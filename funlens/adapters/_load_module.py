"""The module: weights read from safetensors, or drawn from a seed."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from funlens.adapters._load_class import built, model_class
from funlens.adapters._load_errors import called, translated
from funlens.adapters._load_request import MODEL_OPTIONS, Request
from funlens.errors import LoadError

_MOST_NAMED: Final = 4


def drawn(config: Any, request: Request, seed: int) -> nn.Module:
    """Draw the weights on the CPU, so that they are the same on every device."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = built(config, request)
    return _moved(model.eval(), request)


def loaded(config: Any, request: Request) -> nn.Module:
    """Read the weights; none may be missing."""
    chosen = model_class(config, request)
    words: dict[str, Any] = {
        **{w: v for w, v in request.options.items() if w in MODEL_OPTIONS},
        **request.hub,
        "config": config,
        "dtype": "auto" if request.dtype is None else request.dtype,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    given = {
        "attn_implementation": request.attention,
        "device_map": _placement(config, request),
        "quantization_config": request.quantization,
        "trust_remote_code": request.trusts_code or None,
    }
    words |= {word: value for word, value in given.items() if value is not None}
    with torch.random.fork_rng(devices=[]):  # missing weights would be drawn
        model, info = called(
            request, partial(chosen.from_pretrained, request.source, **words)
        )
    _refuse_missing(info, request)
    return model.eval() if "device_map" in words else _moved(model.eval(), request)


def _placement(config: Any, request: Request) -> Any:
    """Give HuggingFace's map: quantized weights cannot be moved afterwards."""
    own = getattr(config, "quantization_config", None)
    is_quantized = request.quantization is not None or own is not None
    if request.device_map is None and is_quantized:
        return {"": request.device}
    return request.device_map


def _refuse_missing(info: Mapping[str, Any], request: Request) -> None:
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        more = ", …" if len(missing) > _MOST_NAMED else ""
        raise LoadError(
            request.name,
            f"{len(missing)} weights are not in the checkpoint "
            f"({', '.join(missing[:_MOST_NAMED])}{more}) and would be random",
            "Use a checkpoint of the whole model, language head included",
        )


def _moved(model: nn.Module, request: Request) -> nn.Module:
    """Put the module on its device."""
    with translated(request):
        return model.to(request.device)
