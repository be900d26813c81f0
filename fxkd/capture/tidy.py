"""After the recording: drop what nobody reads, and ask first what can be asked first."""

import operator

from torch import fx

from fxkd.capture.guards import guard

ARITHMETIC = {getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg")}
SIZES = {"size", "stride", "numel"}


def tidy(graph: fx.Graph) -> None:
    """Erase reads that nothing uses; move guards that depend on the inputs' sizes alone to the top."""
    for node in reversed(list(graph.nodes)):
        if not node.users and not node.meta.get("calls") and _is_read(node):
            graph.erase_node(node)
    _hoist_guards(graph)
    graph.lint()


def _is_read(node: fx.Node) -> bool:
    """Tell whether a node only looks at something."""
    if node.op == "get_attr":
        return True
    if node.op == "call_method":
        return node.target in SIZES
    return node.op == "call_function" and (node.target in (operator.getitem, getattr, len) or _is_arithmetic(node))


def _is_arithmetic(node: fx.Node) -> bool:
    return node.target in ARITHMETIC and "val" not in node.meta


def _hoist_guards(graph: fx.Graph) -> None:
    """A guard that fails before anything else ran leaves nothing half done."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    early = set(placeholders)
    last = placeholders[-1] if placeholders else None
    for node in list(graph.nodes):
        of_inputs = node.all_input_nodes and early.issuperset(node.all_input_nodes)
        is_size = node.op == "call_method" and node.target in SIZES
        if last is None or not of_inputs or not (is_size or _is_arithmetic(node) or node.target is guard):
            continue
        last.append(node)
        early.add(node)
        last = node
