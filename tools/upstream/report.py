"""What was found, as one table in Markdown and as JSON."""

import json
import statistics
from pathlib import Path
from typing import Any

_COLUMNS = {
    "code": "code base",
    "script": "script",
    "ends": "to its end (without, with)",
    "replaced": "replaced",
    "parity": "parity, `--rng legacy`",
    "gradient": "first gradient (its own, perturbed)",
    "traced": "traced",
    "double": "in double precision",
    "perturbed": "its own, perturbed",
    "seconds": "CPU s without, with",
    "ratio": "ratio",
    "parts": "of it: to the first step, further steps, after the last (without; with)",
    "further": "a further step: CPU s without, with, ratio",
    "extrapolated": "extrapolated to the published number of steps",
    "remains": "what remains",
    "exchange": "its files",
}


def write(rows: list[dict[str, Any]], about: dict[str, Any], out: Path) -> list[Path]:
    """``upstream.md`` and ``upstream.json``."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "upstream.md", out / "upstream.json"]
    paths[0].write_text(markdown(rows, about))
    paths[1].write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return paths


def done(out: Path, about: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of what an earlier command with the same settings ran, by code base and script; the load may differ."""
    try:
        stored = json.loads((out / "upstream.json").read_text())
    except (OSError, ValueError):
        return {}
    if any(stored.get(name) != value for name, value in about.items() if name != "load"):
        return {}
    return {(row["code"], row["script"]): row for row in stored["rows"] if "took" in row}


def markdown(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    head = ", ".join(f"{name} {value}" for name, value in about.items())
    lines = ["# Published code under fastdd run", "", head, ""]
    if ratios := [row["ratio"] for row in rows if "ratio" in row]:
        lines += [f"CPU seconds without over with: median {statistics.median(ratios):.2f} of {len(ratios)} scripts", ""]
    if ratios := [row["further"][2] for row in rows if isinstance(row.get("further"), list)]:
        lines += [f"of a further step: median {statistics.median(ratios):.2f} of {len(ratios)} scripts", ""]
    lines += ["| " + " | ".join(_COLUMNS.values()) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_cell(row, name) for name in _COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if name == "further" and not isinstance(value, str):
        return f"{value[0]:.3g}, {value[1]:.3g}, {value[2]:.2f}"
    if name == "extrapolated":
        return f"{value[1]:.2f} ({value[0]:,})"
    if name == "parts":
        return "; ".join(", ".join(f"{part:.1f}" for part in parts) for parts in value)
    if name == "seconds":
        return ", ".join("-" if part is None else f"{part:.1f}" for part in value)
    if name == "gradient":
        return " ".join(f"({part:.1e})" if k else f"{part:.1e}" for k, part in enumerate(value) if part is not None)
    if name == "ratio":
        return f"{value:.2f}"
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
