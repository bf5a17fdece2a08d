from __future__ import annotations

from pathlib import Path

import pytest

from analysis.style import create_figure, show_percent, style_axes, write_figure


def line_figure():
    figure = create_figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1])
    style_axes(axes, x="epoch", y="loss", title="a run")
    return figure


def test_axes_carry_their_labels():
    (axes,) = line_figure().axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("epoch", "loss", "a run")


@pytest.mark.parametrize(
    ("name", "start"), [("c.pdf", b"%PDF"), ("c.png", b"\x89PNG"), ("c.svg", b"<?xml")]
)
def test_suffix_decides_the_format_and_equal_figures_give_equal_files(name, start, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_figure(line_figure(), tmp_path / folder / name)
    content = (tmp_path / "one" / name).read_bytes()
    assert content.startswith(start)
    assert (tmp_path / "two" / name).read_bytes() == content


@pytest.mark.parametrize(
    ("path", "message"),
    [("c.doc", "must end in pdf, png, svg, got 'c.doc'"), ("none/c.pdf", "cannot write figure")],
)
def test_bad_path_is_named(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        write_figure(line_figure(), Path(path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ends", [(0.972, 0.993), (0.73, 0.83), (0.0, 1.0)])
def test_percent_ticks_stand_where_they_say(ends):
    axes = line_figure().axes[0]
    axes.set_ylim(*ends)
    show_percent(axes.yaxis)
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert float(label.get_text().removesuffix("%")) == pytest.approx(100 * tick)
