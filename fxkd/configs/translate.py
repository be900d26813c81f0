"""A mapping of any form that is understood -> the keys of a spec."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from fxkd.configs.components import is_old, read_old
from fxkd.configs.gml import gml_place, read_gml
from fxkd.configs.hooks import SILENT, leave_out, read_hooks
from fxkd.configs.located import Unknown, known
from fxkd.configs.mmrazor import DISTILLERS, OPTIONS, SUPERVISED, is_algorithm, read_algorithm, read_distiller
from fxkd.configs.reading import Reading, plain_type
from fxkd.configs.spellings import one_spelling
from fxkd.errors import Problems

SECTIONS = (
    "student_recorders",
    "teacher_recorders",
    "distill_deliveries",
    "connectors",
    "distill_losses",
    "loss_forward_mappings",
    "pairs",
)
HOLDERS = ("algorithm", "model", "distiller", "teacher")


def translate(
    given: Mapping[str, Any], problems: Problems, notes: Problems | None = None, own_keys: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Say what ``given`` says in the keys of a spec, whichever of these it is.

    The six sections, alone or in a distiller, in MMRazor's other spellings; ``pairs``; an algorithm of MMRazor, alone
    or among the other keys of a config file; the same of MMRazor 0.x; GML's list of teachers.

    Args:
        given: The mapping.
        problems: Gets what has no meaning in fxkd. Its ``lines`` get the new places of what was moved.
        notes: Gets what was left out and why.
        own_keys: The keys of a spec, if other keys beside them are to be left out (a Python file has names of its
            own); those that look like one of them are not.

    >>> distiller = {"type": "ConfigurableDistiller", "student_recorders": {}}
    >>> model = {"type": "mmrazor.SingleTeacherDistill", "teacher_ckpt": "t.pth", "distiller": distiller}
    >>> translate({"model": model, "optim_wrapper": {}}, Problems())
    {'student_recorders': {}, 'teacher_ckpt': 't.pth', 'teacher_mode': 'norm_eval'}
    """
    reading = Reading(problems, Problems() if notes is None else notes)
    reading.notes.lines = problems.lines
    spec = _keys(given, own_keys, reading)
    if own_keys:  # of a Python file, in which values may be unknown
        spec = known(spec, "", problems)
    return one_spelling(spec, reading)


def _keys(given: Mapping[str, Any], own_keys: tuple[str, ...], reading: Reading) -> dict[str, Any]:
    teachers = gml_place(given)
    if teachers is not None:
        spec = read_gml(given, teachers, reading)
        read = (teachers.partition(".")[0], "use_meal", "stu_pretrain", "pretrained")
        told = [key for key in ("model",) if key in given and key not in read]
        for key in told:
            reading.notes.add(key, "left out: give the student to fxkd.prepare as a module")
        leave_out(given, (*read, *told), reading)
        return spec | read_hooks(given.get("custom_hooks"), reading)
    for key in ("algorithm", "model"):
        if is_old(given.get(key)) or is_algorithm(given.get(key)):
            read_it = read_old if is_old(given[key]) else read_algorithm
            spec = read_it(given[key], key, reading)
            leave_out(given, (key,), reading)
            return spec | read_hooks(given.get("custom_hooks"), reading)
    if is_old(given):
        return read_old(given, "", reading)
    if "distiller" in given and not set(SECTIONS) & set(given):
        return _around_distiller(given, reading)
    if plain_type(given) in (*DISTILLERS, *SUPERVISED):
        return read_distiller(reading.known(dict(given), ""), "", reading)
    return _own(given, own_keys, reading)


def _around_distiller(given: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Read an algorithm without a name around it, or a file that only has a distiller."""
    if plain_type(given) or (len(given) > 1 and set(given) <= set(OPTIONS)):
        return read_algorithm(given, "", reading)
    leave_out(given, ("distiller",), reading)
    spec = read_distiller(reading.known(given["distiller"], "distiller"), "distiller", reading)
    return spec | read_hooks(given.get("custom_hooks"), reading)


def _own(given: Mapping[str, Any], own_keys: tuple[str, ...], reading: Reading) -> dict[str, Any]:
    """Give a mapping that has a spec's own keys; of a config file the keys that mean something to mmengine are left."""
    for key in [key for key in HOLDERS if isinstance(given.get(key), Unknown)]:
        reading.known(given[key], key)
    spec = {key: value for key, value in given.items() if key not in SILENT}
    strange = [key for key in spec if own_keys and key not in own_keys and not _is_misspelt(key, own_keys)]
    for key in [key for key in strange if key not in HOLDERS]:
        reading.notes.add(key, "left out: it is no key of a spec")
    own = {key: value for key, value in spec.items() if key not in strange}
    return own | read_hooks(given.get("custom_hooks"), reading)


def _is_misspelt(key: str, own_keys: tuple[str, ...]) -> bool:
    """Tell a key with a slip in it from a name of the file's own.

    >>> _is_misspelt("distil_losses", ("distill_losses",)), _is_misspelt("own_loss", ("student_loss",))
    (True, False)
    """
    return bool(get_close_matches(key, own_keys, n=1, cutoff=0.85))


def says_nothing(path: str, notes: Problems) -> str:
    """Say that a config has no distillation in it, and what was not read of it."""
    told = f"{path}: has no distillation: no {', '.join(map(repr, SECTIONS))}, no 'distiller', no 'teacher' list"
    unread = [note for note in notes.found if "another package" in note or "not executed" in note]
    return told + ("; not read:" + "".join(f"\n    {note}" for note in unread) if unread else "")
