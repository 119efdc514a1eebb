"""The module: weights read from safetensors, or drawn from a seed."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, cast

import torch
from torch import nn

from funlens.adapters._load_class import body_class, built, model_class
from funlens.adapters._load_device import distribution
from funlens.adapters._load_errors import called, translated
from funlens.adapters._load_request import MODEL_OPTIONS, Request
from funlens.errors import LoadError, OptionError, nearest

_MOST_NAMED: Final = 4


def drawn(config: Any, request: Request, seed: int) -> nn.Module:
    """Draw the weights on the CPU, so that they are the same on every device."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = built(config, request)
    return _moved(model.eval(), request)


def loaded(config: Any, request: Request) -> nn.Module:
    """Read the weights; none may be missing, but those of a head that nobody named."""
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
        "distributed_config": distribution(request.tp_plan),
    }
    words |= {word: value for word, value in given.items() if value is not None}
    model, info = _read(model_class(config, request), request, words)
    body = body_class(config)
    if body is not None and _lacks_only_the_head(model, info):
        model, info = _read(body, request, words)
    _refuse_missing(info, request)
    _refuse_left_out(info, model, request)
    _refuse_unknown_places(model, request)
    is_placed = not words.keys().isdisjoint({"device_map", "distributed_config"})
    return model.eval() if is_placed else _moved(model.eval(), request)


def _read(
    chosen: Any, request: Request, words: Mapping[str, Any]
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Read one class's weights, and what HuggingFace says about them."""
    with torch.random.fork_rng(devices=[]):  # missing weights would be drawn
        return called(request, partial(chosen.from_pretrained, request.source, **words))


def _lacks_only_the_head(model: Any, info: Mapping[str, Any]) -> bool:
    missing = [str(key) for key in info["missing_keys"]]
    own = f"{model.base_model_prefix}."
    return bool(missing) and not any(key.startswith(own) for key in missing)


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


def _refuse_left_out(
    info: Mapping[str, Any], model: nn.Module, request: Request
) -> None:
    """Refuse a config with fewer layers than the checkpoint, unless asked for."""
    asked = request.options.keys() - MODEL_OPTIONS
    names = sorted(str(key) for key in info["unexpected_keys"])
    beyond = [name for name in names if _is_beyond(name, model)]
    if beyond and not asked:
        raise LoadError(
            request.name,
            f"the checkpoint has more layers than its config says ({beyond[0]})",
            "Correct its config.json, or name the number of layers: "
            "`load(..., num_hidden_layers=...)`",
        )


def _is_beyond(name: str, model: nn.Module) -> bool:
    """Tell whether a weight belongs to a layer after the last."""
    found: Any = model
    for part in name.split("."):
        if isinstance(found, nn.ModuleList) and part.isdecimal():
            if int(part) >= len(found):
                return True
            found = found[int(part)]
        else:
            found = getattr(found, part, None)
    return False


def _refuse_unknown_places(model: Any, request: Request) -> None:
    if not isinstance(request.device_map, Mapping):
        return
    parts = (*model.named_modules(), *model.named_parameters())
    known = [str(name) for name, _ in parts]
    asked = cast("Mapping[str, Any]", request.device_map)
    for place in asked:
        if place not in known:
            problem = f"the model has no module {place!r}"
            raise OptionError("device_map", problem, nearest(place, known))


def _moved(model: nn.Module, request: Request) -> nn.Module:
    """Put the module on its device."""
    with translated(request):
        return model.to(request.device)
