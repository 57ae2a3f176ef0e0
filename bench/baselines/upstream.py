"""The published loops with the functions of a checkout: the backend ``upstream``."""

from collections.abc import Sequence
from types import SimpleNamespace

from torch import Tensor, nn

from fastdd.bench.baselines.attention import PublishedAttentionLoop
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.baselines.published_gradient import PublishedGradientLoop
from fastdd.bench.framework.upstream import Upstream


class UpstreamLoop(PublishedLoop):
    """The published loop with the checkout's own network and augmentation.

    The loop itself stands in the checkout's ``main`` functions, which can't be called for one step.
    """

    def __init__(self, problem: Problem, code: Upstream):
        super().__init__(problem)
        self._code = code

    def network(self) -> nn.Module:
        data, config = self._problem.dataset, self._problem.config
        return self._code.networks.ConvNet(
            channel=data.channels,
            num_classes=data.num_classes,
            net_width=config.width or 128,
            net_depth=config.depth or 3,
            net_act=self._problem.activation,
            net_norm="instancenorm",
            net_pooling="avgpooling",
            im_size=data.size,
        )

    def draw(self, seed: int) -> int:
        return seed

    def augment(self, x: Tensor, drawn: int) -> Tensor:
        return self._code.augment(x, self._problem.config.dsa_strategy, drawn)


class UpstreamAttentionLoop(UpstreamLoop, PublishedAttentionLoop):
    """Attention matching with the checkout's own network and augmentation."""


class UpstreamGradientLoop(UpstreamLoop, PublishedGradientLoop):
    """Gradient matching with the checkout's own network, augmentation and distance."""

    def match_loss(self, synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        settings = SimpleNamespace(device=self._problem.device, dis_metric=self._problem.config.metric)
        return self._code.utils.match_loss(synthetic, real, settings)
