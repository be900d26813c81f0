"""Many examples, and what came of them."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, event, given, seed, settings

from tests.fuzz.compare import PlainRaises, Refused, check
from tests.fuzz.example import Example, examples

MOST_REFUSED = 0.1
TOLD = 250  # how often a long run says where it is
logging.getLogger("torch._subclasses.fake_tensor").disabled = True  # that a size is not taken is no news


class WrongExample(Exception):
    """An example that is wrong: its number, itself and what happened."""

    def __init__(self, number: int, example: Example, error: Exception) -> None:
        lines = "".join(traceback.format_exception(error)[-3:])
        super().__init__(f"wrong, number {number}: {example}\n{lines}")


@dataclass
class Tally:
    """What came of a run: how many examples of each kind, why some were refused, and which are wrong."""

    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[WrongExample] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of examples."""
        return self.kinds.total()

    @property
    def refused(self) -> float:
        """The part of them that fxkd refuses."""
        return self.kinds["refused"] / max(self.count, 1)

    def add(self, example: Example) -> None:
        """Run an example and count it.

        Raises:
            WrongExample: fxkd gives something else than plain PyTorch, or raises an error that is not its own.
        """
        try:
            kind = check(example)
        except (Refused, PlainRaises) as reason:
            kind = "refused" if isinstance(reason, Refused) else "plain PyTorch raises"
            self.reasons[f"{kind}: {str(reason).splitlines()[0][:110]}"] += 1
        except Exception as error:
            self.kinds["wrong"] += 1
            wrong = WrongExample(self.count, example, error)
            self.wrong.append(wrong)
            raise wrong from error
        self.kinds[kind] += 1
        event(kind)

    def table(self) -> str:
        """Say it in lines."""
        kinds = [f"{count:6} {count / self.count:7.2%}  {kind}" for kind, count in self.kinds.most_common()]
        reasons = [f"{count:6}  {reason}" for reason, count in self.reasons.most_common()]
        return "\n".join([f"{self.count:6} examples", *kinds, *reasons])


def run(count: int, number: int, *, depth: int = 1, goes_on: bool = True, shrinks: bool = False) -> Tally:
    """Run ``count`` examples drawn from the seed ``number``.

    Args:
        count: How many.
        number: The seed.
        depth: How deep blocks lie in blocks.
        goes_on: Whether to go on after a wrong example; else the first one is raised.
        shrinks: Whether a wrong example is made as small as it can be before it is raised.
    """
    tally = Tally()
    test: Callable[[], None] = given(examples(depth))(lambda example: one(tally, example, goes_on=goes_on))
    phases = [Phase.generate, Phase.shrink] if shrinks else [Phase.generate]
    how = settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        derandomize=False,
    )
    seed(number)(how(test))()
    return tally


def one(tally: Tally, example: Example, *, goes_on: bool) -> None:
    """Run one of them."""
    try:
        tally.add(example)
    except WrongExample as wrong:
        if not goes_on:
            raise
        print(wrong, flush=True)
    if goes_on and tally.count % TOLD == 0:
        print(tally.table(), flush=True)
