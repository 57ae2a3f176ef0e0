"""Instance norm, ReLU and 2x2 pooling with their first and second derivatives, in plain PyTorch: ground truth and
fallback.

Written out for x [N, H, W, C], as the kernels read it. Per image and channel, over the P = H W pixels, with the mean
m, r = 1 / sqrt(variance + eps), xh = (x - m) r, and z = w xh + b:

    y = pool(max(z, 0))

    G  = 1[z > 0] unpool(g)                        first derivative, for an upstream gradient g of y
    dx = w r (G - mean(G) - xh mean(G xh)),    dw = sum G xh,    db = sum G

    e  = -w r (u mean(G xh) + G mean(u xh)) + vw G      second, for gradients u, vw, vb of dx, dw, db
    T  = mean(u G) - mean(u) mean(G) - mean(u xh) mean(G xh)
    g' = pool(1[z > 0] (w r (u - mean(u) - xh mean(u xh)) + vw xh + vb))
    x' = r (e - mean(e) - xh mean(e xh)) - w r^2 xh T,    w' = sum over images of r P T,    b' = 0
"""

import torch
import torch.nn.functional as F
from torch import Tensor

POOLS = ("avg", "max", "none")


def norm_act_pool(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, pool: str = "avg") -> Tensor:
    """The layers one after the other; x [N, C, H, W]. See fastdd.ops.norm_act_pool."""
    y = F.relu(F.group_norm(x, x.shape[1], weight.to(x.dtype), bias.to(x.dtype), eps))
    if pool == "none":
        return y
    return F.avg_pool2d(y, 2) if pool == "avg" else F.max_pool2d(y, 2)


def _normalised(x: Tensor, stats: Tensor) -> Tensor:
    mean, rstd = stats[:, 0, None, None], stats[:, 1, None, None]
    return (x.to(stats.dtype) - mean) * rstd


def _windows(t: Tensor) -> Tensor:
    """[N, H, W, C] -> [N, H // 2, W // 2, C, 4]: the pixels of every pooling window, in reading order."""
    n, h, w, c = t.shape
    t = t[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    return t.permute(0, 1, 3, 5, 2, 4).flatten(4)


def _pool(t: Tensor, active: Tensor, pool: str) -> Tensor:
    """Adjoint of :func:`_unpool` composed with the mask: t [N, H, W, C] to the size of y."""
    t = torch.where(active > 0, t, 0)
    if pool == "none":
        return t
    if pool == "avg":
        return _windows(t).sum(-1) / 4
    return _windows(t).gather(-1, _windows(active).argmax(-1, keepdim=True)).squeeze(-1)


def _unpool(g: Tensor, active: Tensor, pool: str) -> Tensor:
    """``G``: g [N, H', W', C] spread over the pixels that y came from."""
    g = g.to(active.dtype)
    if pool != "none":
        if pool == "avg":
            share = g[..., None].expand(*g.shape, 4) / 4
        else:
            share = torch.zeros(*g.shape, 4, dtype=g.dtype, device=g.device)
            share = share.scatter(-1, _windows(active).argmax(-1, keepdim=True), g[..., None])
        n, h, w, c, _ = share.shape
        share = share.view(n, h, w, c, 2, 2).permute(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c)
        g = F.pad(share, (0, 0, 0, active.shape[2] - 2 * w, 0, active.shape[1] - 2 * h))
    return torch.where(active > 0, g, 0)


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: str) -> tuple[Tensor, Tensor]:
    """y of x's dtype and ``stats`` [N, 2, C], the mean and 1 / sqrt(variance + eps) of every image and channel."""
    wide = x.to(weight.dtype)
    mean = wide.mean((1, 2))
    variance = (wide - mean[:, None, None]).square().mean((1, 2))
    stats = torch.stack([mean, (variance + eps).rsqrt()], 1)
    active = F.relu(_normalised(x, stats) * weight + bias)
    if pool == "avg":
        active = _windows(active).mean(-1)
    elif pool == "max":
        active = _windows(active).amax(-1)
    return active.to(x.dtype).contiguous(), stats


def backward(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str) -> tuple[Tensor, ...]:
    """dx of x's dtype, dw and db, for the upstream gradient g of y."""
    xh = _normalised(x, stats)
    spread = _unpool(g, xh * weight + bias, pool)
    products = spread * xh
    dx = spread - spread.mean((1, 2), keepdim=True) - xh * products.mean((1, 2), keepdim=True)
    dx = dx * (weight * stats[:, 1])[:, None, None]
    return dx.to(x.dtype).contiguous(), products.sum((0, 1, 2)), spread.sum((0, 1, 2))


def double_backward(
    u: Tensor,
    vw: Tensor,
    vb: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stats: Tensor,
    pool: str,
) -> tuple[Tensor, ...]:
    """Gradients of ``<u, dx> + <vw, dw> + <vb, db>`` in g (of g's dtype), x (of x's dtype) and weight."""
    xh = _normalised(x, stats)
    active = xh * weight + bias
    spread, u = _unpool(g, active, pool), u.to(xh.dtype)
    rstd = stats[:, 1][:, None, None]
    scale = weight * rstd

    def mean(t: Tensor) -> Tensor:
        return t.mean((1, 2), keepdim=True)

    gx, ux = mean(spread * xh), mean(u * xh)
    t = mean(u * spread) - mean(u) * mean(spread) - ux * gx
    e = vw * spread - scale * (u * gx + spread * ux)
    to_x = rstd * (e - mean(e) - xh * mean(e * xh) - scale * xh * t)
    to_g = _pool(scale * (u - mean(u) - xh * ux) + vw * xh + vb, active, pool)
    to_w = (rstd * t).sum((0, 1, 2)) * (x.shape[1] * x.shape[2])
    return to_g.to(g.dtype).contiguous(), to_x.to(x.dtype).contiguous(), to_w


def slope(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str) -> Tensor:
    """dx alone, of :func:`backward`."""
    return backward(g, x, weight, bias, stats, pool)[0]


def slope_backward(
    u: Tensor, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str
) -> tuple[Tensor, Tensor]:
    """Gradients of ``<u, dx>`` in g and x, of :func:`double_backward`."""
    none = torch.zeros_like(weight)
    to_g, to_x, _ = double_backward(u, none, none, g, x, weight, bias, stats, pool)
    return to_g, to_x
