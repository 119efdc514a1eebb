"""How to draw the keyword arguments of a forward, as data."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs
import torch
from torch import Tensor


@attrs.frozen
class Text:
    """Token ids, none of them special, but for placeholders in the middle.

    Args:
        placeholders: The ids that stand for a picture or a sound.
        fewer: How many drawn ids fewer than were asked for, so that two streams of
            tokens cannot be taken for each other.
        streams: How many ids stand at each position, where it is not one.
    """

    placeholders: tuple[int, ...] = ()
    fewer: int = 0
    streams: int | None = None


@attrs.frozen
class Noise:
    """Normal noise.

    Args:
        shape: The shape of one example.
        along: The axis of an example along which they follow one another, where they
            have no axis of their own.
        per_token: The axis that is so many times longer as ids were asked for.
    """

    shape: tuple[int, ...]
    along: int | None = None
    per_token: int | None = None


@attrs.frozen
class Placed:
    """Noise behind the row and the column that each patch has in its picture.

    Args:
        rows: How many rows of patches.
        columns: How many columns.
        width: How many numbers of noise a patch has.
    """

    rows: int
    columns: int
    width: int


@attrs.frozen
class Known:
    """Known numbers or truth values, alike for every example.

    Args:
        value: What stands in one example; nested tuples make a tensor.
        step: How much each next example adds, where indices count through all.
    """

    value: object
    step: int | None = None


@attrs.frozen
class PerToken:
    """The same known value at every token.

    Args:
        value: What stands at one token.
    """

    value: object


@attrs.frozen
class Marks:
    """1 where a token stands for a picture, and 0 elsewhere.

    Args:
        placeholder: The id of such a token.
    """

    placeholder: int


Drawing = Text | Noise | Placed | Known | PerToken | Marks

TEXT: Final = (("input_ids", Text()),)
TWO_TEXTS: Final = (*TEXT, ("decoder_input_ids", Text(fewer=2)))


def placeholders(inputs: Iterable[tuple[str, Drawing]]) -> Iterator[int]:
    """Find the token ids that stand for a picture or a sound."""
    for _, how in inputs:
        if isinstance(how, Text):
            yield from how.placeholders


def draw(
    inputs: Iterable[tuple[str, Drawing]],
    *,
    plain: Tensor,
    batch: int,
    pos: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Draw every input of a forward, in order.

    Args:
        inputs: How to draw each, by name; marks stand behind the token ids.
        plain: The token ids to draw from.
        batch: How many examples.
        pos: How many drawn token ids in an example.
        generator: Where randomness comes from.

    Returns:
        Keyword arguments of the forward.
    """
    drawn: dict[str, Tensor] = {}
    for name, how in inputs:
        match how:
            case Text():
                shape = (batch, max(1, pos - how.fewer), *_streams(how))
                index = torch.randint(len(plain), shape, generator=generator)
                drawn[name] = _with_middle(plain[index], how)
            case Noise() | Placed():
                drawn[name] = _noise(how, batch=batch, pos=pos, generator=generator)
            case _:
                drawn[name] = _known(how, drawn, batch=batch)
    return drawn


def _with_middle(tokens: Tensor, how: Text) -> Tensor:
    """Put placeholders behind the first half of the tokens."""
    if not how.placeholders:
        return tokens
    half = tokens.shape[1] // 2
    middle = torch.tensor(how.placeholders).expand(len(tokens), -1)
    return torch.cat([tokens[:, :half], middle, tokens[:, half:]], dim=1)


def _streams(how: Text) -> tuple[int, ...]:
    """Give the shape of one position."""
    return () if how.streams is None else (how.streams,)


def _noise(
    how: Noise | Placed, *, batch: int, pos: int, generator: torch.Generator
) -> Tensor:
    """Draw noise, packed or placed."""
    if isinstance(how, Placed):
        place = torch.cartesian_prod(
            *(torch.arange(1, n + 1) for n in (how.rows, how.columns))
        )
        noise = torch.randn((batch, len(place), how.width), generator=generator)
        return torch.cat([place.expand(batch, -1, -1), noise], dim=-1)
    shape = [
        size * pos if axis == how.per_token else size
        for axis, size in enumerate(how.shape)
    ]
    noise = torch.randn((batch, *shape), generator=generator)
    return noise if how.along is None else torch.cat([*noise], dim=how.along)


def _known(
    how: Known | PerToken | Marks, drawn: Mapping[str, Tensor], *, batch: int
) -> Tensor:
    """Write what is known beforehand, or from the token ids."""
    if isinstance(how, Known):
        values = torch.stack([torch.tensor(how.value)] * batch)
        if how.step is None:
            return values
        return torch.cat([each + row * how.step for row, each in enumerate(values)])
    tokens = drawn["input_ids"]
    if isinstance(how, Marks):
        return (tokens == how.placeholder).to(tokens.dtype)
    one = torch.tensor(how.value)
    return one.expand(*tokens.shape, *one.shape).clone()
