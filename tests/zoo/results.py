"""What came of the models, kept in a file from run to run and read back for the page."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.zoo.compare import CRASHED, EXAMPLE, WRONG, Outcome
from tests.zoo.model import REFUSED, RIGHT

ORDER = (WRONG, CRASHED, REFUSED, RIGHT)  # the worst first


@dataclass(frozen=True)
class Found:
    """What came of one call of one model: the outcome without the model itself."""

    name: str
    family: str
    mode: str
    call: str
    verdict: str
    is_expected: bool
    message: str
    seconds: float | None
    captures: int

    @classmethod
    def of(cls, outcome: Outcome) -> "Found":
        model = outcome.model
        return cls(
            model.name,
            model.family,
            outcome.mode,
            outcome.call,
            outcome.verdict,
            outcome.is_expected,
            outcome.message,
            outcome.seconds,
            outcome.captures,
        )


@dataclass(frozen=True)
class Row:
    """All that came of one model."""

    found: tuple[Found, ...]

    @property
    def name(self) -> str:
        return self.found[0].name

    @property
    def family(self) -> str:
        return self.found[0].family

    @property
    def verdict(self) -> str:
        """The worst that came of any of its calls."""
        return min((one.verdict for one in self.found), key=ORDER.index)

    @property
    def is_expected(self) -> bool:
        """Whether every call came out as it should."""
        return all(one.is_expected for one in self.found)

    @property
    def seconds(self) -> list[float]:
        """How long each capture of an example took."""
        return [one.seconds for one in self.found if one.call == EXAMPLE and one.seconds is not None]

    def in_mode(self, mode: str) -> str:
        """Say what came of it in one mode; "-" where the mode is not compared."""
        verdicts = [one.verdict for one in self.found if one.mode == mode]
        return min(verdicts, key=ORDER.index) if verdicts else "-"


def save(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Put what was found in the place of what the file knew of these models."""
    found = [Found.of(outcome) for outcome in outcomes]
    names = {one.name for one in found}
    kept = [one for one in load(path) if one.name not in names]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(asdict(one)) for one in [*kept, *found]) + "\n", encoding="utf-8")


def load(path: Path) -> list[Found]:
    """Read what was found."""
    if not path.exists():
        return []
    return [Found(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def rows(found: Iterable[Found]) -> list[Row]:
    """Put together what was found of each model."""
    by_name: dict[str, list[Found]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    return [Row(tuple(ones)) for ones in by_name.values()]
