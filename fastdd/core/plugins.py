"""Users' own parts: files that register them, whose file a name is of, and how a run finds its parts again.

A plugin is a Python file, or an entry point of the group ``fastdd.plugins``, that registers networks, methods, modes or
data sets. What a run uses of it is written beside the run as the file's path and SHA-256. Such a record makes no file
run that its reader has not named before: a file is loaded again only if it has the digest that is recorded, and a file
of that digest was named on this account (:func:`load`); else whoever needs the name is told what to give.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Files, joined as those of PATH are.
ENVIRONMENT = "FASTDD_PLUGINS"
GROUP = "fastdd.plugins"
NETWORK, METHOD, MODE, DATASET = "network", "method", "mode", "data set"
# The settings that name a part, and which kind of part.
_SETTINGS = {"method": METHOD, "debias": MODE, "arch": NETWORK, "dataset": DATASET}
# Where the digests of files that were named are kept, below the account's folder of states.
_NAMED_BEFORE = "fastdd/plugins"
# Of a file of Python, in bytes.
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Source:
    """Where a part is from.

    Attributes:
        path: the file; of an entry point what it names.
        digest: SHA-256 of the file; of an entry point the version of its package.
        kind: ``plugin``, ``installed``, or ``script``, which registered it itself.
    """

    path: str
    digest: str
    kind: str


_claims: dict[tuple[str, str], tuple[Source, Callable[[], object]]] = {}
_loaded: dict[str, Source] = {}
_loading: list[Source] = []
_recorded: dict[str, Mapping[str, Any]] = {}
_named_loaded = False


def check_name(kind: str, name: object, known: Collection[str], part: object) -> None:
    """ValueError unless ``name`` is a word that ``part`` can be registered by; what a user registered is replaced where
    the same file, or a script or notebook, registers it again."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"the name of a {kind} is a word of letters, digits, - and _, not {name!r}")
    taken = next((other for other in known if other.lower() == name.lower()), None)
    if taken is None:
        return
    claim_of = _claims.get((kind, taken))
    if claim_of is None:
        raise ValueError(f"fastdd has a {kind} {taken!r}: give yours another name")
    here, there = _source_of(part), claim_of[0]
    if taken != name or (here.path != there.path and (here.kind, there.kind) != ("script", "script")):
        raise ValueError(f"{there.path} has registered a {kind} {taken!r}: give yours another name")


def claim(kind: str, name: str, part: object, remove: Callable[[], object]) -> None:
    """Keep where a part is from; ``remove`` takes it out of its registry."""
    _claims[kind, name] = _source_of(part), remove


def _source_of(part: object) -> Source:
    if _loading:
        return _loading[-1]
    import inspect  # this module is imported for help and version too

    try:
        path = inspect.getsourcefile(part if inspect.isroutine(part) or inspect.isclass(part) else type(part))
        return Source(str(Path(path).resolve()), hashlib.sha256(Path(path).read_bytes()).hexdigest(), "script")
    except (TypeError, OSError):  # typed into an interpreter
        return Source("this process", "", "script")


def source(kind: str, name: str) -> Source | None:
    """Where a part is from; None for one of fastdd's."""
    found = _claims.get((kind, name))
    return None if found is None else found[0]


def registered() -> dict[Source, list[str]]:
    """All that users have registered here: of every source the kinds and names."""
    found: dict[Source, list[str]] = {}
    for (kind, name), (origin, _) in _claims.items():
        found.setdefault(origin, []).append(f"{kind} {name}")
    return found


def load(path: str | os.PathLike) -> None:
    """Run a Python file that registers networks, methods, modes or data sets; once, unless it has changed.

    Modules beside it can be imported while it runs. Its digest is kept for this account, so that runs which record it
    load it again by themselves.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it fails, in one line with its line; what it had registered by then is taken back.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise FileNotFoundError(f"there is no plugin {path}: give a Python file that registers your own parts")
    code = file.read_bytes()
    here = Source(str(file), hashlib.sha256(code).hexdigest(), "plugin")
    if any(other.digest == here.digest for other in (*_loaded.values(), *_loading)):
        return
    _forget(lambda origin: origin.path == here.path)
    _run(file, code, here)
    _loaded[here.path] = here
    if here not in registered():
        warnings.warn(f"the plugin {path} registers nothing", RuntimeWarning, stacklevel=2)
    _keep_named(here.digest)


def _run(file: Path, code: bytes, here: Source) -> None:
    name = f"fastdd_plugin_{here.digest[:16]}"  # the same in every process, for pickle
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise ValueError(f"the plugin {file} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(file.parent))
    _loading.append(here)
    try:
        exec(compile(code, str(file), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        _forget(lambda origin: origin == here)
        del sys.modules[name]
        raise ValueError(f"the plugin {file}{_line_of(error, file)}: {_reason(error)}") from error
    finally:
        _loading.pop()
        with contextlib.suppress(ValueError):
            sys.path.remove(str(file.parent))


def _line_of(error: BaseException, file: Path) -> str:
    import traceback

    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""


def _reason(error: BaseException) -> str:
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return text if type(error) in (ValueError, TypeError) and text else f"{type(error).__name__}: {text}"


def _forget(chosen: Callable[[Source], bool]) -> None:
    for key, (origin, remove) in list(_claims.items()):
        if chosen(origin):
            remove()
            del _claims[key]


def load_named() -> None:
    """Load what ``FASTDD_PLUGINS`` and the entry points of installed packages name; once in a process.

    Warns:
        RuntimeWarning: an installed one that fails; all else goes on without it.

    Raises:
        FileNotFoundError, ValueError: as :func:`load`, of the files.
    """
    global _named_loaded
    if _named_loaded:
        return
    _named_loaded = True
    try:
        for path in filter(None, os.environ.get(ENVIRONMENT, "").split(os.pathsep)):
            load(path)
    except (ValueError, OSError):
        _named_loaded = False
        raise
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        _load_installed(point)


def _load_installed(point: "EntryPoint") -> None:
    here = Source(point.value, point.dist.version if point.dist is not None else "", "installed")
    _loading.append(here)
    try:
        found = point.load()
        if callable(found):
            found()
    except Exception as error:
        _forget(lambda origin: origin == here)
        told = f"the installed plugin {point.name} ({point.value}) is left out: {_reason(error)}"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
    finally:
        _loading.pop()


def for_workers() -> dict[str, str]:
    """Variables of the environment with which another process of this package has the same plugins."""
    return {ENVIRONMENT: os.pathsep.join(_loaded)}


def only_here(kind: str, name: str) -> bool:
    """Whether another process can't have a part, as a script has registered it itself."""
    origin = source(kind, name)
    return origin is not None and origin.kind == "script"


def digests() -> list[str]:
    """Of all files that are loaded, in order: what ranks compare."""
    return sorted(origin.digest for origin in _loaded.values())


def used(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Records of the users' parts that settings name (``method``, ``debias``, ``arch``, ``dataset``): JSON-able."""
    records: dict[Source, list[str]] = {}
    for setting, kind in _SETTINGS.items():
        origin = source(kind, str(settings.get(setting)))
        if origin is not None:
            records.setdefault(origin, []).append(f"{kind} {settings[setting]}")
    return [{"path": o.path, "digest": o.digest, "kind": o.kind, "names": names} for o, names in records.items()]


def check_same(where: object, recorded: object, settings: Mapping[str, Any]) -> None:
    """ValueError unless the users' parts that a run began with are the same files' as those that are here."""
    now = {name: record for record in used(settings) for name in record["names"]}
    for record in _records(recorded):
        for name in record["names"]:
            here = now.get(name)
            if here is not None and here["digest"] != record["digest"]:
                raise ValueError(
                    f"{where} was begun with another version of {name}: {record['path']} was "
                    f"{record['digest'][:12]}, {here['path']} is {here['digest'][:12]}; go on with that, or begin anew"
                )


def recall(recorded: object) -> None:
    """Load what a run's records (:func:`used`) name, as far as this account has named the same files before.

    Of the others :func:`cure` tells, once a name of theirs is looked for.
    """
    for record in _records(recorded):
        missing = [name for name in record["names"] if tuple(_split(name)) not in _claims]
        if not missing:
            continue
        if _can_recall(record):
            load(record["path"])
        else:
            _recorded.update(dict.fromkeys(missing, record))


def _records(recorded: object) -> Iterator[Mapping[str, Any]]:
    """Those of a file's records that are some: files are not trusted."""
    for record in recorded if isinstance(recorded, list) else ():
        if isinstance(record, dict) and all(isinstance(record.get(key), str) for key in ("path", "digest", "kind")):
            names = record.get("names")
            if isinstance(names, list) and all(isinstance(name, str) and " " in name for name in names):
                yield record


def _split(name: str) -> list[str]:
    return name.rsplit(" ", 1)


def _can_recall(record: Mapping[str, Any]) -> bool:
    return record["kind"] == "plugin" and _digest_at(record["path"]) == record["digest"] in _named_before()


def _digest_at(path: str) -> str | None:
    """Of a file that a record names, which may be anything: a device, a pipe, an archive."""
    try:
        file = Path(path)
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return None
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


def cure(kind: str, name: object) -> str:
    """What to add to the message that there is no ``name``, where a run says whose it is; else nothing."""
    record = _recorded.get(f"{kind} {name}")
    if record is None:
        return ""
    path = record["path"]
    if record["kind"] == "installed":
        return f"; a package has registered it ({path}, version {record['digest']}): install that"
    if record["kind"] == "script":
        return f"; a script has registered it ({path}): put that into a file of its own, and give --plugin FILE"
    digest = _digest_at(path)
    if digest is None:
        return f"; it is of the plugin {path}, which is gone: give --plugin FILE with where it is now"
    changed = ", which has changed since" if digest != record["digest"] else ""
    return f"; it is of the plugin {path}{changed}: give --plugin {path}"


def _named_file() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / _NAMED_BEFORE


def _named_before() -> set[str]:
    try:
        return set(_named_file().read_text(encoding="ascii").split())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: an account without a home
        return set()


def _keep_named(digest: str) -> None:
    """Without a place to write, runs do not load it by themselves, and say so."""
    if digest in _named_before():
        return
    with contextlib.suppress(OSError, RuntimeError):
        file = _named_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="ascii") as lines:
            lines.write(f"{digest}\n")
