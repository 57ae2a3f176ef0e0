"""FAISS, loaded when first needed: exact nearest neighbours of CPU and CUDA tensors."""

import functools
import importlib
import importlib.metadata
import importlib.util

import torch
from torch import Tensor

# What a search may take from a GPU beside its inputs and results; FAISS's own default is 1.5 GB.
_TEMPORARY = 128 << 20
# FAISS's limit on a GPU.
_MOST_GPU_NEIGHBOURS = 2048


def missing(device: str) -> str:
    """Why FAISS can't search tensors on ``cpu`` or ``cuda``, with the cure; empty when it can."""
    if importlib.util.find_spec("faiss") is None:
        return f"faiss is not installed: pip install 'fastdd[{'gpu' if device == 'cuda' else 'cpu'}]'"
    if device != "cuda":
        return ""
    if not hasattr(importlib.import_module("faiss"), "StandardGpuResources"):
        return "this build of faiss has no GPU code: pip uninstall faiss-cpu, then pip install 'fastdd[gpu]'"
    if torch.cuda.get_device_capability() >= (9, 0) and any(importlib.metadata.distributions(name="faiss-gpu-cu12")):
        return (
            "faiss-gpu-cu12 has no code for GPUs of compute capability 9.0: "
            "pip uninstall faiss-gpu-cu12, then pip install 'fastdd[gpu]'"
        )
    return ""


@functools.cache
def _resources(device: int):
    resources = importlib.import_module("faiss").StandardGpuResources()
    resources.setTempMemory(_TEMPORARY)
    return resources


def _search_gpu(queries: Tensor, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    faiss = importlib.import_module("faiss")
    if k > _MOST_GPU_NEIGHBOURS:
        raise ValueError(f"faiss finds at most {_MOST_GPU_NEIGHBOURS} neighbours on a GPU, not {k}")
    resources = _resources(x.device.index)
    stream = torch.cuda.current_stream(x.device).cuda_stream
    resources.setDefaultStream(x.device.index, faiss.cast_integer_to_cudastream_t(stream))
    squared = torch.empty(len(queries), k, device=x.device)
    ids = torch.empty(len(queries), k, dtype=torch.int64, device=x.device)
    call = faiss.GpuDistanceParams()
    call.metric, call.k, call.dims, call.device = faiss.METRIC_L2, k, x.shape[1], x.device.index
    call.vectors, call.numVectors = faiss.cast_integer_to_float_ptr(x.data_ptr()), len(x)
    call.queries, call.numQueries = faiss.cast_integer_to_float_ptr(queries.data_ptr()), len(queries)
    call.outDistances = faiss.cast_integer_to_float_ptr(squared.data_ptr())
    call.outIndices, call.outIndicesType = faiss.cast_integer_to_idx_t_ptr(ids.data_ptr()), faiss.IndicesDataType_I64
    faiss.bfKnn(resources, call)
    return squared, ids


def search(queries: Tensor, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of x to each query: squared distances, float32 [M, k], rising, and row numbers, int64 [M, k].

    Args:
        queries: float32 [M, D], finite.
        x: float32 [N, D] on the same device, finite; N >= k.
        k: neighbours a query.
    """
    queries, x = queries.contiguous(), x.contiguous()
    if x.device.type == "cuda":
        return _search_gpu(queries, x, k)
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    squared, ids = faiss.knn(queries.numpy(), x.numpy(), k)
    return torch.from_numpy(squared), torch.from_numpy(ids)
