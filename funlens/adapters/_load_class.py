"""The class of a model, and a module of it with whatever weights it draws."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from torch import nn

from funlens.adapters._load_errors import translated
from funlens.adapters._load_request import Request
from funlens.errors import UnsupportedArchitectureError

_AUTO_CLASSES: Final = (
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM",
)


def model_class(config: Any, request: Request) -> Any:
    """Find the class: what the config names, else the kind of its language head."""
    import transformers

    remote: Mapping[str, Any] = getattr(config, "auto_map", None) or {}
    if request.trusts_code:
        for auto in _AUTO_CLASSES:
            if auto in remote:
                return getattr(transformers, auto)
    headless = _headless()
    for name in _named(config):
        if name not in headless and not name.endswith("ForPreTraining"):
            return getattr(transformers, name)
    return _head_class(config)


def body_class(config: Any) -> Any:
    """Find the base model that a config names; None where it names none."""
    import transformers

    headless = _headless()
    found = (getattr(transformers, name) for name in _named(config) if name in headless)
    return next(found, None)


def _named(config: Any) -> tuple[str, ...]:
    """List the classes of transformers that a config names."""
    import transformers

    names: Any = getattr(config, "architectures", None) or ()
    return tuple(str(name) for name in names if hasattr(transformers, name))


def _headless() -> set[str]:
    from transformers.models.auto import modeling_auto

    mapping: Mapping[str, Any] = {**modeling_auto.MODEL_MAPPING_NAMES}
    names: set[str] = set()
    for value in mapping.values():
        names |= {value} if isinstance(value, str) else set(value)
    return names


def _head_class(config: Any) -> Any:
    """Find the language head's class by the config's type."""
    import transformers

    causal, masked, seq2seq = (getattr(transformers, auto) for auto in _AUTO_CLASSES)
    order = [causal, seq2seq]
    if getattr(config, "is_encoder_decoder", False):
        order = [seq2seq, causal]
    order.insert(len(order) if getattr(config, "is_decoder", False) else 0, masked)
    order.append(transformers.AutoModel)
    for auto in order:
        mapping: Any = auto._model_mapping  # noqa: SLF001 -- transformers has no public way to ask
        if type(config) in mapping:
            return auto
    raise UnsupportedArchitectureError(str(config.model_type))


def built(config: Any, request: Request) -> nn.Module:
    """Build the module with whatever weights its class draws."""
    chosen = model_class(config, request)
    words: dict[str, Any] = {}
    if request.attention is not None:
        words["attn_implementation"] = request.attention
    if request.dtype not in {None, "auto"}:
        words["dtype"] = request.dtype
    if hasattr(chosen, "from_config"):
        build = partial(chosen.from_config, trust_remote_code=request.trusts_code)
    else:
        build = chosen._from_config  # noqa: SLF001 -- the public form is of Auto classes only
    with translated(request):
        model: nn.Module = build(config, **words)
    return model
