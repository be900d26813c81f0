"""The losses a spec can name; each file registers its own, every class can be imported from here by its name.

All of them compute and return float32 where they are given float16 or bfloat16, take any layout of memory, and cost 0
with a zero gradient where the batch is empty. Their ``kind`` is ``"response"``, ``"feature"``, ``"relation"`` or
``"data-free"``.
"""

from torch import nn

from fxkd import registry

build = registry.losses.build


def __getattr__(name: str) -> type[nn.Module]:
    if name in registry.losses.names():
        return registry.losses.get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["build", *registry.losses.names()]
