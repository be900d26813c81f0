"""Deliveries: what a function, method or module returned in one pass is returned again in another."""

from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from fxkd.eager.taps import delivered
from fxkd.errors import PointError, SpecError
from fxkd.points import FUNCTION_FORM, find_function, find_method, find_module, split
from fxkd.records import bound_arguments, cloned, detached


class Delivery(ABC):
    """Keep return values in a first-in first-out queue, and give them back while ``override_data`` is true.

    While it gives, the original is not called and its arguments are ignored. Entering and leaving do not clear the
    queue; copies and pickles start with an empty one.

    Args:
        path: Whose values; the subclasses say how it is written and call it as MMRazor does.
        max_keep_data: How many values the queue may hold.
        data_idx: The one part of each value that is kept and given back; the original is then called for the others.
        target: Where values are given back, if that is another path.
    """

    is_of_inputs = False
    own_arguments = 0  # how many arguments of a call are none of its inputs: self

    def __init__(
        self, path: str, max_keep_data: int, data_idx: int | str | None = None, target: str | None = None
    ) -> None:
        if type(max_keep_data) is not int or max_keep_data < 1:
            raise SpecError([f"max_keep_data of the delivery of {path!r} is a number from 1, not {max_keep_data!r}."])
        self.path = path
        self.max_keep_data = max_keep_data
        self.data_idx, self.target = data_idx, target
        self.override_data = False
        self.clone = False  # True: the value is copied when it is kept
        self.is_cut = False  # True: no gradient flows back through it
        self.name = ""  # what a manager calls it
        self.data_queue: deque[Any] = deque()
        self._module: nn.Module | None = None
        self._delivering: AbstractContextManager[None] | None = None

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find the module in ``model``; functions and methods need none. Again is harmless: the last model counts.

        Raises:
            PointError: The model has no such module.
        """
        self._module = self._find(model)

    def _find(self, model: nn.Module | None) -> nn.Module | None:
        return None

    @property
    def place(self) -> str:
        """The path at which it acts now."""
        return self.target if self.override_data and self.target is not None else self.path

    def require_room(self) -> None:
        """Refuse a call whose value the queue cannot take."""
        if len(self.data_queue) < self.max_keep_data:
            return
        what = f"push into a full queue, {self.path!r} was called more than max_keep_data={self.max_keep_data} times"
        raise PointError(f"{self}: {what} since the last values were taken: raise it, or set override_data to take.")

    def push(self, value: Any) -> None:
        """Put a value at the end of the queue."""
        self.require_room()
        kept = cloned(value) if self.clone else value
        self.data_queue.append(detached(kept) if self.is_cut else kept)

    def pop(self) -> Any:
        """Take the oldest value."""
        if self.data_queue:
            return self.data_queue.popleft()
        what = f"pop from an empty queue, {self.path!r} was called more often than there are values"
        raise PointError(f"{self}: {what}: first run the model that gives them, with override_data False.")

    def __enter__(self) -> None:
        if self._delivering is not None:
            raise PointError(f"{self} is entered already: leave its context before entering it again.")
        delivering = self._deliver()
        delivering.__enter__()
        self._delivering = delivering

    def __exit__(self, *error: object) -> None:
        delivering, self._delivering = self._delivering, None
        if delivering is not None:
            delivering.__exit__(None, None, None)

    def __str__(self) -> str:
        kind = type(self).__name__.removesuffix("Delivery")
        return f"delivery {self.name!r} ({kind} of {self.path!r})" if self.name else f"delivery {kind} of {self.path!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "data_queue": deque(), "_delivering": None}

    @abstractmethod
    def _deliver(self) -> AbstractContextManager[None]:
        """Give what puts the delivery in place."""


class FunctionOutputsDelivery(Delivery):
    """Deliver what a function returned (MMRazor's ``FunctionOutputs``).

    Args:
        func_path: ``package.module.function``, where ``module`` is the one that *uses* it. Found on entering.
        max_keep_data: How many values the queue may hold.
        data_idx: See ``Delivery``.
        target: See ``Delivery``.

    Raises:
        PointError: The path has no dot; on entering, it names no function; in a call, the queue is full or empty.

    >>> import random
    >>> delivery = FunctionOutputsDelivery("random.random", max_keep_data=1)
    >>> with delivery:
    ...     teacher = random.random()
    >>> delivery.override_data = True
    >>> with delivery:
    ...     random.random() == teacher
    True
    """

    def __init__(
        self, func_path: str, max_keep_data: int, data_idx: int | str | None = None, target: str | None = None
    ) -> None:
        super().__init__(func_path, max_keep_data, data_idx, target)
        split(func_path, FUNCTION_FORM)
        self.func_path = func_path

    def _deliver(self) -> AbstractContextManager[None]:
        place = find_function(self.place)
        self.own_arguments = bound_arguments(place)
        return delivered(place.owner, place.name, self)


class MethodOutputsDelivery(Delivery):
    """Deliver what a method returned, on whichever instance of the class (MMRazor's ``MethodOutputs``).

    Args:
        method_path: ``package.module.Class.method``; ``__call__`` is one.
        max_keep_data: How many values the queue may hold.
        data_idx: See ``Delivery``.
        target: See ``Delivery``.

    Raises:
        PointError: The path names no method; in a call, the queue is full or empty.

    >>> import random
    >>> delivery = MethodOutputsDelivery("random.Random.randint", max_keep_data=1)
    >>> with delivery:
    ...     teacher = random.Random(1).randint(0, 1000000)
    >>> delivery.override_data = True
    >>> with delivery:
    ...     random.Random(2).randint(0, 1000000) == teacher
    True
    """

    def __init__(
        self, method_path: str, max_keep_data: int, data_idx: int | str | None = None, target: str | None = None
    ) -> None:
        super().__init__(method_path, max_keep_data, data_idx, target)
        find_method(method_path)
        self.method_path = method_path

    def _deliver(self) -> AbstractContextManager[None]:
        place = find_method(self.place)
        self.own_arguments = bound_arguments(place)
        return delivered(place.owner, place.name, self)


class ModuleOutputsDelivery(Delivery):
    """Deliver what a module's ``forward`` returned (not in MMRazor); hooks of the receiving module still run.

    Args:
        source: Exact path of the module in the model given to ``initialize``: first the one that gives, then, with
            ``override_data`` true, the one that receives.
        max_keep_data: How many values the queue may hold.
        data_idx: See ``Delivery``.
        target: See ``Delivery``.

    Raises:
        PointError: From ``initialize``, the model has no such module; on entering, it was not initialised; in a call,
            the queue is full or empty.

    >>> teacher, student = nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())
    >>> delivery = ModuleOutputsDelivery("0", max_keep_data=1)
    >>> delivery.initialize(teacher)
    >>> with delivery:
    ...     output = teacher("the teacher's")
    >>> delivery.override_data = True
    >>> delivery.initialize(student)
    >>> with delivery:
    ...     student("the student's")
    "the teacher's"
    """

    def __init__(
        self, source: str, max_keep_data: int, data_idx: int | str | None = None, target: str | None = None
    ) -> None:
        super().__init__(source, max_keep_data, data_idx, target)
        self.source = source

    def _find(self, model: nn.Module | None) -> nn.Module:
        return find_module(model, self.place)

    def _deliver(self) -> AbstractContextManager[None]:
        if self._module is None:
            raise PointError(f"{self} does not know its model: call initialize(model) before entering.")
        return delivered(self._module, "forward", self)


class FunctionInputsDelivery(FunctionOutputsDelivery):
    """Deliver what a function was called with (not in MMRazor): it is called, with the arguments of the other call.

    Args:
        func_path: As for ``FunctionOutputsDelivery``.
        max_keep_data: How many calls the queue may hold.

    >>> import math
    >>> delivery = FunctionInputsDelivery("math.sqrt", max_keep_data=1)
    >>> with delivery:
    ...     teacher = math.sqrt(9.0)
    >>> delivery.override_data = True
    >>> with delivery:
    ...     math.sqrt(4.0)
    3.0
    """

    is_of_inputs = True


class MethodInputsDelivery(MethodOutputsDelivery):
    """Deliver what a method was called with, ``self`` left out (not in MMRazor).

    Args:
        method_path: As for ``MethodOutputsDelivery``.
        max_keep_data: How many calls the queue may hold.

    >>> from fractions import Fraction
    >>> delivery = MethodInputsDelivery("fractions.Fraction.limit_denominator", max_keep_data=1)
    >>> with delivery:
    ...     teacher = Fraction("0.3333").limit_denominator(10)
    >>> delivery.override_data = True
    >>> with delivery:
    ...     Fraction("3.14159").limit_denominator(1000)
    Fraction(22, 7)
    """

    is_of_inputs = True


class ModuleInputsDelivery(ModuleOutputsDelivery):
    """Deliver what a module's ``forward`` was called with (not in MMRazor).

    Args:
        source: As for ``ModuleOutputsDelivery``.
        max_keep_data: How many calls the queue may hold.

    >>> teacher, student = nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())
    >>> delivery = ModuleInputsDelivery("0", max_keep_data=1)
    >>> delivery.initialize(teacher)
    >>> with delivery:
    ...     output = teacher("the teacher's")
    >>> delivery.override_data = True
    >>> delivery.initialize(student)
    >>> with delivery:
    ...     student("the student's")
    "the teacher's"
    """

    is_of_inputs = True
