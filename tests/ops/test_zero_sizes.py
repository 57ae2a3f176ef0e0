"""Every op of the schema, called past its wrapper with any one size of zero, answers or refuses: no process dies."""

from forked import Script

from fastdd.ops import implementations

# The calls of all ops, in one process of its own, which tells what it is about to call: a crash is told by name.
SCRIPT = """
import torch
from fastdd import ops
from fastdd.ops.conv_block import why_no_bf16_products

f, offsets, classes, rows = torch.rand, torch.tensor([0, 2, 4]), torch.tensor([0, 1]), torch.tensor([0, 1])
filters, params = f(5, 4, 3, 3), ops.identity_params(2)
wide, two = (lambda: f(2, 4, 4, 16)), (lambda t: (t, t.clone()))
gradients, norm = (f(2, 3, 4), f(2, 3, 4), classes), (f(3), f(3))
CALLS = {
    "segment_mean": (f(4, 3), offsets, f(4)),
    "segment_spread": (f(2, 3), offsets, f(4), 4),
    "embedding_match": (f(4, 3), f(4, 3), offsets, f(4), classes, 2),
    "embedding_match_pull": (f(2), f(2, 3), f(2), classes, 2, 4, 1.0),
    "cf_means": (f(4, 3), f(2, 5, 3), offsets, f(4), classes),
    "cf_pull": (f(2, 5, 2), f(4, 3), f(2, 5, 3), offsets, f(4), classes),
    "cf_frequencies": (classes, 3),
    "gradient_match_products": gradients,
    "gradient_match_combine": (f(2, 3), f(2, 3), *gradients),
    "gradient_match_distances": gradients,
    "gradient_match_pull": (f(2, 3), *gradients),
    "gradient_match_absolutes": gradients,
    "gradient_match_signs": (f(2, 3), *gradients),
    "gradient_match_layers": (f(2, 9), f(2, 9), classes, classes == 0, [2, 1], [3, 3], "ours"),
    "gradient_match_layers_pull":
        (f(2), f(2, 9), f(2, 9), classes, None, f(2, 3), f(2, 3), f(2, 3), [2, 1], [3, 3], "ours"),
    "grouped_outer": (f(4, 3), f(4, 2), f(4), offsets, 1),
    "grouped_matmul": (f(4, 3), f(2, 3, 2), f(4), offsets, 1),
    "grouped_conv_weight": (f(4, 2, 5, 5), f(4, 3, 3, 3), offsets, [3, 3], [1, 1], [0, 0], [1, 1], 1),
    "grouped_conv": (f(4, 2, 5, 5), f(2, 3, 2, 3, 3), offsets, [3, 3], [1, 1], [0, 0], [1, 1], 1, False),
    "loss_slopes": (f(4, 3), torch.tensor([0, 1, 2, 0]), offsets, f(4)),
    "loss_slopes_pull": (f(4, 3), f(4, 3), offsets, f(4)),
    "turns_": (f(4, 3), f(4, 3), f(4, 3), f(4, 3), torch.tensor(0.1).double(), 2, torch.tensor(3), 0.5, 0.1),
    "segment_order": (torch.tensor([1, 0, 1]), 2),
    "counter_lanes": (torch.tensor(5), 3),
    "counter_bits": (torch.tensor([5, 6]), 3),
    "counter_uniform": (torch.tensor([5, 6]), 3),
    "random_parameters": (torch.tensor(5), f(4), f(4), f(4)),
    "dsa_rows": (torch.tensor([5, 6]), [0, 2], 8, 9, 1, torch.float32),
    "kde": (f(4, 3), None, f(4), offsets, 1.0, False, "fp32"),
    "augment": (f(2, 3, 4, 4), params, rows, False),
    "augment_adjoint": (f(2, 3, 4, 4), params, rows),
    "augment_stored": (f(2, 3, 4, 4), params, rows, False, 2, torch.tensor([[0, 3], [1, 0]]), f(3)),
    "augment_stored_adjoint": (f(2, 3, 4, 4), params, rows, 3, 2, torch.tensor([[0, 3], [1, 0]])),
    "formation": (f(2, 3, 4, 5), 2, torch.tensor([[0, 3], [1, 0]]), f(3), [4, 6]),
    "formation_adjoint": (f(2, 3, 4, 6), 2, 4, 5, 2, torch.tensor([[0, 3], [1, 0]])),
    "augment_uint8": (f(2, 3, 4, 4).byte(), params, rows, f(3), f(3), torch.float32),
    "conv3x3": (f(2, 6, 6, 4), filters, f(5), False),
    "conv3x3_weight": (f(2, 6, 6, 4), f(2, 6, 6, 5)),
    "pack_filters": (filters, 0),
    "conv_block": (f(2, 6, 6, 4), filters, torch.ops.fastdd.pack_filters(filters, 0), f(5), f(5), 1, 1e-5, "avg"),
    "norm_act_pool": (f(2, 4, 4, 3), *norm, 1e-5, "avg"),
    "norm_act_pool_backward": (f(2, 2, 2, 3), f(2, 4, 4, 3), *norm, f(2, 2, 3), "avg"),
    "norm_act_pool_double_backward":
        (f(2, 4, 4, 3), *norm, f(2, 2, 2, 3), f(2, 4, 4, 3), *norm, f(2, 2, 3), "avg"),
    "norm_act_pool_slope": (f(2, 2, 2, 3), f(2, 4, 4, 3), *norm, f(2, 2, 3), "avg"),
    "norm_act_pool_slope_backward": (f(2, 4, 4, 3), f(2, 2, 2, 3), f(2, 4, 4, 3), *norm, f(2, 2, 3), "avg"),
    "conv_norm_act_pool": (f(2, 4, 4, 3), f(5, 3, 3, 3), None, f(5), f(5), 1e-5, "avg"),
    "conv_norm_act_pool_backward":
        (f(2, 2, 2, 5), f(2, 4, 4, 3), f(5, 3, 3, 3), f(5), f(5), f(2, 2, 5), "avg"),
    "conv_norm_act_pool_image_gradient":
        (f(2, 2, 2, 5), f(2, 4, 4, 3), f(5, 3, 3, 3), f(5), f(5), f(2, 2, 5), "avg"),
    "dual_conv3x3": (wide(), wide(), *two(f(17, 16, 3, 3)), False, *two(f(2, 4, 4, 17))),
    "dual_conv3x3_weight": (wide(), wide(), *two(f(2, 4, 4, 17)), f(17, 16, 3, 3)),
    "dual_norm_act_pool":
        (wide(), wide(), *two(f(16)), *two(f(16)), 1e-5, "avg", *two(f(2, 2, 2, 16)), *two(f(2, 2, 16))),
    "dual_norm_act_pool_backward":
        (*two(f(2, 2, 2, 16)), wide(), wide(), *two(f(16)), *two(f(16)), "avg", *two(f(2, 2, 16)), *two(f(16))),
    "dual_first_block":
        (f(2, 4, 4, 3), *two(f(5, 3, 3, 3)), *two(f(5)), *two(f(5)), 1e-5, "avg",
         *two(f(2, 2, 2, 5)), *two(f(2, 2, 5))),
    "dual_first_block_backward":
        (*two(f(2, 2, 2, 5)), f(2, 4, 4, 3), *two(f(5, 3, 3, 3)), *two(f(5)), *two(f(5)), "avg", *two(f(2, 2, 5)),
         f(2, 4, 4, 3), f(5, 3, 3, 3), *two(f(5))),
}


half = {"pack_filters_bf16", "conv_block_bf16"}  # they end at once where the processor lacks the instructions
if not why_no_bf16_products():
    packed = torch.ops.fastdd.pack_filters_bf16(filters)
    images = f(2, 6, 6, 4).bfloat16()
    CALLS |= {
        "pack_filters_bf16": (filters,),
        "conv_block_bf16": (images, filters, packed, f(5), f(5), 1, 1e-5, "avg"),
    }


def without(argument, place):
    if isinstance(argument, torch.Tensor):
        return argument.narrow(place, 0, 0)
    return 0 if place is None else [0 if i == place else value for i, value in enumerate(argument)]


for name, arguments in CALLS.items():
    op = getattr(torch.ops.fastdd, name)
    op(*arguments)
    places, sizes = [], {}
    for i, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor):
            places += [[(i, d)] for d in range(argument.dim())]
            for d, size in enumerate(argument.shape):
                sizes.setdefault(size, []).append((i, d))
        elif isinstance(argument, list):
            places += [[(i, d)] for d in range(len(argument))]
        elif type(argument) is int:
            places.append([(i, None)])
    for case in places + list(sizes.values()):
        changed = list(arguments)
        for i, place in case:
            changed[i] = without(changed[i], place)
        print(name, case, flush=True)
        try:
            op(*changed)
        except (ValueError, TypeError, RuntimeError, IndexError):
            pass
print("all", *CALLS, *half)
"""


def test_no_size_of_zero_ends_the_process():
    script = Script(SCRIPT)
    status, last = script.end(), script.output.splitlines()[-1:]
    assert status == 0, f"{last}: {status} {script.errors[-500:]}"
    assert {*last[0].split()[1:]} == {row.op for row in implementations("cpu")} - {"knn_kde"}
