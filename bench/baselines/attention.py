"""Attention matching (DataDAM): its ``reference-loop`` as published, and the best plain PyTorch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.baselines.batched import BatchedSteps
from fastdd.bench.baselines.plain import ACTIVATIONS
from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.oracles.datadam import FACTOR, attention
from fastdd.bench.oracles.segments import by_class


class PublishedAttentionLoop(PublishedLoop):
    """Steps of DataDAM as published: classes augmented one by one, all real images in one pass and all synthetic ones
    in another, copies of activations by hooks, distances layer by layer; with FairDD, a loop over classes and groups.
    """

    def loss(self, net: nn.Module, rows: Tensor, drawn: Sequence) -> Tensor:
        config = self._problem.config
        classes = by_class(self._problem.segments(rows), len(drawn), self._dtype)
        real, synthetic = [], []
        for of_class, images, of_images in zip(classes, self.images.split(config.ipc), drawn, strict=True):
            real.append(self.augment(self._real[torch.cat([part.rows for part in of_class])], of_images))
            synthetic.append(self.augment(images, of_images))
        of_real = self._signals(net, torch.cat(real))
        loss = torch.zeros((), dtype=self._dtype, device=self._problem.device)
        for layer, (targets, signals) in enumerate(
            zip(of_real, self._signals(net, torch.cat(synthetic)), strict=True), start=1
        ):
            factor, start = FACTOR * (config.task_balance if layer == len(of_real) else 1), 0
            for of_class, of_images in zip(classes, signals.split(config.ipc), strict=True):
                for part in of_class:
                    end = start + len(part.rows)
                    target = (part.weights[:, None] * targets[start:end].detach()).sum(0)
                    loss = loss + factor * part.importance * (target - of_images.mean(0)).square().sum()
                    start = end
        return loss

    def _signals(self, net: nn.Module, images: Tensor) -> list[Tensor]:
        """Attention maps, but the last layer's, and the embedding, [N, size] each."""
        maps: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda layer, inputs, output: maps.append(output.clone()))
            for layer in net.features
            if isinstance(layer, ACTIVATIONS)
        ]
        embedding = net.embed(images)
        for hook in hooks:
            hook.remove()
        return [*(attention(features, self._problem.config.attention_power) for features in maps[:-1]), embedding]


class BatchedAttentionSteps(BatchedSteps):
    """Steps of DM whose signal is attention maps beside the embedding, with the square roots of their factors."""

    def signal(self, net: nn.Module, images: Tensor) -> Tensor:
        config = self._problem.config
        maps, embedding = net.stages(images)
        powers = (
            features if config.attention_power == 1 else features**config.attention_power for features in maps[:-1]
        )
        signals = [FACTOR**0.5 * F.normalize(features.sum(1).flatten(1)) for features in powers]
        return torch.cat([*signals, (FACTOR * config.task_balance) ** 0.5 * embedding], 1)
