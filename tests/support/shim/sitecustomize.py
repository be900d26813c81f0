"""Run by Python at its start where this folder is on ``PYTHONPATH``: the tests' subprocesses get the shim too."""

import runpy
from pathlib import Path

shim = runpy.run_path(str(Path(__file__).parent.parent / "torchvision_shim.py"))  # held: the operators live in it
shim["install"]()
