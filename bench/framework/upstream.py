"""A checkout of published code (DatasetCondensation, or a fork such as FairDD), used through its own functions."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor

from fastdd.compat.hook import checkout

_NEEDED = {"utils": ("DiffAugment", "ParamDiffAug", "match_loss"), "networks": ("ConvNet",)}


@dataclass(frozen=True)
class Upstream:
    """The modules of a checkout.

    Attributes:
        folder: where it is.
        commit: its git commit; None where that can't be told.
        utils, networks: its modules.
    """

    folder: Path
    commit: str | None
    utils: ModuleType
    networks: ModuleType

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @classmethod
    def open(cls, folder: str | Path) -> "Upstream":
        """Import a checkout.

        Packages that it imports and that are missing here (torchvision, for its data sets) are replaced by empty
        stand-ins during the import; none of the functions that are measured uses them.

        Raises:
            ValueError: the folder is no such checkout.
            RuntimeError: its modules can't be imported.
        """
        folder = Path(folder).resolve()
        for module, names in _NEEDED.items():
            path = folder / f"{module}.py"
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            missing = [name for name in names if not re.search(rf"^(def|class) {name}\b", text, re.MULTILINE)]
            if missing:
                raise ValueError(
                    f"--upstream {folder} is no checkout of DatasetCondensation or FairDD: "
                    f"{module}.py with {', '.join(missing)} was not found"
                )
        try:
            utils, networks = checkout.modules(folder, [*_NEEDED])
        except RuntimeError as error:
            raise RuntimeError(f"--upstream {error}") from error
        return cls(folder, _commit(folder), utils, networks)

    def augment(self, x: Tensor, strategy: str, seed: int) -> Tensor:
        """``x`` under the Siamese augmentation of a seed."""
        return self.utils.DiffAugment(x, strategy, seed=seed, param=self.utils.ParamDiffAug())


def _commit(folder: Path) -> str | None:
    if not (folder / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or None
