"""A batched ray caster for CLEVR scenes in plain torch.

It imitates Blender's picture of CLEVR's scene: lamps, materials and tone were fitted to Cycles renders (`data/clevr_blender`). It is fast
because little is traced: bounding spheres, tested for all pixels at once, leave short flat lists of (ray, object) candidates, and only these are
intersected. Such a list is one row of numbers a component (`Vector`, three tensors of [N]), which keeps temporaries small and every step
element-wise: no sum depends on the batch an image is in.

Scene units throughout; z points up, the ground is z = 0; colours are linear until the last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from igm_cli.plugins.clevr.scenes import Scenes

Vector = tuple[Tensor, Tensor, Tensor]

SHAPES = ("cube", "sphere", "cylinder", "cone")
TEXTURES = ("checker", "stripes", "noise")
_CUBE = 0.956  # half an edge of a cube of radius 1; its mesh reaches to 1, but its edges are round
_BOUND = (_CUBE * math.sqrt(3), 1.0, math.sqrt(2), math.sqrt(2))  # bounding radius of each shape of radius 1
_BEVEL = 0.115  # rounded edges, only seen in the normals
_FAR = 1e9
_EPSILON = 1e-4


class Lamp(NamedTuple):
    """A square lamp."""

    place: tuple[float, float, float]
    power: tuple[float, float, float]  # radiance it makes on the ground, times squared distance
    half_size: float
    jitter: (
        int | None
    )  # which of the scene's jitters moves it; None for a sun, whose light neither fades with distance nor moves


class Lighting(NamedTuple):
    """All light of a scene: lamps, and a world that shines evenly from above."""

    lamps: tuple[Lamp, ...]
    ambient: tuple[float, float, float]


# Places: clevr-dataset-gen's base_scene as given by kubric's `get_clevr_lights`, corrected (< 0.5) and, like the powers, fitted to the ground of
# 60 Cycles renders together with each one's lamp jitter (mean error 1 of 255 levels). All fitted light is that of the ground: albedo is included.
_SUN = Lamp((11.6608, -6.62799, 25.8232), (0.0330, 0.0325, 0.0316), 1.0, None)
LIGHTS: dict[str, Lighting] = {
    "default": Lighting(
        (
            Lamp((6.367, -2.839, 3.935), (4.497, 4.164, 3.551), 0.25, 0),
            Lamp((-4.642, -4.085, 2.781), (1.013, 1.099, 1.386), 0.25, 1),
            Lamp((-0.826, 2.694, 5.363), (2.277, 2.285, 2.262), 0.5, 2),
            _SUN,
        ),
        (0.110, 0.1104, 0.1107),
    ),
    "shifted": Lighting(
        (
            Lamp((-2.8, -6.2, 4.6), (6.2, 4.4, 2.6), 0.25, 0),
            Lamp((5.2, 3.9, 3.2), (0.9, 1.3, 2.2), 0.25, 1),
            Lamp((-3.6, 1.2, 5.0), (1.6, 1.9, 2.4), 0.5, 2),
            _SUN,
        ),
        (0.085, 0.090, 0.105),
    ),
}
_GROUND_ROUGHNESS = 0.78
_GROUND_FRESNEL = (0.0219, 0.1145)  # reflectance seen head-on and, added, at grazing angles
_SKY_HIDDEN = 0.6  # share of the sky's light lost where ground and object touch

# Objects, fitted by coordinate descent to the same renders
_OBJECT_GAIN = 1.327  # takes the ground's albedo out of the lamps' powers
_GROUND_BOUNCE = 0.9  # light from below, relative to the world's
_RUBBER_ROUGHNESS = 1.0
_RUBBER_FRESNEL = (0.04, 0.5)
_METAL_ROUGHNESS = 0.068
_METAL_DIFFUSE = 0.157
_METAL_MIRROR = 0.797  # reflectance for objects and ground,
_METAL_GLOSS = 1.06  # and for lamps
_MIRROR_BLUR = 0.038  # how far sub-pixels' mirror rays spread
_WORLD_SEEN = 0.406  # what a mirror sees of the world, relative to the light the world casts on the ground
_SOFTEN = 0.025  # share of a pixel's light that each neighbour gets


def dot(a: Vector, b: Vector) -> Tensor:
    """Inner product, component by component."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _scaled(a: Vector, s: Tensor) -> Vector:
    return a[0] * s, a[1] * s, a[2] * s


def _minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _along(a: Vector, b: Vector, t: Tensor) -> Vector:
    return a[0] + t * b[0], a[1] + t * b[1], a[2] + t * b[2]


def _unit(a: Vector) -> Vector:
    return _scaled(a, dot(a, a).clamp_min(1e-12).rsqrt())


def _split(t: Tensor) -> Vector:
    """[...,3] → three tensors of [...]."""
    return t[..., 0].contiguous(), t[..., 1].contiguous(), t[..., 2].contiguous()


def _pick(a: Vector, index: Tensor) -> Vector:
    return a[0][index], a[1][index], a[2][index]


def focal_length(width: int) -> float:
    """Focal length in pixels: a 35 mm lens on a sensor 32 mm wide."""
    return 35 / 32 * width


def camera_basis(camera: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors right, up and forward, each [B,3], of cameras [B,3] that look at the origin."""
    forward = -camera / camera.norm(dim=-1, keepdim=True)
    right = torch.stack([forward[:, 1], -forward[:, 0], torch.zeros_like(forward[:, 0])], dim=-1)
    right = right / right.norm(dim=-1, keepdim=True)
    return right, torch.linalg.cross(right, forward), forward


@dataclass(frozen=True)
class _Objects:
    """All objects of a batch in one row: N = B·K, number b·K + k."""

    count: int  # K
    center: Vector
    radius: Tensor
    bound: Tensor  # radius of the bounding sphere; 0 for padding
    cos: Tensor
    sin: Tensor
    shape: Tensor
    rgb: Vector
    metal: Tensor
    seed: Tensor


def _flatten(scenes: Scenes) -> _Objects:
    count = scenes.radius.shape[1]
    bound = torch.tensor(_BOUND, device=scenes.radius.device)[scenes.shape] * scenes.radius * scenes.present
    x, y, z = (c.reshape(-1) for c in scenes.position.unbind(-1))
    radius = scenes.radius.reshape(-1)
    return _Objects(
        count=count,
        center=(x, y, z),
        radius=radius,
        bound=bound.reshape(-1),
        cos=scenes.rotation.cos().reshape(-1),
        sin=scenes.rotation.sin().reshape(-1),
        shape=scenes.shape.reshape(-1),
        rgb=_split(scenes.rgb.reshape(-1, 3)),
        metal=scenes.metal.reshape(-1),
        seed=scenes.texture_seed[:, None].expand(-1, count).reshape(-1),
    )


def _to_local(items: _Objects, which: Tensor, v: Vector) -> Vector:
    """Turns directions into the objects' own frames, where each has radius 1."""
    c, s, scale = items.cos[which], items.sin[which], 1 / items.radius[which]
    return (c * v[0] + s * v[1]) * scale, (c * v[1] - s * v[0]) * scale, v[2] * scale


def _to_world(items: _Objects, which: Tensor, v: Vector) -> Vector:
    c, s = items.cos[which], items.sin[which]
    return c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]


def _slab(o: Tensor, d: Tensor, half: float) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    middle, reach = -o * inverse, half * inverse.abs()
    return middle - reach, middle + reach


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Interval in which a·t² + 2b·t + c < 0, for a > 0; empty (far, -far) where it never is."""
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = a.clamp_min(1e-12)
    near = torch.where(disc > 0, (-b - root) / a, torch.full_like(a, _FAR))
    return near, torch.where(disc > 0, (-b + root) / a, torch.full_like(a, -_FAR))


def _hit_cube(o: Vector, d: Vector) -> Tensor:
    spans = [_slab(o[i], d[i], _CUBE) for i in range(3)]
    near = torch.maximum(torch.maximum(spans[0][0], spans[1][0]), spans[2][0])
    far = torch.minimum(torch.minimum(spans[0][1], spans[1][1]), spans[2][1])
    return _entry(near, far)


def _hit_sphere(o: Vector, d: Vector) -> Tensor:
    return _entry(*_roots(dot(d, d), dot(o, d), dot(o, o) - 1))


def _hit_cylinder(o: Vector, d: Vector) -> Tensor:
    near, far = _roots(d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - 1)
    low, high = _slab(o[2], d[2], 1.0)
    return _entry(torch.maximum(near, low), torch.minimum(far, high))


def _hit_cone(o: Vector, d: Vector) -> Tensor:
    """Cone with its tip at z = 1 and a base of radius 1 at z = -1: x² + y² = ((1 - z)/2)²."""
    h, g = (1 - o[2]) / 2, -d[2] / 2
    a = d[0] * d[0] + d[1] * d[1] - g * g
    b = o[0] * d[0] + o[1] * d[1] - h * g
    c = o[0] * o[0] + o[1] * o[1] - h * h
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = torch.where(a.abs() < 1e-9, torch.full_like(a, 1e-9), a)
    first, second = (-b - root) / a, (-b + root) / a
    best = torch.full_like(a, _FAR)
    for t in (first, second):
        fine = (disc > 0) & (t > _EPSILON) & ((o[2] + t * d[2]).abs() <= 1)
        best = torch.where(fine & (t < best), t, best)
    base = (-1 - o[2]) / torch.where(d[2].abs() < 1e-9, torch.full_like(a, 1e-9), d[2])
    x, y = o[0] + base * d[0], o[1] + base * d[1]
    return torch.where((base > _EPSILON) & (base < best) & (x * x + y * y < 1), base, best)


def _entry(near: Tensor, far: Tensor) -> Tensor:
    return torch.where((near < far) & (near > _EPSILON), near, torch.full_like(near, _FAR))


_HIT = (_hit_cube, _hit_sphere, _hit_cylinder, _hit_cone)


def _intersect(items: _Objects, which: Tensor, origin: Vector, direction: Vector) -> Tensor:
    """Distance along each ray, in lengths of its direction, at which it enters its object; `_FAR` for a miss.

    Args:
        items: All objects.
        which: [N] the object each ray is tried on.
        origin: [N] world.
        direction: [N] world, any length.

    Returns:
        [N] distances.
    """
    o = _to_local(items, which, _minus(origin, _pick(items.center, which)))
    d = _to_local(items, which, direction)
    shape = items.shape[which]
    t = torch.full_like(o[0], _FAR)
    for number, hit in enumerate(_HIT):
        mine = (shape == number).nonzero().squeeze(1)
        if len(mine):
            t[mine] = hit(_pick(o, mine), _pick(d, mine))
    return t


def _normals(shape: Tensor, p: Vector) -> Vector:
    """Outward normals [N] in the objects' frames at surface points [N]; edges are a little round as in CLEVR's meshes."""
    across = (p[0] * p[0] + p[1] * p[1]).clamp_min(1e-12).sqrt()
    inner = 1 - _BEVEL
    side = (across - inner).clamp_min(0) / across
    cylinder = (p[0] * side, p[1] * side, _past(p[2], inner))
    cone = (p[0] / across, p[1] / across, torch.full_like(across, 0.5))
    base = p[2] < -1 + 1e-3
    cone = torch.where(base, 0.0, cone[0]), torch.where(base, 0.0, cone[1]), torch.where(base, -1.0, cone[2])
    cube = tuple(_past(c, _CUBE - _BEVEL) for c in p)
    normal = [
        torch.where(
            shape == 0, cube[i], torch.where(shape == 1, p[i], torch.where(shape == 2, cylinder[i], cone[i]))
        )
        for i in range(3)
    ]
    return _unit((normal[0], normal[1], normal[2]))


def _past(x: Tensor, limit: float) -> Tensor:
    return x - x.clamp(-limit, limit)


class _Lamp(NamedTuple):
    """One lamp in every scene of a batch; vectors are [B] a component."""

    place: Vector
    u: Vector  # half edges
    v: Vector
    aim: Vector  # unit
    power: tuple[float, float, float]
    sun: bool


def _place_lamps(scenes: Scenes, lighting: Lighting) -> list[_Lamp]:
    result = []
    for lamp in lighting.lamps:
        place = torch.tensor(lamp.place, device=scenes.camera.device).expand_as(scenes.camera)
        right, up, forward = camera_basis(place)  # a lamp keeps its aim when it is jittered
        if lamp.jitter is not None:
            place = place + scenes.lights[:, lamp.jitter]
        u, v = right * lamp.half_size, up * lamp.half_size
        result.append(
            _Lamp(_split(place), _split(u), _split(v), _split(forward), lamp.power, lamp.jitter is None)
        )
    return result


_LAMP_SAMPLES = ((-0.5, -0.5), (0.5, 0.5), (0.5, -0.5), (-0.5, 0.5))  # places on a lamp, in half edges


@dataclass(frozen=True)
class _Context:
    """What shading needs of a batch of B scenes."""

    items: _Objects
    lamps: list[_Lamp]
    ambient: tuple[float, float, float]
    camera: Vector
    seed: Tensor
    texture: str | None


def _irradiance(lamp: _Lamp, scene: Tensor, point: Vector, normal: Vector) -> tuple[Tensor, Vector]:
    """Light of a lamp that falls on points [N] if nothing is in the way: strength [N] and the unit direction [N] to the lamp."""
    to = _minus(_pick(lamp.place, scene), point)
    square = dot(to, to)
    to = _scaled(to, square.rsqrt())
    falling = dot(to, normal).clamp_min(0)
    if lamp.sun:
        return falling, to
    return falling * (-dot(to, _pick(lamp.aim, scene))).clamp_min(0) / square, to


def _ggx(
    normal: Vector, to_light: Vector, to_eye: Vector, roughness: float, fresnel: tuple[float, float]
) -> Tensor:
    """π times the GGX reflectance (Walter et al., EGSR 2007; Schlick's masking) of points [N]; all vectors are unit."""
    half = _unit((to_light[0] + to_eye[0], to_light[1] + to_eye[1], to_light[2] + to_eye[2]))
    square, k = roughness * roughness, roughness / 2
    facing = dot(normal, half)
    spread = square / (facing * facing * (square - 1) + 1).square()
    masking = (dot(normal, to_light).clamp_min(1e-3) * (1 - k) + k) * (
        dot(normal, to_eye).clamp_min(1e-3) * (1 - k) + k
    )
    grazing = (1 - dot(to_eye, half)).clamp_min(0)
    return spread / masking / 4 * (fresnel[0] + fresnel[1] * grazing.square().square() * grazing)


def _noise(p: Vector, seed: Tensor, frequency: float) -> Tensor:
    """A smooth irregular pattern in 0..1: sines bent by sines."""
    x, y, z = (c * frequency + seed * s for c, s in zip(p, (17.0, 31.0, 47.0), strict=True))
    wave = (
        (x + 1.7 * (0.9 * y + z).sin()).sin()
        + (0.8 * y - x + 1.3 * (1.1 * z - x).sin()).sin()
        + (z + 0.7 * x + 1.9 * (1.3 * y).sin()).sin()
    )
    return 0.5 + wave / 6


def _pattern(texture: str, p: Vector, seed: Tensor, frequency: float) -> Tensor:
    """Pattern in 0..1 at points [N] of any frame; `seed` [N] in 0..1 moves it."""
    if texture == "noise":
        return _noise(p, seed, frequency)
    if texture == "stripes":
        turn = 6.2832 * seed
        return (
            0.5
            + 0.5
            * (2.5 * (2.5 * frequency * (p[0] * turn.cos() + p[1] * turn.sin() + 0.6 * p[2])).sin()).tanh()
        )
    cells = [(c * frequency * 0.8 + seed + 0.13).floor() for c in p]
    return (cells[0] + cells[1] + cells[2]).remainder(2)


def _ground_light(
    context: _Context, scene: Tensor, point: Vector, eye: Vector, sky: Tensor, shade: list[Tensor] | None
) -> Vector:
    """Radiance that the ground sends to the eye.

    Args:
        context: The batch.
        scene: [N] scene of each point.
        point: [N] on the ground.
        eye: [N] unit direction to the eye.
        sky: [N] share of the sky that is seen.
        shade: For each lamp the share [N] of it that is seen; None where nothing is in the way.

    Returns:
        [N] linear colours.
    """
    zero = torch.zeros_like(point[0])
    up = (zero, zero, torch.ones_like(zero))
    total = [sky * a for a in context.ambient]
    for number, lamp in enumerate(context.lamps):
        strength, to = _irradiance(lamp, scene, point, up)
        if not lamp.sun:
            strength = strength * (1 + _ggx(up, to, eye, _GROUND_ROUGHNESS, _GROUND_FRESNEL))
        if shade is not None:
            strength = strength * shade[number]
        total = [total[i] + strength * lamp.power[i] for i in range(3)]
    if context.texture is not None:
        seed = context.seed[scene]
        pattern = 0.75 + 0.5 * _pattern(context.texture, (point[0], point[1], zero), seed, 1.5)
        total = [total[i] * pattern * (1 + 0.2 * (6.2832 * (seed + i / 3)).cos()) for i in range(3)]
    return total[0], total[1], total[2]


def _near_line(offset: Vector, line: Vector, bound: Tensor) -> Tensor:
    """Whether a ball at `offset` [N] from a line's start, of radius `bound`, touches the half line along `line`."""
    along = dot(offset, line)
    square = dot(line, line)
    return (along > 0) & ((dot(offset, offset) - bound * bound) * square < along * along) & (bound > 0)


# --- what is seen -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """Rays of a batch: `scenes` B, `pixels` P = H·W, S sub-pixel places; u, v are image-plane places in focal lengths."""

    count: int
    u: Tensor  # [P] pixel centres
    v: Tensor
    offsets: list[tuple[float, float]]  # S sub-pixel places, in focal lengths
    right: Vector  # [B] a component
    up: Vector
    forward: Vector
    origin: Vector
    pixel: float  # size of a pixel in focal lengths

    def directions(self, scene: Tensor, u: Tensor, v: Tensor) -> Vector:
        """Ray directions [N] whose length along the view axis is 1."""
        right, up, forward = _pick(self.right, scene), _pick(self.up, scene), _pick(self.forward, scene)
        return tuple(forward[i] + u * right[i] - v * up[i] for i in range(3))  # type: ignore[return-value]


def _view(camera: Tensor, image_size: tuple[int, int], samples: int) -> _View:
    width, height = image_size
    focal = focal_length(width)
    u = (torch.arange(width, device=camera.device) + 0.5 - width / 2) / focal
    v = (torch.arange(height, device=camera.device) + 0.5 - height / 2) / focal
    right, up, forward = (_split(axis) for axis in camera_basis(camera))
    return _View(
        count=len(camera),
        u=u.repeat(height),
        v=v.repeat_interleave(width),
        offsets=[(x / focal, y / focal) for x, y in _sub_pixels(samples)],
        right=right,
        up=up,
        forward=forward,
        origin=_split(camera),
        pixel=1 / focal,
    )


def _sub_pixels(n: int) -> list[tuple[float, float]]:
    """n² places in a pixel, from its middle, on a turned grid: no two share a row or a column, which smooths upright edges best."""
    cells = [(i, j) for j in range(n) for i in range(n)]
    return [((i + (j + 0.5) / n) / n - 0.5, (j + (n - i - 0.5) / n) / n - 0.5) for i, j in cells]


class _Hits(NamedTuple):
    """Nearest hits of sub-pixel rays: slot (b·P + p)·S + s, the object b·K + k and the distance, each [N]."""

    slot: Tensor
    which: Tensor
    distance: Tensor


def _see(items: _Objects, view: _View) -> tuple[_Hits, Vector]:
    """Casts the primary rays of a batch.

    Returns:
        The nearest hits, and their ray directions [N].
    """
    pixels, subs = len(view.u), len(view.offsets)
    which, pixel = _candidates(items, view)
    scene = which.div(items.count, rounding_mode="floor")
    place = torch.tensor(view.offsets, device=which.device)
    u = (view.u[pixel, None] + place[:, 0]).reshape(-1)
    v = (view.v[pixel, None] + place[:, 1]).reshape(-1)
    slot = ((scene * pixels + pixel)[:, None] * subs + torch.arange(subs, device=which.device)).reshape(-1)
    which, scene = which.repeat_interleave(subs), scene.repeat_interleave(subs)
    direction = view.directions(scene, u, v)
    distance = _intersect(items, which, _pick(view.origin, scene), direction)
    nearest = torch.full((view.count * pixels * subs,), _FAR, device=distance.device).scatter_reduce_(
        0, slot, distance, "amin"
    )
    keep = ((distance < _FAR) & (distance == nearest[slot])).nonzero().squeeze(1)
    return _Hits(slot[keep], which[keep], distance[keep]), _pick(direction, keep)


def _candidates(items: _Objects, view: _View) -> tuple[Tensor, Tensor]:
    """Objects and pixels, each [N], whose bounding sphere and cone of rays meet."""
    scene = torch.arange(len(items.radius), device=items.radius.device).div(items.count, rounding_mode="floor")
    offset = _minus(items.center, _pick(view.origin, scene))
    x, y, z = (dot(offset, _pick(axis, scene))[:, None] for axis in (view.right, view.up, view.forward))
    bound = items.bound[:, None] + 0.75 * view.pixel * z
    along = z + x * view.u - y * view.v
    square = 1 + view.u.square() + view.v.square()
    touched = ((x * x + y * y + z * z - bound * bound) * square < along * along) & (items.bound[:, None] > 0)
    which, pixel = touched.nonzero(as_tuple=True)
    return which, pixel


def visible_pixels(scenes: Scenes, image_size: tuple[int, int], samples: int = 2) -> Tensor:
    """Counts what is seen of each object.

    Args:
        scenes: B scenes of at most K objects.
        image_size: (width, height) in pixels.
        samples: Rays along each side of a pixel.

    Returns:
        [B,K] visible area in pixels.
    """
    items = _flatten(scenes)
    hits, _ = _see(items, _view(scenes.camera, image_size, samples))
    return torch.bincount(hits.which, minlength=len(items.radius)).reshape(scenes.radius.shape) / samples**2


# --- shadows ------------------------------------------------------------------------------------------------------------------------------------


def _ground_shade(context: _Context, point: Vector) -> list[Tensor]:
    """Share of each lamp that ground points see.

    Args:
        context: The batch of B scenes.
        point: [B,P] on the ground.

    Returns:
        For each lamp [B·P].
    """
    items, scenes = context.items, len(point[0])
    center = tuple(c.view(scenes, -1, 1) for c in items.center)
    offset = tuple(c - p[:, None] for c, p in zip(center, point, strict=True))
    reach = dot(offset, offset) - (items.bound.view(scenes, -1, 1) * 1.3).square()  # type: ignore[arg-type]  # 1.3: room for the penumbra
    return [_lamp_shade(context, lamp, point, offset, reach) for lamp in context.lamps]  # type: ignore[arg-type]


def _lamp_shade(context: _Context, lamp: _Lamp, point: Vector, offset: Vector, reach: Tensor) -> Tensor:
    items, (scenes, pixels) = context.items, point[0].shape
    line = tuple(place[:, None] - p for place, p in zip(lamp.place, point, strict=True))
    along = offset[0] * line[0][:, None] + offset[1] * line[1][:, None] + offset[2] * line[2][:, None]
    touched = (reach * dot(line, line)[:, None] < along * along) & (along > 0)  # type: ignore[arg-type]
    touched &= items.bound.view(scenes, -1, 1) > 0
    scene, item, pixel = touched.nonzero(as_tuple=True)
    which, subs = scene * items.count + item, len(_LAMP_SAMPLES)
    start = tuple(p[scene, pixel] for p in point)
    dark = torch.zeros(subs, scenes * pixels, device=which.device)
    for number, (a, b) in enumerate(_LAMP_SAMPLES):
        goal = tuple(lamp.place[i][scene] + a * lamp.u[i][scene] + b * lamp.v[i][scene] for i in range(3))
        hit = _intersect(items, which, start, _minus(goal, start)) < _FAR  # type: ignore[arg-type]
        dark[number, (scene * pixels + pixel)[hit]] = 1.0
    return 1 - (dark[0] + dark[1] + dark[2] + dark[3]) / subs


def _open_sky(items: _Objects, point: Vector, scenes: int) -> Tensor:
    """Share of the sky seen from ground points [B,P].

    Exact for a ball would be the second power of `nearness`; the renders show less far away, where the objects' own light makes up for it.
    """
    share = torch.ones_like(point[0])
    offset = [c.view(scenes, -1, 1) - p[:, None] for c, p in zip(items.center, point, strict=True)]
    square = offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2]
    size = (items.radius * (items.bound > 0)).clamp_min(1e-3).view(scenes, -1, 1)
    nearness = size.square() / square.clamp_min(1e-2)
    hidden = _SKY_HIDDEN * (offset[2] / size * nearness * nearness * nearness).clamp(0, 1)
    for k in range(items.count):
        share = share * (1 - hidden[:, k])
    return share


class _Pairs(NamedTuple):
    """Candidates between N points and the other objects of their scenes: point number and object, each [M]."""

    point: Tensor
    which: Tensor


def _others(items: _Objects, own: Tensor, start: Vector, line: Vector) -> _Pairs:
    """Pairs each half line [N] with every object of its scene whose bounding sphere it meets, its own left out."""
    base = own - own.remainder(items.count)
    which = base[:, None] + torch.arange(items.count, device=own.device)
    offset = tuple(items.center[i][which] - start[i][:, None] for i in range(3))
    wide = tuple(c[:, None] for c in line)
    touched = _near_line(offset, wide, items.bound[which]) & (which != own[:, None])  # type: ignore[arg-type]
    point, item = touched.nonzero(as_tuple=True)
    return _Pairs(point, which[point, item])


def _hit_shade(
    context: _Context, own: Tensor, scene: Tensor, start: Vector, lamp: _Lamp, sub: Tensor
) -> Tensor:
    """1 where points [N] on objects see the lamp, 0 where another object hides it; sub-pixel `sub` [N] aims at its own place on the lamp."""
    places = torch.tensor(_LAMP_SAMPLES, device=own.device)[sub.remainder(len(_LAMP_SAMPLES))]
    goal = tuple(
        lamp.place[i][scene] + places[:, 0] * lamp.u[i][scene] + places[:, 1] * lamp.v[i][scene]
        for i in range(3)
    )
    line = _minus(goal, start)  # type: ignore[arg-type]
    pairs = _others(context.items, own, start, line)
    hit = _intersect(context.items, pairs.which, _pick(start, pairs.point), _pick(line, pairs.point)) < _FAR
    seen = torch.ones_like(start[0])
    seen[pairs.point[hit]] = 0.0
    return seen


# --- surfaces -----------------------------------------------------------------------------------------------------------------------------------


def _surface(items: _Objects, which: Tensor, point: Vector) -> tuple[Vector, Vector]:
    """Normals [N] in the world and places [N] in the objects' frames of surface points [N]."""
    local = _to_local(items, which, _minus(point, _pick(items.center, which)))
    return _to_world(items, which, _normals(items.shape[which], local)), local


def _albedo(context: _Context, which: Tensor, local: Vector) -> Vector:
    rgb = _pick(context.items.rgb, which)
    if context.texture is None:
        return rgb
    pattern = _pattern(
        context.texture,
        local,
        (context.items.seed[which] + which.remainder(context.items.count) * 0.137).frac(),
        3.0,
    )
    return _scaled(rgb, 0.35 + 0.85 * pattern)


def _diffuse(
    context: _Context, scene: Tensor, point: Vector, normal: Vector, rgb: Vector, shade: list[Tensor] | None
) -> Vector:
    """Lambert's share of the light that points [N] of colour `rgb` send back."""
    below = (1 - normal[2]) / 2
    near = (
        1 - below * (1 - point[2]).clamp(0, 1) * 0.35
    )  # close to the ground the object darkens what it sees of it
    sky = (1 - below + below * _GROUND_BOUNCE) * near
    total = [sky * a for a in context.ambient]
    for number, lamp in enumerate(context.lamps):
        strength, _ = _irradiance(lamp, scene, point, normal)
        if shade is not None:
            strength = strength * shade[number]
        total = [total[i] + strength * lamp.power[i] for i in range(3)]
    return total[0] * rgb[0] * _OBJECT_GAIN, total[1] * rgb[1] * _OBJECT_GAIN, total[2] * rgb[2] * _OBJECT_GAIN


def _highlights(
    context: _Context,
    scene: Tensor,
    point: Vector,
    normal: Vector,
    eye: Vector,
    shade: list[Tensor],
    metal: Tensor,
) -> list[Tensor]:
    total = [torch.zeros_like(point[0]) for _ in range(3)]
    for number, lamp in enumerate(context.lamps):
        strength, to = _irradiance(lamp, scene, point, normal)
        rubber = _ggx(normal, to, eye, _RUBBER_ROUGHNESS, _RUBBER_FRESNEL)
        mirror = _ggx(normal, to, eye, _METAL_ROUGHNESS, (_METAL_GLOSS, 0.0))
        strength = strength * shade[number] * torch.where(metal, mirror, rubber) * _OBJECT_GAIN
        total = [total[i] + strength * lamp.power[i] for i in range(3)]
    return total


def _mirrored(context: _Context, own: Tensor, scene: Tensor, point: Vector, direction: Vector) -> Vector:
    """What is seen from points [N] on objects along directions [N]: other objects, the ground, the world."""
    items = context.items
    pairs = _others(items, own, point, direction)
    distance = _intersect(items, pairs.which, _pick(point, pairs.point), _pick(direction, pairs.point))
    nearest = torch.full_like(point[0], _FAR).scatter_reduce_(0, pairs.point, distance, "amin")
    drop = -point[2] / direction[2].clamp_max(-1e-3)
    floor = _along(point, direction, drop)
    floor = (floor[0], floor[1], torch.zeros_like(floor[2]))
    away = _scaled(direction, -torch.ones_like(drop))
    color = list(_ground_light(context, scene, floor, away, 1 - 0.6 * torch.exp(-drop * 1.5), None))
    upwards = direction[2] > -1e-3
    color = [
        torch.where(upwards, torch.full_like(drop, a * _WORLD_SEEN), c)
        for a, c in zip(context.ambient, color, strict=True)
    ]
    keep = ((distance < _FAR) & (distance == nearest[pairs.point])).nonzero().squeeze(1)
    at, which = pairs.point[keep], pairs.which[keep]
    hit = _along(_pick(point, at), _pick(direction, at), distance[keep])
    normal, local = _surface(items, which, hit)
    seen = _diffuse(context, scene[at], hit, normal, _albedo(context, which, local), None)
    for i in range(3):
        color[i][at] = seen[i]
    return color[0], color[1], color[2]


def _shade_hits(context: _Context, hits: _Hits, direction: Vector, subs: int) -> Tensor:
    """Linear colours [N,3] of the hits of primary rays."""
    items, which = context.items, hits.which
    scene = which.div(items.count, rounding_mode="floor")
    point = _along(_pick(context.camera, scene), direction, hits.distance)
    normal, local = _surface(items, which, point)
    eye = _scaled(_unit(direction), -torch.ones_like(hits.distance))
    rgb, metal = _albedo(context, which, local), items.metal[which]
    sub = hits.slot.remainder(subs)
    shade = [_hit_shade(context, which, scene, point, lamp, sub) for lamp in context.lamps]
    gloss = _highlights(context, scene, point, normal, eye, shade, metal)
    body = _diffuse(context, scene, point, normal, rgb, shade)
    color = [
        torch.where(metal, body[i] * _METAL_DIFFUSE + gloss[i] * rgb[i], body[i] + gloss[i]) for i in range(3)
    ]
    shiny = metal.nonzero().squeeze(1)
    facing, look = _pick(normal, shiny), _pick(eye, shiny)
    turned = 2 * dot(facing, look)
    bounce = _minus(_scaled(facing, turned), look)
    spread = torch.tensor(_LAMP_SAMPLES, device=shiny.device)[sub[shiny].remainder(len(_LAMP_SAMPLES))] * (
        2 * _MIRROR_BLUR
    )
    bounce = _unit(
        (bounce[0] + spread[:, 0], bounce[1] - spread[:, 0], bounce[2] + spread[:, 1])
    )  # a rough mirror, one direction a sub-pixel
    seen = _mirrored(context, which[shiny], scene[shiny], _pick(point, shiny), bounce)
    for i in range(3):
        color[i][shiny] += seen[i] * rgb[i][shiny] * _METAL_MIRROR
    return torch.stack(color, dim=-1)


def _ground_picture(context: _Context, view: _View) -> Tensor:
    """Linear colours [B·P,3] of the ground at the pixels' centres, shadows included."""
    pixels = len(view.u)
    scene = torch.arange(view.count, device=view.u.device).repeat_interleave(pixels)
    direction = view.directions(scene, view.u.repeat(view.count), view.v.repeat(view.count))
    origin = _pick(view.origin, scene)
    distance = -origin[2] / direction[2].clamp_max(-1e-3)
    point = _along(origin, direction, distance)
    point = (point[0], point[1], torch.zeros_like(distance))
    grid: Vector = tuple(c.view(view.count, pixels) for c in point)  # type: ignore[assignment]
    sky = _open_sky(context.items, grid, view.count).reshape(-1)
    eye = _scaled(_unit(direction), -torch.ones_like(distance))
    return torch.stack(_ground_light(context, scene, point, eye, sky, _ground_shade(context, grid)), dim=-1)


def _to_bytes(linear: Tensor) -> Tensor:
    """Linear light to sRGB bytes (IEC 61966-2-1)."""
    x = linear.clamp(0, 1)
    curve = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-4).pow(1 / 2.4) - 0.055)
    return (curve * 255 + 0.5).to(torch.uint8)


def _render_chunk(scenes: Scenes, image_size: tuple[int, int], samples: int) -> Tensor:
    width, height = image_size
    view = _view(scenes.camera, image_size, samples)
    lighting = LIGHTS[scenes.options.light]
    items = _flatten(scenes)
    context = _Context(
        items,
        _place_lamps(scenes, lighting),
        lighting.ambient,
        view.origin,
        scenes.texture_seed,
        scenes.options.texture,
    )
    subs = len(view.offsets)
    picture = _ground_picture(context, view)[:, None].expand(-1, subs, -1).reshape(-1, 3)
    hits, direction = _see(items, view)
    picture[hits.slot] = _shade_hits(context, hits, direction, subs)
    picture = picture.clamp_(0, 1).view(-1, subs, 3)
    total = picture[:, 0]
    for sub in range(1, subs):  # a plain sum, whose order no batch changes
        total = total + picture[:, sub]
    return _to_bytes(_soften((total / subs).view(-1, height, width, 3))).permute(0, 3, 1, 2).contiguous()


def _soften(picture: Tensor) -> Tensor:
    """Spreads a little light to the neighbours of [B,H,W,3], as Blender's pixel filter and denoiser do."""
    for axis in (1, 2):
        size = picture.shape[axis]
        ends = picture.narrow(axis, 0, 1), picture.narrow(axis, size - 1, 1)
        before = torch.cat([ends[0], picture.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([picture.narrow(axis, 1, size - 1), ends[1]], dim=axis)
        picture = picture * (1 - 2 * _SOFTEN) + (before + after) * _SOFTEN
    return picture


@torch.inference_mode()
def render(
    scenes: Scenes,
    image_size: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    samples: int = 2,
    chunk: int = 16,
) -> Tensor:
    """Renders a batch of scenes.

    Args:
        scenes: B scenes.
        image_size: (width, height) in pixels; the scenes' own by default.
        device: Where to cast the rays.
        samples: Rays along each side of a pixel where objects are.
        chunk: Scenes at a time, for memory; does not change the result.

    Returns:
        uint8 [B,3,H,W] on `device`.
    """
    size = image_size or scenes.options.image_size
    parts = [
        _render_chunk(_part(scenes, first, first + chunk, device), size, samples)
        for first in range(0, len(scenes), chunk)
    ]
    return torch.cat(parts) if parts else torch.empty(0, 3, size[1], size[0], dtype=torch.uint8, device=device)


def _part(scenes: Scenes, first: int, last: int, device: str | torch.device) -> Scenes:
    moved: dict[str, Any] = {
        name: value[first:last].to(device) for name, value in vars(scenes).items() if isinstance(value, Tensor)
    }
    return replace(scenes, **moved, layouts=scenes.layouts[first:last])
