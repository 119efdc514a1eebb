"""Causal scrubbing: is what a hypothesis calls alike alike for the model?"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, Unpack

import attrs
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from funlens.data import (
    POSITION_WORDS,
    ActivationCache,
    ModelSpec,
    Patch,
    Site,
    SiteLike,
    left_axes,
)
from funlens.engine import (
    Inputs,
    MetricLike,
    SweepOptions,
    captured_sites,
    run_with_cache,
    sweep,
)
from funlens.engine._inputs import Prepared, prepare
from funlens.engine._rows import row_tensors
from funlens.engine._seeds import Seed, generator_of
from funlens.errors import InputError, OptionError, ShapeError

Labels: TypeAlias = Callable[[Any], Hashable] | Sequence[Hashable] | Tensor
"""What an example is at a site: a function of its text or tokens, or one for each."""

_POSITIONS: Final = POSITION_WORDS | {"source"}


@attrs.frozen(kw_only=True, eq=False)
class Scrubbed:
    """A metric of examples, as they are and with activations exchanged.

    Attributes:
        original: Of the run as it is, `[batch]`.
        scrubbed: With each site exchanged among examples that the hypothesis calls
            alike there, `[draw, batch]`.
        resampled: With each site exchanged among all examples, `[draw, batch]`.
    """

    original: Float[Tensor, " batch"] = attrs.field(repr=False)
    scrubbed: Float[Tensor, "draw batch"] = attrs.field(repr=False)
    resampled: Float[Tensor, "draw batch"] = attrs.field(repr=False)

    @property
    def recovered(self) -> float:
        """Share of what exchanging everything loses that the hypothesis keeps.

        1 where scrubbing changes nothing, 0 where it is as bad as resampling; NaN where
        resampling changes nothing.
        """
        lost = self.original.mean() - self.resampled.mean()
        kept = self.scrubbed.mean() - self.resampled.mean()
        return float(kept / lost)

    def __repr__(self) -> str:
        """Give the three means."""
        means = (self.original.mean(), self.scrubbed.mean(), self.resampled.mean())
        original, scrubbed, resampled = (f"{float(mean):.4g}" for mean in means)
        return (
            f"Scrubbed(original {original}, scrubbed {scrubbed}, resampled "
            f"{resampled}: {self.recovered:.0%} recovered)"
        )


def scrub(
    spec: ModelSpec,
    inputs: Inputs,
    hypothesis: Mapping[SiteLike, Labels],
    *,
    metric: MetricLike,
    n_draws: int = 8,
    seed: Seed,
    **options: Unpack[SweepOptions],
) -> Scrubbed:
    """Exchange activations among examples that a hypothesis calls alike.

    Each draw is one run, in which each site of each example is as it was in an example
    drawn from those with the same label there, itself among them; sites are drawn
    apart. If the hypothesis is right, the metric stays.

    This is causal scrubbing of Chan et al., "Causal Scrubbing: a method for rigorously
    testing interpretability hypotheses" (2022), in one step where theirs recurs: what
    is put at a site comes from an example's run as it is, not from one that was itself
    scrubbed upstream, and what the hypothesis does not name stays. Name what it says
    does not matter with one label for all examples.

    Args:
        spec: The model.
        inputs: The examples, as for `run`.
        hypothesis: For each site, part or name, labels: a function of an example (its
            text where texts are given, otherwise its tokens), or one for each example.
        metric: As for `sweep`, a single one.
        n_draws: How often all sites are drawn.
        seed: A number, or a `torch.Generator` on the CPU.
        options: `attention_mask` and `memory`, as for `sweep`.

    Returns:
        The metric of the examples as they are, scrubbed, and with the same sites drawn
        from all examples.

    Raises:
        InputError: The hypothesis is empty, there are several metrics, or rows are
            padded and a site keeps its positions.
        ShapeError: There are not as many labels as examples.
        OptionError: `n_draws` is below 1, or the seed is none.
        FunlensError: As for `sweep`.

    Costs one run, and a sweep of twice `n_draws` cells. Memory: the sites, once and for
    each cell.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> texts = ["Tom had a ball", "Ben had a ball", "Tom saw a ball"]
        >>> alike = {fl.resid_post(1, pos=-1): lambda text: text.split()[1]}
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, "."))
        >>> found = fl.scrub(spec, texts, alike, metric=metric, n_draws=4, seed=0)
        >>> found.scrubbed.shape
        torch.Size([4, 3])
    """
    if type(n_draws) is not int or n_draws < 1:
        raise OptionError("n_draws", f"it is {n_draws!r}, not a number of draws")
    if isinstance(metric, Mapping):
        raise InputError("there are several metrics", "one", "Scrub for each of them")
    mask = options.get("attention_mask")
    prepared = prepare(spec, inputs, attention_mask=mask)
    examples = _examples(prepared, inputs)
    alike = dict(_matches(spec, prepared, hypothesis, examples))
    cache = run_with_cache(spec, inputs, capture=[*alike], attention_mask=mask).cache
    generator = generator_of(seed)
    everything = {site: torch.ones_like(match) for site, match in alike.items()}
    cells = [
        [_exchanged(cache, site, match, generator) for site, match in matches.items()]
        for matches in (alike, everything)
        for _ in range(n_draws)
    ]
    found = sweep(spec, inputs, cells, metric=metric, **options)
    return Scrubbed(
        original=found.baseline,
        scrubbed=found.rows[:n_draws],
        resampled=found.rows[n_draws:],
    )


def _examples(prepared: Prepared, inputs: Inputs) -> Sequence[Any]:
    """Give what a function of an example is given."""
    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, Sequence):
        return inputs
    rows = row_tensors(prepared)
    named = next((name for name in ("input_ids", *rows) if name in rows), "")
    if not named:
        raise InputError("no input has examples", "tokens", "Pass texts or tokens")
    held = rows[named]
    batch = prepared.main.batch
    return held.reshape(batch, len(held) // batch, *held.shape[1:]).squeeze(1).unbind()


def _matches(
    spec: ModelSpec,
    prepared: Prepared,
    hypothesis: Mapping[SiteLike, Labels],
    examples: Sequence[Any],
) -> Iterator[tuple[Site, Bool[Tensor, "example other"]]]:
    """Say for each site which examples may stand for each.

    Raises:
        InputError: There is no site, or one that rows do not share.
        ShapeError: There are not as many labels as examples.
    """
    if not hypothesis:
        raise InputError("the hypothesis is empty", "a site or more", "Name a site")
    named: set[Site] = set()
    is_padded = any(f.starts is not None for f in prepared.frames.values())
    for like, labels in hypothesis.items():
        found = _labels(like, labels, examples)
        match = torch.tensor([[one == two for two in found] for one in found])
        for site in captured_sites(spec, [like], prepared.kwargs):
            if is_padded and _POSITIONS & set(left_axes(site)):
                raise InputError(
                    f"rows are padded, and {site} keeps its positions",
                    "one position, or rows of one length",
                    "Select one with `pos=`, or scrub rows of other lengths apart",
                )
            if site in named:
                problem = f"{site} is named twice"
                raise InputError(problem, "each site once", "Leave one out")
            named.add(site)
            yield site, match


def _labels(
    like: SiteLike, labels: Labels, examples: Sequence[Any]
) -> Sequence[Hashable]:
    if isinstance(labels, Tensor):
        given: Sequence[Any] = labels.unbind() if labels.ndim else [labels]
    elif callable(labels):
        given = [labels(example) for example in examples]
    else:
        given = labels
    found = [_plain(label) for label in given]
    if len(found) != len(examples):
        where, shape = f"the labels of {like}", (len(found),)
        raise ShapeError(where, shape, (len(examples),), ("batch",))
    return found


def _plain(label: Any) -> Hashable:
    """Let tensors be compared by their numbers."""
    if not isinstance(label, Tensor):
        return label
    return (tuple(label.shape), tuple(float(number) for number in label.flatten()))


def _exchanged(
    cache: ActivationCache,
    site: Site,
    match: Bool[Tensor, "example other"],
    generator: torch.Generator,
) -> Patch:
    """Patch each example with one that is drawn from those that match it."""
    drawn = torch.multinomial(match.double(), 1, generator=generator)[:, 0]
    held = cache[site]
    return Patch(site, held[drawn.to(held.device)])
