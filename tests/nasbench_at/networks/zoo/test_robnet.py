from __future__ import annotations

import re

import networkx as nx
import pytest
import torch
import torch.nn.functional as F

from nasbench_at.networks.export import read_graph, write_graph
from nasbench_at.networks.zoo import create_model, model_info
from nasbench_at.networks.zoo.robnet import ROBNET_LARGE, FactorizedReduce, robnet_graph
from tests.nasbench_at.networks.zoo.conformance import (
    check_network,
    count_parameters,
    randomize_norms,
)

SPARSE = ("00 10", "01 00 00", "00 00 00 00", "00 00 11 00 01")  # node2 is entered by no edge


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "expected"),
    [
        ("robnet_large_v1", 10, {}, 6_842_710),
        ("robnet_large_v2", 10, {}, 33_326_666),
        ("robnet_large_v2", 100, {}, 33_418_916),
        ("robnet", 10, {"channels": 64}, 21_054_922),
    ],
)
def test_parameters(name, num_classes, options, expected):
    assert count_parameters(name, num_classes, **options) == expected


def test_tiny_network_is_small():
    assert count_parameters("tiny_robnet", 10, (1, 8, 8)) < 300_000


def test_tiny_network_is_a_network():
    check_network("tiny_robnet")


@pytest.mark.parametrize(
    "genotype",
    [
        SPARSE,
        ("00 01", "00 00 10", "00 10 00 00", "00 00 00 00 11"),  # without input0
        ["10 10", "10 10 10", "10 10 10 10", "10 10 10 10 10"],
    ],
)
def test_network_of_any_genotype_is_a_network(genotype):
    check_network("robnet", genotype=genotype, channels=2, num_cells=4)


def test_default_genotype_is_that_of_robnet_large():
    assert ROBNET_LARGE == ("11 11", "11 11 11", "01 11 01 10", "11 01 01 01 11")
    options = {"genotype": ROBNET_LARGE, "channels": 36, "num_cells": 20}
    assert dict(model_info("robnet").options) == options


def norm(x, module):
    return F.batch_norm(x, module.running_mean, module.running_var)


def reduced(x, module):
    x = x.relu()
    # Sizes are even here: rows and columns 0, 2, ... and 1, 3, ....
    halves = [
        F.conv2d(x[:, :, ::2, ::2], module.even.weight),
        F.conv2d(x[:, :, 1::2, 1::2], module.odd.weight),
    ]
    return norm(torch.cat(halves, dim=1), module.norm)


def sep_conv(x, layers, stride):
    channels = x.shape[1]
    x = F.conv2d(x.relu(), layers[1].weight, stride=stride, padding=1, groups=channels)
    x = norm(F.conv2d(x, layers[2].weight), layers[3]).relu()
    x = F.conv2d(x, layers[5].weight, padding=1, groups=channels)
    return norm(F.conv2d(x, layers[6].weight), layers[7])


def edge(code, x, cell, key, stride):
    if code == "00":
        return x[:, :, ::stride, ::stride] * 0
    module = cell.edges[key]
    if code == "01":
        return sep_conv(x, module, stride)
    identity = module.terms[1] if code == "11" else module
    output = x if stride == 1 else reduced(x, identity)
    return output + sep_conv(x, module.terms[0], stride) if code == "11" else output


def project(x, module):
    return norm(F.conv2d(x.relu(), module[1].weight), module[2])


def evaluate_cell(cell, genotype, older, newer, reduces, after_reduction):
    if "input0" not in cell.inputs:
        state0 = None
    elif after_reduction:
        state0 = reduced(older, cell.inputs["input0"])
    else:
        state0 = project(older, cell.inputs["input0"])
    names = ["input0", "input1"]
    states = [state0, project(newer, cell.inputs["input1"])]
    for i, row in enumerate(genotype):
        total = 0
        for j, code in enumerate(row.split()):
            stride = 2 if reduces and j < 2 else 1
            total = total + edge(code, states[j], cell, f"{names[j]}_node{i}", stride)
        states.append(total)
        names.append(f"node{i}")
    return torch.cat(states[2:], dim=1)


@pytest.mark.parametrize("genotype", [ROBNET_LARGE, SPARSE])
def test_network_computes_what_a_plain_evaluation_of_its_genotype_does(genotype):
    model = create_model("robnet", genotype=genotype, channels=4, num_cells=5)
    model = randomize_norms(model).double().eval()
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        older = newer = model.stem[1](F.conv2d(images, model.stem[0].weight, padding=1))
        assert newer.shape == (2, 12, 8, 12)
        widths = []
        for i, cell in enumerate(model.cells):
            # The second and the fourth of five cells reduce.
            output = evaluate_cell(cell, genotype, older, newer, i in (1, 3), i in (2, 4))
            widths.append(output.shape[1] // 4)
            older, newer = newer, output
        assert widths == [4, 8, 8, 16, 16]
        assert newer.shape[2:] == (2, 3)
        torch.testing.assert_close(model(images), model.head(newer.mean(dim=(2, 3))))


def test_reduction_takes_an_odd_size_as_if_zeros_followed():
    reduce = FactorizedReduce(4, 6).double().eval()
    x = torch.rand(2, 4, 5, 7, dtype=torch.float64)
    output = reduce(x)
    assert output.shape == (2, 6, 3, 4)
    torch.testing.assert_close(output, reduce(F.pad(x, (0, 1, 0, 1))))


def test_graph_has_an_edge_for_every_code_but_00():
    graph = robnet_graph(SPARSE)
    assert list(graph) == ["input0", "input1", "node0", "node1", "node2", "node3", "output"]
    kinds = ["input", "input", "sum", "sum", "sum", "sum", "concat"]
    assert list(nx.get_node_attributes(graph, "kind").values()) == kinds
    assert nx.get_edge_attributes(graph, "operation") == {
        ("input1", "node0"): "identity",
        ("input0", "node1"): "sep_conv",
        ("node0", "node3"): "sep_conv+identity",
        ("node2", "node3"): "sep_conv",
        **{(f"node{i}", "output"): "concat" for i in range(4)},
    }
    assert nx.is_directed_acyclic_graph(graph)


def test_graph_can_be_written(tmp_path):
    graph = robnet_graph(ROBNET_LARGE)
    write_graph(graph, tmp_path / "cell.json")
    assert nx.utils.graphs_equal(read_graph(tmp_path / "cell.json"), graph)
    write_graph(graph, tmp_path / "cell.graphml")
    read = nx.read_graphml(tmp_path / "cell.graphml")
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert list(read.edges(data=True)) == list(graph.edges(data=True))


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (
            ("11 11", "11 11 11"),
            "a genotype must be 4 strings, one a node, got ('11 11', '11 11 11')",
        ),
        ((1, 2, 3, 4), "a genotype must be 4 strings, one a node, got (1, 2, 3, 4)"),
        ("11 11", "a genotype must be 4 strings, one a node, got '11 11'"),
        (
            ("11 11", "11 11", *ROBNET_LARGE[2:]),
            "node1 of a genotype must have 3 edges, got 2 in '11 11'",
        ),
        (
            (*ROBNET_LARGE[:2], "01 12 01 10", ROBNET_LARGE[3]),
            "an edge of a genotype must be one of 00, 01, 10, 11, got '12' in node2",
        ),
        (
            ("11 00", "11 00 11", "11 00 11 11", "11 00 11 11 11"),
            "no node of genotype ('11 00', '11 00 11', '11 00 11 11', '11 00 11 11 11') takes "
            "input1, the output of the cell before; at least one edge from it must not be 00",
        ),
    ],
)
def test_genotype_that_makes_no_cell_is_refused(genotype, message):
    for refuse in (robnet_graph, lambda value: create_model("robnet", genotype=value)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            refuse(genotype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be even and at least 2, got 0"),
        ({"channels": 5}, "channels must be even and at least 2, got 5"),
        ({"num_cells": 2}, "num_cells must be at least 3, got 2"),
    ],
)
def test_size_that_makes_no_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("robnet", **options)
