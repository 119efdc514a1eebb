"""The taps of a layer's attention."""

from collections.abc import Iterator
from typing import Any

import attrs

from funlens.adapters._language import (
    Attention,
    Path,
)
from funlens.adapters._layer import Layer
from funlens.adapters._matrices import unreadable
from funlens.adapters._tap import Side, Tap
from funlens.adapters._tree import (
    features,
)
from funlens.adapters._views import (
    BeforeSink,
    HeadPart,
    Heads,
    Slots,
    Square,
    Swapped,
    View,
)
from funlens.data import Site


@attrs.frozen
class AttentionTaps:
    """The attention of a layer, and its taps."""

    layer: Layer
    words: Attention
    prefix: str

    def taps(self) -> Iterator[Tap]:
        """From the attention's input to what is added."""
        for tap in self._every():
            name = tap.site.part.removeprefix("cross_")
            if name not in self.words.hidden:
                given = self.words.given or tap.given
                yield attrs.evolve(tap, given=given)

    def _every(self) -> Iterator[Tap]:
        words, path = self.words, self._path
        merged = {"overhangs": True} if words.merged else {}
        yield from self._inputs()
        if words.has_rotary:
            sizes = self._sizes(self._n_heads)
            yield self._tap("rot_q", path, "rot_q", view=Swapped(), sizes=sizes)
            repeats = self._n_heads // self._n_kv_heads if words.repeats_keys else 1
            sizes = self._sizes(self._n_kv_heads, kv=True)
            yield self._tap(
                "rot_k",
                path,
                "rot_k",
                view=Swapped(repeats),
                all_keys=True,
                sizes=sizes,
                **merged,
            )
        sink = (
            getattr(self.layer.module(path), words.sink, None) if words.sink else None
        )
        view = Square() if sink is None else BeforeSink()
        note = words.lossy if sink is None else "an attention sink"
        note = "the encoder's keys share each row" if words.merged else note
        sizes = {"head": self._n_heads}
        if words.more_keys:
            sizes = {**sizes, "key": "keys"}
        scores = f"{'' if self.prefix else 'attn_'}scores"
        yield self._tap(scores, path, "scores", view=view, sizes=sizes, **merged)
        yield self._tap(
            "pattern",
            path,
            "pattern",
            view=view,
            sizes=sizes,
            note=note,
            by_name=words.asks_by_name,
            in_place=words.pattern_changes,
            **merged,
        )
        if words.o:
            yield from self._outputs()

    def _inputs(self) -> Iterator[Tap]:
        words, path = self.words, self._path
        if not self.prefix:
            yield self._tap("attn_in", path, "in")
        for part, latent in (
            ("q_latent", words.q_latent),
            ("kv_latent", words.kv_latent),
        ):
            at = self._at(latent)
            if at:
                norm = self.layer.module(at)
                sizes = {"d_latent": int(norm.weight.shape[-1])}
                yield self._tap(part, at, "out", sizes=sizes)
        fused = self._at(words.fused.path) if words.fused else ""
        if words.fused is None or not fused:
            yield from self._separate()
            return
        if "q" not in words.fused.order:
            yield from self._of_their_own((("q", words.q),))
        yield from self._fused(fused)

    def _separate(self) -> Iterator[Tap]:
        words = self.words
        yield from self._of_their_own((("q", words.q), ("k", words.k), ("v", words.v)))
        both = self._at(words.kv)
        if both:
            count = self._n_kv_heads
            width = features(self.layer.module(both))[1] // count
            d_value = features(self.layer.module(self._at(words.o)))[0] // self._n_heads
            view = HeadPart(count, width - d_value, width)
            sizes = self._axes("v", count, d_value)
            yield self._tap("v", both, "out", view=view, sizes=sizes, all_keys=True)

    def _of_their_own(self, parts: tuple[tuple[str, Path], ...]) -> Iterator[Tap]:
        """Projections that make one part each."""
        words = self.words
        for part, path in parts:
            at = self._at(path)
            if not at:
                continue
            count = self._n_heads if part == "q" else self._n_kv_heads
            width = features(self.layer.module(at))[1]
            view: View = Heads(count)
            if part == "q" and words.gated_query:
                width //= 2
                view = HeadPart(count, 0, width // count)
            sizes = self._axes(part, count, width // count)
            more: dict[str, Any] = {"visit": 0} if words.again or words.merged else {}
            more |= {"layout": words.layout} if words.layout else {}
            in_place = words.changed_in_place
            yield self._tap(
                part, at, "out", view=view, sizes=sizes, in_place=in_place, **more
            )

    def _fused(self, path: str) -> Iterator[Tap]:
        words = self.words
        if words.fused is None:
            return
        heads, groups = self._n_heads, self._n_kv_heads
        times = words.fused.groups or (groups if words.fused.by_group else 1)
        counts = {"q": heads // times, "k": groups // times, "v": groups // times}
        total, start = sum(counts[part] for part in words.fused.order), 0
        width = features(self.layer.module(path))[1] // (total * times)
        for part in words.fused.order:
            view = Slots(times, total, start, start + counts[part])
            start += counts[part]
            sizes = self._axes(part, heads if part == "q" else groups, width)
            in_place = words.changed_in_place
            yield self._tap(
                part, path, "out", view=view, sizes=sizes, in_place=in_place
            )

    def _outputs(self) -> Iterator[Tap]:
        words, layer = self.words, self.layer
        out = self._at(words.o)
        count = self._n_heads * words.times
        mixed = self._at(words.z) or out
        sizes = self._axes("q", count, features(layer.module(mixed))[0] // count)
        note = words.changes
        if words.changed_in_place:
            note = "values change in place between projection and mixing"
        note = "the encoder's values are mixed in" if words.merged else note
        laid: dict[str, Any] = {"layout": words.out_layout} if words.out_layout else {}
        view = Heads(count)
        yield self._tap("z", mixed, "in", view=view, sizes=sizes, note=note, **laid)
        if not self.prefix:
            if mixed == out and not unreadable(layer.module(out)):
                sizes = {"head": count}
                yield self._tap(
                    "head_result", out, "heads", view=view, sizes=sizes, **laid
                )
            yield self._tap("attn_proj", out, "out", **laid)
        post = "" if self.prefix else layer.at(layer.block.ln1_post)
        added = post or self._at(words.added) or self._path
        tap = layer.added("attn_out", added, multiplier=words.multiplier)
        yield attrs.evolve(tap, site=self._site("out" if self.prefix else "attn_out"))

    @property
    def _path(self) -> str:
        return self.layer.at(self.words.path)

    def _at(self, path: Path) -> str:
        return self.layer.at(path, self._path)

    @property
    def _d_head(self) -> int:
        module = self.layer.module(self._path)
        return self.layer.sizes.head_width(module, self.layer.config)

    @property
    def _n_heads(self) -> int:
        at = self._at(self.words.q)
        if not at or not self._d_head:
            return self.layer.sizes.heads(self.layer.config)
        width = features(self.layer.module(at))[1]
        return width // self._d_head // (2 if self.words.gated_query else 1)

    @property
    def _n_kv_heads(self) -> int:
        words = self.words
        fused = self._at(words.fused.path) if words.fused else ""
        if fused and self._d_head:
            width = features(self.layer.module(fused))[1]
            own = self._n_heads if words.fused and "q" in words.fused.order else 0
            return (width // self._d_head - own) // 2
        at = self._at(words.k) or ("" if words.kv else self._at(words.v))
        if not at or not self._d_head:
            module = self.layer.module(self._path)
            return self.layer.sizes.kv_heads(module, self.layer.config, self._n_heads)
        return features(self.layer.module(at))[1] // self._d_head

    def _sizes(self, count: int, *, kv: bool = False) -> dict[str, int]:
        return {"kv_head" if kv else "head": count, "d_head": self._d_head}

    def _axes(self, part: str, count: int, width: int) -> dict[str, int]:
        return {"head" if part == "q" else "kv_head": count, "d_head": width}

    def _site(self, part: str) -> Site:
        layer = self.layer
        return Site(part=self.prefix + part, layer=layer.layer, stack=layer.stack)

    def _tap(self, part: str, path: str, side: Side, **more: Any) -> Tap:
        return self.layer.tap(self.prefix + part, path, side, **more)
