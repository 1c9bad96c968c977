"""Local contrast before the backbone: what it costs, and what it does for photographs in fog.

    cost          embedding images of 384 x 384 by ResNet-50 with it over the same without it; and with contrast over
                  the whole image as well
    photographs   mAP of a ResNet-18 at 96 x 96, trained in the fog of the preset `release` (400 steps, identity and
                  triplet loss) without it and with it, with contrast over the whole image as well, and with half
                  instance norm too; tested on other vehicles in fog and clear; intervals over the queries. Left out
                  where there are no photographs

Exit code 1 where local contrast costs more than 1.05, or gains nothing in fog.
"""

from pathlib import Path
from typing import Any

import torch
from harness import finish, options, ratio, rotate, scratch, summary

from fvrid_tools import open_dataset
from fvrid_tools.build import Recipe, build
from fvrid_tools.dataset import Dataset
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.sources import read_source
from fvrid_tools.split import write_split
from sjdl_model import SJDL
from sjdl_model.config import read_recipe
from sjdl_model.evaluate import Embedder, TestSet, evaluate_dataset
from sjdl_model.network import load_network
from sjdl_model.train import train

SWITCHES = ("local_contrast", "whole_contrast", "ibn")
ARMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "local": SWITCHES[:1],
    "local, whole": SWITCHES[:2],
    "local, whole, ibn": SWITCHES,
}
SIZE, BATCH = 384, 4
LIMIT = 1.05
RECIPE = (
    "backbone=resnet18",
    "image_size=96",
    "last_stride=2",
    "p=16",
    "k=2",
    "epochs=1",
    "steps_per_epoch=400",
    "lr=1e-3",
    "precision=bfloat16",
    "workers=0",
)


def cost(rounds: int) -> dict[str, Any]:
    images = torch.rand(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    nets = {
        name: SJDL(2, 0, "resnet50", **dict.fromkeys(switches, True)).to(memory_format=torch.channels_last).eval()
        for name, switches in ARMS.items()
    }
    with torch.inference_mode():
        seconds = rotate({name: (lambda net=net: net.embed(images)) for name, net in nets.items()}, rounds)
    timed: dict[str, Any] = {name: summary(times, BATCH) for name, times in seconds.items()}
    return timed | {f"{name}_over_plain": ratio(seconds, name, "plain") for name in list(ARMS)[1:]}


def build_photographs(images: Path, out: Path) -> Dataset:
    recipe = Recipe(depth=open_estimator("dcnf"), fog=PRESETS["release"])
    build([read_source("veri-wild", images)], out, recipe, workers=2)
    write_split(out, seed=0)
    return open_dataset(out)


def trained(data: Dataset, run: Path, start: Path | None, switches: tuple[str, ...]) -> dict[str, Any]:
    """mAP in percent with its interval, by what is tested."""
    pretrained = "false" if start is None else str(start)
    changes = [*RECIPE, f"pretrained={pretrained}", *(f"{name}={str(name in switches).lower()}" for name in SWITCHES)]
    train(data, None, read_recipe("baseline", changes), run)
    net, architecture = load_network(run)
    test = TestSet(data, queries="all")
    found = {}
    for condition in ("foggy", "clear"):
        result = evaluate_dataset(Embedder(net=net, size=architecture.image_size), test, condition).to_json()
        interval = [round(100 * limit, 2) for limit in result["intervals"]["mAP"]]
        found[condition] = {"mAP": round(100 * result["mAP"], 2), "interval": interval}
    return found


def main() -> None:
    arguments = options(__doc__, start=True)
    results: dict[str, Any] = {"cost": cost(arguments.rounds)}
    failures = []
    over = results["cost"]["local_over_plain"]
    if over > LIMIT:
        failures.append(f"local contrast costs {over}, more than {LIMIT}")
    if arguments.images.is_dir():
        with scratch() as folder:
            data = build_photographs(arguments.images, Path(folder) / "data")
            found = {
                name: trained(data, Path(folder) / name, arguments.start, switches) for name, switches in ARMS.items()
            }
        results["photographs"] = found
        if found["local"]["foggy"]["mAP"] <= found["plain"]["foggy"]["mAP"]:
            failures.append("local contrast gains nothing on photographs in fog")
    finish(arguments, results, failures)


if __name__ == "__main__":
    main()
