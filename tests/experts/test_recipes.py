"""Experts of a training recipe: its network, the same bits after a stop, clear refusals."""

import json
from dataclasses import replace

import pytest
import torch

from fastdd import api, experts, models
from fastdd.core import rng
from fastdd.data import DeviceImages, load
from fastdd.experts import ExpertSettings
from fastdd.experts.trainer import ExpertTrainer
from fastdd.methods.parts.training import train_epoch
from fastdd.training import RECIPES, TrainingImages, start

SMALL_RECIPES = {"selecmix-lff": {"pool": 64}}
# What recipes do that others do not: an order of their own, and networks, tables and an optimiser beside.
DEFAULT = ("resample", "selecmix-lff")
NETWORKS = [name for name, recipe in RECIPES.items() if recipe.net_predicts and name != "erm"]


@pytest.fixture(scope="module")
def digits():
    data = load("c-digits")
    first = {name: getattr(data.train, name)[:96] for name in ("images", "labels", "groups")}
    return replace(data, train=replace(data.train, **first))


def config(**settings):
    tiny = {"num_experts": 1, "epochs": 3, "width": 4, "depth": 1, "batch_train": 32, "eval_every": 0}
    return ExpertSettings.configure(**{"dataset": "c-digits", **tiny, **settings})


def train(digits, out, *, resume=False, **settings):
    return experts.train_experts(config(**settings), digits, out=out, resume=resume)


def stopped(digits, out, monkeypatch, **settings):
    """A folder whose training was ended in its second epoch, as by a kill."""
    right = ExpertTrainer._epoch

    def ends(self, number, progress):
        if progress.epoch == 1:
            raise KeyboardInterrupt
        return right(self, number, progress)

    with monkeypatch.context() as patched:
        patched.setattr(ExpertTrainer, "_epoch", ends)
        with pytest.raises(KeyboardInterrupt):
            train(digits, out, **settings)


@pytest.mark.parametrize(
    "recipe", [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.full) for name in NETWORKS]
)
def test_experts_of_a_recipe_are_its_network_and_go_on_to_the_same_bits(digits, tmp_path, monkeypatch, recipe):
    """Against epochs of the recipe by themselves; stopped between two epochs, and resumed."""
    settings = {"training": recipe, "constants": SMALL_RECIPES.get(recipe, {}), "momentum": 0.9}
    whole = train(digits, tmp_path / "whole", **settings)
    stopped(digits, tmp_path / "resumed", monkeypatch, **settings)
    resumed = train(digits, tmp_path / "resumed", resume=True, **settings)
    assert torch.equal(whole.values, resumed.values)
    assert (whole.manifest["config"]["training"], whole.epochs) == (recipe, 3)

    def build(name: str) -> models.Network:
        key = rng.key(0, f"expert-net-{name}" if name else "expert-net", 0)
        return models.build("ConvNet", 3, 10, (16, 16), width=4, depth=1, key=key)

    chosen = config(**settings)
    labels, groups = torch.from_numpy(digits.train.labels), torch.from_numpy(digits.train.groups)
    pixels = DeviceImages.of(digits.train.images, digits.mean, digits.std)
    seen = TrainingImages(pixels, labels, 10, groups, digits.num_groups, chosen.dsa_strategy)
    begun = start(recipe, seen, build(""), build, (0, "expert-recipe", 0), chosen.constants)
    sgd = torch.optim.SGD(begun.parameters(), lr=chosen.lr_teacher, momentum=0.9)
    for epoch in range(3):
        key = (0, "expert", 0, epoch)
        order, how = begun.order(key), {"batch": 32, "dsa_strategy": chosen.dsa_strategy, "key": key}
        train_epoch(begun.net, pixels, labels, sgd, order=order, loss_of=begun.loss, **how)
        flat = torch.nn.utils.parameters_to_vector(begun.net.parameters()).detach()
        assert torch.equal(whole.at(0, epoch + 1), flat)


def test_recipes_that_make_no_single_network_or_fit_no_data_are_refused(digits, tmp_path):
    for settings, why in (
        (
            {"training": "dfa"},
            r"^training: it makes more than one network.*: erm, lw, .*-lff \(got 'dfa'\)$",
        ),
        ({"training": "lfff"}, "unknown training 'lfff'; one of: erm"),
        ({"training": "lff", "debias": "fairdd"}, "training lff has a loss of its own, which debias fairdd does not"),
        ({"training": "lff", "constants": {"p": 1}}, "training lff has no constant 'p'; it has: q, decay"),
        ({"constants": {"q": 1}}, "training erm has no constant 'q'; it has: none"),
    ):
        with pytest.raises(ValueError, match=why):
            config(**{"debias": "none", **settings})
    alike = {name: replace(split, groups=0 * split.groups) for name, split in digits.splits.items()}
    one_group = replace(digits, group_names=("all",), **alike)
    with pytest.raises(ValueError, match="training lw looks at groups, and c-digits has one"):
        api.train_experts(one_group, out=tmp_path / "lw", training="lw", num_experts=1, epochs=1, width=4)
    assert not (tmp_path / "lw").exists()


def test_another_recipe_is_another_training_and_folders_of_before_recipes_go_on(digits, tmp_path, monkeypatch):
    plain = train(digits, tmp_path / "plain")
    lff = train(digits, tmp_path / "lff", training="lff")
    assert plain.digest() != lff.digest()
    assert torch.equal(plain.values[:, 0], lff.values[:, 0])
    with pytest.raises(ValueError, match="holds experts with training=lff, not erm; choose another --out"):
        train(digits, tmp_path / "lff", resume=True)
    stopped(digits, tmp_path / "old", monkeypatch)
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    del manifest["config"]["training"], manifest["config"]["constants"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    assert torch.equal(train(digits, tmp_path / "old", resume=True).values, plain.values)
