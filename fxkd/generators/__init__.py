"""The generators a data-free distillation can name; each file registers its own, classes can be imported from here."""

from torch import nn

from fxkd import registry

build = registry.generators.build


def __getattr__(name: str) -> type[nn.Module]:
    if name in registry.generators.names():
        return registry.generators.get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["build", *registry.generators.names()]
