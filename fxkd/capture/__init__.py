"""Capture by running: a model and example inputs become an fx graph that holds the named points."""

from fxkd.capture.captured import Captured as Captured
from fxkd.capture.captured import PointCall as PointCall
from fxkd.capture.captured import PointName as PointName
from fxkd.capture.inputs import Inputs as Inputs
from fxkd.capture.inputs import Layout as Layout
from fxkd.capture.inputs import split as split
from fxkd.capture.run import capture as capture
