"""Packages, and the compiled extension ``fastdd._C`` (C++ and, where nvcc is found, CUDA), built with ninja.

Environment:
    FASTDD_BUILD_EXT      auto (default): without a compiler or torch, warn and install pure Python; 0: never; 1: must
    succeed.
    FASTDD_CUDA           auto (default): CUDA kernels when nvcc is found, even against CPU torch; 0: never; 1: must
    succeed.
    TORCH_CUDA_ARCH_LIST  such as "8.0;9.0+PTX"; default 9.0+PTX.
    MAX_JOBS              parallel compilations.
    DEBUG=1               no optimisation, debug symbols.
    FASTDD_SANITIZE=1     C++ kernels under AddressSanitizer and UBSan, in a build folder of their own (make sanitize).
"""

import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import warnings
from importlib.machinery import PathFinder
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VERSION = runpy.run_path(str(ROOT / "fastdd" / "core" / "version.py"))["__version__"]
SOURCE_HASH = runpy.run_path(str(ROOT / "fastdd" / "core" / "ext.py"))["source_hash"](ROOT / "csrc")
OLDEST_TORCH = (2, 10)
X86 = platform.machine().lower() in ("x86_64", "amd64", "i686")


class BuildError(Exception):
    """Why the extension can't be built: one line."""


def switch(name: str) -> str:
    value = os.environ.get(name, "auto")
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{name}={value!r} is not auto, 0 or 1")
    return value


def sanitized() -> bool:
    return os.environ.get("FASTDD_SANITIZE", "0") not in ("", "0")


def find_torch() -> Path:
    """Folder of the installed torch, without importing it.

    An isolated build hides site-packages from sys.path, but the interpreter is the same, so its own folders still name
    it.
    """
    paths = sysconfig.get_paths()
    for path in (None, [paths["purelib"], paths["platlib"]]):
        spec = PathFinder.find_spec("torch", path)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            break
    else:
        raise BuildError("torch is not installed in this environment (install it first, or use --no-build-isolation)")
    found = re.search(r"__version__ = '(\d+)\.(\d+)", (folder / "version.py").read_text())
    version = tuple(map(int, found.groups())) if found else (0, 0)
    if version < OLDEST_TORCH:
        raise BuildError(f"torch {version[0]}.{version[1]} is too old: the stable ABI in use starts with torch 2.10")
    return folder


def find_ninja() -> str:
    program = shutil.which("ninja")
    if program is None:
        try:
            import ninja
        except ImportError:
            raise BuildError("ninja is not installed (pip install ninja)") from None
        program = str(Path(ninja.BIN_DIR) / "ninja")
    return program


def find_nvcc() -> tuple[str, Path]:
    """nvcc and the root of its toolkit; nvcc on PATH may be a wrapper, so it is asked where it lives."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    program = str(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc")
    if program is None or shutil.which(program) is None:
        raise BuildError(f"nvcc was not found ({'CUDA_HOME=' + home if home else 'not on PATH'})")
    dry = subprocess.run([program, "--dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.*)$", dry.stderr, re.MULTILINE)
    if top is None:
        raise BuildError(f"{program} --dryrun does not say where its toolkit is")
    return program, Path(top.group(1)).resolve()


def cuda_archs() -> list[str]:
    listed = re.split(r"[;,\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "9.0+PTX").strip())
    for arch in listed:
        if not re.fullmatch(r"\d+\.\d[a-z]?(\+PTX)?", arch):
            raise SystemExit(f"TORCH_CUDA_ARCH_LIST: {arch!r} is not like 9.0 or 9.0+PTX")
    return listed


def gencode(archs: list[str]) -> list[str]:
    flags = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if arch.endswith("+PTX"):
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags


def escape(path: object) -> str:
    return str(path).replace("$", "$$").replace(":", "$:").replace(" ", "$ ")


def command(*words: object) -> str:
    return " ".join(shlex.quote(str(word)) for word in words).replace("$", "$$")


class BuildExtension(build_ext):
    def run(self) -> None:
        try:
            super().run()
        except BuildError as error:
            if "1" in (switch("FASTDD_BUILD_EXT"), switch("FASTDD_CUDA")):
                raise SystemExit(f"fastdd._C: {error}") from None
            warnings.warn(
                f"fastdd is installed without its compiled extension ({error}); it works, slower. "
                "FASTDD_BUILD_EXT=1 makes this an error, FASTDD_BUILD_EXT=0 skips the attempt.",
                stacklevel=2,
            )
            # Nothing was built, so nothing is to be copied beside the sources or recorded as installed.
            self.extensions = []

    def build_extension(self, extension: Extension) -> None:
        cuda = switch("FASTDD_CUDA")
        try:
            self.compile(extension, with_cuda=cuda != "0")
        except BuildError as error:
            if cuda != "auto":
                raise
            print(f"fastdd._C: building without CUDA kernels ({error})", file=sys.stderr)
            self.compile(extension, with_cuda=False)

    def compile(self, extension: Extension, with_cuda: bool) -> None:
        try:
            import pybind11
        except ImportError:
            raise BuildError("pybind11 is not installed (pip install pybind11)") from None
        torch = find_torch()
        ninja = find_ninja()
        compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
        if compiler is None or shutil.which(shlex.split(compiler)[0]) is None:
            raise BuildError(f"no C++ compiler was found ({compiler or 'c++, g++, clang++'})")
        nvcc, toolkit = find_nvcc() if with_cuda else ("", Path())

        debug = os.environ.get("DEBUG", "0") not in ("", "0")
        optimise = ["-O0", "-g"] if debug else ["-O3", "-DNDEBUG"]
        # An address or a number that is wrong ends the process, so that no test can pass over it.
        sanitizers = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize=vptr", "-fno-sanitize-recover"]
        if sanitized():
            optimise = ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizers]
        common = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", *optimise]
        torch_flags = [
            *common,
            "-isystem",
            torch / "include",
            "-DTORCH_TARGET_VERSION=0x020a000000000000",
            *(["-DFASTDD_WITH_CUDA"] if with_cuda else []),
            *(["-DFASTDD_X86"] if X86 else []),
        ]
        # The two -fno let the compiler vectorise min, max and conversions; they change no result (no traps are set).
        kernel_flags = [*common, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
        # Vectors wider than the variant's registers are passed between inlined functions only: no ABI to keep.
        kernel_flags += ["-Wno-psabi"]
        variants = {"baseline": []}
        if X86:
            variants["avx2"] = ["-mavx2", "-mfma"]
            variants["avx512"] = [*variants["avx2"], "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
            variants["avx512"] += ["-mprefer-vector-width=512"]

        # Not build_temp, which an editable install throws away: here, ninja compiles again only what has changed.
        kind = "sanitize" if sanitized() else "ext"
        build = ROOT / "build" / f"{kind}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
        build.mkdir(parents=True, exist_ok=True)
        csrc = ROOT / "csrc"
        lines = ["ninja_required_version = 1.5"]
        lines += [
            "rule cxx",
            "  command = $compile -MMD -MF $out.d -c $in -o $out",
            "  deps = gcc",
            "  depfile = $out.d",
        ]
        lines += ["rule link", "  command = $link"]
        objects = []

        def add(source: Path, name: str, compile_with: list) -> None:
            objects.append(build / name)
            lines.append(f"build {escape(build / name)}: cxx {escape(source)}")
            lines.append(f"  compile = {command(*compile_with)}")

        cxx = shlex.split(compiler)
        for kernels in sorted(csrc.glob("*_cpu.cpp")):
            name = kernels.stem.removesuffix("_cpu")
            add(csrc / f"{name}.cpp", f"{name}.o", [*cxx, *torch_flags])
            for variant, flags in variants.items():
                add(kernels, f"{name}_{variant}.o", [*cxx, *kernel_flags, *flags, f"-DFASTDD_VARIANT={variant}"])
        if X86:
            # What has no other build, and runs where the processor has the instructions.
            flags = [*variants["avx512"], "-mavx512bf16"]
            for kernels in sorted(csrc.glob("*_avx512bf16.cpp")):
                add(kernels, f"{kernels.stem}.o", [*cxx, *kernel_flags, *flags])
            variants["avx512bf16"] = flags
        archs = cuda_archs() if with_cuda else []
        module_flags = [
            *common,
            "-O1",
            "-isystem",
            pybind11.get_include(),
            "-isystem",
            sysconfig.get_paths()["include"],
        ]
        module_flags += [f'-DFASTDD_{key}="{value}"' for key, value in self.facts(archs, list(variants), debug).items()]
        add(csrc / "module.cpp", "module.o", [*cxx, *module_flags])
        libraries = ["-L", torch / "lib", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
        if sys.platform == "darwin":
            libraries = ["-undefined", "dynamic_lookup", "-L", torch / "lib", "-ltorch", "-ltorch_cpu", "-lc10"]
        if with_cuda:
            hosts = ["-ccbin", cxx[0], "-Xcompiler", "-fPIC,-fvisibility=hidden"]
            device_code = ["-std=c++20", *(["-O0", "-g"] if debug else ["-O3"]), "-Xptxas", "-v", *gencode(archs)]
            for source in sorted(csrc.glob("*.cu")):
                add(source, f"{source.stem}_cuda.o", [nvcc, *device_code, *hosts])
            library_folders = [toolkit / folder for folder in ("lib64", "lib", "targets/x86_64-linux/lib")]
            folder = next((f for f in library_folders if (f / "libcudart_static.a").is_file()), None)
            if folder is None:
                raise BuildError(f"libcudart_static.a was not found under {toolkit}")
            libraries += ["-L", folder, "-lcudart_static", "-ldl", "-lrt", "-lpthread"]

        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        shared = ["-bundle"] if sys.platform == "darwin" else ["-shared"]
        shared += sanitizers if sanitized() else []
        link = command(*cxx, *shared, *objects, *libraries, "-o", target)
        lines.append(f"build {escape(target)}: link {' '.join(map(escape, objects))}")
        lines.append(f"  link = {link}")
        (build / "build.ninja").write_text("\n".join(lines) + "\n")
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        verbose = ["-v"] if self.verbose and debug else []
        done = subprocess.run([ninja, "-C", str(build), *jobs, *verbose])
        if done.returncode:
            raise BuildError(f"{'C++ or CUDA' if with_cuda else 'C++'} compilation failed, see the messages above")

    @staticmethod
    def facts(archs: list[str], variants: list[str], debug: bool) -> dict[str, str]:
        return {
            "VERSION": VERSION,
            "SOURCE_HASH": SOURCE_HASH,
            "CUDA_ARCHS": ";".join(archs),
            "SIMD": ";".join(variants),
            "BUILD_TYPE": "sanitized" if sanitized() else "debug" if debug else "release",
        }


def packages() -> tuple[list[str], dict[str, str]]:
    """fastdd, and the top-level folders kernels/ and bench/ as fastdd.kernels and fastdd.bench."""
    names = find_packages(str(ROOT), include=["fastdd", "fastdd.*"])
    for folder in ("kernels", "bench"):
        names += [f"fastdd.{name}" for name in find_packages(str(ROOT), include=[folder, f"{folder}.*"])]
    return names, {"fastdd": "fastdd", "fastdd.kernels": "kernels", "fastdd.bench": "bench"}


for name in ("FASTDD_BUILD_EXT", "FASTDD_CUDA"):
    switch(name)
cuda_archs()
names, folders = packages()
setup(
    packages=names,
    package_dir=folders,
    package_data={
        name: ["*.yaml", "*.json", "*/*.yaml", "*/*.json", "*.j2", "*.css", "*.js", "py.typed"] for name in names
    },
    ext_modules=[] if switch("FASTDD_BUILD_EXT") == "0" else [Extension("fastdd._C", sources=[])],
    cmdclass={"build_ext": BuildExtension},
)
