"""Ways in which the six sections are found written, brought to one."""

from collections.abc import Mapping
from typing import Any

from fxkd.configs.reading import SCOPE, Reading, plain_type, without_scope

RENAMED = {"ConvModuleConncetor": "ConvModuleConnector"}
RECORDERS = ("student_recorders", "teacher_recorders")
SECTIONS = (*RECORDERS, "distill_deliveries", "connectors", "distill_losses", "loss_forward_mappings")
HOSTS = ("mmcls", "mmpretrain")
CROSS_ENTROPIES = {f"{host}.{name}" for host in HOSTS for name in ("CrossEntropyLoss", "LabelSmoothLoss")}
OPTIONS = ("type", "loss_weight", "reduction", "label_smooth_val", "use_sigmoid", "use_soft", "num_classes", "mode")
ARGUMENTS = {"cls_score": "input", "label": "target"}


def one_spelling(given: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Read the six sections however they are spelt.

    Prefixes of packages, ``from_recorder`` and ``sources``, types such as ``ModuleOutputsRecorder``, and
    mmpretrain's cross-entropy, which is torch's.

    >>> from fxkd.errors import Problems
    >>> given = {"student_recorders": {"fc": {"type": "mmrazor.ModuleOutputs", "sources": "head.fc"}}}
    >>> one_spelling(given, Reading(Problems(), Problems()))
    {'student_recorders': {'fc': {'type': 'ModuleOutputs', 'source': 'head.fc'}}}
    """
    spec = {key: _unscoped(part) if key in SECTIONS else part for key, part in given.items() if key != SCOPE}
    for section in RECORDERS:
        _each(spec, section, lambda entry: _recorder(entry, "Recorder"))
    _each(spec, "distill_deliveries", lambda entry: _recorder(entry, "Delivery"))
    _each(spec, "loss_forward_mappings", _mapping)
    _torch_losses(spec, reading)
    for section in ("connectors", "distill_losses"):
        _each(spec, section, _module)
    return spec


def _unscoped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unscoped(part) for key, part in value.items() if key != SCOPE}
    return list(map(_unscoped, value)) if type(value) is list else value


def _each(spec: dict[str, Any], section: str, change: Any) -> None:
    entries = spec.get(section)
    if isinstance(entries, Mapping):
        spec[section] = {name: change(entry) for name, entry in entries.items()}
    elif isinstance(entries, list):
        spec[section] = list(map(change, entries))


def _recorder(entry: Any, suffix: str) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    renamed = {("source" if key == "sources" and "source" not in entry else key): v for key, v in entry.items()}
    return renamed | ({"type": plain_type(entry).removesuffix(suffix)} if plain_type(entry) else {})


def _module(config: Any) -> Any:
    if isinstance(config, list):
        return list(map(_module, config))
    name = plain_type(config)
    return {**config, "type": RENAMED.get(name, name)} if name else config


def _mapping(mapping: Any) -> Any:
    return {name: _reference(one) for name, one in mapping.items()} if isinstance(mapping, Mapping) else mapping


def _reference(given: Any) -> Any:
    if not isinstance(given, Mapping) or "from_recorder" not in given or "recorder" in given:
        return given
    return {("recorder" if key == "from_recorder" else key): value for key, value in given.items()}


def _torch_losses(spec: dict[str, Any], reading: Reading) -> None:
    """Write mmpretrain's cross-entropy as torch's, whose arguments have other names."""
    losses, mappings = spec.get("distill_losses"), spec.get("loss_forward_mappings")
    if not isinstance(losses, Mapping):
        return
    found = [name for name, config in losses.items() if isinstance(config, Mapping) and is_cross_entropy(config)]
    for name in found:
        spec["distill_losses"] = {**spec["distill_losses"], name: cross_entropy(losses[name], name, reading)}
        if isinstance(mappings, Mapping) and isinstance(mappings.get(name), Mapping):
            renamed = {ARGUMENTS.get(key, key): value for key, value in mappings[name].items()}
            spec["loss_forward_mappings"] = {**spec["loss_forward_mappings"], name: renamed}
            for old, new in ARGUMENTS.items():
                reading.move(f"loss_forward_mappings.{name}.{old}", f"loss_forward_mappings.{name}.{new}")


def is_cross_entropy(config: Mapping[str, Any]) -> bool:
    """Tell whether a loss is mmpretrain's cross-entropy; the one without prefix is MMRazor's, with a teacher."""
    kind = config.get("type")
    return isinstance(kind, str) and kind in CROSS_ENTROPIES


def cross_entropy(config: Mapping[str, Any], name: str, reading: Reading) -> dict[str, Any]:
    """Write a cross-entropy of mmpretrain as the loss of torch.nn that it is."""
    where = f"distill_losses.{name}"
    reading.strange(config, OPTIONS, "torch's cross-entropy, which is put in its place,", where)
    for key in ("use_sigmoid", "use_soft"):
        if config.get(key):
            reading.problems.add(f"{where}.{key}", "only class labels with a softmax are read: register your own loss")
    kept = {key: config[key] for key in ("loss_weight", "reduction") if key in config}
    smooth = {"label_smoothing": config["label_smooth_val"]} if "label_smooth_val" in config else {}
    kind = without_scope(str(config["type"]))
    reading.notes.add(where, f"{kind!r} is written as 'torch.nn.CrossEntropyLoss', its arguments as input and target")
    return {"type": "torch.nn.CrossEntropyLoss", **kept, **smooth}
