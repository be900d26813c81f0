"""A spec as plain data again, and as YAML."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import yaml

from fxkd.errors import Problems
from fxkd.spec.vocabulary import DELIVERIES, Delivery, Recorder, Reference, StudentLoss

if TYPE_CHECKING:
    from fxkd.spec.spec import Spec


def as_dict(spec: "Spec") -> dict[str, Any]:
    """Write what is not as it is by default; modules and functions stay what they are."""
    return {name: _plain(value) for name, value in _said(spec).items() if name != "lines"}


def as_yaml(spec: "Spec") -> str:
    """Write the same as YAML.

    Raises:
        SpecError: It holds a module or a function, which no file can.
    """
    data, problems = as_dict(spec), Problems()
    _refuse_objects(data, "", problems)
    problems.raise_if_any()
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    return text


def _said(entry: Any) -> dict[str, Any]:
    """Give the fields of an entry that have another value than by default."""
    found = {}
    for field in fields(entry):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = getattr(entry, field.name)
        if default is MISSING or value != default:
            found[field.name] = value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Delivery):
        said = _said(value) | {"max_keep_data": value.max_keep_data}
        return {DELIVERIES[value.type] if name == "path" else name: part for name, part in said.items()}
    if isinstance(value, StudentLoss):
        said = {name: _plain(part) for name, part in _said(value).items() if name != "options"}
        return said | _plain(value.options)
    if isinstance(value, (Recorder, Reference)):
        return {name: _plain(part) for name, part in _said(value).items()}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if type(value) in (list, tuple) else value


def _refuse_objects(value: Any, where: str, problems: Problems) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _refuse_objects(part, f"{where}.{key}".lstrip("."), problems)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _refuse_objects(part, f"{where}[{index}]", problems)
    elif value is not None and not isinstance(value, (str, int, float, bool)):
        what = f"is a {type(value).__name__}, which a file cannot hold"
        problems.add(where, f"{what}; give a config with the key 'type', or use to_dict")
