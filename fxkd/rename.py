"""Paths of modules as the models of MMRazor's and GML's examples have them, found in another family's models."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fxkd.errors import did_you_mean

# What stands for a module of mmpretrain's and mmdetection's models: the first that the model has is taken.
STANDS_FOR = {
    r"head\.fc": ("fc", "head.fc", "head", "classifier", "classifier.1", "classifier.3"),
    r"neck\.gap": ("global_pool", "avgpool"),
    r"backbone\.(.+)": (r"\1", r"features.\1", r"backbone.\1"),
}
ACTIVATIONS = r"(?:backbone\.)?((?:.+\.)?)relu"  # called once after each layer there, a module each in timm's


@dataclass(frozen=True, kw_only=True, slots=True)
class Renamed:
    """A path that was found, and which call of it is meant where that changed too."""

    path: str
    record_idx: int


def renamed(path: str, record_idx: int, known: Collection[str]) -> Renamed | None:
    """Find ``path`` in a model that has the modules ``known``; nothing if it has none that stands for it.

    >>> renamed("backbone.layer4.1.conv2", 0, ["layer4.1.conv2"]).path
    'layer4.1.conv2'
    >>> renamed("backbone.layer4.1.relu", 1, ["layer4.1.act1", "layer4.1.act2"])
    Renamed(path='layer4.1.act2', record_idx=0)
    """
    if path in known:
        return Renamed(path=path, record_idx=record_idx)
    for pattern, candidates in STANDS_FOR.items():
        match = re.fullmatch(pattern, path)
        for candidate in candidates if match else ():
            if match and match.expand(candidate) in known:
                return Renamed(path=match.expand(candidate), record_idx=record_idx)
    match = re.fullmatch(ACTIVATIONS, path)
    if match and f"{match[1]}act{record_idx + 1}" in known:
        return Renamed(path=f"{match[1]}act{record_idx + 1}", record_idx=0)
    return None


def rename_paths(spec: dict[str, Any], side: str, model: nn.Module, name: str) -> list[str]:
    """Rename, in place, the paths of one side of a spec; give what was not found.

    Args:
        spec: A spec's keys, as plain data.
        side: ``"student"`` or ``"teacher"``.
        model: The model that side will be.
        name: What the model is called in messages.
    """
    modules = {path for path, _ in model.named_modules()}
    parameters = {path for path, _ in model.named_parameters()}
    lost = []
    teachers = spec.get("teacher_ckpt") if side == "teacher" else None
    prefixes = tuple(f"{one}." for one in teachers) if isinstance(teachers, Mapping) else ()
    for where, entry, reads in _points(spec, side):
        given = entry["source"] if "source" in entry else entry[side]
        if not isinstance(given, str) or not str(entry.get("type", "Module")).startswith(("Module", "Parameter")):
            continue
        prefix = next((one for one in prefixes if given.startswith(one)), "")
        calls = sorted({one.get("record_idx", 0) for one in reads}) or [0]
        known = parameters if entry.get("type") == "Parameter" else modules
        found = [renamed(given.removeprefix(prefix), call, known) for call in calls]
        paths = {one.path for one in found if one is not None}
        if None in found or len(paths) > 1:
            near = did_you_mean(given.removeprefix("backbone."), sorted(known))
            more = f" There is a module for each call of it: record {', '.join(sorted(paths))}." if paths else near
            lost.append(f"{where}: {name} has no {given!r} and nothing that stands for it.{more}")
            continue
        entry["source" if "source" in entry else side] = prefix + paths.pop()
        if found[0] is not None and found[0].record_idx != calls[0]:
            for one in reads:
                del one["record_idx"]
    return lost


def _points(spec: Mapping[str, Any], side: str) -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """List the entries of ``side`` that hold a path, each with the references that read it."""
    section = f"{side}_recorders"
    mappings = spec.get("loss_forward_mappings") or {}
    references = [one for mapping in mappings.values() for one in mapping.values() if isinstance(one, dict)]
    own = [one for one in references if one.get("from_student") is (side == "student")]
    found = []
    for name, entry in (spec.get(section) or {}).items():
        if isinstance(entry, dict) and "source" in entry:
            reads = [one for one in own if one.get("recorder") == name or name in _several(one)]
            found.append((f"{section}.{name}.source", entry, reads))
    for index, pair in enumerate(spec.get("pairs") or []):
        if isinstance(pair, dict) and side in pair:
            held = pair[side] if isinstance(pair[side], dict) else pair
            found.append((f"pairs[{index}].{side}", held, [held] if held is not pair else []))
    return found


def _several(reference: Mapping[str, Any]) -> list[Any]:
    return reference["recorder"] if isinstance(reference.get("recorder"), list) else []
