"""What all data sets share."""

import os
from collections.abc import Callable
from typing import Any, NoReturn

from torch.utils.data import Dataset


class VisionDataset(Dataset):
    """Images below a root; ``transform`` is for images, ``target_transform`` for labels, ``transforms`` for both."""

    def __init__(
        self,
        root: str | None = None,
        transforms: Callable | None = None,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
    ):
        if transforms is not None and (transform is not None or target_transform is not None):
            raise ValueError("give transforms, or transform and target_transform, not both")
        self.root = os.path.expanduser(root) if isinstance(root, str) else root
        self.transforms, self.transform, self.target_transform = transforms, transform, target_transform

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"Dataset {type(self).__name__} of {len(self)} images below {self.root}"

    def _transformed(self, image: Any, target: Any) -> tuple[Any, Any]:
        if self.transforms is not None:
            return self.transforms(image, target)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target


def not_there(name: str, wanted: str, download: bool, error: object) -> NoReturn:
    """Say where a data set's files belong."""
    what = "torchvision is not installed, and its substitute downloads nothing" if download else "files are missing"
    raise RuntimeError(f"{name}: {what}; put {wanted} ({error})") from None
