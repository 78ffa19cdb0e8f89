"""Fetches pictograms of animals by npm and draws them as PNG, in the layout that ``igm train animals`` reads.

    pip install resvg-py
    python benchmarks/fetch_pictograms.py PICTOGRAMS

Every package of ``@iconify-json`` is a set of drawings in one style, as SVG in one JSON file, with its licence beside it.
Existing files stay as they are, so that a style can be added to a folder.
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

from igm_cli.core.files import parse_toml

TRAINED = {
    "fluent": "fluent-emoji",
    "fluent-flat": "fluent-emoji-flat",
    "fluent-high-contrast": "fluent-emoji-high-contrast",
    "noto": "noto",
    "noto-v1": "noto-v1",
    "emojione": "emojione",
    "emojione-monotone": "emojione-monotone",
    "fxemoji": "fxemoji",
    "twemoji": "twemoji",
    "streamline": "streamline-emojis",
}
"""Folders and packages of animals-tiny's training styles."""
KEPT = {"openmoji": "openmoji", "emojione-v1": "emojione-v1"}
"""No model is trained on these, because their licence, CC BY-SA, may extend to works made from them."""
GLYPHS = "glyphs"
"""The style of glyphs from the many icon sets that glyphs.toml lists."""
STYLES = TRAINED | KEPT

DRAWINGS = {
    "bear": ["bear", "bear-face"],
    "cat": ["black-cat", "cat-face", "cat", "cat-side"],
    "chicken": ["chicken"],
    "cow": ["cow-face", "cow"],
    "dog": ["dog-face", "dog", "guide-dog", "poodle", "dog-side"],
    "duck": ["duck"],
    "elephant": ["elephant"],
    "fish": ["fish", "tropical-fish"],
    "fox": ["fox", "fox-face", "fox-face-1", "fox-face-2"],
    "frog": ["frog", "frog-face"],
    "horse": ["horse-face", "horse"],
    "koala": ["koala"],
    "lion": ["lion", "lion-face"],
    "monkey": ["monkey-face", "monkey"],
    "mouse": ["mouse-face", "mouse", "mouse-side"],
    "octopus": ["octopus"],
    "owl": ["owl"],
    "panda": ["panda", "panda-face"],
    "penguin": ["penguin", "penguin-1", "penguin-2"],
    "pig": ["pig-face", "pig", "pig-side"],
    "rabbit": ["rabbit-face", "rabbit", "bunny"],
    "snail": ["snail"],
    "tiger": ["tiger-face", "tiger", "tiger-side"],
    "turtle": ["turtle"],
    "whale": ["spouting-whale", "whale", "spurting-whale"],
}
"""Names of an animal's drawings; no style has all of them, and fxemoji writes them without hyphens."""
THINGS = [
    "airplane", "alien", "automobile", "baby", "baby-bottle", "balloon", "banana", "bed", "bell", "bicycle",
    "birthday-cake", "bread", "bus", "cactus", "camera", "candle", "castle", "chair", "cherries",
    "clapping-hands", "cloud", "cloud-with-rain", "cookie", "couch-and-lamp", "crescent-moon", "crown",
    "desktop-computer", "door", "doughnut", "droplet", "ear", "eggplant", "envelope", "eye", "eyeglasses",
    "face-with-tears-of-joy", "fire", "fire-engine", "folded-hands", "fork-and-knife", "four-leaf-clover",
    "ghost", "gift", "glass-of-milk", "grapes", "grinning-face", "guitar", "hamburger", "hammer", "handbag",
    "heart", "helicopter", "high-heeled-shoe", "hot-beverage", "house", "house-with-garden", "ice-cream",
    "jack-o-lantern", "key", "laptop", "leaf-fluttering-in-wind", "lemon", "light-bulb", "lipstick",
    "lollipop", "man", "maple-leaf", "microphone", "mobile-phone", "motorcycle", "mountain", "mushroom",
    "musical-note", "necktie", "old-man", "onion", "open-book", "paintbrush", "palm-tree", "peach", "pear",
    "pencil", "person", "pine-tree", "pineapple", "pizza", "police-car", "potted-plant", "rainbow",
    "red-apple", "red-heart", "ring", "robot", "rocket", "rose", "running-shoe", "sailboat", "saxophone",
    "scissors", "ship", "shopping-cart", "skull", "slice-of-pizza", "smiling-face", "snowflake", "snowman",
    "soccer-ball", "spoon", "star", "strawberry", "sun", "sunflower", "sushi", "t-shirt",
    "teacup-without-handle", "teapot", "telephone", "television", "tent", "thumbs-up", "toilet", "tomato",
    "top-hat", "tractor", "train", "tree", "trophy", "trumpet", "tulip", "umbrella", "violin", "volcano",
    "watch", "watermelon", "wine-glass", "woman", "wrapped-gift", "writing-hand",
]  # fmt: skip
"""Names of other things, drawn as OUT/STYLE/nothing; no style has all of them."""
SIDE = 96
"""Width in pixels; scenes are 64 x 64."""


def main() -> None:
    """Writes OUT/STYLE/ANIMAL/DRAWING.png, and OUT/STYLE/nothing/THING.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    every = [*STYLES, GLYPHS]
    parser.add_argument("--styles", nargs="+", choices=every, default=every, help="default: all")
    given = parser.parse_args()
    if shutil.which("npm") is None:
        parser.error("npm is not here; install Node.js")
    if find_spec("resvg_py") is None:
        parser.error("resvg-py is not here; pip install resvg-py")
    for style in given.styles:
        if style == GLYPHS:
            fetch_glyphs(given.out / GLYPHS)
            continue
        icons, info = unpacked(f"@iconify-json/{STYLES[style]}", "icons.json", "info.json")
        drawn = DRAWINGS | {"nothing": THINGS}
        folders = {given.out / style / animal: names for animal, names in drawn.items()}
        count = sum(write(icons, name, folder) for folder, names in folders.items() for name in names)
        print(f"{style}: {count} drawings, {info['license']['title']}")


def fetch_glyphs(out: Path) -> None:
    """Writes OUT/ANIMAL/SET--GLYPH.png for every glyph; all sets come in one package of 100 MB."""
    sets = parse_toml(Path(__file__).with_name("glyphs.toml").read_text("utf-8"))
    about, *every = unpacked("@iconify/json", "collections.json", *(f"json/{name}.json" for name in sets))
    for (name, animals), icons in zip(sets.items(), every, strict=True):
        wanted = [(out / animal, glyph) for animal, glyphs in animals.items() for glyph in glyphs]
        count = sum(write(icons, glyph, folder, f"{name}--{glyph}.png") for folder, glyph in wanted)
        print(f"{out.name}, {name}: {count} drawings, {about[name]['license']['title']}")


def unpacked(package: str, *files: str) -> list[dict]:
    """Returns the contents of JSON files in an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", package]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            return [json.load(archive.extractfile(f"package/{name}")) for name in files]


def write(icons: dict, name: str, folder: Path, file: str = "") -> bool:
    """Draws one icon into a file named after it or ``file``, unless the style lacks it."""
    path = folder / (file or f"{name}.png")
    icon = icons["icons"].get(name) or icons["icons"].get(name.replace("-", ""))
    if icon is None:
        return False
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(icons, icon))
    return True


def draw(icons: dict, icon: dict) -> bytes:
    """Returns an icon as PNG with a transparent background."""
    from resvg_py import svg_to_bytes

    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" color="#222">{icon["body"]}</svg>'
    return bytes(svg_to_bytes(svg_string=svg, width=SIDE))


if __name__ == "__main__":
    main()
