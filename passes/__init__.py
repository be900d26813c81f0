"""Rewrites of captured graphs, one a file: record, deliver, protect, join, prune."""

from fxkd.passes.insert_deliveries import InsertDeliveries as InsertDeliveries
from fxkd.passes.insert_gradients import InsertGradients as InsertGradients
from fxkd.passes.insert_losses import InsertLosses as InsertLosses
from fxkd.passes.insert_records import InsertRecords as InsertRecords
from fxkd.passes.join import join as join
from fxkd.passes.protect_records import ProtectRecords as ProtectRecords
from fxkd.passes.prune import Prune as Prune
from fxkd.passes.run import run as run
