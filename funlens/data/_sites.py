"""Sites: where in a model."""

import re
from typing import Final, TypeAlias

import attrs

from funlens.data import _selections
from funlens.data._parts import (
    AXES,
    MODEL_PARTS,
    SELECTED_AXES,
    STACKS,
    TRANSFORMER_LENS,
    TRANSFORMER_LENS_MODEL,
    axis_of,
)
from funlens.data._selections import PerRow, Selection, Selector, Span, to_selection
from funlens.errors import SelectionError, SiteNotFoundError, nearest

_WORDS: Final = tuple(SELECTED_AXES)
_TL_BLOCK: Final = re.compile(r"blocks\.(\d+)\.(.+)")
_OWN: Final = re.compile(
    rf"(?:({'|'.join(STACKS[1:])})\.)?([a-z_][a-z_0-9]*)(?:\.(\d+))?(?:\[(.*)\])?"
)


def _check_layer(site: "Site", _: object, layer: int | None) -> None:
    """Refuse layers that are counted from the end, and what only looks like one."""
    name = f"{site.part}.{layer}"
    if layer is not None and type(layer) is not int:
        raise SelectionError(name, f"layer {layer} is no int", "a whole number")
    if layer is not None and layer < 0:
        raise SelectionError(name, f"layer {layer} is negative", "0 or more")


@attrs.frozen(kw_only=True)
class Site:
    """One place in a model: a part, its layer, and optionally a selection.

    Attributes:
        part: What it is, such as `resid_pre` or `pattern`.
        layer: Layer counted from 0; None for the parts that a model has once.
        head: Query heads, or key and value heads where the part has those.
        pos: Token positions, counted from each row's first real token; negative ones
            from its last.
        query: Positions that attend.
        key: Positions that are attended to.
        neuron: Hidden units of the MLP.
        expert: Experts of a mixture.
        stream: Streams, of a model that carries several.
        stack: `""` for the main stack, `"encoder"` for an encoder beside it.
    """

    part: str
    layer: int | None = attrs.field(default=None, validator=_check_layer)
    head: Selection | None = attrs.field(default=None, converter=to_selection)
    pos: Selection | None = attrs.field(default=None, converter=to_selection)
    query: Selection | None = attrs.field(default=None, converter=to_selection)
    key: Selection | None = attrs.field(default=None, converter=to_selection)
    neuron: Selection | None = attrs.field(default=None, converter=to_selection)
    expert: Selection | None = attrs.field(default=None, converter=to_selection)
    stream: Selection | None = attrs.field(default=None, converter=to_selection)
    stack: str = ""

    def __attrs_post_init__(self) -> None:
        """Check the part, the layer and the selection against each other."""
        name = f"{self.part}.{self.layer}"
        if self.part not in AXES:
            raise SiteNotFoundError(name, 0, nearest(self.part, AXES))
        if (self.layer is None) != (self.part in MODEL_PARTS):
            has = "no layers" if self.part in MODEL_PARTS else "a layer"
            raise SelectionError(name, f"layer is {self.layer}", f"{has} for this part")
        for word, _ in self.selections:
            axis_of(self.part, word)

    @property
    def selections(self) -> tuple[tuple[str, Selection], ...]:
        """The words that are selected on, with what is selected."""
        every = ((word, getattr(self, word)) for word in _WORDS)
        return tuple((word, chosen) for word, chosen in every if chosen is not None)

    @property
    def whole(self) -> "Site":
        """The same site without a selection."""
        if not self.selections:
            return self
        return Site(part=self.part, layer=self.layer, stack=self.stack)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of the whole site."""
        return AXES[self.part]

    def __str__(self) -> str:
        """Write the name that `parse_site` reads."""
        stack = f"{self.stack}." if self.stack else ""
        layer = "" if self.layer is None else f".{self.layer}"
        chosen = ",".join(f"{word}={_written(what)}" for word, what in self.selections)
        return f"{stack}{self.part}{layer}{f'[{chosen}]' if chosen else ''}"

    @classmethod
    def parse(cls, name: str, *, gated: bool = False) -> "Site":
        """Read a funlens name or a TransformerLens name.

        Args:
            name: Such as `"resid_post.3"`, `"z.9[head=6,pos=-1]"`,
                `"encoder.pattern.0"` or `"blocks.5.attn.hook_pattern"`.
            gated: Whether the model's MLPs are gated: TransformerLens's `hook_pre`
                means the gate there.

        Raises:
            SiteNotFoundError: The name means no part; the nearest are named.
        """
        return _from_transformer_lens(name, gated=gated) or _from_own(name)


@attrs.frozen
class Part:
    """A part in all layers; called with a layer and a selection, a site.

    Attributes:
        name: Name of the part, such as `resid_pre`.
        stack: `""` for the main stack, `"encoder"` for an encoder beside it.
    """

    name: str
    stack: str = ""

    def __attrs_post_init__(self) -> None:
        """Check that there is such a part."""
        if self.name not in AXES or self.stack not in STACKS:
            raise SiteNotFoundError(str(self), 0, nearest(self.name, AXES))

    def __call__(
        self,
        layer: int | None = None,
        *,
        head: Selector | None = None,
        pos: Selector | None = None,
        query: Selector | None = None,
        key: Selector | None = None,
        neuron: Selector | None = None,
        expert: Selector | None = None,
        stream: Selector | None = None,
    ) -> Site:
        """Name one site.

        Args:
            layer: Layer, from 0; left out for parts that a model has once.
            head: Heads; an int drops the axis, a tuple or slice keeps it.
            pos: Positions, from each row's first real token, negative from its last.
            query: Positions that attend.
            key: Positions that are attended to.
            neuron: Hidden units of the MLP.
            expert: Experts.
            stream: Streams, of a model that carries several.

        Raises:
            SelectionError: The part has no such axis, or wants a layer.
        """
        return Site(
            part=self.name,
            layer=layer,
            head=head,
            pos=pos,
            query=query,
            key=key,
            neuron=neuron,
            expert=expert,
            stream=stream,
            stack=self.stack,
        )

    def __str__(self) -> str:
        """Write the name of all layers."""
        return f"{self.stack}.{self.name}" if self.stack else self.name


SiteLike: TypeAlias = Site | Part | str | tuple[str, int]


def to_sites(like: SiteLike, *, n_layers: int, gated: bool = False) -> tuple[Site, ...]:
    """Spell out what a caller means: a site, a part in all layers, or a name.

    Args:
        like: A `Site`, a `Part`, a name, or TransformerLens's `("pattern", 3)`.
        n_layers: Layers that a bare part stands for.
        gated: As for `Site.parse`.

    Raises:
        SiteNotFoundError: The name means nothing.
    """
    match like:
        case Site():
            return (like,)
        case Part(name=name, stack=stack):
            if name in MODEL_PARTS:
                return (Site(part=name, stack=stack),)
            layers = range(n_layers)
            return tuple(Site(part=name, layer=at, stack=stack) for at in layers)
        case (str() as name, int() as layer):
            own = _short_name(name, gated=gated)
            return (Site(part=own, layer=layer),)
        case str() if (part := part_named(like)) is not None:
            return to_sites(part, n_layers=n_layers)
        case str():
            return (Site.parse(like, gated=gated),)
        case _:
            problem = f"it is a {type(like).__name__}"
            raise SelectionError(str(like), problem, "a site, a part or a name")


def transformer_lens_names(
    n_layers: int, *, gated: bool
) -> tuple[tuple[str, Site], ...]:
    """List TransformerLens's names of a model's hooks, each with its site."""
    blocks = (
        f"blocks.{layer}.{inner}"
        for layer in range(n_layers)
        for inner in TRANSFORMER_LENS
        if gated or not inner.endswith("_linear")
    )
    names = (*TRANSFORMER_LENS_MODEL, *blocks)
    return tuple((name, Site.parse(name, gated=gated)) for name in names)


def part_named(name: str) -> Part | None:
    """Read the name of a part in all layers; None if it is another kind of name."""
    stack, _, part = name.rpartition(".")
    return Part(part, stack) if part in AXES and stack in STACKS else None


def _short_name(name: str, *, gated: bool) -> str:
    """Read the last word of a TransformerLens name, if only one name ends in it."""
    if name in AXES:
        return name
    found = {
        own
        for theirs, own in TRANSFORMER_LENS.items()
        if theirs.rpartition("hook_")[2] == name
    }
    if len(found) != 1:
        raise SiteNotFoundError(name, 0, tuple(sorted(found)) or nearest(name, AXES))
    return "mlp_gate" if gated and name == "pre" else found.pop()


def _from_transformer_lens(name: str, *, gated: bool) -> Site | None:
    if name in TRANSFORMER_LENS_MODEL:
        return Site(part=TRANSFORMER_LENS_MODEL[name])
    found = _TL_BLOCK.fullmatch(name)
    if found is None:
        return None
    layer, inner = found.groups()
    if inner not in TRANSFORMER_LENS:
        raise SiteNotFoundError(name, 0, nearest(inner, TRANSFORMER_LENS))
    part = TRANSFORMER_LENS[inner]
    if gated and inner == "mlp.hook_pre":
        part = "mlp_gate"
    return Site(part=part, layer=int(layer))


def _from_own(name: str) -> Site:
    found = _OWN.fullmatch(name)
    if found is None or found[2] not in AXES or (found[1] or "") not in STACKS:
        raise SiteNotFoundError(name, 0, nearest(name, (*AXES, *TRANSFORMER_LENS)))
    stack, part, layer, chosen = found.groups()
    selections: dict[str, Selection] = {}
    for pair in re.split(r",(?=[a-z]+=)", chosen) if chosen else ():
        word, _, text = pair.partition("=")
        if word not in _WORDS:
            raise SelectionError(name, f"no selection {word!r}", ", ".join(_WORDS))
        if word in selections:
            raise SelectionError(name, f"{word} stands twice", "each word once")
        try:
            selections[word] = _read(text)
        except (ValueError, TypeError) as error:
            problem = f"{text!r} is no selection"
            raise SelectionError(name, problem, "`6`, `1:4` or `(0,2)`") from error
    return Site(
        part=part,
        layer=None if layer is None else int(layer),
        stack=stack or "",
        **selections,
    )


def _written(chosen: Selection) -> str:
    if isinstance(chosen, tuple):
        return "(" + ",".join(map(str, chosen)) + ")"
    return str(chosen)


def _read(text: str) -> Selection:
    if text == "generated":
        return _selections.generated
    if text.startswith("rows("):
        return PerRow(tuple(int(part) for part in text[5:-1].split(",")))
    if text.startswith("("):
        return tuple(int(part) for part in text[1:-1].split(",") if part)
    if ":" in text:
        return Span(*(int(part) if part else None for part in text.split(":")))
    return int(text)
