"""FairDD with groups that are partly wrong, or clusters (its appendix M), and KDE weights: minutes, so slow."""

import numpy as np
import pytest

import fastdd

pytestmark = pytest.mark.slow


def distil_and_test(data, **settings):
    """Accuracy and DEO_A on the true groups of the test set, percent."""
    synthetic = fastdd.distill(data, ipc=10, **settings)
    summary = fastdd.evaluate(synthetic, data, nets=1, epochs=200).summary()
    found = summary["accuracy"]["mean"], summary["deo_a"]["mean"]
    print(f"accuracy {found[0]:.1f}, DEO_A {found[1]:.1f}")
    return found


def test_noise_degrades_gracefully():
    """At 90 % aligned, as in the paper: of a small group's images, 10 % noise makes about half wrong, here as there.

    At 95 % aligned a small group of c-digits has one image, if any, and 10 % noise adds 1.2 wrong ones: 72 % of the
    gain is left there, 45 % at 20 % noise.
    """
    data = fastdd.data.load("c-digits", bias_ratio=0.9)
    random = np.random.default_rng(0)
    plain, fair = (distil_and_test(data, debias=debias) for debias in ("none", "fairdd"))
    kept, deo = [], []
    for share in (10, 20, 50):
        groups = data.train.groups.copy()
        wrong = random.permutation(len(groups))[: len(groups) * share // 100]
        groups[wrong] = random.integers(0, data.num_groups, len(wrong))
        found = distil_and_test(data, debias="fairdd", groups=groups)
        kept.append((found[0] - plain[0]) / (fair[0] - plain[0]))
        deo.append(found[1])
    assert kept[0] > 0.8
    assert kept[0] > kept[1] > kept[2] > 0
    assert fair[1] < deo[0] < deo[1] < deo[2] <= plain[1]


def test_clusters_and_weights_do_as_well_as_true_groups():
    """82 % was a prototype's with weights; DM has 23 to 29."""
    data = fastdd.data.load("c-digits", bias_ratio=0.95)
    plain, fair = (distil_and_test(data, debias=debias)[0] for debias in ("none", "fairdd"))
    clusters = distil_and_test(data, debias="fairdd", groups=fastdd.pseudo_groups(data)[0])[0]
    weights = distil_and_test(data, debias="kde", weights=fastdd.kde_weights(data).weights)[0]
    assert clusters > plain + 0.97 * (fair - plain)
    assert weights > max(84, plain + 0.9 * (fair - plain))
