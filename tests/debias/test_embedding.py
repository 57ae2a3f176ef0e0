"""The GSC loss against a literal double loop in float64, and what training on a biased set finds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd.data import DeviceImages, Split
from fastdd.debias.density.embedding import EmbeddingSettings, embed, gsc_loss, train_embedding


def literal(z, labels, temperature, q):
    """As the published code goes about it, pair by pair; the weights p^q are handed in as constants."""
    n = len(z)
    loss = 0.0
    for i in range(n):
        logits = [sum(z[i][d] * z[k][d] for d in range(len(z[i]))) / temperature for k in range(n)]
        largest = max(logit.item() for logit in logits)
        total = sum(torch.exp(logits[k] - largest) for k in range(n) if k != i)
        of_image, positives = 0.0, 0
        for j in range(n):
            if j != i and labels[j] == labels[i]:
                log_p = logits[j] - largest - torch.log(total)
                of_image = of_image + q * math.exp(log_p.item()) ** q * log_p
                positives += 1
        loss = loss - of_image / max(positives, 1)
    return loss / n


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=7),
    temperature=st.floats(0.05, 2),
    q=st.floats(0.1, 1),
)
def test_loss_and_gradient_against_a_literal_loop(seed, labels, temperature, q):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(len(labels), 3, generator=generator, dtype=torch.float64), dim=1)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = gsc_loss(ours, torch.tensor(labels), temperature=temperature, q=q)
    expected = literal(theirs, labels, temperature, q)
    torch.testing.assert_close(loss, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    loss.backward()
    if len(set(labels)) < len(labels):
        expected.backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)
    else:
        assert (ours.grad == 0).all()


def test_hand_derived():
    """Two of one label at one place, one of another opposite: p = 1 / (1 + e^-2/T) for both positives."""
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    p = 1 / (1 + math.exp(-2 / 0.2))
    made = gsc_loss(z, torch.tensor([0, 0, 1]))
    assert made.item() == pytest.approx(-2 / 3 * 0.7 * p**0.7 * math.log(p), rel=1e-9)


def test_pairs_that_are_alike_pull_more_than_in_the_plain_loss():
    """The gradient on the far positive, relative to the near one, is below that of q -> 0 (all pairs alike)."""
    angles = torch.tensor([0.0, 0.3, 1.5, 2.5], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])

    def share(q):
        similarities = (torch.stack([angles.cos(), angles.sin()], 1) @ torch.stack([angles.cos(), angles.sin()])) / 0.2
        log_p = similarities[0] - similarities[0, 1:].logsumexp(0)
        weights = (q * log_p).exp()
        return (weights[2] / weights[1]).item()

    assert share(0.7) < 0.1 < share(1e-9) <= 1 + 1e-6
    assert gsc_loss(torch.stack([angles.cos(), angles.sin()], 1), labels).isfinite()


def test_images_of_a_colour_are_near_each_other(digits, weighed):
    """Without looking at groups: the nearest neighbour among other digits has the same colour."""
    made = weighed.embeddings
    assert made.shape == (1297, 128)
    assert made.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    labels, groups = digits.train.labels, digits.train.groups
    similarities = made @ made.T
    similarities[labels[:, None] == labels[None]] = -2
    conflicting = groups != labels
    # By chance a tenth. A tenth of the conflicting images is of a colour that two classes share a hue of.
    assert (groups[similarities.argmax(1)] == groups)[conflicting].mean() > 0.75


def test_groups_are_not_looked_at(digits):
    blind = replace(digits, train=replace(digits.train, groups=np.zeros_like(digits.train.groups)))
    few = EmbeddingSettings(steps=2)
    assert np.array_equal(train_embedding(blind, few), train_embedding(digits, few))


def test_a_function_of_the_seed(digits):
    few = EmbeddingSettings(steps=3)
    state = torch.get_rng_state()
    seen = []
    first = train_embedding(digits, few, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(first, train_embedding(digits, few, seed=1))
    assert not np.array_equal(first, train_embedding(digits, few, seed=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_fewer_images_than_a_batch_and_several_epochs(digits):
    s = digits.train
    small = replace(digits, train=Split(s.images[:50], s.labels[:50], s.groups[:50]))
    assert np.isfinite(train_embedding(small, EmbeddingSettings(steps=3))).all()


def test_embed_is_plain_application(digits):
    images = DeviceImages.of(digits.train.images[:300], digits.mean, digits.std)
    made = embed(lambda x: x.flatten(1)[:, :7], images)
    expected = (digits.train.images[:300].astype(np.float64) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(made, expected.reshape(300, -1)[:, :7], atol=1e-6)
    with pytest.raises(ValueError, match=r"must map \[256, C, H, W\] to \[256, D\], not to \[256, 3, 16, 16\]"):
        embed(lambda x: x, images)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "vgg"}, "unknown encoder 'vgg'"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch": 1}, "batch must be at least 2, not 1"),
        ({"temperature": 0.0}, "temperature must be finite and above 0, not 0.0"),
        ({"q": float("nan")}, "q must be finite and above 0, not nan"),
        ({"learning_rate": -1.0}, "learning_rate must be finite and above 0, not -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and at least 0, not -1.0"),
    ],
)
def test_bad_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingSettings(**wrong)


def test_images_too_small(digits):
    cut = [Split(s.images[..., :3, :], s.labels, s.groups) for s in (digits.train, digits.test)]
    with pytest.raises(ValueError, match="too small for an encoder: at least 4x4"):
        train_embedding(replace(digits, train=cut[0], test=cut[1]))
