"""Configs as specs write them -> recorders or deliveries, with all that is wrong in one error."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fxkd.eager.deliveries import Delivery
from fxkd.eager.recorder import Recorder
from fxkd.errors import FxkdError, Problems, did_you_mean

Configs = Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]] | None
Member = TypeVar("Member", Recorder, Delivery)


def build(configs: Configs, kinds: Mapping[str, type[Member]], where: str) -> dict[str, Member]:
    """Build all configs; raise once with all that is wrong."""
    problems, built = Problems(), dict[str, Member]()
    for name, config in _named(configs, where, problems).items():
        member = _build_one(config, kinds, f"{where}.{name}", problems)
        if member is not None:
            member.name = name
            built[name] = member
    problems.raise_if_any()
    return built


def _named(configs: Configs, where: str, problems: Problems) -> Mapping[str, Any]:
    if configs is None or isinstance(configs, Mapping):
        return configs or {}
    if isinstance(configs, (list, tuple)):
        return {str(position): config for position, config in enumerate(configs)}
    problems.add(where, f"expected a mapping of names to configs, got {configs!r}.")
    return {}


def _build_one(config: Any, kinds: Mapping[str, type[Member]], where: str, problems: Problems) -> Member | None:
    """Build one config; ``None`` with its problems noted if that cannot be done."""
    if not isinstance(config, Mapping) or "type" not in config:
        problems.add(where, f"expected a dict with 'type', one of {', '.join(map(repr, kinds))}; got {config!r}.")
        return None
    kind, options = config["type"], {key: value for key, value in config.items() if key not in ("type", "_scope_")}
    if not isinstance(kind, str) or kind not in kinds:
        known = ", ".join(map(repr, kinds))
        problems.add(f"{where}.type", f"no type {kind!r}, there are {known}." + did_you_mean(str(kind), kinds))
        return None
    if not _options_fit(options, kinds[kind], where, problems):
        return None
    try:
        return kinds[kind](**options)
    except FxkdError as error:
        problems.add(where, str(error))
        return None


def _options_fit(options: Mapping[str, Any], kind: type[Member], where: str, problems: Problems) -> bool:
    parameters = inspect.signature(kind).parameters
    unknown = [key for key in options if key not in parameters]
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in options]
    for key in unknown:
        known = ", ".join(map(repr, parameters))
        problems.add(f"{where}.{key}", f"unknown key, there are {known}." + did_you_mean(str(key), parameters))
    for key in missing:
        problems.add(where, f"needs {key!r}.")
    return not unknown and not missing
