"""The config, with the fields that were given by name and a longer context."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import attrs
import torch

from funlens.adapters._load_class import built
from funlens.adapters._load_errors import called
from funlens.adapters._load_request import (
    HUB_OPTIONS,
    MODEL_OPTIONS,
    OWN_OPTIONS,
    Request,
)
from funlens.adapters._toy import register_toys
from funlens.adapters._toy_tables import TOY_TYPE
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
    from transformers import CONFIG_MAPPING, AutoConfig

    fields = _stored(request)
    model_type = str(fields.get("model_type", ""))
    if not model_type:
        raise _no_model(request)
    if model_type == TOY_TYPE:
        register_toys()
    if model_type not in CONFIG_MAPPING and "auto_map" not in fields:
        near = nearest(model_type, CONFIG_MAPPING)
        raise UnsupportedArchitectureError(model_type, near)
    auto: Any = AutoConfig
    read = partial(auto.from_pretrained, request.source, **request.code)
    config: Any = called(request, read)
    asked = {w: v for w, v in request.options.items() if w not in MODEL_OPTIONS}
    _refuse_unknown(asked, config)
    return called(request, partial(read, **asked)) if asked else config


def _no_model(request: Request) -> LoadError:
    """Say what a folder or repository without a model's config is."""
    from transformers.utils import peft_utils

    find = partial(peft_utils.find_adapter_config_file, request.source, **request.hub)
    if called(request, find) is not None:
        return LoadError(
            request.name,
            "it holds adapters for another model",
            "Load both with `peft.AutoPeftModelForCausalLM.from_pretrained`, and pass "
            "the result to `funlens.from_module`",
        )
    return LoadError(
        request.name,
        "it has no config.json that names a `model_type`",
        "Give a folder or repository made by `save_pretrained`",
    )


def _stored(request: Request) -> Mapping[str, Any]:
    """Read what stands in config.json; nothing where it is no mapping."""
    from transformers import PreTrainedConfig

    read = partial(PreTrainedConfig.get_config_dict, request.source, **request.hub)
    found: Any = called(request, read)
    return found[0] if isinstance(found[0], Mapping) else {}


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
    """Make room for a longer context, and give the trained length.

    Rotary positions need no table, and some kinds are scaled by the trained length:
    there the config stays, so that short inputs give the numbers that they gave.
    """
    text = config.get_text_config()
    field = next(
        (f for f in _CONTEXT_FIELDS if isinstance(getattr(text, f, None), int)), None
    )
    trained: int | None = getattr(text, field) if field else None
    if n_ctx is None:
        return trained
    if type(n_ctx) is not int or n_ctx < 1:
        raise OptionError("n_ctx", f"{n_ctx!r}; expected a number of tokens, 1 or more")
    if field and trained is not None and n_ctx > trained:
        before = _shapes(config, request)
        setattr(text, field, n_ctx)
        after = _shapes(config, request)
        if before.parameters != after.parameters:
            problem = (
                f"positions are learned, and there are {trained} of them; "
                f"{n_ctx} would need weights that nobody trained"
            )
            raise OptionError(option="n_ctx", problem=problem)
        is_rotary = getattr(text, "rope_parameters", None) is not None
        if is_rotary and before.buffers == after.buffers:
            setattr(text, field, trained)
    return trained


@attrs.frozen
class _Shapes:
    """Shapes of a module's tensors, by name."""

    parameters: tuple[tuple[str, torch.Size], ...]
    buffers: tuple[tuple[str, torch.Size], ...]


def _shapes(config: Any, request: Request) -> _Shapes:
    with torch.device("meta"):
        model = built(config, request)
    return _Shapes(
        tuple((name, held.shape) for name, held in model.named_parameters()),
        tuple((name, held.shape) for name, held in model.named_buffers()),
    )
