"""Protocol rded against a literal loop, labels in a file against labels on the way, and what is refused."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import made, teacher, tiny

import fastdd
from fastdd import api, models, ops
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.data.initial import random_set
from fastdd.evaluation import Labeller, plan_evaluation
from fastdd.evaluation.label_file import LabelFile, write_labels
from fastdd.evaluation.relabel import Relabelling, Views, train_to_labels
from fastdd.session import run

DATA, CPU = made("colour"), torch.device("cpu")
HOW = {"epochs": 3, "batch": 4, "learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 0.1}


def student(double: bool = False):
    net = models.build("ConvNetBN", 3, 3, (8, 8), width=4, depth=2, key=5)
    return net.double() if double else net


def literal(images, labels, views, net, how) -> float:
    """The published training, with its second forward pass, image by image and in float64."""
    tutor = teacher("colour").net
    decayed = [p for p in net.parameters() if len(p.shape) > 1]
    others = [p for p in net.parameters() if len(p.shape) == 1]
    adamw = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0}],
        lr=HOW["learning_rate"],
        betas=(0.9, 0.999),
        weight_decay=HOW["weight_decay"],
    )
    course = torch.optim.lr_scheduler.LambdaLR(adamw, lambda e: 0.5 * (1 + math.cos(math.pi * e / HOW["epochs"] / 2)))
    net.train()
    for epoch in range(HOW["epochs"]):
        total = 0
        order = views.order(epoch, len(labels), CPU)
        for number, rows in enumerate(order.split(HOW["batch"])):
            seen = []
            keys = rng.lanes(rng.key(views.seed, "view", epoch, number), len(rows))
            crops = ops.random_crops(keys, (8, 8), area=(how.smallest, 1), mirror=0.5)
            strips = ops.strip_orders(keys, how.strips)
            for i, row in enumerate(rows):
                image = images[row]
                for side, of_side in ((1, strips[i, 0]), (2, strips[i, 1])):
                    image = torch.cat([image.split(8 // how.strips, side)[j] for j in of_side.tolist()], side)
                top, left, height, width, mirrored = (value[i].item() for value in crops)
                image = image[:, top : top + height, left : left + width]
                image = F.interpolate(image[None], size=(8, 8), mode="bilinear", antialias=True)[0]
                seen.append(image.flip(2) if mirrored else image)
            seen = torch.stack(seen)
            mix = views.mix(epoch, number, len(rows), (8, 8), CPU)
            top, left, bottom, right = mix.rectangle
            mixed = seen.clone()
            mixed[:, :, top:bottom, left:right] = seen[mix.order, :, top:bottom, left:right]
            with torch.no_grad():
                net(mixed.double())
                said = (tutor(mixed).half().double() / how.temperature).softmax(1)
            found = net(mixed.double())
            if how.labels == "hard":
                kept = 1 - (bottom - top) * (right - left) / 64
                own, other = labels[rows], labels[rows[mix.order]]
                loss = kept * F.cross_entropy(found, own) + (1 - kept) * F.cross_entropy(found, other)
            else:
                loss = torch.nn.KLDivLoss(reduction="batchmean")(F.log_softmax(found / how.temperature, 1), said)
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            total += loss.item() * len(rows)
        course.step()
    return total / len(labels)


@pytest.mark.parametrize("how", [Relabelling(strips=2, smallest=0.5), Relabelling("hard", smallest=0.5)])
def test_training_is_the_published_loop(how):
    labels = torch.arange(3).repeat(3)
    images = rng.normal(rng.key(1, "images"), 9 * 192).view(9, 3, 8, 8)
    views, net, exact = Views(7, how), student(), student(double=True)
    labeller = Labeller(views, None if how.labels == "hard" else teacher("colour"))
    loss = train_to_labels(net, DeviceImages(images), labels, labeller, **HOW)
    expected = literal(images, labels, views, exact, how)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    for (name, found), wanted in zip(net.state_dict().items(), exact.state_dict().values(), strict=True):
        # A bias in front of a batch norm has no gradient but rounding, whose sign Adam takes for one.
        layer = net.get_submodule(name.rpartition(".")[0])
        shifted = isinstance(layer, torch.nn.Conv2d) and name.endswith("bias")
        if not shifted and not name.endswith(("num_batches_tracked", "running_mean")):
            assert (found.double() - wanted).abs().max() < 2e-3, name


def test_views_are_functions_of_seed_epoch_and_batch_and_every_image_comes_once():
    views = Views(3, Relabelling(strips=2, smallest=0.5))
    images = DeviceImages(rng.normal(rng.key(1, "images"), 6 * 192).view(6, 3, 8, 8))
    rows = torch.tensor([4, 0, 2])
    assert torch.equal(views.images(images, rows, 1, 0), views.images(images, rows, 1, 0))
    assert not torch.equal(views.images(images, rows, 1, 0), views.images(images, rows, 2, 0))
    assert sorted(views.order(5, 6, CPU).tolist()) == [*range(6)]


@pytest.fixture(scope="module")
def synthetic():
    return run(tiny("rded", candidates=12, crops=3, ipc=2, factor=2), DATA, teacher=teacher("colour"))


def planned(what, **settings):
    usual = {"nets": 2, "epochs": 3, "protocol": "rded", "arch": "ConvNet", "width": 4, "depth": 2}
    return plan_evaluation(what, DATA, CPU, **usual | settings)


def test_labels_from_a_file_on_the_way_and_kept_train_to_the_same_bits(synthetic, tmp_path):
    plan = planned(synthetic, teacher=teacher("colour"))
    assert plan.protocol.relabel == Relabelling(strips=2, smallest=0.5, teacher="digest")
    assert plan.protocol.batch == 6  # not more than there are
    made_on_the_way = plan.evaluate()
    images = DeviceImages(synthetic.images)
    views = plan.labeller.views
    how = {"classes": 3, "epochs": 4, "batch": 6, "of_set": synthetic.digest(), "about_teacher": {"digest": "digest"}}
    stored = write_labels(tmp_path / "labels.safetensors", images, teacher("colour"), views, **how)
    assert (tmp_path / "labels.safetensors").stat().st_size < 2 * 4 * 6 * 3 + 800
    from_file = planned(synthetic, labels=stored).evaluate()
    each = [planned(synthetic, teacher=teacher("colour"), nets=1).evaluate().counts[0], from_file.counts[0]]
    for counts in each:
        assert torch.equal(counts.right, made_on_the_way.counts[0].right)
    assert torch.equal(from_file.counts[1].right, made_on_the_way.counts[1].right)
    with pytest.raises(ValueError, match="of 4 epochs, fewer than 5"):
        planned(synthetic, labels=stored, epochs=5)
    with pytest.raises(ValueError, match="are of another set"):
        planned(random_set(DATA, 2), labels=stored)


def test_a_stopped_relabelling_goes_on_to_the_same_bytes(synthetic, tmp_path):
    images, views = DeviceImages(synthetic.images), Views(0, Relabelling(strips=2, smallest=0.5))
    how = {"classes": 3, "epochs": 4, "batch": 4, "of_set": "x", "about_teacher": {"digest": "y"}}

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    write_labels(tmp_path / "whole", images, teacher("colour"), views, **how)
    with pytest.raises(KeyboardInterrupt):
        write_labels(tmp_path / "part", images, teacher("colour"), views, **how, progress=stop)
    assert not (tmp_path / "part").exists()
    done = []
    write_labels(tmp_path / "part", images, teacher("colour"), views, **how, progress=lambda n, _: done.append(n))
    assert done == [3, 4]
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()
    with pytest.raises(ValueError, match="is there already"):
        write_labels(tmp_path / "whole", images, teacher("colour"), views, **how)
    whole = (tmp_path / "whole").read_bytes()
    for changed, told in (
        (whole.replace(b'strips\\": 2', b'strips\\": 0'), "its strips is 0"),
        (whole.replace(b"smallest", b"smellest"), "it has no .smallest."),
        (whole[:-2] + b"\x00\x7c", "epoch 3 are not finite"),
    ):
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(ValueError, match=told):
            LabelFile(tmp_path / "changed").at(3, 0, len(images.pixels))
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        LabelFile(tmp_path / "cut")
    with pytest.raises(FileNotFoundError, match="there is no file of labels"):
        LabelFile(tmp_path / "none")


def test_evaluate_and_relabel_by_paths(synthetic, tmp_path):
    fastdd.train_network(DATA, out=tmp_path / "net", arch="ConvNetBN", width=4, depth=2, epochs=1)
    made_set = fastdd.distill(DATA, method="rded", teacher=tmp_path / "net", ipc=2, crops=2, factor=1)
    labels = fastdd.relabel(made_set, DATA, out=tmp_path / "labels", epochs=2, device="cpu")
    assert (labels.epochs, labels.images, labels.classes) == (2, 6, 3)
    how = {"protocol": "rded", "nets": 1, "epochs": 2, "device": "cpu"}
    sources = {}, {"labels": tmp_path / "labels"}
    on_the_way, stored = (fastdd.evaluate(made_set, DATA, **how, **more) for more in sources)
    assert torch.equal(on_the_way.counts[0].right, stored.counts[0].right)
    hard = fastdd.evaluate(made_set, DATA, **how, labels="hard")
    assert hard.protocol.relabel.labels == "hard"
    fastdd.evaluate("random", DATA, ipc=2, arch="ConvNet", width=4, depth=2, teacher=tmp_path / "net", **how)
    with pytest.raises(ValueError, match="leave teacher"):
        fastdd.evaluate(made_set, DATA, **how, labels="hard", teacher=tmp_path / "net")
    beside = {"labels": "hard", "teacher": tmp_path / "net", "protocol": "rded"}  # of which only the network is taken
    plan = api.planned_evaluation("random", DATA, torch.device("cpu"), ipc=2, **beside)
    assert plan.network == {"arch": "ConvNetBN", "width": 4, "depth": 2}
    bare = models.build("ConvNetBN", 3, 3, (8, 8), width=4, depth=2)
    torch.save(bare.state_dict(), tmp_path / "bare.pth")
    same = {"arch": "ConvNetBN", "width": 4, "depth": 2, "teacher": tmp_path / "bare.pth"}
    fastdd.evaluate("random", DATA, ipc=1, **how, **same)  # bare weights are of the networks' kind
    assert api.estimate_evaluation(made_set, DATA, **how | {"epochs": 3}).total > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "give the teacher"),
        ({"labels": "hard", "teacher": "./x"}, "there is no teacher x"),
        ({"teacher": "./x"}, "there is no teacher x"),
        ({"labels": "./x"}, "there is no file of labels"),
        ({"teacher": "./x", "protocol": "dc"}, "teacher ./x is for protocol rded"),
        ({"labels": "hard", "protocol": None}, "labels hard is for protocol rded"),
        ({"labels": "hard", "training": "groupdro"}, "training groupdro has a loss of its own"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(settings, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
        fastdd.evaluate("random", DATA, ipc=1, **{"protocol": "rded", "device": "cpu"} | settings)
    assert "\n" not in str(error.value)


def test_a_set_whose_teacher_is_gone_or_has_changed(synthetic):
    with pytest.raises(ValueError, match="the set's teacher teacher is not there"):
        fastdd.evaluate(synthetic, DATA, protocol="rded", device="cpu")
    with pytest.raises(ValueError, match="must be positive"):
        dataclasses.replace(Relabelling(), temperature=0)
