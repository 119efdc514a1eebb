"""The config, with the fields that were given by name and a longer context."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import torch

from funlens.adapters._load_class import built
from funlens.adapters._load_errors import called
from funlens.adapters._load_request import (
    HUB_OPTIONS,
    MODEL_OPTIONS,
    OWN_OPTIONS,
    Request,
)
from funlens.errors import LoadError, OptionError, UnsupportedArchitectureError, nearest

_CONTEXT_FIELDS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
)


class ContextLengthWarning(UserWarning):
    """A model is to read more tokens than it was trained for."""


def config_of(request: Request) -> Any:
    """Read the config, with the fields that were given by name."""
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    raw: Mapping[str, Any]
    raw, _ = called(
        request,
        partial(PreTrainedConfig.get_config_dict, request.source, **request.hub),
    )
    model_type = str(raw.get("model_type", ""))
    if not model_type:
        raise LoadError(
            request.name,
            "it has no config.json that names a `model_type`",
            "Give a folder or repository made by `save_pretrained`",
        )
    if model_type not in CONFIG_MAPPING and "auto_map" not in raw:
        near = nearest(model_type, CONFIG_MAPPING)
        raise UnsupportedArchitectureError(model_type, near)
    auto: Any = AutoConfig
    read = partial(auto.from_pretrained, request.source, **request.code)
    config: Any = called(request, read)
    fields = {w: v for w, v in request.options.items() if w not in MODEL_OPTIONS}
    _refuse_unknown(fields, config)
    return called(request, partial(read, **fields)) if fields else config


def _refuse_unknown(fields: Mapping[str, Any], config: Any) -> None:
    own = {*config.to_dict(), *getattr(config, "attribute_map", {})}
    for field in fields:
        if field.startswith("_") or field not in own:
            every = (*OWN_OPTIONS, *HUB_OPTIONS, *MODEL_OPTIONS, *sorted(own))
            problem = (
                "unknown to `load`, to `from_pretrained` and to this "
                f"{config.model_type} config"
            )
            raise OptionError(field, problem, nearest(field, every))


def widened(config: Any, n_ctx: int | None, request: Request) -> int | None:
    """Write a longer context into the config, and give the trained length."""
    text = config.get_text_config()
    field = next(
        (f for f in _CONTEXT_FIELDS if isinstance(getattr(text, f, None), int)), None
    )
    trained: int | None = getattr(text, field) if field else None
    if n_ctx is None:
        return trained
    if n_ctx < 1:
        raise OptionError(
            option="n_ctx", problem=f"{n_ctx} tokens; expected at least 1"
        )
    if field and trained is not None and n_ctx > trained:
        before = _parameter_shapes(config, request)
        setattr(text, field, n_ctx)
        if _parameter_shapes(config, request) != before:
            problem = (
                f"positions are learned, and there are {trained} of them; "
                f"{n_ctx} would need weights that nobody trained"
            )
            raise OptionError(option="n_ctx", problem=problem)
    return trained


def _parameter_shapes(config: Any, request: Request) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = built(config, request)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}
