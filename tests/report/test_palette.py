"""Colours of a page: groups have their own, readers of all kinds can tell the palette apart, text can be read."""

from itertools import pairwise

import numpy as np
import pytest

from fastdd.report import palette
from fastdd.report.charts import scatter
from fastdd.report.palette import COLOURS, DARK, DASHES, MARKERS, cell_colours, group_colours

# Machado, Oliveira and Fernandes (2009), severity 1, of linear RGB: as it is, protanopia, deuteranopia, tritanopia.
EYES = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1, 1.089])


def linear(colours):
    """[N, 3] of sRGB, 0..1."""
    values = np.array([[int(one[at : at + 2], 16) for at in (1, 3, 5)] for one in colours]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(values):
    """CIELAB of linear RGB."""
    ratio = values @ TO_XYZ.T / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def contrast(one, other):
    """WCAG 2's, of two colours."""
    low, high = sorted((linear([one, other]) @ np.array([0.2126, 0.7152, 0.0722])).tolist())
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("colours", "back"), [(COLOURS, "#ffffff"), (COLOURS, "#f6f8fa"), (DARK, "#14181d")])
def test_all_eyes_can_tell_the_palette_apart_and_from_the_page(colours, back):
    for eyes in EYES:
        seen = lab(np.clip(linear(colours) @ eyes.T, 0, 1))
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1e3 * np.eye(len(colours))
        assert apart.min() > 16
    assert min(contrast(one, back) for one in colours) >= (3 if back != "#f6f8fa" else 2.8)


def test_of_many_no_two_look_alike_and_neighbours_differ_in_colour_and_form():
    points = [(palette.colour(number), palette.marker(number)) for number in range(56)]
    lines = [(palette.colour(number), palette.dashes(number)) for number in range(40)]
    assert len(set(points)) == len(COLOURS) * len(MARKERS) == 56
    assert len(set(lines)) == len(COLOURS) * len(DASHES) == 40
    for looks in (points, lines):
        assert all(one[0] != other[0] and one[1] != other[1] for one, other in pairwise(looks))


def test_groups_have_the_colours_of_their_images_or_of_their_names():
    mnist = ["red", "orange", "yellow", "light yellow", "green", "cyan", "blue", "violet", "magenta", "white"]
    assert group_colours(mnist)[1:5] == ["#ff8000", "#ffff00", "#ffff80", "#00ff00"]
    assert group_colours(["mauve", "sky blue"]) == ["#ac7694", "#16c6fa"]
    assert group_colours(["gray", "colour"]) == ["#808080", "#0b5fd0"]
    # A group that is no colour has none that a reader would take for another group's.
    assert group_colours(["child", "old", "young"]) == list(COLOURS[:3])
    assert group_colours(["old", "navy", "young", "child"])[::2] == list(COLOURS[:2])
    assert group_colours(["old", "young", "cobalt blue"])[:2] == group_colours(["old", "young"])
    assert group_colours(["old", "cerulean blue"])[0] != group_colours(["old"])[0]
    assert group_colours(["Red", "old"])[0] == "#ff0000"


def test_text_of_every_cell_can_be_read():
    pairs = [cell_colours(share / 1000) for share in range(1001)]
    assert min(contrast(back, ink) for back, ink in pairs) >= 4.5
    assert all(palette.contrast(*pair) == pytest.approx(contrast(*pair)) for pair in pairs[::100])
    depths = [palette.luminance(back) for back, _ in pairs]
    assert depths == sorted(depths, reverse=True)


def test_twelve_classes_have_a_legend_beside_the_plot_with_a_form_each():
    generator = np.random.default_rng(0)
    names = [f"class {number}" for number in range(12)]
    points, of = generator.normal(size=(24, 2)), np.arange(24) % 12
    text = scatter(points, of, points[:12], of[:12], names)
    legend = text[text.index("<ul") :]
    assert all(f"{name}</li>" in legend for name in names)
    assert len(set(legend.split("<li>")[1:])) == 12
    assert len({line.split("</svg>")[0] for line in legend.split("<li>")[1:]}) == 12
    assert ">class 3<" not in text[: text.index("<ul")]
