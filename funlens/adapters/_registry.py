"""From a HuggingFace module to a spec."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from itertools import chain
from typing import Any, Final

import attrs
from torch import nn

from funlens.adapters._attention import ATTENTION, register_attention
from funlens.adapters._experts import register_experts
from funlens.adapters._families import ARCHITECTURES
from funlens.adapters._language import Architecture
from funlens.adapters._machinery import Machinery
from funlens.adapters._skeleton import bare_copy
from funlens.adapters._taps import Binder, Tap, find, sizes_of, taps_of
from funlens.adapters._tokenizer import check_bos, tokenizer_in
from funlens.data import AXES, BosPolicy, ModelSpec, SiteInfo
from funlens.errors import (
    InputError,
    UnsupportedArchitectureError,
    UnsupportedConfigError,
    nearest,
)

_GROUP: Final = "funlens.architectures"
_KNOWN_ATTENTION: Final = ("sdpa", "eager")


def supported() -> tuple[str, ...]:
    """List the model types that have a table, third parties' included."""
    return tuple(sorted(set(chain.from_iterable(t.model_types for t in _tables()))))


def _tables() -> tuple[Architecture, ...]:
    loaded = (entry.load() for entry in entry_points(group=_GROUP))
    return (*loaded, *ARCHITECTURES)


def _table_for(config: Any) -> Architecture:
    model_type = str(getattr(config, "model_type", ""))
    found = [table for table in _tables() if model_type in table.model_types]
    for table in found:
        missing = object()
        if all(
            getattr(config, field, missing) == value
            for field, value in table.when.items()
        ):
            return table
    if found:
        wanted = " or ".join(str(dict(table.when)) for table in found)
        raise UnsupportedConfigError(model_type, f"its config has none of {wanted}")
    raise UnsupportedArchitectureError(model_type, nearest(model_type, supported()))


def from_module(
    module: nn.Module,
    tokenizer: Any = None,
    *,
    adapter: Architecture | None = None,
    name: str | None = None,
    revision: str | None = None,
    bos: BosPolicy = "tokenizer",
) -> ModelSpec:
    """Describe a HuggingFace model that is in memory.

    The module is only read: the spec runs a private copy of its structure that shares
    its tensors. The copy is made now; changes to the module's structure afterwards
    (not to its values) stay unseen.

    Args:
        module: A HuggingFace model in evaluation mode; PEFT-wrapped ones too.
        tokenizer: Its tokenizer, for text, or a processor that holds one.
        adapter: A table of your own, in place of the known ones.
        name: Name for reports; the module's class if left out.
        revision: Revision it was loaded from, for reports.
        bos: Who decides about a beginning-of-sequence token.

    Raises:
        UnsupportedArchitectureError: No table describes it.
        UnsupportedConfigError: The table does not fit this module.
        InputError: It is compiled, in training mode, or no HuggingFace model; or the
            tokenizer is none.
        OptionError: `bos` is no policy.
    """
    check_bos(bos)
    text = tokenizer_in(tokenizer)
    inner = _unwrapped(module)
    config = inner.config
    arch = adapter or _table_for(config)
    register_attention()
    register_experts()
    skeleton = bare_copy(inner)
    skeleton_config: Any = skeleton.config
    binder = Binder(
        arch=arch,
        module=skeleton,
        config=skeleton_config,
        sizes=sizes_of(arch, skeleton_config),
    )
    taps = {tap.site: tap for tap in _checked(taps_of(binder), binder)}
    machinery = Machinery(
        module=skeleton,
        arch=arch,
        config=skeleton_config,
        sizes=binder.sizes,
        taps=taps,
        blocks=_blocks(binder),
        has_interface=_has_interface(arch),
        attention=_attention_of(skeleton_config, arch),
    )
    spec = _spec(machinery, text, name or type(inner).__name__, revision, bos)
    return spec if text is tokenizer else attrs.evolve(spec, processor=tokenizer)


def _has_interface(arch: Architecture) -> bool:
    words = arch.main.block.attention
    return words is not None and words.has_interface


def _attention_of(config: Any, arch: Architecture) -> str:
    own = getattr(config, "_attn_implementation", None) or "eager"
    if own not in _KNOWN_ATTENTION and own != ATTENTION and _has_interface(arch):
        raise UnsupportedConfigError(
            config.model_type,
            f"its attention implementation is {own!r}, and sites can be met under "
            f"{' or '.join(_KNOWN_ATTENTION)} only",
            "Load it with `attn_implementation='sdpa'`.",
        )
    return str(own)


def _unwrapped(module: nn.Module) -> Any:
    """Take PEFT's and torch's wrappers off, and refuse what cannot be run."""
    if hasattr(module, "_orig_mod"):
        raise InputError(
            "this module is compiled, and taps placed afterwards would be ignored",
            "the module as HuggingFace made it",
            "Describe it first and use `torch.compile` on your own function",
        )
    inner = _without_peft(module)
    if getattr(inner, "config", None) is None or not hasattr(
        inner.config, "model_type"
    ):
        raise InputError(
            f"{type(module).__name__} is no HuggingFace model: it has no config",
            "a `transformers.PreTrainedModel`",
            "Load it with `funlens.load` or `AutoModelForCausalLM.from_pretrained`",
        )
    if inner.training:
        raise InputError(
            "the module is in training mode, so that dropout would make runs differ",
            "a module in evaluation mode",
            "Call `module.eval()` first",
        )
    return inner


def _without_peft(module: nn.Module) -> Any:
    """Take PEFT's wrapper off where nothing is lost with it."""
    base = getattr(module, "get_base_model", None)
    if not callable(base) or not hasattr(module, "peft_config"):
        return module
    wrapper: Any = module
    if any(config.is_prompt_learning for config in wrapper.peft_config.values()):
        raise InputError(
            "these adapters put virtual tokens in front of the input, and a run of the "
            "model below would leave them out",
            "adapters inside the layers, such as LoRA's",
            "Describe the base model, and pass the virtual tokens as `inputs_embeds`",
        )
    for layer in module.modules():
        if getattr(layer, "merged", False) and getattr(
            layer, "disable_adapters", False
        ):
            raise InputError(
                "its adapters are merged into the weights and disabled, so that a run "
                "would take them out of the weights",
                "adapters that are either merged or disabled",
                "Call `unmerge_adapter()` first",
            )
    return base()


def _checked(taps: tuple[Tap, ...], binder: Binder) -> tuple[Tap, ...]:
    for tap in taps:
        if tap.path and find(binder.module, tap.path) is None:
            raise UnsupportedConfigError(
                binder.arch.model_types[0],
                f"the table expects a module {tap.path!r} for {tap.site}, and there "
                "is none; transformers may have renamed it",
            )
    return taps


def _blocks(binder: Binder) -> tuple[str, ...]:
    stack = binder.arch.main
    blocks: Any = find(binder.module, stack.blocks)
    return tuple(f"{stack.blocks}.{at}" for at in range(len(blocks)))


def _spec(
    machinery: Machinery,
    tokenizer: Any,
    name: str,
    revision: str | None,
    bos: BosPolicy,
) -> ModelSpec:
    sizes, arch = machinery.sizes, machinery.arch
    infos = tuple(_info(tap, machinery) for tap in machinery.taps.values())
    machinery = attrs.evolve(machinery, shapes={info.site: info for info in infos})
    widths = {
        size
        for info in infos
        for axis, size in zip(info.axes, info.shape, strict=True)
        if axis == "d_mlp" and isinstance(size, int)
    }
    parts = {info.site.part for info in infos}
    return ModelSpec(
        name=name,
        revision=revision,
        model_type=machinery.config.model_type,
        n_layers=len(machinery.blocks),
        n_heads=sizes.n_heads if "z" in parts else 0,
        n_kv_heads=sizes.n_kv_heads if "z" in parts else 0,
        d_model=sizes.d_model,
        d_head=sizes.d_head if "z" in parts else 0,
        d_mlp=widths.pop() if len(widths) == 1 else 0,
        d_vocab=sizes.d_vocab,
        n_ctx=sizes.n_ctx,
        is_causal=arch.is_causal,
        is_encoder_decoder=arch.encoder is not None,
        is_parallel=arch.main.block.parallel,
        is_gated="mlp_gate" in parts,
        has_stream_norm=arch.main.block.stream_norm,
        sites=infos,
        tokenizer=tokenizer,
        bos=bos,
        engine=machinery,
    )


def _info(tap: Tap, machinery: Machinery) -> SiteInfo:
    axes = AXES[tap.site.part]
    known = _axis_sizes(tap, machinery)
    shape = tuple(known.get(axis, axis) for axis in axes)
    return SiteInfo(site=tap.site, axes=axes, shape=shape, read_only=tap.read_only)


def _axis_sizes(tap: Tap, machinery: Machinery) -> Mapping[str, int]:
    sizes = machinery.sizes
    known = {
        "one": 1,
        "d_model": sizes.d_model,
        "head": sizes.n_heads,
        "kv_head": sizes.n_kv_heads,
        "d_head": sizes.d_head,
        "vocab": sizes.d_vocab,
        "choice": int(getattr(machinery.config, "num_experts_per_tok", 0) or 0),
    }
    at: Any = find(machinery.module, tap.path) if tap.path else None
    if "expert" in AXES[tap.site.part] and at is not None:
        known["expert"] = int(at.weight.shape[0])
    widths = {"d_mlp", "d_inner", "d_ssm_proj", "d_ssm_params"}
    for axis in widths.intersection(AXES[tap.site.part]):
        known[axis] = _width(tap, at)
    return known


def _width(tap: Tap, at: Any) -> int:
    entering, leaving = _features(at)
    width = entering if tap.side == "in" else leaving
    return width // 2 if tap.site.part != "mlp_post" and _is_half(tap) else width


def _is_half(tap: Tap) -> bool:
    return type(tap.view).__name__ == "Half"


def _features(at: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear map, HuggingFace's Conv1D and PEFT's included."""
    at = getattr(at, "base_layer", at)
    if hasattr(at, "in_features"):
        return int(at.in_features), int(at.out_features)
    return int(at.weight.shape[0]), int(at.weight.shape[1])


def replaced(spec: ModelSpec, module: nn.Module) -> ModelSpec:
    """Give the spec of another module of the same structure."""
    old: Machinery = spec.engine
    fresh = Machinery(
        module=module,
        arch=old.arch,
        config=getattr(module, "config", old.config),
        sizes=old.sizes,
        taps=old.taps,
        shapes=old.shapes,
        blocks=old.blocks,
        has_interface=old.has_interface,
        attention=old.attention,
    )
    return attrs.evolve(spec, engine=fresh)


def sites(spec: ModelSpec) -> tuple[SiteInfo, ...]:
    """List every site of a model, with axes and shapes, in forward order."""
    return spec.sites
