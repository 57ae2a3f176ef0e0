"""Cells of the table of classes and groups: numbers of test images, and what WA and DEO rest on."""

import numpy as np
import pytest

import fastdd
from fastdd.report.cells import cells, doubts_of_cells, images_of_cells

CLASSES, GROUPS = ["cat", "dog"], ["red", "blue"]


def row(accuracy, **more):
    return {"group_accuracy": accuracy, "nets": 2, "tested_on": "test", **more}


def test_every_cell_has_its_images_and_few_are_marked():
    found = cells(row([[100.0, 50.0], [None, 25.0]]), np.array([[20, 19], [0, 200]]))
    assert [[(cell.text, cell.images, cell.few) for cell in line] for line in found] == [
        [("100", 20, False), ("50", 19, True)],
        [("-", 0, False), ("25", 200, False)],
    ]


def test_images_are_the_results_own_or_those_of_the_data_where_they_can_be():
    data = fastdd.data.load("c-digits")
    counts = data.test.counts(data.num_classes, data.num_groups)
    sound = (100 * np.ones_like(counts) / counts / 2).tolist()  # one right image of two networks' in each cell
    assert images_of_cells(row([[1.0, 2.0]], group_images=[[3, 4]]), None).tolist() == [[3, 4]]
    assert np.array_equal(images_of_cells(row(sound), data), counts)
    assert images_of_cells(row(sound), None) is None
    assert images_of_cells(row(sound, tested_on="validation"), data) is None
    sound[0][0] += 0.01  # of no whole number of images
    assert images_of_cells(row(sound), data) is None


@pytest.mark.parametrize(
    ("accuracy", "images", "lines"),
    [
        ([[90.0, 50.0], [80.0, 70.0]], [[20, 20], [20, 20]], []),
        ([[90.0, 50.0], [80.0, 70.0]], [[99, 99], [19, 99]], ["DEO_A: in 1 of 2 classes"]),
        (
            [[90.0, 50.0], [80.0, 70.0]],
            [[99, 1], [99, 99]],
            [
                "WA rests on 1 image of class cat in group blue, fewer than 20",
                "DEO_M is the gap between 1 image of class cat in group blue and 99 images of class cat in group red",
                "DEO_A: in 1 of 2 classes",
            ],
        ),
        ([[90.0, None], [80.0, 70.0]], [[5, 0], [99, 99]], []),
        ([[90.0], [1.0]], [[5], [5]], []),
    ],
)
def test_what_rests_on_few_images_is_told(accuracy, images, lines):
    found = doubts_of_cells(row(accuracy), np.array(images), CLASSES, GROUPS)
    assert len(found) == len(lines)
    assert all(one.startswith(line) for one, line in zip(found, lines, strict=True))
    assert doubts_of_cells(row(accuracy), None, CLASSES, GROUPS) == []
