"""`Binder`: a table bound to a module, and where its blocks are."""

from collections.abc import Iterator
from typing import Any

import attrs
from torch import nn

from funlens.adapters._language import (
    Architecture,
    Block,
    Path,
    Stack,
)
from funlens.adapters._tree import (
    Sizes,
    find,
    first,
    joined,
    lists_of,
    subconfig,
)
from funlens.errors import PathNotFoundError, UnsupportedConfigError


@attrs.frozen(kw_only=True, eq=False)
class Binder:
    """A table, a module, and the numbers of its config.

    Attributes:
        arch: The table.
        module: The model.
        body: Path of the body within it, which tables start at.
        whole: Path of HuggingFace's `base_model`, where the body is a part of it.
        config: HuggingFace's config of the main stack.
        sizes: Its numbers.
        embed: Path of the model's own input embedding; empty without one.
    """

    arch: Architecture
    module: nn.Module
    body: str
    whole: str
    config: Any
    sizes: Sizes
    embed: str

    @property
    def width(self) -> int:
        """Width of the main stack's stream, where blocks differ that of the last."""
        main = self.arch.main
        if main.sized_by:
            return self.width_at(main, blocks_of(self, main)[-1])
        return self.sizes.width(self.config)

    def width_at(self, stack: Stack, path: str) -> int:
        """Width of the stream at a stack's block."""
        norm: Any = find(self.module, joined(path, stack.sized_by))
        if stack.sized_by and norm is not None:
            return int(norm.weight.shape[-1])
        return self.sizes_of(stack).width(self.config_of(stack))

    @property
    def has_encoder(self) -> bool:
        """Whether the model has an encoder beside its main stack."""
        encoder = self.arch.others.get("encoder")
        return encoder is not None and self.has(encoder)

    def has(self, stack: Stack) -> bool:
        """Tell whether the model has a stack."""
        return bool(self.below_body(lists_of(stack.blocks)))

    @property
    def is_causal(self) -> bool:
        """Whether positions of the main stack see only earlier ones."""
        told = self.arch.is_causal
        return bool(getattr(self.config, told, True)) if isinstance(told, str) else told

    def config_of(self, stack: Stack) -> Any:
        """Give the config that describes a stack."""
        whole: Any = self.module.config
        held = (subconfig(one, stack.config) for one in (whole, self.config))
        return next((found for found in held if found is not None), self.config)

    def sizes_of(self, stack: Stack) -> Sizes:
        """Give the numbers of a stack's config."""
        if not stack.sizes:
            return self.sizes
        return attrs.evolve(self.sizes, names={**self.sizes.names, **stack.sizes})

    def at(self, path: Path, base: str = "") -> str:
        """Resolve the alternatives of a path below a base; empty if none is there."""
        return first(self.module, path, base)

    def below_body(self, path: Path) -> str:
        """Resolve a path below the model's body, or below the model."""
        found = (self.at(path, base) for base in self.bases)
        return next(filter(None, found), "")

    @property
    def bases(self) -> tuple[str, ...]:
        """Where a stack's paths may start, the nearest first."""
        return tuple(dict.fromkeys((self.body, self.whole, "")))


def blocks_of(binder: Binder, stack: Stack) -> tuple[str, ...]:
    """List the blocks of a stack's layers: the path of each.

    Raises:
        PathNotFoundError: There is no list of blocks where the table says.
    """
    return tuple(path for path, _ in layers_of(binder, stack))


def layers_of(binder: Binder, stack: Stack) -> tuple[tuple[str, int | None], ...]:
    """List the blocks of a stack's layers, and which of a block's runs each is."""
    if stack.rounds is None:
        blocks = _listed(binder, stack.blocks)
        if stack.scattered:
            return tuple((binder.body, None) for _ in blocks)
        times = len(stack.halves) or 1
        return tuple((path, None) for path in blocks for _ in range(times))
    lists = [_listed(binder, path) for path in stack.rounds.lists]
    runs = [0] * len(lists)
    found: list[tuple[str, int | None]] = []
    for which in stack.rounds.order(binder.config_of(stack)):
        found += [(path, runs[which]) for path in lists[which]]
        runs[which] += 1
    return tuple(found)


def _listed(binder: Binder, blocks: Path) -> tuple[str, ...]:
    """List the paths of a list's modules, or of several lists'."""
    names = (blocks,) if isinstance(blocks, str) else blocks
    for name in names:
        for base in binder.bases:
            found = tuple(_children(binder.module, joined(base, name)))
            if found:
                return found
    raise PathNotFoundError(
        model_type=binder.arch.model_types[0],
        base=binder.body,
        paths=names,
        verified=binder.arch.verified,
    )


def _children(module: nn.Module, path: str) -> Iterator[str]:
    """List what the lists at a path hold, `*` standing for every child that fits."""
    before, star, after = path.partition("*")
    if not star:
        found = find(module, path)
        if isinstance(found, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            yield from (f"{path}.{name}" for name, _ in found.named_children())
        return
    base, _, start = before.rpartition(".")
    held = find(module, base)
    for name, _ in held.named_children() if held is not None else ():
        if name.startswith(start):
            yield from _children(module, f"{base}.{name}{after}")


def kind_of(binder: Binder, stack: Stack, path: str, layer: int) -> Block:
    """Pick what one layer of a stack looks like."""
    if stack.halves:
        return stack.halves[layer % len(stack.halves)]
    for block in stack.kinds:
        if not block.needs or binder.at(block.needs, path):
            return block
    raise UnsupportedConfigError(
        binder.arch.model_types[0], f"the block at {path!r} is of no kind in its table"
    )
