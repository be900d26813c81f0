"""What one call of a distiller gives."""

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


class DistillOutput(dict[str, Any]):
    """A dict whose entries are attributes too; a pytree, so that hosts and ``torch.compile`` can look inside.

    Args:
        loss: What to call ``backward`` on: the losses that train plus the student's own; None where there is none.
        student_loss: The student's own (ground-truth) loss, or None.
        losses: Each distillation loss by name, as its module gives it (weighted), as one number.
        output: What the student itself returned, its type unchanged.
        records: ``{"student": {name: [value of each call]}, "teacher": ...}``, only with ``return_records=True``.

    >>> out = DistillOutput(loss=1.0, student_loss=None, losses={"loss_kl": 1.0}, output=None, records=None)
    >>> out.losses["loss_kl"], out["loss"]
    (1.0, 1.0)
    """

    loss: Tensor | None
    student_loss: Tensor | None
    losses: dict[str, Tensor]
    output: Any
    records: dict[str, dict[str, list[Any]]] | None

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        output = self.get("output")
        if name == "logits" and isinstance(output, dict) and name in output:
            return output[name]
        if name == "logits" and hasattr(output, name):
            return output.logits  # type: ignore[union-attr]
        raise AttributeError(f"a DistillOutput has {', '.join(map(repr, self))}, no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def _flatten(output: DistillOutput) -> tuple[list[Any], tuple[str, ...]]:
    return list(output.values()), tuple(output)


def _flatten_with_keys(output: DistillOutput) -> tuple[list[tuple[pytree.KeyEntry, Any]], tuple[str, ...]]:
    return [(pytree.MappingKey(key), value) for key, value in output.items()], tuple(output)


def _unflatten(values: Any, keys: tuple[str, ...]) -> DistillOutput:
    return DistillOutput(zip(keys, values, strict=True))


pytree.register_pytree_node(
    DistillOutput,
    _flatten,
    _unflatten,
    serialized_type_name="fxkd.output.DistillOutput",
    flatten_with_keys_fn=_flatten_with_keys,
)
