"""What cases are made of: tiny models, pictures, vectors and tables, made once per run of the suite."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import tiny_models
import tiny_videos

CPU = ("--device", "cpu")
QUICK = ("--draws", "2", *CPU)


class Kit:
    """Makes what cases need, in a folder of its own, when it is first asked for; and the numbers they are drawn by.

    Args:
        folder: An empty folder.
        seed: Of :attr:`random`.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self._results: dict[bytes, tuple[Any, ...]] = {}

    @cached_property
    def positions(self) -> Path:
        """A model of positions."""
        return tiny_models.positions(self.folder / "tiny-pos", temperature=1e-4)

    @cached_property
    def attributes(self) -> Path:
        """A model of attributes."""
        return tiny_models.attributes(self.folder / "tiny-attributes")

    @cached_property
    def pictures(self) -> Path:
        """A folder of three pictures, 0.png to 2.png."""
        return tiny_models.pictures(self.folder / "pictures")

    @cached_property
    def picture(self) -> bytes:
        """A picture of 32x32 pixels."""
        return (self.pictures / "0.png").read_bytes()

    @cached_property
    def web(self) -> str:
        """The address of a server that gives what servers give; it ends with this process."""
        script = Path(__file__).parents[1] / "web_server.py"
        self._server = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    @cached_property
    def video(self) -> bytes:
        """A video of 12 frames."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return tiny_videos.write(self.folder / "clip.mp4").read_bytes()

    @cached_property
    def pipeline(self) -> Path:
        """A text-to-image pipeline of Stable Diffusion's structure."""
        import tiny_pipelines

        return tiny_pipelines.build(self.folder / "tiny-pipeline", "sd1")

    def family(self, kind: str) -> Path:
        """A text-to-image pipeline of another family, of those of :data:`tiny_pipelines.FOLDERS`."""
        import tiny_pipelines

        from igm_cli.core.models.pipeline_files import quiet

        folder = self.folder / f"tiny-{kind}"
        with quiet():
            return folder if folder.exists() else tiny_pipelines.build(folder, kind)

    @cached_property
    def codebooks(self) -> bytes:
        """A file of two codebooks of ±1."""
        import torch
        from safetensors.torch import save

        draw = torch.Generator().manual_seed(0)
        books = {f"factor_{k}": torch.randint(0, 2, (4, 64), generator=draw).float() * 2 - 1 for k in range(2)}
        return save(books, {"binding": "map"})

    def invert(self, *words: str) -> tuple[str, ...]:
        """The words of a quick inversion of positions."""
        return ("invert", *words, "--model", str(self.positions), *QUICK)

    def results(self, picture: bytes) -> tuple[Any, ...]:
        """What :meth:`invert` finds in a picture: K, the error and the items."""
        if picture not in self._results:
            from igm_cli import api
            from igm_cli.imaging import decode_image

            found = api.load(self.positions, device="cpu").invert(decode_image(picture, "a picture"), draws=2)
            self._results[picture] = (found.k, found.denoising_error, found.items)
        return self._results[picture]
