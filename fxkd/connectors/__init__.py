"""The connectors a spec can name; each file registers its own, every class can be imported from here by its name."""

from torch import nn

from fxkd import registry

build = registry.connectors.build


def __getattr__(name: str) -> type[nn.Module]:
    if name in registry.connectors.names():
        return registry.connectors.get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["build", *registry.connectors.names()]
