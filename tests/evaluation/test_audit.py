"""An audit: constructed cases with known answers, and what it refuses."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import fastdd
from fastdd.data import Dataset, Split, SyntheticSet, Zca
from fastdd.data.initial import random_set, starting_groups
from fastdd.evaluation.audit import AuditSettings, data_bias, mutual_information, probe_groups
from fastdd.evaluation.audit import means as placing
from fastdd.evaluation.audit.information import augmented, information_by_chance
from fastdd.evaluation.audit.set_bias import as_normalised
from fastdd.training import fake_counts

QUICK = {"nets": 2, "probe_steps": 60}


@pytest.fixture(scope="module")
def data():
    """Digits 0, 1 and 2 in three colours: of each about 38 images in its own, and about 11 in either other."""
    digits = fastdd.data.load("c-digits", bias_ratio=0.3)
    parts = [part.take(np.flatnonzero((part.labels < 3) & (part.groups < 3))) for part in (digits.train, digits.test)]
    return replace(
        digits, train=parts[0], test=parts[1], class_names=digits.class_names[:3], group_names=("r", "g", "b")
    )


@pytest.fixture(scope="module")
def random(data):
    made = random_set(data, 50)
    return made, fastdd.audit(data, made, **QUICK)


@pytest.fixture(scope="module")
def balanced(data):
    made = random_set(data, 27, balanced=True)
    return made, fastdd.audit(data, made, **QUICK)


def test_of_random_real_images_the_probe_has_the_shares_and_the_means_are_vanillas(data, random):
    made, found = random
    groups = starting_groups(made, data)
    assert found.of_set.probe.accuracy > 95
    assert np.mean(np.array(found.of_set.groups) == groups.numpy()) > 0.98
    for y, row in enumerate(found.of_set.classes):
        truth = torch.bincount(groups[made.labels == y], minlength=3) / 50
        assert np.abs(np.array(row.shares) - truth.numpy()).max() < 0.02
        assert row.conflicting == pytest.approx(1 - truth[found.data.classes[y].majority].item(), abs=0.02)
    assert abs(found.of_set.position) < 0.1
    assert found.of_set.information == pytest.approx(mutual_information(found_counts(made, groups)), abs=0.1)


def found_counts(made, groups):
    return np.bincount(made.labels * 3 + groups, minlength=9).reshape(3, 3)


def test_of_as_many_images_of_every_group_the_means_are_fairdds(balanced):
    found = balanced[1].of_set
    assert abs(found.position - 1) < 0.1
    assert all(abs(share - 1 / 3) < 0.02 for row in found.classes for share in row.shares)
    assert all(row.entropy > 1.58 for row in found.classes)  # log2(3) is 1.585
    assert found.majority_share == pytest.approx(1 / 3, abs=0.01)
    assert found.information < 0.05
    assert all(bound.holds for bound in found.bounds if bound.distance != "cosine")


def test_two_audits_are_equal_and_another_seed_is_not(data, balanced):
    made, _ = balanced
    first, second, other = (
        fastdd.audit(data, made, nets=1, probe_steps=2, probe_accuracy=0, seed=seed) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_other_normalisation_class_order_and_whitening_change_no_finding(data, balanced):
    made, _ = balanced
    settings = {"nets": 1, "probe_steps": 2, "probe_accuracy": 0}
    found = fastdd.audit(data, made, **settings)
    names = list(reversed(data.class_names))
    # So that the reader goes by the names, not by the numbers that these are.
    words = replace(data, class_names=tuple(f"digit {name}" for name in data.class_names))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    turned = replace(
        made,
        labels=2 - made.labels,
        images=(made.images * std + mean - 0.1) / 0.5,
        metadata=made.metadata
        | {"class_names": [f"digit {name}" for name in names], "mean": [0.1] * 3, "std": [0.5] * 3},
    )
    other = fastdd.audit(words, turned, **settings).of_set
    assert other.groups == found.of_set.groups
    assert [row.position for row in other.classes] == pytest.approx(
        [row.position for row in found.of_set.classes], abs=1e-4
    )
    zca = Zca.fit(data.train.images)
    whitened = random_set(data, 27, balanced=True, zca=zca)
    assert (as_normalised(whitened, data) - made.images).abs().max() < 0.01


def test_of_images_that_hold_several_those_are_looked_at_that_networks_see(data):
    made = random_set(data, 3)
    several = SyntheticSet(made.images, made.labels, made.metadata | {"formation": 2})
    found = fastdd.audit(data, several, nets=1, probe_steps=2, probe_accuracy=0).of_set
    assert found.images == len(found.groups) == 4 * 9
    assert [row.images for row in found.classes] == [12] * 3
    assert found.condensed_ratio == 9 / len(data.train)


# Of the data


def split(counts):
    labels = np.repeat(np.arange(len(counts)), counts.sum(1))
    groups = np.concatenate([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    return Split(np.zeros((len(labels), 1, 2, 2), np.uint8), labels, groups)


def test_shares_and_information_of_counts_by_hand():
    part = split(np.array([[9, 1], [2, 4]]))
    data = Dataset("toy", part, part, ("a", "b"), ("g", "h"), (0.5,), (0.5,), {})
    found = data_bias(data)
    assert [(one.majority, one.majority_share) for one in found.classes] == [(0, 0.9), (1, 4 / 6)]
    assert found.majority_share == 13 / 16
    by_hand = sum(
        n / 16 * math.log2((n / 16) / (a / 16 * b / 16)) for n, a, b in ((9, 10, 11), (1, 10, 5), (2, 6, 11), (4, 6, 5))
    )
    assert found.information == pytest.approx(by_hand, rel=1e-12)
    assert found.condensed == ((10, 20 / 16), (50, 100 / 16), (100, 200 / 16))


def test_no_fake_images_make_the_class_independent_of_group_and_source():
    """From Fake to Real, theorem 1, on counts of every kind; stage 1 of FFR alone is unbiased, and stage 2 the data."""
    draws = np.random.RandomState(0)
    for _ in range(50):
        counts = draws.randint(1, 200, (draws.randint(2, 5), draws.randint(2, 5)))
        found = {one.use: one for one in augmented(counts)}
        assert found["usb"].information == pytest.approx(0, abs=1e-12)
        assert found["usb"].with_source > 1e-4
        assert found["asb"].information > 0
        assert found["asb"].with_source > 1e-4
        assert (found["ffr-1"].information, found["ffr-1"].with_source) == (0, 0)
        assert found["ffr-2"].information == found["none"].information
        assert found["usb"].images == counts.size * counts.max()
        assert found["ffr-1"].images == fake_counts(counts, "ffr").sum()


def test_what_chance_makes_of_independent_classes_and_groups():
    draws = np.random.RandomState(1)
    cells = draws.randint(0, 25, (3000, 1000))
    mean = np.mean([mutual_information(np.bincount(row, minlength=25).reshape(5, 5)) for row in cells])
    assert information_by_chance(1000, 5, 5) == pytest.approx(mean, rel=0.05)


# Of means, of Gaussians with given ones


def gaussians(target, counts=(60, 20, 10), spread=0.0, dim=6):
    """Embeddings of two classes whose groups lie around given centres; the sets are single images at ``target``."""
    generator = torch.Generator().manual_seed(3)
    counts = torch.tensor([counts, counts[::-1]])
    centres = torch.randn(2, 3, dim, generator=generator, dtype=torch.float64) * 3
    cells = torch.arange(6).repeat_interleave(counts.flatten())
    noise = torch.randn(len(cells), dim, generator=generator, dtype=torch.float64)
    real = centres.view(6, dim)[cells] + spread * noise
    made = torch.stack([target(centres[y], counts[y].double()) for y in range(2)])
    return real, cells, made, torch.arange(2), counts, centres


def vanilla(centres, counts):
    return counts @ centres / counts.sum()


@pytest.mark.parametrize("wanted", [-0.5, 0.0, 0.3, 1.0, 1.7])
def test_the_position_is_that_on_the_line(wanted):
    def target(centres, counts):
        r, m = vanilla(centres, counts), centres.mean(0)
        return r + wanted * (m - r)

    found = placing.positions(*gaussians(target)[:5])
    assert found.position.tolist() == pytest.approx([wanted, wanted], abs=1e-9)
    assert found.residual.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_groups_of_one_size_have_no_line():
    found = placing.positions(*gaussians(lambda centres, counts: centres[0], counts=(20, 20, 20))[:5])
    assert found.position.isnan().all()


def test_losses_are_the_literal_sums_and_theorem_5_2_holds():
    for seed in range(5):
        torch.manual_seed(seed)
        point = torch.randn(6, dtype=torch.float64) * 3
        real, cells, made, labels, counts, _ = gaussians(lambda centres, counts, p=point: p, spread=0.5)
        losses = placing.positions(real, cells, made, labels, counts).losses
        literal = torch.zeros(3, 2, dtype=torch.float64)
        for y, means in enumerate(means_of(real, cells)):
            literal[:, 0] += literal_distances(real[cells // 3 == y].mean(0), made[y])
            literal[:, 1] += sum(literal_distances(mean, made[y]) for mean in means)
        assert torch.allclose(losses[:, :2], literal, rtol=1e-10)
        mse, mae, _ = placing.bounds(losses[None])
        assert mse.holds
        assert mae.holds
        # Theorem 5.1: sum over groups of |c - t|^2 is G |t - m|^2 and what no set can avoid.
        floor = sum((centre - group.mean(0)).pow(2).sum() for group in means_of(real, cells) for centre in group)
        assert mse.fair == pytest.approx(3 * mse.to_mean + floor.item(), rel=1e-10)


def literal_distances(a, b):
    return torch.stack([(a - b).pow(2).sum(), (a - b).abs().sum(), 1 - a @ b / a.norm() / b.norm()])


def means_of(real, cells):
    return [torch.stack([real[cells == 3 * y + g].mean(0) for g in range(3)]) for y in range(2)]


def test_for_mae_the_best_point_is_the_median_not_the_mean():
    at_mean, at_median = (
        placing.bounds(placing.positions(*gaussians(target)[:5]).losses[None])[1]
        for target in (lambda centres, counts: centres.mean(0), lambda centres, counts: centres.median(0).values)
    )
    assert at_median.fair < at_mean.fair
    assert at_median.to_median == pytest.approx(0, abs=1e-9)
    assert at_median.to_mean == pytest.approx(at_mean.to_median, rel=1e-12)
    assert at_mean.to_median > 1


def test_coverage_is_of_what_lies_near():
    real = torch.tensor([[0.0], [1], [2], [10], [11], [12]])
    covered, by_chance = placing.covered_by(real, torch.tensor([[1.5], [20]]), torch.ones(6))
    assert covered.tolist() == [False, True, True, False, False, False]
    near = torch.tensor([1, 2, 1, 1, 2, 1]) / 6
    assert by_chance.tolist() == pytest.approx((1 - (1 - near) ** 2).tolist())


# What can't be said


def test_what_has_no_groups_or_does_not_fit_is_one_line(data, random):
    made, _ = random
    plain = data.with_groups(np.zeros(len(data.train), np.int64))
    with pytest.raises(ValueError, match="c-digits has no groups, and an audit goes by them: take a data set with"):
        fastdd.audit(plain, made)
    small = replace(made, images=made.images[..., :8].contiguous())
    with pytest.raises(ValueError, match=r"synthetic images are \(3, 16, 8\), those of c-digits are \(3, 16, 16\)"):
        fastdd.audit(data, small)
    fewer = replace(data, class_names=(*data.class_names, "three"))
    with pytest.raises(ValueError, match="of 3 classes, but c-digits has 4"):
        fastdd.audit(fewer, made)
    with pytest.raises(ValueError, match="nets must be at least 1, not 0"):
        fastdd.audit(data, made, nets=0)
    with pytest.raises(ValueError, match=r"probe_step'.*probe_steps"):
        fastdd.audit(data, made, probe_step=3)
    with pytest.raises(TypeError, match=r"data is a fastdd\.data\.Dataset, not str"):
        fastdd.audit("c-digits")


def test_a_probe_that_cannot_tell_says_nothing_and_that_it_does(data, random, tmp_path):
    """Groups that are nothing that can be seen: the probe guesses, whatever the class."""
    made, _ = random
    draws = np.random.RandomState(0).randint(0, 2, len(data.train)).astype(np.int64)
    made.save(tmp_path / "set.safetensors")
    with pytest.warns(
        RuntimeWarning, match=r"accuracy of [3-6]\d\.\d % \(guessing 50\.0 %\), below 80 %: of the groups"
    ):
        found = fastdd.audit(data.with_groups(draws), tmp_path / "set.safetensors", nets=1, probe_steps=20).of_set
    assert found.groups is found.majority_share is found.information is None
    assert {row.shares for row in found.classes} == {None}
    assert found.position is not None


def test_settings_are_those_of_the_docs():
    assert AuditSettings().model_dump() == {
        "nets": 20,
        "per_cell": 100,
        "probe_steps": 300,
        "probe_accuracy": 80.0,
        "seed": 0,
    }


def test_the_groups_that_the_probe_tells_are_for_training_too(data, random, monkeypatch):
    made, found = random
    quick = AuditSettings(**QUICK)
    groups, probe = probe_groups(data, made, quick)
    assert tuple(groups.tolist()) == found.of_set.groups
    assert probe == found.of_set.probe
    with pytest.raises(
        ValueError, match=r"an accuracy of .* below 100 %: give the groups of the set's images yourself"
    ):
        probe_groups(data, made, AuditSettings(probe_steps=1, probe_accuracy=100))
    module = sys.modules["fastdd.api.evaluate"]
    monkeypatch.setattr(module, "probe_groups", lambda *of, **given: probe_groups(*of, quick, **given))
    short = {"nets": 1, "epochs": 1, "width": 4}
    told = fastdd.evaluate(made, data, training="lw", groups="probe", **short)
    assert told.groups_from == f"those that a probe tells, whose accuracy is {probe.accuracy:.1f} %"
    same = fastdd.evaluate(made, data, training="lw", groups=groups.numpy(), **short)
    assert torch.equal(told.counts[0].right, same.counts[0].right)
    with pytest.raises(ValueError, match=r"groups probe is for a training that looks at groups \(.*lw.*\), not erm"):
        fastdd.evaluate(made, data, groups="probe", **short)


def test_of_an_image_that_holds_several_the_probe_tells_the_likeliest_over_its_parts(data, random):
    made = random[0]
    # Four small copies of a real image in each.
    images = made.images[..., ::2, ::2].tile(1, 1, 2, 2)
    several = replace(made, images=images, metadata=made.metadata | {"formation": 2})
    groups, _ = probe_groups(data, several, AuditSettings(**QUICK))
    assert (groups == starting_groups(made, data)).double().mean() > 0.95
