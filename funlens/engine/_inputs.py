"""From what a caller passes to what HuggingFace's forward takes."""

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import (
    Machinery,
    Stack,
    active_transforms,
    encode,
    frame_counts,
    is_functional,
    padding_mask,
)
from funlens.data import ModelSpec
from funlens.errors import InputError, nearest

Inputs: TypeAlias = str | Sequence[str] | Tensor | Mapping[str, Any]

_NOT_TAKEN: Final[Mapping[str, str]] = {
    "logits_to_keep": "Pass `logits_at`",
    "past_key_values": "Pass all tokens, or use `generate`",
}
"""Inputs after which positions would not be those of the tokens."""

_DECODER: Final = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
_MEDIA: Final = ("pixel_values", "input_features", "input_values")


@attrs.frozen(kw_only=True)
class Frame:
    """The positions of one stack in one run.

    Attributes:
        batch: Rows.
        n_pos: Columns.
        starts: First real column of each row; None if nothing is padded.
        stops: Column after each row's last real one.
        is_ragged: Whether rows are padded, and only the run tells where.
    """

    batch: int
    n_pos: int
    starts: tuple[int, ...] | None = None
    stops: tuple[int, ...] | None = None
    is_ragged: bool = False


UNKNOWN: Final = Frame(batch=0, n_pos=0)
"""The positions of a stack whose input is made inside the model."""


@attrs.frozen(kw_only=True, eq=False)
class Prepared:
    """Keyword arguments for the forward, and the positions of each stack."""

    kwargs: Mapping[str, Any]
    frames: Mapping[str, Frame]

    @property
    def main(self) -> Frame:
        """The main stack's positions."""
        return self.frames[""]


@cache
def _accepts(forward: Any, name: str) -> bool:
    return name in inspect.signature(forward).parameters


def accepts(module: nn.Module, name: str) -> bool:
    """Tell whether a module's forward has a keyword."""
    if torch.compiler.is_compiling():  # dynamo warns of a cache that it looks through
        return name in inspect.signature(type(module).forward).parameters
    return _accepts(type(module).forward, name)


def prepare(
    spec: ModelSpec,
    inputs: Inputs,
    *,
    attention_mask: Tensor | None = None,
) -> Prepared:
    """Make keyword arguments, with masks and positions where rows are padded.

    Args:
        spec: The model.
        inputs: As for `run`.
        attention_mask: As for `run`.

    Raises:
        InputError: The inputs are of no known kind, empty, or too long.
        TokenizerError: Text was given and there is no tokenizer.
    """
    _check_transforms(spec)
    given = as_mapping(spec, inputs)
    _check_names(spec, given)
    _check_refused(spec, given)
    if attention_mask is not None:
        given["attention_mask"] = attention_mask.to(spec.device)
    source = given.get("input_ids", given.get("inputs_embeds"))
    if not isinstance(source, Tensor):
        return _without_tokens(spec, given)
    _check_tokens(spec, source, inputs_embeds="input_ids" not in given)
    if not isinstance(inputs, Mapping):
        _check_ids(spec, source)
    if isinstance(inputs, Tensor) and attention_mask is None:
        mask = _inferred_mask(spec, source)
    else:
        mask = given.get("attention_mask")
    given.pop("attention_mask", None)
    if spec.engine.arch.keeps_cache:
        given.setdefault("use_cache", True)
    frame = _frame(source[:: spec.engine.rows], mask)
    _check_padding(spec, frame)
    is_read = frame.starts is not None or spec.engine.reads_full_masks
    if mask is not None and is_read:
        given["attention_mask"] = mask.bool().long()
        _place_positions(spec, given, mask)
    if not spec.is_encoder_decoder:
        others: Mapping[str, Stack] = spec.engine.arch.others
        alike = (name for name, stack in others.items() if stack.same_positions)
        return Prepared(kwargs=given, frames={"": frame, **dict.fromkeys(alike, frame)})
    return _with_decoder(spec, given, frame)


def _without_tokens(spec: ModelSpec, given: Mapping[str, Any]) -> Prepared:
    """Prepare pictures or sound: how many positions they make only the run tells.

    Raises:
        InputError: The model's main input is not there.
    """
    main = _media_name(spec, given)
    source = given.get(main)
    if not isinstance(source, Tensor):
        raise InputError(
            f"the inputs hold {', '.join(given) or 'nothing'}",
            f"`{main}` among them",
            "Pass text, a token tensor, or what the tokenizer or processor returns",
        )
    _check_media(main, source)
    frame = _media_frame(spec, source, given.get("attention_mask"))
    if not spec.is_encoder_decoder:
        return Prepared(kwargs=given, frames={"": frame})
    return _with_decoder(spec, dict(given), frame)


def _media_name(spec: ModelSpec, given: Mapping[str, Any]) -> str:
    """Name the input that holds pictures or sound; some classes name another."""
    main = str(getattr(spec.module, "main_input_name", "input_ids"))
    return next((name for name in (main, *_MEDIA) if name in given), main)


def _media_frame(spec: ModelSpec, source: Tensor, mask: Tensor | None) -> Frame:
    """Find what can be told of positions that are made of pictures or sound."""
    machinery: Machinery = spec.engine
    name = "encoder" if spec.is_encoder_decoder else ""
    stack = machinery.stack(name)
    batch = 1 if stack.packed else source.shape[0]
    if mask is None or bool(mask.all()):
        return Frame(batch=batch, n_pos=0)
    if not stack.counts_frames:
        return Frame(batch=batch, n_pos=0, is_ragged=True)
    n_pos, *stops = frame_counts(spec.module, (mask.shape[1], *_ints(mask.sum(1))))
    return Frame(batch=batch, n_pos=n_pos, starts=(0,) * batch, stops=tuple(stops))


def _check_media(name: str, source: Tensor) -> None:
    """Refuse pictures or sound without rows, or of whole numbers.

    Raises:
        InputError: They are.
    """
    if source.ndim < 2 or 0 in source.shape:  # noqa: PLR2004 -- rows, and what is in one
        raise InputError(
            f"`{name}` has shape {tuple(source.shape)}",
            "rows first, and something in each",
            "Add the batch axis with `[None]`",
        )
    if not source.is_floating_point():
        raise InputError(
            f"`{name}` is {source.dtype}",
            "floating-point numbers",
            "Pass what the processor returns",
        )


def _check_padding(spec: ModelSpec, frame: Frame) -> None:
    """Refuse padding that HuggingFace's own model does not leave out."""
    machinery: Machinery = spec.engine
    if frame.starts is None:
        return
    maskless = machinery.maskless
    if maskless:
        raise InputError(
            f"rows are padded, and {maskless}",
            "rows of one length",
            "Run rows of other lengths apart",
        )
    unpadded = machinery.unpadded
    if unpadded and any(frame.starts):
        raise InputError(
            f"rows are padded on the left, and {unpadded}",
            "padding on the right, or none",
            "Use `to_tokens(..., padding_side='right')`",
        )


def _check_transforms(spec: ModelSpec) -> None:
    """Refuse transforms that the family's own code cannot pass."""
    refused: Mapping[str, str] = spec.engine.arch.no_func
    for name in active_transforms() if refused else ():
        if name in refused:
            raise InputError(
                f"{name} is active, and {refused[name]}",
                "a run outside that transform",
                f"Loop over runs; {spec.model_type} cannot do better",
            )


def compiled_kwargs(
    spec: ModelSpec, inputs: Inputs, attention_mask: Tensor | None
) -> Mapping[str, Any]:
    """Make keyword arguments while `torch.compile` looks on: no mask is inferred.

    Raises:
        InputError: The inputs are text, which cannot be compiled.
    """
    if isinstance(inputs, Tensor):
        given: dict[str, Any] = {"input_ids": inputs}
    elif isinstance(inputs, Mapping):
        given = dict(inputs)
    else:
        raise InputError("text cannot be compiled", "tokens", "Use `to_tokens` outside")
    if attention_mask is not None:
        given["attention_mask"] = attention_mask
    mask: object = given.get("attention_mask")
    if isinstance(mask, Tensor):
        _place_positions(spec, given, mask)
    return given


def as_mapping(spec: ModelSpec, inputs: Inputs) -> dict[str, Any]:
    match inputs:
        case Tensor():
            return {"input_ids": inputs.to(spec.device)}
        case Mapping():
            return {
                name: value.to(spec.device) if isinstance(value, Tensor) else value
                for name, value in inputs.items()
            }
        case _:
            return encode(spec, inputs).inputs


def _check_tokens(spec: ModelSpec, source: Tensor, *, inputs_embeds: bool) -> None:
    expected_axes = 3 if inputs_embeds or spec.engine.arch.channels else 2
    if source.ndim != expected_axes or 0 in source.shape:
        raise InputError(
            f"the input has shape {tuple(source.shape)}",
            "[batch, pos], none of them 0",
            "Add the batch axis with `tokens[None]`",
        )
    if not inputs_embeds and (source.is_floating_point() or source.dtype == torch.bool):
        raise InputError(
            f"the tokens are {source.dtype}", "integers", "Use `funlens.to_tokens`"
        )
    rows = spec.engine.rows
    if source.shape[0] % rows:
        raise InputError(
            f"there are {source.shape[0]} rows of ids",
            f"a multiple of {rows}, one for each codebook",
            "Put the codebooks of an example below each other",
        )
    if spec.n_ctx is not None and source.shape[1] > spec.n_ctx:
        raise InputError(
            f"the input has {source.shape[1]} positions",
            f"at most {spec.n_ctx}",
            "Shorten it, or load the model with `n_ctx=`",
        )


def _check_ids(spec: ModelSpec, tokens: Tensor) -> None:
    """Refuse ids that the embedding has no row for, where looking costs nothing."""
    is_plain = type(tokens) is Tensor and tokens.device.type == "cpu"
    if not is_plain or is_functional() or not spec.d_vocab:
        return
    low, high = (int(bound) for bound in tokens.aminmax())
    if low < 0 or high >= spec.d_vocab:
        raise InputError(
            f"the tokens reach from {low} to {high}",
            f"ids in 0..{spec.d_vocab - 1}",
            "Use the tokenizer that belongs to this model",
        )


@cache
def _known_names(structure: tuple[type[nn.Module], ...]) -> frozenset[str]:
    """Name every keyword that some part of a model takes."""
    parameters = (inspect.signature(part.forward).parameters for part in structure)
    return frozenset(name for each in parameters for name in each)


def _check_names(spec: ModelSpec, given: Mapping[str, Any]) -> None:
    """Refuse what no part of the model takes: HuggingFace would pass over it."""
    module = spec.module
    for name in _NOT_TAKEN.keys() & given.keys():
        raise InputError(
            f"the inputs hold {name!r}",
            "tokens, masks and positions of one whole forward",
            _NOT_TAKEN[name],
        )
    unknown = [name for name in given if not accepts(module, name)]
    if not unknown:
        return
    known = _known_names(tuple({type(part): None for part in module.modules()}))
    for name in unknown:
        if name not in known and not _means_nothing(name, given[name]):
            raise InputError(
                f"{spec.model_type} takes no input {name!r}",
                f"names such as {', '.join(nearest(name, known))}",
                "Leave it out, or correct the name",
            )


def _check_refused(spec: ModelSpec, given: Mapping[str, Any]) -> None:
    """Refuse inputs beside which the model draws from the global generator."""
    refuses: Mapping[str, str] = spec.engine.arch.refuses
    for name, why in refuses.items():
        if given.get(name) is not None:
            raise InputError(
                f"`{name}` is among the inputs, and {why}",
                "inputs without it",
                "Make the embeddings yourself, and pass `inputs_embeds`",
            )


def _means_nothing(name: str, value: object) -> bool:
    """Tell whether it is the one segment that tokenizers name for every model."""
    if name != "token_type_ids" or not isinstance(value, Tensor):
        return False
    return not bool(value.any())


def _inferred_mask(spec: ModelSpec, source: Tensor) -> Tensor | None:
    if spec.tokenizer is None or is_functional():
        return None
    return padding_mask(spec, source)


def _frame(source: Tensor, mask: Tensor | None) -> Frame:
    batch, n_pos = source.shape[:2]
    plain = Frame(batch=batch, n_pos=n_pos)
    if mask is None:
        return plain
    if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] != n_pos:  # noqa: PLR2004 -- batch and pos
        raise InputError(
            f"the attention mask has shape {tuple(mask.shape)}",
            f"[batch, pos] = [{batch}, {n_pos}]",
            "Use the mask that belongs to these tokens",
        )
    kept = mask.bool()
    if bool(kept.all()):
        return plain
    starts = _ints(kept.int().argmax(1))
    counts = _ints(kept.sum(1))
    stops = tuple(start + count for start, count in zip(starts, counts, strict=True))
    rows = torch.arange(n_pos, device=kept.device)
    first = torch.tensor(starts, device=kept.device)[:, None]
    last = torch.tensor(stops, device=kept.device)[:, None]
    if 0 in counts or not torch.equal(kept, (rows >= first) & (rows < last)):
        raise InputError(
            "the attention mask has a row without tokens, or a gap inside a row",
            "real tokens side by side in every row",
            "Move the padding to one side",
        )
    return Frame(batch=batch, n_pos=n_pos, starts=starts, stops=stops)


def _ints(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(number) for number in tensor.unbind())


def _place_positions(spec: ModelSpec, given: dict[str, Any], mask: Tensor) -> None:
    """Count positions from each row's first real token."""
    if spec.engine.stack("").counts_tokens:
        return
    if "position_ids" not in given and accepts(spec.module, "position_ids"):
        counted = mask.bool().long().cumsum(-1) - 1
        first = spec.engine.first_position
        given["position_ids"] = counted.clamp(min=0) + first


def _with_decoder(spec: ModelSpec, given: dict[str, Any], frame: Frame) -> Prepared:
    name = next((word for word in _DECODER if word in given), "decoder_input_ids")
    if name not in given:
        if spec.engine.shifts:
            main = Frame(batch=frame.batch, n_pos=frame.n_pos)
            return Prepared(kwargs=given, frames={"": main, "encoder": frame})
        start = getattr(spec.engine.config, "decoder_start_token_id", None)
        if start is None:
            raise InputError(
                "there are no `decoder_input_ids`, and the config names no start token",
                "both halves of the input",
                "Pass a mapping with `input_ids` and `decoder_input_ids`",
            )
        given[name] = torch.full((frame.batch, 1), start, device=spec.device)
    _check_tokens(spec, given[name], inputs_embeds=name.endswith("embeds"))
    main = _frame(given[name], given.get("decoder_attention_mask"))
    return Prepared(kwargs=given, frames={"": main, "encoder": frame})
