"""Fetches pictograms of animals by npm and draws them as PNG, in the layout that ``igm train animals`` reads.

    pip install resvg-py
    python benchmarks/fetch_pictograms.py PICTOGRAMS

Every package of ``@iconify-json`` is a set of drawings in one style, as SVG in one JSON file, with its licence beside it.
Files that are there already stay as they are, so that a style can be added to a folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

TRAINED = {
    "fluent": "fluent-emoji",
    "fluent-flat": "fluent-emoji-flat",
    "noto": "noto",
    "noto-v1": "noto-v1",
    "emojione": "emojione",
    "fxemoji": "fxemoji",
}
"""Folders and packages of the styles that animals-tiny was trained on."""
VALIDATED = {"openmoji": "openmoji", "emojione-v1": "emojione-v1"}
"""The share of the last average of weights was chosen by these."""
TESTED = {"twemoji": "twemoji"}
"""Nothing was trained on it; what it was looked at for is told in docs/checkpoints.md."""
STYLES = TRAINED | VALIDATED | TESTED

DRAWINGS = {
    "bear": ["bear"],
    "cat": ["black-cat", "cat-face", "cat", "cat-side"],
    "chicken": ["chicken"],
    "cow": ["cow-face", "cow"],
    "dog": ["dog-face", "dog", "guide-dog", "poodle", "dog-side"],
    "duck": ["duck"],
    "elephant": ["elephant"],
    "fish": ["fish", "tropical-fish"],
    "fox": ["fox", "fox-face"],
    "frog": ["frog"],
    "horse": ["horse-face", "horse"],
    "koala": ["koala"],
    "lion": ["lion"],
    "monkey": ["monkey-face", "monkey"],
    "mouse": ["mouse-face", "mouse", "mouse-side"],
    "octopus": ["octopus"],
    "owl": ["owl"],
    "panda": ["panda", "panda-face"],
    "penguin": ["penguin"],
    "pig": ["pig-face", "pig", "pig-side"],
    "rabbit": ["rabbit-face", "rabbit"],
    "snail": ["snail"],
    "tiger": ["tiger-face", "tiger", "tiger-side"],
    "turtle": ["turtle"],
    "whale": ["spouting-whale", "whale", "spurting-whale"],
}
"""Names of an animal's drawings; no style has all of them, and fxemoji writes them without hyphens."""
SIDE = 96
"""Pixels of width; scenes are 64 x 64."""


def main() -> None:
    """Writes OUT/STYLE/ANIMAL/DRAWING.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES), help="default: all")
    given = parser.parse_args()
    if shutil.which("npm") is None:
        parser.error("npm is not here; install Node.js")
    if find_spec("resvg_py") is None:
        parser.error("resvg-py is not here; pip install resvg-py")
    for style in given.styles:
        icons, licence = fetch(STYLES[style])
        folders = {given.out / style / animal: names for animal, names in DRAWINGS.items()}
        count = sum(write(icons, name, folder) for folder, names in folders.items() for name in names)
        print(f"{style}: {count} drawings, {licence}")


def fetch(package: str) -> tuple[dict, str]:
    """The icons of a package, and their licence."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"@iconify-json/{package}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            icons, info = (json.load(archive.extractfile(f"package/{name}.json")) for name in ("icons", "info"))
    return icons, info["license"]["title"]


def write(icons: dict, name: str, folder: Path) -> bool:
    """Draws one icon, unless the style lacks it."""
    path = folder / f"{name}.png"
    icon = icons["icons"].get(name) or icons["icons"].get(name.replace("-", ""))
    if icon is None:
        return False
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(icons, icon))
    return True


def draw(icons: dict, icon: dict) -> bytes:
    """An icon as PNG with transparent surroundings."""
    from resvg_py import svg_to_bytes

    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    return bytes(svg_to_bytes(svg_string=svg, width=SIDE))


if __name__ == "__main__":
    main()
