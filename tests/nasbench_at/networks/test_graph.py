from __future__ import annotations

from dataclasses import replace
from functools import partial

import networkx as nx
import pytest
import torch

from blocks import register_block
from nasbench_at.config.architecture import Architecture, AttentionSpec
from nasbench_at.networks.graph import (
    BrokenBlockError,
    ModuleStage,
    ReductionStage,
    annotate_graph,
    build_graph,
    build_network,
    build_part,
    count_planned_parameters,
    find_node,
    validate_graph,
    walk_stages,
)
from nasbench_at.networks.widths import match_parameters

DS_NET_4 = 20_780_245
V1 = ("residual", "mbconv", "dense", "ada_rk")
V2 = ("residual", "mbconv", "resnext", "dla_tree")


@pytest.fixture
def graph(tiny_architecture):
    return build_graph(tiny_architecture)


@pytest.mark.parametrize(
    ("blocks", "widen_factor", "init_channels", "expected"),
    [
        (V1, 4, 20, DS_NET_4),
        (V1, 6, 20, 46_353_435),
        (V2, 4, 20, 24_035_815),
        (V2, 6, 20, 53_616_205),
        (V1, 4, 16, 13_315_084),
        (V1, 4, 18, 16_840_662),
        (V1, 4, 24, 29_899_966),
    ],
)
def test_parameters_of_the_papers_networks(blocks, widen_factor, init_channels, expected):
    arch = Architecture(blocks, widen_factor=widen_factor, init_channels=init_channels)
    assert count_planned_parameters(arch) == expected


@pytest.mark.parametrize(
    ("name", "narrow", "wide"),
    [
        ("residual", 12_141_890, 27_090_930),
        ("mbconv", 3_843_990, 8_451_230),
        ("dense", 54_993_090, 122_780_530),
        ("ada_rk", 12_142_010, 27_091_050),
    ],
)
def test_parameters_of_same_block_ensembles(name, narrow, wide):
    arch = Architecture((name,) * 4)
    assert count_planned_parameters(arch) == narrow
    assert count_planned_parameters(replace(arch, widen_factor=6)) == wide


@pytest.mark.parametrize(
    ("blocks", "width", "expected"),
    [
        ("residual", 50, 20_961_710),
        ("mbconv", 81, 20_558_639),
        ("dense", 24, 20_260_186),
        ("ada_rk", 50, 20_961_740),
        ("residual mbconv", 45, 21_177_020),
        ("residual dense", 22, 20_567_238),
        ("residual ada_rk", 36, 20_340_544),
        ("mbconv dense", 24, 21_476_896),
        ("mbconv ada_rk", 45, 21_177_050),
        ("dense ada_rk", 22, 20_567_268),
        ("residual mbconv dense", 22, 21_593_233),
        ("residual mbconv ada_rk", 34, 20_557_466),
        ("residual dense ada_rk", 20, 19_928_320),
        ("mbconv dense ada_rk", 22, 21_593_263),
        ("residual mbconv dense ada_rk", 20, DS_NET_4),
        ("residual residual residual residual", 26, 20_501_894),
        ("mbconv mbconv mbconv mbconv", 47, 20_679_948),
        ("dense dense dense dense", 12, 19_828_498),
        ("ada_rk ada_rk ada_rk ada_rk", 26, 20_502_014),
    ],
)
def test_matched_width_is_the_closest_to_ds_net_4(blocks, width, expected):
    start = Architecture(tuple(blocks.split()), init_channels=7)
    matched = match_parameters(start, DS_NET_4)
    assert matched == replace(start, init_channels=width)
    assert count_planned_parameters(matched) == expected


def test_match_of_an_own_count_gives_the_architecture_back(tiny_architecture):
    for width in (1, 2, 3, 11):
        arch = replace(tiny_architecture, init_channels=width)
        assert match_parameters(tiny_architecture, count_planned_parameters(arch)) == arch


def test_stages_of_a_fractional_factor_are_whole_channels_wide():
    arch = Architecture(("residual",), num_modules=3, init_channels=10, widen_factor=2.15)
    assert arch.stage_channels == (10, 22, 43)  # 21.5 and 43
    assert Architecture(widen_factor=4) == Architecture(widen_factor=4.0)


@pytest.mark.parametrize("blocks", [("dense",), ("residual", "mbconv"), ("dense",) * 4])
def test_tolerance_is_met_by_changing_the_factor_little(blocks):
    target = 239_310
    start = Architecture(blocks, num_modules=3, widen_factor=2, input_shape=(1, 8, 8))
    coarse, fine = match_parameters(start, target), match_parameters(start, target, 0.02)
    misses = [abs(count_planned_parameters(arch) / target - 1) for arch in (coarse, fine)]
    assert misses[0] > 0.02 > misses[1]
    assert abs(fine.widen_factor - 2) < 0.7
    assert match_parameters(start, target, 0.5) == coarse


def test_tolerance_that_no_width_meets_is_named():
    start = Architecture(("dense",), num_modules=3, widen_factor=2, input_shape=(1, 8, 8))
    message = "no width comes within 0.00% of 239310 parameters: the closest has 239953"
    with pytest.raises(ValueError, match=message):
        match_parameters(start, 239_310, 0.0)
    with pytest.raises(ValueError, match=r"tolerance must be .*\[0, 1\], got -1"):
        match_parameters(start, 239_310, -1)


def test_match_takes_the_narrower_of_two_equally_close_widths():
    arch = Architecture(("residual",), num_modules=3, widen_factor=2)
    narrow, wide = (
        count_planned_parameters(replace(arch, init_channels=width)) for width in (9, 11)
    )
    middle = count_planned_parameters(replace(arch, init_channels=10))
    low, high = (narrow + middle) // 2, (middle + wide) // 2
    assert (narrow + middle) % 2 == (middle + wide) % 2 == 0
    assert match_parameters(arch, low).init_channels == 9
    assert match_parameters(arch, low + 1).init_channels == 10
    assert match_parameters(arch, high).init_channels == 10
    assert match_parameters(arch, high + 1).init_channels == 11


def test_match_starts_at_the_narrowest_width_that_can_be_built():
    arch = Architecture(("resnext",), num_modules=3, widen_factor=1)
    assert match_parameters(arch, 1_000).init_channels == 2


@pytest.mark.parametrize("groups", [2, 4])
def test_match_takes_the_closest_of_the_widths_that_can_be_built(groups, own_registry):
    name = f"in_{groups}_groups"
    register_block(name, summary="grouped", reference="ours", kind="handcrafted")(
        lambda channels: torch.nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
    )
    arch = Architecture((name,), num_modules=3, widen_factor=2, input_shape=(1, 8, 8))
    numbers = {
        width: count_planned_parameters(replace(arch, init_channels=width))
        for width in range(groups, 41, groups)
    }
    for target in (numbers[groups], 20_000, 100_000):
        closest = min(numbers, key=lambda width: abs(numbers[width] - target))
        assert match_parameters(arch, target) == replace(arch, init_channels=closest)
        fine = match_parameters(arch, target, 0.1)
        assert abs(count_planned_parameters(fine) - target) <= 0.1 * target


@pytest.mark.parametrize("target", [float("nan"), 0, -5, 1.5, "many"])
def test_match_refuses_what_is_no_number_of_parameters(tiny_architecture, target):
    message = f"target must be a whole number from 1 to 1000000000000, got {target!r}"
    with pytest.raises(ValueError, match=message):
        match_parameters(tiny_architecture, target)


def test_match_refuses_a_target_no_width_comes_near(tiny_architecture):
    narrowest = count_planned_parameters(replace(tiny_architecture, init_channels=1))
    message = (
        f"no width meets 100 parameters: the narrowest network, 1 channels wide, has {narrowest}"
    )
    with pytest.raises(ValueError, match=message):
        match_parameters(tiny_architecture, 100)


def _raise(error):
    raise error


class _Broken(torch.nn.Conv2d):
    def __init__(self, forward, channels):
        super().__init__(channels, channels, 3)
        self.own_forward = forward

    def forward(self, x):
        return self.own_forward(super().forward(x))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda channels: _raise(KeyError("gone")), "KeyError: 'gone'"),
        (partial(_Broken, lambda x: _raise(NameError("no y"))), "NameError: no y"),
        (partial(_Broken, lambda x: _raise(ValueError("bad x"))), "ValueError: bad x"),
        (partial(_Broken, lambda x: x), r"its output must keep the shape, got \(4, 6, 6\)"),
        (partial(_Broken, lambda x: (x, x)), "AttributeError: 'tuple' object has no attribute"),
    ],
    ids=["constructor", "forward", "value", "shape", "kind"],
)
def test_block_that_fails_is_named_with_what_tries_it(build, reason, own_registry):
    options = {"summary": "broken", "reference": "ours", "kind": "handcrafted"}
    register_block("broken", **options)(lambda channels: build(channels))
    message = rf"^block 'broken' fails on features of shape \(4, 8, 8\): {reason}.*"
    message += r"; blocks\.testing\.check_block\('broken'\) tries it alone$"
    with pytest.raises(BrokenBlockError, match=message) as caught:
        build_network(Architecture(("residual", "broken"), 3, 4, input_shape=(3, 8, 8)))
    assert "\n" not in str(caught.value)


def test_match_of_an_unknown_block_says_so():
    with pytest.raises(ValueError, match="unknown block 'mystery'; known: residual"):
        match_parameters(Architecture(("mystery",)), DS_NET_4)


def test_graph_has_a_node_for_every_part(graph):
    kinds = nx.get_node_attributes(graph, "kind")
    assert [node for node, kind in kinds.items() if kind not in ("block", "sum")] == [
        "input",
        "stem",
        "reduction1",
        "reduction2",
        "pool",
        "head",
    ]
    assert {node for node, kind in kinds.items() if kind == "block"} == {
        f"module0{i}.{name}" for i in (1, 2, 3) for name in V1
    }
    assert sum(kind == "sum" for kind in kinds.values()) == 3
    assert nx.is_directed_acyclic_graph(graph)


def test_nodes_carry_channels_and_resolution(graph):
    seen = {
        node: (graph.nodes[node]["channels"], graph.nodes[node]["resolution"])
        for node in ("input", "stem", "module01.sum", "module02.dense", "module03.sum", "head")
    }
    assert seen == {
        "input": (3, (8, 8)),
        "stem": (4, (8, 8)),
        "module01.sum": (4, (8, 8)),
        "module02.dense": (8, (4, 4)),
        "module03.sum": (16, (2, 2)),
        "head": (10, ()),
    }


def test_edges_carry_the_shape_of_their_tensor(graph):
    assert graph.edges["input", "stem"]["shape"] == (3, 8, 8)
    assert graph.edges["module01.sum", "reduction1"]["shape"] == (4, 8, 8)
    assert graph.edges["reduction1", "module02.mbconv"]["shape"] == (8, 4, 4)
    assert graph.edges["module03.ada_rk", "module03.sum"]["shape"] == (16, 2, 2)
    assert graph.edges["pool", "head"]["shape"] == (16, 1, 1)


def test_shapes_are_those_of_the_network(tiny_architecture):
    arch = replace(tiny_architecture, input_shape=(1, 9, 7))
    graph = build_graph(arch)
    net = build_network(graph).eval()
    shapes = []
    for stage in net.stages:
        stage.register_forward_hook(lambda _stage, _in, out: shapes.append(tuple(out.shape[1:])))
    net(torch.rand(1, 1, 9, 7))
    last_nodes = ["module01.sum", "reduction1", "module02.sum", "reduction2", "module03.sum"]
    marked = [next(iter(graph.out_edges(node, data="shape")))[2] for node in last_nodes]
    assert marked == shapes == [(4, 9, 7), (8, 5, 4), (8, 5, 4), (16, 3, 2), (16, 3, 2)]


def test_blocks_carry_module_column_options_and_copies(tiny_architecture):
    arch = replace(
        tiny_architecture, block_options={"dense": {"growth": 3}}, block_copies={"mbconv": 2}
    )
    nodes = build_graph(arch).nodes
    assert [nodes[f"module02.{name}"]["column"] for name in V1] == [0, 1, 2, 3]
    assert nodes["module02.dense"]["module"] == 1
    assert nodes["module02.dense"]["options"] == {"growth": 3}
    assert nodes["module02.mbconv"]["copies"] == 2
    assert (nodes["module02.residual"]["options"], nodes["module02.residual"]["copies"]) == ({}, 1)


def test_repeated_block_gets_a_node_for_each_occurrence():
    graph = build_graph(Architecture(("dense", "residual", "dense"), num_modules=3))
    assert sorted(graph.predecessors("module01.sum")) == [
        "module01.dense",
        "module01.dense_2",
        "module01.residual",
    ]
    assert graph.nodes["module01.dense_2"]["column"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"blocks": V2},
        {"blocks": (("residual",), ("dense", "mbconv"), ("ada_rk", "ada_rk", "dla_tree"))},
        {"block_options": {"ada_rk": {"separate_norms": True}, "mbconv": {"expansion": 3}}},
        {"block_copies": {"dense": 3}},
        {"input_shape": (1, 8, 8), "num_classes": 7},
    ],
)
def test_counted_parameters_are_those_of_the_built_network(tiny_architecture, changes):
    graph = build_graph(replace(tiny_architecture, **changes))
    net = build_network(graph)
    assert graph.graph["num_params"] == sum(p.numel() for p in net.block_parameters())
    assert graph.graph["num_params"] == sum(nx.get_node_attributes(graph, "num_params").values())


def test_building_a_graph_draws_no_random_numbers(tiny_architecture):
    before = torch.get_rng_state()
    build_graph(replace(tiny_architecture, init_channels=13))
    assert torch.equal(torch.get_rng_state(), before)


def test_flops_are_two_per_multiply_add():
    nodes = build_graph(Architecture()).nodes
    assert nodes["stem"]["flops"] == 2 * (9 * 3 * 20) * 32**2
    assert nodes["head"]["flops"] == 2 * 160 * 10
    assert nodes["module01.residual"]["flops"] == 2 * 2 * (9 * 20 * 20) * 32**2
    # The second evaluation of the shared residual is computed too.
    assert nodes["module01.ada_rk"]["flops"] == 2 * nodes["module01.residual"]["flops"]
    assert nodes["reduction1"]["flops"] == 2 * (9 * 20 * 80 + 9 * 80 * 80 + 20 * 80) * 16**2
    depthwise_and_pointwise = (2 * 20 * 40 + 9 * 40) * 32**2
    squeeze_excite = 2 * 40 * 5
    assert nodes["module01.mbconv"]["flops"] == 2 * (depthwise_and_pointwise + squeeze_excite)
    assert all(nodes[node]["flops"] == 0 for node in ("input", "module01.sum", "pool"))


def test_stages_are_walked_in_order(graph):
    stages = list(walk_stages(graph))
    assert stages[1] == ReductionStage("reduction1")
    assert stages[3] == ReductionStage("reduction2")
    assert stages[4] == ModuleStage("module03.sum", tuple(f"module03.{name}" for name in V1))


def test_fresh_graph_is_valid(graph, tiny_architecture):
    validate_graph(graph)
    validate_graph(
        build_graph(replace(tiny_architecture, blocks=(("residual",), V2, ("dense", "dense"))))
    )


def _add_block(graph, node, source, target, **changes):
    graph.add_node(node, **{**graph.nodes["module01.dense"], **changes})
    graph.add_edge(source, node)
    graph.add_edge(node, target)


def _strip_block_nodes(graph):
    for node in [node for node, kind in graph.nodes(data="kind") if kind in ("block", "sum")]:
        graph.remove_node(node)
    for name in ("reduction1", "reduction2"):
        graph.remove_node(name)
    graph.add_edge("stem", "pool")
    graph.nodes["pool"]["channels"] = 4


def _second_sum(graph):
    graph.add_node("other", kind="sum", channels=4)
    graph.remove_edge("module01.dense", "module01.sum")
    graph.add_edge("module01.dense", "other")


BROKEN_GRAPHS = {
    "cycle": (
        lambda g: g.add_edge("module02.sum", "reduction1"),
        "the graph has a cycle through .*reduction1.*; a network must be acyclic",
    ),
    "kind-unknown": (
        lambda g: g.nodes["pool"].update(kind="swim"),
        "node 'pool' has kind 'swim'; it must be one of input, stem, block, sum",
    ),
    "kind-missing": (
        lambda g: g.add_node("bare"),
        "node 'bare' has kind None; it must be one of input",
    ),
    "channels-missing": (
        lambda g: g.nodes["reduction1"].pop("channels"),
        "node 'reduction1' of kind 'reduction' needs a 'channels'",
    ),
    "column-missing": (
        lambda g: g.nodes["module01.dense"].pop("column"),
        "node 'module01.dense' of kind 'block' needs a 'column'",
    ),
    "block-unknown": (
        lambda g: g.nodes["module01.dense"].update(block="dens"),
        "unknown block 'dens'; did you mean 'dense'",
    ),
    "no-module": (
        _strip_block_nodes,
        "the graph has no module between stem and pool; it needs at least one",
    ),
    "stray-node": (
        lambda g: g.add_node("stray", kind="reduction", channels=4),
        "node 'stray' is not on the way from the input to the head",
    ),
    "two-inputs": (
        lambda g: g.add_node("input2", kind="input", channels=3, resolution=(8, 8)),
        r"must have one node of kind 'input', got \['input', 'input2'\]",
    ),
    "no-input": (
        lambda g: g.remove_node("input"),
        "must have one node of kind 'input', got none",
    ),
    "no-stem": (
        lambda g: g.remove_node("stem"),
        "node 'input' leads to nothing; it must lead to one stem",
    ),
    "two-stems": (
        lambda g: g.add_edge("input", "reduction1"),
        r"node 'input' leads to \['stem', 'reduction1'\]; it must lead to one stem",
    ),
    "no-head": (
        lambda g: g.remove_node("head"),
        "node 'pool' leads to nothing; it must lead to one head",
    ),
    "chain-broken": (
        lambda g: g.remove_edge("module01.sum", "reduction1"),
        "node 'module01.sum' leads to nothing; it must lead to the blocks of one module, one "
        "reduction, or the pool",
    ),
    "module-emptied": (
        lambda g: g.remove_nodes_from([f"module02.{name}" for name in V1]),
        "node 'reduction1' leads to nothing; it must lead to the blocks",
    ),
    "mixed-successors": (
        lambda g: g.add_edge("stem", "reduction1"),
        r"node 'stem' leads to \['module01.ada_rk', .*'reduction1'\]; it must lead to the blocks",
    ),
    "block-without-sum": (
        lambda g: g.remove_edge("module01.dense", "module01.sum"),
        "node 'module01.dense' leads to nothing; it must lead to one sum",
    ),
    "two-sums": (
        _second_sum,
        "'module01.dense' share their input 'stem' but enter different sums",
    ),
    "foreign-block": (
        lambda g: _add_block(g, "foreign", "input", "module01.sum"),
        "node 'input' leads to .*'foreign'.* it must lead to one stem",
    ),
    "skip-into-sum": (
        lambda g: (
            (g.remove_edge("pool", "head"), g.add_edge("pool", "module01.sum"))
            and g.remove_edge("module03.sum", "pool")
        ),
        "sum 'module01.sum' also takes 'pool', which does not start from 'stem'",
    ),
    "columns-repeated": (
        lambda g: g.nodes["module01.dense"].update(column=0),
        r"blocks of 'module01.sum' have columns \[0, 0, 1, 3\]; each needs one of its own",
    ),
    "channels-differ": (
        lambda g: g.nodes["module02.dense"].update(channels=6),
        "node 'module02.dense' has 6 channels but receives 8 from 'reduction1'; a block keeps its "
        "channels",
    ),
    "sum-channels-differ": (
        lambda g: g.nodes["module02.sum"].update(channels=6),
        "node 'module02.sum' has 6 channels but receives 8 from 'module02.residual'; a sum keeps",
    ),
    "edge-shape-stale": (
        lambda g: g.edges["reduction1", "module02.dense"].update(shape=(8, 3, 3)),
        r"edge 'reduction1' -> 'module02.dense' is marked with shape \(8, 3, 3\) but 'reduction1' "
        r"puts out \(8, 4, 4\); annotate_graph renews the marks",
    ),
}


@pytest.mark.parametrize(("breaks", "message"), BROKEN_GRAPHS.values(), ids=BROKEN_GRAPHS.keys())
def test_broken_graph_is_refused_and_its_node_named(graph, breaks, message):
    breaks(graph)
    with pytest.raises(ValueError, match=message):
        validate_graph(graph)
    with pytest.raises(ValueError, match=message):
        build_network(graph)


def test_input_without_resolution_is_refused(graph):
    del graph.nodes["input"]["resolution"]
    with pytest.raises(ValueError, match="node 'input' of kind 'input' needs a 'resolution'"):
        validate_graph(graph)


def test_edges_without_shape_are_accepted(graph):
    for _, _, attributes in graph.edges(data=True):
        del attributes["shape"]
    validate_graph(graph)


def test_unknown_block_of_an_architecture_lists_near_matches():
    with pytest.raises(ValueError, match="unknown block 'residul'; did you mean 'residual'"):
        build_graph(Architecture(("residul",)))


def test_bad_option_of_an_architecture_is_refused():
    arch = Architecture(("mbconv",), block_options={"mbconv": {"kernel_size": 2}})
    with pytest.raises(ValueError, match="kernel_size must be odd and positive, got 2"):
        build_graph(arch)


def test_removed_block_leaves_a_network_without_it(graph):
    full = build_network(graph)
    graph.remove_node("module02.dense")
    annotate_graph(graph)
    net = build_network(graph)
    assert [len(stage.blocks) for stage in net.stages if hasattr(stage, "blocks")] == [4, 3, 4]
    assert torch.equal(net.attention.weights()[1] == 0, torch.tensor([0, 0, 1, 0]).bool())
    removed = sum(p.numel() for p in full.stages[2].blocks[2].parameters())
    assert sum(p.numel() for p in net.block_parameters()) == graph.graph["num_params"]
    assert graph.graph["num_params"] == sum(p.numel() for p in full.block_parameters()) - removed
    assert net(torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_removed_block_computes_what_a_masked_block_does(tiny_architecture):
    keep = ((0, 1, 2, 3), (0, 1, 3), (0, 1, 2, 3))
    masked = build_network(replace(tiny_architecture, attention=AttentionSpec(keep=keep))).eval()
    graph = build_graph(tiny_architecture)
    graph.remove_node("module02.dense")
    pruned = build_network(graph).eval()
    state = masked.state_dict()
    # Module 2 keeps residual, mbconv and ada_rk: the fourth block of one is the third of the other.
    own = {
        key: state[key.replace("stages.2.blocks.2.", "stages.2.blocks.3.")]
        for key in pruned.state_dict()
    }
    pruned.load_state_dict(own)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(pruned(x), masked(x))


def test_added_block_is_part_of_the_network(graph):
    before = graph.graph["num_params"]
    graph.graph["num_columns"] = 5
    _add_block(graph, "extra", "stem", "module01.sum", block="residual", column=4)
    annotate_graph(graph)
    net = build_network(graph)
    assert len(net.stages[0].blocks) == 5
    assert net.attention.weights().shape == (3, 5)
    assert graph.graph["num_params"] == before + 18 * 4**2 + 8 * 4


def test_building_a_network_leaves_the_graph_as_it_was(graph):
    before = nx.node_link_data(graph, edges="edges")
    net = build_network(graph)
    net.graph.remove_node("pool")
    assert nx.node_link_data(graph, edges="edges") == before


def test_block_sets_may_differ_from_module_to_module():
    sets = (("residual",), ("dense", "mbconv"), ("ada_rk", "resnext", "residual"))
    arch = Architecture(sets, num_modules=3, init_channels=4, widen_factor=2, input_shape=(1, 8, 8))
    graph = build_graph(arch)
    assert graph.graph["num_columns"] == 3
    net = build_network(graph)
    weights = net.attention.weights()
    assert [(row > 0).tolist() for row in weights] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_column_beyond_the_last_is_refused(graph):
    graph.nodes["module02.dense"]["column"] = 7
    with pytest.raises(ValueError, match=r"module 1 has no block 7; it must lie in 0\.\.3"):
        build_network(graph)


@pytest.mark.parametrize("kind", ["sum", "block"])
def test_only_parts_with_weights_are_built(kind):
    with pytest.raises(ValueError, match=f"node of kind '{kind}' and block None has no module"):
        build_part(kind, 3, 3)


def test_copies_of_a_block_are_stacked():
    part = build_part("block", 4, 4, block="residual", copies=3)
    assert len(part) == 3
    assert part[0] is not part[1]


def test_a_kind_found_once_is_returned(graph):
    assert find_node(graph, "pool") == "pool"
