"""A user's script, as editors and type checkers see it (test_types.py); it is not run."""

from pathlib import Path

import numpy as np
import torch
from typing_extensions import assert_type

import fastdd
from fastdd.data import Dataset, SyntheticSet
from fastdd.debias.density.kde import KdeWeights
from fastdd.evaluation import Evaluation
from fastdd.experts import Experts
from fastdd.methods import Settings
from fastdd.session import Callback, Estimate, Progress, Run


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def losses(self, run: Run, first: int, values: list[float]) -> None:
        self.seen += values
        assert_type(run.step, int)
        assert_type(run.config.iterations, int)


def show(now: Progress) -> None:
    print(f"{now.step}/{now.total}: {now.loss:.3f}")


def main() -> None:
    data = fastdd.data.load("c-digits", Path("data"))
    assert_type(data, Dataset)

    losses = Losses()
    synthetic = fastdd.distill(
        data,
        method="dc",
        debias="fairdd",
        ipc=2,
        iterations=3,
        outer_loop=2,
        lr_img=1,
        metric="ours",
        width=8,
        depth=None,
        out=Path("run"),
        resume=True,
        progress=show,
        callbacks=[losses],
        eval_every=1,
    )
    assert_type(synthetic, SyntheticSet)
    assert_type(synthetic.images, torch.Tensor)
    assert_type(synthetic.learning_rate, float | None)

    job = fastdd.Distillation(data, method="dm", debias="kde", ipc=1, iterations=10, precision="bf16")
    assert_type(job.settings, Settings)
    assert_type(job.settings.iterations, int)
    assert_type(job.estimate(nets=2), Estimate)
    assert_type(job.run(out="other", callbacks=[]), SyntheticSet)
    assert_type(fastdd.estimate(data, method="mtt", ipc=1, syn_steps=3).seconds, dict[str, float])

    evaluation = fastdd.evaluate(synthetic, data, nets=2, epochs=10, arch="ConvNet")
    assert_type(evaluation, Evaluation)
    assert_type(evaluation.summary(), dict[str, dict[str, float | None]])

    weights = fastdd.kde_weights(data, steps=10, temperature=0.3, clip=None)
    assert_type(weights, KdeWeights)
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = weights.weights
    groups, number = fastdd.pseudo_groups(data, method="kmeans", num_groups=10)
    assert_type(number, int)
    fastdd.distill(data, debias="kde", weights=weights)
    fastdd.distill(data, debias="fairdd", groups=groups)

    experts = fastdd.train_experts(data, out="experts", debias="kde", num_experts=2, epochs=1, weights=values)
    assert_type(experts, Experts)
    assert_type(experts.number, int)
    fastdd.distill(data, method="mtt", experts=experts, ipc=1, iterations=2)
    assert_type(fastdd.import_synthetic("set.pt", dataset="cifar10"), SyntheticSet)
    assert_type(fastdd.export_synthetic(synthetic, "set.npz", to="npz").files, list[Path])
