"""A column of image files in a dataset, decoded on access."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from igm_cli.imaging import open_image
from igm_cli.pixels import Scaling


class ImageColumn(datasets.Image):  # type: ignore[misc]
    """Decodes files as every command does: names a damaged one, and opens only the formats that igm lists."""

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.scaling = scaling

    def decode_example(self, value: Any, token_per_repo_id: Any = None) -> Any:
        """Returns the image of a row as RGB.

        Raises:
            InputError: If it cannot be read.
        """
        if value["path"] is None:  # made by the dataset itself
            return super().decode_example(value, token_per_repo_id)
        return open_image(Path(value["path"]), self.scaling)
