"""What training sees and what is kept for measuring do not meet."""

import re
from collections.abc import Callable
from typing import Final

import pytest
import torch

from funlens.builtin._agreement import agreement, simple_agreement
from funlens.builtin._chance import between, chance, pick_two
from funlens.builtin._english import plain_english
from funlens.builtin._indirect_object import _frame, indirect_object, third_person
from funlens.builtin._prompts import (
    ALWAYS_HELD_OUT,
    Prompt,
    document,
    is_held_out,
    with_articles,
)
from funlens.builtin._words import AGREEING_VERBS, NAMES, NOUNS, PEOPLE

N_DRAWN: Final = 300
TASKS: Final = {"indirect-object": indirect_object, "agreement": agreement}
TEXTS: Final = {
    "third-person": third_person,
    "simple-agreement": simple_agreement,
    "plain-english": plain_english,
}
NOUN_OF_FORM: Final = {
    **{noun: noun for noun in NOUNS},
    **{plural: noun for noun, plural in NOUNS.items()},
}
SINGULAR: Final = {f" {verb[0]}" for verb in AGREEING_VERBS}
PLURAL: Final = {f" {verb[1]}" for verb in AGREEING_VERBS}


def source(seed: int) -> torch.Generator:
    """A fresh source of randomness."""
    return torch.Generator().manual_seed(seed)


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    return re.findall(r"\w+", text)


def names_in(text: str) -> set[str]:
    """The people that a text names."""
    return set(words_of(text)).intersection(NAMES)


def nouns_in(prompt: Prompt) -> tuple[str, str]:
    """The dictionary forms of the subject and of the other noun."""
    subject, other = [
        NOUN_OF_FORM[word] for word in words_of(prompt.text) if word in NOUN_OF_FORM
    ]
    return subject, other


@pytest.mark.parametrize("draw", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("held_out", [True, False], ids=["held-out", "training"])
def test_the_seed_fixes_the_prompts(
    draw: Callable[..., Prompt], *, held_out: bool
) -> None:
    """The same seed gives the same prompts, another seed others."""
    first, again, other = (
        [draw(generator, held_out=held_out) for _ in range(20)]
        for generator in (source(1), source(1), source(2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("write", TEXTS.values(), ids=TEXTS)
def test_the_seed_fixes_the_texts(write: Callable[[torch.Generator], str]) -> None:
    """The same seed gives the same texts, another seed others."""
    first, again, other = (
        [write(generator) for _ in range(20)]
        for generator in (source(1), source(1), source(2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("held_out", [True, False], ids=["held-out", "training"])
def test_the_names_of_a_prompt_are_on_its_side(*, held_out: bool) -> None:
    """Held-out pairs of names stand in held-out prompts, and nowhere else."""
    generator = source(3)
    for _ in range(N_DRAWN):
        prompt = indirect_object(generator, held_out=held_out)
        names = names_in(prompt.text)
        assert {prompt.answer.strip(), prompt.wrong.strip()} == names
        assert held_out == is_held_out(*names)


def test_a_third_person_never_joins_a_held_out_pair() -> None:
    """The sentence with three people opens with a pair that training may see."""
    generator = source(4)
    for _ in range(N_DRAWN):
        people = [name for name in words_of(third_person(generator)) if name in NAMES]
        first, second, third, receiver = people[:4]
        assert not is_held_out(first, second)
        assert 3 == len({first, second, third})
        assert receiver in {first, second}


def test_no_frame_is_on_both_sides() -> None:
    """Training never sees the frame of a held-out prompt."""
    generator = source(5)
    training, kept = (
        {_frame(generator, held_out=held_out) for _ in range(N_DRAWN)}
        for held_out in (False, True)
    )
    assert set() == training & kept
    assert not any(is_held_out(frame.opening, frame.action) for frame in training)


@pytest.mark.parametrize("held_out", [True, False], ids=["held-out", "training"])
def test_the_nouns_of_a_prompt_are_on_its_side(*, held_out: bool) -> None:
    """Held-out pairs of nouns stand in held-out prompts, and nowhere else."""
    generator = source(6)
    for _ in range(N_DRAWN):
        nouns = nouns_in(agreement(generator, held_out=held_out))
        assert held_out == is_held_out(*nouns)


def test_the_giver_is_named_twice_and_the_receiver_once() -> None:
    """The answer is the name that is not repeated, in both orders."""
    generator = source(7)
    kinds = set[str]()
    for _ in range(N_DRAWN):
        prompt = indirect_object(generator, held_out=True)
        words = words_of(prompt.text)
        first = next(word for word in words if word in NAMES)
        assert 1 == words.count(prompt.answer.strip())
        assert 2 == words.count(prompt.wrong.strip())
        assert ("abba" if f" {first}" == prompt.answer else "baba") == prompt.kind
        kinds.add(prompt.kind)
    assert {"abba", "baba"} == kinds


def test_the_answer_has_the_number_of_the_subject() -> None:
    """The subject is the first noun; an attractor is of the other number."""
    generator = source(8)
    for _ in range(N_DRAWN):
        prompt = agreement(generator, held_out=True)
        subject, other = [
            word not in NOUNS for word in words_of(prompt.text) if word in NOUN_OF_FORM
        ]
        assert prompt.answer in (PLURAL if subject else SINGULAR)
        assert prompt.wrong in (SINGULAR if subject else PLURAL)
        assert ("same" if subject == other else "attractor") == prompt.kind


@pytest.mark.parametrize("write", TEXTS.values(), ids=TEXTS)
def test_no_blank_of_a_template_stays_open(
    write: Callable[[torch.Generator], str],
) -> None:
    """Every text is a whole sentence."""
    generator = source(9)
    for _ in range(N_DRAWN):
        text = write(generator)
        assert not set("{}") & set(text)
        assert text.endswith(".")


def test_the_textbook_pairs_are_held_out() -> None:
    """The pairs of the literature's sentences are kept for measuring."""
    assert all(is_held_out(*pair) for pair in ALWAYS_HELD_OUT)


def test_the_order_of_words_does_not_decide_the_side() -> None:
    """A pair is held out in both orders or in neither."""
    pairs = [(first, second) for first in NAMES for second in NAMES if first < second]
    assert all(is_held_out(*pair) == is_held_out(*pair[::-1]) for pair in pairs)
    assert 0.1 < sum(is_held_out(*pair) for pair in pairs) / len(pairs) < 0.2


def test_a_document_is_the_prompt_with_its_answer() -> None:
    """Training reads text, answer and rest in one."""
    prompt = Prompt(text="The keys", answer=" are", wrong=" is", rest=" old.", kind="")
    assert "The keys are old." == document(prompt)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gave a apple to", "gave an apple to"),
        ("gave a drink to", "gave a drink to"),
        ("a old key and a cup", "an old key and a cup"),
    ],
)
def test_the_article_fits_the_next_word(text: str, expected: str) -> None:
    """The article is "an" before a vowel, and before a vowel only."""
    assert expected == with_articles(text)


def test_people_are_nouns() -> None:
    """Whoever likes somebody can also be a subject."""
    assert set(PEOPLE) <= NOUNS.keys()


def test_two_picks_differ() -> None:
    """Two of three options are never the same one, and all pairs come."""
    generator = source(10)
    pairs = {pick_two(generator, "abc") for _ in range(N_DRAWN)}
    assert 6 == len(pairs)
    assert all(first != second for first, second in pairs)


def test_both_ends_of_a_range_are_drawn() -> None:
    """`between` includes its bounds, and nothing beyond them."""
    generator = source(11)
    assert {2, 3, 4} == {between(generator, 2, 4) for _ in range(N_DRAWN)}


@pytest.mark.parametrize(("probability", "expected"), [(0.0, False), (1.0, True)])
def test_certainty_is_certain(probability: float, *, expected: bool) -> None:
    """A probability of 0 is never, one of 1 is always."""
    generator = source(12)
    assert {expected} == {chance(generator, probability) for _ in range(N_DRAWN)}
