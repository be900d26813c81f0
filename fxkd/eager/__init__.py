"""Recorders and deliveries as context managers: the reference semantics, MMRazor's names, no graph."""

from fxkd.eager.deliveries import FunctionInputsDelivery as FunctionInputsDelivery
from fxkd.eager.deliveries import FunctionOutputsDelivery as FunctionOutputsDelivery
from fxkd.eager.deliveries import MethodInputsDelivery as MethodInputsDelivery
from fxkd.eager.deliveries import MethodOutputsDelivery as MethodOutputsDelivery
from fxkd.eager.deliveries import ModuleInputsDelivery as ModuleInputsDelivery
from fxkd.eager.deliveries import ModuleOutputsDelivery as ModuleOutputsDelivery
from fxkd.eager.gradients import ModuleGradientsRecorder as ModuleGradientsRecorder
from fxkd.eager.managers import DistillDeliveryManager as DistillDeliveryManager
from fxkd.eager.managers import RecorderManager as RecorderManager
from fxkd.eager.recorders import FunctionInputsRecorder as FunctionInputsRecorder
from fxkd.eager.recorders import FunctionOutputsRecorder as FunctionOutputsRecorder
from fxkd.eager.recorders import MethodInputsRecorder as MethodInputsRecorder
from fxkd.eager.recorders import MethodOutputsRecorder as MethodOutputsRecorder
from fxkd.eager.recorders import ModuleInputsRecorder as ModuleInputsRecorder
from fxkd.eager.recorders import ModuleOutputsRecorder as ModuleOutputsRecorder
from fxkd.eager.recorders import ParameterRecorder as ParameterRecorder
from fxkd.records import CallInputs as CallInputs
