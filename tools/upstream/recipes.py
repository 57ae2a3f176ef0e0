"""How a published code base is run with settings small enough for a CPU: a YAML file each, under ``recipes/``."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).resolve().parent / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Files(_Strict):
    """What a script writes in a format that fastdd reads.

    Args:
        path: pattern below the script's code; the first match is taken.
        options: of :func:`fastdd.import_synthetic`; of buffers, the experts' settings.
        format: ``set`` or ``buffers`` (of experts).
    """

    path: str
    options: dict[str, Any] = {}
    format: Literal["set", "buffers"] = "set"


class Larger(_Strict):
    """Settings at which most of a run is the script's own work, and neither start nor the comparison of first calls.

    Args:
        arguments: after the script's others, which they override.
        changes: what stands in its files' texts, and what takes its place.
        images: training images a class; 0 for as many as usual.
        end: steps of the images after which the run ends; 0: at the script's own end.
    """

    arguments: str = ""
    changes: dict[str, str] = {}
    images: int = 0
    end: int = 0


class Further(_Strict):
    """What a step costs once a run is under way: the CPU time between two of its steps, by their number.

    Start, data, the first steps, which are compared with the script's own, and evaluations lie outside.

    Args:
        own: steps between which the script's own are timed; ours: on fastdd, where more steps come before.
        arguments: after those of the larger settings, which they override.
        changes: what stands in the files' texts of these settings, and what takes its place.
        images: training images a class; 0 for as many as at these settings.
        of: whose optimiser's steps are counted, that of images or that of networks.
        each: how many of them make up a step.
        published: steps of the run that the publishers describe; 0 where they don't.
    """

    own: tuple[int, int]
    ours: tuple[int, int]
    arguments: str = ""
    changes: dict[str, str] = {}
    images: int = 0
    of: Literal["images", "networks"] = "images"
    each: int = 1
    published: int = 0


class Script(_Strict):
    """A run of a script.

    Args:
        run: file, below ``folder``.
        arguments: its own; ``{data}`` stands for the folder of data in torchvision's layout.
        folder: below the checkout, in which it is started.
        module: whether ``run`` is a module, started as by ``python -m``.
        options: of ``fastdd run``.
        files: what has to be there, by path; a path that ends in / is a folder.
        environment: variables.
        takes: folders or files (patterns below the checkout) of an earlier script's results, by its name.
        results: patterns of files of ``torch.save`` that are compared.
        exchange: what is imported and written again.
        images: training images a class; 0 for the command's number.
        seconds: limit of a run; 0 for the command's.
        larger: settings for a comparison of times.
        traced: steps of the images after which runs end that show how two part; 0: whole runs.
        further: of a run at the larger settings, whose later steps are timed.
    """

    run: str
    arguments: str = ""
    folder: str = "."
    module: bool = False
    options: str = ""
    files: dict[str, str] = {}
    environment: dict[str, str] = {}
    takes: dict[str, list[str]] = {}
    results: list[str] = []
    exchange: list[Files] = []
    images: int = 0
    seconds: int = 0
    larger: Larger = Larger()
    traced: int = 0
    further: Further | None = None

    def sized(self, larger: bool) -> "Script":
        """Itself, or at its larger settings."""
        return self._with(self.larger, self.larger.images) if larger else self

    def for_further_steps(self, usual: int) -> "Script":
        """At the settings at which its later steps are timed; ``usual``: images a class where no number is given."""
        larger = self.sized(True)
        return larger._with(self.further, self.further.images or larger.images or usual)

    def _with(self, settings: Larger | Further, images: int) -> "Script":
        files = dict(self.files)
        for path, text in files.items():
            for before, after in settings.changes.items():
                text = text.replace(before, after)
            files[path] = text
        arguments = f"{self.arguments} {settings.arguments}"
        return self.model_copy(update={"arguments": arguments, "files": files, "images": images})


class Recipe(_Strict):
    """A code base.

    Args:
        name: what it is called in the table.
        source: where it is published.
        entries: paths that tell its checkout from the others'.
        lacks: paths that the others have and it hasn't.
        stand_ins: modules that it imports and does not need here, by name: their text, used where they are not
            installed.
        needs: packages that must be installed.
        why_not: of a code base that can't be run: why.
        scripts: by name, in order.
    """

    name: str
    source: str
    entries: list[str] = Field(min_length=1)
    lacks: list[str] = []
    stand_ins: dict[str, str] = {}
    needs: list[str] = []
    why_not: str = ""
    scripts: dict[str, Script] = {}

    def checkout(self, code: Path) -> Path | None:
        """Its checkout: a folder in ``code``, or that itself; None where there is none."""
        for folder in (code, *sorted(path for path in code.iterdir() if path.is_dir())):
            has = all((folder / entry).exists() for entry in self.entries)
            if has and not any((folder / entry).exists() for entry in self.lacks):
                return folder
        return None


def load(folder: Path = FOLDER) -> list[Recipe]:
    """All recipes, by their files' names.

    Raises:
        ValueError: a file that is none.
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            found.append(Recipe.model_validate(yaml.safe_load(path.read_text())))
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{path.name}: {error}") from None
    return found
