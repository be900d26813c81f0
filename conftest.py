"""``passes/`` is collected once, as ``fxkd/passes`` (a link to it), so that its modules are ``fxkd.passes.*``."""

collect_ignore = ["passes"]
