"""The language of adapters: how one family spells what every transformer has.

A table says what a family does not share with the common spelling (`_spelling.py`):
paths below a block or below the model's body, and the few facts that paths do not
tell, such as how a fused projection is laid out or which config field multiplies the
stream. A path is one name or several alternatives; the first that is there counts, and
a path that is not there is left out. A path that begins with `/` starts at the block
where it would start at the part otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
from torch import nn

from funlens.adapters._spelling import (
    BLOCKS,
    DOWN,
    EXPERTS,
    GATE,
    GATE_UP,
    KEY,
    LN_FINAL,
    OUT,
    QUERY,
    ROUTER,
    SHARED,
    UP,
    VALUE,
)

Path: TypeAlias = str | tuple[str, ...]
Layout: TypeAlias = Literal["bpd", "pbd", "bdp"]
"""Axes of a tensor: `b` rows, `p` positions, `d` widths."""
Place: TypeAlias = tuple[Literal["in", "out"], Path]
"""What enters or leaves a module."""


@attrs.frozen(kw_only=True)
class Fused:
    """Queries, keys and values in one projection.

    Attributes:
        path: The projection, below the attention.
        by_group: Whether heads come group by group (`q.. k v` for each key-value
            head), rather than all queries, all keys, all values.
        groups: How many groups there are, where that is not the key-value heads.
        order: Order of the three; of two, where queries have one of their own.
    """

    path: Path
    by_group: bool = False
    groups: int = 0
    order: Literal["qkv", "qvk", "kv"] = "qkv"


@attrs.frozen(kw_only=True)
class Attention:
    """Attention of a block, over itself or over an encoder.

    Attributes:
        path: The attention module.
        q: Query projection, below it.
        k: Key projection.
        v: Value projection.
        fused: The three in one, instead.
        kv: Keys and values in one, keys first for each head, as latent attention has.
        q_latent: What the queries are made from, where that is narrower.
        kv_latent: What keys and values are made from, likewise.
        needs: What tells this alternative from others, below it.
        o: Output projection.
        z: Module whose input the mixed heads are; the output projection if empty.
        added: Module whose output the block adds; the attention module if empty.
        multiplier: As for a block, of this part alone.
        has_rotary: Whether queries and keys are rotated.
        asks_by_name: Whether it looks at the name of the attention function, so that
            another function changes what it does.
        gated_query: Whether the query projection also gives a gate, behind each head.
        sink: What lets rows of the pattern sum to less than one: a parameter of the
            attention module that adds a column to the scores, where it is not None.
        lossy: Why rows of the pattern sum to less than one otherwise.
        changes: What happens to queries, keys or values between projection and mixing,
            so that `z == pattern @ v` does not hold; empty where nothing does.
        changed_in_place: Whether the family changes its projections in place.
        pattern_changes: Whether the family changes its pattern in place.
        layout: Order of rows, positions and widths in what the projections give, if it
            is another than in what they are given.
        out_layout: The same of what enters and leaves the output projection.
        again: Whether the projections are used again, for what is no token of the
            stack; the first use counts.
        times: How many times as many heads are mixed as attend.
        merged: Whether the encoder's keys and values stand behind its own ones.
        repeats_keys: Whether keys are repeated for each query head before rotation.
        given: The input without which it does not run.
        more_keys: What stands behind the positions' own keys, where something does.
        hidden: Sites that cannot be met on this family, and why.
    """

    path: Path
    q: Path = QUERY
    k: Path = KEY
    v: Path = VALUE
    fused: Fused | None = None
    kv: Path = ""
    q_latent: Path = ""
    kv_latent: Path = ""
    needs: Path = ""
    o: Path = OUT
    z: Path = ""
    added: Path = ""
    multiplier: str | float = ""
    has_rotary: bool = True
    asks_by_name: bool = False
    gated_query: bool = False
    sink: str = ""
    lossy: str = ""
    changes: str = ""
    changed_in_place: bool = False
    pattern_changes: bool = False
    layout: Layout | None = None
    out_layout: Layout | None = None
    again: bool = False
    times: int = 1
    merged: bool = False
    repeats_keys: bool = False
    given: str = ""
    more_keys: str = ""
    hidden: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Mlp:
    """A dense feed-forward part.

    Attributes:
        path: The module; empty where a block holds its layers itself.
        up: First projection, below it.
        gate: Projection that goes through the activation, where there are two.
        gate_up: Both in one, instead.
        gate_first: Whether the gate is the first half of both.
        down: Last projection.
        added: Module whose output the block adds; the MLP itself if empty.
        multiplier: As for a block, of this part alone.
        changed_in_place: Whether the family later adds to that output in place.
        hidden: Sites that cannot be met on this family, and why.
    """

    path: Path = ""
    up: Path = UP
    gate: Path = GATE
    gate_up: Path = GATE_UP
    gate_first: bool = True
    down: Path = DOWN
    added: Path = ""
    multiplier: str | float = ""
    changed_in_place: bool = False
    hidden: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Experts:
    """A mixture of experts.

    Attributes:
        path: The module.
        router: Its router, below it, whose first projection gives the logits.
        experts: The experts, which transformers' experts interface runs.
        shared: What every token passes beside them.
        shared_changes: Whether the family later adds to that output in place.
        added: Module whose output the block adds; the mixture itself if empty.
    """

    path: Path
    router: Path = ROUTER
    experts: Path = EXPERTS
    shared: Path = SHARED
    shared_changes: bool = False
    added: Path = ""


@attrs.frozen(kw_only=True)
class Step:
    """Where one step of a mixer lies, by heads, in what enters or leaves a module.

    Attributes:
        side: Whether it enters or leaves.
        path: The module, below the mixer.
        slot: Which of the equal parts of each head it is.
        slots: How many there are.
    """

    side: Literal["in", "out"]
    path: Path
    slot: int = 0
    slots: int = 1


@attrs.frozen(kw_only=True)
class Gate:
    """The projection that gives a mixer's gate, where no norm is given that.

    Attributes:
        path: The projection, below the mixer.
        slot: Which multiple of the gate's width it starts at.
        multiplier: Config field whose first number multiplies it.
    """

    path: Path
    slot: int = 0
    multiplier: str = ""


@attrs.frozen(kw_only=True)
class Mixer:
    """What mixes positions by a recurrence or a convolution.

    Attributes:
        path: The module.
        o: Its output projection, below it; empty where it has none.
        needs: What tells this alternative from others, below it.
        parts: Inner sites, and where each is met.
        gate: What gives its gate.
        heads: Config field of the number of its heads; each channel is one if empty.
        steps: Steps that are what a module is given or gives; others are met in the
            functions that the mixer calls.
        added: Module whose output the block adds; the mixer itself if empty.
        multiplier: As for a block, of this part alone.
        hidden: Sites that cannot be met on this family, and why.
    """

    path: Path
    o: Path = OUT
    needs: Path = ""
    parts: Mapping[str, Place] = attrs.field(factory=dict[str, Place])
    gate: Gate | None = None
    heads: str = ""
    steps: Mapping[str, Step] = attrs.field(factory=dict[str, Step])
    added: Path = ""
    multiplier: str | float = ""
    hidden: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Block:
    """One layer. Of alternatives the first whose module is there counts.

    Attributes:
        needs: What tells this kind of layer from the stack's others.
        given: The input without which it does not run.
        start: Where the stream enters, if that is not the block's input.
        end: Where it leaves, if that is not the block's output.
        macaron: A feed-forward part before attention, beside the one after it.
        ln1: Norm before attention.
        attention: Self-attention.
        mixer: A recurrence or convolution, instead of attention or beside it.
        ln1_post: Norm of what attention returns, before it is added.
        ln_cross: Norm before the attention over an encoder's output.
        cross: Attention over an encoder's output.
        mid: Where the stream between attention and MLP is, if that is not the input
            of `ln2`.
        cross_mid: Module that it leaves instead, where a block also attends to an
            encoder.
        ln2: Norm before the MLP.
        mlp: The MLP or the mixture.
        beside: A dense MLP beside a mixture or another, whose output is added as well.
        ln2_post: Norm of what the MLP returns, before it is added.
        parallel: Whether attention and MLP read the same stream.
        stream_norm: Whether norms stand on the stream itself, as in BERT.
        multiplier: Config field or number that multiplies what is added.
        can_skip: Whether blocks pass nothing but the residual to each other.
        streams: How a block passes several streams on, where it does: their axis is
            `"inner"` before the last, `"flat"` in the last, or comes `"first"`, or
            others stand `"behind"` the main one's positions. Then nothing is added to
            one residual stream.
        reads: What a block depends on beside the stream that enters it.
        stream_changes: Whether the model changes the stream in place afterwards.
        unjoined: Why what leaves a block is not what enters the next.
        unsummed: Why what a block adds is not the difference of its streams.
        hidden: Sites that cannot be met on this family, and why.
    """

    needs: Path = ""
    given: str = ""
    start: Place | None = None
    end: Place | None = None
    macaron: tuple[Mlp, ...] = ()
    ln1: Path = ""
    attention: tuple[Attention, ...] = ()
    mixer: tuple[Mixer, ...] = ()
    ln1_post: Path = ""
    ln_cross: Path = ""
    cross: tuple[Attention, ...] = ()
    mid: Place | None = None
    cross_mid: Path = ""
    ln2: Path = ""
    mlp: tuple[Mlp | Experts, ...] = ()
    beside: tuple[Mlp, ...] = ()
    ln2_post: Path = ""
    parallel: bool = False
    stream_norm: bool = False
    multiplier: str | float = ""
    can_skip: bool = True
    streams: Literal["", "inner", "flat", "first", "behind"] = ""
    reads: str = ""
    stream_changes: bool = False
    unjoined: str = ""
    unsummed: str = ""
    hidden: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Rounds:
    """Lists of blocks that run several times in one forward: one layer each time.

    Attributes:
        lists: The lists, below the model's body.
        order: Which of them each round runs, from the config.
        between: Why what leaves a round is not what enters the next.
    """

    lists: tuple[str, ...]
    order: Callable[[Any], Sequence[int]]
    between: str


@attrs.frozen(kw_only=True)
class Stack:
    """Blocks in a row.

    Attributes:
        blocks: The list of blocks, below the model's body; a `*` within a path stands
            for every child whose name fits.
        block: What a block looks like, or its kinds; the first counts whose needs are
            there.
        halves: Layers that stand within one block of HuggingFace's, in order, where
            those are several.
        scattered: Whether blocks are no modules: the list of blocks tells how many
            they are, paths start at the body, and `{layer}` stands for a layer's
            number and `{before}` for that of the one before.
        rounds: How blocks run, where they run several times.
        embed: Module whose output is the token embedding, as it enters the sum; the
            model's own input embedding if empty.
        embed_multiplier: Config field that multiplies the embedding afterwards.
        embed_changes: Whether the model changes the embedding in place afterwards.
        pos_embed: Learned positions.
        ln_final: Norm after the last block.
        counts_tokens: Whether the model itself finds each token's position, from what
            is not padding, so that padded rows need no help.
        unjoined: Why a block may begin with something else than the one before gave.
        layout: Order of rows, positions and widths in what its blocks pass on.
        embed_layout: Their order in its embeddings.
        overhangs: Whether the model adds positions behind the tokens', which no site
            shows.
        config: Field of the config that describes this stack, where there are several.
        same_positions: Whether its positions are the main stack's.
        given: The input without which it does not run.
        ln_final_changes: Whether the model changes what that norm gives in place.
        sized_by: A norm below each block that tells its width, where blocks differ.
        counts_frames: Whether HuggingFace's model tells how many positions so many
            samples of sound make.
        shrinks: Why a block gives fewer positions than it is given.
        squeezes: Whether it has fewer positions than what the model returns.
        per_token: Whether it has as many positions for each of the main stack's.
        otherwise: The stack that counts where this one is not there.
        packed: What stands behind each other in its one row, where rows are not apart.
        sizes: Fields of its config that are not called as usual.
        read_at: Field of the whole config that tells which of the states between its
            blocks are read, the first being what enters it; the last if empty.
    """

    blocks: Path = BLOCKS
    block: Block | tuple[Block, ...] = ()
    halves: tuple[Block, ...] = ()
    scattered: bool = False
    rounds: Rounds | None = None
    embed: Path = ""
    embed_multiplier: str = ""
    embed_changes: bool = False
    pos_embed: Path = ""
    counts_tokens: bool = False
    ln_final: Path = LN_FINAL
    unjoined: str = ""
    layout: Layout = "bpd"
    embed_layout: Layout = "bpd"
    overhangs: bool = False
    config: str = ""
    same_positions: bool = False
    given: str = ""
    ln_final_changes: bool = False
    sized_by: str = ""
    counts_frames: bool = False
    shrinks: str = ""
    squeezes: bool = False
    per_token: bool = False
    otherwise: "Stack | None" = None
    packed: str = ""
    sizes: Mapping[str, str] = attrs.field(factory=dict[str, str])
    read_at: str = ""

    @property
    def kinds(self) -> tuple[Block, ...]:
        """The kinds of blocks; what concerns all of them stands in the first."""
        if isinstance(self.block, Block):
            return (self.block,)
        return self.block or self.halves


@attrs.frozen
class Front:
    """What a model puts in front of the positions it is given.

    It is left out of every site, so that position 0 is the first token's.

    Attributes:
        what: What that is.
        given: The input without which nothing stands there; empty where it always does.
    """

    what: str
    given: str = ""


@attrs.frozen(kw_only=True)
class Architecture:
    """How one family spells its sites and weights.

    Attributes:
        model_types: HuggingFace's names of it.
        when: Values of config fields under which this table is the right one; None
            for one that is not set.
        main: The main stack: of two, the decoder.
        others: The stacks beside it: an encoder, a vision or audio tower.
        body: Path of the model's body, where HuggingFace's `base_model` is not it.
        unembed: Module that maps the stream to logits, where HuggingFace's
            `get_output_embeddings` does not tell.
        is_causal: Whether positions see only earlier ones, or the config field that
            tells.
        looks_ahead: Why some positions of a causal model see later ones, beside
            pictures.
        biased_masks: Whether attention masks depend on activations or weights, which
            SDPA's kernel cannot differentiate.
        refusal: Says why a module that the table describes cannot be used; nothing
            where it can.
        mixes_rows: Why a row of HuggingFace's own model depends on the others.
        no_func: Transforms of `torch.func` (`Vmap`, `Grad`, `Jvp`) that HuggingFace's
            own code cannot pass, and why.
        shifts: Whether HuggingFace's model makes the decoder's inputs from the
            encoder's where none are given.
        front: What the model puts in front of the positions it is given.
        codebooks: Config field that tells how many rows of ids are one row.
        channels: Config field that tells how many ids stand at one position.
        refuses: Inputs that it cannot be given here, and why.
        keeps_cache: Whether it computes other bits without its cache, so that runs
            have one too.
        maskless: Why HuggingFace's own model cannot be told what is padding.
        counts_by: Config field by which HuggingFace's own model counts positions
            otherwise wherever there is a mask, whether or not anything is padded. It is
            maskless only where its config lacks the field.
        unpadded: Why rows padded on the left are wrong in HuggingFace's own model.
        sees_padding: Why real positions are a little different beside padding, as
            HuggingFace's own are.
        refit: What is done to the private copy before anything else, so that each
            layer is a module of its own, and is called.
        row_padding: Why a classifier of rows reads another position where a row is
            padded, as HuggingFace's own does.
        unread: Why a classifier of rows reads no queries, keys and values of the last
            layer.
        uncached: Why HuggingFace's model gives other logits with its cache on, which
            runs have off.
        first_position: The number from which positions are counted, or the config
            field of the number after which they are.
        sizes: Config fields that are not called as usual.
        plain: Classes of modules with an autograd function of their own, which
            `torch.func` cannot pass, and the function of the same modelling file that
            computes the same values.
        verified: Version of transformers that it was last verified with. On another
            one, a module that lacks what the table names is refused.
    """

    model_types: tuple[str, ...]
    when: Mapping[str, object] = attrs.field(factory=dict[str, object])
    main: Stack
    others: Mapping[str, Stack] = attrs.field(factory=dict[str, Stack])
    body: str = ""
    unembed: Path = ""
    is_causal: bool | str = True
    looks_ahead: str = ""
    biased_masks: bool = False
    refusal: Callable[[nn.Module], str] | None = None
    mixes_rows: str = ""
    no_func: Mapping[str, str] = attrs.field(factory=dict[str, str])
    shifts: bool = False
    front: Front | None = None
    codebooks: str = ""
    channels: str = ""
    refuses: Mapping[str, str] = attrs.field(factory=dict[str, str])
    keeps_cache: bool = False
    maskless: str = ""
    counts_by: str = ""
    unpadded: str = ""
    sees_padding: str = ""
    refit: Callable[[nn.Module], None] | None = None
    row_padding: str = ""
    unread: str = ""
    uncached: str = ""
    first_position: str | int = 0
    sizes: Mapping[str, str] = attrs.field(factory=dict[str, str])
    plain: Mapping[str, str] = attrs.field(factory=dict[str, str])
    verified: str = ""


@attrs.frozen(kw_only=True)
class Around:
    """A model around a language model, whose table is that of the language model.

    Attributes:
        model_types: HuggingFace's names of it.
        language: Where the language model is, below HuggingFace's `base_model`.
        config: Field of the config that describes it, and names its table.
        others: The stacks beside it; their paths start at HuggingFace's `base_model`.
        stack: Words of its stack that differ.
        block: Words that every kind of block has here and not there.
        words: Other words of the table that differ.
    """

    model_types: tuple[str, ...]
    language: Path = "language_model"
    config: str = "text_config"
    others: Mapping[str, Stack] = attrs.field(factory=dict[str, Stack])
    stack: Mapping[str, object] = attrs.field(factory=dict[str, object])
    block: Mapping[str, object] = attrs.field(factory=dict[str, object])
    words: Mapping[str, object] = attrs.field(factory=dict[str, object])
