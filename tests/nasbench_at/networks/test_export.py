"""Graphs written to files and read back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
import torch

from nasbench_at.config.architecture import Architecture, AttentionSpec
from nasbench_at.networks.export import read_graph, write_graph
from nasbench_at.networks.graph import build_graph, build_network

SMALL = Architecture(
    blocks=("residual", "dense"),
    num_modules=3,
    init_channels=4,
    widen_factor=2,
    input_shape=(1, 8, 8),
)


def mixed_graph() -> nx.DiGraph[str]:
    """Block sets that differ, options, copies, given and masked weights, a block removed."""
    graph = build_graph(
        Architecture(
            blocks=(("residual", "mbconv"), ("dense", "dense"), ("residual", "ada_rk")),
            num_modules=3,
            init_channels=8,
            widen_factor=2,
            block_options={"ada_rk": {"separate_norms": True}},
            block_copies={"residual": 2},
            attention=AttentionSpec(
                mode="fixed",
                init="given",
                weights=((0.3, 0.7), (0.5, 0.5), (0.9, 0.1)),
                keep=((0, 1), (1,), (0, 1)),
            ),
        )
    )
    graph.remove_node("module03.residual")
    return graph


def default_graph() -> nx.DiGraph[str]:
    attention = AttentionSpec(init="uniform", recipe="authors", init_options={"high": 2.0})
    return build_graph(Architecture(num_modules=4, attention=attention))


@pytest.fixture
def graph() -> nx.DiGraph[str]:
    return build_graph(SMALL)


@pytest.mark.parametrize("make", [mixed_graph, default_graph])
def test_json_gives_back_an_equal_graph(make, tmp_path):
    graph = make()
    write_graph(graph, tmp_path / "g.json")
    again = read_graph(tmp_path / "g.json")
    assert list(again.nodes(data=True)) == list(graph.nodes(data=True))
    assert list(again.edges(data=True)) == list(graph.edges(data=True))
    assert again.graph == graph.graph
    assert isinstance(again.nodes["stem"]["resolution"], tuple)


def test_json_keeps_attributes_of_ones_own_tuples_as_lists(graph, tmp_path):
    graph.nodes["stem"]["note"] = {"pair": (1, (2.5, None)), "list": [1, [True, "x"]]}
    write_graph(graph, tmp_path / "g.json")
    note = read_graph(tmp_path / "g.json").nodes["stem"]["note"]
    assert note == {"pair": [1, [2.5, None]], "list": [1, [True, "x"]]}


@pytest.mark.parametrize("make", [mixed_graph, default_graph])
def test_network_of_the_read_graph_is_the_same_network(make, tmp_path):
    graph = make()
    write_graph(graph, tmp_path / "g.json")
    torch.manual_seed(3)
    expected = build_network(graph).state_dict()
    torch.manual_seed(3)
    actual = build_network(read_graph(tmp_path / "g.json")).state_dict()
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key


def test_json_is_node_link_data_that_networkx_reads(graph, tmp_path):
    write_graph(graph, tmp_path / "g.json")
    data = json.loads((tmp_path / "g.json").read_text("utf-8"))
    again = nx.node_link_graph(data, edges="edges")
    assert set(again.nodes) == set(graph.nodes)
    assert set(again.edges) == set(graph.edges)


def test_graphml_has_the_same_nodes_edges_and_numbers(tmp_path):
    graph = mixed_graph()
    write_graph(graph, tmp_path / "g.graphml")
    again = nx.read_graphml(tmp_path / "g.graphml")
    assert again.is_directed()
    assert set(again.nodes) == set(graph.nodes)
    assert set(again.edges) == set(graph.edges)
    for node, values in graph.nodes(data=True):
        for key in ("kind", "channels", "num_params", "flops"):
            assert again.nodes[node][key] == values[key]
        assert json.loads(again.nodes[node]["resolution"]) == list(values["resolution"])
    for *edge, shape in graph.edges(data="shape"):
        assert json.loads(again.edges[edge]["shape"]) == list(shape)
    assert json.loads(again.graph["attention"])["keep"] == [[0, 1], [1], [0, 1]]


def read_dot(text: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Reads nodes with their attributes, and edges, statement by statement."""
    name = r'"((?:[^"\\]|\\.)*)"'
    nodes = dict(re.findall(rf"^{name} \[(.*)\];$", text, re.MULTILINE))
    return nodes, re.findall(rf"^{name} -> {name};$", text, re.MULTILINE)


def test_dot_names_every_node_and_edge_once(tmp_path):
    graph = mixed_graph()
    write_graph(graph, tmp_path / "g.dot")
    text = (tmp_path / "g.dot").read_text("utf-8")
    nodes, edges = read_dot(text)
    assert set(nodes) == set(graph.nodes)
    assert sorted(edges) == sorted(graph.edges)
    assert text.count("];\n") == len(graph) + 1  # and the defaults of all nodes
    assert text.count("{") == text.count("}") == 1 + 3
    assert len(re.findall(r'label="module [123]";', text)) == 3


def test_dot_labels_say_block_size_and_parameters(tmp_path):
    graph = mixed_graph()
    write_graph(graph, tmp_path / "g.dot")
    nodes, _ = read_dot((tmp_path / "g.dot").read_text("utf-8"))
    label = nodes["module01.residual"].replace("\N{MULTIPLICATION SIGN}", "x")
    num_params = graph.nodes["module01.residual"]["num_params"]
    assert rf'label="residual x 2\n8 x 32 x 32\n{num_params:,} parameters"' in label
    assert "shape=trapezium" in nodes["reduction1"]
    assert 'label="+"' in nodes["module01.sum"]


def test_dot_escapes_quotes_and_backslashes(graph, tmp_path):
    nx.relabel_nodes(graph, {"stem": 'the "stem\\'}, copy=False)
    write_graph(graph, tmp_path / "g.dot")
    nodes, edges = read_dot((tmp_path / "g.dot").read_text("utf-8"))
    assert r"the \"stem\\" in nodes
    assert ("input", r"the \"stem\\") in edges


@pytest.mark.parametrize("name", ["g.gif", "g.png", "g", "g.json.bak"])
def test_unknown_suffix_is_refused_with_those_allowed(graph, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.json, \.graphml, \.dot, got"):
        write_graph(graph, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_failed_writing_leaves_the_file_that_was_there(graph, tmp_path):
    target = tmp_path / "g.json"
    write_graph(graph, target)
    before = target.read_bytes()
    graph.nodes["stem"]["note"] = object()
    with pytest.raises(ValueError, match="must be made of numbers, text, lists"):
        write_graph(graph, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_failed_replacing_leaves_no_temporary_file(graph, tmp_path):
    (tmp_path / "g.json").mkdir()
    with pytest.raises(OSError, match=r"g\.json"):
        write_graph(graph, tmp_path / "g.json")
    assert [path.name for path in tmp_path.iterdir()] == ["g.json"]


def test_attribute_that_a_name_would_hide_is_refused(graph, tmp_path):
    graph.nodes["stem"]["id"] = 7
    with pytest.raises(ValueError, match="an attribute cannot be named 'id', got 7"):
        write_graph(graph, tmp_path / "g.json")


FORMAT = {"format": "nasbench-at graph 3", "graph": {}, "nodes": [], "edges": []}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"format": ', "Expecting value"),
        ("[]", "not marked with format 'nasbench-at graph 3'"),
        ('{"nodes": []}', "not marked with format"),
        (json.dumps({"format": "nasbench-at graph 3"}), "lacks 'graph'"),
        (json.dumps({**FORMAT, "nodes": [{"kind": "stem"}]}), "lacks 'id'"),
        (json.dumps({**FORMAT, "nodes": [3]}), "'int' object has no"),
        (json.dumps({**FORMAT, "edges": [{"source": "a", "target": "b"}]}), "node 'a'"),
        (json.dumps({**FORMAT, "graph": {"attention": {"init": "no"}}}), "must be one of normal"),
        (json.dumps({**FORMAT, "graph": {"attention": {"no": 1}}}), "unexpected keyword .*'no'"),
        (None, "No such file"),
    ],
)
def test_bad_file_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=rf"cannot read '.*bad\.json' as a graph: .*{reason}") as e:
        read_graph(path)
    assert "\n" not in str(e.value)


def test_every_truncation_of_a_file_is_refused(graph, tmp_path):
    path = tmp_path / "g.json"
    write_graph(graph, path)
    text = path.read_text("utf-8").rstrip()
    for end in range(0, len(text), 97):
        path.write_text(text[:end], "utf-8")
        with pytest.raises(ValueError, match="cannot read"):
            read_graph(path)


def test_importing_the_module_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, nasbench_at.networks.export\n"
        "sys.exit(' '.join({'torch', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
