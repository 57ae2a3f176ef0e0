"""Trained networks in place of random ones: which, when, the same bits after a stop, clear refusals."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

import fastdd
from fastdd import session
from fastdd.api.distillation import Distillation
from fastdd.core import rng
from fastdd.data import load
from fastdd.data.initial import random_set
from fastdd.experts import Experts, describe_experts
from fastdd.methods import METHODS, Context, configure
from fastdd.session import Callback, estimate
from fastdd.session.networks import check_networks, open_networks, trained_by

CPU = torch.device("cpu")
NETWORK = {"arch": "ConvNet", "width": 4, "depth": 1}
TRAINED = [name for name, method in METHODS.items() if "networks" in method.Settings.model_fields]
# Networks that are new at every step, and that go on; the others have these or train on real images.
methods = pytest.mark.parametrize(
    "method", [name if name in ("dm", "dc") else pytest.param(name, marks=pytest.mark.full) for name in TRAINED]
)
LOOPS = {"outer_loop": 3, "inner_loop": 1, "train_images": 6, "batch_train": 6, "batch_synthetic": 4, "embed_warmup": 0}


@pytest.fixture(scope="module")
def digits():
    data = load("c-digits")
    first = {name: getattr(data.train, name)[:60] for name in ("images", "labels", "groups")}
    return dataclasses.replace(data, train=dataclasses.replace(data.train, **first))


@pytest.fixture(scope="module")
def networks(digits):
    """Three networks of two epochs, at random."""
    config = {**NETWORK, "debias": "none", "training": "lff"}
    manifest = {**describe_experts(config, digits), "experts": [], "dataset_digest": None}
    size = sum(torch.Size(parameter["shape"]).numel() for parameter in manifest["parameters"])
    return Experts(0.1 * rng.normal(rng.key(0, "networks"), 9 * size).view(3, 3, size), manifest)


def settings(method: str, **more):
    usual = {"dataset": "c-digits", "method": method, "ipc": 1, "iterations": 4, "batch_real": 4, **NETWORK}
    few = {name: value for name, value in LOOPS.items() if name in METHODS[method].Settings.model_fields}
    few |= {"iterations": 2} if "outer_loop" in few else {}
    few |= {"factor": 1, "init": "real"} if method in ("idc", "dream") else {}
    return configure(**{**usual, **few, "networks": "nets", **more})


def begun(method: str, digits, networks, **more):
    config = settings(method, **more)
    return METHODS[method](config, Context(digits, CPU, random_set(digits, 1).images, networks=networks))


@pytest.mark.parametrize("method", ["dm", "dc", "idc"])
def test_the_network_that_step_t_begins_with_is_number_t_modulo_k(digits, networks, method):
    for epoch in (None, 1):
        made = begun(method, digits, networks, networks_epoch=epoch)
        period = getattr(made._config, "outer_loop", 1)
        for turn in (0, 1, 2, 4, 2):
            net = made._networks.at(turn * period)
            flat = torch.nn.utils.parameters_to_vector(net.parameters())
            assert torch.equal(flat, networks.at(turn % 3, 2 if epoch is None else 1))


@methods
def test_a_run_on_trained_networks_stopped_and_resumed_has_the_same_bits(digits, networks, method, tmp_path):
    class Stop(Callback):
        def wants_checkpoint(self, run):
            if run.step == 2:
                run.stop.set()
            return False

    config = settings(method)
    whole = session.run(config, digits, networks=networks)
    with pytest.raises(KeyboardInterrupt):
        session.run(config, digits, out=tmp_path, callbacks=[Stop()], networks=networks)
    assert torch.equal(session.run(config, digits, out=tmp_path, resume=True, networks=networks).images, whole.images)
    others = Experts(networks.values + 1e-3, networks.manifest)
    with pytest.raises(ValueError, match="or networks trained otherwise"):
        session.run(config, digits, out=tmp_path, resume=True, networks=others)
    assert not torch.equal(session.run(settings(method, networks=None), digits).images, whole.images)


@methods
def test_classes_apart_have_the_bits_of_all_together(digits, networks, method):
    """What ranks share: a class's images depend on no other's where they are matched."""
    config, images = settings(method), random_set(digits, 1).images
    whole = METHODS[method](config, Context(digits, CPU, images, networks=networks))
    part = METHODS[method](config, Context(digits, CPU, images, networks=networks, classes=range(2, 5)))
    whole.match(0)
    part.match(0)
    assert torch.equal(whole.images[2:5], part.images[2:5])


def test_dm_on_a_network_is_a_plain_loop_on_it(digits, networks):
    """The first two steps in float64, of single images: mean embeddings of real and synthetic images."""
    method = begun("dm", digits, networks, dsa_strategy="none", lr_img=1.0, momentum=0.0)
    wanted = method.images.detach().double().clone()
    mean, std = (torch.tensor(values).view(-1, 1, 1).double() for values in (digits.mean, digits.std))
    for step in range(2):
        method.step(step)
        net = fastdd.models.build("ConvNet", 3, 10, (16, 16), width=4, depth=1).double()
        torch.nn.utils.vector_to_parameters(networks.at(step, 2).double(), net.parameters())
        batch = method._batch(step, net)
        leaf = wanted.clone().requires_grad_()
        loss = 0.0
        for label in range(10):
            rows = batch.rows[batch.classes == label]
            real = [(torch.from_numpy(digits.train.images[int(row)]).double() / 255 - mean) / std for row in rows]
            target = torch.stack([net.embed(image[None])[0].detach() for image in real]).mean(0)
            loss = loss + (target - net.embed(leaf[label : label + 1])[0]).square().sum()
        wanted = wanted - torch.autograd.grad(loss, leaf)[0]
    torch.testing.assert_close(method.images.detach().double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory):
    """Networks of fastdd train: of lff in folders 2 and 10, of dfa in one."""
    place = tmp_path_factory.mktemp("networks")
    small = {**NETWORK, "epochs": 1, "batch_train": 32}
    for number in (10, 2):
        fastdd.train_network(digits, training="lff", seed=number, out=place / "lff" / str(number), **small)
    fastdd.train_network(digits, training="dfa", out=place / "dfa" / "0", **small)
    fastdd.train_network(digits, training="lff", **{**small, "width": 5}, out=place / "mixed" / "1")
    fastdd.train_network(digits, training="lff", **small, out=place / "mixed" / "0")
    return place


def test_networks_of_fastdd_train_are_taken_in_the_order_of_their_folders(digits, folders):
    opened = open_networks(folders / "lff")
    assert (opened.number, opened.epochs, trained_by(opened)) == (2, 0, "lff")
    for number, name in enumerate(("2", "10")):
        net = fastdd.load_network(folders / "lff" / name)
        assert torch.equal(opened.at(number, 0), torch.nn.utils.parameters_to_vector(net.parameters()))
    assert open_networks(folders / "lff" / "2").number == 1
    # Of two encoders that of intrinsic features.
    of_dfa, net = open_networks(folders / "dfa"), fastdd.load_network(folders / "dfa" / "0")
    assert torch.equal(of_dfa.at(0, 0), torch.nn.utils.parameters_to_vector(net.intrinsic.parameters()))


def test_a_run_says_what_it_was_matched_on(digits, folders, tmp_path):
    small = {"ipc": 1, "iterations": 2, "batch_real": 4}
    job = Distillation(digits, networks=folders / "dfa", **small)
    assert (job.settings.width, job.settings.depth, job.settings.networks) == (4, 1, str(folders / "dfa"))
    made = job.run(out=tmp_path)
    about = {"digest": job.networks.digest(), "number": 1, "epochs": 0, "training": "dfa"}
    assert made.metadata["networks"] == about
    assert fastdd.report.trained_networks(made.metadata) == "dfa"
    assert f"networks: {folders / 'dfa'}" in (tmp_path / "config.yaml").read_text()


def test_estimates_are_on_the_trained_networks(digits, networks, monkeypatch):
    seen = []
    monkeypatch.setattr(estimate, "_seconds_of", lambda calls, device: [call(1) and 1.0 for call in calls])
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: 0.0))  # before the first step
    right = Experts.at
    monkeypatch.setattr(Experts, "at", lambda self, *which: seen.append(which) or right(self, *which))
    assert estimate.distillation(settings("dm"), digits, CPU, networks=networks)[0] == 4.0
    assert seen[0] == (1, 2)


def test_networks_that_do_not_fit_are_refused_in_one_line(digits, networks, folders, tmp_path):
    def changed(**about):
        return Experts(networks.values, {**networks.manifest, **about})

    own, fits = settings("dm"), "the networks of nets "
    for config, given, why in (
        (own, None, "the setting networks names nets, and none are given"),
        (settings("dm", networks=None), networks, "the setting networks names none, and some are given"),
        (own, changed(size=[8, 8]), fits + r"learned images of \[3, 8, 8\] in 10 classes; c-digits has \[3, 16, 16\]"),
        (own, changed(num_classes=3), fits + "learned images of .* in 3 classes"),
        (own, changed(class_names=["9", "8"]), fits + "learned other classes: '9', where c-digits has '0'"),
        (own, changed(mean=[0.1] * 3), fits + "learned images that were normalised otherwise, unlike"),
        (settings("dm", width=5), networks, fits + r"are another network: their parameter 0 is .*\[4, 3, 3, 3\]"),
        (settings("dm", arch="ConvNetAL"), networks, fits + "are another network: they are of ConvNet, .*ConvNetAL"),
        (settings("dm", networks_epoch=3), networks, "networks_epoch 3: the networks of nets were trained for 2 epo"),
        (settings("dc"), open_networks(folders / "dfa"), fits + "are of training dfa, .*: dc looks at that"),
    ):
        with pytest.raises(ValueError, match=f"^{why}") as error:
            check_networks(config, digits, given)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"there are no trained networks in .*nothing: give a folder of"):
        open_networks(tmp_path / "nothing")
    with pytest.raises(ValueError, match="width 5, not 4"):
        open_networks(folders / "mixed")
    with pytest.raises(ValueError, match="networks_epoch 3 is of trained networks: give networks too"):
        settings("dm", networks=None, networks_epoch=3)
    with pytest.raises(ValueError, match=r"networks is a setting of dm, dc, .* and .*, not of mtt"):
        fastdd.distill(digits, method="mtt", networks=folders / "lff")
