"""How to draw the keyword arguments of a forward, as data."""

import itertools
from collections.abc import Iterable, Iterator
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
    """

    placeholders: tuple[int, ...] = ()
    fewer: int = 0


@attrs.frozen
class Noise:
    """Normal noise.

    Args:
        shape: The shape of one example.
        packed: Examples follow one another along the first axis, without an axis of
            their own.
    """

    shape: tuple[int, ...]
    packed: bool = False


@attrs.frozen
class Same:
    """The same value for every example.

    Args:
        value: Numbers, truth values or nested tuples of them.
        packed: As for noise.
    """

    value: object
    packed: bool = False


@attrs.frozen
class Marks:
    """A number where a token id stands for a picture or a sound, and 0 elsewhere.

    Args:
        numbers: The number of each such id.
    """

    numbers: tuple[tuple[int, int], ...]


Drawing = Text | Noise | Same | Marks

TEXT: Final = (("input_ids", Text()),)
TWO_TEXTS: Final = (*TEXT, ("decoder_input_ids", Text(fewer=2)))


def placeholders(inputs: Iterable[tuple[str, Drawing]]) -> Iterator[int]:
    """Find the token ids that stand for a picture or a sound."""
    for _, how in inputs:
        if isinstance(how, Text):
            yield from how.placeholders


def draw_inputs(
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
            case Text(placeholders=placeholders, fewer=fewer):
                length = max(1, pos - fewer)
                index = torch.randint(len(plain), (batch, length), generator=generator)
                drawn[name] = _with_middle(plain[index], placeholders)
            case Noise(shape=shape, packed=packed):
                noise = torch.randn((batch, *shape), generator=generator)
                drawn[name] = _pack(noise) if packed else noise
            case Same(value=value, packed=packed):
                same = torch.stack([torch.tensor(value)] * batch)
                drawn[name] = _pack(same) if packed else same
            case Marks(numbers=numbers):
                drawn[name] = sum(
                    (drawn["input_ids"] == token) * number for token, number in numbers
                )
    return drawn


def _with_middle(tokens: Tensor, placeholders: tuple[int, ...]) -> Tensor:
    """Put placeholders behind the first half of the tokens."""
    half = tokens.shape[1] // 2
    middle = torch.tensor(placeholders, dtype=tokens.dtype).expand(len(tokens), -1)
    return torch.cat([tokens[:, :half], middle, tokens[:, half:]], dim=1)


def _pack(examples: Tensor) -> Tensor:
    """Put examples behind one another along their first axis."""
    return examples.flatten(0, 1)
