"""Self-contained HTML pages: pictures as data URIs, charts as SVG, everything else escaped by Jinja."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from numpy.typing import ArrayLike

from . import images
from .images import Uint8Image

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 220, 60, 26, 14  # pixels of a chart and its margins
_COLOURS = ("#2563a8", "#c2571a", "#2a7d4f", "#8a3b9c", "#a3222a", "#5b6470", "#b08a00", "#1f8a94")


def render(package: str, template: str, **values: object) -> str:
    """The page that `template`, a file of `package`, makes of the values; `page.html.j2` here is its frame."""
    environment = Environment(
        loader=_loader(package), autoescape=select_autoescape(["html", "j2"]), undefined=StrictUndefined
    )
    return environment.get_template(template).render(**values)


def _loader(package: str) -> BaseLoader:
    return ChoiceLoader([PackageLoader(package, ""), PackageLoader(__package__, "")])


def picture(image: Uint8Image, longest_px: int = 192) -> str:
    """(H, W, 3) uint8 RGB -> a data URI of a JPEG, shrunk where it is larger."""
    shrunk = np.ascontiguousarray(images.shrink(image, longest_px))
    return data_uri(images.encode(shrunk))


def data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def grey(values: images.FloatArray) -> Uint8Image:
    """(H, W) in [0, 1] -> (H, W, 3) uint8, 1 is white."""
    return np.repeat(images.to_uint8(values)[..., None], 3, axis=2)


def histogram(values: ArrayLike, title: str, low: float, high: float, bins: int = 40) -> Markup:
    """A chart of how often values fall between low and high."""
    counts, edges = np.histogram(np.asarray(values, dtype=float), bins=bins, range=(low, high))
    frame = _Frame(low, high, 0, max(1, int(counts.max())))
    bars = "".join(
        f'<rect x="{frame.x(left):.1f}" y="{frame.y(count):.1f}" width="{frame.x(right) - frame.x(left) - 0.6:.1f}"'
        f' height="{frame.y(0) - frame.y(count):.1f}" fill="{_COLOURS[0]}"/>'
        for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    )
    return frame.chart(title, bars)


def lines(series: dict[str, Sequence[tuple[float, float]]], title: str) -> Markup:
    """A chart of named (x, y) series; values that are not finite are left out."""
    points = {name: [p for p in data if np.isfinite(p).all()] for name, data in series.items()}
    xs, ys = (np.array([p[i] for data in points.values() for p in data] or [0.0]) for i in (0, 1))
    margin = 0.05 * (ys.max() - ys.min()) or max(abs(ys.max()) * 0.05, 1e-3)
    bottom = ys.min() - margin
    bottom = max(0, bottom) if ys.min() >= 0 else bottom  # no share and no rate is negative
    frame = _Frame(xs.min(), max(xs.max(), xs.min() + 1e-9), bottom, ys.max() + margin)
    parts, names = [], []
    for i, (name, data) in enumerate(points.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in data)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        names.append(f'<span style="color: {colour}">\u2014 {Markup.escape(name)}</span>')
    legend = f'<p class="legend">{" ".join(names)}</p>' if len(names) > 1 else ""
    return frame.chart(title, "".join(parts), legend)


class Point(NamedTuple):
    """A dot of `scatter`; `facts` are its data- attributes, and what it is called."""

    x: float
    y: float
    facts: dict[str, str]


def scatter(groups: Mapping[str, Sequence[Point]], title: str) -> Markup:
    """A chart of dots without axes, a colour a group."""
    every = [point for points in groups.values() for point in points]
    xs, ys = [point.x for point in every], [point.y for point in every]
    frame = _Frame(min(xs), max(max(xs), min(xs) + 1e-9), min(ys), max(max(ys), min(ys) + 1e-9))
    dots = []
    for i, points in enumerate(groups.values()):
        colour = f"hsl({360 * i * 0.381966 % 360:.0f} {55 + 15 * (i % 3)}% {42 + 8 * (i % 2)}%)"  # golden angle apart
        for point in points:
            facts = " ".join(f'data-{name}="{Markup.escape(value)}"' for name, value in point.facts.items())
            name = Markup.escape(", ".join(f"{name} {value}" for name, value in point.facts.items()))
            place = f'cx="{frame.x(point.x):.1f}" cy="{frame.y(point.y):.1f}"'
            dots.append(f'<circle {place} r="3.5" fill="{colour}" {facts}><title>{name}</title></circle>')
    return _figure(title, "".join(dots))


def intervals(rows: Mapping[str, tuple[float, float, float]], title: str) -> Markup:
    """A chart of named values with their intervals (value, low, high), one below the other."""
    row, left, right = 22, 130, 60  # pixels
    height = row * len(rows) + _BOTTOM + _TOP
    most = max((high for _, _, high in rows.values()), default=1.0) or 1.0
    step = next(step for step in (10.0**k * m for k in range(-3, 6) for m in (1, 2, 5)) if most / step <= 6)
    most = step * math.ceil(most / step)

    def x(value: float) -> float:
        return left + value / most * (_WIDTH - left - right)

    parts = []
    for tick in np.arange(0, most + step / 2, step).tolist():
        at = x(tick)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{at:.0f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    for i, (name, (value, low, high)) in enumerate(rows.items()):
        y, colour = _TOP + row * (i + 0.5), _COLOURS[0]
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{Markup.escape(name)}</text>')
        parts.append(
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x(high) + 8:.1f}" y="{y + 4:.1f}">{value:.2f}</text>')
    return _figure(title, "".join(parts), height)


def as_svg_file(figure: Markup) -> str:
    """The picture of a chart as a file by itself, in colours that are read on white."""
    style = "<style>text{font:11px sans-serif;fill:#333}.grid{stroke:#ccc}</style>"
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    svg = str(figure)[str(figure).index("<svg") : str(figure).index("</svg>")]
    head, _, body = svg.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{background}{body}</svg>\n'


class _Frame:
    """The axes of a chart: data to pixels."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.limits = float(left), float(right), float(bottom), float(top)

    def x(self, value: float) -> float:
        left, right, _, _ = self.limits
        return _LEFT + (value - left) / (right - left) * (_WIDTH - _LEFT - 10)

    def y(self, value: float) -> float:
        _, _, bottom, top = self.limits
        return _HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (_HEIGHT - _BOTTOM - _TOP)

    def chart(self, title: str, body: str, legend: str = "") -> Markup:
        left, right, bottom, top = self.limits
        ticks = []
        for share in (0, 0.25, 0.5, 0.75, 1):
            x, y = left + share * (right - left), bottom + share * (top - bottom)
            ticks.append(f'<text x="{self.x(x):.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{x:.3g}</text>')
            ticks.append(f'<text x="{_LEFT - 6}" y="{self.y(y) + 4:.0f}" text-anchor="end">{y:.3g}</text>')
            ticks.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{self.y(y):.1f}" y2="{self.y(y):.1f}" class="grid"/>'
            )
        return _figure(title, "".join(ticks) + body, legend=legend)


def _figure(title: str, body: str, height: int = _HEIGHT, legend: str = "") -> Markup:
    name = Markup.escape(title)
    return Markup(
        f'<figure><figcaption>{name}</figcaption>{legend}<svg viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' aria-label="{name}">{body}</svg></figure>'
    )
