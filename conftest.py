"""``passes/`` is collected once, as ``fxkd/passes`` (a link to it), so that its modules are ``fxkd.passes.*``."""

import fxkd  # noqa: F401 (first of all: pytest, importing a file such as fxkd/points.py, would hide fxkd.points())

collect_ignore = ["passes"]
