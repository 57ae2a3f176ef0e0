"""Distillation methods, one file each: a method is a subclass of :class:`Method` and a line of :data:`METHODS`."""

from collections.abc import Mapping
from typing import Any

from fastdd import presets
from fastdd.core import plugins
from fastdd.core import settings as _settings
from fastdd.core.text import listed, one_of
from fastdd.methods.base import Context, Method, Part, Settings
from fastdd.methods.datadam import DataDam
from fastdd.methods.dc import Dc
from fastdd.methods.decoupled import Decoupled, DecoupledSettings, Teacher
from fastdd.methods.dm import Dm
from fastdd.methods.dream import Dream
from fastdd.methods.dsa import Dsa
from fastdd.methods.idc import Idc
from fastdd.methods.mtt import Mtt
from fastdd.methods.ncfm import Ncfm
from fastdd.methods.rded import Rded
from fastdd.methods.sre2l import Sre2l
from fastdd.methods.trial import check_kind, check_steps

METHODS: dict[str, type[Method] | type[Decoupled]] = {
    "dm": Dm,
    "dc": Dc,
    "dsa": Dsa,
    "mtt": Mtt,
    "datadam": DataDam,
    "idc": Idc,
    "dream": Dream,
    "ncfm": Ncfm,
    "rded": Rded,
    "sre2l": Sre2l,
}


def method(name: str) -> type[Any]:
    """A method by its name; ValueError names the known ones."""
    if name not in METHODS:
        cure = plugins.cure(plugins.METHOD, name) or f"; {one_of(name, METHODS)}"
        raise ValueError(f"unknown method {name!r}{cure}")
    return METHODS[name]


def register(name: str, kind: type[Method], settings: Mapping[str, Any] | None = None) -> None:
    """Add a user's method (:func:`fastdd.register_method`); it is tried before each of its runs."""
    plugins.check_name(plugins.METHOD, name, METHODS, kind)
    check_kind(name, kind)
    ancestor = next((known for each in kind.__mro__ for known, other in METHODS.items() if each is other), None)
    shipped = None if ancestor is None else METHODS[ancestor].presets or ancestor
    presets.register(name, shipped, settings or {})
    METHODS[name] = kind

    def remove() -> None:
        METHODS.pop(name, None)
        presets.remove(name)

    try:
        configure(dataset="", method=name)
    except ValueError as error:
        remove()
        raise ValueError(f"method {name}: {error}; settings={{...}} are those that it begins with") from None
    plugins.claim(plugins.METHOD, name, kind, remove)


def methods_with_steps() -> list[str]:
    """Those that have steps on the images of all classes; the others make them class by class."""
    return [name for name, each in METHODS.items() if not each.by_class]


def methods_that_need_experts() -> list[str]:
    """Their names."""
    return [name for name, each in METHODS.items() if each.needs_experts]


def preset(
    name: str, dataset: str, ipc: int, debias: str = "none", arch: str | None = None, named: str = "published"
) -> dict[str, Any]:
    """The shipped settings of a method (:func:`fastdd.presets.preset`)."""
    own = name if presets.is_registered(name) else method(name).presets
    return presets.preset(own or name, dataset, ipc, debias, arch, named=named)


def configure(*, dataset: str, method: str = "dm", ipc: int = 10, **settings: Any) -> Settings:
    """Settings of a run: those of the presets for (method, data set, IPC), with ``settings`` over them.

    Settings that are None count as not given.

    Raises:
        ValueError: one line that names the setting, its value and what is allowed.

    >>> configure(dataset="cifar10", ipc=100).lr_img
    10.0
    """
    kind = METHODS[method].Settings if method in METHODS else _unknown(method)
    if ipc < 1:
        raise ValueError(f"IPC must be at least 1, not {ipc}")
    chosen = _settings.given(settings)
    shipped = preset(
        method, dataset, ipc, chosen.get("debias", "none"), chosen.get("arch"), chosen.get("preset", "published")
    )
    return parse({**kind.usual(ipc), **shipped, **chosen, "method": method, "dataset": dataset, "ipc": ipc})


def parse(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values, such as those of a run's ``config.yaml``; ValueError in one line if they are none."""
    chosen = _settings.given(values)
    name = chosen.get("method", "dm")
    kind = method(name).Settings
    for key in chosen.keys() - kind.model_fields.keys():
        owners = [other for other, each in METHODS.items() if key in each.Settings.model_fields]
        if owners:
            raise ValueError(f"{key} is a setting of {listed(owners)}, not of {name}")
    return _settings.parse(kind, chosen)


def stored(values: Mapping[str, Any]) -> Settings:
    """:func:`parse` of what an earlier version wrote: with settings that the method has not, at their defaults."""
    kind = method(values.get("method", "dm")).Settings
    left_out = set()
    for key in values.keys() - kind.model_fields.keys():
        fields = [each.Settings.model_fields[key] for each in METHODS.values() if key in each.Settings.model_fields]
        if any(field.default == values[key] for field in fields):
            left_out.add(key)
    return parse({key: value for key, value in values.items() if key not in left_out})


def _unknown(name: str) -> type[Settings]:
    return method(name).Settings


__all__ = [
    "METHODS",
    "Context",
    "Decoupled",
    "DecoupledSettings",
    "Method",
    "Part",
    "Settings",
    "Teacher",
    "check_steps",
    "configure",
    "method",
    "methods_that_need_experts",
    "methods_with_steps",
    "parse",
    "preset",
    "register",
    "stored",
]
