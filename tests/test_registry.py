"""Tests of fxkd/registry.py."""

import sys
from pathlib import Path

import pytest
from torch import nn

from fxkd import connectors, losses
from fxkd.errors import SpecError
from fxkd.registry import Registry


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
    for family in losses, connectors:
        for name in set(dir(family)) - {"build"}:
            member = getattr(family, name)
            assert issubclass(member, nn.Module)
            assert member.__module__.startswith(family.__name__)
