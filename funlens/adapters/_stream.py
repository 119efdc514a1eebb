"""What reads the stream and what writes to it: the matrices, as taps tell of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
from torch import Tensor, nn

from funlens.adapters._experts import (
    experts_at,
    matrix_name,
    mixture_of,
    stack_of,
)
from funlens.adapters._language import Experts
from funlens.adapters._machinery import Machinery
from funlens.adapters._taps import find
from funlens.data import ModelSpec, Site
from funlens.errors import UnsupportedConfigError

_ENTERED: Final[Mapping[str, str]] = {
    "attn_out": "z",
    "cross_out": "cross_z",
    "ssm_out": "ssm_post",
    "mlp_out": "mlp_post",
}
"""What is added to the stream, and what enters the projection that makes it."""


@attrs.frozen(kw_only=True)
class Matrix:
    """A parameter that maps an axis to another.

    Attributes:
        weight: HuggingFace's name of it.
        bias: HuggingFace's name of the bias; there need not be one.
        input_first: Whether it lies as `[input, output]`.
        takes_bias: Whether a bias can be given to it where there is none.
    """

    weight: str
    bias: str
    input_first: bool
    takes_bias: bool = False


@attrs.frozen(kw_only=True)
class StreamNorm:
    """A norm of the stream, and all that reads what it gives.

    Attributes:
        path: The norm.
        readers: What reads it.
    """

    path: str
    readers: tuple[Matrix, ...] = attrs.field(converter=tuple)


@attrs.frozen(kw_only=True)
class StreamWriter:
    """A matrix whose output is added to the stream.

    Attributes:
        site: What it adds.
        matrix: The matrix.
    """

    site: Site
    matrix: Matrix


def refusal(model_type: str, problem: str) -> UnsupportedConfigError:
    """Say why the weights of a model cannot be processed."""
    return UnsupportedConfigError(model_type, problem, "Use the weights as they are.")


def matrix_at(module: nn.Module, path: str, *, is_router: bool = False) -> Matrix:
    """Describe the matrix of a module.

    Args:
        module: The model.
        path: A linear map, an embedding, or a router.
        is_router: Whether it is a router: HuggingFace's have a class for each family,
            and all of them hold `[expert, d_model]`.

    Raises:
        UnsupportedConfigError: It is something else, quantized, or carries adapters.
    """
    at: Any = find(module, path)
    config: Any = module.config
    weight = getattr(at, "weight", None)
    if hasattr(at, "base_layer"):
        problem = f"{path} carries adapters"
        advice = "Merge them first, with `merge_and_unload()`."
        raise UnsupportedConfigError(config.model_type, problem, advice)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        problem = f"{path} holds no plain weight"
        advice = "Load the model without quantization to process weights."
        raise UnsupportedConfigError(config.model_type, problem, advice)
    input_first = isinstance(at, nn.Embedding) or type(at).__name__ == "Conv1D"
    if not (input_first or is_router or isinstance(at, nn.Linear)):
        problem = f"{path} is a {type(at).__name__}, which is no linear map"
        raise refusal(config.model_type, problem)
    return Matrix(
        weight=f"{path}.weight",
        bias=f"{path}.bias",
        input_first=input_first,
        takes_bias=isinstance(at, nn.Linear),
    )


def stream_norms(spec: ModelSpec) -> tuple[StreamNorm, ...]:
    """List the norms between the stream and what reads it.

    Norms that stand behind what reads, as of what attention returns, are not meant.

    Raises:
        UnsupportedConfigError: The stream itself is normalized, or the table does not
            tell all that reads a norm.
    """
    if spec.has_stream_norm:
        raise refusal(
            spec.model_type,
            "its norms stand on the stream itself, so what they give is added to",
        )
    machinery: Machinery = spec.engine
    return tuple(_norms(machinery))


def stream_writers(spec: ModelSpec) -> tuple[StreamWriter, ...]:
    """List the matrices whose output is added to the stream, embeddings included.

    Raises:
        UnsupportedConfigError: One of them is no matrix, or something stands between it
            and the stream.
    """
    machinery: Machinery = spec.engine
    return tuple(_writers(machinery))


def bare_readers(spec: ModelSpec) -> tuple[str, ...]:
    """Name what reads the stream without a norm before it."""
    machinery: Machinery = spec.engine
    stacks = dict.fromkeys(site.stack for site in machinery.taps if site.layer == 0)
    ends = (Site(part="ln_final_normalized", stack=stack) for stack in stacks)
    bare = [str(site) for site in machinery.taps if _is_bare(machinery, site)]
    bare += [f"what comes after {site}" for site in ends if site not in machinery.taps]
    return tuple(bare)


def _is_bare(machinery: Machinery, site: Site) -> bool:
    """Tell whether a site is the input of something, and no norm comes before it."""
    if site.layer is None:
        return False
    block = stack_of(machinery, site.stack).block
    first = attrs.evolve(site, part="ln1_normalized") in machinery.taps
    second = attrs.evolve(site, part="ln2_normalized") in machinery.taps
    match site.part:
        case "attn_in" | "ssm_in":
            return not first
        case "mlp_in":
            return not (second or (first and block.parallel))
        case "cross_q":
            return not block.ln_cross
        case _:
            return False


def _norms(machinery: Machinery) -> Iterator[StreamNorm]:
    for site in machinery.taps:
        if site.part == "resid_pre" and site.layer is not None:
            yield from _block_norms(machinery, site.layer, site.stack)
    stacks = dict.fromkeys(site.stack for site in machinery.taps)
    for stack in stacks:
        tap = machinery.taps.get(Site(part="ln_final_normalized", stack=stack))
        if tap is not None:
            readers = _final_readers(machinery, stack)
            yield _norm(machinery, tap.path, readers)


def _final_readers(machinery: Machinery, stack: str) -> list[Matrix]:
    if stack:
        return _at_sites(machinery, ("cross_k", "cross_v"), None, "")
    unembed = machinery.arch.unembed
    at = find(machinery.module, unembed) if unembed else None
    return [] if at is None else [matrix_at(machinery.module, unembed)]


def _block_norms(machinery: Machinery, layer: int, stack: str) -> Iterator[StreamNorm]:
    block = stack_of(machinery, stack).block
    path = f"{stack_of(machinery, stack).blocks}.{layer}"
    first = machinery.taps.get(Site(part="ln1_normalized", layer=layer, stack=stack))
    second = machinery.taps.get(Site(part="ln2_normalized", layer=layer, stack=stack))
    mixing = _at_sites(machinery, ("q", "k", "v", "ssm_proj"), layer, stack)
    feeding = _feeding(machinery, layer, stack)
    if first is not None:
        if not mixing:
            raise _undescribed(machinery, first.path)
        shares = second is None and block.parallel
        yield _norm(machinery, first.path, mixing + (feeding if shares else []))
    if block.ln_cross and find(machinery.module, f"{path}.{block.ln_cross}"):
        readers = _at_sites(machinery, ("cross_q",), layer, stack)
        yield _norm(machinery, f"{path}.{block.ln_cross}", readers)
    if second is not None:
        yield _norm(machinery, second.path, feeding)


def _norm(machinery: Machinery, path: str, readers: list[Matrix]) -> StreamNorm:
    if not readers:
        raise _undescribed(machinery, path)
    return StreamNorm(path=path, readers=readers)


def _undescribed(machinery: Machinery, path: str) -> UnsupportedConfigError:
    return refusal(
        machinery.config.model_type,
        f"its table does not tell what reads the norm {path}",
    )


def _at_sites(
    machinery: Machinery, parts: Iterable[str], layer: int | None, stack: str
) -> list[Matrix]:
    """Describe the modules that make some sites, each once; of all layers if None."""
    wanted = set(parts)
    paths = dict.fromkeys(
        tap.path
        for site, tap in machinery.taps.items()
        if site.part in wanted
        and site.stack == stack
        and (layer is None or site.layer == layer)
    )
    return [matrix_at(machinery.module, path) for path in paths]


def _feeding(machinery: Machinery, layer: int, stack: str) -> list[Matrix]:
    """Describe what reads the stream for the MLP of a layer."""
    words = mixture_of(machinery, layer, stack)
    if words is None:
        return _at_sites(machinery, ("mlp_pre", "mlp_gate"), layer, stack)
    path = f"{stack_of(machinery, stack).blocks}.{layer}"
    module = machinery.module
    router = matrix_at(module, f"{path}.{words.router}", is_router=True)
    experts = _stacked(machinery, words, path, "mlp_pre")
    beside = [] if words.shared is None else [words.shared.up, words.shared.gate]
    every = (f"{path}.{each}" for each in (*beside, words.shared_gate) if each)
    shared = [matrix_at(module, each) for each in every if find(module, each)]
    return [router, experts, *shared]


def _stacked(machinery: Machinery, words: Experts, path: str, part: str) -> Matrix:
    """Describe the weights of a mixture's experts, gate and up together."""
    experts = experts_at(machinery, words, path)
    name = f"{path}.{words.stacked}.{matrix_name(experts, part)}"
    return Matrix(weight=name, bias=f"{name}_bias", input_first=words.input_first)


def _writers(machinery: Machinery) -> Iterator[StreamWriter]:
    for site, tap in machinery.taps.items():
        if site.part in {"embed", "pos_embed"}:
            yield _writer(machinery, site, tap.path)
        if site.part not in _ENTERED or site.layer is None:
            continue
        _check_added(machinery, site)
        words = mixture_of(machinery, site.layer, site.stack)
        if site.part == "mlp_out" and words is not None:
            yield from _expert_writers(machinery, site, words)
        else:
            entered = attrs.evolve(site, part=_ENTERED[site.part])
            yield _writer(machinery, site, machinery.taps[entered].path)


def _writer(machinery: Machinery, site: Site, path: str) -> StreamWriter:
    return StreamWriter(site=site, matrix=matrix_at(machinery.module, path))


def _expert_writers(
    machinery: Machinery, site: Site, words: Experts
) -> Iterator[StreamWriter]:
    path = f"{stack_of(machinery, site.stack).blocks}.{site.layer}"
    experts = _stacked(machinery, words, path, "mlp_proj")
    yield StreamWriter(site=site, matrix=experts)
    if words.shared and find(machinery.module, f"{path}.{words.shared.down}"):
        yield _writer(machinery, site, f"{path}.{words.shared.down}")


def _check_added(machinery: Machinery, site: Site) -> None:
    """Refuse a norm between a projection and the stream."""
    stack = stack_of(machinery, site.stack)
    behind = {"attn_out": stack.block.ln1_post, "mlp_out": stack.block.ln2_post}
    word = behind.get(site.part, "")
    path = f"{stack.blocks}.{site.layer}.{word}"
    if word and find(machinery.module, path) is not None:
        raise refusal(
            machinery.config.model_type,
            f"the norm {path} stands between what writes and the stream",
        )
