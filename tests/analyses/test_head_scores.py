"""Head scores on patterns made by hand, and on the built-in model."""

from functools import cache as cached
from typing import Final

import attrs
import pytest
import torch

from funlens.adapters import load
from funlens.analyses import Role, head_scores, repeated_tokens
from funlens.data import ActivationCache, ModelSpec, Part, Site
from funlens.engine import run_with_cache
from funlens.errors import InputError, OptionError, SiteNotCachedError

LENGTH: Final = 6
BACK: Final[dict[Role, int]] = {
    "induction": LENGTH - 1,
    "previous token": 1,
    "duplicate token": LENGTH,
}


@cached
def tiny() -> ModelSpec:
    """The built-in model."""
    return load("builtin:tiny")


def looking_back(by: int, *, n_pos: int) -> ActivationCache:
    """A cache in which head 2.1 attends `by` back, all others to themselves."""
    own = torch.eye(n_pos).expand(2, 4, n_pos, n_pos)
    moved = torch.diag(torch.ones(n_pos - by), -by)
    layers = [own.clone() for _ in range(4)]
    layers[2][:, 1] = moved
    return ActivationCache(
        entries={Site(part="pattern", layer=at): one for at, one in enumerate(layers)}
    )


@pytest.mark.parametrize("n_pos", [2 * LENGTH, 2 * LENGTH + 1])
@pytest.mark.parametrize("role", BACK)
def test_a_head_that_plays_one_role_alone_has_score_one(role: Role, n_pos: int) -> None:
    """All attention on the role's diagonal is 1, all attention elsewhere 0."""
    for other, by in BACK.items():
        scores = head_scores(tiny(), looking_back(by, n_pos=n_pos), role=role)
        expected = torch.zeros(4, 4)
        expected[2, 1] = float(other == role)
        assert torch.equal(expected, scores)


def test_the_builtin_induction_head_is_the_one_on_its_card() -> None:
    """Head 3.2 does induction and head 1.3 looks back by one."""
    tokens = repeated_tokens(tiny(), length=30, batch=4, seed=0)
    cache = run_with_cache(tiny(), tokens, capture=[Part("pattern")]).cache
    induction = head_scores(tiny(), cache, role="induction")
    previous = head_scores(tiny(), cache, role="previous token")
    assert (3 * 4 + 2, 1 * 4 + 3) == (int(induction.argmax()), int(previous.argmax()))
    assert float(induction.max()) > 0.8


def test_a_layer_that_is_not_cached_is_an_error() -> None:
    """Scores of some layers are not passed off as all."""
    tokens = repeated_tokens(tiny(), length=4, batch=1, seed=0)
    cache = run_with_cache(tiny(), tokens, capture=[Part("pattern")(0)]).cache
    with pytest.raises(SiteNotCachedError):
        head_scores(tiny(), cache, role="induction")


def test_a_layer_without_attention_scores_nan() -> None:
    """A layer that has no pattern keeps its row."""
    gone = Site(part="pattern", layer=1)
    kept = tuple(info for info in tiny().sites if info.site != gone)
    spec = attrs.evolve(tiny(), sites=kept)
    scores = head_scores(spec, looking_back(1, n_pos=12), role="previous token")
    assert [1] == scores.isnan().all(dim=1).nonzero()[:, 0].tolist()


def test_a_pattern_too_short_for_a_repeat_is_an_error() -> None:
    """Two tokens hold no repeat."""
    with pytest.raises(InputError):
        head_scores(tiny(), looking_back(1, n_pos=2), role="induction")


def test_repeated_tokens_repeat_after_bos() -> None:
    """Each row is the first token, a random part, and that part again."""
    tokens = repeated_tokens(tiny(), length=20, batch=3, seed=1)
    assert (3, 41) == tuple(tokens.shape)
    assert bool((tokens[:, 0] == tiny().tokenizer.bos_token_id).all())
    assert torch.equal(tokens[:, 1:21], tokens[:, 21:])
    assert not set(tokens[:, 1:].flatten().tolist()) & {0, 1, 2}


def test_repeated_tokens_are_fixed_by_the_seed_alone() -> None:
    """The same seed gives the same tokens, and the global generator stays."""
    before = torch.get_rng_state()
    one, two, other = (
        repeated_tokens(tiny(), length=9, batch=2, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_without_tokenizer_has_no_first_token() -> None:
    """Rows are then exactly twice as long as what is repeated."""
    spec = attrs.evolve(tiny(), tokenizer=None)
    assert (2, 10) == tuple(repeated_tokens(spec, length=5, batch=2, seed=0).shape)


@pytest.mark.parametrize(("length", "batch"), [(0, 1), (1, 0), (200, 1)])
def test_lengths_that_cannot_be_are_refused(length: int, batch: int) -> None:
    """Empty rows, no rows, and rows beyond the context are errors."""
    with pytest.raises(OptionError):
        repeated_tokens(tiny(), length=length, batch=batch, seed=0)
