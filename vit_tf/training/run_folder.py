"""Create, reopen and lock the folder of a run."""

import time
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from vit_tf.checks import brief, require, shown
from vit_tf.files import PARTIAL, read_json, remove_partial_files, try_lock
from vit_tf.terminal import outliving, shell_quoted
from vit_tf.training.recipes import Recipe, override, read_recipe
from vit_tf.variants import get_variant

CONFIG, LOCK, METRICS = "config.json", ".lock", "metrics.json"
KINDS = {  # types of values in a run's config.json and in its command; each may be null
    **dict.fromkeys(("name", "data", "source", "weights", "variant", "preset", "engine"), str),
    **dict.fromkeys(("settings", "hyperparameters"), dict),
    "stages": list,
}
# What may change when a finished run is trained further: the state fits all of these.
STAGE_SETTINGS = (
    "epochs minutes learning_rate schedule warmup step_decay patience progressive_resizing".split()
)

# The options about devices and processes, which may change whenever a run is continued.
MACHINES = "distribute model_devices coordinator_address num_processes process_id".split()


def choose_folder(out, resume, name):
    """Returns the folder of a run and its config.json, None for a new run.

    Without --out and --resume, `name` is the beginning of the name of a new folder in runs/.

    Raises:
        ValueError: `resume` holds no run, `out` holds other files, or both are given.
    """
    if out and resume:
        raise ValueError("--resume names the run's folder: leave --out out")
    folder = Path(resume or out or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file, and a run needs a folder: choose another name")
    if (folder / CONFIG).is_file():
        return folder, read_config(folder)
    if resume:
        raise ValueError(f"there is no run in {str(folder)!r}, it has no {CONFIG}: give the folder of one")
    if folder.is_dir() and any(not is_leftover(entry.name) for entry in folder.iterdir()):
        raise ValueError(f"{str(folder)!r} is not empty: choose another folder with --out, or remove it")
    return folder, None


def open_run(args, command, name, subcommand):
    """Returns the folder of a run, its command, and its config.json (None for a new run).

    Args:
        args: parsed arguments with `out` and `resume`, see `is_given`.
        command: dict, ready for JSON, of everything that decides what the run does; None with `--resume`.
        name: see `choose_folder`.
        subcommand: name of the subcommand, which `command` has as "name".

    Raises:
        ValueError: see `choose_folder`, `check_same_command` and `further_stage`; or other options are
            given together with `--resume`.
    """
    folder, saved = choose_folder(args.out, args.resume, name)
    if saved and saved["command"].get("name") != subcommand:
        other = saved["command"].get("name")
        raise ValueError(f"{str(folder)!r} holds a run of `vit-tf {other}`: use that command")
    if args.resume:
        command = saved["command"]
        settings = {name: getattr(args, name) for name in STAGE_SETTINGS if name in args}
        own = ("run", "resume", *MACHINES, *settings)
        if others := [name for name in vars(args) if name not in own and is_given(args, name)]:
            options = [f"--{name.replace('_', '-')}" if name != "data" else "DATA" for name in others]
            raise ValueError(
                "--resume continues a run with its own options, and cannot be combined with "
                f"{', '.join(options)}: leave them out, or start a new run"
            )
        if settings:
            saved = further_stage(folder, saved, settings)
    elif saved:
        check_same_command(folder, saved["command"], command)
    return folder, command, saved


def is_given(args, name):
    """Whether an option was given. `args` lacks a setting that was not; any other option is None then."""
    return name in Recipe.__dataclass_fields__ or getattr(args, name) is not None


def further_stage(folder, saved, settings):
    """Returns the config.json of a finished run that is to be trained further.

    Its `recipe` has the settings of the new schedule; `stages` lists the recipes of all schedules so far.

    Raises:
        ValueError: the run has not ended, or a setting is not allowed.
    """
    stages = saved.get("stages") or [{"recipe": saved["recipe"]}]
    metrics = read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    if metrics.get("stages") != len(stages):
        raise ValueError(
            f"the run in {str(folder)!r} has not ended, and its schedule is fixed until then: give --resume "
            f"{shell_quoted(folder)} alone to continue it"
        )
    recipe = asdict(override(read_recipe(saved["recipe"]), settings))
    stage = {"recipe": recipe, "from_epoch": metrics["epochs"]}
    return Saved({**saved, "recipe": recipe, "stages": [*stages, stage]})


def num_stages(saved):
    """Returns how many schedules a run has, by its config.json (None for a new run)."""
    return len((saved or {}).get("stages") or [None])


def versions():
    """Returns the versions on which a run's numbers depend, besides its settings, a dict."""
    import keras

    backend = keras.backend.backend()
    return {"keras": keras.__version__, "backend": backend, backend: version(backend)}


def note_versions(saved):
    """Prints a note if a run continues with other versions than it began with."""
    if saved.get("versions") != versions():
        print(f"note: the run began with {saved.get('versions')}, and continues with {versions()}")


def read_config(folder):
    """Returns the config.json of a run; a ValueError if it is damaged."""
    config = read_json(folder / CONFIG)
    if not all(isinstance(config.get(key), dict) for key in ("command", "recipe")):
        raise ValueError(f"{str(folder / CONFIG)!r} cannot be read: it is not that of a run")
    config["command"] = Saved(config["command"])
    for part in (config, config["command"]):
        for key in KINDS.keys() & part.keys():
            if part[key] is not None and not isinstance(part[key], KINDS[key]):
                raise ValueError(
                    f"{str(folder / CONFIG)!r} must have a {KINDS[key].__name__} as {key!r}, got "
                    f"{shown(part[key])}"
                )
    return Saved(config)


class Saved(dict):
    """A part of a run's config.json, in which a missing key is a ValueError."""

    def __missing__(self, key):
        raise ValueError(
            f"the run's {CONFIG} has no {key!r}: restore the file from a copy, or start a new run"
        )


def read_model(saved):
    """Returns the description of the model in a run's config.json: variant, hyperparameters, ....

    Raises:
        ValueError: no model can be built from it.
    """
    from vit_tf.preprocessing import Preprocessing

    try:
        described = Saved(saved["model"].items())
        described["new_head"]
        config = get_variant(described["variant"], **described["hyperparameters"])
        if config.in_channels == 3 or described["preprocessing"] is not None:
            Preprocessing(**described["preprocessing"])
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the run's {CONFIG} describes no model that can be built ({brief(error)}): restore the file "
            "from a copy, or start a new run"
        ) from error
    return described


def check_same_command(folder, saved, command):
    """Raises a ValueError that names the options in which a command differs from that of a run."""
    saved, command = ({**options, **options.get("settings", {})} for options in (saved, command))
    names = [name for name in {**saved, **command} if name != "settings"]
    differing = [name for name in names if saved.get(name) != command.get(name)]
    if differing:
        changes = ", ".join(f"{name} {saved.get(name)!r} (now {command.get(name)!r})" for name in differing)
        raise ValueError(
            f"{str(folder)!r} holds a run with {changes}: give --resume {shell_quoted(folder)} alone to "
            "continue it (with --epochs N if it has ended), or another --out to start a new run"
        )


def is_leftover(name):
    """Returns whether a file may be left by a run that ended before its config.json was written."""
    return name in (LOCK, "split.csv", "bad_files.csv") or name.startswith(PARTIAL)


def require_shared(folder):
    """Raises a ValueError unless this process sees the run's folder, which the main process has locked."""
    is_there = (folder / LOCK).exists()
    problem = f"--distribute model writes checkpoints from every process, and {str(folder)!r} is not there"
    require(is_there, f"{problem}: choose a folder with --out that all machines share")


@contextmanager
def locked(folder):
    """A scope that creates the folder and locks it against other processes. A killed process leaves no lock.

    Inside, the run continues if nothing reads its output any more.

    Raises:
        ValueError: another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        problem = f"another process is training in {str(folder)!r}"
        require(try_lock(file), f"{problem}: wait for it, or choose another folder")
        for place in (folder, folder / "model", folder / "last"):
            remove_partial_files(place)
        try:
            with outliving():
                yield
        finally:
            if all(is_leftover(entry.name) for entry in folder.iterdir()):  # the run failed before it began
                remove_partial_files(folder)
                for entry in folder.iterdir():
                    entry.unlink()
                folder.rmdir()
