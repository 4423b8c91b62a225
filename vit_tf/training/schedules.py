"""Learning-rate schedules: the factor on the peak learning rate at each moment of a run."""

import math
from functools import partial

from vit_tf.checks import check_choice, check_number, shown


def warm_up(progress, warmup):
    """Returns the factor that rises linearly over the share `warmup` of a run, then stays at 1."""
    return progress / warmup if progress < warmup else 1.0


def warmup_cosine(progress, warmup=0.1):
    """Returns the factor on the peak learning rate at `progress` in [0, 1] of a run.

    It rises linearly over the share `warmup` of the run, then falls to 0 on half a cosine.
    """
    if progress < warmup:
        return warm_up(progress, warmup)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


def constant(progress, warmup=0.1):
    """Returns the factor of a rate that stays at its peak after the warm-up."""
    return warm_up(progress, warmup)


def step_decay(progress, epoch, decay, warmup=0.1):
    """Returns the factor of a rate that each epoch multiplies by `decay`: decay ** epoch.

    Epochs count from 0 and from the start of the run; of a float, the whole epochs count. The warm-up
    multiplies the first share of the run.
    """
    return warm_up(progress, warmup) * decay ** math.floor(epoch)


SCHEDULES = ("cosine", "constant", "step")


def make_schedule(name, warmup=0.1, decay=None):
    """Returns a schedule by its name.

    Args:
        name: "cosine" (`warmup_cosine`), "constant" or "step" (`step_decay`).
        warmup: float in [0, 1), the share of the run in which the rate rises linearly from 0.
        decay: float in (0, 1], the factor an epoch of "step", which alone takes and needs it.

    Returns:
        A function from progress in [0, 1] and the epoch (int or float from 0) to the factor on the peak
        learning rate, a float.

    Raises:
        ValueError: an unknown name, a value out of range, or a decay that is missing or has no use.
    """
    check_choice("name", name, SCHEDULES)
    check_number("warmup", warmup, "[0, 1)")
    if name == "step":
        check_number("decay", decay, "(0, 1]")
        return partial(step_decay, decay=decay, warmup=warmup)
    if decay is not None:
        raise ValueError(f"`decay` goes with the schedule 'step' alone, got {shown(decay)} for {name!r}")
    shape = {"cosine": warmup_cosine, "constant": constant}[name]
    return lambda progress, epoch: shape(progress, warmup)
