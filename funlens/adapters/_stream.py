"""What reads the stream and what writes to it: the matrices, as taps tell of them.

Of the stacks those are meant that a run on tokens goes through; an image or audio tower
stays as it is.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
from torch import Tensor, nn

from funlens.adapters._binder import blocks_of, kind_of
from funlens.adapters._collectives import is_part
from funlens.adapters._expert_weights import experts_of, matrix_name
from funlens.adapters._language import Block
from funlens.adapters._machinery import Machinery
from funlens.adapters._spelling import DOWN, GATE, GATE_UP, SHARED_GATE, UP
from funlens.adapters._tree import features, find, first, joined
from funlens.data import ModelSpec, Site
from funlens.errors import UnsupportedConfigError

_STACKS: Final = ("", "encoder")
_PROJECTIONS: Final[Mapping[str, str]] = {
    "attn_out": "attn_proj",
    "cross_out": "cross_z",
    "ssm_out": "ssm_post",
    "mlp_out": "mlp_proj",
}
"""What is added to the stream, and the site that tells the projection that makes it."""
_MIXING: Final = ("q", "k", "v", "ssm_proj")
_BESIDE: Final = ("shared_out", "dense_out")
_READERS: Final = (
    *(*_MIXING, "cross_q", "cross_k", "cross_v"),
    *("mlp_pre", "mlp_gate", "router_logits"),
)


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


def _is_plain(weight: Tensor) -> bool:
    """Tell whether a weight holds numbers itself, of no quantizer's class."""
    return weight.is_floating_point() and type(weight) in {Tensor, nn.Parameter}


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
    if isinstance(weight, Tensor) and is_part(weight):
        problem = f"{path} is split among processes"
        advice = "Load the model in one process to process weights."
        raise UnsupportedConfigError(config.model_type, problem, advice)
    if isinstance(weight, Tensor) and not _is_plain(weight):
        problem = f"{path} holds no plain weight"
        advice = "Load the model without quantization to process weights."
        raise UnsupportedConfigError(config.model_type, problem, advice)
    input_first = isinstance(at, nn.Embedding) or type(at).__name__ == "Conv1D"
    is_known = input_first or is_router or isinstance(at, nn.Linear)
    if not (is_known and isinstance(weight, Tensor)):
        problem = f"{path} is a {type(at).__name__}, which is no linear map"
        raise refusal(config.model_type, problem)
    return Matrix(
        weight=f"{path}.weight",
        bias=f"{path}.bias",
        input_first=input_first,
        takes_bias=isinstance(at, nn.Linear),
    )


def processed(spec: ModelSpec, part: str) -> tuple[Site, ...]:
    """List the sites of a part, in the stacks that processing is about."""
    machinery: Machinery = spec.engine
    every = (site for site in machinery.taps if site.part == part)
    return tuple(site for site in every if site.stack in _STACKS)


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
    return tuple(_norms(spec))


def stream_writers(spec: ModelSpec) -> tuple[StreamWriter, ...]:
    """List the matrices whose output is added to the stream, embeddings included.

    Raises:
        UnsupportedConfigError: One of them is no matrix, or something stands between it
            and the stream.
    """
    machinery: Machinery = spec.engine
    sites = (site for site in machinery.taps if site.stack in _STACKS)
    return tuple(
        StreamWriter(site=site, matrix=matrix)
        for site in sites
        for matrix in _writing(machinery, site)
    )


def bare_readers(spec: ModelSpec) -> tuple[str, ...]:
    """Name what reads the stream without a norm before it."""
    machinery: Machinery = spec.engine
    bare = [str(s) for s in machinery.taps if s.stack in _STACKS and _is_bare(spec, s)]
    starts = [site for site in processed(spec, "resid_pre") if site.layer == 0]
    ends = (Site(part="ln_final_normalized", stack=site.stack) for site in starts)
    bare += [f"what comes after {site}" for site in ends if site not in machinery.taps]
    return tuple(bare)


def _is_bare(spec: ModelSpec, site: Site) -> bool:
    """Tell whether a site is the input of something, and no norm comes before it."""
    machinery: Machinery = spec.engine
    if site.layer is None:
        return False
    norms = [
        attrs.evolve(site, part=f"{word}_normalized") in machinery.taps
        for word in ("ln1", "ln2")
    ]
    match site.part:
        case "attn_in" | "ssm_in":
            return not norms[0]
        case "mlp_in":
            return not (norms[1] or (norms[0] and _shares_norm(machinery, site)))
        case "cross_q":
            return not _cross_norm(machinery, site)
        case _:
            return False


def _block(machinery: Machinery, site: Site) -> tuple[str, Block]:
    """Give the path of a site's block, and what the table says of it."""
    stack = machinery.arch.others.get(site.stack, machinery.arch.main)
    layer = site.layer or 0
    path = blocks_of(machinery.binder, stack)[layer]
    return path, kind_of(machinery.binder, stack, path, layer)


def _shares_norm(machinery: Machinery, site: Site) -> bool:
    """Tell whether the MLP reads the block's first norm: beside attention or alone."""
    parts = (attrs.evolve(site, part=part) for part in ("attn_in", "ssm_in"))
    alone = not any(part in machinery.taps for part in parts)
    return alone or _block(machinery, site)[1].parallel


def _cross_norm(machinery: Machinery, site: Site) -> str:
    """Give the path of the norm before the attention over an encoder's output."""
    if attrs.evolve(site, part="cross_q") not in machinery.taps:
        return ""
    path, block = _block(machinery, site)
    return machinery.binder.at(block.ln_cross, path)


def _norms(spec: ModelSpec) -> Iterator[StreamNorm]:
    machinery: Machinery = spec.engine
    for site in processed(spec, "resid_pre"):
        yield from _block_norms(machinery, site)
        _check_all_told(machinery, site)
    for site in processed(spec, "ln_final_normalized"):
        path = machinery.taps[site].path
        yield _norm(machinery, path, _final_readers(spec, site.stack))


def _final_readers(spec: ModelSpec, stack: str) -> list[Matrix]:
    machinery: Machinery = spec.engine
    if not stack:
        unembed = machinery.unembed
        return [matrix_at(machinery.module, unembed)] if unembed else []
    sites = (*processed(spec, "cross_k"), *processed(spec, "cross_v"))
    return _made_by(machinery, sites)


def _block_norms(machinery: Machinery, site: Site) -> Iterator[StreamNorm]:
    one, two = (
        machinery.taps.get(attrs.evolve(site, part=f"{word}_normalized"))
        for word in ("ln1", "ln2")
    )
    mixing = _at_parts(machinery, _MIXING, site)
    feeding = _feeding(machinery, site)
    if one is not None:
        shares = two is None and _shares_norm(machinery, site)
        yield _norm(machinery, one.path, mixing + (feeding if shares else []))
    cross = _cross_norm(machinery, site)
    if cross:
        yield _norm(machinery, cross, _at_parts(machinery, ("cross_q",), site))
    if two is not None:
        yield _norm(machinery, two.path, feeding)


def _norm(machinery: Machinery, path: str, readers: list[Matrix]) -> StreamNorm:
    if not readers:
        raise refusal(
            machinery.config.model_type,
            f"its table does not tell what reads the norm {path}",
        )
    return StreamNorm(path=path, readers=readers)


def _check_all_told(machinery: Machinery, site: Site) -> None:
    """Refuse where a block holds a projection of the stream that nobody tells of."""
    block, _ = _block(machinery, site)
    parts = (*_READERS, *_PROJECTIONS.values())
    told = {_path_at(machinery, part, site) for part in parts}
    beside = _beside(machinery, site)
    told.update(path for each in beside for path in (*_entries(machinery, each), each))
    told.update(first(machinery.module, DOWN, each) for each in beside)
    held: Any = find(machinery.module, block)
    paths: list[str] = [joined(block, name) for name, _ in held.named_modules()]
    for path in paths:
        if path not in told and _takes_stream(machinery, path):
            raise refusal(
                machinery.config.model_type,
                f"its table does not tell what {path} does, which may read the stream",
            )


def _takes_stream(machinery: Machinery, path: str) -> bool:
    """Tell whether a module is a linear map of as many numbers as the stream has."""
    at = find(machinery.module, path)
    is_linear = isinstance(at, nn.Linear) or type(at).__name__ == "Conv1D"
    return is_linear and features(at)[0] == machinery.binder.width


def _path_at(machinery: Machinery, part: str, site: Site) -> str:
    """Give the path of a site's neighbor in its layer; empty if it is not there."""
    tap = machinery.taps.get(attrs.evolve(site, part=part))
    return "" if tap is None else tap.path


def _at_parts(machinery: Machinery, parts: Iterable[str], site: Site) -> list[Matrix]:
    """Describe what makes some parts of a site's layer."""
    return _made_by(machinery, (attrs.evolve(site, part=part) for part in parts))


def _made_by(machinery: Machinery, sites: Iterable[Site]) -> list[Matrix]:
    """Describe the modules that make some sites, each once."""
    taps = machinery.taps
    paths = dict.fromkeys(taps[site].path for site in sites if site in taps)
    return [matrix_at(machinery.module, path) for path in paths]


def _feeding(machinery: Machinery, site: Site) -> list[Matrix]:
    """Describe what reads the stream for the MLP of a layer."""
    found = _at_parts(machinery, ("mlp_pre", "mlp_gate"), site)
    module = machinery.module
    router = _path_at(machinery, "router_logits", site)
    if router:
        found.append(matrix_at(module, router, is_router=True))
    experts = experts_of(machinery, site.layer or 0, site.stack)
    if experts:
        found.append(_stacked(machinery, experts, "mlp_pre"))
    for path in _beside(machinery, site):
        found += [matrix_at(module, each) for each in _entries(machinery, path)]
    return found


def _beside(machinery: Machinery, site: Site) -> tuple[str, ...]:
    """List what every token passes beside the experts, and the gate of it."""
    mixture = _path_at(machinery, "mlp_in", site)
    gate = first(machinery.module, SHARED_GATE, mixture) if mixture else ""
    found = (*(_path_at(machinery, part, site) for part in _BESIDE), gate)
    return tuple(path for path in found if path)


def _entries(machinery: Machinery, path: str) -> tuple[str, ...]:
    """List the projections that an MLP begins with, in the common spelling."""
    module = machinery.module
    if isinstance(find(module, path), nn.Linear):
        return (path,)
    apart = (first(module, words, path) for words in (UP, GATE))
    found = tuple(each for each in apart if each)
    both = first(module, GATE_UP, path)
    return found or ((both,) if both else ())


def _stacked(machinery: Machinery, path: str, part: str) -> Matrix:
    """Describe the weights of a mixture's experts, gate and up together."""
    experts: Any = find(machinery.module, path)
    name = f"{path}.{matrix_name(experts, part)}"
    return Matrix(weight=name, bias=f"{name}_bias", input_first=experts.is_transposed)


def _writing(machinery: Machinery, site: Site) -> Iterator[Matrix]:
    """Describe the matrices that make what a site adds to the stream."""
    added = machinery.taps[site].path
    if site.part in {"embed", "pos_embed"}:
        yield matrix_at(machinery.module, added)
    elif site.part in _BESIDE:
        yield _projection(machinery, first(machinery.module, DOWN, added), site)
    elif site.part in _PROJECTIONS:
        experts = ""
        if site.part == "mlp_out":
            experts = experts_of(machinery, site.layer or 0, site.stack)
        if experts:
            _check_added(machinery, experts, site)
            yield _stacked(machinery, experts, "mlp_proj")
        else:
            path = _path_at(machinery, _PROJECTIONS[site.part], site)
            yield _projection(machinery, path, site)


def _projection(machinery: Machinery, path: str, site: Site) -> Matrix:
    if not path:
        problem = f"its table does not tell what makes {site}"
        raise refusal(machinery.config.model_type, problem)
    _check_added(machinery, path, site)
    return matrix_at(machinery.module, path)


def _check_added(machinery: Machinery, path: str, site: Site) -> None:
    """Refuse what stands between a projection and the stream, as a norm does."""
    added = machinery.taps[site].path
    inner = getattr(find(machinery.module, path), "has_post_expert_norm", False)
    if inner or not f"{path}.".startswith(f"{added}."):
        between = f"a norm in {path}" if inner else added
        raise refusal(
            machinery.config.model_type,
            f"{between} stands between what writes and the stream",
        )
