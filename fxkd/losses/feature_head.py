"""A head: a loss that owns its connectors."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fxkd import registry
from fxkd.errors import SpecError
from fxkd.registry import loss


@loss("FeatureDistillationHead")
class FeatureDistillationHead(nn.Module):
    """Send the student's and the teacher's value each through its connector and compare them by one or more losses.

    The head of GML's toolbox. Its parameters belong to ``distiller.losses``.

    Args:
        loss: Config of the loss, or a list of several, which are summed; each takes the two values as its first two
            arguments.
        stu_connector: Config of the student's connector, or a list of them; None leaves the value as it is.
        tea_connector: The same for the teacher.
        dim_select: Part of a dimension to take of both values first: arguments of ``SelectConnector``.

    Shape:
        Whatever the connectors and losses take.

    Raises:
        SpecError: A config names no such loss or connector.

    >>> import torch
    >>> widen = {"type": "LinearConnector", "in_features": 2, "out_features": 3}
    >>> head = FeatureDistillationHead({"type": "L1Loss", "loss_weight": 2}, stu_connector=widen)
    >>> head(torch.ones(1, 2), torch.ones(1, 3)).shape
    torch.Size([])
    """

    def __init__(
        self,
        loss: Any,
        stu_connector: Any = None,
        tea_connector: Any = None,
        dim_select: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        several = loss if isinstance(loss, (list, tuple)) else [loss]
        if not several:
            raise SpecError(["FeatureDistillationHead: loss is an empty list; give a config, or a list of them."])
        self.losses = nn.ModuleList(map(registry.losses.build, several))
        self.stu_connector, self.tea_connector = _built(stu_connector, dim_select), _built(tea_connector, dim_select)

    def forward(self, student: Any, teacher: Any) -> Tensor:
        student, teacher = self.stu_connector(student), self.tea_connector(teacher)
        total: Tensor = sum(loss(student, teacher) for loss in self.losses)
        return total


def _built(config: Any, dim_select: Mapping[str, Any] | None) -> nn.Module:
    first = [] if dim_select is None else [{"type": "SelectConnector", **dim_select}]
    after = [] if config is None else list(config) if isinstance(config, (list, tuple)) else [config]
    return nn.Identity() if not (first or after) else registry.connectors.build([*first, *after])
