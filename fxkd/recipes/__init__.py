"""Ready specs: functions that look at a student and a teacher and return what to distil, as a ``Spec``."""

from fxkd.recipes._registry import get as get
from fxkd.recipes._registry import names as names
from fxkd.recipes._registry import recipe as recipe
from fxkd.recipes.assignment import lad as lad
from fxkd.recipes.data_free import dafl as dafl
from fxkd.recipes.data_free import dfad as dfad
from fxkd.recipes.data_free import zskt as zskt
from fxkd.recipes.detection import cwd as cwd
from fxkd.recipes.detection import mgd as mgd
from fxkd.recipes.detection import pkd as pkd
from fxkd.recipes.feature import attention_transfer as attention_transfer
from fxkd.recipes.feature import fitnet as fitnet
from fxkd.recipes.feature import ofd as ofd
from fxkd.recipes.labelled_response import dkd as dkd
from fxkd.recipes.labelled_response import wsld as wsld
from fxkd.recipes.non_local import fbkd as fbkd
from fxkd.recipes.relation import crd as crd
from fxkd.recipes.relation import rkd as rkd
from fxkd.recipes.response import dist as dist
from fxkd.recipes.response import logits as logits
from fxkd.recipes.self_distillation import byot as byot
from fxkd.recipes.two_stages import ab as ab
from fxkd.recipes.two_stages import factor_transfer as factor_transfer
