"""What is found while a config is read: problems, notes, and where each part came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxkd.configs.located import Unknown, known
from fxkd.errors import Problems, did_you_mean, near_names

SCOPE = "_scope_"
SCOPES = ("mmrazor.", "gml.")


@dataclass(frozen=True, slots=True)
class Reading:
    """Where what is found is put.

    Args:
        problems: What cannot mean anything in fxkd: a spec is refused for it.
        notes: What has no place in a spec and was left out, or was understood in a way worth knowing.
    """

    problems: Problems
    notes: Problems

    def move(self, origin: str, where: str = "") -> None:
        """Let what is written at ``origin`` be found at ``where`` too: messages name the new place."""
        if where:
            self.problems.stands_at(where, origin)
        for place, line in list(self.problems.lines.items()):
            if place.startswith((f"{origin}.", f"{origin}[")):
                self.problems.lines[f"{where}{place[len(origin) :]}".lstrip(".")] = line

    def known(self, value: Any, where: str) -> Any:
        """Give ``value`` without what only an execution would give, which is a problem."""
        return known(value, where, self.problems)

    def flag(self, given: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
        """Read a key that is true or false."""
        value = given.get(key, default)
        if not isinstance(value, bool):
            self.problems.add(f"{where}.{key}".lstrip("."), f"is {value!r}; give True or False")
            return default
        return value

    def strange(self, given: Mapping[str, Any], takes: tuple[str, ...], who: str, where: str) -> None:
        """Note each key of ``given`` that ``who`` does not take."""
        for key in given:
            if key not in takes:
                there = ", ".join(map(repr, sorted(takes)))
                told = f"{who} does not take it; there is {there}." + did_you_mean(str(key), takes)
                self.problems.add(f"{where}.{key}".lstrip("."), told)

    def one_of(self, name: str, there: tuple[str, ...], what: str, where: str) -> str:
        """Give ``name`` if it is ``there``; else it is a problem, and the nearest, or the first, is what was meant."""
        if name in there:
            return name
        told = f"no {what} is called {name!r}; there is {', '.join(map(repr, there))}." + did_you_mean(name, there)
        told += " What you registered yourself is no spec: fxkd.build_algorithm makes it"
        self.problems.add(f"{where}.type".lstrip("."), told)
        return (near_names(name, there) or there)[0]


def plain_type(config: Any) -> str:
    """Give the type of a config without MMRazor's prefix, or nothing.

    >>> plain_type({"type": "mmrazor.KLDivergence"})
    'KLDivergence'
    """
    name = config.get("type") if isinstance(config, Mapping) else None
    return without_scope(name) if isinstance(name, str) else ""


def without_scope(name: str) -> str:
    """Take MMRazor's prefix, or GML's, off a name."""
    return next((name.removeprefix(scope) for scope in SCOPES if name.startswith(scope)), name)


def checkpoint(config: Any) -> str | None:
    """Give the file of ``init_cfg=dict(type='Pretrained', checkpoint=...)``, if there is one."""
    init = config.get("init_cfg") if isinstance(config, Mapping) else None
    if not isinstance(init, Mapping) or init.get("type") != "Pretrained":
        return None
    path = init.get("checkpoint")
    return path if isinstance(path, str) else None


def model_name(config: Any) -> str:
    """Say in brackets which model a config means, as far as it says so."""
    if isinstance(config, Unknown) or not isinstance(config, Mapping):
        return ""
    named = config.get("cfg_path") or config.get("type")
    backbone = config.get("backbone")
    inner = backbone.get("type") if isinstance(backbone, Mapping) else None
    depth = backbone.get("depth") if isinstance(backbone, Mapping) else None
    told = " ".join(str(one) for one in (named, inner, depth) if isinstance(one, (str, int)))
    return f" ({told})" if told else ""
