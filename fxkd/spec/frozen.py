"""Mappings that stay as they were read: nothing that a user does to a dict later changes a spec."""

from collections.abc import Mapping
from typing import Any, NoReturn


class FrozenDict(dict[str, Any]):
    """A dict that refuses to be changed; it equals, prints, copies and pickles as a dict does.

    >>> FrozenDict(tau=4)["tau"]
    4
    """

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a spec does not change: change the dict that it was read from and read it again")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def frozen(value: Any) -> Any:
    """Copy mappings, lists and tuples at every depth; mappings become frozen, all else stays the same object.

    >>> given = {"loss": {"type": "L2Loss"}}
    >>> kept = frozen(given)
    >>> given["loss"]["type"] = "L1Loss"
    >>> kept
    {'loss': {'type': 'L2Loss'}}
    """
    if isinstance(value, Mapping):
        return FrozenDict({key: frozen(part) for key, part in value.items()})
    if type(value) in (list, tuple):
        return type(value)(map(frozen, value))
    return value
