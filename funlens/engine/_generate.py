"""Generation with interventions, on HuggingFace's own `generate`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, overload

import attrs
import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funlens.adapters import (
    ACTIVE,
    Machinery,
    encode,
    generation_options,
)
from funlens.data import (
    ActivationCache,
    Intervention,
    ModelSpec,
    Site,
    SiteLike,
    left_axes,
)
from funlens.engine._edits import operand
from funlens.engine._inputs import (
    Frame,
    Inputs,
    Prepared,
    as_mapping,
    prepare,
)
from funlens.engine._plan import (
    EVERY,
    Every,
    Plan,
    captured_sites,
    check_given,
    make_plan,
    named,
)
from funlens.engine._trace import Trace, with_keys
from funlens.engine._traced import cache_of
from funlens.errors import (
    FunlensError,
    InputError,
    OptionError,
    nearest,
    raise_all,
)
from funlens.shapes import Tokens

_OURS: Final = frozenset(
    {"logits_processor", "stopping_criteria", "streamer", "prefix_allowed_tokens_fn"}
)
_MOVING: Final = frozenset({"pos", "query"})
_NO_EFFECT: Final[Mapping[str, str]] = {
    "max_length": "`max_new_tokens` says how many tokens are added",
    "output_attentions": "capture `pattern` with `generate_with_cache`",
    "output_hidden_states": "capture `resid_post` with `generate_with_cache`",
    "output_logits": "`generate_with_cache` gives them",
    "output_scores": "`generate_with_cache` gives the logits",
    "return_dict_in_generate": "`generate_with_cache` gives a record",
}
"""Options whose results are given in another way, or not at all."""

_REORDERING: Final[Mapping[str, tuple[object, str]]] = {
    "num_beams": (1, "beams reorder rows, so edits would meet others"),
    "num_return_sequences": (1, "rows are copied; repeat them in the prompt"),
    "guidance_scale": (1, "the model reads a second prompt, which edits would meet"),
    "prompt_lookup_num_tokens": (None, "tokens are read and taken back"),
}
"""Options under which a position or a row is not what it was in the prompt."""

_FREE_START: Final = frozenset({"vision-encoder-decoder", "whisper"})
"""Decoders of which HuggingFace lets the caller's first token stand."""

_SAMPLING: Final = frozenset(
    {"epsilon_cutoff", "eta_cutoff", "min_p", "temperature", "top_h", "top_k", "top_p"}
    | {"typical_p"}
)


@attrs.frozen(kw_only=True, eq=False)
class Generation:
    """What `generate_with_cache` gives.

    Attributes:
        tokens: Prompt and new tokens `[batch, pos]`; of two stacks the decoder's.
        texts: Each row as text; empty without a tokenizer.
        logits: Logits of each new token, before processors, `[batch, step, vocab]`.
        cache: What was captured over prompt and new tokens but the last, from the
            generating run itself. Keys that a pattern's row could not see are 0.
    """

    tokens: Tokens
    texts: tuple[str, ...]
    logits: Float[Tensor, "batch step vocab"] = attrs.field(repr=False)
    cache: ActivationCache


class _Seeded(TorchFunctionMode):
    """Draws from one generator, so that the global one is not touched."""

    def __init__(self, seed: int, device: torch.device) -> None:
        super().__init__()
        self.generator = torch.Generator(device).manual_seed(seed)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Give the generator to every draw."""
        del types
        given = dict(kwargs or {})
        if func is torch.multinomial:
            given.setdefault("generator", self.generator)
        return func(*args, **given)


@overload
def generate(  # pyright: ignore[reportOverlappingOverload] (a str is a Sequence[str] too; the first overload wins)
    spec: ModelSpec,
    inputs: str,
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int = 20,
    seed: int | None = None,
    **options: Any,
) -> str: ...


@overload
def generate(
    spec: ModelSpec,
    inputs: Tensor | Mapping[str, Any],
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int = 20,
    seed: int | None = None,
    **options: Any,
) -> Tensor: ...


@overload
def generate(
    spec: ModelSpec,
    inputs: Sequence[str],
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int = 20,
    seed: int | None = None,
    **options: Any,
) -> tuple[str, ...]: ...


def generate(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int = 20,
    seed: int | None = None,
    **options: Any,
) -> str | tuple[str, ...] | Tensor:
    """Generate with HuggingFace's `generate`, its cache on, and edits at work.

    Positions are positions of the sequence: an edit at `pos=3` acts once, when the
    model reads that token; one at `pos=funlens.generated` acts at every new token.

    Args:
        spec: The model.
        inputs: Text, texts, tokens, or a mapping. Rows are padded on the left, those of
            an encoder on the right.
        interventions: What to change.
        max_new_tokens: Most tokens that are added.
        seed: Fixes the draws of sampling, which needs one; the global generator is
            not touched.
        **options: HuggingFace's own, such as `do_sample`, `temperature`, `streamer`.

    Returns:
        Prompt and new text for text, the same of each for several, tokens
        `[batch, pos]` for tokens.

    Raises:
        OptionError: An option that HuggingFace's `generate` does not know.
        FunlensError: Anything asked for that cannot be done, before the model runs.
    """
    prepared = _prompt(spec, inputs, options)
    plan = make_plan(spec, prepared.frames, interventions)
    _check_moving(interventions)
    given = {**options, "max_new_tokens": max_new_tokens}
    out, _ = _generated(spec, prepared, plan, options=given, seed=seed)
    tokens: Tensor = out.sequences
    if isinstance(inputs, (Tensor, Mapping)):
        return tokens
    texts = _texts(spec, tokens)
    return texts[0] if isinstance(inputs, str) else texts


def generate_with_cache(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    capture: Sequence[SiteLike] | Every = EVERY,
    max_new_tokens: int = 20,
    seed: int | None = None,
    **options: Any,
) -> Generation:
    """Generate, and keep what passes some sites on the way; no second forward.

    Args:
        spec: The model.
        inputs: As for `generate`.
        interventions: What to change.
        capture: What to keep.
        max_new_tokens: Most tokens that are added.
        seed: Fixes the draws of sampling.
        **options: HuggingFace's own.

    Raises:
        OptionError: An option that HuggingFace's `generate` does not know.
        FunlensError: Anything asked for that cannot be done, before the model runs.
    """
    prepared = _prompt(spec, inputs, options)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    _check_moving(interventions)
    given = {**options, "max_new_tokens": max_new_tokens}
    out, trace = _generated(spec, prepared, plan, options=given, seed=seed)
    for site, steps in trace.captured.items():
        trace.captured[site] = [_joined(site, steps, n_keys=trace.seen)]
    tokens: Tensor = out.sequences
    read = _read(prepared.main, tokens, _ends(spec, options))
    return Generation(
        tokens=tokens,
        texts=() if spec.tokenizer is None else _texts(spec, tokens),
        logits=torch.stack(out.logits, dim=1),
        cache=attrs.evolve(cache_of(spec, trace), starts=read.starts, stops=read.stops),
    )


def _ends(spec: ModelSpec, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Name the tokens that end a row."""
    ends: Any = _option(spec, options, "eos_token_id")
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)


def _read(prompt: Frame, tokens: Tensor, ends: Sequence[int]) -> Frame:
    """Find the real positions of what the model read: all tokens but the last."""
    n_pos = tokens.shape[1] - 1
    new = tokens[:, prompt.n_pos : n_pos]
    is_end = torch.isin(new, torch.tensor(ends, dtype=new.dtype, device=new.device))
    n_real = (is_end.cumsum(1) - is_end.long() == 0).sum(1)
    stops = tuple(prompt.n_pos + int(count) for count in n_real)
    starts = prompt.starts or (0,) * prompt.batch
    is_plain = prompt.starts is None and set(stops) == {n_pos}
    return Frame(
        batch=prompt.batch,
        n_pos=n_pos,
        starts=None if is_plain else starts,
        stops=None if is_plain else stops,
    )


def _texts(spec: ModelSpec, tokens: Tensor) -> tuple[str, ...]:
    """Write each row without the special tokens."""
    decode = spec.tokenizer.decode
    return tuple(str(decode(row.tolist(), skip_special_tokens=True)) for row in tokens)


def _prompt(spec: ModelSpec, inputs: Inputs, options: Mapping[str, Any]) -> Prepared:
    """Prepare what HuggingFace's `generate` will read first."""
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        side = "right" if spec.is_encoder_decoder else "left"
        inputs = encode(spec, inputs, padding_side=side).inputs
    if spec.is_encoder_decoder:
        return prepare(spec, _with_start(spec, inputs, options))
    prepared = prepare(spec, inputs)
    stops = prepared.main.stops
    if stops is not None and set(stops) != {prepared.main.n_pos}:
        raise InputError(
            "the prompt is padded on the right",
            "padding on the left, where a prompt can go on",
            "Use `to_tokens(..., padding_side='left')`",
        )
    return prepared


def _with_start(
    spec: ModelSpec, inputs: Inputs, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Begin the decoder's part with the token that HuggingFace would put there."""
    given = as_mapping(spec, inputs)
    start = _start(spec, options)
    decoder: object = given.get("decoder_input_ids")
    source: object = given.get("input_ids")
    if start is None or not isinstance(source, Tensor):
        return given
    first = torch.full((len(source), 1), start, device=spec.device)
    if not isinstance(decoder, Tensor):
        return {**given, "decoder_input_ids": first}
    if spec.model_type in _FREE_START or bool((decoder[:, 0] == start).any()):
        return given
    longer = {"decoder_input_ids": torch.cat([first, decoder], dim=1)}
    mask: object = given.get("decoder_attention_mask")
    if isinstance(mask, Tensor):
        longer["decoder_attention_mask"] = torch.cat([first * 0 + 1, mask], dim=1)
    return {**given, **longer}


def _start(spec: ModelSpec, options: Mapping[str, Any]) -> int | None:
    """Name the token that a decoder begins with."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        known = _option(spec, options, name)
        if known is None:
            known = getattr(spec.engine.config, name, None)
        if known is not None:
            return int(known)
    return None


def _option(spec: ModelSpec, options: Mapping[str, Any], name: str) -> Any:
    """Look an option up: what was asked for, or what the model came with."""
    own = getattr(spec.module, "generation_config", None)
    return options.get(name, getattr(own, name, None))


def _check_moving(interventions: Sequence[Intervention]) -> None:
    """Refuse values for all positions, where their number grows."""
    faults: list[FunlensError] = []
    for index, record in enumerate(interventions):
        held = operand(record)
        chosen = dict(record.site.selections)
        left = left_axes(record.site)
        covered = left[len(left) - held[1].ndim :] if held and held[1].ndim else ()
        if _MOVING.intersection(covered) and not _MOVING & chosen.keys():
            faults.append(
                InputError(
                    f"{named(index, record)} has a value for each position, and their "
                    "number grows while generating",
                    "a selection of positions",
                    "Select them with `pos=`",
                )
            )
    raise_all(faults)


def _generated(
    spec: ModelSpec,
    prepared: Prepared,
    plan: Plan,
    *,
    options: Mapping[str, Any],
    seed: int | None,
) -> tuple[Any, Trace]:
    check_given(spec, plan, prepared.kwargs)
    _check_options(spec, options, looks=bool(plan.acts))
    _check_seed(spec, options, seed)
    _check_length(spec, prepared.main, options["max_new_tokens"])
    machinery: Machinery = spec.engine
    module: Any = machinery.tapped(eager=plan.needs_eager)
    trace = Trace(
        plan,
        machinery,
        prepared.frames,
        measures=bool(plan.captured),
        grows=True,
    )
    seeded: AbstractContextManager[Any] = (
        nullcontext() if seed is None else _Seeded(seed, spec.device)
    )
    token = ACTIVE.set(trace if plan.acts else None)
    try:
        with seeded:
            out = module.generate(
                **_inputs(prepared),
                **_completed(spec, prepared, options),
                return_dict_in_generate=True,
                output_logits=True,
            )
    finally:
        ACTIVE.reset(token)
    trace.check_acted()
    return out, trace


def _inputs(prepared: Prepared) -> dict[str, Any]:
    """Give what `generate` takes: it counts positions itself, and wants a mask."""
    kwargs = {
        name: value for name, value in prepared.kwargs.items() if name != "position_ids"
    }
    if "input_ids" in kwargs:
        kwargs.setdefault("attention_mask", torch.ones_like(kwargs["input_ids"]))
    return kwargs


def _completed(
    spec: ModelSpec, prepared: Prepared, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Name the tokens that the model names nowhere, as HuggingFace would."""
    more: dict[str, Any] = {}
    ends = _ends(spec, options)
    if _option(spec, options, "pad_token_id") is None and ends:
        more["pad_token_id"] = ends[0]
    if spec.is_encoder_decoder:
        start = _start(spec, options)
        decoder: Tensor = prepared.kwargs["decoder_input_ids"]
        more["decoder_start_token_id"] = int(decoder[0, 0]) if start is None else start
    if options.get("stop_strings") is not None:
        more["tokenizer"] = spec.tokenizer
    return {**more, **options}


def _check_options(spec: ModelSpec, options: Mapping[str, Any], *, looks: bool) -> None:
    known = generation_options() | _OURS
    for name in options:
        if name not in known:
            raise OptionError(name, "generate has no such option", nearest(name, known))
        if name in _NO_EFFECT:
            raise OptionError(name, f"it would do nothing: {_NO_EFFECT[name]}")
    _check_writes(spec)
    for name, (plain, reason) in _REORDERING.items() if looks else ():
        if _option(spec, options, name) not in {plain, None}:
            raise OptionError(name, reason)
    idle = sorted(_SAMPLING & options.keys())
    if idle and not _option(spec, options, "do_sample"):
        raise OptionError(idle[0], "it acts on sampling only; pass `do_sample=True`")


def _check_writes(spec: ModelSpec) -> None:
    """Refuse models that do not write one token a step."""
    makes_words = spec.engine.head == "words" and hasattr(spec.module, "generate")
    if not spec.is_causal or not makes_words:
        raise InputError(
            f"{spec.name} does not generate",
            "a causal model with a language head",
            "Use `run`",
        )
    machinery: Machinery = spec.engine
    if machinery.rows > 1:
        raise InputError(
            f"{spec.model_type} writes several codebooks at once, each a step behind "
            "the one before",
            "a model that writes one token a step",
            "Use `run` on codes that HuggingFace's `generate` gave",
        )


def _check_length(spec: ModelSpec, prompt: Frame, max_new_tokens: int) -> None:
    """Refuse what the model has no positions for; the last token is not read."""
    if max_new_tokens < 1:
        problem = f"it is {max_new_tokens}, and one token or more can be added"
        raise OptionError("max_new_tokens", problem)
    n_read = prompt.n_pos + max_new_tokens - 1
    if spec.n_ctx is not None and n_read > spec.n_ctx:
        problem = f"the model would read {n_read} positions, and has {spec.n_ctx}"
        raise OptionError("max_new_tokens", problem)


def _check_seed(spec: ModelSpec, options: Mapping[str, Any], seed: int | None) -> None:
    """Refuse to draw from the global generator."""
    if _option(spec, options, "do_sample") and seed is None:
        raise OptionError("seed", "sampling needs one, so that runs can be repeated")


def _joined(site: Site, steps: Sequence[Tensor], *, n_keys: int) -> Tensor:
    """Put what the steps captured next to each other."""
    left = left_axes(site)
    if left[-1] == "key" and site.key is None and not site.stack:
        steps = [with_keys(site, step, after=n_keys - step.shape[-1]) for step in steps]
    moving = [at for at, axis in enumerate(left) if axis in _MOVING]
    if not moving or site.stack:
        return steps[-1]
    return torch.cat(list(steps), dim=moving[0])
