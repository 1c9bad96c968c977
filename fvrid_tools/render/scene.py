"""Bodies, streets, light and fog -> a Mitsuba 3 scene, and what its camera sees.

Only the `scalar_rgb` variant is used: it needs nothing but the package, and its images depend on the seed alone,
not on the number of threads.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import drjit
import mitsuba as mi
import numpy as np

from . import plan, streets
from .bodies import Body, build_body
from .light import Fog, density
from .meshes import Array, Part, Texture
from .plan import Placed, View
from .vehicles import Vehicle

mi.set_variant("scalar_rgb")

FRAME_WIDTH = 1920  # pixels
_GRID = 128
NEAR_CLIP = 0.05  # metres before the camera at which Mitsuba begins its rays
FOG_BOX = (-12.0, 104.0, 40.0)  # x from, x to, half width in y
_GLOW = 10.0  # radiance of a headlamp, seen from ahead


Window = tuple[float, float, float]  # left, top and side of a crop, in widths of the frame, from its centre


def use_one_thread() -> None:
    """Of this process; the images do not depend on it."""
    drjit.set_thread_count(1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A body whose materials Mitsuba holds already."""

    body: Body
    materials: tuple[Any, ...]


def load_vehicle(vehicle: Vehicle, detail: float = 1.0) -> Loaded:
    """Build a vehicle once, for all its views."""
    body = build_body(vehicle, detail)
    return Loaded(body, tuple(material(part.texture) for part in body.parts))


@cache
def _traffic(index: int) -> Loaded:
    return load_vehicle(plan.traffic(index), 0.5)


@cache
def _street(place: streets.Street) -> list[tuple[Part, "Material"]]:
    parts = streets.ground(place) + streets.surroundings(place)
    return [(part, material(part.texture)) for part in parts]


@dataclass(frozen=True, slots=True)
class Scene:
    """A view, ready to be traced. The dictionaries are Mitsuba's; they share their shapes.

    Where there is fog, every surface has it outside. So a camera that is not told of the fog sees surfaces as the
    fog lights them, without any fog between, and one that is told (`medium`) sees what there is to see.
    """

    daylight: dict[str, Any]
    lamplight: dict[str, Any] | None  # the lamps of vehicles and streets alone; None where none is lit
    albedo: dict[str, Any]  # every surface shines in its own colour; the sky is white
    medium: Any  # None without fog


def build_scene(view: View, vehicle: Loaded) -> Scene:
    """Everything that stands, shines and moves in a view."""
    medium = _medium(view.fog, view.fog_seed) if view.fog else None
    parts: list[tuple[Part, Material]] = []
    lamps: list[Any] = []
    for placed, each in [(view.target, vehicle), *((other, _traffic(other.vehicle)) for other in view.traffic)]:
        at = (placed.x, placed.y, 0.0)
        parts += [(p.placed(at, placed.yaw), m) for p, m in zip(each.body.parts, each.materials, strict=True)]
        if view.lamps:
            lamps += _lamps(placed, each.body)
    if view.light.dusk:
        lamps += _street_lamps(view)
    parts += _street(view.site.street)
    shapes = {f"shape{i:03d}": _shape(part, surface, medium) for i, (part, surface) in enumerate(parts)}
    shining = {f"shape{i:03d}": _glowing(part, surface) for i, (part, surface) in enumerate(parts)}
    white = {"type": "constant", "radiance": {"type": "rgb", "value": 1.0}}
    if view.fog:
        shapes["fog"] = _fog_box(view.fog, medium)
    return Scene(
        daylight={"type": "scene", **shapes, **_daylight(view)},
        lamplight={"type": "scene", **shapes, **{f"lamp{i:02d}": lamp for i, lamp in enumerate(lamps)}}
        if lamps
        else None,
        albedo={"type": "scene", **shining, "sky": white},
        medium=medium,
    )


def _fog_box(fog: Fog, medium: Any) -> dict[str, Any]:
    x0, x1, half = FOG_BOX
    middle = [(x0 + x1) / 2, 0.0, fog.thickness / 2 - 0.5]
    reach = [(x1 - x0) / 2, half, fog.thickness / 2]
    place = mi.ScalarTransform4f().translate(middle).scale(reach)
    return {"type": "cube", "to_world": place, "bsdf": {"type": "null"}, "interior": medium}


def _daylight(view: View) -> dict[str, Any]:
    place, light = view.site, view.light
    up = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    sky = {"type": "envmap", "bitmap": mi.Bitmap(light.sky()), "to_world": up, "sampling_weight": 3.0}
    direction, irradiance = light.sun(place.north)
    if irradiance.max() < 0.02:
        return {"sky": sky}
    value = {"type": "rgb", "value": [float(i) for i in irradiance]}
    return {"sky": sky, "sun": {"type": "directional", "direction": [float(d) for d in direction], "irradiance": value}}


def _street_lamps(view: View) -> list[Any]:
    shine = {"type": "area", "radiance": {"type": "rgb", "value": [90.0, 62.0, 34.0]}}
    return [
        mi.load_dict({"type": "sphere", "center": list(at), "radius": 0.16, "emitter": shine})
        for at in streets.street_lamps(view.site.street)
    ]


def _medium(fog: Fog, seed: int) -> Any:
    phase = {"type": "hg", "g": fog.asymmetry}
    if fog.kind == "homogeneous":
        return mi.load_dict({"type": "homogeneous", "albedo": fog.albedo, "sigma_t": fog.extinction, "phase": phase})
    x0, x1, half = FOG_BOX
    grid = {
        "type": "gridvolume",
        "grid": mi.VolumeGrid(density(seed)[..., None] * np.float32(fog.extinction)),
        "to_world": mi.ScalarTransform4f().translate([x0, -half, -0.5]).scale([x1 - x0, 2 * half, fog.thickness]),
    }
    return mi.load_dict({"type": "heterogeneous", "albedo": fog.albedo, "sigma_t": grid, "phase": phase})


def _lamps(placed: Placed, body: Body) -> list[Any]:
    shapes = []
    turn = mi.ScalarTransform4f().translate([placed.x, placed.y, 0.0]).rotate([0, 0, 1], float(np.degrees(placed.yaw)))
    for lamp in body.lamps:
        power = _GLOW * (1.0 if lamp.facing > 0 else 0.22)
        way = mi.ScalarTransform4f().translate(list(lamp.at)).rotate([0, 1, 0], 90.0 * lamp.facing)
        shapes.append(
            mi.load_dict(
                {
                    "type": "disk",
                    "to_world": turn @ way @ mi.ScalarTransform4f().scale(lamp.radius),
                    "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [power * c for c in lamp.colour]}},
                }
            )
        )
    return shapes


def camera_of(view: View) -> tuple[Array, Array, float]:
    """Place, rotation (rows: right, down, ahead) and focal length in widths of the frame."""
    place = view.site
    origin = np.array([0.0, place.lateral, place.height])
    ahead = (np.array(place.aim) - origin) / np.linalg.norm(np.array(place.aim) - origin)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    return origin, np.stack([right, np.cross(ahead, right), ahead]), place.focal / FRAME_WIDTH


def window_of(view: View, vehicle: Loaded) -> Window:
    """Left, top and side of the crop in widths of the frame (0, 0 is its centre): what a detector would cut out.

    A detector's box lies on whole pixels: left and top are multiples of a 128th of the side.
    """
    origin, axes, focal = camera_of(view)
    placed = view.target
    corners = np.concatenate(
        [part.placed((placed.x, placed.y, 0.0), placed.yaw).vertices for part in vehicle.body.parts]
    )
    seen = (corners - origin) @ axes.T
    flat = seen[:, :2] / seen[:, 2:] * focal
    (x0, y0), (x1, y1) = flat.min(axis=0), flat.max(axis=0)
    side = max(x1 - x0, y1 - y0)
    left, right, top, bottom = view.margins
    x0, x1, y0, y1 = x0 - left * side, x1 + right * side, y0 - top * side, y1 + bottom * side
    side = max(x1 - x0, y1 - y0)
    pixel = side / _GRID
    return round((x0 + x1 - side) / 2 / pixel) * pixel, round((y0 + y1 - side) / 2 / pixel) * pixel, side


def sensor(view: View, window: Window, size: int, samples: int, medium: Any = None) -> Any:
    """The view's camera, looking at the window alone; a single sample goes through the pixels' centres."""
    origin, axes, focal = camera_of(view)
    left, top, side = window
    wide = size / side  # pixels across the whole frame, were it of this resolution
    # a frame that holds the window wherever it lies: the window is its crop
    half = int(np.ceil(max(abs(left), abs(top), abs(left + side), abs(top + side)) * wide)) + 1
    column, row = round(left * wide), round(top * wide)  # what is left of a pixel at other sizes moves the frame
    camera: dict[str, Any] = {
        "type": "perspective",
        "fov": float(np.degrees(2 * np.arctan(half / wide / focal))),
        "fov_axis": "x",
        "principal_point_offset_x": (left * wide - column) / (2 * half),
        "principal_point_offset_y": (top * wide - row) / (2 * half),
        "near_clip": NEAR_CLIP,
        "far_clip": 2000.0,
        "to_world": mi.ScalarTransform4f().look_at(
            [float(v) for v in origin], [float(v) for v in origin + axes[2]], [0.0, 0.0, 1.0]
        ),
        "film": {
            "type": "hdrfilm",
            "width": 2 * half,
            "height": 2 * half,
            "crop_offset_x": column + half,
            "crop_offset_y": row + half,
            "crop_width": size,
            "crop_height": size,
            "pixel_format": "rgb",
            "rfilter": {"type": "box"},
        },
        "sampler": {"type": "stratified", "sample_count": 1, "jitter": False}
        if samples == 1
        else {"type": "multijitter", "sample_count": samples},
    }
    if medium is not None:
        camera["medium"] = medium
    return mi.load_dict(camera)


class Material(NamedTuple):
    """A texture as Mitsuba holds it."""

    bsdf: Any
    colour: Any


def material(texture: Texture) -> Material:
    """The principled BSDF of a texture, and its colour alone."""
    if all(np.ptp(texture.colour[..., c]) == 0 for c in range(3)):
        colour = mi.load_dict({"type": "rgb", "value": [float(c) for c in texture.colour[0, 0]]})
    else:
        colour = mi.load_dict(_bitmap(texture.colour))
    bsdf = mi.load_dict(
        {
            "type": "principled",
            "base_color": colour,
            "roughness": _number(texture.roughness),
            "metallic": _number(texture.metallic),
            "clearcoat": _number(texture.coat),
            "clearcoat_gloss": 0.96,
            "specular": 0.5,
        }
    )
    return Material(bsdf, colour)


def _number(layer: Array) -> Any:
    return float(layer.flat[0]) if np.ptp(layer) == 0 else _bitmap(layer[..., None])


def _bitmap(layer: Array) -> dict[str, Any]:
    bitmap = mi.Bitmap(np.ascontiguousarray(layer[::-1], np.float32))  # Mitsuba's v runs upwards
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "wrap_mode": "clamp"}


def _shape(part: Part, surface: Material, outside: Any) -> Any:
    props = mi.Properties()
    props["bsdf"] = surface.bsdf
    if outside is not None:
        props["exterior"] = outside
    if part.normals is None:
        props["face_normals"] = True
    return _mesh(part, props, part.normals)


def _glowing(part: Part, surface: Material) -> Any:
    """The part, shining in its own colour whatever falls on it."""
    props = mi.Properties()
    props["emitter"] = mi.load_dict({"type": "area", "radiance": surface.colour})
    props["face_normals"] = True
    return _mesh(part, props, None)


def _mesh(part: Part, props: Any, normals: Array | None) -> Any:
    mesh = mi.Mesh("part", len(part.vertices), len(part.faces), props, normals is not None, True)
    params = mi.traverse(mesh)
    params["vertex_positions"] = np.ascontiguousarray(part.vertices, np.float32).ravel()
    params["faces"] = np.ascontiguousarray(part.faces, np.uint32).ravel()
    params["vertex_texcoords"] = np.ascontiguousarray(part.uv, np.float32).ravel()
    if normals is not None:
        params["vertex_normals"] = np.ascontiguousarray(normals, np.float32).ravel()
    params.update()
    return mesh
