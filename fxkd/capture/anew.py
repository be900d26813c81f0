"""Caches of keys and values that a forward makes at each call and hands to its leaves: a graph makes them anew too."""

import copy
import io
import pickle
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from fxkd.capture.tracked import Tracked


def anew(value: Any) -> Any:
    """Give a copy of what an object was when the forward first handed it on."""
    return copy.deepcopy(value)


def filled(form: bytes, tensors: tuple[Tensor, ...]) -> Any:
    """Give an object of a form with other tensors in the places of its own."""
    return _Reader(form, tensors).load()


@dataclass(frozen=True, slots=True)
class Form:
    """A cache written down, the tensors and numbers of the run that it holds apart."""

    written: bytes
    tensors: tuple[Tensor, ...]
    numbers: tuple[Tracked, ...]

    @classmethod
    def of(cls, value: Any) -> "Form | None":
        """Write a cache down; nothing for any other object: what that shares with others, nobody can tell."""
        if not callable(getattr(type(value), "get_seq_length", None)) or hasattr(value, "__deepcopy__"):
            return None
        writer = _Writer()
        try:
            writer.dump(value)
        except Exception:  # noqa: BLE001 (whatever a class does when it is asked for its state)
            return None
        return cls(writer.file.getvalue(), tuple(writer.tensors), tuple(writer.numbers))

    def is_that_of(self, value: Any) -> bool:
        """Tell whether an object is still as it was: of the same form, with the same tensors."""
        now = Form.of(value)
        return now is not None and now.written == self.written and _same_objects(now.tensors, self.tensors)


@dataclass(slots=True)
class Handed:
    """A cache that leaves were given, as it was after the last leaf, and who took it."""

    value: Any
    form: Form
    takers: set[str] = field(default_factory=set)

    def is_as_left(self) -> bool:
        """Tell whether nothing but the leaves changed it."""
        return self.form.is_that_of(self.value)


class _Writer(pickle.Pickler):
    """Write objects down and keep apart the tensors of the run, which are others at the next call."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.tensors: list[Tensor] = []
        self.numbers: list[Tracked] = []
        super().__init__(self.file)

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, Tracked):
            self.numbers.append(value)
        if not isinstance(value, FakeTensor):
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Reader(pickle.Unpickler):
    """Read an object that ``_Writer`` wrote, with the given tensors in it."""

    def __init__(self, written: bytes, tensors: tuple[Tensor, ...]) -> None:
        super().__init__(io.BytesIO(written))
        self.tensors = tensors

    def persistent_load(self, place: int) -> Tensor:
        return self.tensors[place]


def make_anew(graph: fx.Graph, constants: nn.Module, written: dict[str, bytes]) -> None:
    """Let each object of ``constants`` named in ``written`` be a copy, made at every run of ``graph``.

    The copy is that of the object as it was written down: what the forward then did to it, the graph does again.
    """
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        key = str(node.target).rpartition(".")[2]
        if key not in written or not str(node.target).endswith(f"_constants.{key}"):
            continue
        setattr(constants, key, filled(written[key], ()))
        with graph.inserting_after(node):
            made = graph.call_function(anew, (node,))
        node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
        made.meta.update(node.meta)


def _same_objects(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(map(lambda left, right: left is right, one, other))
