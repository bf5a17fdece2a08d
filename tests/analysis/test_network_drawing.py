"""The drawing's layout, and what is drawn on it."""

from __future__ import annotations

import re
import runpy
import sys
from itertools import combinations, pairwise

import networkx as nx
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.network_drawing import draw_graph, drawing
from analysis.network_drawing.layout import GraphLayout, center, layout_graph
from analysis.style import render
from nasbench_at.config.architecture import Architecture
from nasbench_at.networks.graph import build_graph

ALL_BLOCKS = ("residual", "mbconv", "dense", "ada_rk", "resnext", "dla_tree")
EPS = 1e-6


def uniform(num_modules: int, num_blocks: int) -> nx.DiGraph[str]:
    blocks = ALL_BLOCKS[:num_blocks]
    return build_graph(Architecture(blocks=blocks, num_modules=num_modules))


def mixed() -> nx.DiGraph[str]:
    blocks = (("residual", "mbconv"), ("dense",), ("resnext", "ada_rk", "residual", "residual"))
    copies = {"residual": 12}
    return build_graph(Architecture(blocks=blocks, num_modules=3, block_copies=copies))


def block_removed() -> nx.DiGraph[str]:
    graph = uniform(4, 3)
    graph.remove_node("module02.mbconv")
    return graph


GRAPHS = {
    "3 modules of 1": lambda: uniform(3, 1),
    "3 modules of 6": lambda: uniform(3, 6),
    "6 modules of 2": lambda: uniform(6, 2),
    "15 modules of 4": lambda: uniform(15, 4),
    "31 modules of 1": lambda: uniform(31, 1),
    "mixed": mixed,
    "block removed": block_removed,
}


@pytest.fixture(params=GRAPHS)
def graph(request) -> nx.DiGraph[str]:
    return GRAPHS[request.param]()


@pytest.fixture
def layout(graph) -> GraphLayout:
    return layout_graph(graph)


def overlap(a: Bbox, b: Bbox) -> bool:
    return a.x0 < b.x1 - EPS and b.x0 < a.x1 - EPS and a.y0 < b.y1 - EPS and b.y0 < a.y1 - EPS


def contains(outer: Bbox, inner: Bbox) -> bool:
    return (
        outer.x0 <= inner.x0 + EPS
        and outer.y0 <= inner.y0 + EPS
        and inner.x1 <= outer.x1 + EPS
        and inner.y1 <= outer.y1 + EPS
    )


def texts_of(figure: Figure) -> list[Text]:
    (axes,) = figure.axes
    return [text for text in (*axes.texts, *axes.get_legend().texts) if text.get_text()]


def legend_of(figure: Figure) -> dict[str, str]:
    """The legend's percentages by what they are of."""
    lines = [text.get_text() for text in figure.axes[0].get_legend().texts]
    return dict(re.fullmatch(r"(.*?) ((?:< )?[\d.]+)%", line).groups() for line in lines)


def caption_of(figure: Figure) -> str:
    return figure.axes[0].texts[-1].get_text().replace("\N{MULTIPLICATION SIGN}", "x")


def test_every_node_has_a_box_and_every_block_one_module(graph, layout):
    assert set(layout.nodes) == set(graph)
    placed = [node for stage, _ in layout.modules for node in stage.block_nodes]
    assert sorted(placed) == sorted(n for n in graph if graph.nodes[n]["kind"] == "block")


def test_nodes_do_not_overlap(layout):
    for (a, box), (b, other) in combinations(layout.nodes.items(), 2):
        assert not overlap(box, other), (a, b)


def test_blocks_lie_in_their_module_and_nothing_else_does(layout):
    for stage, frame in layout.modules:
        inside = {stage.sum_node, *stage.block_nodes}
        for node, box in layout.nodes.items():
            assert contains(frame, box) == (node in inside)
            assert overlap(frame, box) == (node in inside)


def test_modules_lie_apart_and_on_one_band_each(layout):
    for (_, frame), (_, other) in combinations(layout.modules, 2):
        assert not overlap(frame, other)
    for (_, band), (_, other) in combinations(layout.bands, 2):
        assert not overlap(band, other)
    for _, frame in layout.modules:
        assert sum(contains(band, frame) for _, band in layout.bands) == 1


def test_all_is_inside_the_canvas(layout):
    canvas = Bbox.from_bounds(0.0, 0.0, layout.width, layout.height)
    parts = (*layout.modules, *layout.bands)
    for box in (*layout.nodes.values(), *(box for _, box in parts)):
        assert contains(canvas, box)
    for x, y in (point for line in layout.trunk for point in line):
        assert contains(canvas, Bbox.from_bounds(x, y, 0.0, 0.0))


def test_legend_and_caption_lie_below_the_network(graph, layout):
    figure = draw_graph(graph)
    boxes = [*layout.nodes.values(), *(band for _, band in layout.bands)]
    network = figure.get_figheight() - max(box.y1 for box in boxes)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    legend = figure.axes[0].get_legend().get_window_extent(renderer)
    caption = figure.axes[0].texts[-1].get_window_extent(renderer)
    assert caption.y0 > 0
    assert caption.y1 < legend.y0
    assert legend.y1 / figure.dpi < network


def test_trunk_is_level_or_upright_and_joins_neighbours(graph, layout):
    kinds = nx.get_node_attributes(graph, "kind").values()
    assert len(layout.trunk) == sum(kind != "block" for kind in kinds) - 1
    for line in layout.trunk:
        for (x, y), (u, v) in pairwise(line):
            assert (abs(x - u) < EPS) != (abs(y - v) < EPS)
    starts = {line[0] for line in layout.trunk}
    for stage, _ in layout.modules:
        total = layout.nodes[stage.sum_node]
        assert (total.x1, center(total)[1]) in starts


def test_trunk_crosses_no_module_and_no_other_node(layout):
    obstacles = [*layout.nodes.values(), *(frame for _, frame in layout.modules)]
    for line in layout.trunk:
        for (x, y), (u, v) in pairwise(line[1:-1]):
            segment = Bbox([[min(x, u), min(y, v)], [max(x, u) + 2 * EPS, max(y, v) + 2 * EPS]])
            assert not any(overlap(segment, box) for box in obstacles)


def test_size_is_written_once_per_stage(layout):
    labels = [label.replace("\N{MULTIPLICATION SIGN}", "x") for label, _ in layout.bands]
    assert [label for label in labels if label] == ["20 x 32 x 32", "80 x 16 x 16", "160 x 8 x 8"]


def test_texts_are_drawn_apart_and_inside_the_figure(graph):
    figure = draw_graph(graph)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = texts_of(figure)
    boxes = [text.get_window_extent(renderer) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.x0 < box.x0, text
        assert figure.bbox.y0 < box.y0, text
        assert box.x1 < figure.bbox.x1, text
        assert box.y1 < figure.bbox.y1, text
    for (text, box), (other, second) in combinations(zip(texts, boxes, strict=True), 2):
        assert not box.overlaps(second), (text, other)


def test_labels_fit_into_their_boxes(graph, layout):
    figure = draw_graph(graph)
    renderer = figure.canvas.get_renderer()
    by_center = {text.get_position(): text for text in figure.axes[0].texts}
    for node, box in layout.nodes.items():
        if graph.nodes[node]["kind"] != "sum":
            extent = by_center[center(box)].get_window_extent(renderer)
            assert extent.width / figure.dpi < box.width, node
            assert extent.height / figure.dpi < box.height, node


def rows_of(layout: GraphLayout) -> list[int]:
    axes = [round(center(layout.nodes[stage.sum_node])[1], 6) for stage, _ in layout.modules]
    return [axes.count(axis) for axis in sorted(set(axes))]


@pytest.mark.parametrize(
    ("num_modules", "num_blocks", "rows"),
    [(3, 4, [3]), (6, 2, [2, 2, 2]), (15, 4, [5, 5, 5]), (31, 1, [5, 5, 5, 5, 4, 4, 3])],
)
def test_deep_networks_have_a_row_per_stage_or_more(num_modules, num_blocks, rows):
    layout = layout_graph(uniform(num_modules, num_blocks))
    assert rows_of(layout) == rows
    assert layout.width < 9.3


def test_legend_and_caption_count_the_edited_graph():
    graph = block_removed()
    figure = draw_graph(graph)
    total = sum(nx.get_node_attributes(graph, "num_params").values())
    dense = sum(
        values["num_params"]
        for _, values in graph.nodes(data=True)
        if values.get("block") == "dense"
    )
    percents = legend_of(figure)
    assert list(percents) == ["residual", "mbconv", "dense", "other layers"]
    assert percents["dense"] == f"{100 * dense / total:.1f}"
    assert sum(map(float, percents.values())) == pytest.approx(100, abs=0.3)
    assert caption_of(figure).startswith(f"{total:,} parameters, ")
    assert "GFLOPs (2 x MACs, one 3 x 32 x 32 image)" in caption_of(figure)


def test_share_that_rounds_to_nothing_is_not_written_as_zero():
    blocks = (("residual", "mbconv"), ("dense",), ("residual", "dla_tree"))
    graph = build_graph(Architecture(blocks=blocks, num_modules=3, block_copies={"dla_tree": 3}))
    assert legend_of(draw_graph(graph))["mbconv"] == "< 0.1"


def block_colors(figure: Figure) -> dict[str, str]:
    axes = figure.axes[0]
    names = {text.get_position(): text.get_text() for text in axes.texts}
    colors = {}
    for patch in axes.patches:
        if isinstance(patch, FancyBboxPatch):
            center = (
                patch.get_x() + patch.get_width() / 2,
                patch.get_y() + patch.get_height() / 2,
            )
            if names.get(center) in ALL_BLOCKS:
                colors[names[center]] = to_hex(patch.get_edgecolor())
    return colors


def test_block_has_one_colour_in_all_figures():
    all_colors = block_colors(draw_graph(uniform(3, 6)))
    assert set(all_colors) == set(ALL_BLOCKS)
    assert len(set(all_colors.values())) == len(ALL_BLOCKS)
    graph = build_graph(Architecture(blocks=("dla_tree", "dense"), num_modules=3))
    some_colors = block_colors(draw_graph(graph))
    assert some_colors == {name: all_colors[name] for name in ("dla_tree", "dense")}


def line_widths(figure: Figure, layout: GraphLayout, node: str) -> set[tuple[float, float]]:
    """Width and opacity of the lines that touch a block."""
    box = layout.nodes[node]
    ends = {(box.x0, center(box)[1]), (box.x1, center(box)[1])}
    return {
        (patch.get_linewidth(), patch.get_alpha())
        for patch in figure.axes[0].patches
        if isinstance(patch, PathPatch)
        and ends & {tuple(vertex) for vertex in patch.get_path().vertices.tolist()}
    }


def test_lines_follow_the_attention_weights():
    graph = uniform(3, 3)
    graph.remove_node("module02.mbconv")
    layout = layout_graph(graph)
    weights = [[0.1, 0.3, 0.6], [0.9, 0.0, 0.1], [0.2, 0.2, 0.6]]
    figure = draw_graph(graph, weights=weights)
    found = {node: line_widths(figure, layout, node) for node in layout.nodes if "0" in node}
    assert len(found["module01.residual"]) == 1  # before and after the block alike
    assert found["module01.residual"] == found["module02.dense"]
    assert found["module01.dense"] == found["module03.dense"]
    (thin,), (middle,), (thick,) = (
        found[f"module0{i}"] for i in ("1.residual", "1.mbconv", "2.residual")
    )
    assert thin[0] < middle[0] < thick[0]
    assert thin[1] < middle[1] < thick[1]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[0.5, 0.5]] * 2, "must have 3 rows, got 2"),
        ([[0.5, 0.5], [0.5, 0.5], [1.0]], r"module 2 must be at least 2 in \[0, 1\], got \[1.0\]"),
        ([[0.5, 0.5], [-0.5, 1.5], [0.5, 0.5]], r"module 1 must .* got \[-0.5, 1.5\]"),
    ],
)
def test_weights_of_another_network_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        draw_graph(uniform(3, 2), weights=weights)


def test_broken_chain_is_refused():
    graph = uniform(3, 1)
    graph.remove_node("reduction1")
    with pytest.raises(ValueError, match=r"node 'module01\.sum' leads to nothing"):
        layout_graph(graph)


@pytest.mark.parametrize("file_format", ["pdf", "svg", "png"])
def test_equal_graphs_give_equal_files_at_any_time(file_format, monkeypatch):
    files = set()
    for seconds in ("0", "86400"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
        files.add(render(draw_graph(uniform(3, 2)), file_format))
    assert len(files) == 1


def test_pdf_holds_truetype_fonts():
    content = render(draw_graph(uniform(3, 2)), "pdf")
    assert b"/Type3" not in content
    assert b"/FontFile2" in content


def test_drawing_does_without_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises
    fresh = runpy.run_path(drawing.__file__)
    assert render(fresh["draw_graph"](uniform(3, 2)), "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flops", "text"),
    [(950, "950 FLOPs"), (999_949, "1 MFLOPs"), (2_345_678_901, "2.35 GFLOPs")],
)
def test_flops_are_written_with_a_unit_of_three_digits(flops, text):
    graph = uniform(3, 1)
    nx.set_node_attributes(graph, 0, "flops")
    graph.nodes["stem"]["flops"] = flops
    assert f" {text} " in caption_of(draw_graph(graph))
