"""A network of one's own: fastdd distill --plugin small_resnet.py --arch small-resnet ..."""

import torch
from torch import Tensor, nn

import fastdd


class SmallResNet(nn.Module):
    """Two residual blocks and a linear layer, whose input is what distribution matching matches."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 32, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, 32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)) for _ in range(2)
        )
        self.classifier = nn.Linear(32 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x)
        features = torch.flatten(nn.functional.adaptive_avg_pool2d(x.relu(), 2), 1)
        logits: Tensor = self.classifier(features)
        return logits


fastdd.register_network("small-resnet", SmallResNet)
