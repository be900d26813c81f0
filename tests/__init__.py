"""The tests of fxkd; their folders mirror the package."""
