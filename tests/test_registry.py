"""Tests of fxkd/registry.py."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxkd
from fxkd import connectors, losses
from fxkd.errors import SpecError
from fxkd.registry import Registry
from fxkd.registry import connectors as connectors_registry
from fxkd.registry import losses as losses_registry


class Toy(nn.Module):
    def __init__(self, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.scale = scale


@pytest.fixture
def registry() -> Registry:
    """One member, and nothing else to be found in the package it looks through."""
    registry = Registry("toy", "tests.support.models")
    registry.register("Toy", "OldToy")(Toy)
    return registry


def test_get_and_names(registry: Registry) -> None:
    assert registry.get("Toy") is registry.get("OldToy") is Toy
    assert registry.names() == ["OldToy", "Toy"]


def test_a_name_is_given_once(registry: Registry) -> None:
    assert registry.register("Toy")(Toy) is Toy
    with pytest.raises(SpecError, match=r"the toy 'Toy' is tests\.test_registry\.Toy already"):
        registry.register("Toy")(nn.Identity)
    assert registry.get("Toy") is Toy


def test_an_unknown_name_offers_near_ones(registry: Registry) -> None:
    with pytest.raises(SpecError, match=r"^no toy is called 'Toi'\. Did you mean 'Toy'"):
        registry.get("Toi")


@pytest.mark.parametrize("name", [None, 3, ["Toy"], {}, Toy])
def test_a_type_is_a_name(registry: Registry, name: object) -> None:
    with pytest.raises(SpecError, match=r"^the type of a toy is a name, not "):
        registry.get(name)


def test_the_decorators() -> None:
    with pytest.raises(SpecError, match=r"^@fxkd\.loss takes the name under which specs find the class: @fxkd\.loss\("):

        @fxkd.loss  # type: ignore[arg-type]
        class Bare(nn.Module):
            pass

    with pytest.raises(SpecError, match=r"^@fxkd\.connector takes the name"):
        fxkd.connector()
    for wrong in (test_build, object, Toy(1)):
        with pytest.raises(SpecError, match=r"^@fxkd\.loss\('Own'\) decorates a class derived from nn\.Module, not "):
            fxkd.loss("Own")(wrong)  # type: ignore[type-var]
    assert "Own" not in losses_registry.names()


def test_a_name_of_fxkds_own_is_refused_even_before_it_was_looked_up() -> None:
    registry = Registry("loss", "fxkd.losses")
    registry._classes.update(losses_registry._classes)
    with pytest.raises(SpecError, match=r"the loss 'L2Loss' is fxkd\.losses\.l2_loss\.L2Loss already"):
        registry.register("L2Loss")(Toy)


def test_a_class_that_cannot_be_built(registry: Registry) -> None:
    @registry.register("Broken")
    class Broken(nn.Module):
        def __init__(self, parts: list[int], options: dict[str, list[int]]) -> None:
            super().__init__()
            parts.clear()
            options["a"].append(1)
            raise ZeroDivisionError("by nothing")

    config: dict[str, Any] = {"type": "Broken", "parts": [1], "options": {"a": []}}
    with pytest.raises(SpecError, match=r"^Broken: ZeroDivisionError as it was built: by nothing"):
        registry.build(config)
    assert config == {"type": "Broken", "parts": [1], "options": {"a": []}}


# Entry points of other packages


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Install a distribution with these entry points: a folder beside its module."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, lines: str) -> None:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(lines)
        importlib.invalidate_caches()

    (tmp_path / "foreign_losses.py").write_text(
        "import fxkd\nfrom torch import nn\n"
        "class Foreign(nn.Module):\n"
        "    def forward(self, preds_S, preds_T):\n        return (preds_S - preds_T).abs().max()\n"
        "class Widen(nn.Linear):\n    pass\n"
        "@fxkd.loss('Decorated')\nclass Decorated(Foreign):\n    pass\n"
        "NUMBER = 5\n"
    )
    (tmp_path / "foreign_broken.py").write_text("import no_such_library\n")
    yield install
    for module in ("foreign_losses", "foreign_broken"):
        sys.modules.pop(module, None)
    for registry in (losses_registry, connectors_registry):
        for name in ("Foreign", "Widen", "Decorated", "Number"):
            registry._classes.pop(name, None)


GOOD = """[fxkd.losses]
Foreign = foreign_losses:Foreign
Decorated = foreign_losses:Decorated
Number = foreign_losses:NUMBER
Broken = foreign_broken:Loss
Absent = foreign_losses:Absent

[fxkd.connectors]
Widen = foreign_losses:Widen
"""


def test_losses_and_connectors_of_another_package(announce: Callable[[str, str], None]) -> None:
    announce("foreign-losses", GOOD)
    losses_registry.get("L2Loss")
    assert {"Foreign", "Decorated", "Broken", "L2Loss"} <= set(losses_registry.names())
    assert "foreign_losses" not in sys.modules  # nothing is loaded that was not asked for
    pair = {
        "student": "0",
        "teacher": "0",
        "loss": {"type": "Foreign"},
        "student_connector": {"type": "Widen", "in_features": 2, "out_features": 3},
    }
    student, teacher = nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 3))
    distiller = fxkd.prepare(student, teacher, {"pairs": [pair]})
    x = torch.ones(5, 4)
    widened = distiller.connectors["loss_0_student"](student[0](x))
    assert distiller(x).loss.item() == pytest.approx((widened - teacher[0](x)).abs().max().item())
    assert losses_registry.get("Decorated").__module__ == "foreign_losses"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Broken",
            r"^the loss 'Broken' of the package 'foreign-losses' \(foreign_broken:Loss\) cannot be loaded: "
            r"ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("Absent", r"'Absent' of the package 'foreign-losses' .* cannot be loaded: AttributeError: .* 'Absent'"),
        ("Number", r"'Number' of the package 'foreign-losses' .* is no class derived from nn\.Module: 5"),
        ("Foriegn", r"^no loss is called 'Foriegn'\. Did you mean 'Foreign'"),
    ],
)
def test_what_another_package_cannot_give(announce: Callable[[str, str], None], name: str, message: str) -> None:
    announce("foreign-losses", GOOD)
    with pytest.raises(SpecError, match=message):
        losses_registry.get(name)


def test_two_packages_with_one_name(announce: Callable[[str, str], None]) -> None:
    announce("foreign-losses", GOOD)
    announce("second-losses", "[fxkd.losses]\nForeign = second:Foreign\n")
    with pytest.raises(SpecError, match=r"^the loss 'Foreign' is announced by .* and by .*: uninstall one"):
        losses_registry.get("Foreign")


def test_a_broken_package_is_named_with_the_place(announce: Callable[[str, str], None]) -> None:
    announce("foreign-losses", GOOD)
    model = nn.Sequential(nn.Linear(4, 2))
    spec = {"pairs": [{"student": "0", "teacher": "0", "loss": {"type": "Broken"}}]}
    with pytest.raises(SpecError, match=r"^pairs\[0\]\.loss\.type: the loss 'Broken' of the package 'foreign-losses'"):
        fxkd.prepare(model, nn.Sequential(nn.Linear(4, 2)), spec)


def test_build(registry: Registry) -> None:
    config = {"type": "Toy", "width": 3, "scale": 2.0}
    toy = registry.build(config)
    assert isinstance(toy, Toy)
    assert (toy.width, toy.scale) == (3, 2.0)
    assert config == {"type": "Toy", "width": 3, "scale": 2.0}


def test_a_ready_module_is_taken_as_it_is(registry: Registry) -> None:
    toy = Toy(3)
    assert registry.build(toy) is toy


def test_a_sequence_builds_a_chain(registry: Registry) -> None:
    chain = registry.build([{"type": "Toy", "width": 3}, Toy(4)])
    assert isinstance(chain, nn.Sequential)
    assert [toy.width for toy in chain] == [3, 4]


def test_a_wrong_argument_is_named_with_the_signature(registry: Registry) -> None:
    signature = r"it takes \(width: int, \*, scale: float = 1\.0\)"
    with pytest.raises(SpecError, match=rf"^Toy: got an unexpected keyword argument 'widht'; {signature}"):
        registry.build({"type": "Toy", "width": 1, "widht": 3})
    with pytest.raises(SpecError, match=rf"^Toy: missing a required argument: 'width'; {signature}"):
        registry.build({"type": "Toy"})


@pytest.mark.parametrize("config", [{"width": 3}, {"type": 3}, {}, "Toy", None, 4, [{"width": 3}]])
def test_a_config_needs_a_name(registry: Registry, config: object) -> None:
    with pytest.raises(SpecError, match=r"^a toy is built from \{'type': name, \*\*arguments\}, not from "):
        registry.build(config)


def test_files_are_found_and_a_broken_one_is_told_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "family_of_files"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text("raise ImportError('first is broken')")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("toy", package.name)
    for _ in range(2):
        with pytest.raises(ImportError, match="first is broken"):
            registry.names()
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("family", [losses, connectors])
def test_the_packages_show_their_members(family: object) -> None:
    assert "build" in dir(family)
    for name in dir(family):
        assert callable(getattr(family, name))
    with pytest.raises(AttributeError, match="has no attribute 'Missing'"):
        family.Missing  # noqa: B018


def test_every_member_is_a_module_that_lies_in_its_package() -> None:
    """Those of other tests in this process lie in ``tests``."""
    for family in losses, connectors:
        members = [getattr(family, name) for name in set(dir(family)) - {"build"}]
        assert all(issubclass(member, nn.Module) for member in members)
        packages = {member.__module__.rpartition(".")[0] for member in members}
        assert {package for package in packages if package.split(".")[0] != "tests"} == {family.__name__}


# Modules of torch


@pytest.mark.parametrize("family", [losses_registry, connectors_registry])
def test_modules_of_torch_by_their_full_name(family: Registry) -> None:
    assert family.get("torch.nn.SmoothL1Loss") is nn.SmoothL1Loss
    layer = family.build({"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 1})
    assert type(layer) is nn.Conv2d
    assert layer.weight.shape == (4, 3, 1, 1)
    assert not any(name.startswith("torch") for name in family.names())
    with pytest.raises(SpecError, match=r"^Conv2d: missing a required argument: 'kernel_size'; it takes \(in_channels"):
        family.build({"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 4})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch.nn.Conv2D", r"^torch\.nn has no module 'Conv2D'\. Did you mean 'Conv2d'"),
        ("torch.nn.Module", r"^torch\.nn has no module 'Module'\."),
        ("torch.nn.Parameter", r"^torch\.nn has no module 'Parameter'\."),
        ("torch.nn.functional.relu", r"^torch\.nn has no module 'functional\.relu'\."),
        ("torch.Tensor", r"^no connector is called 'torch\.Tensor'\."),
    ],
)
def test_what_torch_does_not_have(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        connectors.build({"type": name})


def test_a_chain_of_many_kinds() -> None:
    chain = connectors.build(
        [
            {"type": "torch.nn.AvgPool2d", "kernel_size": 2},
            {"type": "ConvModuleConnector", "in_channel": 4, "out_channel": 6},
            {"type": "TorchNNConnector", "module_name": "Flatten"},
            nn.Identity(),
        ]
    )
    assert isinstance(chain, nn.Sequential)
    assert chain(torch.zeros(2, 4, 4, 4)).shape == (2, 24)
    assert list(chain.state_dict()) == ["1.conv_module.conv.weight", "1.conv_module.conv.bias"]
