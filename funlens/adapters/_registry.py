"""From a HuggingFace module to a spec."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, Literal

import attrs
from torch import nn

from funlens.adapters._attention import ATTENTION, EAGER_ATTENTION, register_attention
from funlens.adapters._binder import Binder, blocks_of
from funlens.adapters._drift import check_paths
from funlens.adapters._experts import register_experts
from funlens.adapters._families import ARCHITECTURES
from funlens.adapters._families_images import AROUND
from funlens.adapters._language import Architecture, Around, Stack
from funlens.adapters._machinery import Machinery
from funlens.adapters._outputs import Head, head_of, labels_of
from funlens.adapters._parallel import refuse_spread, with_parts
from funlens.adapters._skeleton import bare_copy, has_interface
from funlens.adapters._tap import Tap
from funlens.adapters._taps import taps_of
from funlens.adapters._third_parties import installed_tables
from funlens.adapters._tokenizer import check_bos, tokenizer_in
from funlens.adapters._toy_tables import TOY_TYPE
from funlens.adapters._tree import (
    Sizes,
    features,
    find,
    first,
    joined,
    lists_of,
    path_of,
    subconfig,
)
from funlens.adapters._verified import VERIFIED
from funlens.adapters._views import AS_IS, is_centered
from funlens.data import AXES, BosPolicy, ModelSpec, Site, SiteInfo
from funlens.errors import (
    InputError,
    UnsupportedArchitectureError,
    UnsupportedConfigError,
    nearest,
)

_KNOWN_ATTENTION: Final = ("sdpa", "eager")
_BUILTIN: Final = tuple(
    table if TOY_TYPE in table.model_types else attrs.evolve(table, verified=VERIFIED)
    for table in ARCHITECTURES
)
_OUR_ATTENTION: Final = (ATTENTION, EAGER_ATTENTION)


def described() -> tuple[str, ...]:
    """List the model types that have a table, third parties' included."""
    return tuple(sorted(set(chain.from_iterable(t.model_types for t in _tables()))))


def _tables() -> tuple[Architecture | Around, ...]:
    return (*installed_tables(), *AROUND, *_BUILTIN)


def _table_for(config: Any) -> Architecture | Around:
    model_type = str(getattr(config, "model_type", ""))
    named = [table for table in _tables() if model_type in table.model_types]
    for table in named:
        if isinstance(table, Around) or all(
            getattr(config, name, None) == told for name, told in table.when.items()
        ):
            return table
    found = [table for table in named if isinstance(table, Architecture)]
    if found:
        wanted = " or ".join(str(dict(table.when)) for table in found)
        raise UnsupportedConfigError(model_type, f"its config has none of {wanted}")
    raise UnsupportedArchitectureError(model_type, nearest(model_type, described()))


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
        BrokenTableError: An installed package promises a table, and has none.
        UnsupportedConfigError: The table does not fit this module.
        PathNotFoundError: Another version of transformers renamed what it names.
        InputError: It is compiled, in training mode, or no HuggingFace model; or the
            tokenizer is none.
        OptionError: `bos` is no policy.
    """
    check_bos(bos)
    text = tokenizer_in(tokenizer)
    inner = _unwrapped(module)
    table = adapter or _table_for(inner.config)
    arch = _fitting(_joined(table, inner), inner)
    refusal = arch.refusal(inner) if arch.refusal else ""
    if refusal:
        raise UnsupportedConfigError(inner.config.model_type, refusal, "")
    refuse_spread(inner)
    register_attention()
    register_experts()
    skeleton = bare_copy(inner)
    if arch.refit:
        arch.refit(skeleton)
    binder = _bound(arch, skeleton)
    taps = {tap.site: tap for tap in taps_of(binder)}
    check_paths(binder, taps.values())
    unembed = binder.below_body(arch.unembed) or _held(skeleton, "output")
    head = head_of(skeleton, unembed=unembed)
    taps.update({tap.site: tap for tap in _head_taps(binder, head, unembed)})
    machinery = Machinery(
        module=skeleton,
        binder=binder,
        taps=with_parts(skeleton, taps),
        blocks=blocks_of(binder, arch.main),
        embed=binder.below_body(arch.main.embed) or binder.embed,
        unembed=unembed if head == "words" else "",
        head=head,
        attention=_attention_of(binder.config, skeleton),
        watched=_watched(skeleton, taps.values()),
        centered=_centered(skeleton, taps.values(), binder.width),
    )
    spec = _spec(machinery, text, name or type(inner).__name__, revision, bos)
    return spec if text is tokenizer else attrs.evolve(spec, processor=tokenizer)


def _joined(table: Architecture | Around, module: Any) -> Architecture:
    """Give the table of a language model, and what stands around it.

    Raises:
        UnsupportedArchitectureError: No table describes the language model.
        UnsupportedConfigError: There is no language model where the table says.
    """
    if isinstance(table, Architecture):
        return table
    config = subconfig(module.config, table.config)
    if config is None:  # the language model alone, under the name of the whole
        config = module.config.get_text_config()
    inner = _table_for(config)
    if inner is table:
        problem = f"its {table.config!r} names the model that it is part of"
        raise UnsupportedConfigError(table.model_types[0], problem)
    arch = _joined(inner, module)
    main = attrs.evolve(arch.main, config=table.config, **_changed(arch.main, table))
    return attrs.evolve(
        arch,
        model_types=table.model_types,
        body=_language(table, module),
        main=main,
        others={**arch.others, **table.others},
        **table.words,
    )


def _language(table: Around, module: Any) -> str:
    """Path of the body of the language model within a model."""
    base = path_of(module, module.base_model)
    at = first(module, table.language, base) or first(module, table.language)
    held: Any = find(module, at)
    inner = getattr(held, "base_model", held)
    return joined(at, path_of(held, inner))


def _changed(stack: Stack, table: Around) -> dict[str, Any]:
    """Give the words of a stack that differ, and of its kinds of blocks."""
    if not table.block or not stack.block:
        return {**table.stack}
    return {
        **table.stack,
        "block": tuple(attrs.evolve(k, **table.block) for k in stack.kinds),
    }


def _fitting(arch: Architecture, module: Any) -> Architecture:
    """Let an encoder that stands alone be the main stack."""
    body = arch.body or path_of(module, module.base_model)
    others = {name: _there(module, body, stack) for name, stack in arch.others.items()}
    arch = attrs.evolve(arch, others=others)
    encoder = arch.others.get("encoder")
    if encoder is None or _blocks(module, body, arch.main):
        return arch
    if not _blocks(module, body, encoder):
        return arch
    return attrs.evolve(arch, main=encoder, others={}, is_causal=False, shifts=False)


def _there(module: Any, body: str, stack: Stack) -> Stack:
    """Give the stack that a module has, of one and what counts otherwise."""
    if stack.otherwise is None or _blocks(module, body, stack):
        return stack
    return _there(module, body, stack.otherwise)


def _blocks(module: Any, body: str, stack: Stack) -> str:
    """Path of a stack's blocks; nothing where they are not there."""
    lists = lists_of(stack.blocks)
    return first(module, lists, body) or first(module, lists)


def _bound(arch: Architecture, skeleton: Any) -> Binder:
    config = skeleton.config
    main = subconfig(config, arch.main.config) or config.get_text_config()
    whole = path_of(skeleton, skeleton.base_model)
    return Binder(
        arch=arch,
        module=skeleton,
        body=arch.body or whole,
        whole=whole,
        config=main,
        sizes=Sizes(names=arch.sizes, config=main),
        embed=_held(skeleton, "input"),
    )


def _held(skeleton: Any, end: Literal["input", "output"]) -> str:
    """Path of the embedding that HuggingFace calls the model's own."""
    try:
        part = getattr(skeleton, f"get_{end}_embeddings")()
    except (NotImplementedError, AttributeError):  # how HuggingFace says: there is none
        return ""
    if not isinstance(part, nn.Module) or isinstance(part, nn.ModuleList):
        return ""  # of several, none is the model's own
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return ""  # what it gives is no embedding yet
    return path_of(skeleton, part)


def _head_taps(binder: Binder, head: Head, unembed: str) -> Iterator[Tap]:
    """Where a model's logits are met: at what its forward returns."""
    module = binder.module
    sizes: dict[str, int | str] = {}
    if head == "sequences":
        sizes["label"] = labels_of(module)
        site = Site(part="label_logits")
        yield Tap(site=site, path="", side="out", view=AS_IS, sizes=sizes)
    elif head != "none":
        width = features(find(module, unembed))[1] if unembed else labels_of(module)
        sizes["vocab"] = width or binder.sizes.d_vocab
        if binder.arch.codebooks:
            sizes = {"vocab": binder.sizes.d_vocab, "batch": "rows"}
        front = binder.arch.front is not None
        site = Site(part="logits")
        yield Tap(site=site, path="", side="out", sizes=sizes, front=front)


def _watched(skeleton: nn.Module, taps: Iterable[Tap]) -> frozenset[str]:
    """List the attention modules that do not ask transformers for a function."""
    met = {tap.path: tap for tap in taps if tap.side == "pattern"}
    found = ((tap, find(skeleton, path)) for path, tap in met.items())
    return frozenset(
        tap.path
        for tap, at in found
        if at is not None and (tap.by_name or not has_interface(at))
    )


def _attention_of(config: Any, skeleton: nn.Module) -> str:
    own = getattr(config, "_attn_implementation", None) or "eager"
    asks = any(has_interface(part) for part in skeleton.modules())
    if own not in (*_KNOWN_ATTENTION, *_OUR_ATTENTION) and asks:
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
    """Take PEFT's wrappers off where nothing is lost with them."""
    if not _is_of_peft(module):
        return module
    wrapper: Any = module
    if any(config.is_prompt_learning for config in wrapper.peft_config.values()):
        raise InputError(
            "these adapters put virtual tokens in front of the input, and a run of the "
            "model below would leave them out",
            "adapters inside the layers, such as LoRA's",
            "Describe the base model, and pass the virtual tokens as `inputs_embeds`",
        )
    layers: list[Any] = [part for part in module.modules() if _is_of_peft(part)]
    if any(getattr(at, "merged", False) and at.disable_adapters for at in layers):
        raise InputError(
            "its adapters are merged into the weights and disabled, so that a run "
            "would take them out of the weights",
            "adapters that are either merged or disabled",
            "Call `unmerge_adapter()` first",
        )
    inner: Any = module
    while _is_of_peft(inner):
        held = dict(inner.named_children())
        inner = held.get("base_model", held.get("model"))
    return inner


def _is_of_peft(part: object) -> bool:
    return any(kind.__module__.startswith("peft.") for kind in type(part).__mro__)


def _centered(skeleton: nn.Module, taps: Iterable[Tap], width: int) -> frozenset[type]:
    """Find the classes of norms that subtract the mean, each by trying it once."""
    norms = [find(skeleton, tap.path) for tap in taps if tap.side == "scale"]
    by_class = {type(norm): norm for norm in norms if norm is not None}
    return frozenset(cls for cls, norm in by_class.items() if is_centered(norm, width))


def _spec(
    machinery: Machinery,
    tokenizer: Any,
    name: str,
    revision: str | None,
    bos: BosPolicy,
) -> ModelSpec:
    binder = machinery.binder
    infos = tuple(_info(tap) for tap in machinery.taps.values())
    machinery = attrs.evolve(machinery, shapes={info.site: info for info in infos})
    parts = {info.site.part for info in infos if not info.site.stack}
    config = skeleton_config(machinery)
    return ModelSpec(
        name=name,
        revision=revision,
        model_type=config.model_type,
        n_layers=len(machinery.blocks),
        n_heads=_size(infos, "z", "head"),
        n_kv_heads=_size(infos, "v", "kv_head"),
        d_model=binder.width,
        d_head=_size(infos, "z", "d_head"),
        d_mlp=_size(infos, "mlp_post", "d_mlp"),
        d_vocab=binder.sizes.d_vocab,
        n_ctx=binder.sizes.n_ctx,
        is_causal=binder.is_causal,
        is_encoder_decoder=binder.has_encoder,
        is_parallel="attn_out" in parts and binder.arch.main.kinds[0].parallel,
        is_gated="mlp_gate" in parts,
        has_stream_norm=binder.arch.main.kinds[0].stream_norm,
        n_streams=_size(infos, "streams_pre", "stream") or 1,
        sites=infos,
        tokenizer=tokenizer,
        bos=bos,
        engine=machinery,
    )


def skeleton_config(machinery: Machinery) -> Any:
    """Give the config of the whole model."""
    module: Any = machinery.module
    return module.config


def _size(infos: Sequence[SiteInfo], part: str, axis: str) -> int:
    """Give the length of an axis in the main stack; 0 where layers differ."""
    sizes = {
        size
        for info in infos
        for name, size in zip(info.axes, info.shape, strict=True)
        if info.site.part == part and not info.site.stack and name == axis
    }
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if isinstance(size, int) else 0


def _info(tap: Tap) -> SiteInfo:
    axes = AXES[tap.site.part]
    shape = tuple(tap.sizes.get(axis) or axis for axis in axes)
    return SiteInfo(
        site=tap.site,
        axes=axes,
        shape=shape,
        read_only=tap.read_only,
        given=tap.given,
    )


def replaced(spec: ModelSpec, module: nn.Module) -> ModelSpec:
    """Give the spec of another module of the same structure."""
    old: Machinery = spec.engine
    fresh = Machinery(
        module=module,
        binder=attrs.evolve(old.binder, module=module),
        taps=old.taps,
        shapes=old.shapes,
        blocks=old.blocks,
        embed=old.embed,
        unembed=old.unembed,
        head=old.head,
        attention=old.attention,
        watched=old.watched,
        centered=old.centered,
    )
    return attrs.evolve(spec, engine=fresh)


def sites(spec: ModelSpec) -> tuple[SiteInfo, ...]:
    """List every site of a model, with axes and shapes, in forward order."""
    return spec.sites
