"""The file that ``fastdd bench --json`` writes: its schema, and what makes a file valid.

{"schema": 3, "meta": {...}, "rows": [...]}

Older files are valid too: those of schema 1, whose rows have no ``peak_bytes``, and of 1 and 2, whose meta has no
``case_seconds``.
"""

import json
import math
import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastdd.bench.framework.case import BACKENDS
from fastdd.core import files, reading
from fastdd.core.text import shown

SCHEMA = 3


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, populate_by_name=True)


class Speedup(_Strict):
    """How many times faster than each baseline, by medians.

    null where it was not measured or either result does not match; a baseline has speed-ups over others only.
    """

    reference_loop: float | None = Field(alias="reference-loop", gt=0)
    torch: float | None = Field(gt=0)
    upstream: float | None = Field(gt=0)


class Row(_Strict):
    """One backend on one case. Times are microseconds; ``max_err`` and ``err_budget`` are relative to the fp64 truth's
    size, null where there is no finite one (the times too, where the backend failed). ``peak_bytes`` is the memory of
    one call at its highest, above the state before it (:mod:`~fastdd.bench.framework.memory`), null if not measured."""

    case: str = Field(min_length=1)
    backend: Literal[tuple(BACKENDS)]
    device: str = Field(min_length=1)
    dtype: str = Field(pattern=r"^[a-z]+[0-9]*$")
    shape: dict[str, int | list[int]]
    reps: int = Field(ge=0)
    median_us: float | None = Field(gt=0)
    q20_us: float | None = Field(gt=0)
    q80_us: float | None = Field(gt=0)
    peak_bytes: int | None = Field(default=None, ge=0)
    bytes: int = Field(ge=0)
    flops: int = Field(ge=0)
    speedup: Speedup
    match: bool
    max_err: float | None = Field(ge=0)
    err_budget: float | None = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "Row":
        times = (self.q20_us, self.median_us, self.q80_us)
        if None in times:
            if times != (None, None, None) or self.reps:
                raise ValueError("q20_us, median_us and q80_us are null together, and reps is then 0")
        elif not self.reps:
            raise ValueError("a row with times has reps of at least 1")
        elif not times[0] <= times[1] <= times[2]:
            raise ValueError(f"q20_us <= median_us <= q80_us does not hold: {times}")
        if self.match and (self.max_err is None or self.err_budget is None or self.max_err > self.err_budget):
            raise ValueError(f"match is true, but max_err {self.max_err} is not within err_budget {self.err_budget}")
        speedups = [value for value in self.speedup.model_dump().values() if value is not None]
        if speedups and not (self.match and self.median_us):
            raise ValueError("a row that does not match has no speed-up")
        return self


class Git(_Strict):
    """Of the checkout that was measured."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    dirty: bool


class Ceilings(_Strict):
    """Measured in the same run: a large copy (bytes read plus bytes written), a large matrix product by dtype."""

    copy_gbs: float = Field(gt=0)
    gemm_gflops: dict[str, float]


class UpstreamCode(_Strict):
    """The checkout that ``--upstream`` named."""

    name: str
    commit: str | None


class Failure(_Strict):
    """A backend that raised."""

    case: str
    backend: str
    error: str


class Meta(_Strict):
    """Where, when and how. ``case_seconds``: of the cases whose rows are all there, by label: what measuring them took,
    inputs, truth and checks included."""

    utc: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    git: Git | None
    fastdd: str
    torch: str
    triton: str | None
    faiss: str | None
    python: str
    cuda: str | None
    driver: str | None
    device: str = Field(min_length=1)
    compute_capability: str | None
    sm_count: int | None
    cpu: str = Field(min_length=1)
    threads: int = Field(ge=1)
    OMP_NUM_THREADS: str | None
    simd_active: str | None
    keeps_freed_memory: bool
    argv: list[str]
    quick: bool
    seed: int
    reps: int = Field(ge=1)
    budget_s: float = Field(ge=0)
    ceilings: Ceilings
    upstream: UpstreamCode | None
    errors: list[Failure]
    case_seconds: dict[str, float] = {}


class Document(_Strict):
    version: Literal[1, 2, 3] = Field(alias="schema")
    meta: Meta
    rows: list[Row]

    @model_validator(mode="after")
    def _no_later_fields(self) -> "Document":
        if self.version == 1 and any("peak_bytes" in row.model_fields_set for row in self.rows):
            raise ValueError("peak_bytes is a field of schema 2, and this is schema 1")
        if self.version < 3 and "case_seconds" in self.meta.model_fields_set:
            raise ValueError(f"case_seconds is a field of schema 3, and this is schema {self.version}")
        return self

    @model_validator(mode="after")
    def _no_duplicates(self) -> "Document":
        seen = set()
        for number, row in enumerate(self.rows):
            key = (row.case, row.backend, row.device, row.dtype, json.dumps(row.shape, sort_keys=True))
            if key in seen:
                raise ValueError(
                    f"row {number} repeats the case, backend and shape of another: {row.case} {row.backend}"
                )
            seen.add(key)
        return self


def without_nan(value: Any) -> Any:
    """``value`` with null in place of every number that is not finite."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def validate(content: Any, name: str) -> None:
    """ValueError, one line that says what is wrong where, unless ``content`` is a document; ``name`` of the file."""
    try:
        Document.model_validate(content)
    except ValidationError as error:
        problems = error.errors()
        first = problems[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        reason = first["msg"].removeprefix("Value error, ")
        value = f" (got {shown(first['input'])})" if isinstance(first["input"], str | int | float | None) else ""
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ValueError(f"{name}: {where + ': ' if where else ''}{reason}{value}{more}") from None


def read(path: str | os.PathLike) -> dict[str, Any]:
    """A valid document from a file.

    Raises:
        ValueError: it is not JSON, holds NaN or infinity, or does not follow the schema.
        OSError: it can't be read.
    """
    written = reading.text(path)
    with reading.damage_of(path, "is not JSON", ValueError):
        content = reading.parse_json(written)
    if not isinstance(content, dict) or content.get("schema") not in range(1, SCHEMA + 1):
        found = content.get("schema") if isinstance(content, dict) else None
        raise ValueError(f"{path} has schema {shown(found)}, not 1 to {SCHEMA}")
    validate(content, str(path))
    return content


def write(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write a document, whole or not at all, null where a number is not finite; ValueError if it is not valid."""
    content = without_nan(content)
    validate(content, str(path))
    files.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
