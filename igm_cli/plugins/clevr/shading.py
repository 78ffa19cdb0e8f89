"""Colours of the objects that the camera sees."""

import torch
from torch import Tensor

from igm_cli.plugins.clevr.camera import View
from igm_cli.plugins.clevr.context import Context
from igm_cli.plugins.clevr.reflections import mirrored
from igm_cli.plugins.clevr.shadows import object_shade
from igm_cli.plugins.clevr.surfaces import Surface, diffuse, highlights
from igm_cli.plugins.clevr.vectors import along, choose, negative, pick, plus, scaled, times, unit
from igm_cli.plugins.clevr.visibility import Hits

_METAL_DIFFUSE = 0.157
_METAL_MIRROR = 0.797  # reflectance for objects and ground; the lamps' is in `surfaces`


def shade_hits(context: Context, camera: View, hits: Hits) -> Tensor:
    """Linear colours [N,3] of the hits of primary rays."""
    scene = context.objects.scene(hits.which)
    point = along(pick(camera.origin, scene), hits.direction, hits.distance)
    surface = Surface.of(context, hits.which, point)
    eye = negative(unit(hits.direction))
    sub = hits.slot.remainder(len(camera.offsets))
    shade = [object_shade(context, surface, lamp, sub) for lamp in context.lamps]
    gloss = highlights(context, surface, eye, shade)
    body = diffuse(context, surface, shade)
    metal = plus(scaled(body, _METAL_DIFFUSE), times(gloss, surface.rgb))
    color = choose(surface.metal, metal, plus(body, gloss))

    shiny = surface.metal.nonzero().squeeze(1)
    part = surface.part(shiny)
    seen = times(mirrored(context, part, pick(eye, shiny), sub[shiny]), part.rgb)
    for channel, value in zip(color, seen, strict=True):
        channel[shiny] += value * _METAL_MIRROR
    return torch.stack(color, dim=-1)
