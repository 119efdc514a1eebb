"""Short plain sentences, facts and stories."""

from collections.abc import Callable
from typing import Final

import torch

from funlens.builtin._chance import below, chance, pick, pick_two
from funlens.builtin._prompts import with_articles
from funlens.builtin._words import (
    CAPITALS,
    COLORS,
    DAYS,
    FEMALE_NAMES,
    MALE_NAMES,
    MONTHS,
    NUMBERS,
    OBJECTS,
    OPPOSITES,
    PLACES,
)

WEATHER: Final[tuple[str, ...]] = (
    "cold", "warm", "fine", "very hot", "wet", "very bad", "good", "cold and dark",
    "warm and dry", "cold and wet", "bright and clear", "very cold",
)  # fmt: skip
ADJECTIVES: Final[tuple[str, ...]] = (
    "little", "red", "big", "old", "new", "small", "blue", "good", "pretty", "green",
)  # fmt: skip
FEELINGS: Final[tuple[str, ...]] = ("happy", "sad", "tired", "glad", "hungry", "proud")
DEEDS: Final[tuple[str, ...]] = (
    "played all day", "ran home", "sat under a tree", "ate a cake", "sang a song",
    "looked at the sky", "talked for a long time", "walked by the river", "slept well",
    "made a big fire", "read a good book",
)  # fmt: skip
CLOSINGS: Final[tuple[str, ...]] = (
    "It was a good day.", "It was a long day.", "They were good friends.",
    "At night they went home.", "Then it was time to go home.",
    "And they were happy ever after.",
)  # fmt: skip


def plain_english(generator: torch.Generator) -> str:
    """Draw one short text: weather, calendar, a fact, or a small story."""
    return with_articles(pick(generator, KINDS)(generator))


def _weather(generator: torch.Generator) -> str:
    weather, month = pick(generator, WEATHER), pick(generator, MONTHS)
    place, day = pick(generator, PLACES), pick(generator, DAYS)
    ways = (
        f"The weather is {weather} today.",
        f"The weather is {weather} in {month}.",
        f"The weather was {weather}, so we went to the {place}.",
        f"It is {weather} outside.",
        f"On {day} the weather was {weather}.",
        f"It was a {weather} day in {month}.",
    )
    return pick(generator, ways)


def _calendar(generator: torch.Generator) -> str:
    names = pick(generator, (DAYS, MONTHS))
    at = below(generator, len(names))
    name, after = names[at], names[(at + 1) % len(names)]
    ways = [
        f"{after} comes after {name}.",
        f"{name} comes before {after}.",
        f"After {name} comes {after}.",
    ]
    if names is DAYS:
        ways += [
            f"Today is {name}, so tomorrow is {after}.",
            f"The day after {name} is {after}.",
        ]
    else:
        ways.append(f"The month after {name} is {after}.")
    return pick(generator, ways)


def _fact(generator: torch.Generator) -> str:
    country, city = pick(generator, tuple(CAPITALS.items()))
    word, opposite = pick(generator, tuple(OPPOSITES.items()))
    thing, color = pick(generator, tuple(COLORS.items()))
    start = below(generator, len(NUMBERS) - 4)
    ways = (
        f"The capital of {country} is {city}.",
        f"{city} is the capital of {country}.",
        f"The opposite of {word} is {opposite}.",
        f"The opposite of {opposite} is {word}.",
        f"The color of the {thing} is {color}.",
        ", ".join(NUMBERS[start : start + 5]) + ".",
    )
    return pick(generator, ways)


def _story(generator: torch.Generator) -> str:
    is_girl = chance(generator, 0.5)
    name = pick(generator, FEMALE_NAMES if is_girl else MALE_NAMES)
    he, his, child = ("She", "her", "girl") if is_girl else ("He", "his", "boy")
    friend = pick(generator, MALE_NAMES if is_girl else FEMALE_NAMES)
    color, size = pick_two(generator, ADJECTIVES)
    lines = [
        f"Once upon a time there was a {size} {child} named {name}.",
        f"{he} had a {color} {pick(generator, OBJECTS)}.",
        f"One day {he.lower()} went to the {pick(generator, PLACES)} with {his} friend "
        f"{friend}.",
        f"{name} was very {pick(generator, FEELINGS)}.",
        f"They {pick(generator, DEEDS)}.",
        pick(generator, CLOSINGS),
    ]
    optional = below(generator, len(lines) - 1) + 1
    return " ".join(line for at, line in enumerate(lines) if at != optional)


def _deed(generator: torch.Generator) -> str:
    is_girl = chance(generator, 0.5)
    name = pick(generator, FEMALE_NAMES if is_girl else MALE_NAMES)
    he, his = ("she", "her") if is_girl else ("he", "his")
    thing, place = pick(generator, OBJECTS), pick(generator, PLACES)
    ways = (
        f"{name} was {pick(generator, FEELINGS)} because {he} had lost {his} {thing}.",
        f"{name} {pick(generator, DEEDS)} and then {he} went to the {place}.",
        f"{name} said that {he} was {pick(generator, FEELINGS)}.",
        f"{name} put {his} {thing} on the table.",
        f"{name} found a {pick(generator, ADJECTIVES)} {thing} in the {place}.",
    )
    return pick(generator, ways)


KINDS: Final[tuple[Callable[[torch.Generator], str], ...]] = (
    _weather, _calendar, _fact, _story, _deed,
)  # fmt: skip
