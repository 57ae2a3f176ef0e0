"""What scripts that merely log use of wandb, keeping nothing: ``fastdd run --wandb-stand-in`` where it is missing."""

from collections.abc import Mapping
from typing import Any

# What such scripts use; anything else, such as reading runs back, needs wandb.
LOGS = frozenset(
    (
        *("init", "log", "finish", "config", "run", "summary", "watch", "save", "login", "define_metric", "alert"),
        *("Image", "Video", "Histogram", "Settings"),
    )
)


class _Config(dict):
    """Settings, as attributes too."""

    @property
    def _items(self) -> dict[str, Any]:
        """MTT's scripts read their settings back from here."""
        return dict(self)

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def update(self, settings: Any = None, **others: Any) -> None:
        given = settings if isinstance(settings, Mapping) else vars(settings) if settings is not None else {}
        super().update(given, **others)


def _nothing(*_: Any, **__: Any) -> None:
    """Log nothing."""


class _Run:
    """A run without a server."""

    def __init__(self) -> None:
        self.name, self.id, self.project, self.dir = "stand-in", "stand-in", "", "."
        self.config, self.summary = config, summary

    log = finish = watch = save = define_metric = alert = staticmethod(_nothing)

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


class _Media:
    """A picture or the like, not kept."""

    def __init__(self, *_: Any, **__: Any):
        """Keep nothing."""


Image = Video = Histogram = Settings = _Media
config, summary = _Config(), _Config()
run = _Run()
log = finish = watch = save = login = define_metric = alert = _nothing


def init(*_: Any, config: Any = None, **__: Any) -> _Run:
    """The run; ``config`` is kept in its settings."""
    run.config.update(config)
    return run
