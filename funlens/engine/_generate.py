"""Generation with interventions, on HuggingFace's own `generate`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, overload

import attrs
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funlens.adapters import (
    ACTIVE,
    Machinery,
    generation_options,
    to_tokens,
)
from funlens.data import ActivationCache, Intervention, ModelSpec, Site, SiteLike
from funlens.engine._edits import operand
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._plan import (
    EVERY,
    Every,
    Plan,
    captured_sites,
    make_plan,
    named,
    raise_all,
)
from funlens.engine._run import cache_of
from funlens.engine._trace import Trace
from funlens.errors import FunlensError, InputError, OptionError, nearest
from funlens.shapes import Tokens

_OURS: Final = frozenset(
    {"logits_processor", "stopping_criteria", "streamer", "prefix_allowed_tokens_fn"}
)
_MOVING: Final = frozenset({"pos", "query"})


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
        inputs: Text, texts, tokens, or a mapping. Rows are padded on the left.
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
    prepared = _prompt(spec, inputs)
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
    prepared = _prompt(spec, inputs)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    _check_moving(interventions)
    given = {**options, "max_new_tokens": max_new_tokens}
    out, trace = _generated(spec, prepared, plan, options=given, seed=seed)
    for site, steps in trace.captured.items():
        trace.captured[site] = [_joined(site, steps)]
    tokens: Tensor = out.sequences
    has_text = spec.tokenizer is not None
    return Generation(
        tokens=tokens,
        texts=_texts(spec, tokens) if has_text else (),
        logits=torch.stack(out.logits, dim=1),
        cache=cache_of(spec, trace),
    )


def _texts(spec: ModelSpec, tokens: Tensor) -> tuple[str, ...]:
    """Write each row without the special tokens."""
    decode = spec.tokenizer.decode
    return tuple(str(decode(row.tolist(), skip_special_tokens=True)) for row in tokens)


def _prompt(spec: ModelSpec, inputs: Inputs) -> Prepared:
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        inputs = to_tokens(spec, inputs, padding_side="left")
    prepared = prepare(spec, inputs)
    frame = prepared.frames["encoder" if spec.is_encoder_decoder else ""]
    is_left = frame.stops is None or set(frame.stops) == {frame.n_pos}
    if not is_left and not spec.is_encoder_decoder:
        raise InputError(
            "the prompt is padded on the right",
            "padding on the left, where a prompt can go on",
            "Use `to_tokens(..., padding_side='left')`",
        )
    return prepared


def _check_moving(interventions: Sequence[Intervention]) -> None:
    """Refuse values for all positions, where their number grows."""
    faults: list[FunlensError] = []
    for index, record in enumerate(interventions):
        held = operand(record)
        chosen = dict(record.site.selections)
        left = [axis for axis in record.site.axes if not _is_dropped(axis, chosen)]
        covered = left[len(left) - held[1].ndim :] if held and held[1].ndim else []
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


def _is_dropped(axis: str, chosen: Mapping[str, object]) -> bool:
    word = {"kv_head": "head", "d_mlp": "neuron"}.get(axis, axis)
    return isinstance(chosen.get(word), int)


def _generated(
    spec: ModelSpec,
    prepared: Prepared,
    plan: Plan,
    *,
    options: Mapping[str, Any],
    seed: int | None,
) -> tuple[Any, Trace]:
    _check_options(spec, options, edits=bool(plan.acts))
    _check_seed(spec, options, seed)
    machinery: Machinery = spec.engine
    module: Any = machinery.tapped(eager=plan.needs_eager)
    kwargs = {
        name: value for name, value in prepared.kwargs.items() if name != "position_ids"
    }
    if "input_ids" in kwargs:
        kwargs.setdefault("attention_mask", torch.ones_like(kwargs["input_ids"]))
    trace = Trace(plan, machinery, prepared.frames, measures=bool(plan.captured))
    seeded: AbstractContextManager[Any] = (
        nullcontext() if seed is None else _Seeded(seed, spec.device)
    )
    token = ACTIVE.set(trace if plan.acts else None)
    try:
        with seeded:
            out = module.generate(
                **kwargs,
                **_with_pad(module, options),
                return_dict_in_generate=True,
                output_logits=True,
            )
    finally:
        ACTIVE.reset(token)
    trace.check_acted()
    return out, trace


def _with_pad(module: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Name a padding token where the model names none, as HuggingFace would."""
    config: Any = module.generation_config
    ends: Any = config.eos_token_id
    first: Any = ends if isinstance(ends, int | None) else ends[0]
    if config.pad_token_id is not None or first is None:
        return dict(options)
    return {"pad_token_id": first, **options}


def _check_options(spec: ModelSpec, options: Mapping[str, Any], *, edits: bool) -> None:
    known = generation_options() | _OURS
    for name in options:
        if name not in known:
            raise OptionError(name, "generate has no such option", nearest(name, known))
    if not spec.is_causal or not hasattr(spec.module, "generate"):
        raise InputError(
            f"{spec.model_type} does not generate",
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
    if edits and int(options.get("num_beams") or 1) > 1:
        raise OptionError("num_beams", "beams reorder rows, so edits would meet others")


def _check_seed(spec: ModelSpec, options: Mapping[str, Any], seed: int | None) -> None:
    """Refuse to draw from the global generator."""
    own: Any = spec.module.generation_config
    if options.get("do_sample", own.do_sample) and seed is None:
        raise OptionError("seed", "sampling needs one, so that runs can be repeated")


def _joined(site: Site, steps: Sequence[Tensor]) -> Tensor:
    """Put what the steps captured next to each other."""
    moving = [at for at, axis in enumerate(site.axes) if axis in _MOVING]
    if len(steps) == 1:
        return steps[0]
    if site.part == "rot_k" or not moving:
        return steps[-1]
    if site.axes[-1] == "key":
        n_keys = steps[-1].shape[-1]
        steps = [F.pad(step, (0, n_keys - step.shape[-1])) for step in steps]
    dropped = sum(
        isinstance(chosen, int) and site.axes.index(_axis(word)) < moving[0]
        for word, chosen in site.selections
        if _axis(word) in site.axes
    )
    return torch.cat(list(steps), dim=moving[0] - dropped)


def _axis(word: str) -> str:
    return {"neuron": "d_mlp"}.get(word, word)
