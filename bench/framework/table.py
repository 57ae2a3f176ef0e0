"""Rows as a table for people."""

from typing import TYPE_CHECKING, Any

from fastdd.bench.framework.case import BASELINES

if TYPE_CHECKING:
    from rich.table import Table

# A GPU's time below this is mostly that of launching.
_LAUNCH_BOUND_US = 20.0


def table(document: dict[str, Any]) -> "Table":
    """Median, quantiles, rate, share of the measured ceiling and speed-ups of every row."""
    from rich.table import Table

    meta, rows = document["meta"], document["rows"]
    ceilings = meta["ceilings"]
    rates = ", ".join(f"{name} product {_flops(rate)}" for name, rate in ceilings["gemm_gflops"].items())
    title = f"{meta['device']}, {meta['threads']} threads, torch {meta['torch']}; ceilings: "
    title += f"copy {ceilings['copy_gbs']:.1f} GB/s, {rates}" + (
        " (quick: no measure of speed)" if meta["quick"] else ""
    )
    result = Table(title=title, title_justify="left", box=None, header_style="")
    for name in ("case", "backend", "median", "20 to 80 %", "calls", "rate", "ceiling", "match"):
        result.add_column(name, justify="left" if name in ("case", "backend", "match") else "right", no_wrap=True)
    measured = [name for name in BASELINES if any(row["speedup"][name] for row in rows)]
    for name in measured:
        result.add_column(f"x {name}", justify="right", no_wrap=True)
    with_memory = any(row.get("peak_bytes") is not None for row in rows)
    if with_memory:
        result.add_column("peak memory", justify="right", no_wrap=True)
    before = None
    for row in rows:
        label = case_label(row, rows)
        if row["median_us"] is None:
            cells = ["-"] * 5
        else:
            rate, share = rate_and_share(row, ceilings)
            cells = [
                _time(row["median_us"]),
                f"{_time(row['q20_us'])} to {_time(row['q80_us'])}",
                str(row["reps"]),
                rate,
                "-" if share is None else f"{100 * share:.0f} %",
            ]
        verdict = "error" if row["median_us"] is None else "yes" if row["match"] else f"NO: {_error(row)}"
        if row["device"].startswith("cuda") and row["median_us"] and row["median_us"] < _LAUNCH_BOUND_US:
            verdict += ", launch-bound"
        speedups = [f"{value:.2f}" if (value := row["speedup"][name]) else "" for name in measured]
        peak = [_memory(row.get("peak_bytes"))] if with_memory else []
        result.add_row("" if label == before else label, row["backend"], *cells, verdict, *speedups, *peak)
        before = label
    return result


def case_label(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The case's name, with the dtype and sizes that tell it from others of the same name."""
    shapes = [other["shape"] for other in rows if other["case"] == row["case"]]
    varying = [name for name in row["shape"] if any(shape.get(name) != row["shape"][name] for shape in shapes)]
    dtypes = {other["dtype"] for other in rows if other["case"] == row["case"]}
    words = [row["case"], *([row["dtype"]] if len(dtypes) > 1 else [])]
    return " ".join([*words, *(f"{name}={row['shape'][name]}" for name in varying)])


def rate_and_share(row: dict[str, Any], ceilings: dict[str, Any]) -> tuple[str, float | None]:
    """GB/s or FLOP/s, whichever is nearer to its measured ceiling, and the share of it that is reached.

    Of the copy's ceiling, more than all is possible: what fits into a cache does not wait for memory.
    """
    seconds = row["median_us"] / 1e6
    gbs, gflops = row["bytes"] / seconds / 1e9, row["flops"] / seconds / 1e9
    peak = ceilings["gemm_gflops"].get(row["dtype"])
    of_copy, of_gemm = gbs / ceilings["copy_gbs"], gflops / peak if peak else 0.0
    if of_gemm > of_copy:
        return _flops(gflops), of_gemm
    return f"{gbs:.1f} GB/s", of_copy


def _time(us: float) -> str:
    return f"{us:.1f} us" if us < 1e3 else f"{us / 1e3:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def _memory(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _flops(gflops: float) -> str:
    return f"{gflops:.1f} GFLOP/s" if gflops < 1e3 else f"{gflops / 1e3:.1f} TFLOP/s"


def _error(row: dict[str, Any]) -> str:
    if row["max_err"] is None or row["err_budget"] is None:
        return "not finite"
    return f"{row['max_err']:.1e} > {row['err_budget']:.1e}"
