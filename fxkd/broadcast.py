"""Find where a loss combines a student's and a teacher's value of different shapes, element by element."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxkd.capture.structure import tensors

ELEMENTWISE = {
    *("add", "sub", "rsub", "radd", "subtract", "mul", "rmul", "multiply", "div", "rtruediv", "truediv", "divide"),
    *("maximum", "minimum", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"),
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "squared_difference"),
}


class Broadcasts(TorchFunctionMode):
    """Watch a loss: which operations stretch the student's value, as given or elementwise changed, to the teacher's.

    What is averaged or reshaped on the way (``s / s.norm(keepdim=True)``) is meant and not noted.

    Args:
        student: The tensors that come from the student.
        teacher: Those that come from the teacher.
    """

    def __init__(self, student: Iterable[Tensor], teacher: Iterable[Tensor]) -> None:
        super().__init__()
        self.found: list[tuple[torch.Size, torch.Size]] = []
        self._kept: list[Tensor] = []  # so that no identity is used twice
        self._origin: dict[int, tuple[str, torch.Size]] = {}
        for side, values in (("student", student), ("teacher", teacher)):
            for tensor in values:
                self._note(tensor, (side, tensor.shape))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        given = [tensor for tensor in tensors((args, kwargs or {})) if tensor.dim()]
        origins = [self._origin[id(tensor)] for tensor in given if id(tensor) in self._origin]
        if getattr(func, "__name__", "").strip("_") in ELEMENTWISE and len(origins) == 2:
            (one, left), (other, right) = origins
            if one != other and left != right:
                self.found.append((left, right) if one == "student" else (right, left))
        if len(origins) == 1 and isinstance(value, Tensor) and value.shape == origins[0][1]:
            self._note(value, origins[0])
        return value

    def _note(self, tensor: Tensor, origin: tuple[str, torch.Size]) -> None:
        self._kept.append(tensor)
        self._origin[id(tensor)] = origin
