"""Progress bar with an ETA, and a line per epoch."""

import importlib.util

from rich.progress import BarColumn, TextColumn

from vit_tf import terminal


class ProgressBar:
    """One bar for the whole run.

    Args:
        schedule: the run's `Schedule`.
        console: a `rich.console.Console`. Defaults to the standard output.
    """

    def __init__(self, schedule, console=None):
        self.schedule = schedule
        self.bar = terminal.SafeProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[state]}", markup=False),
            console=console or default_console(),
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=1.0, state="")

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def print(self, text):
        self.bar.console.print(text, soft_wrap=True)

    def update(self, progress, fraction, elapsed):
        """Shows a `Progress`, and the fraction of the schedule that is over after `elapsed` seconds."""
        loss, accuracy = (progress.totals[name] / progress.totals["images"] for name in ("loss", "accuracy"))
        eta = f"ETA {format_duration(elapsed * (1 / fraction - 1))}" if fraction else ""
        state = f"loss {loss:.3f}  accuracy {accuracy:.1%}  {eta}"
        self.bar.update(self.task, completed=fraction, state=state, description=f"epoch {progress.epoch + 1}")

    def end_epoch(self, row, batches, steps_per_epoch):
        """Prints the line of an epoch from a row of the history. The end of the schedule may cut it short."""
        part = "" if batches >= steps_per_epoch else f" ({batches} of {steps_per_epoch} batches)"
        mean_average_precision = f"val mAP {row['val_map']:.1%}  " if "val_map" in row else ""
        self.print(
            f"epoch {row['epoch']:3d}{part}  {format_duration(row['seconds'])}  "
            f"loss {row['loss']:.3f} (val {row['val_loss']:.3f})  "
            f"accuracy {row['accuracy']:.1%} (val {row['val_accuracy']:.1%})  "
            f"{mean_average_precision}"
            f"{row['images_per_second']:.0f} images/s"
        )


def default_console():
    console = terminal.console()
    if console.is_jupyter and importlib.util.find_spec("ipywidgets") is None:
        # In a notebook rich's bar needs ipywidgets; the lines of the epochs do not.
        return terminal.console(force_jupyter=False, force_terminal=False)
    return console


def format_duration(seconds):
    """Returns seconds as text: minutes:seconds such as "3:07", or hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
