"""How far a distillation is: what schedules go by, and when it is over."""

from collections.abc import Sequence

from torch import nn

from fxkd.schedule import Scheduled


class Progress(nn.Module):
    """Count epochs and move what is scheduled; the count is in the state dict.

    Args:
        scheduled: The numbers that move.
        stop_epoch: After how many epochs the distillation is over, if ever.

    >>> progress = Progress([], stop_epoch=2)
    >>> progress.advance(), progress.advance(), progress.is_over
    (None, None, True)
    """

    def __init__(self, scheduled: Sequence[Scheduled], stop_epoch: int | None) -> None:
        super().__init__()
        self.scheduled, self.stop_epoch, self.steps = list(scheduled), stop_epoch, 0

    @property
    def is_over(self) -> bool:
        """Whether the epoch has come at which the distillation ends."""
        return self.stop_epoch is not None and self.steps >= self.stop_epoch

    def advance(self) -> None:
        """Go on by one."""
        self.set_extra_state(self.steps + 1)

    def get_extra_state(self) -> int:
        """Give how far it is."""
        return self.steps

    def set_extra_state(self, state: int) -> None:
        """Go to where a state dict says, and set every number as it is there."""
        self.steps = state
        for one in self.scheduled:
            one.put(state)
