"""Two shapes -> the config of a connector that makes the one the other."""

import math
from collections.abc import Iterator
from typing import Any

from fxkd.errors import SpecError

Shape = tuple[int, ...]
Step = dict[str, Any]


def fitting(given: Shape, wanted: Shape) -> Step | list[Step]:
    """Choose what changes as little as can be, and is linear: a config, or a list of them.

    Channels are mapped by a 1x1 convolution or a matrix; maps are pooled where they shrink in both directions, else
    interpolated; tokens of patches are laid out as a map, a map is read as tokens, and a token that comes before those
    of the patches is left out, or stood in for by zeros.

    Args:
        given: The shape of what goes through the connector.
        wanted: The shape that it must get.

    Raises:
        SpecError: Nothing simple makes the one the other; says what to do.

    >>> fitting((8, 64, 16, 16), (8, 256, 16, 16))
    {'type': 'ConvModuleConnector', 'in_channel': 64, 'out_channel': 256, 'act_cfg': None}
    >>> for step in fitting((8, 512, 7, 7), (8, 197, 384)):
    ...     print(step)
    {'type': 'ConvModuleConnector', 'in_channel': 512, 'out_channel': 384, 'act_cfg': None}
    {'type': 'ResizeConnector', 'size': [14, 14]}
    {'type': 'MapToTokensConnector', 'prefix_tokens': 1}
    """
    if given == wanted:
        return {"type": "torch.nn.Identity"}
    steps = list(_steps(given, wanted)) if given[:1] == wanted[:1] else []
    if not steps:
        raise SpecError([f"'auto' cannot make {given} fit {wanted}: {_advice(given, wanted)}"])
    return steps[0] if len(steps) == 1 else steps


def _steps(given: Shape, wanted: Shape) -> Iterator[Step]:
    """Give one step after the other, or none."""
    match len(given), len(wanted):
        case 4, 4:
            yield from _map_to_map(given, wanted)
        case 4, 3 if sides := _sides(wanted[1], given[2:]):
            yield from _map_to_map(given, (*wanted[:1], wanted[2], *sides))
            yield _with_prefix("MapToTokensConnector", {}, wanted[1] - math.prod(sides))
        case 3, 4 if sides := _sides(given[1], wanted[2:]):
            yield _to_map(sides, given[1])
            yield from _map_to_map((*given[:1], given[2], *sides), wanted)
        case 4, 2:
            yield {"type": "torch.nn.AdaptiveAvgPool2d", "output_size": 1}
            yield {"type": "torch.nn.Flatten"}
            yield from _linear(given[1], wanted[1])
        case (2, 2) | (3, 3) if given[:-1] == wanted[:-1]:
            yield from _linear(given[-1], wanted[-1])
        case 3, 3 if abs(given[1] - wanted[1]) == 1:
            yield from _one_token(given[1], wanted[1])
            yield from _linear(given[2], wanted[2])


def _map_to_map(given: Shape, wanted: Shape) -> Iterator[Step]:
    """Change channels and size; the two commute, so the one that makes the other cheaper comes first."""
    steps = [*_resize(given[2:], wanted[2:]), *_conv(given[1], wanted[1])]
    yield from steps if math.prod(wanted[2:]) < math.prod(given[2:]) else reversed(steps)


def _conv(given: int, wanted: int) -> Iterator[Step]:
    if given != wanted:
        yield {"type": "ConvModuleConnector", "in_channel": given, "out_channel": wanted, "act_cfg": None}


def _resize(given: Shape, wanted: Shape) -> Iterator[Step]:
    if given != wanted:
        shrinks = all(after <= before for before, after in zip(given, wanted, strict=True))
        yield {"type": "ResizeConnector", "size": list(wanted)} | ({"mode": "pool"} if shrinks else {})


def _linear(given: int, wanted: int) -> Iterator[Step]:
    if given != wanted:
        yield {"type": "LinearConnector", "in_features": given, "out_features": wanted}


def _sides(tokens: int, sides: Shape) -> Shape | None:
    """Give height and width of the map that tokens are: the partner's if they fit it, else a square's."""
    for patches in tokens, tokens - 1:
        if patches == math.prod(sides):
            return sides
    for patches in tokens, tokens - 1:
        root = math.isqrt(patches)
        if root**2 == patches > 0:
            return root, root
    return None


def _to_map(sides: Shape, tokens: int) -> Step:
    laid_out = {"height": sides[0], "width": sides[1]}
    return _with_prefix("TokensToMapConnector", laid_out, tokens - math.prod(sides))


def _with_prefix(name: str, options: Step, prefix: int) -> Step:
    return {"type": name} | options | ({"prefix_tokens": prefix} if prefix else {})


def _one_token(given: int, wanted: int) -> Iterator[Step]:
    """Leave out the first token, or put zeros before the first: as a map of one row."""
    yield _to_map((1, min(given, wanted)), given)
    yield _with_prefix("MapToTokensConnector", {}, wanted - min(given, wanted))


def _advice(given: Shape, wanted: Shape) -> str:
    """Say what to do instead."""
    if given[:1] != wanted[:1]:
        return "the first axis, the samples, differs, and no connector changes it; choose other points"
    match len(given), len(wanted):
        case 3, 3:
            return (
                "tokens of different numbers; choose points of one length, for (N, C, L) write out a "
                "ConvModuleConnector with 'conv_cfg: {type: Conv1d}', for patches a list of TokensToMapConnector, "
                "ResizeConnector and MapToTokensConnector"
            )
        case (3, 4) | (4, 3):
            return (
                "the tokens are no map, neither of the partner's height and width nor a square, with or without a "
                "class token; write out TokensToMapConnector or MapToTokensConnector with their prefix_tokens"
            )
        case 3, 2:
            return "write out a connector that picks one token, or that takes their mean"
        case 2, (3 | 4):
            return "a vector has no positions; put 'auto' on the other side, which then is pooled"
    return "write out a connector, or a module of your own in its place"
