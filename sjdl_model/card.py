"""The model card of a run: README.md in the form that the Hugging Face hub reads."""

import json
import math
from pathlib import Path
from typing import Any

import safetensors
from huggingface_hub import EvalResult, ModelCardData

from fvrid_tools.files import write_atomic

from .metrics import SCORES
from .network import WEIGHTS
from .report import RECIPE, label, read_results, read_text

CARD = "README.md"


def write_card(run: Path) -> None:
    """Write README.md of what lies in the run's folder: weights with their metadata, recipe.toml, eval-*.json.

    Raises DataError where a result cannot be read.
    """
    with safetensors.safe_open(run / WEIGHTS, "pt") as file:
        facts: dict[str, str] = file.metadata()
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    write_atomic(run / CARD, _card(run, facts, parameters, read_results(run)))


def _card(run: Path, facts: dict[str, str], parameters: int, results: dict[str, dict[str, Any]]) -> str:
    name = run.resolve().name
    architecture = json.loads(facts["sjdl"])
    data = ModelCardData(
        library_name="sjdl_model",
        tags=["vehicle-re-identification", "fog", "image-retrieval", "defogging", "sjdl"],
        pipeline_tag="image-feature-extraction",
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="image-retrieval",
                dataset_type=f"fvrid-{result['domain']}",
                dataset_name=f"FVRID, {result['domain']}",
                dataset_config=config,
                dataset_split="test",
                metric_type=score,
                metric_value=round(100 * result[score], 2),
            )
            for config, result in results.items()
            for score in SCORES
        ]
        or None,
    )
    return f"""---
{data.to_yaml()}
---

# {name}

Weights of SJDL (semi-supervised joint defogging learning, Chen et al., AAAI 2022): a network that finds a vehicle again
among images of other cameras, in fog. The shallow stages serve re-identification and a defogging branch; the embedding
needs the first alone.

```python
from sjdl_model import SJDL

net = SJDL.from_pretrained("{name}")  # this folder
embedding = net.embed(images)  # (B, 3, {architecture["image_size"]}, {architecture["image_size"]}) in [0, 1] -> (B, D)
```

`sjdl embed`, `sjdl search`, `sjdl defog` and `sjdl export` use it on folders of images.

## Facts

| | |
|---|---|
| backbone | {architecture["backbone"]}, shared up to conv_{architecture["shared_stage"]} |
| input | RGB in [0, 1], {architecture["image_size"]} x {architecture["image_size"]} pixels |
| numbers in the weights | {parameters:,} with the defogging branch |
| trained on | {architecture["num_synthetic"]:,} vehicles in synthetic fog, {architecture["num_real"]:,} in real fog |
| data | {_commands(facts)} |
| its manifests (SHA-256) | {facts.get("data", "unknown")} |
| code | {facts.get("git", "unknown")} |
| versions | {_versions(facts)} |
| defogging, at the end of its training | {facts.get("verdict") or "not known"} |

## Scores

{_scores({label(config): result for config, result in results.items()})}

## Intended use and limits

For research on re-identification in fog, and for searching a gallery of one's own for a vehicle that is shown: crops of
single vehicles, as the training images are. It ranks by likeness and proves no identity: two vehicles of one model and
colour look alike to it, and scores fall with the fog and with cameras and vehicles unlike those it was trained on. It
was not made for faces, people or number plates. Where images show traffic, the law of the place on watching people
applies. The defogging branch makes images that look likely, not measurements of what fog hid.

## Recipe

```toml
{read_text(run / RECIPE).strip()}
```
"""


def _commands(facts: dict[str, str]) -> str:
    """That build the datasets: their sources, depth and fog."""
    lines = facts.get("built", "unknown").replace("|", "\\|").replace("`", "'").splitlines()
    return "<br>".join(f"`{line}`" for line in lines)


def _versions(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in json.loads(facts.get("versions", "{}")).items())


def _scores(results: dict[str, dict[str, Any]]) -> str:
    if not results:
        return "Not evaluated yet: `sjdl eval` adds the scores here."
    lines = ["| test images | " + " | ".join(f"{name} %" for name in SCORES) + " |", "|---" * (len(SCORES) + 1) + "|"]
    for which, result in results.items():
        cells = [f"{100 * result[name]:.2f}{_interval(result, name)}" for name in SCORES]
        lines.append(f"| {which} | " + " | ".join(cells) + " |")
    protocols = [
        f"- {which}: {result['protocol']}; feature {result['feature']}; dataset {result.get('dataset', 'unknown')}."
        for which, result in results.items()
    ]
    return "\n".join([*lines, "", "In brackets: 95 % intervals, bootstrap over the queries.", "", *protocols])


def _interval(result: dict[str, Any], name: str) -> str:
    if name not in result.get("intervals", {}):
        return ""
    low, high = result["intervals"][name]
    return f" [{100 * low:.1f}, {100 * high:.1f}]"
