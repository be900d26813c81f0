"""What an argument of a loss is, of what recorders hold."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.eager.managers import RecorderManager
from fxkd.errors import PointError
from fxkd.records import detached
from fxkd.spec import Reference


def picked(
    reference: Reference, manager: RecorderManager, connectors: Mapping[str, nn.Module] | nn.ModuleDict, where: str
) -> Any:
    """Give the record that ``reference`` names, through its connector; ``where`` is the place of it in the spec.

    Raises:
        PointError: There is no such record, or no such part of it.
    """
    value = reference.of_records(
        lambda name: manager.get_recorder(name).get_record_data(reference.record_idx, reference.data_idx)
    )
    if reference.connector is not None:
        value = connectors[reference.connector](value)
    if reference.connector_idx is not None:
        value = _part(value, reference.connector_idx, where)
    return detached(value) if reference.detach else value


def _part(value: Any, index: int, where: str) -> Any:
    try:
        return value[index]
    except (IndexError, KeyError, TypeError):
        what = f"is {index}, but the connector gives a {type(value).__name__}"
        raise PointError(f"{where}.connector_idx: {what} without such a part") from None
