import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

from fastdd.core import ext as _ext
from fastdd.ops import _dispatch
from fastdd.ops.augment import augment, identity_params
from fastdd.ops.segment_mean import segment_mean

X, OFFSETS = torch.randn(4, 3), torch.tensor([0, 1, 4])


def test_backend_that_does_not_exist_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="backend='cudnn' is not one of auto, native, triton, reference"):
        segment_mean(X, OFFSETS, backend="cudnn")
    monkeypatch.setenv("FASTDD_BACKEND", "fast")
    with pytest.raises(ValueError, match="FASTDD_BACKEND='fast' is not one of"):
        segment_mean(X, OFFSETS)


def test_backend_asked_for_by_name_never_falls_back(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="segment_mean has no such kernel for cpu tensors; use 'native' or"):
        segment_mean(X, OFFSETS, backend="triton")
    with pytest.raises(RuntimeError, match="augment has no such kernel for cpu tensors"):
        augment(torch.zeros(1, 1, 2, 2), identity_params(1), backend="triton")
    monkeypatch.setattr(_ext, "available", lambda: False)
    monkeypatch.setattr(_ext, "reason", lambda: "it is not built")
    with pytest.raises(RuntimeError, match="backend='native': it is not built"):
        segment_mean(X, OFFSETS, backend="native")
    monkeypatch.setenv("FASTDD_BACKEND", "native")
    with pytest.raises(RuntimeError, match="FASTDD_BACKEND='native': it is not built"):
        segment_mean(X, OFFSETS)
    # The argument is nearer than the environment.
    segment_mean(X, OFFSETS, backend="reference")


def test_auto_warns_once_of_a_missing_extension(monkeypatch):
    monkeypatch.setattr(_ext, "available", lambda: False)
    monkeypatch.setattr(_ext, "reason", lambda: "it is not built")
    monkeypatch.setattr(_dispatch, "_warned", False)
    with pytest.warns(RuntimeWarning, match="slower PyTorch reference: it is not built"):
        segment_mean(X, OFFSETS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segment_mean(X, OFFSETS)


def test_the_environment_chooses_what_auto_means(monkeypatch):
    called = []
    monkeypatch.setattr("fastdd.reference.segment_mean.segment_mean", lambda *_: called.append(1))
    segment_mean(X, OFFSETS)
    assert not called
    monkeypatch.setenv("FASTDD_BACKEND", "reference")
    segment_mean(X, OFFSETS)
    assert called


def test_implementations_name_what_is_active_and_why_the_others_are_not(monkeypatch):
    def rows():
        return {row.op: (row.active, row.others) for row in _dispatch.implementations("cpu")}

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("FASTDD_BACKEND", raising=False)
    assert rows()["segment_mean"] == ("native", {"triton": "for CUDA tensors"})
    assert rows()["augment"] == ("native", {})
    assert rows()["grouped_outer"] == ("reference", {"triton": "for CUDA tensors"})
    monkeypatch.setenv("FASTDD_BACKEND", "reference")
    assert rows()["segment_mean"] == (
        "reference",
        {"native": "FASTDD_BACKEND=reference", "triton": "for CUDA tensors"},
    )
    monkeypatch.setenv("FASTDD_BACKEND", "triton")
    active, others = rows()["augment"]
    assert active == "none"
    assert "augment has no such kernel for cpu tensors" in others["native"]
    monkeypatch.delenv("FASTDD_BACKEND")
    monkeypatch.setattr(_ext, "available", lambda: False)
    monkeypatch.setattr(_ext, "reason", lambda: "it is not built")
    assert rows()["kde"] == ("reference", {"native": "it is not built", "triton": "for CUDA tensors"})


WITHOUT_EXTENSION = """
    import sys, warnings
    sys.modules["fastdd._C"] = None
    import torch
    from fastdd.core import ext as _ext
    from fastdd.core import rng
    from fastdd.ops.augment import augment
    from fastdd.ops.dsa import DSA_STRATEGY, dsa_params
    from fastdd.ops.segment_mean import segment_mean
    assert not _ext.available() and "fastdd._C" in _ext.reason()
    assert _ext.build_info() == {} and not _ext.has_cuda_kernels()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
        params = dsa_params(DSA_STRATEGY, rng.lanes(0, 4), (8, 8), dtype=torch.float64)
        offsets = torch.tensor([0, 1, 4])
        y = segment_mean(augment(x, params).flatten(1), offsets)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        g.square().sum().backward()
    assert [w.category for w in caught] == [RuntimeWarning], caught
    assert "slower PyTorch reference" in str(caught[0].message)
    expected = segment_mean(augment(x, params, backend="reference").flatten(1), offsets, backend="reference")
    assert torch.equal(y, expected)
    torch.library.opcheck(torch.ops.fastdd.segment_mean, (x.flatten(1).detach().requires_grad_(), offsets, None))
    torch.library.opcheck(torch.ops.fastdd.augment, (x.detach().requires_grad_(), params, None, False))
    print("works")
"""


def test_everything_works_without_the_extension():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_EXTENSION)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "works", done.stderr


def test_public_functions_compile_without_graph_breaks():
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    params = identity_params(4)
    params[:, 1] = 0.1

    def loss(t):
        return segment_mean(augment(t, params).flatten(1), OFFSETS).square().sum()

    (expected,) = torch.autograd.grad(loss(x), x)
    (got,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(x), x)
    assert torch.equal(got, expected)
