"""The gradient at a point: the eighth recorder, which MMRazor does not have."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fxkd.eager.recorder import Recorder
from fxkd.gradients import gradient, tracked
from fxkd.points import find_module


class ModuleGradientsRecorder(Recorder):
    """Record the gradient of a loss with respect to what a module returned; ``compute`` takes it after the run.

    Args:
        source: Exact path of the module in the model, aliases of shared modules included; ``''`` is the model.
        clone: No difference: a gradient is a tensor of its own.

    Raises:
        PointError: From ``initialize``, the model has no such module; on entering, it was not initialised; in a call,
            the module gives no tensor; from ``compute``, the loss does not depend on it, or runs without gradients.

    >>> import torch
    >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False))
    >>> recorder = ModuleGradientsRecorder("0")
    >>> recorder.initialize(model)
    >>> with recorder:
    ...     loss = model(torch.ones(1, 2)).sum()
    >>> recorder.compute(loss)
    >>> bool(torch.equal(recorder.get_record_data(), model[1].weight))
    True
    """

    values: list[Tensor]

    def compute(self, loss: Tensor, *, keep: bool = False) -> None:
        """Fill ``data_buffer`` with the gradients of ``loss``, call by call; with ``keep`` gradients flow through."""
        self.data_buffer = [gradient(loss, value, keep, str(self)) for value in self.values]

    def _find(self, model: nn.Module | None) -> nn.Module:
        return find_module(model, self.source)

    @contextmanager
    def _watch(self) -> Iterator[None]:
        self.values = []

        def see(module: nn.Module, args: Any, output: Any) -> Tensor:
            self.values.append(tracked(output, str(self)))
            return self.values[-1].clone()  # what is written to later does not change the value at the point

        with self._source().register_forward_hook(see):
            yield
