import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest
import torch
from graphviz.backend import dot_command
from torch import Tensor, fx, nn

import fxkd
from fxkd.draw import render
from fxkd.draw.fold import fold
from fxkd.draw.picture import picture
from fxkd.errors import CaptureError, DrawError
from fxkd.passes import Prune, run
from fxkd.passes.describe import describe

EXAMPLE = (torch.ones(3, 4),)


class Noise:
    def draw(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Tiny(nn.Module):
    """Vectors (N, 4) to (N, 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.noise = Noise()
        self.stem, self.head, self.tail = nn.Linear(4, width), nn.Linear(width, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(self.noise.draw(x))
        hidden = hidden * hidden.shape[1] ** -0.5
        return self.tail(self.head(hidden.relu()))


PAIR = {
    "student": "stem",
    "teacher": "stem",
    "loss": {"type": "L2Loss"},
    "student_connector": {"type": "LinearConnector", "in_features": 3, "out_features": 5},
}


def prepared(example_inputs: object = EXAMPLE, **options: object) -> fxkd.Distiller:
    noise = {"type": "MethodOutputs", "method_path": f"{__name__}.Noise.draw", "max_keep_data": 1}
    spec = {"pairs": [PAIR], "distill_deliveries": {"noise": noise}, "inputs": ["labels"]}
    own = {"input": "from_output", "target": {"from_input": "labels"}}
    spec["student_loss"] = {"type": "CrossEntropyLoss", "scope": "torch.nn", "args": own, "weight": 1}
    return fxkd.prepare(Tiny(3), Tiny(5), spec, example_inputs=example_inputs, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> "nx.MultiDiGraph[str]":
    return fxkd.to_networkx(prepared())


def find(network: "nx.MultiDiGraph[str]", **wanted: object) -> list[str]:
    return [name for name, data in network.nodes(data=True) if wanted.items() <= data.items()]


# --- the network


def test_nodes_say_what_they_are(network: "nx.MultiDiGraph[str]") -> None:
    assert network.nodes["student_stem"] == {
        "label": "stem",
        "op": "call_module",
        "target": "student.stem",
        "class": "Linear",
        "side": "student",
        "kind": "module",
        "shape": "(3, 3)",
        "dtype": "float32",
        "points": ["ModuleOutputs stem"],
        "pruned": False,
    }


def test_every_side_and_kind_is_there(network: "nx.MultiDiGraph[str]") -> None:
    sides = {data["side"] for _, data in network.nodes(data=True)}
    assert sides >= {"student", "teacher", "connector", "loss", "input", "output"}
    assert find(network, kind="record", label="stem", side="teacher")
    assert find(network, kind="deliver", label="noise", side="student", shape="(3, 4)")
    assert find(network, side="connector", kind="module", **{"class": "LinearConnector"})
    assert find(network, kind="total") == ["Loss_student", "Loss_dis", "Loss"]
    assert {"mode", "mean", "number"} <= {data["kind"] for _, data in network.nodes(data=True)}
    assert network.graph["models"] == {"teacher": "Tiny", "student": "Tiny"}


def test_edges_say_the_argument(network: "nx.MultiDiGraph[str]") -> None:
    (loss,) = find(network, target="losses.loss_stem")
    assert {argument for _, _, argument in network.in_edges(loss, data="argument")} == {"s_feature", "t_feature"}
    (delivery,) = find(network, kind="deliver")
    (source,) = network.predecessors(delivery)
    assert network.nodes[source]["side"] == "teacher"
    assert network.nodes[source]["label"] == "Noise.draw"


def test_pruned_nodes_stay(network: "nx.MultiDiGraph[str]") -> None:
    assert {"teacher_head", "teacher_tail"} <= set(find(network, pruned=True))
    assert not any(network.nodes[name]["pruned"] for name in ("teacher_stem", "student_tail"))
    assert network.has_edge("teacher_head", "teacher_tail")


def test_several_edges_between_two_nodes_are_kept() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.cat, ([x, graph.call_function(torch.sin, (x,)), x],)))
    network = fxkd.to_networkx(fx.GraphModule(nn.Module(), graph))
    assert list(network.get_edge_data("x", "cat").values()) == [{"argument": "0.0"}, {"argument": "0.2"}]


def test_nodes_are_plain_data(network: "nx.MultiDiGraph[str]") -> None:
    for _, data in network.nodes(data=True):
        assert {type(value) for value in data.values()} <= {str, bool, list}


def test_model_is_captured() -> None:
    network = fxkd.to_networkx(Tiny(3), example_inputs=EXAMPLE)
    assert [network.nodes[name]["label"] for name in find(network, kind="module")] == ["stem", "head", "tail"]
    assert network.graph["models"] == {"model": "Tiny"}


def test_graph_module_is_taken_as_it_is() -> None:
    network = fxkd.to_networkx(fx.symbolic_trace(nn.Sequential(nn.Linear(2, 1))))
    assert find(network, side="model", kind="module", **{"class": "Linear"}) == ["_0"]


def test_points_count_calls() -> None:
    relu = nn.ReLU()
    loss = {"pairs": [{"student": "1", "teacher": "1", "loss": {"type": "L2Loss"}}]}
    twice = nn.Sequential(nn.Linear(4, 2), relu, nn.Linear(2, 2), relu)
    network = fxkd.to_networkx(fxkd.prepare(twice, nn.Sequential(*twice), loss, example_inputs=EXAMPLE))
    assert ["ModuleOutputs 1 call 1"] in [data["points"] for _, data in network.nodes(data=True)]
    assert find(network, kind="record", label="1 call 1")


# --- what Prune leaves


def test_prune_remembers_over_several_runs() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    first, kept = graph.call_function(torch.sin, (x,)), graph.call_function(torch.cos, (x,))
    graph.output(kept)
    graph_module = run(fx.GraphModule(nn.Module(), graph), [Prune()])
    with graph.inserting_after(kept):
        graph.call_function(torch.tan, (kept,))
    run(graph_module, [Prune(), Prune()])
    network = fxkd.to_networkx(graph_module)
    assert find(network, pruned=True) == [first.name, "tan"]
    assert list(network.predecessors("tan")) == [kept.name]
    assert first.name not in describe(graph_module)


def test_what_a_later_pass_removed_is_forgotten() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    sin = graph.call_function(torch.sin, (x,))
    graph.call_function(torch.cos, (sin,))
    output = graph.output(sin)
    graph_module = run(fx.GraphModule(nn.Module(), graph), [Prune()])
    output.args = (x,)
    graph.erase_node(sin)
    assert list(fxkd.to_networkx(graph_module)) == ["x", "output", "cos"]


# --- folding


def test_fold_leaves_what_a_reader_looks_for(network: "nx.MultiDiGraph[str]") -> None:
    folded = fold(network)
    kinds = {data["kind"] for _, data in folded.nodes(data=True)}
    assert kinds == {"module", "function", "method", "record", "deliver", "total", "input", "output"}
    assert folded.has_edge("losses_loss_stem", "Loss_dis")
    assert list(folded.predecessors("output")) == ["student_tail", "Loss"]
    assert nx.has_path(folded, "x", "Loss_student")


def test_fold_keeps_a_parameter_that_is_a_point() -> None:
    kernel = {"kernel": {"type": "Parameter", "source": "0.weight"}}
    mapping = {name: {"from_student": side, "recorder": "kernel"} for name, side in (("s", True), ("t", False))}
    spec = {
        "student_recorders": kernel,
        "teacher_recorders": kernel,
        "distill_losses": {"loss": {"type": "L1Loss"}},
        "loss_forward_mappings": {"loss": {"s_feature": mapping["s"], "t_feature": mapping["t"]}},
    }
    models = nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 2))
    source = fxkd.draw(fxkd.prepare(*models, spec, example_inputs=EXAMPLE)).source
    assert source.count("0.weight") >= 2


def test_fold_bridges_identities_and_parts() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.nothing, self.fc = nn.LSTM(4, 2), nn.Identity(), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.nothing(self.lstm(x)[0]))

    folded = fold(fxkd.to_networkx(Model(), example_inputs=(torch.ones(3, 5, 4),)))
    assert list(folded.edges) == [("x", "model_lstm"), ("model_lstm", "model_fc"), ("model_fc", "output")]


# --- the picture


def test_dot_text_holds_the_pipeline() -> None:
    source = fxkd.draw(prepared()).source
    for words in ("teacher: Tiny", "student: Tiny", "Loss_student", "Loss_dis", "record <b>stem</b>", "<b>C</b>"):
        assert words in source
    for meaning in ("connector:", "sum of losses", "recorded value", "delivered:", "pruned:"):
        assert meaning in source  # the legend
    assert "Linear · 3×5" in source
    assert "_set_grad_enabled" not in source
    assert re.search(r"teacher_draw -> deliver \[label=<<b>noise</b>> .*penwidth=3", source)
    assert re.search(r'teacher_tail \[.*style="filled,dashed,rounded"', source)


def test_legend_says_only_what_occurs() -> None:
    source = fxkd.draw(Tiny(3), example_inputs=EXAMPLE).source
    assert "model: Tiny" in source
    assert not re.search("record|pruned|connector|teacher", source)


def test_words_are_escaped() -> None:
    network = fxkd.to_networkx(nn.Sequential(nn.Linear(4, 2)), example_inputs=EXAMPLE)
    network.nodes["model_0"]["label"] = "<lambda> & co"
    assert "&lt;lambda&gt; &amp; co" in picture(fold(network)).source


def test_same_input_same_text() -> None:
    distiller = prepared()
    assert fxkd.draw(distiller).source == fxkd.draw(distiller).source
    script = "from tests.test_draw import prepared; import fxkd; print(fxkd.draw(prepared()).source, end='')"
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == fxkd.draw(distiller).source


# --- files


@pytest.mark.parametrize("program", render.PROGRAMS)
def test_svg_is_xml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    if render._which(program) is None:
        pytest.skip(f"no {program} on this machine")
    monkeypatch.setattr(render, "PROGRAMS", {program: render.PROGRAMS[program]})
    before = dot_command.DOT_BINARY
    fxkd.draw(prepared(), tmp_path / "pair.svg")
    assert before == dot_command.DOT_BINARY
    texts = [element.text for element in ElementTree.parse(tmp_path / "pair.svg").iter() if element.text]
    assert {"Loss_dis", "Loss_student", "student: Tiny"} <= set(texts)


def test_png_is_written(tmp_path: Path) -> None:
    fxkd.draw(prepared(), str(tmp_path / "pair.png"))
    assert (tmp_path / "pair.png").read_bytes().startswith(b"\x89PNG")


def test_dot_needs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_which", lambda name: None)
    graph = fxkd.draw(prepared(), tmp_path / "pair.dot")
    assert (tmp_path / "pair.dot").read_text(encoding="utf-8") == graph.source


def test_pure_program_beside_python_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "graphviz-pure"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho '<svg/>'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    if render._which("dot") is None:
        fxkd.draw(prepared(), tmp_path / "pair.svg")
        assert (tmp_path / "pair.svg").read_text() == "<svg/>\n"
    assert render._which("graphviz-pure") == str(program)


@pytest.mark.parametrize(
    ("there", "suffix", "message"),
    [
        ([], "svg", r'a \.svg needs Graphviz: `apt install graphviz` or `pip install "fxkd\[draw\]"`'),
        (["graphviz-pure"], "pdf", r"graphviz-pure writes no \.pdf: `apt install graphviz`, or ask for \.svg"),
    ],
)
def test_missing_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], suffix: str, message: str
) -> None:
    monkeypatch.setattr(render, "_which", lambda name: name if name in there else None)
    with pytest.raises(DrawError, match=message):
        fxkd.draw(prepared(), tmp_path / f"pair.{suffix}")
    assert not list(tmp_path.iterdir())


def test_dot_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_which", lambda name: f"/bin/{name}")
    assert render.find_program("svg") == "/bin/dot"


def test_program_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_which", lambda name: "/bin/false")
    with pytest.raises(DrawError, match="/bin/false failed on this graph"):
        fxkd.draw(prepared(), tmp_path / "pair.svg")


@pytest.mark.parametrize("name", ["pair.html", "pair", "pair.jpeg"])
def test_unknown_suffix(name: str) -> None:
    with pytest.raises(DrawError, match=rf"'{name}': the suffix .* there is '\.svg', '\.png', '\.pdf', '\.dot'"):
        fxkd.draw(prepared(example_inputs=None), name)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DrawError, match="cannot be written: No such file"):
        fxkd.draw(prepared(), tmp_path / "nowhere/pair.dot")


# --- nothing to draw yet


def test_nothing_captured_yet() -> None:
    distiller = prepared(example_inputs=None)
    with pytest.raises(CaptureError, match=r"call the distiller once, or give .*example_inputs"):
        fxkd.draw(distiller)
    assert "Loss_dis" in fxkd.draw(distiller, example_inputs=EXAMPLE).source
    fxkd.draw(distiller, example_inputs=EXAMPLE)
    assert len(distiller.programs) == 1


def test_eager_backend_has_no_graph() -> None:
    with pytest.raises(CaptureError, match=r"backend='eager'.* no joint graph: .*example_inputs="):
        fxkd.draw(prepared(backend="eager"))


def test_model_without_inputs() -> None:
    with pytest.raises(CaptureError, match="a Tiny is no graph yet: give example_inputs="):
        fxkd.draw(Tiny(3))
