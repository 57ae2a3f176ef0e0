"""What was found, as one table in Markdown and as JSON."""

import json
from pathlib import Path
from typing import Any

_COLUMNS = {
    "code": "code base",
    "script": "script",
    "ends": "to its end (without, with)",
    "replaced": "replaced",
    "parity": "parity, `--rng legacy`",
    "seconds": "CPU s without, with",
    "ratio": "ratio",
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


def markdown(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    head = ", ".join(f"{name} {value}" for name, value in about.items())
    lines = ["# Published code under fastdd run", "", head, ""]
    lines += ["| " + " | ".join(_COLUMNS.values()) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_cell(row, name) for name in _COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if name == "seconds":
        return ", ".join("-" if part is None else f"{part:.1f}" for part in value)
    if name == "ratio":
        return f"{value:.2f}"
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
