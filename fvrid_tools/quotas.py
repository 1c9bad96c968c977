"""How many vehicles and images of each source FVRID has, as Tables 1 and 2 say, and drawing just as many.

A recipe is a TOML file, manifests/fvrid_syn.toml or one's own:

    domain = "synthetic"                             or "real"
    [veri-wild]
    train = {vehicles = 1167, images = 19532}
    query = {vehicles = 389, images = 389}           one image of each test vehicle
    gallery = {vehicles = 389, images = 6125}        the same vehicles
"""

import hashlib
import heapq
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .files import find_manifest
from .records import SPLITS, Domain, FvridError, ImageRecord, Listing, OptionError, Row


class Quota(NamedTuple):
    """Vehicles, and images of all of them together."""

    vehicles: int
    images: int


Quotas = dict[str, dict[str, Quota]]  # by source and split


class _Short(Exception):
    """The vehicles there are do not hold what is asked for."""


def read_recipe(name_or_path: str, domain: Domain) -> Quotas:
    """A TOML file, or manifests/<name>.toml, for a domain.

    Raises OptionError where it is not there or of the other domain, FvridError where it is none.
    """
    path = find_manifest(name_or_path)
    if path is None:
        raise OptionError(
            f"--recipe {name_or_path}: no such file; take fvrid_syn, fvrid_real, or a TOML file of yours."
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FvridError(f"{path}: not a recipe ({error}); see manifests/fvrid_syn.toml.") from None
    named = content.pop("domain", None)
    if named not in ("synthetic", "real") or not content:
        raise FvridError(
            f'{path}: it needs domain = "synthetic" or "real", and a table a source; see manifests/fvrid_syn.toml.'
        )
    if named != domain:
        raise OptionError(f"--recipe {name_or_path}: it is of the {named} domain, not the {domain} one.")
    return {source: _quotas(table, f"{path}, [{source}]") for source, table in content.items()}


def _quotas(table: Any, where: str) -> dict[str, Quota]:
    try:
        quotas = {split: Quota(**table[split]) for split in SPLITS}
        counts = [count for quota in quotas.values() for count in quota]
        train, query, gallery = quotas.values()
        good = (
            table.keys() == quotas.keys()
            and all(type(count) is int and count >= 0 for count in counts)
            and query.vehicles == query.images == gallery.vehicles
            and all(quota.vehicles <= quota.images for quota in (train, gallery))
        )
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise FvridError(
            f"{where}: it needs train, query and gallery, each {{vehicles = N, images = N}}, with one image of each"
            " query vehicle and as many gallery vehicles; mend it."
        )
    return quotas


def take_drawn(listings: Sequence[Listing], name_or_path: str, domain: Domain, seed: int) -> list[Listing]:
    """Of the listings what the recipe asks for, drawn, each image with its split. Raises FvridError as `draw` does."""
    recipe = read_recipe(name_or_path, domain)
    split = draw((record for listing in listings for record in listing.records), recipe, seed)
    return [
        replace(
            listing,
            records=[replace(r, source_split=split[r.image_id]) for r in listing.records if r.image_id in split],
        )
        for listing in listings
    ]


def draw(images: Iterable[ImageRecord | Row], recipe: Quotas, seed: int) -> dict[str, str]:
    """image_id -> "train", "query" or "gallery", with exactly the recipe's counts for every source that is there.

    Where the source's own lists tell test from train, and hold enough of both, they are kept. Vehicles are drawn at
    random; where these have too few images, the smallest give way to larger ones. Images of other sources are left
    out. Every draw is a hash of (seed, name). Raises FvridError where a source holds too little, or none is there.
    """
    vehicles: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    listed: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for image in images:
        vehicles[image.source][image.vehicle_id].append(image.image_id)
        listed[image.source, image.vehicle_id].add(image.source_split)
    if not vehicles.keys() & recipe.keys():
        raise FvridError(f"the recipe is for {', '.join(recipe)}, and there are images of {', '.join(vehicles)}.")
    split: dict[str, str] = {}
    for source in sorted(vehicles.keys() & recipe.keys()):
        own = vehicles[source]
        order = sorted(own, key=lambda name, source=source: lot(seed, source, name))  # type: ignore[misc]
        train_list = [name for name in order if listed[source, name] == {"train"}]
        test_list = [name for name in order if listed[source, name] <= {"test", "query", "gallery"}]
        split |= _draw_source(own, order, (train_list, test_list), recipe[source], seed, source)
    return split


def _draw_source(
    vehicles: dict[str, list[str]],
    order: list[str],
    listed: tuple[list[str], list[str]],
    quotas: dict[str, Quota],
    seed: int,
    source: str,
) -> dict[str, str]:
    sizes = {name: len(images) for name, images in vehicles.items()}
    train = quotas["train"]
    test = Quota(quotas["query"].vehicles, quotas["query"].images + quotas["gallery"].images)
    attempts: tuple[Callable[[], tuple[list[str], list[str]]], ...] = (
        lambda: (_choose(listed[0], sizes, train, 1), _choose(listed[1], sizes, test, 2)),
        lambda: _choose_test_first(order, sizes, train, test),
        lambda: _choose_both(order, sizes, train, test),
    )
    for attempt in attempts:
        try:
            chosen = attempt()
            break
        except _Short as error:
            short = error
    else:
        raise FvridError(f"{source} holds too little for the recipe: {short}; take a smaller recipe.")
    split = dict.fromkeys(_take(chosen[0], vehicles, train.images, 1, seed), "train")
    tested = _take(chosen[1], vehicles, test.images, 2, seed)
    split |= dict.fromkeys(tested, "gallery")
    split |= dict.fromkeys(tested[: test.vehicles], "query")
    return split


def _choose(order: Iterable[str], sizes: dict[str, int], quota: Quota, least: int) -> list[str]:
    """Vehicles of at least `least` images, as early in `order` as the number of images allows."""
    rest = iter([name for name in order if sizes[name] >= least])
    chosen = [(sizes[name], name) for _, name in zip(range(quota.vehicles), rest, strict=False)]
    if len(chosen) < quota.vehicles:
        raise _Short(f"{quota.vehicles} vehicles of {least} images or more are asked for, and {len(chosen)} are there")
    heapq.heapify(chosen)
    held = sum(size for size, _ in chosen)
    for name in rest:
        if held >= quota.images:
            break
        if chosen and sizes[name] > chosen[0][0]:
            held += sizes[name] - heapq.heapreplace(chosen, (sizes[name], name))[0]
    if held < quota.images:
        raise _Short(f"{quota.images} images of {quota.vehicles} vehicles are asked for, and the largest have {held}")
    kept = {name for _, name in chosen}
    return [name for name in order if name in kept]


def _choose_test_first(
    order: list[str], sizes: dict[str, int], train: Quota, test: Quota
) -> tuple[list[str], list[str]]:
    tested = _choose(order, sizes, test, 2)
    taken = set(tested)
    return _choose([name for name in order if name not in taken], sizes, train, 1), tested


def _choose_both(order: list[str], sizes: dict[str, int], train: Quota, test: Quota) -> tuple[list[str], list[str]]:
    """Vehicles for both, from the same ones: as many as both need, parted, and exchanged until each part has enough."""
    tested = [name for name in order if sizes[name] > 1]
    if len(tested) < test.vehicles:
        raise _Short(f"{test.vehicles} test vehicles of 2 images or more are asked for, and {len(tested)} are there")
    # vehicles of two images and more first: the test needs them
    pool = _choose(
        [*tested, *(name for name in order if sizes[name] == 1)],
        sizes,
        Quota(train.vehicles + test.vehicles, train.images + test.images),
        1,
    )
    parts = pool[test.vehicles :], pool[: test.vehicles]
    held = [sum(sizes[name] for name in part) for part in parts]
    asked = (train.images, test.images)
    for short, other in ((0, 1), (1, 0)):
        while held[short] < asked[short]:
            pair = _exchange(parts[short], parts[other], sizes, held[other] - asked[other], least=1 + other)
            if pair is None:
                raise _Short(
                    f"{asked[short]} images are asked for, and no exchange of vehicles reaches more than {held[short]}"
                )
            i, j = pair
            gained = sizes[parts[other][j]] - sizes[parts[short][i]]
            held[short] += gained
            held[other] -= gained
            parts[short][i], parts[other][j] = parts[other][j], parts[short][i]
    return parts


def _exchange(
    short: list[str], other: list[str], sizes: dict[str, int], spare: int, least: int
) -> tuple[int, int] | None:
    """Positions of a smaller vehicle of `short` and a larger of `other` that differ most, by no more than `spare`."""
    smaller = {sizes[name]: i for i, name in enumerate(short) if sizes[name] >= least}
    larger = {sizes[name]: j for j, name in enumerate(other)}
    gains = [(b - a, i, j) for a, i in smaller.items() for b, j in larger.items() if 0 < b - a <= spare]
    if not gains:
        return None
    _, i, j = max(gains)
    return i, j


def _take(chosen: list[str], vehicles: dict[str, list[str]], count: int, least: int, seed: int) -> list[str]:
    """`count` images of the vehicles: one of each first, then `least` - 1 more of each, then any, at random."""
    ordered = [sorted(vehicles[name], key=lambda image: lot(seed, "image", image)) for name in chosen]
    sure = [images[i] for i in range(least) for images in ordered]
    rest = sorted((image for images in ordered for image in images[least:]), key=lambda image: lot(seed, "rest", image))
    return [*sure, *rest[: count - len(sure)]]


def lot(seed: int, *names: str) -> bytes:
    """What a name draws; things are ordered by it, so that their own order changes nothing."""
    return hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()


def published(domain: Domain) -> Quotas:
    """The counts of Table 2 (synthetic) or Table 1 (real) of the paper."""
    return read_recipe("fvrid_syn" if domain == "synthetic" else "fvrid_real", domain)
