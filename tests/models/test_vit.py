"""The transformer: its sizes, its arithmetic against PyTorch's own layers, its start."""

import pytest
import torch
from torch import nn

from fastdd import models


def test_sizes_and_first_values():
    net = models.build("ViT", 3, 10, (32, 32), key=1)
    # Patches 4x4x3 -> 512; a class token and 65 positions; 6 layers of qkv, out, perceptron and two norms; norm, head.
    layer = 512 * 1536 + (512 * 512 + 512) + 2 * (512 * 512 + 512) + 4 * 512
    assert sum(p.numel() for p in net.parameters()) == (48 * 512 + 512) + 66 * 512 + 6 * layer + 1024 + 5130
    assert net.positions.weight.std().item() == pytest.approx(1, abs=0.02)
    assert net.start.weight.abs().max() > 2
    again, other = (models.build("ViT", 3, 10, (32, 32), key=key) for key in (1, 2))
    assert torch.equal(again.positions.weight, net.positions.weight)
    assert not torch.equal(other.positions.weight, net.positions.weight)
    assert [len(models.build(f"ViT{n}", 1, 2, (28, 28)).layers) for n in (1, 2, 3)] == [1, 2, 3]


def test_a_layer_is_pytorchs_encoder_layer():
    torch.manual_seed(0)
    net = models.build("ViT1", 3, 10, (16, 16), key=3).double()
    own = net.layers[0]
    theirs = nn.TransformerEncoderLayer(
        512, 8, 512, dropout=0.0, activation="gelu", norm_first=True, batch_first=True, dtype=torch.float64
    )
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": own.qkv.weight,
            "self_attn.in_proj_bias": torch.zeros(1536, dtype=torch.float64),
            "self_attn.out_proj.weight": own.out.weight,
            "self_attn.out_proj.bias": own.out.bias,
            "linear1.weight": own.mlp[0].weight,
            "linear1.bias": own.mlp[0].bias,
            "linear2.weight": own.mlp[2].weight,
            "linear2.bias": own.mlp[2].bias,
            **{
                f"{norm}.{name}": value
                for norm in ("norm1", "norm2")
                for name, value in getattr(own, norm).state_dict().items()
            },
        }
    )
    tokens = torch.randn(2, 5, 512, dtype=torch.float64)
    torch.testing.assert_close(own(tokens), theirs(tokens), rtol=1e-10, atol=1e-10)


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match="ViT can't cut images of 31x31 pixels into at most 8 square patches a side"):
        models.build("ViT", 3, 10, (31, 31))
