"""The record track: a fixed target, and the seconds from a cold start until it is reached.

    python -m fastdd.bench.records targets
    python -m fastdd.bench.records run c-digits-90 --name fast --set preset=fast --seeds 5
    python -m fastdd.bench.records table

A record is a folder here, ``DATE-TARGET-NAME``: ``record.json`` (settings, seeds, seconds, figures, machine, commit)
and ``log.txt``. Every seed is a process of its own, and two times are taken of it, each on the wall and of the
processor:

- **distillation**: the loop of the run, from before its first step until the set is in memory;
- **everything**: from before the process starts until it has ended: Python, imports, data, networks, first images,
  distillation, and the set on the disk.

Neither has the evaluation, whose seconds stand beside them: it is the check, and not what is raced. On one thread the
processor's seconds are the wall's of a machine that does nothing else, and they are what rows are compared by; on a GPU
the wall's are.

A target is met where a one-sided t-test over seeds says so at p < 0.01, of every figure that it asks for. Settings are
chosen on held-out training images; the test images are looked at once, by the record.
"""
