"""MMRazor's algorithms and distillers -> the keys of a spec."""

from collections.abc import Mapping
from typing import Any

from fxkd.configs.data_free import read_data_free
from fxkd.configs.reading import SCOPE, Reading, checkpoint, model_name, plain_type

SUPERVISED = ("SingleTeacherDistill", "FpnTeacherDistill", "OverhaulFeatureDistillation", "Distill")
DATA_FREE = ("DataFreeDistillation", "DAFLDataFreeDistillation")
ALGORITHMS = (*SUPERVISED, "SelfDistill", *DATA_FREE)
DISTILLERS = ("ConfigurableDistiller", "BYOTDistiller", "OFDDistiller")
INPLACE = ("module_inplace", "student_module_inplace", "teacher_module_inplace")
OF_STUDENT = ("architecture", "student_trainable", "calculate_student_loss", *INPLACE)
COMMON = ("type", SCOPE, "distiller", "data_preprocessor", "init_cfg", *OF_STUDENT)
OF_TEACHER = ("teacher", "teacher_ckpt", "teacher_trainable", "teacher_norm_eval")
OF_GENERATOR = ("teachers", "generator", "generator_distiller", "student_iter", "student_train_first")
OPTIONS = (*COMMON, *OF_TEACHER, *OF_GENERATOR)
ORIGINS = {"student_loss": "calculate_student_loss", "teacher_mode": "teacher_norm_eval", "self_distillation": "type"}
ORIGINS |= {key: key for key in ("teacher_ckpt", "teacher_trainable", "student_trainable")}
ORIGINS |= {"student_ckpt": "architecture.init_cfg.checkpoint", "pretrained": "init_cfg.checkpoint"}
NOT_READ = ("architecture", "teacher", "teachers", "generator", "data_preprocessor")  # models: given to prepare


def is_algorithm(given: Any) -> bool:
    """Tell whether ``given`` is one of MMRazor's algorithms, or looks like one."""
    return isinstance(given, Mapping) and ("distiller" in given or plain_type(given) in ALGORITHMS)


def read_algorithm(given: Mapping[str, Any], where: str, reading: Reading) -> dict[str, Any]:
    """Read ``model=dict(type='SingleTeacherDistill', ...)``; the models in it are the user's to build.

    >>> from fxkd.errors import Problems
    >>> distiller = {"type": "ConfigurableDistiller", "student_recorders": {}}
    >>> given = {"type": "SingleTeacherDistill", "calculate_student_loss": False, "distiller": distiller}
    >>> read_algorithm(given, "model", Reading(Problems(), Problems()))
    {'student_recorders': {}, 'student_loss': False, 'teacher_mode': 'norm_eval'}
    """
    given = {
        key: value if key in NOT_READ else reading.known(value, f"{where}.{key}".lstrip("."))
        for key, value in given.items()
    }
    name = reading.one_of(plain_type(given) or "SingleTeacherDistill", ALGORITHMS, "algorithm", where)
    takes = (*COMMON, *(OF_GENERATOR if name in DATA_FREE else OF_TEACHER if name in SUPERVISED else ()))
    reading.strange(given, takes, name, where)
    inner = f"{where}.distiller".lstrip(".")
    spec = read_distiller(given.get("distiller") or {}, inner, reading)
    spec |= _student(given, name, where, reading)
    if name in SUPERVISED:
        spec |= _teacher(given, where, reading)
    elif name in DATA_FREE:
        spec |= read_data_free(given, name, where, reading, read_distiller)
    else:
        spec["self_distillation"] = True
    for key, origin in ORIGINS.items():
        reading.problems.stands_at(key, f"{where}.{origin}".lstrip("."))
    return spec


def read_distiller(given: Any, where: str, reading: Reading) -> dict[str, Any]:
    """Take the six sections out of a distiller; what is no section of a spec is refused where the spec is read."""
    if not isinstance(given, Mapping):
        reading.problems.add(where, f"is a {type(given).__name__}; a distiller is a mapping")
        return {}
    kind = plain_type(given)
    if kind and not (kind in SUPERVISED and "distiller" not in given):  # a tutorial calls the distiller so
        kind = reading.one_of(kind, DISTILLERS, "distiller", where)
    spec = {key: value for key, value in given.items() if key not in ("type", SCOPE, "init_cfg")}
    reading.move(where)
    if checkpoint(given):
        spec["pretrained"] = checkpoint(given)
        reading.problems.stands_at("pretrained", f"{where}.init_cfg.checkpoint")
    return _detached(spec) if kind == "BYOTDistiller" else spec


def _detached(spec: dict[str, Any]) -> dict[str, Any]:
    """Let no gradient flow into what comes from the teacher's side, as BYOT has it: there it is the student too."""
    mappings = spec.get("loss_forward_mappings")
    if not isinstance(mappings, Mapping):
        return spec

    def detached(one: Any) -> Any:
        from_teacher = isinstance(one, Mapping) and one.get("from_student") is False
        return {**one, "detach": True} if from_teacher else one

    changed = {
        loss: {name: detached(one) for name, one in mapping.items()} if isinstance(mapping, Mapping) else mapping
        for loss, mapping in mappings.items()
    }
    return {**spec, "loss_forward_mappings": changed}


def _student(given: Mapping[str, Any], name: str, where: str, reading: Reading) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    _model(given, "architecture", "student", where, reading)
    _unneeded(given, where, reading)
    if checkpoint(given.get("architecture")):
        spec["student_ckpt"] = checkpoint(given["architecture"])
    if checkpoint(given):
        spec["pretrained"] = checkpoint(given)
        told = "holds the student too: load its 'architecture.' part into the student"
        reading.notes.add(f"{where}.init_cfg".lstrip("."), told)
    own_loss = reading.flag(given, "calculate_student_loss", True, where)
    if not own_loss and name == "FpnTeacherDistill":
        told = "is ignored by FpnTeacherDistill, so it is left out; write 'student_loss: false' to have it"
        reading.notes.add(f"{where}.calculate_student_loss".lstrip("."), told)
    elif not own_loss:
        spec["student_loss"] = False
    if not reading.flag(given, "student_trainable", True, where):
        if own_loss:
            told = "has no effect in MMRazor while calculate_student_loss is True, so it is left out"
            reading.notes.add(f"{where}.student_trainable".lstrip("."), told)
        else:
            spec["student_trainable"] = False
    return spec


def _teacher(given: Mapping[str, Any], where: str, reading: Reading) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    _model(given, "teacher", "teacher", where, reading)
    ckpt = given.get("teacher_ckpt") or checkpoint(given.get("teacher"))
    if ckpt:
        spec["teacher_ckpt"] = ckpt
    if reading.flag(given, "teacher_trainable", False, where):
        spec["teacher_trainable"] = True
    norm_eval = reading.flag(given, "teacher_norm_eval", True, where)
    return spec | {"teacher_mode": "norm_eval" if norm_eval else "train"}


def _model(given: Mapping[str, Any], key: str, side: str, where: str, reading: Reading) -> None:
    if key in given:
        named = model_name(given[key])
        reading.notes.add(f"{where}.{key}".lstrip("."), f"left out: give the {side}{named} to fxkd.prepare as a module")


def _unneeded(given: Mapping[str, Any], where: str, reading: Reading) -> None:
    for key in INPLACE:
        if key in given:
            told = "is not needed: a recorded value is kept as it was at its point"
            reading.notes.add(f"{where}.{key}".lstrip("."), told)
    if given.get("data_preprocessor") is not None:
        reading.notes.add(f"{where}.data_preprocessor".lstrip("."), "left out: prepare the data before the call")
