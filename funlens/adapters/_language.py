"""The language of adapters: how one family spells what every transformer has.

A table names module paths below a block (or below the model) and the few facts that
paths do not tell: how a fused projection is laid out, whether blocks are parallel,
which config field multiplies the stream. A path that a block does not have is left
out; of several alternatives the first that is there counts.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

NormKind: TypeAlias = Literal["layer", "rms"]


@attrs.frozen(kw_only=True)
class Fused:
    """Queries, keys and values in one projection.

    Attributes:
        path: The projection.
        by_group: Whether heads come group by group (`q.. k v` for each key-value
            head), rather than all queries, all keys, all values.
    """

    path: str
    by_group: bool = False


@attrs.frozen(kw_only=True)
class Attention:
    """Self-attention of a block.

    Attributes:
        path: The attention module.
        q: Query projection, below the block.
        k: Key projection.
        v: Value projection.
        fused: The three in one, instead.
        o: Output projection.
        added: Module whose output the block adds; the attention module if empty.
        has_rotary: Whether queries and keys are rotated.
        has_interface: Whether it calls transformers' attention interface; the others
            are built eager when scores or pattern are wanted.
        sink: Whether rows of the pattern sum to less than one.
        changed_in_place: Whether the family clamps its projections in place.
        repeats_keys: Whether keys are repeated for each query head before rotation.
    """

    path: str
    q: str = ""
    k: str = ""
    v: str = ""
    fused: Fused | None = None
    o: str
    added: str = ""
    has_rotary: bool = True
    has_interface: bool = True
    sink: bool = False
    changed_in_place: bool = False
    repeats_keys: bool = False


@attrs.frozen(kw_only=True)
class Mlp:
    """A dense feed-forward part.

    Attributes:
        path: The module; empty where a block holds its layers itself.
        up: First projection.
        gate: Projection that goes through the activation, where there are two.
        gate_up: Both in one, gate first, instead.
        down: Last projection.
        added: Module whose output the block adds; the MLP itself if empty.
        changed_in_place: Whether the family later adds to that output in place.
    """

    path: str = ""
    up: str = ""
    gate: str = ""
    gate_up: str = ""
    down: str
    added: str = ""
    changed_in_place: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules that must be there for the table to be about this layer."""
        return tuple(path for path in (self.up, self.gate, self.down) if path)


@attrs.frozen(kw_only=True)
class Experts:
    """A mixture of experts.

    The stacked weights have HuggingFace's names: `gate_up_proj`, or `up_proj` where
    there is no gate, `down_proj`, and the same with `_bias` behind.

    Attributes:
        path: The module.
        router: Its router, which returns logits, weights and indices.
        stacked: Module that holds the experts' weights, one tensor for all of them.
        input_first: Whether those lie as `[expert, input, output]`, rather than
            `[expert, output, input]`.
        interleaved: Whether columns of gate and up alternate, rather than all of the
            gate's coming first.
        shared: Dense MLP that every token passes beside the experts it is sent to.
        shared_gate: Projection that says how much of it is added.
    """

    path: str
    router: str
    stacked: str = ""
    input_first: bool = False
    interleaved: bool = False
    shared: Mlp | None = None
    shared_gate: str = ""


@attrs.frozen(kw_only=True)
class StateSpace:
    """A state-space mixer (Mamba)."""

    path: str
    projection: str
    parameters: str = ""
    o: str


@attrs.frozen(kw_only=True)
class Block:
    """One layer.

    Attributes:
        ln1: Norm before attention.
        attention: Self-attention, if the layer has it.
        ln1_post: Norm of what attention returns, before it is added.
        ln_cross: Norm before the attention over an encoder's output.
        cross: Attention over an encoder's output.
        mid: Module that the stream between attention and MLP enters or leaves, as
            `("in", path)` or `("out", path)`, where it is not the input of `ln2`.
        ln2: Norm before the MLP.
        mlp: Alternatives for the MLP; the first whose paths exist counts.
        ln2_post: Norm of what the MLP returns, before it is added.
        mixer: A state-space mixer.
        parallel: Whether attention and MLP read the same stream.
        stream_norm: Whether norms stand on the stream itself, as in BERT.
        multiplier: Config field that multiplies what is added.
        extras: How many values a block returns after the residual.
        can_skip: Whether blocks pass nothing but the residual to each other.
    """

    ln1: str = ""
    attention: Attention | None = None
    ln1_post: str = ""
    ln_cross: str = ""
    cross: Attention | None = None
    mid: tuple[Literal["in", "out"], str] | None = None
    ln2: str = ""
    mlp: tuple[Mlp | Experts, ...] = ()
    ln2_post: str = ""
    mixer: StateSpace | None = None
    parallel: bool = False
    stream_norm: bool = False
    multiplier: str = ""
    extras: int = 0
    can_skip: bool = True


@attrs.frozen(kw_only=True)
class Stack:
    """Blocks in a row.

    Attributes:
        blocks: The list of blocks.
        block: What a block looks like.
        embed: Module whose output is the token embedding, as it enters the sum; of
            alternatives the first that is there.
        embed_multiplier: Config field that multiplies the embedding afterwards.
        pos_embed: Learned positions.
        ln_final: Norm after the last block.
    """

    blocks: str
    block: Block
    embed: str | tuple[str, ...] = ""
    embed_multiplier: str = ""
    pos_embed: str = ""
    ln_final: str = ""

    @property
    def embeds(self) -> tuple[str, ...]:
        """The alternatives for the embedding."""
        return (self.embed,) if isinstance(self.embed, str) else self.embed


@attrs.frozen(kw_only=True)
class Architecture:
    """How one family spells its sites and weights.

    Attributes:
        model_types: HuggingFace's names of it.
        when: Values of config fields under which this table is the right one.
        main: The main stack: of two, the decoder.
        encoder: The stack beside it.
        unembed: Module that maps the stream to logits.
        norm: Kind of its norms.
        is_causal: Whether positions see only earlier ones.
        sizes: Config fields that are not called as usual.
    """

    model_types: tuple[str, ...]
    when: Mapping[str, object] = attrs.field(factory=dict[str, object])
    main: Stack
    encoder: Stack | None = None
    unembed: str = "lm_head"
    norm: NormKind = "rms"
    is_causal: bool = True
    sizes: Mapping[str, str] = attrs.field(factory=dict[str, str])
