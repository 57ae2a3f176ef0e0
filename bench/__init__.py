"""``fastdd bench``: fastdd beside published code and the best plain PyTorch, in one process, gated by correctness.

A :class:`~fastdd.bench.framework.case.Case` is one computation, done by up to four backends on the same inputs:

    fastdd            ours
    torch             the best plain PyTorch: batched, vectorised, channels-last
    reference-loop    the structure of published code: Python loops over classes and groups, its augmentation
    upstream          a checkout of DatasetCondensation or FairDD (``--upstream DIR``), through its own functions

Every backend's result is held against an fp64 truth, ours with twice plain PyTorch's error as the budget; only a row
that matches gets a speed-up, and only over a baseline that does. Installed as ``fastdd.bench``.

To add a case, write a subclass of ``Case`` in a module of ``fastdd.bench.cases`` (``cases/segment_mean.py`` is the
shortest example) and name its instances in ``CASES`` of ``cases/__init__.py``. It needs a ``name``, ``inputs(seed,
device, quick)``, ``shape``, the backends ``fastdd``, ``plain`` and ``loop`` (and ``upstream``, if published code has
such a function), ``truth`` in fp64 (of a whole step: the method's oracle, :mod:`fastdd.bench.oracles`), and the least
``bytes`` and ``flops`` that the computation takes. ``memory = True`` lets ``--memory`` measure the peak memory of a
call.
"""
