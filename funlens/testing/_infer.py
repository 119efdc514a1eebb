"""Describing a model that no table is about: hypotheses, and the laws as their test."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, product
from typing import Any, Final, TypeVar, cast

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import ARCHITECTURES, Architecture, Path, Stack, from_module
from funlens.data import ModelSpec
from funlens.engine import run_with_cache
from funlens.errors import FunlensError, NotInferredError
from funlens.testing._laws import example_inputs
from funlens.testing._laws_edits import all_editable, own_value
from funlens.testing._laws_runs import same_logits
from funlens.testing._laws_sums import (
    blocks_join,
    heads_mix,
    heads_sum,
    patterns,
    writes_sum,
)
from funlens.testing._subject import Subject

Words = TypeVar("Words")
_LAWS: Final = (
    same_logits,
    blocks_join,
    writes_sum,
    patterns,
    heads_mix,
    heads_sum,
    own_value,
    all_editable,
)
_MOST_FAULTS: Final = 3
# What a hypothesis may say; other words excuse a family from a law, or are about what
# no other family has.
_STACK: Final = frozenset(
    {"blocks", "block", "embed", "embed_multiplier", "pos_embed", "ln_final", "config"}
)
_BLOCK: Final = frozenset(
    {
        "ln1",
        "attention",
        "mixer",
        "ln1_post",
        "ln_cross",
        "cross",
        "cross_mid",
        "mid",
        "ln2",
        "mlp",
        "beside",
        "ln2_post",
        "parallel",
        "stream_norm",
        "multiplier",
        "needs",
    }
)
_ATTENTION: Final = frozenset(
    {
        "path",
        "q",
        "k",
        "v",
        "fused",
        "kv",
        "q_latent",
        "kv_latent",
        "needs",
        "o",
        "z",
        "added",
        "multiplier",
        "has_rotary",
        "gated_query",
        "sink",
        "repeats_keys",
    }
)


def infer(
    module: nn.Module,
    tokenizer: Any = None,
    *,
    inputs: Mapping[str, Any] | Tensor | str | None = None,
) -> ModelSpec:
    """Describe a HuggingFace model of an architecture that no table is about.

    Every outline of a block and every way to attend that the tables know, combined, is
    a hypothesis about the module. Those that name most sites come first, and the first
    on which the laws hold is taken: logits bit for bit, what blocks add sums to the
    stream, patterns and heads mix as they should, and every site fires and can be
    edited.

    Args:
        module: The model, in evaluation mode; it is only read.
        tokenizer: Its tokenizer, for text.
        inputs: What to try it on; random tokens if left out.

    Returns:
        A spec that says of itself that it is inferred. `verify` checks all laws.

    Raises:
        NotInferredError: No hypothesis holds; the best ones are named, with the law
            that each breaks.

    Costs one description for each known table, and for each hypothesis that is tried
    two forwards for each of its sites.
    """
    faults: list[str] = []
    for spec in _hypotheses(module, tokenizer):
        refined, broken = _tried(module, spec, inputs)
        if not broken:
            return attrs.evolve(refined, inferred=True)
        faults.append(f"with {len(spec.sites)} sites {broken}")
    name = str(getattr(getattr(module, "config", None), "model_type", "") or "unknown")
    raise NotInferredError(name, tuple(faults[:_MOST_FAULTS]))


def _hypotheses(module: nn.Module, tokenizer: Any) -> Iterator[ModelSpec]:
    """Describe a module in every way, those first that excuse least and name most."""
    found: list[ModelSpec] = []
    seen: set[frozenset[tuple[str, ...]]] = set()
    parts = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    names = {name for path, _ in parts for name in path.split(".")}
    for table in _tables(names):
        try:
            spec = from_module(module, tokenizer, adapter=table)
        except FunlensError:  # this table is not about such a module
            continue
        taps = spec.engine.taps.values()
        key = frozenset((str(tap.site), tap.path, tap.side, repr(tap)) for tap in taps)
        if key not in seen:
            seen.add(key)
            found.append(spec)
    found.sort(key=_promise)
    yield from found


def _promise(spec: ModelSpec) -> tuple[bool, bool, bool, int]:
    """Order descriptions: those that excuse nothing and name most sites first."""
    layers = {part: set[int | None]() for part in ("z", "ssm_out")}
    for info in spec.sites:
        if info.site.part in layers:
            layers[info.site.part].add(info.site.layer)
    mixes_twice = bool(layers["z"] & layers["ssm_out"])
    return spec.has_stream_norm, mixes_twice, not layers["z"], -len(spec.sites)


def _tables(names: Collection[str]) -> Iterator[Architecture]:
    """Combine every known outline of a block with every known way to attend.

    Args:
        names: What the module's parts are called: other ways to attend are left out.
    """
    stacks = [table.main for table in ARCHITECTURES if _says_only(table.main, _STACK)]
    kinds = [kind for stack in stacks for kind in stack.kinds]
    plain = [kind for kind in kinds if _says_only(kind, _BLOCK)]
    # whether positions rotate a run tells
    ways = _once(
        attrs.evolve(words, has_rotary=True)
        for kind in plain
        for words in kind.attention
        if _says_only(words, _ATTENTION) and _is_among(names, words.path)
    )
    outlines = _once(
        attrs.evolve(kind, attention=(), mixer=(), cross=(), mlp=(), needs="")
        for kind in plain
    )
    mlps = _once(words for kind in plain for words in kind.mlp)
    mixers = _once(words for kind in plain for words in kind.mixer)
    blocks = _names(stack.blocks for stack in stacks)
    pos_embed = _names(stack.pos_embed for stack in stacks)
    ln_final = _names(stack.ln_final for stack in stacks)
    mixing = [*product(((way,) for way in ways), ((), mixers)), ((), mixers)]
    for outline, (attention, mixer) in product(outlines, mixing):
        block = attrs.evolve(outline, attention=attention, mixer=mixer, mlp=mlps)
        main = Stack(block=block, blocks=blocks, pos_embed=pos_embed, ln_final=ln_final)
        yield Architecture(model_types=("unknown",), main=main)


def _says_only(words: object, common: frozenset[str]) -> bool:
    """Tell whether a table's words differ from the defaults in common ways only."""
    return all(
        field.name in common or getattr(words, field.name) == _default(field)
        for field in attrs.fields(type(words))
    )


def _default(field: "attrs.Attribute[Any]") -> object:
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # pyright: ignore[reportArgumentType] (it is a class)


def _once(records: Iterable[Words]) -> tuple[Words, ...]:
    """Leave out what came before; records that hold mappings have no hash."""
    return tuple({repr(record): record for record in records}.values())


def _is_among(names: Collection[str], path: Path) -> bool:
    """Tell whether some alternative of a path begins with a known name."""
    return any(each.split(".")[0] in names for each in _names([path]))


def _names(paths: Iterable[Path]) -> tuple[str, ...]:
    """List the alternatives of several paths, each once."""
    spelled = ((path,) if isinstance(path, str) else path for path in paths)
    return tuple(dict.fromkeys(chain.from_iterable(spelled)))


def _tried(
    module: nn.Module,
    spec: ModelSpec,
    inputs: Mapping[str, Any] | Tensor | str | None,
) -> tuple[ModelSpec, str]:
    """Refine a description by one run, and name the first law that it breaks."""
    try:
        given = example_inputs(spec, inputs)
        spec = _refined(module, spec, given)
        logits, cache = run_with_cache(spec, given)
        subject = Subject(
            spec=spec, inputs=given, untouched=None, cache=cache, logits=logits
        )
        rows = (law(subject) for law in _LAWS)
        broken = next((row for row in rows if not row.holds), None)
    except (AssertionError, FunlensError, RuntimeError, LookupError) as error:
        # a wrong description may go wrong in any way
        return spec, f"{type(error).__name__}: {error}"
    return spec, f"{broken.law} fails {broken.note}" if broken else ""


def _refined(module: nn.Module, spec: ModelSpec, given: Mapping[str, Any]) -> ModelSpec:
    """Find out by a run whether positions see later ones, and whether they rotate."""
    parts = {info.site.part for info in spec.sites}
    wanted = sorted(parts & {"pattern", "q", "rot_q"})
    if "pattern" not in wanted:
        return spec
    _, cache = run_with_cache(spec, given, capture=wanted)
    held = {part: [t for s, t in cache.items() if s.part == part] for part in wanted}
    is_causal = not any(bool(pattern.triu(1).any()) for pattern in held["pattern"])
    pairs = zip(held.get("q", ()), held.get("rot_q", ()), strict=False)
    has_rotary = any(not torch.equal(before, after) for before, after in pairs)
    main = spec.engine.arch.main
    (block,) = main.kinds
    attention = tuple(
        attrs.evolve(words, has_rotary=has_rotary) for words in block.attention
    )
    main = attrs.evolve(main, block=attrs.evolve(block, attention=attention))
    arch = attrs.evolve(spec.engine.arch, main=main, is_causal=is_causal)
    return from_module(module, spec.tokenizer, adapter=arch)
