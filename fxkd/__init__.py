"""fxkd: knowledge distillation by compiled-graph rewriting."""

from fxkd.capture import Inputs as Inputs
from fxkd.check import check as check
from fxkd.deploy import deploy as deploy
from fxkd.distiller import Distiller as Distiller
from fxkd.draw import draw as draw
from fxkd.draw import to_networkx as to_networkx
from fxkd.findings import Report as Report
from fxkd.listing import points as points
from fxkd.output import DistillOutput as DistillOutput
from fxkd.preparation import prepare as prepare
from fxkd.recipes import recipe as recipe
from fxkd.record import record as record
from fxkd.registry import connector as connector
from fxkd.registry import head as head
from fxkd.registry import loss as loss
from fxkd.spec import Spec as Spec
