"""What all recorders share: the buffer, entering and leaving, reading a record."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from fxkd.eager.taps import observed
from fxkd.errors import PointError
from fxkd.points import Place
from fxkd.records import cloned, function_inputs, pick


class Recorder(ABC):
    """Record into ``data_buffer``, one entry per call in call order, while the context is entered.

    Entering starts a new empty ``data_buffer``; leaving keeps it. Copies and pickles hold no records.

    Args:
        source: What to record; the subclasses say how it is written.
        clone: Record clones of tensors (gradients flow through), so that later in-place changes do not show.
            Inputs are then as they were before the call, else as the call left them.
    """

    def __init__(self, source: str, *, clone: bool = False) -> None:
        self.source = source
        self.clone = clone
        self.name = ""  # what a manager calls it
        self.data_buffer: list[Any] = []
        self._found: Any = None  # the module or parameter, once initialised
        self._watching: AbstractContextManager[None] | None = None

    @property
    def recording(self) -> bool:
        """Whether the context is entered."""
        return self._watching is not None

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find the source in ``model``; functions and methods need none. Again is harmless: the last model counts.

        Raises:
            PointError: The model has no such module or parameter.
        """
        self._found = self._find(model)

    def get_record_data(self, record_idx: int = 0, data_idx: int | str | None = None) -> Any:
        """Give one record, or with ``data_idx`` one part of it (position, key, or keyword of a module's inputs).

        Raises:
            PointError: There is no such record or part; says how many there are.
        """
        count = len(self.data_buffer)
        if not -count <= record_idx < count:
            raise PointError(f"{self}: record_idx={record_idx!r}, but {self._count(count)}.")
        record = self.data_buffer[record_idx]
        return record if data_idx is None else pick(record, data_idx, f"{self}, record {record_idx}")

    def __enter__(self) -> None:
        if self._watching is not None:
            raise PointError(f"{self} is recording already: leave its context before entering it again.")
        watching = self._watch()
        before, self.data_buffer = self.data_buffer, []
        try:
            watching.__enter__()
        except BaseException:
            self.data_buffer = before
            raise
        self._watching = watching

    def __exit__(self, *error: object) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.__exit__(None, None, None)

    def __str__(self) -> str:
        kind = type(self).__name__.removesuffix("Recorder")
        return f"recorder {self.name!r} ({kind} of {self.source!r})" if self.name else f"{kind} of {self.source!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "data_buffer": [], "_watching": None}

    @abstractmethod
    def _watch(self) -> AbstractContextManager[None]:
        """Give what makes the calls of the source seen."""

    def _find(self, model: nn.Module | None) -> Any:
        return None

    def _source(self) -> Any:
        """Give what ``initialize`` found."""
        if self._found is None:
            raise PointError(f"{self} does not know its model: call initialize(model) before entering.")
        return self._found

    def _keep(self, value: Any) -> Any:
        return cloned(value) if self.clone else value

    def _count(self, count: int) -> str:
        if count:
            return f"there {'is 1 record' if count == 1 else f'are {count} records'}: use 0 to {count - 1}"
        return f"there is no record: {self.source!r} was not called; run the model while the recorder is entered"

    def _see_output(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], None]:
        return lambda value: self.data_buffer.append(self._keep(value))

    def _watch_inputs(self, place: Place) -> AbstractContextManager[None]:
        record_of = function_inputs(place)

        def see(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], None]:
            record = self._keep(record_of(args, kwargs))
            return lambda value: self.data_buffer.append(record)

        return observed(place.owner, place.name, see)
