"""A process that times the cases of one tree, as another asks it to (:mod:`fastdd.bench.framework.base`).

It is run by its path, with the other tree first on Python's path, so that it imports only what older commits have too.
A line of JSON on standard input is a request, and a line on standard output its answer:

    {"from": true}                                      where its fastdd is: {"from": FILE}
    {"open": "segment_mean segments=10", "to": FILE}    inputs, check and results (to a file): {"error", "budget", ...}
    {"time": true}                                      one call: {"us": ...}
"""

import json
import sys
from functools import partial

import torch


def main(device: str, seed: int, threads: int, quick: bool, keep_memory: bool) -> None:
    """Answer until standard input ends."""
    import fastdd
    from fastdd.bench import cases
    from fastdd.bench.framework import machine
    from fastdd.bench.framework.timing import Stopwatch

    if keep_memory:
        from fastdd.core.malloc import keep_freed_memory

        keep_freed_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # what a case prints is no answer
    torch.set_num_threads(threads)
    target = torch.device(device)
    known = {case.label: case for case in cases.CASES}
    stopwatch, case, inputs = Stopwatch(target), None, None
    with machine.conditions(target, seed):
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                if "from" in asked:
                    answer = {"from": fastdd.__file__}
                elif "open" in asked:
                    case = inputs = None  # two cases' inputs may not fit
                    if asked["open"] not in known:
                        raise LookupError("no such case")
                    case = known[asked["open"]]
                    inputs = case.inputs(seed, target, quick)
                    answer = _checked(case, inputs, asked["to"])
                else:
                    answer = {"us": stopwatch(partial(case.call, "fastdd", inputs, None))}
            except Exception as error:
                answer = {"raised": " ".join(f"{type(error).__name__}: {error}".split())}
            print(json.dumps(answer), file=answers, flush=True)


def _checked(case, inputs, path: str) -> dict:
    """The error that comes nearest to its budget, or exceeds it most, as ``fastdd bench`` has it; shapes as well."""
    from fastdd.bench.framework.case import ALLOWED

    truth = case.truth(inputs)
    plain, errors = (case.check(backend, inputs, None, truth) for backend in ("torch", "fastdd"))
    floors = case.floors(len(plain))
    budgets = [ALLOWED["fastdd"] * error + floor for error, floor in zip(plain, floors, strict=True)]
    error, budget = max(zip(errors, budgets, strict=True), key=lambda pair: pair[0] / pair[1])
    results = case.call("fastdd", inputs, None)
    results = results if isinstance(results, tuple) else (results,)
    kept = [result.detach().cpu() for result in results if isinstance(result, torch.Tensor)]
    torch.save(kept, path)
    return {"error": error, "budget": budget, "shape": case.shape(inputs)}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
