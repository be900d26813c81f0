"""MMRazor's data-free algorithms: teachers by name, a generator, and a second set of sections for it."""

from collections.abc import Callable, Mapping
from typing import Any

from fxkd.configs.reading import Reading, model_name
from fxkd.configs.spellings import one_spelling

Distiller = Callable[[Any, str, Reading], dict[str, Any]]


def read_data_free(
    given: Mapping[str, Any], name: str, where: str, reading: Reading, distiller: Distiller
) -> dict[str, Any]:
    """Read what a data-free algorithm has beside the student's sections: the key ``data_free``, and the teachers."""
    inner = f"{where}.generator_distiller".lstrip(".")
    own = distiller(given.get("generator_distiller") or {}, inner, _aside(reading))
    data_free: dict[str, Any] = {
        "generator": reading.known(given.get("generator"), f"{where}.generator".lstrip(".")),
        "generator_spec": one_spelling(own, _aside(reading)),
        "student_iter": given.get("student_iter", 1),
        "student_train_first": reading.flag(given, "student_train_first", False, where),
    }
    if name == "DAFLDataFreeDistillation":
        data_free["joint"] = True  # one batch of noise for the generator's losses and the student's
    reading.move(inner, "data_free.generator_spec")
    reading.move(f"{where}.generator".lstrip("."), "data_free.generator")
    teachers = _teachers(given.get("teachers"), f"{where}.teachers".lstrip("."), reading)
    return ({"teacher_ckpt": teachers} if teachers else {}) | {"data_free": data_free}


def _aside(reading: Reading) -> Reading:
    """Give a reading whose places do not take those of the student's sections."""
    return Reading(type(reading.problems)(found=reading.problems.found, places=reading.problems.places), reading.notes)


def _teachers(given: Any, where: str, reading: Reading) -> dict[str, str]:
    if not isinstance(given, Mapping):
        reading.problems.add(where, f"is {given!r}; give a mapping from names to teachers")
        return {}
    files = {}
    for name, teacher in given.items():
        path = teacher.get("ckpt_path") if isinstance(teacher, Mapping) else None
        if isinstance(path, str):
            files[name] = path
        named = model_name(teacher.get("build_cfg")) if isinstance(teacher, Mapping) else ""
        told = f"left out: give the teacher{named} to fxkd.prepare in a dict, under the name {name!r}"
        reading.notes.add(f"{where}.{name}", told)
    return files
