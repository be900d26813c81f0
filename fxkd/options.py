"""How a distillation runs: everything that ``prepare`` takes beside models, spec and inputs, checked."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx.passes.infra.pass_base import PassBase
from torch.nn.modules.batchnorm import _NormBase

from fxkd.errors import Problems, did_you_mean
from fxkd.spec import Spec

BACKENDS = ("graph", "eager")
VERIFY = ("backward", "forward", False)
TEACHER_MODES = (None, "eval", "train", "norm_eval", "own")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a distiller, as ``fxkd.prepare`` describes them."""

    backend: str = "graph"
    compile: Any = "auto"
    verify: Any = "backward"
    teacher_mode: str | None = None
    clone_records: bool = True
    return_records: bool = False
    passes: Iterable[PassBase] | None = None

    def check(self, problems: Problems) -> None:
        """Note every option that means nothing."""
        for name, known in (("backend", BACKENDS), ("verify", VERIFY), ("teacher_mode", TEACHER_MODES)):
            value, choices = getattr(self, name), [choice for choice in known if choice is not None]
            if not any(type(value) is type(choice) and value == choice for choice in known):
                there = ", ".join(map(repr, choices))
                problems.add(name, f"is {value!r}; there is {there}." + did_you_mean(str(value), map(str, choices)))
        for name in ("clone_records", "return_records"):
            if not isinstance(getattr(self, name), bool):
                problems.add(name, f"is {getattr(self, name)!r}; give True or False")
        self._check_compile(problems)
        self._check_passes(problems)

    def _check_compile(self, problems: Problems) -> None:
        if isinstance(self.compile, Mapping):
            takes = list(inspect.signature(torch.compile).parameters)[1:]
            for key in [key for key in self.compile if key not in takes]:
                there = ", ".join(map(repr, takes))
                what = f"unknown option; torch.compile takes {there}."
                problems.add(f"compile.{key}", what + did_you_mean(str(key), takes))
        elif self.compile != "auto" and not isinstance(self.compile, bool):
            what = f"is {self.compile!r}; give 'auto', True, False or a dict of torch.compile's options"
            problems.add("compile", what)

    def _check_passes(self, problems: Problems) -> None:
        if self.passes is not None and not isinstance(self.passes, (list, tuple)):
            problems.add("passes", f"is a {type(self.passes).__name__}; give a tuple of passes")
            return
        for index, one in enumerate(self.passes or ()):
            if not isinstance(one, PassBase):
                what = f"is {one!r}; give an instance of a subclass of torch.fx.passes.infra.pass_base.PassBase"
                problems.add(f"passes[{index}]", what)

    def compile_options(self, student: nn.Module) -> dict[str, Any] | None:
        """Give the options of ``torch.compile``, or None for no compilation."""
        if isinstance(self.compile, Mapping):
            return dict(self.compile)
        wanted = any(p.is_cuda for p in student.parameters()) if self.compile == "auto" else self.compile
        return {} if wanted else None

    def for_spec(self, spec: Spec) -> "Options":
        """Let the spec decide what is left open; a teacher that trains is by default in train mode."""
        by_default = "train" if spec.teacher_trainable else "eval"
        return replace(self, teacher_mode=self.teacher_mode or spec.teacher_mode or by_default)

    def set_mode(self, teacher: nn.Module) -> None:
        """Put a teacher in the mode that ``teacher_mode`` asks for: eval, if it asks for none."""
        if self.teacher_mode == "own":
            return
        teacher.train(self.teacher_mode in ("train", "norm_eval"))
        if self.teacher_mode == "norm_eval":
            for module in teacher.modules():
                if isinstance(module, _NormBase):
                    module.eval()
