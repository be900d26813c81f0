"""Classes written for MMRazor or GML, used as they are: only the line that imports their base and registry changes."""

from fxkd.compat.bases import BaseConnector, BaseDistillationHead, BaseLoss
from fxkd.compat.distillers import BaseAlgorithm, BaseDistiller, ConfigurableDistiller
from fxkd.compat.modules import (
    ALGORITHMS,
    CONNECTORS,
    DISTILLERS,
    HEADS,
    LOSSES,
    MODELS,
    build_connector,
    build_distiller,
    build_loss,
)

__all__ = [
    "ALGORITHMS",
    "CONNECTORS",
    "DISTILLERS",
    "HEADS",
    "LOSSES",
    "MODELS",
    "BaseAlgorithm",
    "BaseConnector",
    "BaseDistillationHead",
    "BaseDistiller",
    "BaseLoss",
    "ConfigurableDistiller",
    "build_connector",
    "build_distiller",
    "build_loss",
]
