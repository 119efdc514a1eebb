"""The words that the task templates are filled with."""

from collections.abc import Mapping
from typing import Final


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


FEMALE_NAMES: Final[tuple[str, ...]] = _split(
    "Mary Alice Kate Anna Sarah Emma Lucy Jane Laura Helen Ruth Rose Amy Lisa Julia "
    "Susan"
)
MALE_NAMES: Final[tuple[str, ...]] = _split(
    "John Tom James Jack Peter David Paul Henry Mark Robert Adam Simon Daniel Sam Ben "
    "George"
)
NAMES: Final[tuple[str, ...]] = FEMALE_NAMES + MALE_NAMES

PLACES: Final[tuple[str, ...]] = _split(
    "store park school house garden office church station market river library "
    "hospital museum beach farm kitchen theater restaurant bank forest"
)
OBJECTS: Final[tuple[str, ...]] = _split(
    "drink book ring ball letter key flower basket cup hat box picture map coat apple "
    "cake pencil bag gift lamp"
)

NOUNS: Final[Mapping[str, str]] = {
    **{
        noun: noun + "s"
        for noun in _split(
            "key cabinet dog cat boy girl teacher doctor book table car house flower "
            "garden picture wall letter door window tree bird farmer friend king "
            "soldier student chair ship captain river road room guest horse mother "
            "author sister brother neighbor lamp"
        )
    },
    "child": "children",
    "man": "men",
    "woman": "women",
    "box": "boxes",
}
"""Plural of each noun whose agreement with the verb is practiced."""

PEOPLE: Final[tuple[str, ...]] = _split(
    "boy girl teacher doctor farmer friend king soldier student captain guest mother "
    "author sister brother neighbor child man woman"
)
"""The nouns that can like, see and know somebody."""

PREPOSITIONS: Final[tuple[str, ...]] = (
    "to", "near", "behind", "beside", "with", "by", "in front of", "next to", "from",
)  # fmt: skip

AGREEING_VERBS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("is", "are", ("old", "here", "very small", "in the room", "not new", "lost")),
    ("was", "were", ("old", "there", "very big", "on the table", "not far", "gone")),
    ("has", "have", ("been lost", "gone away", "been here before", "come back")),
)
"""Singular and plural of each verb, and what may follow it."""

RELATIVE_VERBS: Final[tuple[tuple[str, str], ...]] = (
    ("likes", "like"), ("sees", "see"), ("knows", "know"), ("loves", "love"),
)  # fmt: skip

DAYS: Final[tuple[str, ...]] = _split(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
)
MONTHS: Final[tuple[str, ...]] = _split(
    "January February March April May June July August September October November "
    "December"
)
NUMBERS: Final[tuple[str, ...]] = _split(
    "one two three four five six seven eight nine ten"
)
CAPITALS: Final[Mapping[str, str]] = {
    "France": "Paris", "England": "London", "Italy": "Rome", "Spain": "Madrid",
    "Germany": "Berlin", "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Ireland": "Dublin",
}  # fmt: skip
OPPOSITES: Final[Mapping[str, str]] = {
    "hot": "cold", "big": "small", "old": "new", "good": "bad", "long": "short",
    "high": "low", "fast": "slow", "happy": "sad", "light": "dark", "rich": "poor",
    "early": "late", "hard": "soft", "full": "empty", "open": "closed", "dry": "wet",
}  # fmt: skip
COLORS: Final[Mapping[str, str]] = {
    "sky": "blue", "grass": "green", "snow": "white", "sun": "yellow",
    "night": "black", "blood": "red", "milk": "white", "sea": "blue",
}  # fmt: skip
