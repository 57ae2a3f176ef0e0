"""What everything else that runs on a GPU asks of it, read without one: epochs of evaluation, experts and training.

Nothing in an epoch waits or is sent, but what is named here with its reason; the numbers are the CPU's; and kernels are
no more than are recorded in bench/results/launches.json, which test_steps.py writes when it is run as a script.
"""

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from pretend_gpu import CUDA, PretendGpu, Record
from tiny_runs import made
from torch import Tensor

from fastdd import models, training
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.evaluation import PROTOCOLS, Protocol, evaluate
from fastdd.evaluation.features import features_of
from fastdd.evaluation.networks import _predictions_side_by_side
from fastdd.evaluation.protocol import ProtocolTraining
from fastdd.evaluation.saliency import rise
from fastdd.experts import ExpertSettings
from fastdd.experts.training import train_experts
from fastdd.ops._dispatch import has_triton
from fastdd.training import RECIPES, TrainingImages, TrainSettings
from fastdd.training.trainer import Trainer

RECORDED = Path(__file__).parents[2] / "bench" / "results" / "launches.json"
CPU = torch.device("cpu")
# Operations that are the work itself; the rest of an epoch is around them.
WORK = ("convolution", "convolution_backward", "norm_act_pool")

pytestmark = pytest.mark.skipif(not has_triton(), reason="triton is not installed, whose launchers are counted")


def data():
    return made("colour")


def net(device: torch.device, key: int = 0, depth: int = 2) -> models.Network:
    return models.build("ConvNet", 3, 3, (8, 8), width=4, depth=depth, key=key, device=device)


def seen(device: torch.device, strategy: str = "none") -> TrainingImages:
    split = data().train
    images = DeviceImages.of(split.images, data().mean, data().std, device)
    labels, groups = (torch.as_tensor(array, device=device) for array in (split.labels, split.groups))
    return TrainingImages(images, labels, 3, groups, 2, strategy)


def flat(*modules: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for module in modules for parameter in module.parameters()])


Begin = Callable[[torch.device], tuple[Callable[[int], object], Callable[[], Tensor]]]


def second(begin: Begin) -> tuple[Record, float]:
    """What the second of some epochs asks of a GPU, and how far its numbers are from the CPU's, in units of the
    largest; ``begin`` gives, on a device, what does an epoch, and what reads the numbers."""
    epoch, numbers = begin(CPU)
    epoch(0), epoch(1)
    expected = numbers()
    with PretendGpu() as gpu:
        epoch, numbers = begin(CUDA)
        epoch(0)
        with gpu.recording() as record:
            epoch(1)
        found = numbers().cpu()
    return record, ((found - expected).abs().max() / expected.abs().max()).item()


def of_evaluation(protocol: Protocol, count: int, device: torch.device):
    images, nets = seen(device), models.SideBySide(net(device), count)
    for number in range(count):
        nets.take(number, net(device, number))
    epochs = ProtocolTraining(nets, images.images, images.labels, protocol, [(0, "evaluation", k) for k in range(count)])
    return epochs.epoch, partial(flat, nets)


def of_recipe(name: str, optimiser: str, device: torch.device):
    images = seen(device, "color_crop")
    recipe = training.start(name, images, net(device), lambda _: net(device, 7), (0, "train"), SMALL.get(name, {}))
    config = TrainSettings.configure(
        dataset="made", training=name, arch="ConvNet", epochs=2, batch_train=18, optimiser=optimiser, lr=0.01
    )
    return Trainer(recipe, config, 0.01, (0, "train")).epoch, partial(flat, recipe.net, *recipe.modules.values())


SMALL = {"dfa": {"swap_from": 1}, "selecmix": {"pool": 36}, "selecmix-lff": {"pool": 36}}
EVALUATIONS = {
    "published": Protocol(batch=18),
    **{
        name: Protocol(**{**PROTOCOLS[name].training, "batch": 18}, dsa_strategy="color_crop_flip", cutmix=1.0)
        for name in ("idc", "ncfm")
    },
}
EPOCHS: dict[tuple[str, str], Begin] = {
    **{
        ("evaluation", f"{name}, {count} at a time"): partial(of_evaluation, protocol, count)
        for name, protocol in EVALUATIONS.items()
        for count in (1, 5)
    },
    **{("training", name): partial(of_recipe, name, "sgd") for name in RECIPES},
}


@cache
def epoch(room: str, name: str) -> tuple[Record, float]:
    return second(EPOCHS[room, name])


@pytest.mark.parametrize(("room", "name"), EPOCHS)
def test_an_epoch_waits_for_nothing_and_sends_nothing(room, name):
    record, difference = epoch(room, name)
    assert difference < 1e-4
    assert record.waits == []
    assert record.uploads == []
