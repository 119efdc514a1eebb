"""A demonstration: four experiments on one model, as plain numbers."""

from collections.abc import Sequence
from typing import Final

import attrs
import torch
from torch import Tensor

from funlens.adapters import to_str_tokens, to_string, to_tokens
from funlens.analyses import Role, head_scores, repeated_tokens
from funlens.data import Add, ModelSpec, Part, Patch, Zero
from funlens.engine import (
    generate,
    logit_diff,
    loss_per_token,
    run,
    run_with_cache,
)
from funlens.engine._progress import steps
from funlens.errors import InputError

PROMPT: Final = "When Mary and John went to the store, John gave a drink to"
_TEMPLATE: Final = "When {0} and {1} went to the store, {2} gave a drink to"
_NAMES: Final = (
    ("Mary", "John"),
    ("Lily", "Tom"),
    ("Anna", "Peter"),
    ("Tim", "Sue"),
    ("Mom", "Dad"),
    ("Lily", "Ben"),
    ("Lily", "Tim"),
)
_CLEAR: Final = 0.3  # mean attention above which a head counts as found
_MOST_HEADS: Final = 8
_DRAWS: Final = 5
_LENGTH: Final = 50
_ROWS: Final = 8
_STEERING: Final = (
    "The weather is",
    ("The weather is very cold", "The snow is cold"),
    ("The weather is very hot", "The fire is hot"),
)
_STRENGTH: Final = 0.8  # of the stream's own norm, the share that is added

_PATTERN: Final = Part("pattern")
_RESID_PRE: Final = Part("resid_pre")
_Z: Final = Part("z")


@attrs.frozen(kw_only=True)
class Grid:
    """A small labeled table of numbers.

    Attributes:
        rows: Labels of the rows.
        columns: Labels of the columns.
        values: Numbers, row by row.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@attrs.frozen(kw_only=True)
class Patching:
    """Activation patching of `resid_pre`, layer by position.

    Attributes:
        clean: Prompt that the activations come from.
        corrupted: Prompt that they are put into.
        answer: Token that follows the clean prompt.
        wrong: Token that follows the corrupted one.
        clean_diff: Logit of the answer minus that of the wrong token, clean.
        corrupted_diff: The same, corrupted.
        restored: Share of the difference that each patch brings back: 0 is the
            corrupted run, 1 the clean one.
    """

    clean: str
    corrupted: str
    answer: str
    wrong: str
    clean_diff: float
    corrupted_diff: float
    restored: Grid


@attrs.frozen(kw_only=True)
class Ablation:
    """What repeated tokens cost with and without some heads, in nats per token.

    Attributes:
        heads: The heads, as `layer.head`.
        before: Mean loss over the repeat.
        after: The same with these heads' `z` at zero.
        others: The same with as many other heads at zero, for each random draw.
    """

    heads: tuple[str, ...]
    before: float
    after: float
    others: tuple[float, ...]


@attrs.frozen(kw_only=True)
class Steering:
    """A text with and without a vector added to the stream.

    Attributes:
        prompt: How the text starts.
        towards: Prompts whose mean activation is added.
        away: Prompts whose mean activation is taken off.
        site: Where.
        scale: By how much the difference is multiplied.
        before: Text without the vector.
        after: Text with it.
    """

    prompt: str
    towards: tuple[str, ...]
    away: tuple[str, ...]
    site: str
    scale: float
    before: str
    after: str


@attrs.frozen(kw_only=True)
class Demonstration:
    """What the demonstration found.

    Attributes:
        model: Name of the model.
        model_type: HuggingFace's name of the architecture.
        size: Layers, heads in a layer, and width of the residual stream.
        prompt: The prompt.
        tokens: Its tokens.
        predictions: Most likely next tokens, with their probabilities.
        scores: Heads' scores by role, layer by head.
        ablation: The induction heads, and what they are worth.
        patching: Activation patching; None where no prompts fit the tokenizer.
        steering: A steered text.
        notes: What could not be done as planned, and why.
    """

    model: str
    model_type: str
    size: tuple[int, int, int]
    prompt: str
    tokens: tuple[str, ...]
    predictions: tuple[tuple[str, float], ...]
    scores: tuple[tuple[Role, Grid], ...]
    ablation: Ablation
    patching: Patching | None
    steering: Steering
    notes: tuple[str, ...]


def demonstration(spec: ModelSpec, *, seed: int = 0) -> Demonstration:
    """Run the four experiments on a model.

    Heads are scored and ablated on repeated random tokens, the residual stream is
    patched from one prompt into another, and a text is steered. Cost: a forward pass
    for each layer and position of the prompt, and some more.

    Args:
        spec: A causal model with attention and a tokenizer.
        seed: Fixes the random tokens and heads.

    Raises:
        InputError: The model is not causal, or has no attention.
    """
    _check(spec)
    tokens = to_tokens(spec, PROMPT)
    likely = run(spec, tokens)[0, -1].softmax(-1).topk(5)
    repeated = repeated_tokens(spec, length=_length(spec), batch=_ROWS, seed=seed)
    cache = run_with_cache(spec, repeated, capture=[_PATTERN]).cache
    induction = head_scores(spec, cache, role="induction")
    roles: tuple[Role, ...] = ("induction", "previous token", "duplicate token")
    patching, patching_notes = _patching(spec)
    heads, head_notes = _found(induction)
    return Demonstration(
        model=spec.name,
        model_type=spec.model_type,
        size=(spec.n_layers, spec.n_heads, spec.d_model),
        prompt=PROMPT,
        tokens=to_str_tokens(spec, tokens[0]),
        predictions=tuple(
            (to_string(spec, [int(token)]), float(probability))
            for probability, token in zip(*likely, strict=True)
        ),
        scores=tuple(
            (role, _by_head(head_scores(spec, cache, role=role))) for role in roles
        ),
        ablation=_ablation(spec, repeated, heads, seed=seed),
        patching=patching,
        steering=_steering(spec),
        notes=(*head_notes, *patching_notes),
    )


def _check(spec: ModelSpec) -> None:
    if not spec.is_causal or spec.is_encoder_decoder or not spec.n_heads:
        raise InputError(
            f"{spec.model_type} is no causal model with attention heads",
            "one that continues a text",
            "Try `builtin:tiny`",
        )


def _length(spec: ModelSpec) -> int:
    """Halve the context where it is short, with room for a first token."""
    limit = 2 * _LENGTH + 1 if spec.n_ctx is None else spec.n_ctx
    return min(_LENGTH, (limit - 1) // 2)


def _by_head(scores: Tensor) -> Grid:
    n_layers, n_heads = scores.shape
    return Grid(
        rows=tuple(f"layer {layer}" for layer in range(n_layers)),
        columns=tuple(f"head {head}" for head in range(n_heads)),
        values=_numbers(scores),
    )


def _numbers(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in values)


def _found(induction: Tensor) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Pick the heads above the threshold, the best first; at least one."""
    n_heads = induction.shape[1]
    flat = induction.nan_to_num(0.0).flatten()
    ranked = [int(at) for at in flat.argsort(descending=True)[:_MOST_HEADS]]
    clear = [at for at in ranked if float(flat[at]) > _CLEAR]
    heads = tuple((at // n_heads, at % n_heads) for at in clear or ranked[:1])
    note = f"No head's induction score is above {_CLEAR}: the best one is ablated."
    return heads, () if clear else (note,)


def _ablation(
    spec: ModelSpec, repeated: Tensor, heads: tuple[tuple[int, int], ...], *, seed: int
) -> Ablation:
    generator = torch.Generator().manual_seed(seed)
    others = [
        (layer, head)
        for layer in range(spec.n_layers)
        for head in range(spec.n_heads)
        if (layer, head) not in heads
    ]
    draws = [_shuffled(others, generator) for _ in range(_DRAWS if others else 0)]
    return Ablation(
        heads=tuple(f"{layer}.{head}" for layer, head in heads),
        before=_repeat_loss(spec, repeated, ()),
        after=_repeat_loss(spec, repeated, heads),
        others=tuple(
            _repeat_loss(spec, repeated, draw[: len(heads)]) for draw in draws
        ),
    )


def _shuffled(
    heads: Sequence[tuple[int, int]], generator: torch.Generator
) -> list[tuple[int, int]]:
    order = torch.randperm(len(heads), generator=generator)
    return [heads[int(at)] for at in order]


def _repeat_loss(
    spec: ModelSpec,
    repeated: Tensor,
    heads: Sequence[tuple[int, int]],
) -> float:
    """Mean loss over the repeat without its first token, which nothing foretells."""
    edits = [Zero(_Z(layer, head=head)) for layer, head in heads]
    losses = loss_per_token(spec, repeated, edits)
    return float(losses[:, 1 - repeated.shape[1] // 2 :].nanmean())


@attrs.frozen(kw_only=True, eq=False)
class _Pair:
    """Two prompts of one length, and what should follow each."""

    clean: str
    corrupted: str
    answer: int
    wrong: int
    clean_diff: float
    corrupted_diff: float
    is_whole: bool

    @property
    def gap(self) -> float:
        return self.clean_diff - self.corrupted_diff


def _pair(spec: ModelSpec, names: tuple[str, str]) -> _Pair | None:
    """Write the prompts with two names, if the tokenizer lets them line up."""
    receiver, giver = names
    clean = _TEMPLATE.format(receiver, giver, giver)
    corrupted = _TEMPLATE.format(receiver, giver, receiver)
    rows = [to_tokens(spec, clean), to_tokens(spec, corrupted)]
    n_pos = rows[0].shape[1]
    ends = [to_tokens(spec, f"{clean} {name}") for name in names]
    if rows[1].shape[1] != n_pos or any(
        not torch.equal(end[:, :n_pos], rows[0]) for end in ends
    ):
        return None
    answer, wrong = (int(end[0, n_pos]) for end in ends)
    if answer == wrong:
        return None
    metric = logit_diff(answer, wrong)
    clean_diff, corrupted_diff = (float(metric(run(spec, row))) for row in rows)
    return _Pair(
        clean=clean,
        corrupted=corrupted,
        answer=answer,
        wrong=wrong,
        clean_diff=clean_diff,
        corrupted_diff=corrupted_diff,
        is_whole=all(end.shape[1] == n_pos + 1 for end in ends),
    )


def _patching(spec: ModelSpec) -> tuple[Patching | None, tuple[str, ...]]:
    """Choose the first names that the model tells apart, and patch."""
    pairs = [pair for names in _NAMES if (pair := _pair(spec, names)) is not None]
    solved = [pair for pair in pairs if pair.clean_diff > 0 > pair.corrupted_diff]
    pair = next(iter(solved or sorted(pairs, key=lambda one: -one.gap)), None)
    if pair is None:
        return None, ("No two names line up in this tokenizer: patching is left out.",)
    if pair.gap <= 0:
        note = "The model prefers the wrong name for every pair: patching is left out."
        return None, (note,)
    notes: list[str] = []
    if not solved:
        notes.append(
            "The model does not solve the name task; the pair of names with the "
            "largest difference between the two prompts is patched."
        )
    if not pair.is_whole:
        notes.append("A name is several tokens here: its first one is compared.")
    return _patched(spec, pair), tuple(notes)


def _patched(spec: ModelSpec, pair: _Pair) -> Patching:
    corrupted = to_tokens(spec, pair.corrupted)
    source = run_with_cache(spec, pair.clean, capture=[_RESID_PRE]).cache
    metric = logit_diff(pair.answer, pair.wrong)

    def restoring(layer: int, pos: int) -> float:
        site = _RESID_PRE(layer, pos=pos)
        return float(metric(run(spec, corrupted, [Patch(site, source[site])])))

    restored = [
        [restoring(layer, pos) for pos in range(corrupted.shape[1])]
        for layer in steps(range(spec.n_layers), "patching")
    ]
    shares = (torch.tensor(restored) - pair.corrupted_diff) / pair.gap
    written = to_str_tokens(spec, to_tokens(spec, pair.clean)[0])
    return Patching(
        clean=pair.clean,
        corrupted=pair.corrupted,
        answer=to_string(spec, [pair.answer]),
        wrong=to_string(spec, [pair.wrong]),
        clean_diff=pair.clean_diff,
        corrupted_diff=pair.corrupted_diff,
        restored=Grid(
            rows=tuple(f"layer {layer}" for layer in range(spec.n_layers)),
            columns=written,
            values=_numbers(shares),
        ),
    )


def _steering(spec: ModelSpec) -> Steering:
    prompt, towards, away = _STEERING
    site = _RESID_PRE(spec.n_layers // 2)

    def mean(texts: tuple[str, ...]) -> Tensor:
        last = attrs.evolve(site, pos=-1)
        runs = (run_with_cache(spec, text, capture=[last]).cache for text in texts)
        found: list[Tensor] = [cache[last][0] for cache in runs]
        return torch.stack(found).mean(dim=0)

    stream = run_with_cache(spec, prompt, capture=[site]).cache[site][0, -1]
    vector = mean(towards) - mean(away)
    size = float(stream.square().sum().sqrt())
    unit = float(vector.square().sum().sqrt())
    scale = round(_STRENGTH * size / unit, 2)
    edit = Add(site, vector, scale=scale)
    return Steering(
        prompt=prompt,
        towards=towards,
        away=away,
        site=str(site),
        scale=scale,
        before=generate(spec, prompt, max_new_tokens=20),
        after=generate(spec, prompt, [edit], max_new_tokens=20),
    )
