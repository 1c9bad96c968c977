"""The commands of `sjdl` that use trained weights on ordinary images: embed, search, defog, export."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fvrid_tools.progress import bar

if TYPE_CHECKING:
    from .inference import Trained

PATH = click.Path(path_type=Path)
WEIGHTS = click.option("--weights", type=PATH, required=True, help="A weights file, or the folder of a run.")
IMAGES = click.argument("named", metavar="IMAGES...", nargs=-1, required=True, type=PATH)
FEATURE = click.option(
    "--feature",
    type=click.Choice(("after-bn", "before-bn")),
    default="after-bn",
    show_default=True,
    help="Which embedding.",
)
DOMAIN = click.option(
    "--domain",
    type=click.Choice(("real", "synthetic")),
    default="real",
    show_default=True,
    help="Which domain's statistics of batch norm to use, where there are two; synthetic for images to which fog"
    " was added.",
)
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
WORKERS = click.option(
    "--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Processes that decode images."
)


BATCH = click.option(
    "--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Images at a time in the network."
)


def _embedding_options(command: Any) -> Any:
    """What decides embeddings, and how fast they come."""
    options: tuple[Callable[[Any], Any], ...] = (
        BATCH,
        WORKERS,
        DEVICE,
        click.option(
            "--images",
            "condition",
            type=click.Choice(("foggy", "defogged")),
            default="foggy",
            show_default=True,
            help="Embed the images as they are, or what the network's defogging makes of them.",
        ),
        DOMAIN,
        FEATURE,
    )
    for option in options:
        command = option(command)
    return command


class _Refusals(dict[Path, str]):
    """Images that could not be used: each is named on stderr at once, and counted at the end."""

    def add(self, path: Path, reason: str) -> None:
        from tqdm import tqdm

        if path not in self:
            self[path] = reason
            tqdm.write(f"left out: {path}: {reason}", file=sys.stderr)

    def end(self, of: int) -> None:
        """Raise ClickException, for exit code 1, where there are any."""
        if self:
            raise click.ClickException(f"{len(self)} of {of} images could not be used; they are named above.")


# how torch says so, of a GPU, of the CPU, and of a DataLoader's worker
_MEMORY = (
    "out of memory",
    "allocate memory",
    "shared memory",
    "killed by signal: Killed",
    "killed by signal: Bus error",
)


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Turns the lack of memory into a sentence that ends with the advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        lines = str(error).strip().splitlines() or ["too little memory"]
        lines = [lines[0], lines[-1]]  # a DataLoader puts a worker's traceback between
        what = next((line for line in lines if any(sign in line for sign in _MEMORY)), None)
        if what is None and isinstance(error, RuntimeError):
            raise
        what = (what or lines[0])[:160].rstrip(". ")
        raise click.ClickException(f"{what}; {advice}.") from None


def _trained(weights: Path, device: str, domain: str, *, one_size: bool = True, condition: str = "foggy") -> "Trained":
    from .checkpoint import read_facts
    from .devices import pick_device, set_precision
    from .inference import load_trained

    chosen = pick_device(device)
    set_precision("float32", chosen, one_size=one_size)
    trained = load_trained(weights, chosen)
    trained.net.use_statistics_of(domain)
    if trained.net.cameras:
        click.echo(f"{weights}: it was trained with cameras, which images do not tell; it embeds without.", err=True)
    verdict = read_facts(weights).get("verdict", "")
    if condition == "defogged" and verdict and not verdict.startswith("defogs"):
        click.echo(f"{weights}: its training said of the defogging: {verdict}", err=True)
    return trained


def _embed(
    trained: "Trained",
    paths: Sequence[Path],
    refusals: _Refusals,
    what: str,
    feature: str,
    condition: str,
    **options: int,
) -> tuple[list[Path], Any]:
    """The images that could be used and their embeddings; DataError where none could."""
    from .config import DataError
    from .inference import embed_images

    with bar(len(paths), what) as shown, enough_memory("lower --batch"):
        embeddings = embed_images(
            trained.net,
            paths,
            trained.size,
            defog=condition == "defogged",
            before_bn=feature == "before-bn",
            progress=shown.update,
            refused=refusals.add,
            **options,
        )
    if not len(embeddings):
        raise DataError(f"none of the {len(paths)} images could be used; name others.")
    return [path for path in paths if path not in refusals], embeddings


@click.command()
@WEIGHTS
@IMAGES
@click.option("-o", "--out", type=PATH, required=True, metavar="FILE.npz", help="The file to write.")
@_embedding_options
def embed(
    weights: Path,
    named: tuple[Path, ...],
    out: Path,
    feature: str,
    domain: str,
    condition: str,
    device: str,
    workers: int,
    batch: int,
) -> None:
    """Embed image files, and all those below folders: one vector an image, to be compared by Euclidean distance.

    FILE.npz holds `embeddings` (N, D) float32 and `images` (N,), their paths, sorted. Images that cannot be used are
    named and left out; then the exit code is 1.
    """
    from .inference import Embeddings, check_output, find_images
    from .network import weights_file

    paths = find_images(named)
    trained = _trained(weights, device, domain, condition=condition)
    check_output(out, [*paths, weights_file(weights)])
    refusals = _Refusals()
    used, embeddings = _embed(trained, paths, refusals, "embed", feature, condition, workers=workers, batch=batch)
    made_by = {"weights_sha256": trained.sha256, "feature": feature, "images": condition, "domain": domain}
    Embeddings.of(used, embeddings, **made_by).save(out)
    click.echo(f"{out}: {len(used)} embeddings of {embeddings.shape[1]} dimensions")
    refusals.end(len(paths))


@click.command()
@WEIGHTS
@click.option("--gallery", type=PATH, required=True, help="A folder of images, or a file of sjdl embed.")
@IMAGES
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Gallery images to show.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: [{query, results: [{rank, image, distance}]}].")
@click.option(
    "--picture",
    type=PATH,
    metavar="FILE.jpg",
    help="Write a picture too (.jpg or .png): a row a query, left the query, then what was found.",
)
@_embedding_options
def search(
    weights: Path,
    gallery: Path,
    named: tuple[Path, ...],
    top: int,
    as_json: bool,
    picture: Path | None,
    feature: str,
    domain: str,
    condition: str,
    device: str,
    workers: int,
    batch: int,
) -> None:
    """Rank a gallery for each image by Euclidean distance: lines of rank, distance and path.

    An image is not found by itself; equal distances are in the order of the paths. Images that cannot be used, of the
    gallery or of the queries, are named and left out; then the exit code is 1.
    """
    from . import inference
    from .network import weights_file

    queries = inference.find_images(named)
    known = inference.Embeddings.load(gallery) if gallery.is_file() else None
    paths = inference.find_images([gallery]) if known is None else known.places()
    if picture is not None:
        inference.check_picture(picture, len(queries), min(top, len(paths)) + 1)
    trained = _trained(weights, device, domain, condition=condition)
    if picture is not None:
        inference.check_output(picture, [*queries, *paths, weights_file(weights), gallery])
    refusals = _Refusals()
    options: dict[str, Any] = {"feature": feature, "condition": condition, "workers": workers, "batch": batch}
    if known is None:
        found, rows = _embed(trained, paths, refusals, "gallery", **options)
        names = [str(path) for path in found]
    else:
        made_by = {"weights_sha256": trained.sha256, "feature": feature, "images": condition, "domain": domain}
        known.check_same(gallery, trained.net.neck.num_features, **made_by)
        found, rows, names = paths, known.embeddings, known.images
    asked, embeddings = _embed(trained, queries, refusals, "queries", **options)
    hits = inference.search(embeddings, rows, top, asked, found)
    if as_json:
        results = [
            {
                "query": str(query),
                "results": [
                    {"rank": rank, "image": names[hit.position], "distance": hit.distance}
                    for rank, hit in enumerate(ranked, 1)
                ],
            }
            for query, ranked in zip(asked, hits, strict=True)
        ]
        click.echo(json.dumps(results, indent=1))
    else:
        for query, ranked in zip(asked, hits, strict=True):
            click.echo(str(query) if ranked else f"{query}: the gallery holds no other image")
            for rank, hit in enumerate(ranked, 1):
                click.echo(f"{rank:5d}  {hit.distance:9.4f}  {names[hit.position]}")
    if picture is not None:
        shown = [[query, *(found[hit.position] for hit in ranked)] for query, ranked in zip(asked, hits, strict=True)]
        inference.write_picture(picture, shown, refusals.add)
    refusals.end(len({*queries, *paths}))


@click.command()
@WEIGHTS
@IMAGES
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder of the defogged images.")
@click.option(
    "--max-side",
    type=click.IntRange(min=32),
    default=2048,
    show_default=True,
    help="Pixels: larger images are shrunk for the network, and its result is enlarged again.",
)
@DOMAIN
@DEVICE
@WORKERS
def defog(
    weights: Path, named: tuple[Path, ...], out: Path, max_side: int, domain: str, device: str, workers: int
) -> None:
    """Take the fog away: DIR/NAME.png for each image file, and for all those below folders, at its own size.

    Folders below one that is named are kept, and no input is ever overwritten. Images that cannot be used are named and
    left out; then the exit code is 1.
    """
    from fvrid_tools.files import make_folder

    from .inference import defog_files, defog_targets

    targets = defog_targets(named, out)
    trained = _trained(weights, device, domain, one_size=False, condition="defogged")
    make_folder(out)
    refusals = _Refusals()
    with bar(len(targets), "defog") as shown, enough_memory("lower --max-side"):
        defog_files(
            trained.net, targets, max_side=max_side, workers=workers, progress=shown.update, refused=refusals.add
        )
    click.echo(f"{out}: {len(targets) - len(refusals)} images defogged")
    refusals.end(len(targets))


@click.command()
@WEIGHTS
@click.option("--format", "form", type=click.Choice(("onnx",)), required=True, help="What to write.")
@click.option("-o", "--out", type=PATH, required=True, metavar="FILE.onnx", help="The file to write.")
@FEATURE
@DOMAIN
@click.option("--batch", type=click.IntRange(min=1), help="A fixed number of images.  [default: any number]")
def export(weights: Path, form: str, out: Path, feature: str, domain: str, batch: int | None) -> None:
    """Write the re-identification branch for other runtimes: "image" -> "embedding", without the defogging branch.

    "image" is (batch, 3, S, S) float32 in [0, 1], S the size that the network was trained at; normalisation is inside.
    Needs the extra `onnx`.
    """
    import warnings

    from .inference import check_output, writing
    from .network import weights_file

    try:
        from . import onnx_export
    except ImportError as error:
        raise click.ClickException(f"{error}; install the packages with pip install 'fvrid[onnx]'.") from None

    trained = _trained(weights, "cpu", domain)
    check_output(out, [weights_file(weights)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and onnxscript, about each other: nothing that a user could mend
        model = onnx_export.to_onnx(
            trained.net,
            trained.size,
            before_bn=feature == "before-bn",
            batch=batch,
            facts={"weights_sha256": trained.sha256, "domain": domain},
        )
    with writing(out) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
    count, flops = onnx_export.parameters(model, trained.net), onnx_export.flops(model)
    alone = onnx_export.backbone_flops(trained.net, trained.size)
    whose = "the backbone's own" if flops == alone else f"{alone / 1e9:.3g} the backbone's own"
    click.echo(f"wrote {out}: {count / 1e6:.1f} M parameters, {flops / 1e9:.3g} GFLOP an image, {whose}")


COMMANDS = (embed, search, defog, export)
