"""Sentences in which one of two named people gives something to the other."""

from typing import Final

import attrs
import torch

from funlens.builtin._chance import chance, pick, pick_two
from funlens.builtin._prompts import Prompt, is_held_out, with_articles
from funlens.builtin._words import NAMES, OBJECTS, PLACES

SUBORDINATE: Final[tuple[str, ...]] = ("When", "After", "While", "As", "Before")
COORDINATE: Final[tuple[str, ...]] = (
    "", "Then ", "Then, ", "Yesterday ", "One day ", "Later ", "Later, ", "Last week ",
    "Once ", "The next day ", "In the morning ", "Today ", "Afterwards, ", "Friends ",
)  # fmt: skip
LINKS: Final[tuple[str, ...]] = (
    ", and", ", and then", ", and afterwards", ", and later", ".", ". Then",
    ". Afterwards", ". Later,", ", so", ", but", " and",
)  # fmt: skip
MEETINGS: Final[tuple[str, ...]] = (
    "went to the {place}", "were at the {place}", "came to the {place}",
    "walked to the {place}", "got to the {place}", "were working at the {place}",
    "met at the {place}", "sat in the {place}", "talked in the {place}",
    "had a lot of fun at the {place}", "had lunch at the {place}", "had dinner",
    "had a long argument", "were thinking about going to the {place}",
    "had a long talk", "played in the {place}",
)  # fmt: skip
ACTIONS: Final[tuple[str, ...]] = (
    "gave a {thing} to", "gave the {thing} to", "handed a {thing} to",
    "passed the {thing} to", "showed the {thing} to", "sold a {thing} to",
    "offered a {thing} to", "brought a {thing} to", "decided to give a {thing} to",
    "wanted to give the {thing} to", "threw the {thing} to", "sent a {thing} to",
    "said to", "talked to", "said hello to", "told a story to", "listened to",
    "whispered to", "waved to",
)  # fmt: skip
ENDINGS: Final[tuple[str, ...]] = (
    ".", ".", ".", " and smiled.", " before lunch.", ". {io} was very happy.",
    ". {io} smiled.", ". Then {io} thanked {s}.", " and went home.",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Frame:
    """A sentence less its names.

    Attributes:
        opening: Everything up to the subject, with `{a}` and `{b}` for the pair.
        action: What the subject does, up to the indirect object.
    """

    opening: str
    action: str


def indirect_object(generator: torch.Generator, *, held_out: bool) -> Prompt:
    """Draw a sentence that ends where the other person's name has to come.

    Args:
        generator: Source of randomness.
        held_out: Draw a pair of names and a frame that training never sees, rather
            than ones that it may see.

    Returns:
        The prompt; `answer` is the indirect object, `wrong` the subject.
    """
    frame = _frame(generator, held_out=held_out)
    first, second = _pair(generator, held_out=held_out)
    is_abba = chance(generator, 0.5)
    receiver, subject = (first, second) if is_abba else (second, first)
    opening = frame.opening.format(a=first, b=second)
    return Prompt(
        text=f"{opening} {subject} {frame.action}",
        answer=f" {receiver}",
        wrong=f" {subject}",
        rest=pick(generator, ENDINGS).format(io=receiver, s=subject),
        kind="abba" if is_abba else "baba",
    )


def third_person(generator: torch.Generator) -> str:
    """Draw a sentence in which somebody new gives to either of the pair."""
    frame = _frame(generator, held_out=False)
    first, second = _pair(generator, held_out=False)
    third = pick(generator, [name for name in NAMES if name not in {first, second}])
    receiver = pick(generator, (first, second))
    opening = frame.opening.format(a=first, b=second)
    ending = pick(generator, ENDINGS).format(io=receiver, s=third)
    return f"{opening} {third} {frame.action} {receiver}{ending}"


def _pair(generator: torch.Generator, *, held_out: bool) -> tuple[str, str]:
    while True:
        pair = pick_two(generator, NAMES)
        if is_held_out(*pair) == held_out:
            return pair


def _frame(generator: torch.Generator, *, held_out: bool) -> Frame:
    while True:
        place, thing = pick(generator, PLACES), pick(generator, OBJECTS)
        frame = Frame(
            opening=_opening(generator).format(a="{a}", b="{b}", place=place),
            action=with_articles(pick(generator, ACTIONS).format(thing=thing)),
        )
        if is_held_out(frame.opening, frame.action) == held_out:
            return frame


def _opening(generator: torch.Generator) -> str:
    meeting = pick(generator, MEETINGS)
    if chance(generator, 0.5):
        comma = "" if chance(generator, 0.1) else ","
        return f"{pick(generator, SUBORDINATE)} {{a}} and {{b}} {meeting}{comma}"
    link = pick(generator, LINKS)
    return f"{pick(generator, COORDINATE)}{{a}} and {{b}} {meeting}{link}"
