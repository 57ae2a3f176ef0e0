"""The claim itself, small: on biased data DM+FairDD beats DM by a wide margin, in accuracy and in both DEO figures."""

import pytest

import fastdd


def figures(data, debias, iterations, epochs, **settings):
    synthetic = fastdd.distill(data, debias=debias, ipc=10, iterations=iterations, depth=2, **settings)
    result = fastdd.evaluate(synthetic, data, nets=1, epochs=epochs).metrics()[0]
    return result


def assert_wide_margin(plain, fair):
    assert fair.accuracy > plain.accuracy + 30
    assert fair.deo_a < plain.deo_a - 50
    assert fair.deo_m < plain.deo_m - 10


def test_digits():
    data = fastdd.data.load("c-digits")
    plain, fair = (figures(data, debias, 40, 60, width=16) for debias in ("none", "fairdd"))
    assert_wide_margin(plain, fair)


@pytest.mark.full
@pytest.mark.realdata
def test_colored_mnist(data_root):
    data = fastdd.data.load("c-mnist-fg", data_root)
    settings = {"width": 32, "batch_real": 128, "dsa_strategy": "color_crop_cutout_scale_rotate"}
    plain, fair = (figures(data, debias, 40, 100, **settings) for debias in ("none", "fairdd"))
    assert_wide_margin(plain, fair)
