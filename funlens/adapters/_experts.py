"""One experts function for every family that asks transformers for one."""

from typing import Any, Final

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from funlens.adapters._active import ACTIVE, Active, Point, Seen

EXPERTS: Final = "funlens"
_FIXED: Final = "batched_mm"


class _Sum(TorchFunctionMode):
    """While experts run: what each chosen one adds, before the sum over them."""

    def __init__(self, active: Active, point: Point, module: nn.Module) -> None:
        super().__init__()
        self.active = active
        self.point = point
        self.seen = Seen(module, None)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Let the run look before the sum."""
        del types
        if func is Tensor.sum and args[0].ndim == 3:  # noqa: PLR2004 -- token choice width
            args = (self.active.act(self.point, args[0], self.seen), *args[1:])
        return func(*args, **(kwargs or {}))


def mix(
    module: nn.Module, hidden_states: Tensor, indices: Tensor, weights: Tensor
) -> Tensor:
    """Run a mixture's chosen experts, and let the run look at them.

    Args:
        module: The module that holds the experts.
        hidden_states: `[token, d_model]`.
        indices: Which experts each token goes to, `[token, choice]`.
        weights: What each chosen expert's output is multiplied by.
    """
    active = ACTIVE.get()
    path = module.__dict__.get("funlens_path", "")
    base = module.__dict__.get("funlens_experts", "eager")
    if active is None:
        return _mixed(base, module, hidden_states, indices, weights)
    seen = Seen(module, None)
    if active.wants((path, "choices")):
        indices = active.act((path, "choices"), indices, seen)
    if active.wants((path, "weights")):
        weights = active.act((path, "weights"), weights, seen)
    wanted = active.wants((path, "experts"))
    if active.forces_eager or (wanted and base == "eager"):
        base = _FIXED  # the grouped kernel has no forward derivative, the loop no sum
    if not wanted:
        return _mixed(base, module, hidden_states, indices, weights)
    with _Sum(active, (path, "experts"), module):
        return _mixed(base, module, hidden_states, indices, weights)


def _mixed(base: str, module: nn.Module, *args: Tensor) -> Tensor:
    from transformers.integrations import moe

    functions: Any = moe.ALL_EXPERTS_FUNCTIONS
    own: Any = type(module).forward
    mixed: Tensor = functions.get_interface(base, own.__wrapped__)(module, *args)
    return mixed


def register_experts() -> None:
    """Make the name `funlens` known to transformers; twice is once."""
    from transformers.integrations import moe

    functions: Any = moe.ALL_EXPERTS_FUNCTIONS
    functions.register(EXPERTS, mix)
