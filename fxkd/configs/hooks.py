"""What stands beside the model in a config file: hooks, loops, data, optimisers."""

from collections.abc import Iterator, Mapping
from typing import Any

from fxkd.configs.located import Unknown
from fxkd.configs.reading import SCOPE, Reading, plain_type

STOP = {"StopDistillHook": "stop_epoch", "DistillationLossDetachHook": "detach_epoch"}
SILENT = ("find_unused_parameters", "default_scope", SCOPE, "custom_imports", "custom_hooks")
BOTH = ("SingleTeacherDistillValLoop", "SelfDistillValLoop")


def read_hooks(given: Any, reading: Reading) -> dict[str, Any]:
    """Read ``custom_hooks``: the epoch at which the distillation stops is an option of the spec."""
    spec: dict[str, Any] = {}
    hooks = given if isinstance(given, list) else []
    for index, hook in enumerate(hooks):
        where, kind = f"custom_hooks[{index}]", plain_type(hook)
        if kind not in STOP:
            named = f" ({kind})" if kind else ""
            reading.notes.add(where, f"left out{named}: it belongs to the training loop")
            continue
        hook = reading.known(hook, where)
        if STOP[kind] in hook:
            spec["stop_epoch"] = hook[STOP[kind]]
            reading.move(f"{where}.{STOP[kind]}", "stop_epoch")
        else:
            reading.problems.add(where, f"{kind} needs the key {STOP[kind]!r}")
    if given is not None and not isinstance(given, (list, Unknown)):
        reading.problems.add("custom_hooks", f"is a {type(given).__name__}; give a list")
    if isinstance(given, Unknown):
        reading.known(given, "custom_hooks")
    return spec


def leave_out(given: Mapping[str, Any], read: tuple[str, ...], reading: Reading) -> None:
    """Note each key of a config file that is none of the distillation, unless it helps to write one.

    A text, a list or a mapping does if it is found in a part that was read.
    """
    used = [value for key in read if key in given for value in _parts(given[key])]
    for key, value in given.items():
        helps = isinstance(value, (str, Mapping, list, tuple)) and value in used
        if key in read or key in SILENT or helps:
            continue
        if key == "val_cfg" and plain_type(value) in BOTH:
            told = "left out: in your evaluation run the teacher too, if you want its figures beside the student's"
        else:
            told = "left out: it belongs to the training loop"
        reading.notes.add(str(key), told)


def _parts(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for part in inner:
        yield from _parts(part)
