"""Views: how a site's value lies in the tensor that the model passes on.

`read` takes the value out, `write` gives a new tensor with another value in it. Where
the value did not change, `write` gives back the bits that were there.
"""

from itertools import chain
from typing import Final, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._collectives import Layout, gathered, parted, summed, with_sum
from funlens.adapters._matrices import acting_bias, acting_weight, stored_input_first
from funlens.adapters._offload import execution_device


def _split(tensor: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    """Unfold one axis; torch leaves the method untyped."""
    split: Tensor = torch.unflatten(tensor, axis, sizes)
    return split


def _heads(flat: Tensor, batch: int, n_heads: int) -> Tensor:
    """Split the last axis into heads."""
    return _split(WHOLE.read(flat, batch), -1, (n_heads, -1))


def unless_same(same: Tensor, raw: Tensor, new: Tensor) -> Tensor:
    """Give the bits of `raw` where nothing changed, with the derivative of `new`."""
    return torch.where(same, raw.detach() + (new - new.detach()), new)


@attrs.frozen
class Whole:
    """The tensor itself; rows are unfolded where a family runs them flat."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Unfold `[batch * pos, width]`."""
        return _split(raw, 0, (batch, -1)) if raw.ndim == 2 else raw  # noqa: PLR2004 -- rows and width

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Fold back."""
        return value.reshape(raw.shape) if value.shape != raw.shape else value


@attrs.frozen
class AsIs:
    """The tensor itself, whatever its axes."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Give it."""
        del batch
        return raw

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Give the other."""
        del raw
        return value


@attrs.frozen
class Tokens:
    """All rows' tokens on one axis, which comes first."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Unfold it into rows and positions."""
        return _split(raw, 0, (batch, -1))

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Fold back."""
        return value.reshape(raw.shape)


@attrs.frozen
class Heads:
    """Heads next to each other on the last axis, or on the last two in groups."""

    n_heads: int

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Split the last axis."""
        flat = raw.flatten(-2) if raw.ndim == 4 else raw  # noqa: PLR2004 -- batch pos group width
        return _heads(flat, batch, self.n_heads)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Join the last two axes."""
        return WHOLE.write(raw, value.flatten(-2))


@attrs.frozen
class HeadPart:
    """A part of each head's columns, of heads next to each other on the last axis."""

    n_heads: int
    start: int
    stop: int

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Split the last axis and cut each head."""
        flat = raw.squeeze(1) if raw.ndim == 4 else raw  # noqa: PLR2004 -- a latent, as one head
        return _heads(flat, batch, self.n_heads)[..., self.start : self.stop]

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the part back between the others."""
        split = _split(raw, -1, (self.n_heads, -1))
        inner = value.reshape(*split.shape[:-1], self.stop - self.start)
        before, after = split[..., : self.start], split[..., self.stop :]
        return torch.cat([before, inner, after], dim=-1).flatten(-2)


@attrs.frozen
class Slots:
    """Some of the slots of a fused projection: `groups` times `slots` heads.

    Attributes:
        groups: How often the sequence of slots comes.
        slots: Heads in one sequence.
        start: First slot that is meant.
        stop: Slot after the last.
    """

    groups: int
    slots: int
    start: int
    stop: int

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Cut the slots out, as one axis of heads."""
        whole = WHOLE.read(raw, batch)
        split = _split(whole, -1, (self.groups, self.slots, -1))
        return split[..., self.start : self.stop, :].flatten(-3, -2)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the slots back between the others."""
        split = _split(raw, -1, (self.groups, self.slots, -1))
        inner = value.reshape(*split.shape[:-2], self.stop - self.start, -1)
        before, after = split[..., : self.start, :], split[..., self.stop :, :]
        return torch.cat([before, inner, after], dim=-2).flatten(-3)


@attrs.frozen
class Rows:
    """Positions, or heads of positions, one after the other on all axes but the last.

    Attributes:
        width: Width of a position.
    """

    width: int

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Put what belongs to one position on the last axis."""
        return raw.reshape(batch, -1, self.width)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Fold back."""
        return value.reshape(raw.shape)


@attrs.frozen
class Columns:
    """Some columns of the last axis, which the model then multiplies by a constant."""

    start: int
    stop: int
    factor: float = 1.0

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Cut the columns out, and multiply as the model will."""
        cut = WHOLE.read(raw, batch)[..., self.start : self.stop]
        return cut if self.factor == 1.0 else cut * self.factor

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the columns back between the others, divided where they changed."""
        inner = value.reshape(*raw.shape[:-1], self.stop - self.start)
        if self.factor != 1.0:
            cut = raw[..., self.start : self.stop]
            inner = unless_same(inner == cut * self.factor, cut, inner / self.factor)
        before, after = raw[..., : self.start], raw[..., self.stop :]
        return torch.cat([before, inner, after], dim=-1)


@attrs.frozen
class Half:
    """The first or the second half of the last axis."""

    second: bool

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Cut the half out."""
        return WHOLE.read(raw, batch).chunk(2, dim=-1)[self.second]

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the half back beside the other."""
        other = raw.chunk(2, dim=-1)[not self.second]
        value = value.reshape(other.shape)
        both = (other, value) if self.second else (value, other)
        return torch.cat(both, dim=-1)


@attrs.frozen
class Swapped:
    """Heads before positions, as attention functions take them.

    Attributes:
        repeats: How often each head stands there.
    """

    repeats: int = 1

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Put positions first."""
        del batch
        return raw.transpose(1, 2)[:, :, :: self.repeats]

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put heads first."""
        del raw
        every = value  # a copy of other strides would take SDPA to other bits
        if self.repeats > 1:
            every = value.repeat_interleave(self.repeats, 2)
        return every.transpose(1, 2)


@attrs.frozen
class StreamsBehind:
    """Several streams, whose positions stand one stream behind the other."""

    n_streams: int

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Put the streams behind the positions."""
        del batch
        return _split(raw, 1, (self.n_streams, -1)).transpose(1, 2)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the positions of each stream behind those of another."""
        del raw
        return value.transpose(1, 2).flatten(1, 2)


@attrs.frozen
class StreamsFirst:
    """Several streams, whose axis comes before the rows."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Put the streams behind the positions."""
        del batch
        return raw.movedim(0, 2)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the streams first."""
        del raw
        return value.movedim(2, 0)


@attrs.frozen
class Square:
    """Scores or a pattern; some families run all rows' heads on one axis."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Unfold rows and heads."""
        return _split(raw, 0, (batch, -1)) if raw.ndim == 3 else raw  # noqa: PLR2004 -- head query key

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Fold back."""
        return value.reshape(raw.shape) if value.shape != raw.shape else value


@attrs.frozen
class BeforeSink:
    """Attention without the last column, which belongs to no key."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Leave the sink out."""
        del batch
        return raw[..., :-1]

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Put the sink back."""
        return torch.cat([value, raw[..., -1:]], dim=-1)


@attrs.frozen
class Scaled:
    """What the model multiplies by a constant before it adds it."""

    factor: float

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Multiply, as the model will."""
        return WHOLE.read(raw, batch) * self.factor

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Divide, where the value changed."""
        whole = value.reshape(raw.shape)
        same = whole == raw * self.factor
        return unless_same(same, raw, whole / self.factor)


@attrs.frozen
class EveryRow:
    """Rows that the model makes once for the whole batch."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Repeat for each row."""
        return raw.expand(batch, *raw.shape[-2:])

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Keep each row's own."""
        del raw
        return value


@attrs.frozen
class Parted:
    """A tensor that several processes hold parts of.

    Attributes:
        inner: How the value lies in the whole of it.
        layout: Which part a process holds.
    """

    inner: "View"
    layout: Layout

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Join the parts of all processes."""
        return self.inner.read(gathered(raw, self.layout), batch)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Take this process's part of the whole with the value in it."""
        joined = self.inner.write(gathered(raw, self.layout), value)
        return parted(joined, self.layout)


@attrs.frozen
class PartOfSum:
    """A tensor that the model will sum over several processes.

    Attributes:
        inner: How the value lies in the sum.
        layout: The processes.
    """

    inner: "View"
    layout: Layout

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Sum over all processes."""
        return self.inner.read(summed(raw, self.layout.group), batch)

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Let the parts sum to the value."""
        group = self.layout.group
        whole = self.inner.write(summed(raw, group), value)
        return with_sum(raw, whole, group)


View: TypeAlias = (
    Whole
    | AsIs
    | Tokens
    | Heads
    | HeadPart
    | Slots
    | Rows
    | Columns
    | Half
    | Swapped
    | StreamsFirst
    | StreamsBehind
    | Square
    | BeforeSink
    | Scaled
    | EveryRow
    | Parted
    | PartOfSum
)

WHOLE: Final = Whole()
AS_IS: Final = AsIs()


def in_whole(view: View) -> View:
    """Give the view of a tensor that a process has whole, as weights are read."""
    return view.inner if isinstance(view, Parted | PartOfSum) else view


def norm_scale(norm: nn.Module, entered: Tensor, *, centered: bool) -> Tensor:
    """Compute what a norm divides by: `[..., 1]`, from what enters it.

    Args:
        norm: The norm, for its epsilon.
        entered: What enters it.
        centered: Whether it subtracts the mean (layer norm, not RMS norm).
    """
    eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", 1e-5))
    wide = entered.float() if entered.dtype.itemsize < 4 else entered  # noqa: PLR2004 -- bytes of float32
    if centered:  # a single `var` is several times slower on CPU
        wide = wide - wide.mean(-1, keepdim=True)
    mean_square = wide.square().mean(-1, keepdim=True)
    return (mean_square + float(eps)).sqrt().to(entered.dtype)


@torch.no_grad()
def is_centered(norm: nn.Module, width: int) -> bool:
    """Tell whether a norm subtracts the mean: whether adding 1 changes nothing.

    A norm on no device is taken for one that does.
    """
    held = next(chain(norm.parameters(), norm.buffers()), None)
    device = execution_device(norm)  # its weight may be away between forwards
    if device is None and held is not None and held.is_meta:
        return True
    weight = getattr(norm, "weight", None)
    size = weight.shape[-1] if isinstance(weight, Tensor) and weight.ndim else width
    like = torch.empty(0) if held is None else held
    dtype = like.dtype if like.is_floating_point() else torch.float32
    device = device or like.device
    probe = torch.linspace(-1.0, 1.0, size, dtype=dtype, device=device)[None, None]
    one, other = norm(probe), norm(probe + 1.0)
    return bool((one - other).abs().max() < 0.1 * one.abs().max())


def with_scale(
    norm: nn.Module, normalized: Tensor, scale: Tensor, other: Tensor
) -> Tensor:
    """Give a norm's output as if it had divided by another scale."""
    bias = acting_bias(norm)  # it may be away again
    shift = torch.zeros_like(scale) if bias is None else bias
    rescaled = (normalized - shift) * (scale / other) + shift
    return unless_same(other == scale, normalized, rescaled)


def head_results(projection: nn.Module, z: Tensor) -> Tensor:
    """Give what each head adds: `z` times its rows of the output projection.

    Args:
        projection: The output projection.
        z: `[batch, pos, head, d_head]`.

    Returns:
        `[batch, pos, head, d_model]`; summed over heads, with the bias, it is the
        projection's output.
    """
    weight = input_by_output(projection)
    per_head = _split(weight, 0, (z.shape[-2], z.shape[-1]))
    return torch.einsum("bphd,hdm->bphm", z, per_head)


def input_by_output(projection: nn.Module) -> Tensor:
    """Give a projection's weight as `[input, output]`, whichever way it is stored.

    HuggingFace's Conv1D stores it so; `nn.Linear` stores the transpose, and a
    convolution of width 1 the transpose with one axis more. LoRA layers give the weight
    they act with, quantized ones theirs dequantized where that is it.

    Raises:
        UnsupportedConfigError: The module acts with no one matrix.
    """
    weight = acting_weight(projection)
    return weight if stored_input_first(projection) else weight.mT
