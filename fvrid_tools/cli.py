"""The command `fvrid`: parse, delegate, print. Heavy imports are inside the commands, so that --help is fast."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, cli_scenes
from .command import POLARITY, REFINE, SEED, SPECS, WORKERS, FiniteRange, Sentences, open_depth
from .progress import bar
from .records import OptionError
from .sources import SOURCES

if TYPE_CHECKING:
    from .build import Recipe
    from .fog import FogRange, GivenFog
    from .records import Domain, Listing, Part, Place
    from .stats import Table

SYNTHETIC, REAL = Path("data/fvrid-syn"), Path("data/fvrid-real")


class _Sentences(Sentences):
    """And of an interrupt says whether the same command goes on."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            goes_on = ctx.invoked_subcommand in ("build-syn", "build-real", "render")
            raise click.ClickException("stopped" + "; the same command goes on where it was" * goes_on + ".") from None


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fvrid")
def cli() -> None:
    """Build, split, check and show the Foggy Vehicle Re-Identification dataset (FVRID)."""


DATA = click.argument("data", type=click.Path(path_type=Path), default=SYNTHETIC)
LABELS = click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Only the images that it names: FVRID_Label.csv of the authors, whose split fvrid split then follows, or what"
    " fvrid pick saved.",
)
RECIPE = click.option(
    "--recipe",
    metavar="NAME|TOML",
    help="Draw just as many vehicles and images as it says: fvrid_syn has Table 2 of the paper, fvrid_real Table 1.",
)
SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Build on a Dask cluster instead, such as tcp://host:8786 (extra dask)."
)


def _source_options(command: Any) -> Any:
    for option in (
        WORKERS,
        click.option(
            "--pattern",
            metavar="REGEX",
            help="For --src folder: finds vehicle_id, and camera_id, in the path, as in"
            r" '(?P<vehicle_id>\d+)_c(?P<camera_id>\d+)'.  [default: a folder is a vehicle]",
        ),
        click.option(
            "--root",
            "roots",
            type=click.Path(path_type=Path),
            multiple=True,
            help="Where the source lies; one a --src.  [default: $FVRID_VERI_WILD, $FVRID_VEHICLE_1M, ...,"
            " or data/SRC; mini lies inside the package]",
        ),
        click.option(
            "--src",
            "names",
            type=click.Choice(SOURCES),
            multiple=True,
            required=True,
            help="May repeat, to join sources.",
        ),
    ):
        command = option(command)
    return command


def _choice_options(command: Any) -> Any:
    for option in (SCHEDULER, RECIPE, LABELS):
        command = option(command)
    return command


@cli.command("build-syn")
@_source_options
@_choice_options
@click.option("--out", type=click.Path(path_type=Path), default=SYNTHETIC, show_default=True, help="A new folder.")
@click.option(
    "--depth",
    metavar="SPEC",
    help=f"{SPECS}.  [default: source where every --src carries depth, as mini does; else dcnf]",
)
@REFINE
@POLARITY
@click.option(
    "--fog",
    type=click.Choice(("paper", "release", "wide", "physical", "source")),
    help="Ranges of beta and A, physical those of a visibility of 25 to 150 m (beta per 81 m, not per unit of d); or"
    " source, the foggy images that it has itself.  [default: source where every --src has them, as fvrid does; else"
    " paper]",
)
@click.option(
    "--beta",
    type=(float, float),
    metavar="LO HI",
    help="Scattering coefficient, instead of the preset's: paper 0.4 1.6, release 1 5, wide 0.2 5; with --fog physical"
    " per 81 m.",
)
@click.option(
    "--airlight",
    type=(float, float),
    metavar="LO HI",
    help="Airlight A, instead of the preset's: paper 0.5 1, release 0.4 1, wide and physical 0.3 1.",
)
@click.option(
    "--max-density",
    type=FiniteRange(0, 1),
    help="Leave out images that are foggy already, of a fog density (see fvrid pick) above this.",
)
@click.option(
    "--codec",
    type=click.Choice(("jpeg", "png")),
    help="Of the foggy images.  [default: jpeg]",
)
@SEED
def build_syn(
    names: tuple[str, ...],
    roots: tuple[Path, ...],
    pattern: str | None,
    labels: Path | None,
    recipe: str | None,
    out: Path,
    depth: str | None,
    refine: Any,
    polarity: Any,
    fog: str | None,
    beta: tuple[float, float] | None,
    airlight: tuple[float, float] | None,
    max_density: float | None,
    codec: Any,
    seed: int,
    workers: int,
    scheduler: str | None,
) -> None:
    """Add fog to clear images: FVRID_Syn as HDF5 shards with a manifest."""
    from .build import Recipe
    from .fog import PRESETS, GivenFog

    spec, chosen = _depth_spec(depth, names), _fog(fog, beta, airlight, names)
    estimator = None
    if depth is not None:  # what is wrong with it is said before anything is read
        estimator = open_depth(spec, refine, polarity)
    listings = _read_sources(names, roots, pattern, "clear", labels, recipe, seed)
    records = [record for listing in listings for record in listing.records]
    if isinstance(chosen, GivenFog) and _lacks([record.foggy for record in records], "a foggy image", "paper", fog):
        chosen = PRESETS["paper"]
    if spec == "source" and _lacks([record.depth for record in records], "depth", "dcnf", depth):
        spec = "dcnf"
    if isinstance(chosen, GivenFog) and (codec or max_density is not None):
        raise OptionError("--fog source: its images are stored as they are; leave --codec and --max-density out.")
    estimator = estimator or open_depth(spec, refine, polarity)
    how = Recipe(seed=seed, codec=codec or "jpeg", depth=estimator, fog=chosen, max_density=max_density)
    _build(listings, out, how, workers, scheduler, drawn=recipe is not None)


def _lacks(places: "list[Place | None]", what: str, instead: str, asked: str | None) -> bool:
    """Say how many images come without; whether all do, and `instead` is to make it as nothing else was asked for."""
    lacking = sum(place is None for place in places)
    made = lacking == len(places) and asked is None
    if lacking:
        verb = "makes" if made else "would make"
        click.echo(f"{lacking} of {len(places)} images come without {what}; {instead} {verb} it.", err=True)
    return made


def _fog(
    named: str | None, beta: tuple[float, float] | None, airlight: tuple[float, float] | None, names: tuple[str, ...]
) -> "FogRange | GivenFog":
    """What --fog, --beta and --airlight say, or the default. OptionError where a source has no fog of its own."""
    from .fog import PRESETS, GivenFog
    from .sources import carries_fog

    bare = [name for name in names if not carries_fog(name)]
    if named == "source" or (named is None and not (bare or beta or airlight)):
        if bare:
            raise OptionError(f"--fog source: {bare[0]} has no foggy images of its own; take another, such as paper.")
        if beta or airlight:
            raise OptionError("--fog source: its beta and airlight are what they are; leave --beta and --airlight out.")
        return GivenFog()
    preset = PRESETS[named or "paper"]
    return replace(preset, beta=beta or preset.beta, airlight=airlight or preset.airlight)


def _depth_spec(named: str | None, names: tuple[str, ...]) -> str:
    """What --depth says, or its default. OptionError for `source` where one of the sources carries none."""
    from .sources import carries_depth

    bare = [name for name in names if not carries_depth(name)]
    if named == "source" and bare:
        raise OptionError(f"--depth source: {bare[0]} carries no depth of its own; take another, such as dcnf.")
    return named or ("dcnf" if bare else "source")


@cli.command("build-real")
@_source_options
@_choice_options
@click.option("--out", type=click.Path(path_type=Path), default=REAL, show_default=True, help="A new folder.")
@click.option(
    "--pairs",
    is_flag=True,
    help="Only foggy images that have a clear counterpart, stored with it and their depth: for measuring defogging"
    " (PSNR, SSIM), never for training.",
)
@click.option(
    "--min-density",
    type=FiniteRange(0, 1),
    help="Leave out images of a fog density (see fvrid pick) below this, such as 0.25.",
)
@SEED
def build_real(
    names: tuple[str, ...],
    roots: tuple[Path, ...],
    pattern: str | None,
    labels: Path | None,
    recipe: str | None,
    out: Path,
    pairs: bool,
    min_density: float | None,
    seed: int,
    workers: int,
    scheduler: str | None,
) -> None:
    """Store images of real fog as they are: FVRID_Real.

    Every image of the source is taken, of mini and fvrid the foggy ones; or what is dense enough for --min-density; or
    what --labels names, such as those that fvrid pick found.
    """
    from .build import Recipe
    from .depth import open_estimator
    from .sources import is_clear

    how = Recipe(seed=seed, depth=open_estimator("source") if pairs else None, min_density=min_density)
    listings = _read_sources(names, roots, pattern, "pairs" if pairs else "real", labels, recipe, seed)
    for name in () if labels or min_density else filter(is_clear, names):
        taken, then = "all its images are taken, and most were", ""
        if recipe:
            taken, then = "most of what is drawn was", ", without --recipe; fvrid split --recipe draws from that"
        mend = f"add --min-density, or --labels with what fvrid pick finds{then}."
        click.echo(f"{name}: {taken} not taken in fog; {mend}", err=True)
    _build(listings, out, how, workers, scheduler, drawn=recipe is not None)


def _read_sources(
    names: tuple[str, ...],
    roots: tuple[Path, ...],
    pattern: str | None,
    part: "Part",
    labels: Path | None,
    recipe: str | None,
    seed: int,
) -> "list[Listing]":
    """What lies in the sources, and of it what --labels or --recipe takes."""
    from .labels import take_labelled
    from .quotas import take_drawn
    from .sources import read_source

    if len(set(names)) < len(names):
        raise OptionError("a --src is named twice, and ids would clash; put both below one folder (links will do).")
    if roots and len(roots) != len(names):
        raise OptionError(f"{len(roots)} --root for {len(names)} --src: give one for each, in the same order.")
    if labels and recipe:
        raise OptionError("--labels and --recipe: the one names images, the other draws them; give one.")
    if pattern and "folder" not in names:
        raise OptionError(f"--pattern: {names[0]} reads names of its own; it is for --src folder.")
    listings = [
        read_source(name, root, pattern if name == "folder" else None, part)
        for name, root in zip(names, roots or [None] * len(names), strict=True)
    ]
    for listing in listings:
        click.echo(listing.summary, err=True)
    domain: Domain = "synthetic" if part == "clear" else "real"
    if labels:
        listings, table = take_labelled(listings, labels, domain)
        click.echo(table, err=True)
        return _noted(listings, "--labels", str(labels))
    if recipe:
        return _noted(take_drawn(listings, recipe, domain, seed), "--recipe", recipe)
    return listings


def _noted(listings: "list[Listing]", option: str, value: str) -> "list[Listing]":
    """The listings, so that dataset.json's command names the option that chose of them."""
    *others, last = listings
    return [*others, replace(last, options=f"{last.options} {option} {shlex.quote(value)}")]


def _build(
    listings: "list[Listing]", out: Path, recipe: "Recipe", workers: int, scheduler: str | None, *, drawn: bool
) -> None:
    """drawn: whether --recipe chose the images."""
    from .build import build

    given = click.get_current_context().get_parameter_source("workers")
    if scheduler and given is click.core.ParameterSource.COMMANDLINE:
        raise OptionError("--workers and --scheduler: the cluster has its own workers; give one.")
    asked = sum(len(listing.records) for listing in listings)
    with bar(asked, "build") as shown:
        done = build(listings, out, recipe, workers, shown.update, scheduler)
    reused = f", {done.reused} of them found finished" if done.reused else ""
    refused = f", {done.rejects} refused (see {out / 'rejects.csv'})" if done.rejects else ""
    if drawn and (lost := asked - done.images):
        refused += (
            f", {lost} of them drawn by --recipe, whose counts are missed; to draw from what can be used, build without"
            " it and run fvrid split --recipe"
        )
    if done.reused and done.rejects:
        refused += f"; to try those again, delete {out}"
    click.echo(f"{out}: {done.images} images of {done.vehicles} vehicles in {done.seconds:.1f} s{reused}{refused}")


@cli.command()
@DATA
@click.option(
    "--test-share",
    type=FiniteRange(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    help="Vehicles for the test, of sources whose own lists do not say.",
)
@click.option("--ignore-lists", is_flag=True, help="Draw the test vehicles even where the source's lists name them.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Split as it says, in the form of the authors' FVRID_Label.csv; images that it does not name are in no split.",
)
@RECIPE
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Another dataset, of the same vehicles, that is split: here the same are tested.",
)
@click.option(
    "--test-list",
    type=click.Path(path_type=Path),
    metavar="TXT",
    help="One of the source's own test sets: VERI-Wild's test_3000.txt, with the queries of test_3000_query.txt beside"
    " it, VehicleID's test_list_800.txt, ... Its other test images are in no split; other sources train.",
)
@SEED
def split(
    data: Path,
    test_share: float,
    ignore_lists: bool,
    labels: Path | None,
    recipe: str | None,
    like: Path | None,
    test_list: Path | None,
    seed: int,
) -> None:
    """Part vehicles into training and test, and test images into query (one a vehicle) and gallery."""
    from .dataset import open_dataset
    from .split import write_split
    from .stats import count, to_text

    if labels and recipe:
        raise OptionError("--labels and --recipe: the one names images, the other draws them; give one.")
    if like and (labels or recipe):
        raise OptionError("--like: --labels and --recipe name the vehicles themselves; leave it out.")
    if test_list and (labels or recipe or like or ignore_lists):
        raise OptionError(
            "--test-list goes with the source's own lists; leave --labels, --recipe, --like, --ignore-lists out."
        )
    said = write_split(data, seed, test_share, not ignore_lists, labels, recipe, like, test_list)
    if said:
        click.echo(said, err=True)
    finished = open_dataset(data)
    click.echo(to_text(count(finished), finished.domain))


@cli.command()
@DATA
def verify(data: Path) -> None:
    """Check every hash and every row; exit code 1 if anything is not as it was built."""
    from .manifest import read_dataset
    from .verify import find_problems

    with bar(read_dataset(data)["images"], "verify") as shown:
        problems = find_problems(data, shown.update)
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(1)
    click.echo(f"{data}: every shard and every row is as it was built")


@cli.command()
@click.argument("data", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="As JSON: {domain, counts, published}, the latter two {source: {split: {identities, images}}}; of several a"
    " list.",
)
def stats(data: tuple[Path, ...], as_json: bool) -> None:
    """Print identities and images per source and split, as Tables 1 and 2 of the paper do, and what these say."""
    from .dataset import open_dataset
    from .stats import as_published, count, to_text

    found = [open_dataset(folder) for folder in data or [p for p in (SYNTHETIC, REAL) if p.exists()] or [SYNTHETIC]]
    tables = [(count(one), one.domain) for one in found]
    if as_json:
        named = [
            {"domain": domain, "counts": _named(table), "published": _named(as_published(domain))}
            for table, domain in tables
        ]
        click.echo(json.dumps(named if len(named) > 1 else named[0], indent=1))
    else:
        click.echo("\n\n".join(to_text(table, domain) for table, domain in tables))


def _named(table: "Table") -> dict[str, Any]:
    return {
        source: {split: {"identities": ids, "images": images} for split, (ids, images) in row.items()}
        for source, row in table.items()
    }


@cli.command()
@DATA
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.html",
    help="The page to write.",
)
@click.option("--pictures", type=click.IntRange(min=1), default=24, show_default=True, help="Images to show.")
def report(data: Path, out: Path, pictures: int) -> None:
    """Show a dataset on one HTML page: clear | depth | transmission | foggy, and histograms of beta, A and t."""
    from .dataset import open_dataset
    from .files import make_folder, write_atomic
    from .report import SAMPLED, dataset_report

    finished = open_dataset(data)
    make_folder(out.parent)
    with bar(min(len(finished), pictures) + min(len(finished), SAMPLED), "report") as shown:
        page = dataset_report(finished, pictures, shown.update)
    write_atomic(out, page)
    click.echo(out)


@cli.command("export")
@DATA
@click.option("--format", "form", type=click.Choice(("folder", "webdataset")), required=True, help="What to write.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
def export_command(data: Path, form: Any, out: Path) -> None:
    """Write a dataset as the authors' folders of images, or as webdataset tars."""
    from .dataset import open_dataset
    from .export import FIRST_REAL, export

    finished = open_dataset(data)
    if finished.domain == "synthetic" and finished.info["vehicles"] > FIRST_REAL:
        click.echo(f"vehicles from {FIRST_REAL} on share their numbers with those of an exported FVRID_real.", err=True)
    with bar(len(finished), "export") as shown:
        count = export(finished, form, out, shown.update)
    click.echo(f"{out}: {count} images")


@cli.command()
@_source_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the page and the table.")
@click.option("--top", type=click.IntRange(min=1), default=200, show_default=True, help="Images on the page.")
@click.option(
    "--min-density", type=FiniteRange(0, 1), default=0.0, help="Show none that is less foggy.  [default: any]"
)
def pick(
    names: tuple[str, ...],
    roots: tuple[Path, ...],
    pattern: str | None,
    out: Path,
    top: int,
    min_density: float,
    workers: int,
) -> None:
    """Find the images taken in fog: rank all by fog density, from 0 to 1, and show the foggiest on a page to pick from.

    OUT/density.csv has every image. OUT/pick.html saves what is ticked as picked.csv; build from it with
    fvrid build-real --labels picked.csv and the same --src.
    """
    from .density import FOGGY
    from .manifest import REJECTS
    from .pick import PAGE, pick

    listings = _read_sources(names, roots, pattern, "real", None, None, 0)
    with bar(sum(len(listing.records) for listing in listings), "pick") as shown:
        done = pick(listings, out, top, min_density, workers, shown.update)
    refused = f", {done.rejects} refused (see {out / REJECTS})" if done.rejects else ""
    click.echo(
        f"{out}: {done.ranked} images ranked, {done.foggy} above a density of {FOGGY:g}{refused};"
        f" look at the {done.shown} foggiest in {out / PAGE}"
    )


for command in cli_scenes.COMMANDS:
    cli.add_command(command)
