"""Random programs that configs could be: what they do is known by executing them."""

import keyword
import string
from typing import Any

from hypothesis import strategies as st

from fxkd.configs.located import Unknown

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=4).filter(lambda name: not keyword.iskeyword(name))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False, width=32) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(NAMES | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)
PLAIN = (
    "{new} = {value}",
    "{new} = {d}",
    "{new} = dict({d}, key={value})",
    "{new} = dict(**{d}, other_{new}={value})",
    "{new} = {{**{d}, 'a': {value}}}",
    "{new} = [*{l}, {value}]",
    "{new} = {l} + [{value}]",
    "{new} = {l}[0:1]",
    "{new} = len({l}) * 3 - 7 // 2",
    "{new} = f'{{len({l}):03d}}_{{{s}}}'",
    "{new} = '%s-%d' % ({s}, 4)",
    "{new} = '{{}}/{{x}}'.format({s}, x={s})",
    "{new} = {s} + 'tail'",
    "{l} += [{value}]",
    "{l}.append({value})",
    "{l}.extend({l})",
    "{d}['key'] = {value}",
    "{d}.update(key={value}, two=2)",
    "{l}[0] = {value}",
    "{new}, second_{new} = {value}, {d}",
    "{new}: dict = {d}.copy()",
    "{new} = ({d}, {l})",
    "{new} = {d}; {new}['alias'] = {l}",
)
ONLY_EXECUTED = (
    "for i in range(2):\n    {d}['key'] = i",
    "for one in [{d}, {l}]:\n    one.clear()",
    "if len({l}) > 1:\n    {new} = 3\n    {l}.append(4)",
    "{new} = [{d}.update(c=part) for part in {l}]",
    "{new} = {l}.pop()",
    "{new} = ({d} if {l} else {l})",
    "def change():\n    {d}['f'] = 1\nchange()",
    "import os\n{new} = os.path.join('a', {s})",
    "{l}.insert(0, {d})",
    "(lambda x: x.append(1))({l})",
    "{new} = [{l}, {l}.reverse()][0]",
    "while len({l}) < 3:\n    {l}.append({d})",
    "try:\n    {d}['t'] = {l}[99]\nexcept IndexError:\n    {d}['u'] = 1",
    "{d}.setdefault('s', {l}).append(1)",
    "({new} := {l}).append(2)",
)


@st.composite
def programs(draw: st.DrawFn, templates: tuple[str, ...] = PLAIN) -> str:
    """Draw a program; ``d*``, ``l*`` and ``s*`` are its dicts, lists and texts."""
    lines = [f"d = {draw(st.dictionaries(NAMES, VALUES, max_size=2))!r}", f"l = {draw(st.lists(VALUES, min_size=1))!r}"]
    lines += ["d2 = dict(inner=d, items=l)", "l2 = [d, 1]", f"s = {draw(TEXTS)!r}"]
    for index, template in enumerate(draw(st.lists(st.sampled_from(templates), max_size=8))):
        names = {"d": st.sampled_from(["d", "d2"]), "l": st.sampled_from(["l", "l2"]), "s": st.just("s")}
        chosen = {kind: draw(among) for kind, among in names.items()}
        lines.append(template.format(new=f"new{index}", value=repr(draw(VALUES)), **chosen))
    return "\n".join(lines) + "\n"


def agrees(read: Any, real: Any) -> bool:
    """Tell whether everything that is known of a value is so."""
    if isinstance(read, Unknown):
        return True
    if isinstance(read, dict):
        return isinstance(real, dict) and list(read) == list(real) and all(agrees(read[key], real[key]) for key in read)
    if isinstance(read, (list, tuple)):
        same = type(read) is type(real) and len(read) == len(real)
        return same and all(map(agrees, read, real))
    return type(read) is type(real) and read == real
