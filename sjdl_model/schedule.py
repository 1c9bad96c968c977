"""The published learning rate: linear warm-up over 10 epochs, then x 0.6 at fixed epochs of 120.

A run of another length goes through the same 120 published epochs, faster or slower.
"""

PUBLISHED_EPOCHS = 120
WARMUP_EPOCHS = 10
WARMUP_START = 0.01  # factor before the first epoch, so that epoch 1 has 0.109 of the full rate (1.09e-5)
DECAY = 0.6
DECAY_EPOCHS = (20, 30, 45, 60, 75, 90, 105, 120)


def lr_factor(step: int, total_steps: int) -> float:
    """The factor of the learning rate at a step (0 to total_steps - 1)."""
    epoch = _published_epoch(step, total_steps)
    if epoch < WARMUP_EPOCHS:
        return WARMUP_START + (1 - WARMUP_START) * epoch / WARMUP_EPOCHS
    return float(DECAY ** sum(epoch >= decay for decay in DECAY_EPOCHS))


def in_warmup(step: int, total_steps: int) -> bool:
    """Whether the rate still rises."""
    return _published_epoch(step, total_steps) < WARMUP_EPOCHS


def _published_epoch(step: int, total_steps: int) -> int:
    """1 to 120."""
    return step * PUBLISHED_EPOCHS // max(1, total_steps) + 1
