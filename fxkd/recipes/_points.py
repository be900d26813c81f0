"""Find in a run of a model what recipes compare: the classifier, what it takes, stages, normalisations."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from fxkd.capture.structure import storages, tensors
from fxkd.errors import SpecError
from fxkd.recipes._seen import Call, Seen
from fxkd.recipes._spots import Spot, spot_of, spot_of_input


def logits(seen: Seen) -> Spot:
    """Find what gives the class logits: the last linear layer or convolution, or else the model itself.

    It is the one whose result the model returns, else the last whose result has as many classes as what is returned.

    Raises:
        SpecError: The model returns no logits (N, C) or (N, C, H, W).
    """
    head, whole = classifier(seen), len(seen.root.shape)
    if head is not None and not (len(head.shape) == 4 and whole == 2):  # a 1x1 convolution, flattened by the model
        return spot_of(head, seen)
    if whole in (2, 4):
        return spot_of(seen.root, seen)
    raise SpecError([f"{seen.side}_point: {_who(seen)} returns no logits (N, C) or (N, C, H, W) of a layer: name them"])


def classifier(seen: Seen) -> Call | None:
    """Find the layer that gives the logits, or nothing."""
    value = seen.root.value
    allowed = (2,) if isinstance(value, (tuple, list)) else (2, 4)  # several maps are features, not logits
    returned = next((tensor for tensor in tensors(value) if tensor.dim() in allowed), None)
    if returned is None:
        return None
    layers = [call for call in seen.root.all_inside() if _is_layer(call) and len(call.shape) in (2, 4)]
    fitting = [call for call in layers if call.shape[:2] == tuple(returned.shape[:2])]
    returning = [call for call in fitting if storages(call.value) & storages(returned)]
    return next(reversed(returning or fitting), None)


def pooled(seen: Seen) -> Spot:
    """Find the feature that the classifier takes.

    Raises:
        SpecError: No layer gives the logits.
    """
    head = classifier(seen)
    if head is None or not head.args or not isinstance(head.args[0], Tensor):
        raise SpecError([f"{seen.side}_point: {_who(seen)} has no layer that makes logits of one feature: name it"])
    return spot_of_input(head, seen, 0)


def stages(seen: Seen) -> dict[tuple[int, int], Call]:
    """Find what each stage gives, by height and width: the last map of a size before a smaller one follows.

    A stage is a part of the model with at least two layers, unless no more than one part has them; maps of one position
    are none, nor is the stem. A model that goes over to tokens (N, L, C) has no stages.
    """
    line = list(_line(seen.root, seen))
    if any(not _is_map(call, seen) for call in line):
        return {}
    last, deep = _last_of_each_size(line), _last_of_each_size(call for call in line if _layers(call.module) > 1)
    stem = next(iter(last), None)
    if stem in deep and deep[stem] is not last[stem]:  # convolutions with an activation of their own behind
        del deep[stem]
    return deep if len(deep) > 1 else last


def _last_of_each_size(line: Iterable[Call]) -> dict[tuple[int, int], Call]:
    found: dict[tuple[int, int], Call] = {}
    for call in line:
        if not found or _area(call) <= min(map(_area, found.values())):  # what is enlarged again is no stage
            found[_size(call)] = call
    return found


def last_norm(stage: Call) -> Call | None:
    """Find the batch normalisation before the last activation of a stage: the one behind the most layers."""
    norms = [
        call
        for call in (stage, *stage.all_inside())
        if isinstance(call.module, (nn.BatchNorm2d, nn.SyncBatchNorm)) and call.shape == stage.shape
    ]
    plain = [call for call in norms if all(type(inner.module) is nn.Identity for inner in call.inside)]
    return max(reversed(plain), key=lambda call: call.after, default=None)


def described(seen: Seen) -> str:
    """Say which stages were found, by stride."""
    strides = [f"{call.path!r} ({_stride(size, seen)})" for size, call in stages(seen).items()]
    return ", ".join(strides) or "none"


def _stride(size: tuple[int, int], seen: Seen) -> str:
    height, width = size
    return f"stride {seen.image[0] / height:g}" if seen.image else f"{height}x{width}"


def _line(call: Call, seen: Seen) -> Iterator[Call]:
    """Yield maps and tokens in the order of the program, as whole as can be: of parts that shrink at most once."""
    is_map = _is_map(call, seen)
    if call is not seen.root and ((is_map and not _passes_sizes(call, seen)) or len(call.shape) == 3):
        yield call
        return
    for inner in call.inside:
        yield from _line(inner, seen)
    if is_map and not any(inner.value is call.value for inner in call.all_inside()):
        yield call


def _passes_sizes(call: Call, seen: Seen) -> bool:
    """Tell whether there are sizes inside between that of what goes in and that of what comes out."""
    before = max((tensor.shape[2] * tensor.shape[3] for tensor in call.given if tensor.dim() == 4), default=0)
    between = {_area(inner) for inner in call.all_inside() if _is_map(inner, seen)}
    return any(_area(call) < area < before for area in between)


def _is_map(call: Call, seen: Seen) -> bool:
    """Tell whether a call gave (N, C, H, W) with more than one position, of the image's proportions."""
    if len(call.shape) != 4 or _area(call) <= 1:
        return False
    height, width = _size(call)
    tall, wide = seen.image or (height, width)
    return abs(height * wide - width * tall) <= max(tall, wide)


def _is_layer(call: Call) -> bool:
    return isinstance(call.module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and isinstance(call.value, Tensor)


def _layers(module: nn.Module) -> int:
    return sum(any(parameter.dim() > 1 for parameter in one.parameters(recurse=False)) for one in module.modules())


def _size(call: Call) -> tuple[int, int]:
    return call.shape[2], call.shape[3]


def _area(call: Call) -> int:
    return call.shape[2] * call.shape[3]


def _who(seen: Seen) -> str:
    return f"the {seen.side} ({type(seen.model).__name__})"
