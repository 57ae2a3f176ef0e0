"""What training from a biased network's failures shares: its loss, and how easy each image is for it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def generalised_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """q p_y^q CE of every image, p_y a constant to the gradient: what is right already counts most (GCE, as in LfF).

    Zhang and Sabuncu, NeurIPS 2018: the gradient of (1 - p_y^q) / q is p_y^q that of the cross-entropy. The published
    code of LfF multiplies by q besides.

    Args:
        logits: [B, C].
        labels: int64 [B].
        q: sharper with q.

    Returns:
        [B].
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    return q * (-q * losses.detach()).exp() * losses


class LossTables:
    """How hard every image is for a biased and for a debiased network, and the weights that follow.

        m_i <- l_i at the first visit, decay m_i + (1 - decay) l_i later;    w = m^b / (m^b + m^d + 1e-8)

    where each m is first divided by the largest of its class over the whole table.

    Args:
        labels: int64 [N].
        num_classes: C.
        decay: 0.7 in the published code.
        dtype: of the losses.
    """

    def __init__(self, labels: Tensor, num_classes: int, decay: float = 0.7, dtype: torch.dtype = torch.float32):
        self._labels, self._num_classes, self._decay = labels, num_classes, decay
        self.biased = torch.zeros(len(labels), dtype=dtype, device=labels.device)
        self.debiased = self.biased.clone()
        self.visited = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)

    def update(self, rows: Tensor, biased: Tensor, debiased: Tensor) -> None:
        """Take in the losses [B] of a batch; a row that comes twice in it counts once, which one is not defined."""
        first = ~self.visited[rows]
        for table, losses in ((self.biased, biased), (self.debiased, debiased)):
            old = table[rows]
            table[rows] = torch.where(first, losses, self._decay * old + (1 - self._decay) * losses)
        self.visited[rows] = True

    def updated(self, rows: Tensor, biased: Tensor, debiased: Tensor) -> Tensor:
        """[B], the weights of a batch, once its losses [B] are taken in; none of them has a gradient."""
        self.update(rows, biased.detach(), debiased.detach())
        return self.weights(rows)

    def weights(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Those of rows, or of all images, as they are now."""
        biased, debiased = self._of_largest(self.biased, rows), self._of_largest(self.debiased, rows)
        return biased / (biased + debiased + 1e-8)

    def loss(self, rows: Tensor, of_biased: Tensor, logits: Tensor, q: float) -> Tensor:
        """LfF's loss of a batch, from the logits [B, C] of the biased and of the debiased network.

        mean of q p_y^q CE(f_b) + mean of w CE(f_d)
        """
        labels = self._labels[rows]
        losses = F.cross_entropy(logits, labels, reduction="none")
        weights = self.updated(rows, F.cross_entropy(of_biased, labels, reduction="none"), losses)
        return generalised_cross_entropy(of_biased, labels, q).mean() + (weights * losses).mean()

    def tensors(self) -> dict[str, Tensor]:
        """The tables themselves."""
        return {"biased": self.biased, "debiased": self.debiased, "visited": self.visited}

    def _of_largest(self, table: Tensor, rows: Tensor | slice) -> Tensor:
        largest = table.new_zeros(self._num_classes).scatter_reduce(0, self._labels, table, "amax")
        # Losses of exactly 0 throughout a class would be 0 / 0.
        return table[rows] / largest[self._labels[rows]].clamp(min=torch.finfo(table.dtype).tiny)
