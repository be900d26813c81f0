"""MMRazor's seven recorders: what a module, function or method took or gave back, and a parameter."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from fxkd.eager.recorder import Recorder
from fxkd.eager.taps import observed
from fxkd.operations import operations_seen, split_operation
from fxkd.points import FUNCTION_FORM, find_function, find_method, find_module, find_parameter, split
from fxkd.records import module_inputs


class ModuleOutputsRecorder(Recorder):
    """Record what a module returned, each time it is called (MMRazor's ``ModuleOutputs``).

    Args:
        source: Exact path of the module in the model, aliases of shared modules included; ``''`` is the model. Or an
            operation inside of its forward, such as ``layer1.0:add``, recorded each time the module does it.
        clone: See ``Recorder``.

    Raises:
        PointError: From ``initialize``, the model has no such module; on entering, it was not initialised.

    >>> import torch
    >>> model = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> recorder = ModuleOutputsRecorder("1")
    >>> recorder.initialize(model)
    >>> with recorder:
    ...     output = model(torch.tensor([-1.0, 2.0]))
    >>> recorder.get_record_data()
    tensor([0., 2.])
    """

    def _find(self, model: nn.Module | None) -> tuple[nn.Module, Any]:
        return find_module(model, split_operation(self.source)[0]), model

    @contextmanager
    def _watch(self) -> Iterator[None]:
        module, model = self._source()
        operation = split_operation(self.source)[1]

        def see(module: nn.Module, args: Any, output: Any) -> None:
            self.data_buffer.append(self._keep(output))

        def see_operation(inside: nn.Module, name: str, value: Any) -> None:
            if inside is module and name == operation:
                self.data_buffer.append(self._keep(value))

        with operations_seen(model, see_operation) if operation else module.register_forward_hook(see):
            yield


class ModuleInputsRecorder(Recorder):
    """Record what a module was called with (MMRazor's ``ModuleInputs``, which drops the keywords).

    A record is the tuple of positionals; if any keyword was given it is a ``CallInputs``, the same with ``.kwargs``.

    Args:
        source: Exact path of the module in the model, aliases of shared modules included; ``''`` is the model.
        clone: See ``Recorder``.

    Raises:
        PointError: From ``initialize``, the model has no such module; on entering, it was not initialised.

    >>> model = nn.Sequential(nn.Identity())
    >>> recorder = ModuleInputsRecorder("0")
    >>> recorder.initialize(model)
    >>> with recorder:
    ...     output = model("anything")
    >>> recorder.get_record_data(), recorder.get_record_data(data_idx=0)
    (('anything',), 'anything')
    """

    def _find(self, model: nn.Module | None) -> nn.Module:
        return find_module(model, self.source)

    @contextmanager
    def _watch(self) -> Iterator[None]:
        before: list[Any] = []  # cloned inputs of the calls under way

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before.append(self._keep(module_inputs(args, kwargs)))

        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self.data_buffer.append(before.pop() if self.clone else module_inputs(args, kwargs))

        module = self._source()
        with ExitStack() as hooks:
            if self.clone:
                hooks.enter_context(module.register_forward_pre_hook(note, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(see, with_kwargs=True))
            yield


class FunctionOutputsRecorder(Recorder):
    """Record what a function returned (MMRazor's ``FunctionOutputs``).

    Args:
        source: ``package.module.function``, where ``module`` is the one that *uses* the function. Found on entering.
        clone: See ``Recorder``.

    Raises:
        PointError: The path has no dot; on entering, it names no function.

    >>> import math
    >>> recorder = FunctionOutputsRecorder("math.sqrt")
    >>> with recorder:
    ...     total = math.sqrt(4) + math.sqrt(9)
    >>> recorder.data_buffer
    [2.0, 3.0]
    """

    def __init__(self, source: str, *, clone: bool = False) -> None:
        super().__init__(source, clone=clone)
        split(source, FUNCTION_FORM)

    def _watch(self) -> AbstractContextManager[None]:
        place = find_function(self.source)
        return observed(place.owner, place.name, self._see_output)


class FunctionInputsRecorder(Recorder):
    """Record what a function was called with (MMRazor's ``FunctionInputs``).

    A record is a list: the positionals, then the keywords in signature order; defaults are not filled in.

    Args:
        source: ``package.module.function``, where ``module`` is the one that *uses* the function. Found on entering.
        clone: See ``Recorder``.

    Raises:
        PointError: The path has no dot; on entering, it names no function.

    >>> import textwrap
    >>> recorder = FunctionInputsRecorder("textwrap.indent")
    >>> with recorder:
    ...     text = textwrap.indent(prefix="> ", text="a")
    >>> recorder.get_record_data()
    ['a', '> ']
    """

    def __init__(self, source: str, *, clone: bool = False) -> None:
        super().__init__(source, clone=clone)
        split(source, FUNCTION_FORM)

    def _watch(self) -> AbstractContextManager[None]:
        return self._watch_inputs(find_function(self.source))


class MethodOutputsRecorder(Recorder):
    """Record what a method returned, on whichever instance of the class (MMRazor's ``MethodOutputs``).

    Args:
        source: ``package.module.Class.method``; nested classes, static, class and inherited methods are accepted.
        clone: See ``Recorder``.

    Raises:
        PointError: The path names no method.

    >>> from fractions import Fraction
    >>> recorder = MethodOutputsRecorder("fractions.Fraction.limit_denominator")
    >>> with recorder:
    ...     near = Fraction("3.14159").limit_denominator(10)
    >>> recorder.get_record_data()
    Fraction(22, 7)
    """

    def __init__(self, source: str, *, clone: bool = False) -> None:
        super().__init__(source, clone=clone)
        find_method(source)

    def _watch(self) -> AbstractContextManager[None]:
        place = find_method(self.source)
        return observed(place.owner, place.name, self._see_output)


class MethodInputsRecorder(Recorder):
    """Record what a method was called with, without ``self`` (MMRazor's ``MethodInputs``).

    A record is a list: the positionals, then the keywords in signature order; defaults are not filled in.

    Args:
        source: ``package.module.Class.method``; nested classes, static, class and inherited methods are accepted.
        clone: See ``Recorder``.

    Raises:
        PointError: The path names no method.

    >>> from fractions import Fraction
    >>> recorder = MethodInputsRecorder("fractions.Fraction.limit_denominator")
    >>> with recorder:
    ...     near = Fraction("3.14159").limit_denominator(max_denominator=10)
    >>> recorder.get_record_data()
    [10]
    """

    def __init__(self, source: str, *, clone: bool = False) -> None:
        super().__init__(source, clone=clone)
        find_method(source)

    def _watch(self) -> AbstractContextManager[None]:
        return self._watch_inputs(find_method(self.source))


class ParameterRecorder(Recorder):
    """Record a parameter of the model (MMRazor's ``Parameter``): the live object, from ``initialize`` on.

    Args:
        source: Exact path of the parameter in the model, aliases of tied parameters included.
        clone: Record a clone, taken at ``initialize`` and at each enter.

    Raises:
        PointError: From ``initialize``, the model has no such parameter; on entering, it was not initialised.

    >>> model = nn.Linear(2, 1)
    >>> recorder = ParameterRecorder("weight")
    >>> recorder.initialize(model)
    >>> recorder.get_record_data() is model.weight
    True
    """

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find the parameter in ``model`` and record it."""
        super().initialize(model)
        self.data_buffer = [self._keep(self._found)]

    def _find(self, model: nn.Module | None) -> nn.Parameter:
        return find_parameter(model, self.source)

    @contextmanager
    def _watch(self) -> Iterator[None]:
        self.data_buffer.append(self._keep(self._source()))
        yield
