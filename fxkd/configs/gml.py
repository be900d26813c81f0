"""Configs of the GML toolbox (a list of teachers, each with its ``distill_cfg``) -> pairs, or an ensemble."""

from collections.abc import Iterator, Mapping
from typing import Any

from fxkd.configs.ensemble import temperature, write_ensembles
from fxkd.configs.located import Unknown
from fxkd.configs.reading import SCOPE, Reading, model_name, plain_type
from fxkd.configs.spellings import RENAMED

HEAD = "FeatureDistillationHead"
OPTIONS = ("use_meal", "stu_pretrain", "pretrained")
OF_DISTILLER = ("type", SCOPE, "distill_cfg", "teacher", *OPTIONS)
OF_TEACHER = ("ckpt_path", "model", "distill_cfg")
OF_PAIR = ("student_module", "teacher_module", "head")
OF_HEAD = ("type", SCOPE, "loss", "stu_connector", "tea_connector", "dim_select")
CONNECTORS = {"stu_connector": "student_connector", "tea_connector": "teacher_connector"}


def gml_place(given: Mapping[str, Any]) -> str | None:
    """Give the place of the teachers in a config of GML, or nothing for other configs.

    >>> gml_place({"model": {}, "teacher": [{"distill_cfg": []}]})
    'teacher'
    """
    for where in ("", "distiller", "algorithm", "algorithm.distiller", "model.distiller"):
        inner: Any = given
        for key in filter(None, where.split(".")):
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        for key in ("teacher", "distill_cfg"):
            listed = inner.get(key) if isinstance(inner, Mapping) else None
            listed = [listed] if isinstance(listed, Mapping) else listed
            if isinstance(listed, list) and any(isinstance(one, Mapping) and "distill_cfg" in one for one in listed):
                return f"{where}.{key}".lstrip(".")
    return None


def read_gml(given: Mapping[str, Any], where: str, reading: Reading) -> dict[str, Any]:
    """Read the teachers that stand at ``where``, and the options beside them.

    >>> from fxkd.errors import Problems
    >>> pair = {"student_module": "a", "teacher_module": "b", "head": {"loss": {"type": "L2Loss"}}}
    >>> read_gml({"teacher": [{"distill_cfg": [pair]}]}, "teacher", Reading(Problems(), Problems()))
    {'pairs': [{'student': 'a', 'teacher': 'b', 'loss': {'type': 'L2Loss'}}]}
    """
    owner: Any = given
    *path, last = where.split(".")
    for key in path:
        owner = owner[key]
    prefix = ".".join(path)
    if prefix:
        reading.strange(owner, OF_DISTILLER, "GML's distiller", prefix)
    listed = [owner[last]] if isinstance(owner[last], Mapping) else owner[last]
    both = {**given, **owner}
    options = reading.known({key: both[key] for key in OPTIONS if key in both}, prefix)
    found = _Teachers(reading, alone=len(listed) == 1)
    for index, teacher in enumerate(listed):
        found.read(teacher, f"{where}[{index}]" if isinstance(owner[last], list) else where, f"teacher_{index}")
    use_meal = reading.flag(options, "use_meal", True, prefix)
    shared = found.shared() if use_meal and not found.alone else []
    if options.get("use_meal") is True and not shared:
        told = "use_meal: no soft labels that all teachers give at one point of the student: each has its own loss"
        reading.notes.add(where, told)
    spec = write_ensembles(shared, where, reading) if shared else {}
    rest = [pair for pair in found.pairs if not any(pair in group for group in shared)]
    if rest:
        spec["pairs"] = [pair["pair"] for pair in rest]
    for index, one in enumerate(rest):
        _place(one["where"], f"pairs[{index}]", reading)
    if found.files:
        spec["teacher_ckpt"] = next(iter(found.files.values())) if found.alone else found.files
    spec |= {"student_ckpt": options["stu_pretrain"]} if options.get("stu_pretrain") else {}
    return spec | ({"pretrained": options["pretrained"]} if options.get("pretrained") else {})


def _place(origin: str, place: str, reading: Reading) -> None:
    reading.move(origin, place)
    for old, new in {"student_module": "student", "teacher_module": "teacher", "head.loss": "loss"}.items():
        reading.move(f"{origin}.{old}", f"{place}.{new}")
    for old, new in CONNECTORS.items():
        reading.move(f"{origin}.head.{old}", f"{place}.{new}")


class _Teachers:
    """Collects the pairs of several teachers."""

    def __init__(self, reading: Reading, alone: bool) -> None:
        self.reading = reading
        self.alone = alone
        self.pairs: list[dict[str, Any]] = []
        self.files: dict[str, str] = {}
        self.names: list[str] = []

    def read(self, given: Any, where: str, name: str) -> None:
        """Read one teacher."""
        if isinstance(given, Mapping) and isinstance(given.get("distill_cfg"), Unknown):
            self.reading.known(given["distill_cfg"], f"{where}.distill_cfg")
            return
        if not isinstance(given, Mapping) or not isinstance(given.get("distill_cfg"), (list, Mapping)):
            self.reading.problems.add(where, "needs the key 'distill_cfg', a list of pairs of modules")
            return
        self.reading.strange(given, OF_TEACHER, "a teacher", where)
        self.names.append(name)
        if given.get("ckpt_path"):
            self.files[name] = self.reading.known(given["ckpt_path"], f"{where}.ckpt_path")
        how = "as a module" if self.alone else f"in a dict, under the name {name!r}"
        told = f"left out: give the teacher{model_name(given.get('model'))} to fxkd.prepare {how}"
        self.reading.notes.add(f"{where}.model", told)
        listed = self.reading.known(given["distill_cfg"], f"{where}.distill_cfg")
        for index, pair in enumerate([listed] if isinstance(listed, Mapping) else listed):
            at = f"{where}.distill_cfg[{index}]"
            for expanded in self._pairs(pair, at):
                expanded |= {} if self.alone else {"from_teacher": name}
                self.pairs.append({"pair": expanded, "where": at, "teacher": name})

    def _pairs(self, given: Any, where: str) -> Iterator[dict[str, Any]]:
        missing = [key for key in OF_PAIR if not isinstance(given, Mapping) or key not in given]
        if missing:
            self.reading.problems.add(where, f"needs the keys {', '.join(map(repr, OF_PAIR))}")
            return
        self.reading.strange(given, OF_PAIR, "a pair", where)
        pair = {"student": given["student_module"], "teacher": given["teacher_module"]}
        head = given["head"]
        if plain_type(head) not in ("", HEAD):
            told = (
                f"a head of your own is registered as a loss: @HEADS.register_module() of fxkd.compat ({head['type']})"
            )
            self.reading.notes.add(f"{where}.head", told)
            yield pair | {"loss": {**head, "type": plain_type(head)}}
            return
        if not isinstance(head, Mapping) or not head.get("loss"):
            self.reading.problems.add(f"{where}.head", "needs the key 'loss'")
            return
        self.reading.strange(head, OF_HEAD, HEAD, f"{where}.head")
        options = {new: _module(head[old]) for old, new in CONNECTORS.items() if head.get(old) is not None}
        options |= {"dim_select": head["dim_select"]} if head.get("dim_select") is not None else {}
        for loss in head["loss"] if isinstance(head["loss"], list) else [head["loss"]]:
            yield pair | {"loss": _module(loss)} | options

    def shared(self) -> list[list[dict[str, Any]]]:
        """Give the groups of pairs that every teacher has: one point of the student, one loss of soft labels."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for one in self.pairs:
            same = {key: value for key, value in one["pair"].items() if key not in ("teacher", "from_teacher")}
            if not {"teacher_connector", "dim_select"} & set(same) and temperature(same["loss"]) is not None:
                groups.setdefault(repr(same), []).append(one)
        return [group for group in groups.values() if [one["teacher"] for one in group] == self.names]


def _module(config: Any) -> Any:
    if isinstance(config, list):
        return list(map(_module, config))
    if not isinstance(config, Mapping) or not plain_type(config):
        return config
    kind = plain_type(config)
    return {**{key: value for key, value in config.items() if key != SCOPE}, "type": RENAMED.get(kind, kind)}
