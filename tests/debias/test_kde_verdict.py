"""What is said of weights, on embeddings whose truth is known."""

import numpy as np
import pytest

from fastdd.debias.density import kde

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
LABELS = np.repeat([0, 1], 100)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clusters():
    """Embeddings of two groups a class, apart, one of which has 8 of 100 images; and the groups."""
    generator = np.random.default_rng(0)
    groups = np.tile(np.arange(100) < 8, 2).astype(np.int64)
    return unit(np.eye(16)[groups] + 0.1 * generator.normal(size=(200, 16))), groups


def test_weights_on_a_minority_are_trusted(clusters):
    rows, groups = clusters
    found = kde.judge(kde.kde_weights(rows, LABELS), LABELS, groups, ("a", "b"))
    assert (found.level, found.reasons) == ("trust", [])
    assert min(found.stability) > 0.8
    assert found.auc == [1.0, 1.0]
    assert min(found.correlation) > 0.3
    assert "outside the largest group of their class are 8.0 %" in found.facts[-1]


def test_shares_are_those_of_the_weights(clusters):
    made = kde.kde_weights(clusters[0], LABELS)
    found = kde.judge(made, LABELS)
    for label in (0, 1):
        own = np.sort(made.weights[label == LABELS].astype(np.float64))[::-1]
        assert found.heaviest[label] == pytest.approx(own[0], rel=1e-5)
        assert found.two[label] == pytest.approx(own[:2].sum(), rel=1e-5)
        assert found.top[label] == found.heaviest[label]  # 1 % of 100 images
        assert found.ess[label] == pytest.approx(1 / (own**2).sum(), rel=1e-4)
    assert "--show" in found.facts[-1]


def test_what_rests_on_one_image_is_not_trusted(clusters):
    made = kde.kde_weights(clusters[0], LABELS, temperature=0.01, score="none", clip=None)
    found = kde.judge(made, LABELS, class_names=("cats", "dogs"))
    assert found.level == "doubt"
    assert found.reasons[0].startswith("class ")
    assert (
        "rests on two images or fewer (100 % of the weight on the two heaviest), and so does 1 other class"
        in (found.reasons[0])
    )


def test_an_embedding_of_noise_is_told_by_its_halves():
    rows = unit(np.random.default_rng(1).normal(size=(200, 64)))
    found = kde.judge(kde.kde_weights(rows, LABELS), LABELS)
    assert found.level == "doubt"
    assert "halves of a class do not agree on which images are rare" in found.reasons[0]
    assert max(np.abs(found.stability)) < 0.4


def test_another_encoder_is_compared_image_by_image(clusters):
    made = kde.kde_weights(clusters[0], LABELS)
    same = kde.judge(made, LABELS, other=made)
    assert same.stability == pytest.approx([1.0, 1.0])
    noise = kde.kde_weights(unit(np.random.default_rng(1).normal(size=(200, 64))), LABELS)
    found = kde.judge(made, LABELS, other=noise)
    assert (found.level, found.measured_by) == ("doubt", "seeds")
    assert "encoders of two seeds do not agree" in found.reasons[0]


def test_weights_that_do_nothing(clusters):
    found = kde.judge(kde.kde_weights(np.ones((200, 4), np.float32), LABELS), LABELS)
    assert (found.level, found.reasons) == ("doubt", ["all images of a class count alike: the weights do nothing"])


def test_minority_groups_that_are_not_rare(clusters):
    other = np.random.default_rng(3).integers(0, 2, 200)
    found = kde.judge(kde.kde_weights(clusters[0], LABELS), LABELS, other)
    assert found.level == "care"
    assert "what is rare here is not the minority groups that are known" in found.reasons[-1]


def test_a_class_of_few_images_has_no_halves():
    rows, labels = unit(np.random.default_rng(0).normal(size=(13, 4))), np.array([0] * 10 + [1] * 3)
    found = kde.judge(kde.kde_weights(rows, labels), labels)
    assert found.stability[1] is None
    assert found.stability[0] is not None


def test_neighbours_are_the_nearest_of_the_class():
    rows = np.array([[0.0], [1.0], [3.0], [0.1], [7.0]], np.float32)
    labels = np.array([0, 0, 0, 1, 0])
    assert kde.neighbours(rows, labels, np.array([0, 2, 3]), 2).tolist() == [[1, 2], [1, 0], [-1, -1]]
    generator = np.random.default_rng(0)
    points, labels = generator.normal(size=(300, 8)).astype(np.float32), generator.integers(0, 3, 300)
    found = kde.neighbours(points, labels, np.arange(300), 3)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points, axis=2)
    distances[labels[:, None] != labels] = np.inf
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(found, distances.argsort(1)[:, :3])
