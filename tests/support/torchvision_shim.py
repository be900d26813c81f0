"""Lets torchvision be imported beside a PyTorch that its binary does not fit (a CPU-only one).

torchvision's wheel is linked against CUDA. Where that is missing, its operators are not defined, and its import fails
because it describes two of them, ``nms`` and ``qnms``, to the compiler in any case. Their schemas alone are enough.
Nothing happens before something imports torchvision, and nothing at all where its own binary loads.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
keep: list[object] = []  # an operator lives as long as the library that defines it


class BeforeTorchvision:
    """A finder that finds nothing: it defines the operators when torchvision is about to be imported."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        found = importlib.machinery.PathFinder.find_spec(name)
        if found is not None and found.submodule_search_locations:
            define_missing(Path(found.submodule_search_locations[0]))


def define_missing(torchvision: Path) -> None:
    """Define the two schemas unless they are there already or torchvision's own binary loads."""
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        torch.ops.load_library(str(torchvision / "_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + SCHEMA)
        keep.append(library)


def install() -> None:
    """Wait for torchvision; to ask twice in one process does no harm."""
    sys.meta_path.insert(0, BeforeTorchvision())
