"""All loss terms over the whole batch, forward and backward, as a share of a training step on the CPU.

A step is a synthetic and a real batch of 12 at 192 x 192 through ResNet-50 (last stride 1) and the FIRM, and one
update by Adam. The limit is a step whose losses cost nothing.
"""

import torch
from harness import finish, options, rotate, summary

from sjdl_model import SJDL, losses
from sjdl_model.config import read_recipe
from sjdl_model.data import Batch
from sjdl_model.network import SJDLOutput
from sjdl_model.objectives import reid_terms, terms, total, unsupervised_terms

SIZE, BATCH, K = 192, 12, 4


def batches() -> tuple[Batch, Batch]:
    torch.manual_seed(0)
    foggy, clear = (torch.rand(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last) for _ in range(2))
    label = torch.arange(BATCH) // K
    return Batch(foggy, clear, label, label), Batch(foggy, None, label, label)


def main() -> None:
    arguments = options(__doc__)
    results = {}
    for name in ("paper", "default"):
        recipe = read_recipe(name, ["pretrained=false"])
        net = SJDL(3000, 403, recipe.backbone, last_stride=1).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-6)
        synthetic, real = batches()
        with torch.no_grad():
            outputs = [net(batch.foggy) for batch in (synthetic, real)]

        def step(net=net, optimizer=optimizer, recipe=recipe, domains=(synthetic, real)) -> None:
            optimizer.zero_grad(set_to_none=True)
            for batch in domains:
                total(terms(net, batch, recipe), recipe.weights).backward()
            optimizer.step()

        def losses_only(outputs=outputs, recipe=recipe, domains=(synthetic, real)) -> None:
            for out, batch in zip(outputs, domains, strict=True):
                leaves = SJDLOutput(*(tensor.detach().requires_grad_() for tensor in out))
                found = reid_terms(leaves, batch, recipe)
                if batch.clear is not None:
                    found["restoration"] = losses.restoration_loss(
                        leaves.defogged, batch.clear, recipe.restoration_norm
                    )
                else:
                    found |= unsupervised_terms(leaves.defogged, batch.foggy, recipe)
                total(found, recipe.weights).backward()

        seconds = rotate({"step": step, "losses": losses_only}, arguments.rounds)
        share = min(seconds["losses"]) / min(seconds["step"])
        results[name] = {
            **{rival: summary(times) for rival, times in seconds.items()},
            "losses_share_of_step": round(share, 4),
        }
    finish(arguments, {"size": SIZE, "batch": BATCH, "backbone": "resnet50", **results})


if __name__ == "__main__":
    main()
