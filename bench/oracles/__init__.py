"""A method's loss as it is written down, one file a method: loops over classes and segments, in plain PyTorch.

What an oracle computes in float64 is the truth that tests and benchmarks hold a method to. It shares no code with the
methods: bias reaches it as data (:class:`fastdd.debias.Segments`), so that it is right for every debias mode without
knowing one by name, and its augmentation and network are arguments. It is written to be read, not to be fast.

The oracle of a method that matches real images is called as ``oracle(net, real, segments, synthetic, params)``, and
returns a scalar that can be differentiated in the synthetic images (that of ``ncfm`` with its frequencies besides);
that of ``mtt`` follows an expert instead.

To add one, write its file, and its line of :data:`ORACLES`.
"""

from collections.abc import Callable

from torch import Tensor

from fastdd.bench.oracles import datadam, dc, dm, idc, mtt, ncfm

ORACLES: dict[str, Callable[..., Tensor]] = {
    "dm": dm.loss,
    "dc": dc.loss,
    "dsa": dc.loss,
    "mtt": mtt.loss,
    "datadam": datadam.loss,
    "idc": idc.loss,
    "dream": idc.loss,
    "ncfm": ncfm.loss,
}
