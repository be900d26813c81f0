"""Rows of the silent-failure table: patches, other people's hooks, autocast and randomness around a point."""

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import fxkd
from fxkd.errors import CaptureError
from tests.support.hooks import Net, Values, assert_right, batch, last_output, plain, spec_of
from tests.support.oracle import assert_same, seed_everything

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
HERE = sys.modules[__name__]
