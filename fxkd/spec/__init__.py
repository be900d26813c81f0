"""What to distil, as data."""

from fxkd.spec.spec import Spec as Spec
from fxkd.spec.vocabulary import Delivery as Delivery
from fxkd.spec.vocabulary import Recorder as Recorder
from fxkd.spec.vocabulary import Reference as Reference
from fxkd.spec.vocabulary import StudentLoss as StudentLoss
