"""Avatars as pictures: parts of the library ``python-avatars``, set in a scene, rendered by ``resvg``."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from igm_cli.errors import need
from igm_cli.plugins.celeba.recipe import Backdrop, Color, Face

STYLES = {"flat": "", "outlined": "path { stroke: #1c1c1c; stroke-width: 2.5px; }"}
"""Ways to render, as style sheets: without lines, and as a cartoon with an outline around every shape."""

SIDE = 200  # of the scene, in its own units; a pose is relative to it
PIXELS = 96  # side of a drawn picture
_CENTRE = (132, 122)  # of a face in the library's drawings


def render_face(face: Face, size: int = PIXELS, style: str = "flat") -> Image.Image:
    """Returns a face as an RGB picture of ``size`` x ``size`` pixels."""
    _, resvg = libraries()
    how = {"width": size, "height": size, "style_sheet": STYLES[style] or None, "skip_system_fonts": True}
    png = resvg.svg_to_bytes(svg_string=scene_svg(face), **how)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def scene_svg(face: Face) -> str:
    """Returns the SVG of a face in front of its backdrop, near the middle of the scene, turned and scaled."""
    x, y = SIDE / 2 + face.pose.dx, SIDE / 2 + face.pose.dy
    pose = (
        f"translate({x:.2f} {y:.2f}) rotate({face.pose.angle:.2f}) scale({face.pose.scale:.3f}) "
        f"translate({-_CENTRE[0]} {-_CENTRE[1]})"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {SIDE} {SIDE}">{_backdrop_svg(face.backdrop)}<g transform="{pose}">{_avatar_svg(face)}</g></svg>'
    )


def _avatar_svg(face: Face) -> str:
    """Returns the library's drawing, from its root element on."""
    library, _ = libraries()
    drawn: str = library.Avatar(
        style=library.AvatarStyle.TRANSPARENT,
        top=library.HairType[face.hair],
        hair_color=_hex(face.hair_color),
        facial_hair=library.FacialHairType[face.facial_hair],
        facial_hair_color=_hex(face.beard_color),
        accessory=library.AccessoryType[face.glasses],
        mouth=library.MouthType[face.mouth],
        eyes=library.EyeType[face.eyes],
        eyebrows=library.EyebrowType[face.brows],
        nose=library.NoseType[face.nose],
        skin_color=_hex(face.skin),
        clothing=library.ClothingType[face.clothes],
        clothing_color=_hex(face.clothes_color),
    ).render()
    return drawn[drawn.index("<svg") :]


def _backdrop_svg(backdrop: Backdrop) -> str:
    first, second = (_hex(color) for color in backdrop.colors)
    whole, turned = f'width="{SIDE}" height="{SIDE}"', f"rotate({backdrop.angle:.1f} {SIDE / 2} {SIDE / 2})"
    if backdrop.kind == "plain":
        return f'<rect {whole} fill="{first}"/>'
    if backdrop.kind == "gradient":
        paint = (
            f'<linearGradient id="backdrop" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="{SIDE}" y2="0" '
            f'gradientTransform="{turned}"><stop offset="0" stop-color="{first}"/>'
            f'<stop offset="1" stop-color="{second}"/></linearGradient>'
        )
    else:
        w = backdrop.width
        mark = f'<rect width="{w / 2:.1f}" height="{w:.1f}" fill="{second}"/>'
        if backdrop.kind == "dots":
            mark = f'<circle cx="{w / 2:.1f}" cy="{w / 2:.1f}" r="{w / 3:.1f}" fill="{second}"/>'
        paint = (
            f'<pattern id="backdrop" patternUnits="userSpaceOnUse" width="{w:.1f}" height="{w:.1f}" '
            f'patternTransform="{turned}"><rect width="{w:.1f}" height="{w:.1f}" fill="{first}"/>{mark}</pattern>'
        )
    return f'<defs>{paint}</defs><rect {whole} fill="url(#backdrop)"/>'


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def libraries() -> tuple[Any, Any]:
    """Returns the two libraries of the extra ``faces``."""
    need("faces")
    import python_avatars
    import resvg_py

    return python_avatars, resvg_py
