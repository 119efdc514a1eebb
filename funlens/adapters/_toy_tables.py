"""The tables of toy transformers: one for each mix of what a toy may have or lack."""

from itertools import product
from typing import Final

from funlens.adapters._language import Architecture, Attention, Block, Mlp, Stack

TOY_TYPE: Final = "funlens_toy"

_CHOICES: Final[tuple[str, ...]] = ("has_rotary", "has_mlp", "is_parallel", "is_causal")


def _block(*, has_rotary: bool, has_mlp: bool, is_parallel: bool) -> Block:
    return Block(
        ln1="ln1",
        attention=(Attention(path="attn", has_rotary=has_rotary),),
        mid=("out", "mid") if has_mlp and not is_parallel else None,
        ln2="ln2",
        mlp=(Mlp(path="mlp", gate="gate", up="up", down="down"),),
        parallel=is_parallel,
    )


def _toy(values: tuple[bool, ...]) -> Architecture:
    chosen: dict[str, bool] = dict(zip(_CHOICES, values, strict=True))
    return Architecture(
        model_types=(TOY_TYPE,),
        when={**chosen},
        main=Stack(
            block=_block(
                has_rotary=chosen["has_rotary"],
                has_mlp=chosen["has_mlp"],
                is_parallel=chosen["is_parallel"],
            ),
            pos_embed="pos_embed",
            ln_final="ln_final",
        ),
        unembed="unembed",
        is_causal=chosen["is_causal"],
    )


TOYS: Final = tuple(
    _toy(values) for values in product((False, True), repeat=len(_CHOICES))
)
