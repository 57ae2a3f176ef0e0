"""DataDAM: distribution matching of spatial attention maps (Sajedi et al., ICCV 2023), for every debias mode.

    L = 100 sum over segments s of ( b D(phi) + sum over layers l of D(a_l) ),    D(f) = || E_s[f] - E_syn[f] ||^2

with a_l(x) = v / ||v||, v = sum over channels of |f_l(x)|^p, f_l what the activations of the network return but for the
last (published code looks at ReLUs only), phi the embedding, and b the task balance. All are squared distances of
means, so that this is DM of one longer signal: 10 a_l for every l, beside sqrt(100 b) phi. Factors and the power p = 1
are those of the published code; the paper's and README's tables have p = 4.
"""

from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.core.settings import setting
from fastdd.methods.dm import Dm, EmbeddingSettings

_FACTOR = 100.0
# Activations below 0 for some inputs.
_SIGNED = (nn.LeakyReLU, nn.SiLU)


class AttentionSignal(nn.Module):
    """A network as distribution matching sees it, whose embedding is attention maps and the scaled embedding.

    Args:
        net: with ``stages`` (:meth:`fastdd.models.Network.stages`).
        power: p.
        task_balance: b.
    """

    def __init__(self, net: nn.Module, power: float, task_balance: float):
        super().__init__()
        self.net, self._power, self._scale = net, power, (_FACTOR * task_balance) ** 0.5
        self._signed = any(isinstance(layer, _SIGNED) for layer in net.modules())

    def embed(self, images: Tensor) -> Tensor:
        """[N, sum of the maps' sizes + embedding]."""
        return self._signal(*self.net.stages(images))

    def embedder(self, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
        """:meth:`embed` for many calls with the parameters as they are now, without gradients, in ``dtype``."""
        stages = self.net.prepared_stages(dtype)
        return lambda images: self._signal(*stages(images))

    def _signal(self, maps: list[Tensor], embedding: Tensor) -> Tensor:
        # Maps of zeros stay zeros.
        attention = [F.normalize(self._powers(f).sum(1).flatten(1), dim=1) * _FACTOR**0.5 for f in maps[:-1]]
        return torch.cat([*attention, self._scale * embedding], 1)

    def _powers(self, features: Tensor) -> Tensor:
        """|f|^p, by no more passes over the network's largest tensors than it takes."""
        features = features.abs() if self._signed else features
        return features if self._power == 1 else features.pow(self._power)


class DataDamSettings(EmbeddingSettings):
    """Settings of attention matching: how attention is taken and weighed."""

    task_balance: float = setting("weight of the embeddings beside the attention maps", 0.01, ge=0)
    attention_power: float = setting("power of features in attention maps (published code 1, its tables 4)", 1.0, gt=0)


class DataDam(Dm):
    """Attention matching."""

    about = "distribution matching of attention maps, and embeddings a little"
    source = "Sajedi et al., ICCV 2023"
    Settings = DataDamSettings
    quick = MappingProxyType({"iterations": 300})
    # That every part is a squared distance is what makes them one longer signal.
    metric = "l2"

    def signal(self, net: nn.Module) -> nn.Module:
        return AttentionSignal(net, self._config.attention_power, self._config.task_balance)
