"""Learning-rate schedules: the curve over a run, and when the run ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from vit_tf.checks import shown
from vit_tf.training.recipes import check_setting


def warm_up(progress, warmup):
    """Returns the factor that rises linearly over the fraction `warmup` of a run, then stays at 1."""
    return progress / warmup if progress < warmup else 1.0


def warmup_cosine(progress: float, warmup: float = 0.1) -> float:
    """Returns the factor on the peak learning rate at `progress` in [0, 1] of a run.

    It rises linearly over the fraction `warmup` of the run, then falls to 0 on half a cosine.
    """
    if progress < warmup:
        return warm_up(progress, warmup)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


def step_decay(progress, epoch, decay, warmup=0.1):
    """Returns the factor of a rate that is multiplied by `decay` after each epoch: decay ** epoch.

    Args:
        progress: float in [0, 1], the fraction of the run that is over.
        epoch: non-negative int or float, counted from the start of the run; only whole epochs count.
        decay: float in (0, 1].
        warmup: float in [0, 1), the fraction of the run with a linear warm-up, which multiplies the decay.
    """
    return warm_up(progress, warmup) * decay ** math.floor(epoch)


def make_schedule(
    name: str, warmup: float = 0.1, decay: float | None = None
) -> Callable[[float, float], float]:
    """Returns the curve of a schedule by its name.

    Args:
        name: "cosine" (`warmup_cosine`), "constant" or "step" (`step_decay`).
        warmup: float in [0, 1), the fraction of the run in which the rate rises linearly from 0.
        decay: float in (0, 1], the factor per epoch of "step", which alone takes and needs it.

    Returns:
        A function from progress in [0, 1] and the epoch (a non-negative int or float) to the factor on the
        peak learning rate, a float.

    Raises:
        ValueError: an unknown name, a value out of range, or a decay that is missing or not used.
    """
    check_setting("schedule", name, "name")
    check_setting("warmup", warmup)
    if name == "step":
        check_setting("step_decay", decay, "decay")
        return partial(step_decay, decay=decay, warmup=warmup)
    if decay is not None:
        raise ValueError(f"`decay` goes with the schedule 'step' alone, got {shown(decay)} for {name!r}")
    curve = {"cosine": warmup_cosine, "constant": warm_up}[name]
    return lambda progress, epoch: curve(progress, warmup)


@dataclass(frozen=True)
class Schedule:
    """When a run ends, and its learning rate until then.

    The progress of a run is the fraction of its steps or of its time that is over, whichever is larger. So
    one schedule fits machines of any speed.

    Args:
        learning_rate: float, the peak.
        curve: function from progress in [0, 1] and the epoch, a float, to a factor: see `make_schedule`.
        epochs: int, or None for no limit.
        seconds: float, or None for no limit; validation counts, too.

    Raises:
        ValueError: there is no limit, or a limit is not positive.
    """

    learning_rate: float
    curve: Callable[[float, float], float]
    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self):
        limits = [limit for limit in (self.epochs, self.seconds) if limit is not None]
        if not limits or min(limits) <= 0:
            raise ValueError(
                "a schedule needs a positive number of epochs or of seconds, got "
                f"epochs={self.epochs}, seconds={self.seconds}"
            )

    def progress(self, epochs: float, seconds: float) -> float:
        """Returns the fraction of the run that is over after `epochs` (a float) and seconds, in [0, 1]."""
        by_epochs = epochs / self.epochs if self.epochs else 0.0
        by_time = seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_epochs, by_time))

    def rate(self, progress: float, epochs: float) -> float:
        """Returns the learning rate at that progress, after `epochs`."""
        return self.learning_rate * self.curve(progress, epochs)

    def steps(
        self, epochs: float, seconds: float, count: int, steps_per_epoch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns, for each of the next `count` steps, the fraction of the run that is over and the rate.

        Both are those of the middle of a step: at its ends the rate may be 0. The rate of a layer is this one
        times its factor of layer-wise decay (`vit_tf.training.optimizers`).

        Args:
            epochs, seconds: float, how much is done.
            count: int.
            steps_per_epoch: int.

        Returns:
            Two float64 arrays (count,).
        """
        middles = epochs + (np.arange(count) + 0.5) / steps_per_epoch
        fractions = np.array([self.progress(middle, seconds) for middle in middles])
        return fractions, np.array([self.rate(*pair) for pair in zip(fractions, middles)])


def recipe_schedule(recipe):
    """Returns the `Schedule` of a recipe."""
    decay = recipe.step_decay if recipe.schedule == "step" else None
    curve = make_schedule(recipe.schedule, recipe.warmup, decay)
    return Schedule(recipe.learning_rate, curve, recipe.epochs, recipe.minutes and 60 * recipe.minutes)
