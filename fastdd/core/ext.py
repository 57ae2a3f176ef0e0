"""The compiled extension ``fastdd._C``: whether it is there, why not, and how it was built.

Importing this module loads nothing; the first question does (torch first, whose libraries the extension links to).
"""

import functools
import hashlib
import importlib
from pathlib import Path
from types import ModuleType


def source_hash(folder: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of every file in ``csrc/``, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".h", ".cpp", ".cu"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    importlib.import_module("torch")
    try:
        return importlib.import_module("fastdd._C"), ""
    except ImportError as error:
        return None, f"fastdd._C cannot be imported ({error}); FASTDD_BUILD_EXT=1 pip install . shows why"


def available() -> bool:
    """Whether the extension is loaded: its C++ and CUDA kernels are then registered with torch."""
    return _load()[0] is not None


def stale() -> bool:
    """Whether ``csrc/`` lies beside the package (an editable install) and has changed since the extension was built."""
    module = _load()[0]
    csrc = Path(__file__).resolve().parents[2] / "csrc"
    return module is not None and csrc.is_dir() and source_hash(csrc) != module.build_info()["source_hash"]


def reason() -> str:
    """Why the extension is absent, or that it is older than its sources; empty when all is well."""
    if not available():
        return _load()[1]
    return "fastdd._C is older than csrc/: install again to rebuild it" if stale() else ""


def build_info() -> dict:
    """How the extension was built; empty when it is absent.

    Keys: version, source_hash, stale, compiler, build_type, cuda (bool), cuda_archs, simd (variants built),
    simd_active, torch_target (oldest torch it runs with).
    """
    module = _load()[0]
    return {} if module is None else {**module.build_info(), "stale": stale()}


@functools.cache
def has_cuda_kernels() -> bool:
    """Whether the extension was built with its CUDA kernels (nvcc was there)."""
    module = _load()[0]
    return module is not None and bool(module.build_info()["cuda"])
