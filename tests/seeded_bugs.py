"""Plant bugs in a throw-away copy of the checkout, one at a time, and show that the tests find each of them.

    python tests/seeded_bugs.py [--trust] [name ...]

Without names all are planted. The tests chosen for a bug must pass before it is planted (``--trust`` skips this).
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 180  # seconds for one selection of tests
NOT_FOUND_BY_A_TEST = re.compile(r"\b(Import|ModuleNotFound|Syntax|Indentation|Name)Error\b")


@dataclass(frozen=True, slots=True)
class Bug:
    """A wrong edit.

    Args:
        name: What is wrong.
        file: Where, from the root of the checkout.
        old: What stands there, once in the file.
        new: What is put there.
        tests: The files of tests that must find it, separated by blanks.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def planted(self, root: Path) -> str:
        """Give the text of the file with the bug in it.

        Raises:
            LookupError: ``old`` is not there exactly once.
        """
        text = (root / self.file).read_text()
        if (count := text.count(self.old)) != 1:
            raise LookupError(f"{self.name}: its text is {count} times in {self.file}, not once: {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run of tests: ``green``, ``caught``, ``hung`` or ``broken``; the test that said so; seconds."""

    kind: str
    by: str
    seconds: float


BUGS = (
    Bug(
        "clone-dropped",
        "passes/protect_records.py",
        "            _clone_under(graph, node)\n",
        "            pass\n",
        "tests/passes/test_protect_records.py",
    ),
    Bug(
        "delivery-not-protected",
        "passes/protect_records.py",
        '        if memory & node.meta.get("mutates", frozenset()):\n            return True\n',
        "",
        "tests/passes/test_protect_records.py",
    ),
    Bug(
        "deliveries-last-in-first-out",
        "passes/insert_deliveries.py",
        "in zip(given, taken, strict=False)",
        "in zip(given[::-1], taken, strict=False)",
        "tests/passes/test_insert_deliveries.py",
    ),
    Bug(
        "memory-not-renamed",
        "passes/insert_deliveries.py",
        'taken.meta["side"], target.meta.get("storages", frozenset()), taken.meta["storages"])',
        'taken.meta["side"], frozenset(), frozenset())',
        "tests/passes/test_insert_deliveries.py",
    ),
    Bug(
        "inputs-not-shared-memory",
        "passes/join.py",
        'rename_memory(graph, side, old.meta["storages"], new.meta["storages"])',
        "pass",
        "tests/passes/test_join.py",
    ),
    Bug(
        "teacher-with-gradients",
        "passes/join.py",
        "_set_grad_enabled, (False,))",
        "_set_grad_enabled, (True,))",
        "tests/passes/test_join.py",
    ),
    Bug(
        "grad-mode-stays-off",
        "passes/join.py",
        "graph.call_function(torch._C._set_grad_enabled, (previous,))",
        "pass",
        "tests/passes/test_join.py",
    ),
    Bug(
        "grad-mode-lost-when-a-model-raises",
        "fxkd/graph_backend.py",
        "            torch.set_grad_enabled(grad)\n",
        "            pass\n",
        "tests/test_graph_backend.py",
    ),
    Bug(
        "guards-pruned",
        "passes/prune.py",
        'node.target in GUARDS or bool(node.meta.get("effect"))',
        'bool(node.meta.get("effect"))',
        "tests/passes/test_prune.py",
    ),
    Bug(
        "guards-behind-the-last-node-pruned",
        "passes/prune.py",
        'for key in ("side", "returns")}',
        'for key in ("side",)}',
        "tests/test_graph_backend.py",
    ),
    Bug(
        "record-before-its-guard",
        "fxkd/capture/tape.py",
        "later.target is guard or memory &",
        "memory &",
        "tests/test_graph_backend.py",
    ),
    Bug(
        "state-pruned",
        "passes/prune.py",
        'return bool(node.meta.get("stateful")) or ',
        "return ",
        "tests/passes/test_prune.py",
    ),
    Bug(
        "writes-pruned",
        "passes/prune.py",
        "    lasting = written & kept\n",
        "    return False\n    lasting = written & kept\n",
        "tests/passes/test_prune.py",
    ),
    Bug(
        "record-index-off-by-one",
        "passes/insert_losses.py",
        "records[source.record_idx]",
        "records[source.record_idx - 1]",
        "tests/passes/test_insert_losses.py",
    ),
    Bug(
        "every-loss-trains",
        "passes/insert_losses.py",
        'for name, node in losses.items() if "loss" in name]',
        "for name, node in losses.items()]",
        "tests/passes/test_insert_losses.py",
    ),
    Bug(
        "own-loss-dropped",
        "passes/insert_losses.py",
        "for node in (own, taught, distilled) if",
        "for node in (taught, distilled) if",
        "tests/passes/test_insert_losses.py",
    ),
    Bug(
        "own-weight-ignored",
        "fxkd/spec/build.py",
        "weighted = Weighted(built, given.weight)",
        "weighted = Weighted(built, 1.0)",
        "tests/test_schedules.py",
    ),
    Bug(
        "connector-skipped",
        "passes/insert_losses.py",
        "    if source.connector is not None:\n",
        "    if source.connector is not None and source.connector_idx is not None:\n",
        "tests/passes/test_insert_losses.py",
    ),
    Bug(
        "loss-weight-ignored",
        "fxkd/losses/at_loss.py",
        "return self.loss_weight * ",
        "return ",
        "tests/losses/test_at_loss.py",
    ),
    Bug(
        "guard-never-added",
        "fxkd/capture/tape.py",
        "            self.graph.call_function(guard, (*key, current_line()))\n",
        "            pass\n",
        "tests/test_graph_backend.py",
    ),
    Bug(
        "guard-never-fails",
        "fxkd/capture/guards.py",
        "    if not COMPARISONS[comparison](left, right):\n",
        "    if False:\n",
        "tests/test_graph_backend.py",
    ),
    Bug(
        "writes-not-noted",
        "fxkd/capture/recording.py",
        "changed = written(before) | _moved_statistics(func, args, kwargs)",
        "changed: frozenset[int] = frozenset()",
        "tests/capture/test_recording.py",
    ),
    Bug(
        "held-attributes-not-compared",
        "fxkd/capture/held.py",
        "return bool(form_of(read(self.module, self.name)) == self.form)",
        "return True",
        "tests/capture/test_held.py",
    ),
    Bug(
        "sizes-always-free",
        "fxkd/capture/run.py",
        "        return tries.frozen()\n",
        "        return []\n",
        "tests/capture/test_run.py",
    ),
    Bug(
        "unsteady-forward-accepted",
        "fxkd/capture/run.py",
        "                if not steady or _is_steady(plan, known, tape, first):\n",
        "                if True:\n",
        "tests/capture/test_run.py",
    ),
    Bug(
        "random-states-not-put-back",
        "fxkd/capture/preserve.py",
        "        set_random_states(states)\n",
        "",
        "tests/capture/test_preserve.py",
    ),
    Bug(
        "one-modes-constants-for-both",
        "fxkd/modes.py",
        "            elif not same_constant(x, y):\n",
        "            elif False:\n",
        "tests/test_modes.py",
    ),
    Bug(
        "chosen-constants-swapped",
        "fxkd/modes.py",
        "constants if is_training else constants[::-1]",
        "constants[::-1] if is_training else constants",
        "tests/test_modes.py",
    ),
    Bug(
        "statistics-move-twice-after-a-guard",
        "fxkd/graph_backend.py",
        "        put_back_values(buffers)\n",
        "        pass\n",
        "tests/test_graph_backend.py",
    ),
    Bug(
        "verify-compares-nothing",
        "fxkd/verify.py",
        "difference = compare(expected.values, given.values)",
        'difference = ""',
        "tests/test_options.py",
    ),
    Bug(
        "copy-shares-the-student",
        "fxkd/distiller.py",
        "        new = type(self).__new__(type(self))\n",
        "        memo[id(self.student)] = self.student\n        new = type(self).__new__(type(self))\n",
        "tests/copies/test_copies.py",
    ),
    Bug(
        "teacher-trained",
        "fxkd/distiller.py",
        "                    parameter.requires_grad_(False)\n",
        "                    pass\n",
        "tests/test_options.py",
    ),
    Bug(
        "what-it-learns-from-trains",
        "passes/insert_losses.py",
        'return _function(graph, detached, value, part="loss") if source.detach else value',
        "return value",
        "tests/test_teachers.py",
    ),
    Bug(
        "self-lost",
        "passes/insert_deliveries.py",
        "target.args = (*own, *given)",
        "target.args = (*given,)",
        "tests/test_deliveries.py",
    ),
    Bug(
        "part-not-replaced",
        "passes/insert_deliveries.py",
        "target.replace_all_uses_with(changed, delete_user_cb=lambda user: user is not changed)",
        "pass",
        "tests/test_deliveries.py",
    ),
    Bug(
        "schedule-stands-still",
        "fxkd/progress.py",
        "one.put(state)",
        "one.put(0)",
        "tests/test_schedules.py",
    ),
    Bug(
        "gradient-of-a-copy",
        "passes/insert_gradients.py",
        "passed_on = graph.call_function(torch.clone, (marked,))",
        "passed_on = graph.call_function(torch.clone, (node,))",
        "tests/test_gradients.py",
    ),
    Bug(
        "weights-left-behind",
        "fxkd/checkpoints.py",
        "model.load_state_dict(state)\n        raise",
        "raise",
        "tests/test_checkpoints.py",
    ),
    Bug(
        "generator-gradient-in-student",
        "fxkd/data_free.py",
        "drawn.loss.backward(inputs=[p for p in self.generator_parameters() if p.requires_grad])",
        "drawn.loss.backward()",
        "tests/test_data_free.py",
    ),
    Bug(
        "generator-not-through-teacher",
        "fxkd/data_free_checks.py",
        "through_teacher or spec.teacher_gradients",
        "spec.teacher_gradients",
        "tests/test_data_free.py",
    ),
    Bug(
        "input-gradients-not-verified",
        "fxkd/verify.py",
        "(call.args, call.kwargs)) if tensor.requires_grad]\n    wanted |=",
        "(call.args, call.kwargs)) if False]\n    wanted |=",
        "tests/test_data_free.py",
    ),
    Bug(
        "promise-not-checked",
        "fxkd/capture/whole_operator.py",
        "if size != (promised if promised >= 0 else free.setdefault(promised, size)):",
        "if False:",
        "tests/opaque/test_refusals.py",
    ),
    Bug(
        "form-not-guarded",
        "fxkd/capture/functions.py",
        "has_form = kind.needs_values or isinstance(value, (tuple, list, Mapping))",
        "has_form = not notes",
        "tests/opaque/test_refusals.py",
    ),
    Bug(
        "filled-containers-unseen",
        "fxkd/capture/functions.py",
        "        if outcome.boxes.filled:\n",
        "        if False:\n",
        "tests/silent/test_reads.py",
    ),
    Bug(
        "reads-of-functions-unseen",
        "fxkd/capture/discover.py",
        "watched.done(value), reads, sets, others)",
        "watched.done(value), {}, sets, others)",
        "tests/silent/test_reads.py",
    ),
)


@contextmanager
def throw_away_copy() -> Iterator[Path]:
    """Copy what git knows of the checkout, and what is new in it, to a place of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix="fxkd-bugs-") as place:
        root = Path(place).resolve()
        for name in filter(None, listed.split("\0")):
            if os.path.lexists(ROOT / name):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name, follow_symlinks=False)
        yield root


def plant(bug: Bug, root: Path) -> Verdict:
    """Run the tests for ``bug`` with it in the copy; the copy is afterwards as it was."""
    file = root / bug.file
    before = file.read_text()
    file.write_text(bug.planted(root))
    try:
        return run_tests(bug.tests, root)
    finally:
        file.write_text(before)


def run_tests(tests: str, root: Path) -> Verdict:
    """Run files of tests in the copy up to the first failure; only a test that ran and failed has caught something."""
    kept = {key: value for key, value in os.environ.items() if key not in ("FXKD_SLOW", "PYTEST_ADDOPTS")}
    # No bytecode is kept: two texts of one size written in one second would be taken for the same.
    environment = kept | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--color=no", *tests.split()]
    start = monotonic()
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment | {"COLUMNS": "500"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Verdict("hung", f"no end within {LIMIT} s", monotonic() - start)
    return Verdict(*judge(process.returncode, output), monotonic() - start)


def judge(status: int, output: str) -> tuple[str, str]:
    """Read pytest's exit status and summary.

    >>> judge(1, "FAILED tests/test_a.py::test_b[c] - AssertionError: 1")
    ('caught', 'tests/test_a.py::test_b[c]')
    >>> judge(1, "FAILED tests/test_a.py::test_b - NameError: name 'x' is not defined")[0]
    'broken'
    >>> judge(2, "ERROR tests/test_a.py - ImportError")[0], judge(0, "3 passed")[0]
    ('broken', 'green')
    """
    if status == 0:
        return "green", ""
    failed = re.search(r"^FAILED (\S+?::.+?)(?: - (.*))?$", output, re.MULTILINE)
    if status != 1 or failed is None or NOT_FOUND_BY_A_TEST.search((failed[2] or "").partition(":")[0]):
        return "broken", f"pytest ended with {status}: " + " / ".join(output.strip().splitlines()[-3:])
    return "caught", failed[1]


def main(arguments: Sequence[str]) -> int:
    """Plant the named bugs, print what came of each, and tell by the exit status whether all were caught."""
    parser = argparse.ArgumentParser(description="Plant bugs and show that the tests find them.")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(bug.name for bug in BUGS))
    parser.add_argument("--trust", action="store_true", help="do not run the tests before a bug is planted")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - {bug.name for bug in BUGS}:
        parser.error(f"no bug {', '.join(map(repr, sorted(unknown)))}; there is {', '.join(b.name for b in BUGS)}")
    chosen = [bug for bug in BUGS if not given.names or bug.name in given.names]
    with throw_away_copy() as root:
        wrong = 0 if given.trust else sum(not is_green(tests, root) for tests in dict.fromkeys(b.tests for b in chosen))
        wrong += sum(not is_caught(bug, root) for bug in chosen)
    print(f"{len(chosen)} bugs; {wrong} not caught, or tests not green without a bug" if wrong else "all caught")
    return 1 if wrong else 0


def is_green(tests: str, root: Path) -> bool:
    """Run tests without a bug and print what came of it."""
    verdict = run_tests(tests, root)
    told("no bug", verdict, "" if verdict.kind == "green" else "SHOULD BE GREEN: ", verdict.by or tests)
    return verdict.kind == "green"


def is_caught(bug: Bug, root: Path) -> bool:
    """Plant a bug and print what came of it."""
    try:
        verdict = plant(bug, root)
    except LookupError as error:
        verdict = Verdict("broken", str(error), 0.0)
    name = {"caught": "", "green": "SURVIVED: "}.get(verdict.kind, f"{verdict.kind.upper()}: ")
    told(bug.name, verdict, name, verdict.by or bug.tests)
    return verdict.kind == "caught"


def told(name: str, verdict: Verdict, mark: str, what: str) -> None:
    """Print a row of the table."""
    print(f"{name:<38} {verdict.seconds:5.0f} s  {mark}{what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
