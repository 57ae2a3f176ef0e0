"""DREAM: representative images."""

import numpy as np
import pytest
import torch

from fastdd import models
from fastdd.core import rng
from fastdd.data import Dataset, DeviceImages, Split
from fastdd.data.initial import mosaics, random_set
from fastdd.methods import Context, configure
from fastdd.methods.dream import Dream
from fastdd.methods.parts.draws import RealSamples
from fastdd.methods.parts.representatives import Representatives
from fastdd.ops.kmeans import kmeans

C, G, PER_CLASS, SIZE = 2, 3, 40, 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    """Of every ten images of a class eight have group 0, one group 1, one group 2."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (C * PER_CLASS, 3, SIZE, SIZE), dtype=np.uint8)
    groups = np.maximum(np.arange(C * PER_CLASS) % 10 - 7, 0)
    split = Split(images, np.arange(C).repeat(PER_CLASS), groups.astype(np.int64))
    return Dataset("made", split, split, ("a", "b"), ("x", "y", "z"), (0.4,) * 3, (0.25,) * 3, {})


def representatives(data, by="class", weights=None):
    real = DeviceImages.of(data.train.images, data.mean, data.std)
    return Representatives(data, RealSamples.of(data, weights, CPU), real, by)


def network():
    torch.manual_seed(0)
    return models.build("ConvNet", 3, C, (SIZE, SIZE), width=4, depth=2)


def dream(data, **settings):
    given = {"dataset": "made", "method": "dream", "ipc": 2, "batch_real": 6, "width": 4, "depth": 2}
    few = {"iterations": 2, "outer_loop": 5, "interval": 2, "train_images": 8, "batch_train": 4}
    config = configure(**{**given, **few, **settings})
    return Dream(config, Context(data, CPU, random_set(data, config.ipc).images))


def nearest(net, data, rows, count, key):
    """Image by image, as it is written: of unnormalised pixels in [0, 1]."""
    pixels = torch.from_numpy(data.train.images[rows]).float() / 255
    with torch.no_grad():
        embeddings = net.embed(pixels)
    found = []
    for centroid in kmeans(embeddings, count, rng.key(key, "cell", 0)):
        distances = [float((embedding - centroid).double().square().sum()) for embedding in embeddings]
        found.append(int(rows[np.argmin(distances)]))
    return found


def test_representatives_are_nearest_to_the_centroids_of_their_class(data):
    net = network()
    for label in range(C):
        rows = np.arange(label * PER_CLASS, (label + 1) * PER_CLASS)
        assert representatives(data).find(net, label, 7, 5).tolist() == nearest(net, data, rows, 7, 5)


def test_networks_are_left_as_they_train(data):
    net = models.build("ConvNetBN", 3, C, (SIZE, SIZE), width=4, depth=2).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.features[0].eval()
    modes = [layer.training for layer in net.modules()]
    representatives(data).find(net, 0, 3, 0)
    assert [layer.training for layer in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_by_group_every_group_has_its_share(data):
    found = representatives(data, "group").find(network(), 1, 9, 0)
    groups = data.train.groups[found]
    assert np.bincount(groups).tolist() == [3, 3, 3]
    assert (data.train.labels[found] == 1).all()
    all_of_small = representatives(data, "group").find(network(), 1, 20, 0)
    assert np.bincount(data.train.groups[all_of_small]).tolist() == [12, 4, 4]


def test_a_class_of_few_images_gives_them_all_and_weight_0_none(data):
    weights = torch.ones(C * PER_CLASS)
    weights[5:PER_CLASS] = 0
    found = representatives(data, weights=weights)
    assert found.count(0, 8) == 5
    assert sorted(found.find(network(), 0, 8, 0).tolist()) == [0, 1, 2, 3, 4]
    assert found.count(1, 8) == 8


def test_steps_see_the_same_images_until_the_next_interval(data):
    method, seen = dream(data), []
    for number in range(10):
        batch = method._batch(number, method._networks.at(number))
        seen.append(batch.rows.tolist())
        assert batch.classes.tolist() == [0] * 6 + [1] * 6
        assert (data.train.labels[batch.rows] == batch.classes.numpy()).all()
        assert (data.train.groups[batch.rows] == batch.groups.numpy()).all()
        if (number + 1) % 5:
            method.train(number)
    # Of the first network those of steps 0, 2 and 4, of the second 5, 7 and 9.
    for alike in ((0, 1), (2, 3), (5, 6), (7, 8)):
        assert seen[alike[0]] == seen[alike[1]]
    firsts = [seen[number] for number in (0, 2, 4, 5, 7, 9)]
    assert len({tuple(rows) for rows in firsts}) == 6


@pytest.mark.parametrize("factor", [1, 2])
def test_first_images_are_of_representatives(data, factor):
    method = dream(data, factor=factor)
    assert method._config.init == "kmean"
    net, wanted = method._networks.untrained(0), 2 * factor**2
    for label in range(C):
        key = rng.key(0, "first-representatives", label)
        rows = representatives(data).find(net, label, wanted, key)
        assert (data.train.labels[rows] == label).all()
        pixels = torch.from_numpy(data.train.images[rows]).float() / 255
        expected = mosaics(pixels, factor)
        torch.testing.assert_close(method.images.detach()[2 * label : 2 * label + 2], expected, rtol=0, atol=1e-6)


def test_a_rank_has_the_representatives_of_its_classes(data):
    whole = dream(data)
    part = Dream(whole._config, Context(data, CPU, random_set(data, 2).images, classes=range(1, 2)))
    for method in (whole, part):
        method.match(0)
    assert (part._representatives[0] == -1).all()
    assert torch.equal(part._representatives[1], whole._representatives[1])
    assert any(rows is part.state()["representatives"] for rows in part.of_classes())


def test_draws_that_it_does_not_make_are_refused():
    with pytest.raises(ValueError, match="cluster_by=group") as error:
        configure(dataset="made", method="dream", sampling="stratified")
    assert "\n" not in str(error.value)
