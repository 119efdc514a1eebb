"""Loading: from a name to a spec."""

import os
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
import torch
from torch import nn

from funlens.adapters._language import Architecture
from funlens.adapters._registry import from_module
from funlens.adapters._retry import RETRY_VARIABLE, causes, is_rate_limited, retrying
from funlens.adapters._toy import register_toys
from funlens.adapters._toy_tables import TOY_TYPE
from funlens.builtin import BUILTIN_MODELS, folder
from funlens.data import BosPolicy, ModelSpec
from funlens.errors import (
    FunlensError,
    GatedModelError,
    LoadError,
    OptionError,
    UnsupportedArchitectureError,
    nearest,
)

MPS_VARIABLE: Final = "FUNLENS_ALLOW_MPS"
_BUILTIN: Final = "builtin:"

_HUB_OPTIONS: Final = frozenset(
    {"cache_dir", "force_download", "local_files_only", "proxies", "subfolder", "token"}
)
_MODEL_OPTIONS: Final = frozenset(
    {
        "adapter_kwargs",
        "adapter_name",
        "allow_all_kernels",
        "disable_mmap",
        "distributed_config",
        "experts_implementation",
        "fusion_config",
        "generation_config",
        "ignore_mismatched_sizes",
        "kernel_config",
        "key_mapping",
        "max_memory",
        "offload_buffers",
        "offload_folder",
        "tqdm_class",
        "use_kernels",
        "variant",
    }
)
_OWN_OPTIONS: Final = (
    "adapter",
    "attn_implementation",
    "bos",
    "device",
    "device_map",
    "dtype",
    "load_weights",
    "n_ctx",
    "quantization_config",
    "revision",
    "seed",
    "tokenizer",
    "trust_remote_code",
)
_REFUSED: Final[Mapping[str, str]] = {
    "config": "give the fields to change by name, such as `sliding_window=128`",
    "gguf_file": "GGUF files are not read; load the safetensors checkpoint",
    "output_loading_info": "missing weights are always an error",
    "state_dict": "load the module yourself and use `funlens.from_module`",
    "use_safetensors": "weights are read from safetensors only, never by pickle",
    "weights_only": "weights are read from safetensors only, never by pickle",
}
_CONTEXT_FIELDS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
)
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_AUTO_CLASSES: Final = (
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM",
)
_MOST_NAMED: Final = 4

Result = TypeVar("Result")


class ContextLengthWarning(UserWarning):
    """A model is to read more tokens than it was trained for."""


@attrs.frozen(kw_only=True, eq=False)
class _Request:
    """What was asked for, sorted by who is told about it."""

    name: str
    source: str
    dtype: torch.dtype | str | None
    device: torch.device | None
    device_map: Any
    quantization: Any
    attention: str | None
    trusts_code: bool
    hub: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def code(self) -> Mapping[str, Any]:
        """Keywords for the hub and about its code."""
        return {**self.hub, "trust_remote_code": self.trusts_code}


def load(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
    load_weights: bool = True,
    seed: int = 0,
    n_ctx: int | None = None,
    bos: BosPolicy = "tokenizer",
    adapter: Architecture | None = None,
    trust_remote_code: bool = False,
    tokenizer: Any = None,
    **from_pretrained_options: Any,
) -> ModelSpec:
    """Load a model and describe it.

    Weights are read from safetensors only. With `FUNLENS_HF_RETRY=1` in the
    environment, calls that the hub answers with HTTP 429 are repeated.

    Args:
        name: Hub id, local folder, or `"builtin:tiny"`, which needs no network.
        revision: Branch, tag or commit of the hub's repository.
        dtype: Of the weights; the checkpoint's own if left out.
        device: Where to; by default the first CUDA device if there is one, else the
            CPU. MPS is chosen or allowed with `FUNLENS_ALLOW_MPS=1` only.
        device_map: HuggingFace's map over several devices, in place of `device`.
        attn_implementation: HuggingFace's name of one; its own choice if left out.
        quantization_config: HuggingFace's.
        load_weights: Whether to read the weights; if not, they are drawn at random.
        seed: Fixes the weights that are drawn.
        n_ctx: Longest input, in place of the one it was trained with.
        bos: Who decides about a beginning-of-sequence token.
        adapter: A table of your own, in place of the known ones.
        trust_remote_code: Whether code from the repository may run.
        tokenizer: Another tokenizer, or the name of one; the model's own if left out.
        **from_pretrained_options: More keywords of `from_pretrained`, and fields of the
            model's config.

    Returns:
        The spec, in evaluation mode.

    Raises:
        LoadError: The files are not there, cannot be reached, or are damaged.
        GatedModelError: The hub wants an agreement first.
        OptionError: A keyword is unknown, or would have no effect.
        UnsupportedArchitectureError: No table describes it.
        UnsupportedConfigError: The table does not fit it.
    """
    if not load_weights:
        idle = {"device_map": device_map, "quantization_config": quantization_config}
        _refuse_without_weights(from_pretrained_options, idle)
    _check_device_map(device_map, device)
    request = _request(
        os.fspath(name),
        revision,
        from_pretrained_options,
        dtype=dtype,
        device=None if device_map is not None else _device(device),
        device_map=device_map,
        quantization=quantization_config,
        attention=attn_implementation,
        trusts_code=trust_remote_code,
    )
    config = _config(request)
    trained = _widened(config, n_ctx, request)
    model = _loaded(config, request) if load_weights else _drawn(config, request, seed)
    spec = from_module(
        model,
        _tokenizer(tokenizer, request),
        adapter=adapter,
        name=request.name,
        revision=revision,
        bos=bos,
    )
    if n_ctx is not None and trained is not None and n_ctx > trained:
        text = f"{request.name} reads {n_ctx} tokens, and was trained with {trained}"
        warnings.warn(text, ContextLengthWarning, stacklevel=2)
    return spec if n_ctx is None else attrs.evolve(spec, n_ctx=n_ctx)


def _request(
    name: str,
    revision: str | None,
    options: Mapping[str, Any],
    **known: Any,
) -> _Request:
    """Sort the options, and find out what the name means."""
    for option, reason in _REFUSED.items():
        if option in options:
            raise OptionError(option, f"it cannot be used here: {reason}")
    source = _source(name)
    if revision is not None and Path(source).is_dir():
        raise OptionError(
            option="revision", problem="a folder has no revisions, so it has no effect"
        )
    if name.startswith(_BUILTIN) and known["dtype"] is None:
        known["dtype"] = torch.float32  # the file holds float16, to be small
    hub = {word: options[word] for word in options if word in _HUB_OPTIONS}
    return _Request(
        name=name,
        source=source,
        hub=hub if revision is None else {**hub, "revision": revision},
        options={word: options[word] for word in options if word not in hub},
        **known,
    )


def _source(name: str) -> str:
    """Say where `from_pretrained` reads a name from."""
    if name.startswith(_BUILTIN):
        word = name.removeprefix(_BUILTIN)
        if word not in BUILTIN_MODELS:
            there = ", ".join(_BUILTIN + one for one in BUILTIN_MODELS)
            raise LoadError(
                name, "there is no such builtin model", f"There is: {there}"
            )
        return str(folder(word))
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise LoadError(name, "it is a file", "Give the folder that it lies in")
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LoadError(
            name,
            "there is no such folder, and it is no hub id",
            "Check the path, or write a hub id such as `openai-community/gpt2`",
        )
    return name


def _device(asked: torch.device | str | None) -> torch.device:
    """Choose a device; MPS only where the environment allows it."""
    allows_mps = os.environ.get(MPS_VARIABLE) == "1"
    if asked is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        has_mps = allows_mps and torch.backends.mps.is_available()
        return torch.device("mps" if has_mps else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        problem = f"{asked!r} is no device"
        raise OptionError(
            option="device", problem=problem, near=("cpu", "cuda", "cuda:1")
        ) from error
    if device.type == "mps" and not allows_mps:
        problem = f"MPS gives wrong numbers in places; set {MPS_VARIABLE}=1 to allow it"
        raise OptionError(option="device", problem=problem, near=("cpu", "cuda"))
    return device


def _check_device_map(asked: Any, device: torch.device | str | None) -> None:
    if asked is not None and device is not None:
        problem = "`device_map` says where already; give one of them"
        raise OptionError(option="device", problem=problem)
    targets: list[Any] = list(getattr(asked, "values", lambda: [asked])())
    if any(str(target).partition(":")[0] == "mps" for target in targets):
        _device("mps")


def _refuse_without_weights(
    options: Mapping[str, Any], named: Mapping[str, Any]
) -> None:
    idle = [option for option, value in named.items() if value is not None]
    idle += [option for option in options if option in _MODEL_OPTIONS]
    if idle:
        problem = "it has no effect with `load_weights=False`"
        raise OptionError(idle[0], problem)


def _config(request: _Request) -> Any:
    """Read the config, with the fields that were given by name."""
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    raw: Mapping[str, Any]
    raw, _ = _called(
        request,
        partial(PreTrainedConfig.get_config_dict, request.source, **request.hub),
    )
    model_type = str(raw.get("model_type", ""))
    if not model_type:
        raise LoadError(
            request.name,
            "it has no config.json that names a `model_type`",
            "Give a folder or repository made by `save_pretrained`",
        )
    if model_type == TOY_TYPE:
        register_toys()
    if model_type not in CONFIG_MAPPING and "auto_map" not in raw:
        near = nearest(model_type, CONFIG_MAPPING)
        raise UnsupportedArchitectureError(model_type, near)
    auto: Any = AutoConfig
    read = partial(auto.from_pretrained, request.source, **request.code)
    config: Any = _called(request, read)
    fields = {w: v for w, v in request.options.items() if w not in _MODEL_OPTIONS}
    _refuse_unknown(fields, config)
    return _called(request, partial(read, **fields)) if fields else config


def _refuse_unknown(fields: Mapping[str, Any], config: Any) -> None:
    own = {*config.to_dict(), *getattr(config, "attribute_map", {})}
    for field in fields:
        if field.startswith("_") or field not in own:
            every = (*_OWN_OPTIONS, *_HUB_OPTIONS, *_MODEL_OPTIONS, *sorted(own))
            problem = (
                "unknown to `load`, to `from_pretrained` and to this "
                f"{config.model_type} config"
            )
            raise OptionError(field, problem, nearest(field, every))


def _widened(config: Any, n_ctx: int | None, request: _Request) -> int | None:
    """Write a longer context into the config, and give the trained length."""
    text = config.get_text_config()
    field = next(
        (f for f in _CONTEXT_FIELDS if isinstance(getattr(text, f, None), int)), None
    )
    trained: int | None = getattr(text, field) if field else None
    if n_ctx is None:
        return trained
    if n_ctx < 1:
        raise OptionError(
            option="n_ctx", problem=f"{n_ctx} tokens; expected at least 1"
        )
    if field and trained is not None and n_ctx > trained:
        before = _parameter_shapes(config, request)
        setattr(text, field, n_ctx)
        if _parameter_shapes(config, request) != before:
            problem = (
                f"positions are learned, and there are {trained} of them; "
                f"{n_ctx} would need weights that nobody trained"
            )
            raise OptionError(option="n_ctx", problem=problem)
    return trained


def _parameter_shapes(config: Any, request: _Request) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = _built(config, request)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def _model_class(config: Any, request: _Request) -> Any:
    """Find the class: what the config names, else the kind of its language head."""
    import transformers
    from transformers.models.auto import modeling_auto

    remote: Mapping[str, Any] = getattr(config, "auto_map", None) or {}
    if request.trusts_code:
        for auto in _AUTO_CLASSES:
            if auto in remote:
                return getattr(transformers, auto)
    bodies: Mapping[str, Any] = {**modeling_auto.MODEL_MAPPING_NAMES}
    headless = _class_names(bodies)
    for name in getattr(config, "architectures", None) or ():
        has_own_head = name not in headless and not name.endswith("ForPreTraining")
        if has_own_head and hasattr(transformers, name):
            return getattr(transformers, name)
    return _head_class(config)


def _class_names(mapping: Mapping[str, Any]) -> set[str]:
    names: set[str] = set()
    for value in mapping.values():
        names |= {value} if isinstance(value, str) else set(value)
    return names


def _head_class(config: Any) -> Any:
    """Find the language head's class by the config's type."""
    import transformers

    causal, masked, seq2seq = (getattr(transformers, auto) for auto in _AUTO_CLASSES)
    order = [causal, seq2seq]
    if getattr(config, "is_encoder_decoder", False):
        order = [seq2seq, causal]
    order.insert(len(order) if getattr(config, "is_decoder", False) else 0, masked)
    order.append(transformers.AutoModel)
    for auto in order:
        mapping: Any = auto._model_mapping  # noqa: SLF001 -- transformers has no public way to ask
        if type(config) in mapping:
            return auto
    raise UnsupportedArchitectureError(str(config.model_type))


def _built(config: Any, request: _Request) -> nn.Module:
    """Build the module with whatever weights its class draws."""
    chosen = _model_class(config, request)
    words: dict[str, Any] = {}
    if request.attention is not None:
        words["attn_implementation"] = request.attention
    if request.dtype not in {None, "auto"}:
        words["dtype"] = request.dtype
    if hasattr(chosen, "from_config"):
        build = partial(chosen.from_config, trust_remote_code=request.trusts_code)
    else:
        build = chosen._from_config  # noqa: SLF001 -- the public form is of Auto classes only
    with _translated(request):
        model: nn.Module = build(config, **words)
    return model


def _drawn(config: Any, request: _Request, seed: int) -> nn.Module:
    """Draw the weights on the CPU, so that they are the same on every device."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = _built(config, request)
    return _moved(model.eval(), request)


def _loaded(config: Any, request: _Request) -> nn.Module:
    """Read the weights; none may be missing."""
    chosen = _model_class(config, request)
    words: dict[str, Any] = {
        **{w: v for w, v in request.options.items() if w in _MODEL_OPTIONS},
        **request.hub,
        "config": config,
        "dtype": "auto" if request.dtype is None else request.dtype,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    given = {
        "attn_implementation": request.attention,
        "device_map": _placement(config, request),
        "quantization_config": request.quantization,
        "trust_remote_code": request.trusts_code or None,
    }
    words |= {word: value for word, value in given.items() if value is not None}
    with torch.random.fork_rng(devices=[]):  # missing weights would be drawn
        model, info = _called(
            request, partial(chosen.from_pretrained, request.source, **words)
        )
    _refuse_missing(info, request)
    return model.eval() if "device_map" in words else _moved(model.eval(), request)


def _placement(config: Any, request: _Request) -> Any:
    """Give HuggingFace's map: quantized weights cannot be moved afterwards."""
    own = getattr(config, "quantization_config", None)
    is_quantized = request.quantization is not None or own is not None
    if request.device_map is None and is_quantized:
        return {"": request.device}
    return request.device_map


def _refuse_missing(info: Mapping[str, Any], request: _Request) -> None:
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        more = ", …" if len(missing) > _MOST_NAMED else ""
        raise LoadError(
            request.name,
            f"{len(missing)} weights are not in the checkpoint "
            f"({', '.join(missing[:_MOST_NAMED])}{more}) and would be random",
            "Use a checkpoint of the whole model, language head included",
        )


def _moved(model: nn.Module, request: _Request) -> nn.Module:
    """Put the module on its device."""
    with _translated(request):
        return model.to(request.device)


def _tokenizer(asked: Any, request: _Request) -> Any:
    """Load the tokenizer, if the repository has one."""
    from transformers import AutoTokenizer

    if asked is not None and not isinstance(asked, str | Path):
        return asked
    if asked is None and not _has_tokenizer(request):
        return None
    words = (
        request.code if asked is None else {"trust_remote_code": request.trusts_code}
    )
    source = request.source if asked is None else str(asked)
    auto: Any = AutoTokenizer
    return _called(request, partial(auto.from_pretrained, source, **words))


def _has_tokenizer(request: _Request) -> bool:
    from transformers.utils import hub

    find = cast("Callable[..., str | None]", hub.cached_file)
    return any(
        _called(
            request,
            partial(
                find,
                request.source,
                file,
                _raise_exceptions_for_missing_entries=False,
                **request.hub,
            ),
        )
        for file in _TOKENIZER_FILES
    )


def _called(request: _Request, function: Callable[[], Result]) -> Result:
    """Call transformers: again after HTTP 429, and with its errors made ours."""
    with _translated(request):
        return retrying(function)


@contextmanager
def _translated(request: _Request) -> Generator[None]:
    try:
        yield
    except FunlensError:
        raise
    except Exception as error:
        raise _load_error(request, error) from error


def _load_error(request: _Request, error: Exception) -> LoadError:
    """Say in our words what went wrong."""
    name = request.name
    if _is_a(error, "GatedRepoError"):
        return GatedModelError(
            name,
            "its authors ask for an agreement first",
            f"Agree at https://huggingface.co/{request.source}, and set HF_TOKEN to a "
            "token of the account that agreed",
        )
    if is_rate_limited(error):
        advice = f"Wait, set {RETRY_VARIABLE}=1 to retry, or set HF_TOKEN"
        return LoadError(name, "the hub was asked too often (HTTP 429)", advice)
    for kind, problem, advice in _REASONS:
        if _is_a(error, kind):
            return LoadError(name, problem, advice)
    for words, problem, advice in _SAYINGS:
        if words in str(error):
            return LoadError(name, problem, advice)
    first = str(error).strip().partition("\n")[0].rstrip(". ")
    return LoadError(
        name,
        f"{type(error).__name__}: {first}",
        "The error above this one, from transformers, tells more",
    )


def _is_a(error: BaseException, kind: str) -> bool:
    """Tell whether an error, or what caused it, is of a class with this name."""
    return any(
        kind in {base.__name__ for base in type(cause).__mro__}
        for cause in causes(error)
    )


_REASONS: Final = (
    (
        "RevisionNotFoundError",
        "the repository has no such revision",
        "Look at its branches and tags on the model page",
    ),
    (
        "RepositoryNotFoundError",
        "the hub has no such repository, or it is private",
        "Check the spelling, or set HF_TOKEN for a private one",
    ),
    (
        "LocalEntryNotFoundError",
        "it is not in the local cache, and the hub cannot be reached",
        "Check the name and the connection, or give a local folder",
    ),
    (
        "OfflineModeIsEnabled",
        "HF_HUB_OFFLINE is set, and it is not in the local cache",
        "Unset HF_HUB_OFFLINE, or give a local folder",
    ),
    (
        "ConnectError",
        "the hub cannot be reached",
        "Check the connection, or give a local folder",
    ),
    (
        "SafetensorError",
        "its weights file is damaged or truncated",
        "Copy or download it again (`force_download=True`)",
    ),
    (
        "JSONDecodeError",
        "one of its JSON files is not valid JSON",
        "Copy or download it again (`force_download=True`)",
    ),
    (
        "StrictDataclassError",
        "its config.json has a field of a wrong type or value",
        "Correct the config; the error above this one names the field",
    ),
    (
        "HFValidationError",
        "it is neither a folder nor a hub id",
        "Write a hub id such as `openai-community/gpt2`",
    ),
)
"""Names of others' error classes, with what to say; the first that fits counts."""

_SAYINGS: Final = (
    (
        "model.safetensors",
        "it holds no safetensors weights, and nothing is loaded by pickle",
        "Convert it with `save_pretrained`, or use `load_weights=False`",
    ),
    (
        "ignore_mismatched_sizes",
        "weights in the checkpoint have other shapes than the config says",
        "Use the config that belongs to the checkpoint",
    ),
    (
        "trust_remote_code",
        "it wants to run code from its repository",
        "Read that code, and pass `trust_remote_code=True` if you trust it",
    ),
    (
        "not a valid JSON file",
        "its config.json is not valid JSON",
        "Copy or download it again",
    ),
    (
        "backend tokenizer",
        "its tokenizer cannot be built",
        "Install sentencepiece or tiktoken, or pass `tokenizer=`",
    ),
)
"""Words in others' messages, where a class does not tell."""
