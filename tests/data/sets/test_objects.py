"""Where objects are, against the gray images that the sets were painted from."""

import numpy as np
import pytest

import fastdd
from fastdd.data.sets import backgrounds, builders

SETS = {"c-fmnist-fg": builders.graded_foreground, "c-fmnist-bg": builders.graded_background}


def objects_of(builder, images):
    data = fastdd.data.load("c-digits")
    return fastdd.data.objects_in(fastdd.data.Dataset(**{**vars(data), "provenance": {"builder": builder}}), images)


@pytest.fixture(scope="module")
def gray():
    """Every level somewhere, and a frame of padding."""
    levels = np.random.default_rng(0).permuted(np.arange(256, dtype=np.uint8)[None].repeat(20, 0), axis=1)
    return np.pad(levels.reshape(20, 16, 16), ((0, 0), (2, 2), (2, 2)))


@pytest.mark.parametrize("name", SETS)
def test_painted_objects_are_the_levels_above_specks(gray, name):
    groups = np.arange(20) % 10
    found = objects_of(name, builders.paint(gray, groups, SETS[name]()))
    # The overflow on white has the same pixels for levels 0 and 128, and so on.
    told = (groups != 9) | (name == "c-fmnist-fg")
    assert (found[told] == (gray[told] > 5)).all()
    assert not found[~told].any()


def test_over_photographs_objects_are_where_they_hide_them(gray):
    photographs = np.random.default_rng(1).integers(0, 256, (20, 3, 20, 20), dtype=np.uint8)
    photographs[:, 1] = photographs[:, 0] ^ 128  # no pixel is gray, however little is seen of it
    assert (objects_of("bg-fmnist", backgrounds.composite(gray, photographs)) == (gray >= 48)).all()
    photographs[:] = photographs[:, :1]
    assert not objects_of("bg-fmnist", backgrounds.composite(gray, photographs)).any()
