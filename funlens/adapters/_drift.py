"""Drift: what a table names, and a module does not have.

Paths that are not there are left out, because variants of a family share a table. So
a module that transformers renamed would take its sites with it, unseen. On another
version than the one it was verified with, a table is held to what its models had then:
each kind of block has its norms, attention with its projections, and an MLP.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from typing import Final, TypeAlias

import attrs

from funlens.adapters._binder import Binder, blocks_of, kind_of
from funlens.adapters._language import (
    Attention,
    Block,
    Experts,
    Mixer,
    Mlp,
    Path,
    Stack,
)
from funlens.adapters._tap import Tap
from funlens.errors import PathNotFoundError

_Words: TypeAlias = Attention | Mixer | Mlp | Experts
_ATTENTION: Final = frozenset({"attn_in", "q", "v", "pattern", "z", "attn_out"})
_MIXER: Final = frozenset({"ssm_in"})
_MLP: Final = frozenset({"mlp_in", "mlp_out"})


@attrs.frozen
class _Wanted:
    """Parts of which a kind of block has one at least, and what leads to them.

    Attributes:
        parts: The parts.
        paths: What leads to them, below the base.
        base: Module that the paths start at.
    """

    parts: frozenset[str]
    paths: tuple[str, ...]
    base: str


def check_paths(binder: Binder, taps: Iterable[Tap]) -> None:
    """Refuse a module of another version that lacks what its table names.

    Raises:
        PathNotFoundError: None of the paths of some part is there.
    """
    arch = binder.arch
    if arch.verified in {"", version("transformers")}:
        return
    held = tuple(taps)
    for name, stack in (("", arch.main), *arch.others.items()):
        if not name or binder.has(stack):
            _check_stack(binder, stack, [t for t in held if t.site.stack == name])


def _check_stack(binder: Binder, stack: Stack, taps: list[Tap]) -> None:
    parts: dict[int, set[str]] = {}
    for tap in taps:
        if tap.site.layer is not None:
            parts.setdefault(tap.site.layer, set()).add(tap.site.part)
    first: dict[int, tuple[Block, str]] = {}
    every: dict[int, set[str]] = {}
    for layer, path in enumerate(blocks_of(binder, stack)):
        block = kind_of(binder, stack, path, layer)
        first.setdefault(id(block), (block, path))
        every.setdefault(id(block), set()).update(parts.get(layer, ()))
    for kind, (block, path) in first.items():
        found = every[kind]
        for wanted in _wanted(binder, block, path, found):
            if found.isdisjoint(wanted.parts) and wanted.paths:
                raise PathNotFoundError(
                    model_type=binder.arch.model_types[0],
                    base=wanted.base,
                    paths=wanted.paths,
                    verified=binder.arch.verified,
                )


def _wanted(
    binder: Binder, block: Block, path: str, found: set[str]
) -> Iterator[_Wanted]:
    """List what a kind of block has, by its table and by what was found of it."""
    has_attention = not found.isdisjoint(_ATTENTION)
    if found.isdisjoint(_MIXER):
        yield _Wanted(_ATTENTION, *_missing(binder, path, block.attention))
    if not has_attention:
        yield _Wanted(_MIXER, *_missing(binder, path, block.mixer))
    yield _Wanted(_MLP, *_missing(binder, path, block.mlp))
    yield _Wanted(frozenset({"ln1_scale"}), _names([block.ln1]), path)
    yield _Wanted(frozenset({"ln2_scale"}), _names([block.ln2]), path)
    if has_attention:
        yield from _projections(block.attention, path)
    if "mlp_post" in found:
        dense = [words for words in block.mlp if isinstance(words, Mlp)]
        ways = chain.from_iterable((words.up, words.gate_up) for words in dense)
        yield _Wanted(frozenset({"mlp_pre"}), _names(ways), path)


def _projections(alternatives: tuple[Attention, ...], path: str) -> Iterator[_Wanted]:
    """Queries, keys and values, where every alternative makes them with a module."""
    for part in ("q", "k", "v"):
        ways = [_ways(words, part) for words in alternatives]
        if all(ways):
            names = _names(chain.from_iterable(ways))
            yield _Wanted(frozenset({part}), names, path)


def _ways(words: Attention, part: str) -> tuple[Path, ...]:
    """Give the paths that lead to a part; none where it may have none of its own."""
    from_latent = words.q_latent if part == "q" else words.kv or words.kv_latent
    if from_latent or part in words.hidden:
        return ()
    own: Path = getattr(words, part)
    fused: Path = words.fused.path if words.fused else ""
    return tuple(path for path in (fused, own) if path)


def _missing(
    binder: Binder, path: str, alternatives: Sequence[_Words]
) -> tuple[tuple[str, ...], str]:
    """Say what keeps a block's alternatives from being met, and where it should be."""
    lacking: dict[str, list[Path]] = {}
    for words in alternatives:
        at = binder.at(words.path, path) if words.path else path
        for inner in _needed(words) if at else ():
            if not any(binder.at(name, at) for name in inner):
                lacking.setdefault(at, []).append(inner)
    for at, inner in lacking.items():
        return _names(inner), at
    return _names(words.path for words in alternatives), path


def _needed(words: _Words) -> Iterator[tuple[str, ...]]:
    """List what an alternative is known by, each with the names that it may have."""
    match words:
        case Attention():
            fused: Path = words.fused.path if words.fused else ""
            yield from filter(None, (_names([words.o]),))
            yield from filter(None, (_names([fused, words.q, words.v, words.kv]),))
        case Mlp():
            yield _names([words.down])
        case Experts():
            yield _names([words.experts])
        case Mixer():
            yield _names([words.o])


def _names(paths: Iterable[Path]) -> tuple[str, ...]:
    """Flatten alternatives, each once."""
    each = ((path,) if isinstance(path, str) else path for path in paths)
    return tuple(dict.fromkeys(name for name in chain.from_iterable(each) if name))
