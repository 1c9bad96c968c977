"""A training step on the CPU: what the losses add to it, and where the network's FLOPs are.

A step is a synthetic and a real batch of 12 at 192 x 192 through ResNet-50 (last stride 1) and the FIRM.

    step      all of it: forward, every loss, backward, the update by Adam
    plain     forward and backward of the same network with the plain sum of its outputs as the loss: the limit
    losses    all terms alone, forward and backward, on outputs that are kept

Exit code 1 where a step costs more than 1.05 times the plain one. FLOPs (2 a multiply-add) are those of a forward pass
of one image at 384 x 384, by torch's counter.
"""

import torch
from harness import finish, options, ratio, rotate, summary
from torch.utils.flop_counter import FlopCounterMode

from sjdl_model import SJDL, losses
from sjdl_model.config import read_recipe
from sjdl_model.data import Batch
from sjdl_model.engine import Trainer
from sjdl_model.network import Architecture, SJDLOutput
from sjdl_model.objectives import reid_terms, total, unsupervised_terms

SIZE, BATCH, K = 192, 12, 4
PUBLISHED_SIZE = 384
LIMIT = 1.05


def batches() -> tuple[Batch, Batch]:
    torch.manual_seed(0)
    foggy, clear = (torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2))
    label = torch.arange(BATCH) // K
    return Batch("synthetic", foggy, label, label, clear), Batch("real", foggy, label, label)


def flops() -> dict[str, object]:
    """GFLOP by part, for every stage that can be shared (Table 5)."""
    image = torch.zeros(1, 3, PUBLISHED_SIZE, PUBLISHED_SIZE)
    found: dict[str, object] = {}
    for stage in (2, 3, 4, 5):
        net = SJDL(3000, 403, "resnet50", shared_stage=stage, last_stride=1).eval()
        counts = {}
        works = {"reid": net.embed, "whole": net, "defog": net.defog}
        for part, work in works.items():
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                work(image)
            counts[part] = counter.get_total_flops() / 1e9
        firm = counts["whole"] - counts["reid"]
        found[f"shared_stage {stage}"] = {
            "reid_gflop": round(counts["reid"], 1),
            "firm_gflop": round(firm, 1),
            "firm_share_of_forward": round(firm / counts["whole"], 3),
            "defog_alone_gflop": round(counts["defog"], 1),
        }
    return found


def main() -> None:
    arguments = options(__doc__, images=False, rounds=11)
    results: dict[str, object] = {}
    failures = []
    device = torch.device("cpu")
    for name in ("paper", "default"):
        recipe = read_recipe(name, ["pretrained=false", "lr=1e-6"])
        of_recipe = {key: getattr(recipe, key) for key in Architecture._fields if hasattr(recipe, key)}
        net = Architecture(num_synthetic=3000, num_real=403, **of_recipe).build()
        net = net.to(memory_format=torch.channels_last).train()
        trainer = Trainer(net, recipe, 1000, device)
        domains = batches()
        images = [batch.to(device) for batch in domains]
        with torch.no_grad():
            outputs = [net(batch.foggy) for batch in images]

        def step(trainer=trainer, domains=domains) -> None:
            trainer.step(0, domains)

        def plain(net=net, domains=domains) -> None:
            net.zero_grad(set_to_none=True)
            for batch in domains:
                out = net(batch.to(device).foggy)
                torch.stack([part.sum() for part in out]).sum().backward()

        def losses_only(outputs=outputs, recipe=recipe, images=images) -> None:
            for out, batch in zip(outputs, images, strict=True):
                leaves = SJDLOutput(*(tensor.detach().requires_grad_() for tensor in out))
                found = reid_terms(leaves, batch, recipe)
                if batch.clear is not None:
                    found["restoration"] = losses.restoration_loss(
                        leaves.defogged, batch.clear, recipe.restoration_norm
                    )
                else:
                    found |= unsupervised_terms(leaves.defogged, batch.foggy, recipe)
                total(found, recipe.weights).backward()

        seconds = rotate({"step": step, "plain": plain, "losses": losses_only}, arguments.rounds)
        over_plain = ratio(seconds, "step", "plain")
        results[name] = {
            **{rival: summary(times) for rival, times in seconds.items()},
            "step_over_plain": over_plain,
            "losses_share_of_step": ratio(seconds, "losses", "step"),
        }
        if over_plain > LIMIT:
            failures.append(f"{name}: a step costs {over_plain} times the plain one, more than {LIMIT}")
    shape = {"size": SIZE, "batch": BATCH, "backbone": "resnet50", "flops_at_384": flops()}
    finish(arguments, {**shape, **results}, failures)


if __name__ == "__main__":
    main()
