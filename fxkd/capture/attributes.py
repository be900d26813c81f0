"""What a forward writes to its modules: a graph does not do it again, so what matters is refused."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fxkd.capture.tracked import plain
from fxkd.errors import CaptureError

REMEDY = (
    "a graph would not do that again: change it in place (copy_, add_), keep points out of that module so that it "
    "stays one node, or use backend='eager'"
)


@dataclass(frozen=True, slots=True)
class Attributes:
    """The tensors, numbers and texts that the modules held before a run."""

    held: list[tuple[nn.Module, str, Any]]

    @classmethod
    def of(cls, model: nn.Module) -> "Attributes":
        """Note what the modules of ``model`` hold."""
        return cls([(module, key, value) for module in model.modules() for key, value in _values(module).items()])

    def changed(self, paths: dict[int, str], ran_whole: set[int]) -> list[str]:
        """List those that are others now, by their place in the model; what ran as one node may change its own.

        Raises:
            CaptureError: A forward put another tensor in the place of a buffer.
        """
        found = []
        for module, key, before in [entry for entry in self.held if id(entry[0]) not in ran_whole]:
            now, where = _values(module).get(key), f"{paths[id(module)]}.{key}".lstrip(".")
            same = now is before if isinstance(before, Tensor) else plain(now) == before
            if not same and key in module._buffers:
                raise CaptureError(f"the forward of {type(module).__name__} replaces the buffer {where!r}; {REMEDY}")
            if not same:
                found.append(where)
        return found


def _values(module: nn.Module) -> dict[str, Any]:
    own = {key: value for key, value in module.__dict__.items() if isinstance(value, (Tensor, int, float, str))}
    return own | {key: value for key, value in module._buffers.items() if value is not None}
