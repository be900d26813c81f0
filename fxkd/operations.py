"""Operations as points: ``layer1.0:add`` is what the torch function ``add`` gives in the forward of ``layer1.0``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, autograd, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fxkd.patcher import patched

MARK = ":"
PROPERTIES = ("__get__", "__set__", "__delete__")
OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and", "or", "xor", "lshift", "rshift"),
)
See = Callable[[nn.Module, str, Any], None]


def split_operation(path: str) -> tuple[str, str]:
    """Split the path of an operation into the module's and the operation's name; a module's own path has no name.

    >>> split_operation("layer1.0:add"), split_operation("layer1.0"), split_operation(":add")
    (('layer1.0', 'add'), ('layer1.0', ''), ('', 'add'))
    """
    module, _, name = path.partition(MARK)
    return module, name


def operation_name(function: Any) -> str:
    """Give the name of a torch function as a point: that of the function or method, operators by theirs.

    In-place ones end in ``_``. What only reads or sets an attribute of a tensor has none.

    >>> import operator, torch
    >>> [operation_name(one) for one in (torch.add, Tensor.__radd__, Tensor.__iadd__, Tensor.relu_, Tensor.__getitem__)]
    ['add', 'add', 'add_', 'relu_', 'getitem']
    """
    name = str(getattr(function, "__name__", ""))
    if name in PROPERTIES:
        return ""
    if not (name.startswith("__") and name.endswith("__")):
        return name
    plain = name.strip("_")
    if plain[1:] not in OPERATORS or plain in OPERATORS:
        return plain
    return f"{plain[1:]}_" if plain.startswith("i") else plain[1:]


@contextmanager
def operations_seen(model: nn.Module, see: See) -> Iterator[None]:
    """Call ``see(module, name, value)`` behind each operation that gives a tensor, with the module whose code it is in.

    That is the innermost module of ``model`` that runs; what a module outside of ``model`` does counts for the one
    that calls it.
    """
    inside: list[nn.Module | None] = []
    own = set(map(id, model.modules()))

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(module) not in own:
                return original(module, *args, **kwargs)
            inside.append(module)
            try:
                return original(module, *args, **kwargs)
            finally:
                inside.pop()

        return call

    with patched(nn.Module, "__call__", wrap), patched(autograd.Function, "apply", _unseen(inside)), _Seen(inside, see):
        yield


def _unseen(inside: list[nn.Module | None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let what a custom autograd function does inside count for nobody: to a graph it is one call."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(*args: Any) -> Any:
            inside.append(None)
            try:
                return original(*args)
            finally:
                inside.pop()

        return apply

    return wrap


def gives_tensor(value: Any) -> bool:
    """Tell whether there is a tensor in what an operation gave."""
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


class _Seen(TorchFunctionMode):
    """Show each torch function to ``see`` after it ran."""

    def __init__(self, inside: list[nn.Module | None], see: See) -> None:
        super().__init__()
        self.inside, self.see = inside, see

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        name = operation_name(func)
        module = self.inside[-1] if self.inside else None
        if module is not None and name and gives_tensor(value):
            self.see(module, name, value)
        return value
