"""Managers: named recorders or deliveries, built from configs and entered together."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import nn

from fxkd.eager.configs import Configs, build
from fxkd.eager.deliveries import (
    Delivery,
    FunctionInputsDelivery,
    FunctionOutputsDelivery,
    MethodInputsDelivery,
    MethodOutputsDelivery,
    ModuleInputsDelivery,
    ModuleOutputsDelivery,
)
from fxkd.eager.gradients import ModuleGradientsRecorder
from fxkd.eager.recorder import Recorder
from fxkd.eager.recorders import (
    FunctionInputsRecorder,
    FunctionOutputsRecorder,
    MethodInputsRecorder,
    MethodOutputsRecorder,
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
    ParameterRecorder,
)
from fxkd.errors import PointError, did_you_mean

RECORDERS: dict[str, type[Recorder]] = {
    "ModuleOutputs": ModuleOutputsRecorder,
    "ModuleInputs": ModuleInputsRecorder,
    "FunctionOutputs": FunctionOutputsRecorder,
    "FunctionInputs": FunctionInputsRecorder,
    "MethodOutputs": MethodOutputsRecorder,
    "MethodInputs": MethodInputsRecorder,
    "Parameter": ParameterRecorder,
    "ModuleGradients": ModuleGradientsRecorder,
}
DELIVERIES: dict[str, type[Delivery]] = {
    "FunctionOutputs": FunctionOutputsDelivery,
    "MethodOutputs": MethodOutputsDelivery,
    "ModuleOutputs": ModuleOutputsDelivery,
    "FunctionInputs": FunctionInputsDelivery,
    "MethodInputs": MethodInputsDelivery,
    "ModuleInputs": ModuleInputsDelivery,
}


class RecorderManager:
    """Enter several recorders together and find them by name (MMRazor's ``RecorderManager``).

    Args:
        recorders: Name -> config, a dict of ``type`` (a recorder class without its suffix) and its arguments. A list
            names them by position: ``'0'``, ``'1'``, ...
        where: What error messages call it, such as ``student_recorders``.

    Raises:
        SpecError: Configs that name no recorder; holds all the problems.

    >>> import random
    >>> manager = RecorderManager({"draw": {"type": "FunctionOutputs", "source": "random.random"}})
    >>> with manager:
    ...     value = random.random()
    >>> manager.get_recorder("draw").get_record_data() == value
    True
    """

    def __init__(self, recorders: Configs = None, *, where: str = "recorders") -> None:
        self.where = where
        self.recorders = build(recorders, RECORDERS, where)
        self._stack: ExitStack | None = None

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find all sources in ``model``; what it lacks is one ``PointError`` that names every recorder concerned."""
        _initialize(self.recorders, model, self.where)

    def get_recorder(self, name: str) -> Recorder:
        """Give the recorder of a name; ``PointError`` if there is none."""
        if name in self.recorders:
            return self.recorders[name]
        has = ", ".join(map(repr, self.recorders)) or "none"
        raise PointError(f"{self.where}: no recorder {name!r}, there are {has}." + did_you_mean(name, self.recorders))

    def __enter__(self) -> None:
        self._stack = _enter(self.recorders)

    def __exit__(self, *error: object) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stack": None}


class DistillDeliveryManager:
    """Enter several deliveries together and switch them all (MMRazor's ``DistillDeliveryManager``).

    Args:
        deliveries: Name -> config, a dict of ``type`` (a delivery class without its suffix) and its arguments. A list
            names them by position: ``'0'``, ``'1'``, ...
        where: What error messages call it.

    Raises:
        SpecError: Configs that name no delivery; holds all the problems.

    >>> import random
    >>> config = {"type": "FunctionOutputs", "func_path": "random.random", "max_keep_data": 1}
    >>> manager = DistillDeliveryManager([config])
    >>> with manager:
    ...     teacher = random.random()
    >>> manager.override_data = True
    >>> with manager:
    ...     random.random() == teacher
    True
    """

    def __init__(self, deliveries: Configs = None, *, where: str = "distill_deliveries") -> None:
        self.where = where
        self.deliveries = build(deliveries, DELIVERIES, where)
        self._override_data = False
        self._stack: ExitStack | None = None

    @property
    def override_data(self) -> bool:
        """Whether the deliveries give their values instead of keeping new ones; setting it sets it in all."""
        return self._override_data

    @override_data.setter
    def override_data(self, override: bool) -> None:
        self._override_data = override
        for delivery in self.deliveries.values():
            delivery.override_data = override

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find all modules in ``model``; what it lacks is one ``PointError`` that names every delivery concerned."""
        _initialize(self.deliveries, model, self.where)

    def __enter__(self) -> None:
        self._stack = _enter(self.deliveries)

    def __exit__(self, *error: object) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stack": None}


def _enter(members: Mapping[str, Recorder] | Mapping[str, Delivery]) -> ExitStack:
    """Enter all in order; a failure leaves those entered before it."""
    with ExitStack() as stack:
        for member in members.values():
            stack.enter_context(member)
        return stack.pop_all()


def _initialize(members: Mapping[str, Recorder] | Mapping[str, Delivery], model: nn.Module | None, where: str) -> None:
    problems = []
    for name, member in members.items():
        try:
            member.initialize(model)
        except PointError as error:
            problems.append(f"{where}.{name}.source: {error}")
    if problems:
        raise PointError("\n".join(problems))
