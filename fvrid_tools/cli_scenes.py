"""The commands of `fvrid` that make what is not there yet: depth of images, rendered scenes. Heavy imports are inside
the commands, so that --help is fast."""

from pathlib import Path
from typing import Any

import click

from .command import POLARITY, REFINE, SEED, SPECS, WORKERS, open_depth
from .progress import bar
from .records import OptionError


class _DepthGroup(click.Group):
    """`fvrid depth IMAGES...` is short for `fvrid depth pictures IMAGES...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["pictures", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DepthGroup)
def depth() -> None:
    """Estimate the depth of images, or train the estimator.

    `fvrid depth IMAGES... --out DIR` is short for `fvrid depth pictures IMAGES... --out DIR`.
    """


@depth.command("pictures")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--depth", "spec", metavar="SPEC", default="dcnf", show_default=True, help=f"{SPECS}.")
@REFINE
@POLARITY
@WORKERS
def depth_pictures(images: tuple[Path, ...], out: Path, spec: str, refine: Any, polarity: Any, workers: int) -> None:
    """Write depth pictures of images, or of folders of them, and a contact sheet.

    OUT/NAME.png has 16 bits, OUT/NAME/predict_depth_gray.png 8 as the original's; far is white in both.
    """
    from .estimate import SHEET, estimate, find_images

    records = find_images(images, out)
    estimator = open_depth(spec, refine, polarity)
    with bar(len(records), "depth") as shown:
        done = estimate(records, out, estimator, workers, shown.update)
    refused = [one.refused for one in done if one.refused]
    click.echo(f"{out}: depth of {len(done) - len(refused)} images; look at {out / SHEET}")
    if refused:
        raise click.ClickException("\n".join(refused))


@depth.command("train")
@click.option(
    "--scenes",
    "folders",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="What fvrid render wrote, best with --wide; may repeat. The word mini stands for the views in the package.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.safetensors",
    help="The weights.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=36, show_default=True, help="Of the network by itself.")
@click.option(
    "--field-epochs", type=click.IntRange(min=0), default=1, show_default=True, help="Of the likelihood of the field."
)
@SEED
def depth_train(folders: tuple[Path, ...], out: Path, epochs: int, field_epochs: int, seed: int) -> None:
    """Train the weights of --depth dcnf from rendered scenes; test vehicles are left out, and measured at the end.

    Use them as --depth dcnf:FILE.
    """
    from .depth.accuracy import measure
    from .depth.dcnf import training
    from .depth.dcnf.estimator import DCNF
    from .files import make_folder
    from .sources import mini, read_source

    recipe = training.DepthRecipe(seed=seed, dense_epochs=epochs, field_epochs=field_epochs)
    roots = [mini.EMBEDDED if folder == Path("mini") else folder for folder in folders]
    listings = [read_source("mini", root) for root in roots]
    records = {
        split: [r for listing in listings for r in listing.records if r.source_split == split]
        for split in ("train", "test")
    }
    for listing in listings:
        click.echo(listing.summary, err=True)
    make_folder(out.parent)  # now, not after the training
    with bar(training.visits(len(records["train"]), recipe), "train") as shown:
        net = training.train(records["train"], recipe, shown.update)
    training.save(net, out, recipe, [mini.recipe_of(root) for root in roots])
    click.echo(out)
    if records["test"]:
        with bar(len(records["test"]), "measure") as shown:
            scores = measure(DCNF(out), records["test"], shown.update)
        click.echo("held out: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))


_FOGS: dict[str, Any] = {
    "none": (),
    "homogeneous": ("homogeneous",),
    "patchy": ("patchy",),
    "mixed": ("homogeneous", "patchy"),
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder, or one to go on with.")
@click.option("--vehicles", type=click.IntRange(min=1), default=100, show_default=True, help="How many vehicles.")
@click.option("--views", type=click.IntRange(min=1), default=8, show_default=True, help="Images of each.")
@click.option(
    "--fog",
    type=click.Choice(tuple(_FOGS)),
    default="none",
    show_default=True,
    help="Path-traced fog: of one density, or in patches.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Test vehicles in fog whose clear counterparts are rendered too.",
)
@click.option(
    "--counterparts",
    is_flag=True,
    help="Render the views of this --fog on a clear day instead, under the same names: what a defogger is to find.",
)
@click.option(
    "--wide",
    is_flag=True,
    help="A camera of its own for every view, near and far, at any angle, and all kinds as often: to learn depth from.",
)
@click.option(
    "--size", type=click.IntRange(min=32), default=128, show_default=True, help="Pixels a side, a multiple of 4."
)
@click.option(
    "--samples", type=click.IntRange(min=4), default=12, show_default=True, help="Paths a pixel: noise against time."
)
@WORKERS
@SEED
def render(
    out: Path,
    vehicles: int,
    views: int,
    fog: str,
    pairs: int,
    counterparts: bool,
    wide: bool,
    size: int,
    samples: int,
    workers: int,
    seed: int,
) -> None:
    """Path-trace vehicles seen by surveillance cameras, clear with exact depth or in fog: a source of images.

    Needs the extra `render`. A render that was stopped goes on where it was. Build from it with --src mini --root OUT.
    """
    if size % 4:
        raise OptionError(f"--size {size}: take a multiple of 4.")
    if pairs and fog == "none":
        raise OptionError("--pairs: clear views have no clear counterpart; name a --fog.")
    if counterparts and fog == "none":
        raise OptionError("--counterparts: these views are clear already; name the --fog they are to be without.")
    if counterparts and pairs:
        raise OptionError("--counterparts: every view is rendered clear; leave --pairs out.")
    if wide and fog != "none":
        raise OptionError("--wide: these views carry depth, which views in fog do not; leave --fog out.")
    from .render.plan import Fleet
    from .render.run import Recipe, render

    fleet = Fleet(seed=seed, vehicles=vehicles, views=views, fog=_FOGS[fog], pairs=pairs, wide=wide)
    recipe = Recipe(fleet=fleet, size=size, samples=samples, counterparts=counterparts)
    with bar(vehicles * views, "render") as shown:
        count = render(out, recipe, workers, shown.update)
    click.echo(f"{out}: {count} images of {vehicles} vehicles")


COMMANDS = (depth, render)
