"""What a script asks of CUDA goes to the CPU, and afterwards PyTorch is as before."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils import _device as device_contexts

from fastdd.compat.hook.cpu import OnCpu

CPU = torch.device("cpu")


@pytest.fixture
def on_cpu():
    made = OnCpu()
    made.install()
    yield made
    made.remove()


def test_tensors_and_networks_stay_on_the_cpu(on_cpu):
    x = torch.zeros(2, 3, device="cuda:1")
    same = x.cuda(non_blocking=True).to("cuda").to(device=torch.device("cuda", 0)).to(torch.float64)
    assert (same.device, same.dtype) == (CPU, torch.float64)
    assert {x.new_zeros(2, device="cuda").device, torch.randperm(3, device="cuda:0").device} == {CPU}
    assert x.cuda() is x
    net = nn.Linear(3, 2)
    assert net.cuda() is net.to("cuda") is net
    parallel = nn.DataParallel(net, device_ids=[0, 1]).cuda(1)
    torch.testing.assert_close(parallel(x), net(x))
    assert parallel.module is net
    assert dict(on_cpu.asked) == {
        "torch.zeros": 1,
        "Tensor.cuda": 2,
        "Tensor.to": 1,
        "torch.device": 1,
        "Tensor.new_zeros": 1,
        "torch.randperm": 1,
        "Module.cuda": 2,
        "Module.to": 1,
    }
    assert on_cpu.notice().startswith("--device cpu: CUDA was asked for and the CPU given: ")


def test_snapshots_of_a_network_in_training_differ(on_cpu):
    net = nn.Linear(3, 2).cuda()
    steps = torch.optim.SGD(net.parameters(), lr=0.1)
    timestamps = [[p.detach().cpu() for p in net.parameters()]]
    net(torch.ones(1, 3)).sum().backward()
    steps.step()
    timestamps.append([p.detach().cpu() for p in net.parameters()])
    for before, after, gradient in zip(*timestamps, [p.grad for p in net.parameters()], strict=True):
        torch.testing.assert_close(after, before - 0.1 * gradient)
    images = torch.ones(2, requires_grad=True)
    images.cpu().sum().backward()
    assert images.grad.tolist() == [1, 1]


def test_devices_are_pytorchs(on_cpu):
    device = torch.device("cuda", 1)
    assert device == CPU
    assert isinstance(device, torch.device)
    assert pickle.loads(pickle.dumps(device)) == copy.deepcopy(device) == CPU
    assert torch.device("meta").type == "meta"
    with torch.device("cuda"):
        assert torch.ones(2).device == CPU


def test_questions_and_orders_of_cuda(on_cpu):
    assert (torch.cuda.is_available(), torch.cuda.device_count(), torch.cuda.max_memory_allocated()) == (False, 0, 0)
    assert not on_cpu.asked
    torch.cuda.set_device(1)
    torch.cuda.synchronize()
    torch.cuda.manual_seed_all(3)
    torch.cuda.empty_cache()
    assert sum(on_cpu.asked.values()) == 4
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    end.record()
    assert 0 <= start.elapsed_time(end) < 1000
    assert torch.cuda.FloatTensor([1.5]).type("torch.cuda.LongTensor").tolist() == [1]


@pytest.mark.parametrize("where", [None, "cuda:0", torch.device("cuda"), {"cuda:1": "cuda:0"}])
def test_files_are_read_to_the_cpu(on_cpu, where):
    file = io.BytesIO()
    torch.save({"weight": torch.arange(3.0)}, file)
    file.seek(0)
    assert torch.equal(torch.load(file, map_location=where)["weight"], torch.arange(3.0))


def test_nothing_stays_behind():
    owners = (torch, torch.cuda, torch.Tensor, nn.Module, torch.distributed, nn.parallel.DistributedDataParallel)
    before = [dict(vars(owner)) for owner in owners]
    made = OnCpu()
    made.install()
    assert vars(torch)["device"] is not before[0]["device"]
    made.remove()
    assert [dict(vars(owner)) for owner in owners] == before
    assert made.notice() == ""


def test_contexts_of_a_device_hold_whether_they_come_first_or_not():
    device_contexts._device_constructors.cache_clear()  # as in a script that begins with them
    made = OnCpu()
    made.install()
    try:
        with torch.device("meta"):
            assert nn.Linear(3, 2).weight.is_meta
    finally:
        made.remove()
    with torch.device("meta"):
        assert torch.rand(2).is_meta


def test_streams_and_generators(on_cpu):
    stream, x = torch.cuda.Stream(), torch.ones(3)
    with torch.cuda.stream(stream), torch.cuda.stream(None), torch.cuda.current_stream():
        x.record_stream(stream)
        stream.wait_stream(torch.cuda.current_stream())
        stream.wait_event(stream.record_event())
    stream.synchronize()
    assert stream.query()
    generator = torch.Generator(device="cuda").manual_seed(3)
    assert isinstance(generator, torch.Generator)
    assert generator.device == CPU
    drawn = torch.rand(3, generator=generator, device="cuda")
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(3)))


_PARALLEL = """
import os, sys, torch
from fastdd.compat.hook.cpu import OnCpu
on_cpu = OnCpu()
on_cpu.install()
torch.distributed.init_process_group("nccl", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
net = torch.nn.Linear(3, 2).cuda()
parallel = torch.nn.parallel.DistributedDataParallel(net, device_ids=[0], output_device=0)
parallel(torch.ones(4, 3, device="cuda")).sum().backward()
print(net.weight.grad.unique().tolist(), on_cpu.asked["init_process_group"], on_cpu.asked["DistributedDataParallel"])
sys.stdout.flush()
os._exit(0)  # a group that ends with its last reference can wait for its own threads forever
"""


def test_distributed_data_parallel_over_gpus_runs_on_cpus(tmp_path):
    command = [sys.executable, "-c", _PARALLEL, tmp_path / "ranks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.split("\n")[0] == "[4.0] 1 1", done.stderr
