"""Sentences whose verb must agree with a subject some words back."""

from typing import Final

import torch

from funlens.builtin._chance import chance, pick, pick_two
from funlens.builtin._prompts import Prompt, is_held_out
from funlens.builtin._words import (
    AGREEING_VERBS,
    NOUNS,
    PEOPLE,
    PREPOSITIONS,
    RELATIVE_VERBS,
)

LEADS: Final[tuple[str, ...]] = (
    "The", "The", "The", "Today the", "I think that the", "She said that the",
    "Now the", "He knew that the", "But the",
)  # fmt: skip


def agreement(generator: torch.Generator, *, held_out: bool) -> Prompt:
    """Draw a sentence that ends where an agreeing verb has to come.

    Args:
        generator: Source of randomness.
        held_out: Draw a pair of nouns that training never brings together, rather
            than one that it may.

    Returns:
        The prompt; `kind` is `attractor` if the noun next to the verb is of the
        other number than the subject, `same` if it is of the same number.
    """
    subject, other = _nouns(generator, held_out=held_out)
    is_plural, other_is_plural = chance(generator, 0.5), chance(generator, 0.5)
    start = f"{pick(generator, LEADS)} {_form(subject, is_plural)}"
    middle = _middle(generator, other, plural=is_plural, other_plural=other_is_plural)
    singular, plural, endings = pick(generator, AGREEING_VERBS)
    right, wrong = (plural, singular) if is_plural else (singular, plural)
    return Prompt(
        text=f"{start} {middle}",
        answer=f" {right}",
        wrong=f" {wrong}",
        rest=f" {pick(generator, endings)}.",
        kind="same" if is_plural == other_is_plural else "attractor",
    )


def simple_agreement(generator: torch.Generator) -> str:
    """Draw a short sentence whose verb stands right after its subject."""
    noun = pick(generator, tuple(NOUNS))
    is_plural = chance(generator, 0.5)
    singular, plural, endings = pick(generator, AGREEING_VERBS)
    start = f"{pick(generator, LEADS)} {_form(noun, is_plural)}"
    return f"{start} {plural if is_plural else singular} {pick(generator, endings)}."


def _nouns(generator: torch.Generator, *, held_out: bool) -> tuple[str, str]:
    while True:
        pair = pick_two(generator, tuple(NOUNS))
        if is_held_out(*pair) == held_out:
            return pair


def _middle(
    generator: torch.Generator, other: str, *, plural: bool, other_plural: bool
) -> str:
    noun = _form(other, other_plural)
    if other not in PEOPLE or chance(generator, 0.6):
        return f"{pick(generator, PREPOSITIONS)} the {noun}"
    verb_singular, verb_plural = pick(generator, RELATIVE_VERBS)
    if chance(generator, 0.5):
        return f"that the {noun} {verb_plural if other_plural else verb_singular}"
    return f"that {verb_plural if plural else verb_singular} the {noun}"


def _form(noun: str, is_plural: bool) -> str:  # noqa: FBT001 -- a grammatical number
    return NOUNS[noun] if is_plural else noun
