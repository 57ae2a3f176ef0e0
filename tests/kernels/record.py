"""Writes compiled_sm_90.json, what every Triton kernel uses on sm_90, and compiles what was not in it."""

import json

import triton
from aot import COMMITTED, answer, digest, jobs


def main() -> None:
    scripts = sorted(path.name for path in COMMITTED.parent.glob("compile_*.py"))
    answers = {digest(job): answer(job) for script in scripts for job in jobs(script)}
    ordered = sorted(answers, key=lambda key: (answers[key]["kernel"], answers[key]["config"], key))
    lines = [f"{json.dumps(key)}: {json.dumps(answers[key])}" for key in ordered]
    head = f'{{"triton": "{triton.__version__}", "kernels": {{\n'
    COMMITTED.write_text(head + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main()
