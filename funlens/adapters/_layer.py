"""`Layer`: one block of a stack, and how taps of it are made."""

from collections.abc import Iterator
from typing import Any, Final, Literal

import attrs
from torch import nn

from funlens.adapters._binder import Binder
from funlens.adapters._language import (
    Attention,
    Block,
    Mixer,
    Path,
    Place,
    Stack,
)
from funlens.adapters._tap import Side, Tap
from funlens.adapters._taps_mixers import steps_in
from funlens.adapters._tree import (
    Sizes,
    features,
    find,
    joined,
    number,
)
from funlens.adapters._views import (
    WHOLE,
    Heads,
    Scaled,
    StreamsBehind,
    StreamsFirst,
)
from funlens.data import AXES, Site

_SQUARE: Final = frozenset({"scores", "pattern"})


@attrs.frozen(kw_only=True, eq=False)
class Layer:
    """One block of a stack, and how its taps are made."""

    binder: Binder
    config: Any
    words: Stack
    block: Block
    path: str
    stack: str
    layer: int
    visit: int | None

    def at(self, path: Path, base: str = "") -> str:
        """Resolve a path below a part of the block, itself a path below the block."""
        names = (path,) if isinstance(path, str) else path
        for word in names:
            name = word.replace("{layer}", str(self.layer))
            name = name.replace("{before}", str(self.layer - 1))
            absolute = name.startswith("/")
            start = self.path if absolute else joined(self.path, base)
            found = self.binder.at(name.removeprefix("/"), start)
            if found:
                return found.removeprefix(f"{self.path}.")
        return ""

    @property
    def sizes(self) -> Sizes:
        """The numbers of its stack."""
        return self.binder.sizes_of(self.words)

    def module(self, path: str) -> Any:
        """Give the module at a path below the block."""
        return find(self.binder.module, joined(self.path, path))

    def tap(self, part: str, path: str, side: Side, **more: Any) -> Tap:
        """Make a tap of this layer."""
        site = Site(part=part, layer=self.layer, stack=self.stack)
        sizes = {
            "one": 1,
            "d_model": self.binder.width_at(self.words, self.path),
            **more.pop("sizes", {}),
        }
        more.setdefault("layout", "bpd" if side in _SQUARE else self.words.layout)
        more.setdefault("overhangs", self.words.overhangs)
        more.setdefault("visit", self.visit)
        main = self.binder.arch.main
        return Tap(
            site=site,
            path=joined(self.path, path),
            side=side,
            sizes=sizes,
            given=self.block.given or self.words.given,
            front=self.words is main and self.binder.arch.front is not None,
            **more,
        )

    def passed(
        self, end: Literal["pre", "post"], place: Place | None, *, note: str = ""
    ) -> Tap:
        """What blocks pass to each other: one stream, or several."""
        side: Side = "in" if end == "pre" else "out"
        path = self.at(place[1]) if place else ""
        side = place[0] if place and path else side
        layout = self.block.streams
        if not layout:
            inner = bool(path) and side == "in"
            return self.tap(
                f"resid_{end}",
                path,
                side,
                note=note,
                rejoins=inner,
                in_place=self.block.stream_changes,
            )
        count = self.sizes.streams(self.config) + (layout == "behind")
        views = {
            "inner": WHOLE,
            "flat": Heads(count),
            "first": StreamsFirst(),
            "behind": StreamsBehind(count),
        }
        sizes = {"stream": count}
        return self.tap(
            f"streams_{end}", path, side, view=views[layout], sizes=sizes, note=note
        )

    @property
    def unjoined(self) -> str:
        """Why what enters is not what the layer before gave."""
        rounds = self.words.rounds
        if rounds is None:
            return self.block.unjoined
        return rounds.between if self.path.rpartition(".")[2] == "0" else ""

    def chosen(self, alternatives: tuple[Attention, ...]) -> Attention | None:
        """Pick the first whose module and output projection are there."""
        for words in alternatives:
            path = self.at(words.path)
            told = self.at(words.needs, path) if words.needs else path
            source = (
                words.q,
                words.v,
                words.kv,
                words.fused.path if words.fused else "",
            )
            # with no paths at all, the projections are no modules
            has_source = not any(source) or any(self.at(way, path) for way in source)
            out = not words.o or self.at(words.o, path)
            if path and told and has_source and out:
                return words
        return None

    def norm(self, word: str, path: Path) -> Iterator[Tap]:
        """A norm's scale and output."""
        at = self.at(path)
        if at and not isinstance(self.module(at), nn.Identity):
            yield self.tap(f"{word}_scale", at, "scale")
            yield self.tap(f"{word}_normalized", at, "out")

    def added(
        self, part: str, path: str, *, multiplier: str | float = "", **more: Any
    ) -> Tap:
        """What the block adds to the stream."""
        factor = number(self.config, multiplier or self.block.multiplier)
        view = Scaled(factor) if factor != 1.0 else WHOLE
        return self.tap(part, path, "out", view=view, **more)

    def mixer(self) -> Iterator[Tap]:
        """A recurrence or a convolution."""
        for words in self.block.mixer:
            path = self.at(words.path)
            out = self.at(words.o, path) if path else ""
            if (
                not path
                or (words.o and not out)
                or (words.needs and not self.at(words.needs, path))
            ):
                continue
            yield self.tap("ssm_in", path, "in")
            yield from self.inner(words, path)
            width = features(self.module(out or path))[0]
            for one in steps_in(self.module(path), words, self.config, width):
                at = joined(path, one.path)
                side: Any = one.side or one.part
                yield self.tap(one.part, at, side, view=one.view, sizes=one.sizes)
            if out:
                yield self.tap("ssm_post", out, "in", sizes={"d_inner": width})
            added = self.at(self.block.ln1_post) or self.at(words.added, path)
            yield self.added("ssm_out", added or path, multiplier=words.multiplier)
            return

    def inner(self, words: Mixer, base: str) -> Iterator[Tap]:
        """The steps inside a recurrence."""
        for part, (side, path) in words.parts.items():
            at = self.at(path, base)
            if at:
                entering, leaving = features(self.module(at))
                width = entering if side == "in" else leaving
                width = width or features(self.module(self.at(words.o, base)))[0]
                (axis,) = {*AXES[part]} - {"batch", "pos"}
                yield self.tap(part, at, side, sizes={axis: width})

    def middle(self) -> Iterator[Tap]:
        """The stream between attention and MLP."""
        block = self.block
        cross_mid = self.at(block.cross_mid) if self.binder.has_encoder else ""
        if cross_mid:
            yield self.mid(cross_mid, "out", rejoins=False)
        elif block.mid is not None:
            side, path = block.mid
            at = self.at(path)
            joins = side == "in" and not self.at(block.ln2)
            if at:
                yield self.mid(at, side, rejoins=joins)
        elif not block.parallel and self.at(block.ln2):
            yield self.mid(self.at(block.ln2), "in", rejoins=True)

    def mid(self, path: str, side: Side, *, rejoins: bool) -> Tap:
        """Where the stream between attention and MLP is met."""
        why = self.block.unsummed if rejoins else ""
        return self.tap("resid_mid", path, side, rejoins=rejoins, read_only=why)
