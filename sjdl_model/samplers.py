"""P x K batches whose every draw is a function of (seed, step): no state, so any step can be made again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .config import DataError


class Visit(NamedTuple):
    """One image to load, and the seed of its augmentation."""

    image: int  # position in the training set
    seed: int


class PKSampler:
    """Batches of P vehicles with K images each, numbered by step.

    A round visits every vehicle once, P at a time, in an order of its own. What is left of a round that does not
    fill a batch is filled up with the next round's first vehicles that the batch does not hold yet; where it holds
    one of those, the vehicle after them comes twice in that round, and the one passed over not at all. A vehicle's
    images take turns from round to round in a fixed circle, so only images near each other in it share a batch; an
    image repeats in a batch where the vehicle has fewer than K. Dealing them anew was no better (docs/results.md).
    """

    def __init__(self, labels: Sequence[int], p: int, k: int, seed: int, of: object = "these images") -> None:
        """labels: the label of each image.  of: what they are of.  Raises DataError where there are fewer than `p`
        vehicles."""
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(np.asarray(labels)[order], return_index=True)
        self._images = np.split(order, starts[1:])  # of each vehicle
        if len(self._images) < p:
            raise DataError(
                f"{of}: {len(self._images)} vehicles to train on are fewer than p = {p}; lower p, or add vehicles."
            )
        self._p, self._k, self._seed = p, k, seed

    def batch(self, step: int) -> list[Visit]:
        """The P * K visits of a step, the images of a vehicle side by side."""
        vehicles = self._vehicles(step)
        draws = np.random.default_rng([self._seed, 1, step])
        return [
            Visit(int(image), int(draws.integers(2**63)))
            for vehicle, turn in vehicles
            for image in self._take(vehicle, turn)
        ]

    def _vehicles(self, step: int) -> list[tuple[int, int]]:
        """(vehicle, round) pairs of a step; a batch that straddles two rounds holds no vehicle twice."""
        count = len(self._images)
        turn, first = divmod(step * self._p, count)
        chosen = [(int(vehicle), turn) for vehicle in self._order(turn)[first : first + self._p]]
        if len(chosen) < self._p:
            taken = {vehicle for vehicle, _ in chosen}
            following = [int(vehicle) for vehicle in self._order(turn + 1) if vehicle not in taken]
            chosen += [(vehicle, turn + 1) for vehicle in following[: self._p - len(chosen)]]
        return chosen

    def _order(self, turn: int) -> np.ndarray:
        return np.random.default_rng([self._seed, 2, turn]).permutation(len(self._images))

    def _take(self, vehicle: int, turn: int) -> np.ndarray:
        """K images: the vehicle's images in a fixed random circle, K further each round."""
        images = self._images[vehicle]
        circle = np.random.default_rng([self._seed, 3, vehicle]).permutation(images)
        return circle[(turn * self._k + np.arange(self._k)) % len(images)]


class Steps:
    """The batches of given steps, in the form a DataLoader takes as its batch_sampler; of each, the part of one of
    `count` processes, whose parts in order of rank make up the batch."""

    def __init__(self, sampler: PKSampler, steps: Sequence[int], rank: int = 0, count: int = 1) -> None:
        self._sampler, self._steps, self._rank, self._count = sampler, steps, rank, count

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[Visit]]:
        for step in self._steps:
            visits = self._sampler.batch(step)
            share = len(visits) // self._count
            yield visits[self._rank * share : (self._rank + 1) * share]
