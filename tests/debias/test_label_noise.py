"""FairDD with groups that are partly wrong, or clusters (its appendix M), and KDE weights: minutes, so slow."""

import numpy as np
import pytest

import fastdd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures():
    """Accuracy and DEO_A by name, percent, on the true groups of the test set."""
    data = fastdd.data.load("c-digits", bias_ratio=0.95)
    random = np.random.default_rng(0)
    found = {}

    def add(name, **settings):
        synthetic = fastdd.distill(data, ipc=10, **settings)
        summary = fastdd.evaluate(synthetic, data, nets=1, epochs=200).summary()
        found[name] = summary["accuracy"]["mean"], summary["deo_a"]["mean"]
        print(f"{name}: accuracy {found[name][0]:.1f}, DEO_A {found[name][1]:.1f}")

    add("dm")
    add("fairdd", debias="fairdd")
    for share in (10, 20, 50):
        groups = data.train.groups.copy()
        wrong = random.permutation(len(groups))[: len(groups) * share // 100]
        groups[wrong] = random.integers(0, data.num_groups, len(wrong))
        add(share, debias="fairdd", groups=groups)
    add("clusters", debias="fairdd", groups=fastdd.pseudo_groups(data)[0])
    add("kde", debias="kde", weights=fastdd.kde_weights(data).weights)
    return found


def gain(figures, name):
    """Of the accuracy that true groups gain over none."""
    return (figures[name][0] - figures["dm"][0]) / (figures["fairdd"][0] - figures["dm"][0])


def test_noise_degrades_gracefully(figures):
    assert gain(figures, 10) > gain(figures, 50) - 0.02
    assert gain(figures, 10) > 0.7
    assert gain(figures, 20) > 0.5
    assert figures["dm"][1] > figures[10][1] > figures["fairdd"][1] - 2


def test_clusters_do_as_well_as_true_groups(figures):
    assert gain(figures, "clusters") > 0.97


def test_weights_do_nearly_as_well(figures):
    """82 % was a prototype's; DM has 23 to 29."""
    assert figures["kde"][0] > 84
    assert gain(figures, "kde") > 0.9
