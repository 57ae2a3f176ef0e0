"""What everything else that runs on a GPU asks of it, read without one: epochs of evaluation, experts and training.

Nothing in an epoch waits or is sent, but what is named here with its reason; the numbers are the CPU's; and kernels are
no more than are recorded in bench/results/launches.json, where this file writes them anew when it is run as a script
with tests/helpers on the path.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pretend_gpu import CUDA, PretendGpu, Record
from tiny_runs import made, teacher, tiny
from torch import Tensor

from fastdd import models, training
from fastdd.core import graph, rng
from fastdd.data import DeviceImages
from fastdd.debias.density.embedding import EmbeddingSettings, train_embedding
from fastdd.debias.density.kde.estimate import _log_density
from fastdd.debias.density.kde.settings import KdeSettings
from fastdd.evaluation import PROTOCOLS, DcAugmentation, Protocol, evaluate
from fastdd.evaluation.dc_augmentation import dc_augment
from fastdd.evaluation.features import features_of
from fastdd.evaluation.networks import _predictions_side_by_side
from fastdd.evaluation.protocol import ProtocolTraining
from fastdd.evaluation.saliency import rise
from fastdd.experts import ExpertSettings
from fastdd.experts.training import train_experts
from fastdd.methods import METHODS
from fastdd.methods.parts.side_by_side import SideBySideTraining
from fastdd.methods.parts.training import train_epoch
from fastdd.ops import _faiss, knn_kde
from fastdd.ops._dispatch import has_triton
from fastdd.training import RECIPES, TrainingImages, TrainSettings
from fastdd.training.trainer import Trainer

RECORDED = Path(__file__).parents[2] / "bench" / "results" / "launches.json"
CPU = torch.device("cpu")
# Operations that are the work itself; the rest of an epoch is around them.
WORK = ("convolution", "norm_act_pool")

pytestmark = pytest.mark.skipif(not has_triton(), reason="triton is not installed, whose launchers are counted")


def data():
    return made("colour")


def net(device: torch.device, key: int = 0, depth: int = 3) -> models.Network:
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
    with PretendGpu() as gpu, mock.patch.object(graph, "_WARM_UP", 1 << 62):  # kernels, not graphs of them
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
    epochs = ProtocolTraining(
        nets, images.images, images.labels, protocol, [(0, "evaluation", k) for k in range(count)]
    )

    def logits() -> Tensor:  # not parameters: biases before norms, which change nothing, follow roundings
        with torch.no_grad():
            return nets(images.images.read(torch.arange(9, device=device)).expand(count, -1, -1, -1, -1))

    return epochs.epoch, logits


def in_turn(count: int, dc: DcAugmentation | None, device: torch.device):
    """The published evaluation's networks one after another; with DC's augmentation in place of DSA, if any."""
    images, nets = seen(device), [net(device, number) for number in range(count)]
    optimisers = [torch.optim.SGD(each.parameters(), 0.01, 0.9, fused=device.type == "cuda") for each in nets]
    how: dict[str, Any] = {"batch": 256, "dsa_strategy": Protocol().dsa_strategy}
    if dc is not None:
        how |= {"dsa_strategy": "none", "augment": partial(dc_augment, dc)}

    def epoch(number: int) -> None:
        for place, each in enumerate(nets):
            key = (0, "evaluation", place, number)
            train_epoch(each, images.images, images.labels, optimisers[place], key=key, **how)

    return epoch, partial(flat, *nets)


def of_experts_epoch(count: int, device: torch.device):
    """Weighted, as with debias fairdd."""
    images, nets = seen(device, "color_crop"), models.SideBySide(net(device), count)
    for number in range(count):
        nets.take(number, net(device, number))
    training = SideBySideTraining(
        *(nets, images.images, images.labels),
        torch.optim.SGD(nets.parameters(), 0.01, 0.9, fused=device.type == "cuda"),
        batch=18,
        dsa_strategy="color_crop",
        keys=[(0, "expert", number) for number in range(count)],
        weights=torch.linspace(0.5, 1.5, 36).to(device),
    )
    return training.epoch, partial(flat, nets)


def of_features(device: torch.device):
    images, each = seen(device).images.read(torch.arange(36, device=device)), net(device)
    found: dict[int, Tensor] = {}
    return (lambda number: found.update({0: torch.from_numpy(features_of(each, images))})), lambda: found[0]


def of_saliency(device: torch.device):
    """Of two images, by 20 masks."""
    images, each = seen(device), net(device)
    read, found = images.images.read(torch.arange(2, device=device)), {}
    return (
        lambda number: found.update({0: torch.from_numpy(rise(each, read, images.labels[:2], masks=20).raw)}),
        lambda: found[0],
    )


def of_recipe(name: str, optimiser: str, device: torch.device):
    images = seen(device, "color_crop")
    recipe = training.start(name, images, net(device), lambda _: net(device, 7), (0, "train"), SMALL.get(name, {}))
    config = TrainSettings.configure(
        dataset="made", training=name, arch="ConvNet", epochs=2, batch_train=18, optimiser=optimiser, lr=0.01
    )
    return Trainer(recipe, config, 0.01, (0, "train")).epoch, partial(flat, recipe.net, *recipe.modules.values())


def of_test_pass(count: int, device: torch.device):
    images, nets = seen(device).images, models.SideBySide(net(device), count)
    for number in range(count):
        nets.take(number, net(device, number))
    found: dict[int, Tensor] = {}
    return (lambda number: found.update({0: _predictions_side_by_side(nets, images)})), lambda: found[0].double()


def of_embedding(device: torch.device):
    """One step more than in the epoch before; the last part of each is the embedding itself."""
    found: dict[int, Tensor] = {}

    def epoch(number: int) -> None:
        settings = EmbeddingSettings(steps=1, batch=18)
        found[0] = torch.from_numpy(train_embedding(data(), settings, device=device))

    return epoch, lambda: found[0]


def of_density(device: torch.device):
    rows, found = rng.normal(5, 36 * 4).view(36, 4).to(device), {}
    return (
        lambda number: found.update({0: _log_density(rows, torch.tensor([0, 12, 36]), KdeSettings())[0]})
    ), lambda: found[0]


def of_knn(device: torch.device):
    """With a search in place of FAISS's, which runs on its own GPU tensors."""
    rows, found = rng.normal(5, 36 * 4).view(36, 4).to(device), {}

    def search(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        nearest = (queries[:, None] - rows).square().sum(2).topk(k, largest=False)
        return nearest.values, nearest.indices

    def epoch(number: int) -> None:
        with mock.patch.object(_faiss, "search", search), mock.patch.object(_faiss, "missing", return_value=""):
            found[0] = knn_kde(rows, bandwidth=1.0, k=3, far_samples=8, leave_one_out=True).log_density

    return epoch, lambda: found[0].double()


def of_a_unit(method: str, device: torch.device):
    """A class of RDED's mosaics, or two iterations of SRe2L's images."""
    given, found = teacher("colour"), {}
    on_device = replace(given, net=copy.deepcopy(given.net).to(device))
    work = METHODS[method](tiny(method), data(), on_device, device)
    return lambda number: found.update({0: work.make(work.units[number])[0]}), lambda: found[0]


SMALL = {"dfa": {"swap_from": 1}, "selecmix": {"pool": 36}, "selecmix-lff": {"pool": 36}}
EVALUATIONS = {
    "published": Protocol(),
    **{
        name: Protocol(**PROTOCOLS[name].training, dsa_strategy="color_crop_flip", cutmix=1.0)
        for name in ("idc", "ncfm")
    },
}
# Of what waits or sends, where, and why: features, maps, densities and embeddings go to the host, which they are made
# for, and how far bounds are apart; masks are drawn there, all at once; an encoder is built and its images sent as its
# training begins; DC's augmentation is drawn and, by scipy's splines, rotated there; RDED's images and the numbers of
# its crops come from there, its losses are sorted there, and finished images of a class are kept there.
WAITS = {
    ("evaluation", "DC's augmentation"): ("dc_augmentation._rotated", "dc_augmentation.<lambda>"),
    ("by class", "rded"): ("rded._losses", "rded.make"),
    ("by class", "sre2l"): ("sre2l.make",),
    ("weights", "knn"): ("knn_kde.knn_kde",),
    ("evaluation", "features"): ("features.features_of",),
    ("evaluation", "saliency"): ("saliency.rise", "saliency.<genexpr>"),
    ("weights", "a step of the embedding"): ("embedding.embed",),
    ("weights", "exact"): ("estimate._log_density",),
}
UPLOADS = {
    ("evaluation", "DC's augmentation"): (
        "dc_augmentation.augment",
        "dc_augmentation._moved",
        "dc_augmentation._rotated",
    ),
    ("evaluation", "saliency"): ("saliency.rise",),
    ("by class", "rded"): ("device._take", "rded._cut"),
    ("weights", "a step of the embedding"): ("device.of", "embedding.train_embedding", "init.__init__"),
    ("weights", "exact"): ("estimate._exact",),
}
EPOCHS: dict[tuple[str, str], Begin] = {
    **{
        ("evaluation", f"{name}, {count} at a time"): partial(of_evaluation, protocol, count)
        for name, protocol in EVALUATIONS.items()
        for count in (1, 5)
    },
    ("evaluation", "published, 5 in turn"): partial(in_turn, 5, None),
    ("evaluation", "DC's augmentation"): partial(in_turn, 1, DcAugmentation("crop_scale_rotate")),
    ("evaluation", "features"): of_features,
    ("evaluation", "saliency"): of_saliency,
    **{("experts", f"{count} at a time"): partial(of_experts_epoch, count) for count in (1, 5)},
    **{("evaluation", f"test pass, {count} at a time"): partial(of_test_pass, count) for count in (1, 5)},
    **{("by class", method): partial(of_a_unit, method) for method in ("rded", "sre2l")},
    **{("training", name): partial(of_recipe, name, "sgd") for name in RECIPES},
    **{
        ("weights", name): of
        for name, of in (("a step of the embedding", of_embedding), ("exact", of_density), ("knn", of_knn))
    },
}


@cache
def epoch(room: str, name: str) -> tuple[Record, float]:
    return second(EPOCHS[room, name])


def recorded() -> dict[str, dict[str, dict[str, int]]]:
    """Kernels of every epoch, and how many of them are the convolutions and norms that the rest is around."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for room, name in EPOCHS:
        kernels = epoch(room, name)[0].kernels
        work = sum(number for kernel, number in kernels.items() if kernel.startswith(WORK))
        found.setdefault(room, {})[name] = {"kernels": kernels.total(), "convolutions and norms": work}
    return found


# Of a whole piece of work, where it waits and why.
EVALUATE_WAITS = {
    "networks._last_loss": "whether a network is finite, and its last loss",
    "doubts.doubt_of_network": "whether it predicts one class alone",
    "metrics.of": "what it got right",
}
EXPERT_WAITS = {
    "side_by_side._train": "an epoch's losses, of all experts at once",
    "store._bytes": "every epoch is stored",
    "trainer._check_finite": "an expert that diverged is told at once",
    "trainer._on_host": "its state is stored too",
    "metrics.of": "a test",
}


def of_evaluate(device: torch.device) -> Tensor:
    images = seen(device)
    found = evaluate(
        *(images.images, images.labels, data()),
        **{"arch": "ConvNet", "width": 4, "depth": 2, "nets": 3, "protocol": Protocol(epochs=2, batch=18)},
        side_by_side=3,
    )
    return torch.stack([counts.right for counts in found.counts]).double()


def of_experts(device: torch.device, out: Path) -> Tensor:
    config = ExpertSettings.configure(
        **{"dataset": "made", "arch": "ConvNet", "width": 4, "depth": 2, "debias": "fairdd", "eval_every": 2},
        **{"num_experts": 2, "epochs": 2, "batch_train": 18},
    )
    return train_experts(config, data(), out=out, device=device, side_by_side=2).values.float()


def places(found: list[tuple[str, str]]) -> set[str]:
    return {place.split(" < ")[0] for _, place in found}


def test_an_evaluation_waits_where_it_says():
    expected = of_evaluate(CPU)
    with PretendGpu() as gpu, gpu.recording() as record:
        found = of_evaluate(CUDA)
    assert (found - expected).abs().max() <= 1
    assert places(record.waits) <= set(EVALUATE_WAITS)
    # Of three networks: two of the network, one of what it predicts where it learned nothing, one of its counts.
    assert len(record.waits) <= 3 * 4


def test_experts_wait_where_they_say(tmp_path):
    expected = of_experts(CPU, tmp_path / "cpu")
    with PretendGpu() as gpu, gpu.recording() as record:
        found = of_experts(CUDA, tmp_path / "cuda")
    assert (found - expected).abs().max() < 1e-5
    assert places(record.waits) <= set(EXPERT_WAITS), record.waits


@pytest.mark.parametrize(("room", "name"), EPOCHS)
def test_an_epoch_waits_for_nothing_and_sends_nothing(room, name):
    record, difference = epoch(room, name)
    assert difference < 1e-4
    assert places(record.waits) == set(WAITS.get((room, name), ()))
    assert places(record.uploads) == set(UPLOADS.get((room, name), ()))
    assert record.launches <= json.loads(RECORDED.read_text())[room][name]["kernels"], record.places.most_common(10)


@pytest.mark.parametrize(
    "name", ["published", *(pytest.param(name, marks=pytest.mark.full) for name in ("idc", "ncfm"))]
)
def test_steps_of_an_evaluation_are_graphs(name):
    """Replayed, captured anew when the learning rate falls, and with a smaller last batch: the numbers of the CPU."""
    protocol = replace(EVALUATIONS[name], batch=16, **FEW[name])

    def run(device: torch.device) -> Tensor:
        epoch, numbers = of_evaluation(protocol, 2, device)
        for number in range(protocol.passes):
            epoch(number)
        return numbers().cpu()

    expected = run(CPU)
    with PretendGpu() as gpu, gpu.recording() as record:
        found = run(CUDA)
    # Of two lengths of batch and two learning rates each: three times called, then replayed.
    assert record.kernels["replay"] == 3 * protocol.passes - 2 * 2 * 3
    assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-3


FEW = {
    "published": {"epochs": 11},
    "idc": {"epochs": 12, "milestones": (Fraction(1, 2),)},
    "ncfm": {"epochs": 12, "milestones": (Fraction(1, 2),)},
}


def main() -> None:
    RECORDED.write_text(json.dumps(json.loads(RECORDED.read_text()) | recorded(), indent=2) + "\n")


if __name__ == "__main__":
    main()
