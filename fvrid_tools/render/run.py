"""The order of a render: plan, views.csv, then every image by itself; a run that was stopped goes on where it was.

OUT/render.json                       the recipe
OUT/views.csv                         a row an image, complete from the start
OUT/images/<vehicle>/<image>.jpg      what the camera stored
OUT/depth/<vehicle>/<image>.png       16 bits, log-normalised ray distance (of clear views, and of pairs)
OUT/clear/<vehicle>/<image>.jpg       the clear counterpart of a foggy view (of pairs)
"""

import csv
import io
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import files, images, pool
from ..fog import depth_of
from ..progress import Progress, silent
from ..records import FvridError, OptionError
from . import plan
from .meshes import Array

FORMAT = 1
RECIPE = "render.json"
_VERSIONED = ("fvrid", "mitsuba", "numpy", "pyoidn", "simplejpeg")
_COLUMNS = (
    "image_id",
    "vehicle_id",
    "camera_id",
    "split",
    "fog",
    "pair",
    "kind",
    "model",
    "colour",
    "facing",
    "visibility_m",
    "distance_m",
    "hour",
    "lamps",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the bytes of a render."""

    fleet: plan.Fleet
    size: int = 128  # pixels a side
    samples: int = 12  # paths a pixel
    counterparts: bool = False  # the foggy views of the fleet on a clear day, under the same names

    def describe(self) -> dict[str, Any]:
        """As in render.json: with the versions of everything that could change a byte."""
        drawn = {"format": FORMAT, **asdict(self.fleet), "size": self.size, "samples": self.samples}
        if self.counterparts:
            drawn["counterparts"] = True
        return {**drawn, "versions": {name: version(name) for name in _VERSIONED}}

    def views_of(self, index: int) -> list[plan.View]:
        """The views of a vehicle as they are to be rendered."""
        views = self.fleet.views_of(index)
        return [replace(view.without_fog(), pair=False) for view in views] if self.counterparts else views


def render(out: Path, recipe: Recipe, workers: int = 1, progress: Progress = silent) -> int:
    """Render into the folder `out`; -> the number of images. The same command again goes on where it stopped.

    Raises FvridError where `out` holds anything else or cannot be written, another process is at work in it, or the
    extra `render` is not installed; OptionError where there are fewer test vehicles than pairs asked for.
    """
    fleet = recipe.fleet
    if missing := [name for name in ("mitsuba", "pyoidn") if find_spec(name) is None]:
        raise FvridError(f"rendering needs {' and '.join(missing)}: pip install 'fvrid[render]'.")
    if fleet.pairs > (tests := len(fleet.test_vehicles())):
        raise OptionError(
            f"--pairs {fleet.pairs}: of {fleet.vehicles} vehicles {tests} are for the test; ask for fewer."
        )
    files.make_folder(out)
    with files.alone_in(out):
        _prepare(out, recipe)
        tasks = [VehicleTask(out, recipe, index, alone=workers == 1) for index in range(fleet.vehicles)]
        files.write_atomic(out / "views.csv", _table([row for task in tasks for row in task.rows()]))
        unfinished = [task for task in tasks if not task.is_finished()]
        progress((len(tasks) - len(unfinished)) * fleet.views)
        pool.run(unfinished, workers, progress)
    return fleet.vehicles * fleet.views


def _prepare(out: Path, recipe: Recipe) -> None:
    content = json.dumps(recipe.describe(), indent=1) + "\n"
    path = out / RECIPE
    if path.exists():
        if path.read_bytes() != content.encode():
            raise FvridError(f"{out} holds a render of another recipe or version (see {path}); name another --out.")
    elif not files.is_empty(out):
        raise FvridError(f"{out} is not empty and holds no render; name another --out.")
    else:
        files.write_atomic(path, content)
    files.remove_unfinished(out)


def _table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: str(row["image_id"])))
    return text.getvalue()


@dataclass(frozen=True)
class VehicleTask(pool.Task[None, None]):
    """All views of one vehicle: its body is built once."""

    out: Path
    recipe: Recipe
    index: int
    alone: bool  # the only process: it may use all cores

    @cached_property
    def views(self) -> list[plan.View]:
        return self.recipe.views_of(self.index)

    def rows(self) -> list[dict[str, Any]]:
        """Lines of views.csv."""
        vehicle = self.recipe.fleet.vehicle(self.index)
        return [
            {
                "image_id": view.image_id,
                "vehicle_id": view.vehicle_id,
                "camera_id": view.site.name,
                "split": view.split,
                "fog": view.fog.kind if view.fog else "",
                "pair": int(view.pair),
                "kind": vehicle.model.kind,
                "model": vehicle.model.name,
                "colour": vehicle.colour,
                "facing": view.facing,
                "visibility_m": round(view.fog.visibility, 1) if view.fog else "",
                "distance_m": round(view.distance, 1),
                "hour": round(view.light.hour, 2),
                "lamps": int(view.lamps),
            }
            for view in self.views
        ]

    def _path(self, kind: str, view: plan.View, suffix: str = ".jpg") -> Path:
        return self.out / kind / view.vehicle_id / (view.image_id + suffix)

    def is_finished(self) -> bool:
        return all(path.exists() for view in self.views for path in self._paths(view))

    def _paths(self, view: plan.View) -> list[Path]:
        """The files of a view."""
        paths = [self._path("images", view)]
        if view.fog is None or view.pair:
            paths.append(self._path("depth", view, ".png"))
        if view.pair:
            paths.append(self._path("clear", view))
        return paths

    def make(self, progress: Progress) -> None:
        """Render what is missing."""
        if not self.alone:
            os.environ["OIDN_NUM_THREADS"] = "1"  # before it is imported
        from . import scene

        if not self.alone:
            scene.use_one_thread()
        vehicle = scene.load_vehicle(self.recipe.fleet.vehicle(self.index))
        for view in self.views:
            if not all(path.exists() for path in self._paths(view)):
                self._render(view, vehicle)
            progress(1)

    def _render(self, view: plan.View, vehicle: Any) -> None:
        from .camera import develop, to_jpeg
        from .trace import render_view

        wanted = [("clear", view.without_fog())] if view.pair else []
        for kind, seen in (*wanted, ("images", view)):
            made = render_view(seen, vehicle, self.recipe.size, self.recipe.samples)
            if made.distance is not None:
                self._save("depth", view, images.encode_depth(quantize_distance(made.distance)), ".png")
            self._save(kind, view, to_jpeg(develop(made.radiance, seen, made.native), seen.site))

    def _save(self, kind: str, view: plan.View, content: bytes, suffix: str = ".jpg") -> None:
        path = self._path(kind, view, suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(path, content)
        except OSError as error:
            raise files.not_written(path, error) from None


def quantize_distance(distance: Array) -> NDArray[np.uint16]:
    """Ray distance (H, W) in metres -> d = log(z) / log(81), clipped to [0, 1], in 4096 steps of 16 bits.

    A step is 0.1 % of the distance; coarser than 16 bits so that it packs well. 65535 is 1.
    """
    d = depth_of(distance)
    return np.minimum(np.rint(d * 4096) * 16, 65535).astype(np.uint16)
