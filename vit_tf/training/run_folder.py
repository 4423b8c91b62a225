"""The folder of a run: a new one, or one to go on with, and nobody else's meanwhile."""

import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import keras

from vit_tf.checks import brief, shown
from vit_tf.files import PARTIAL, read_json, remove_partial_files
from vit_tf.preprocessing import Preprocessing
from vit_tf.terminal import outliving, shell_quoted
from vit_tf.variants import get_variant

CONFIG, LOCK = "config.json", ".lock"
KINDS = {  # of values in a run's config.json and in its command; any may be null
    **dict.fromkeys(("script", "data", "source", "weights", "variant", "preset"), str),
    **dict.fromkeys(("settings", "hyperparameters"), dict),
}


def choose_folder(out, resume, name):
    """Returns the run's folder and its config.json, which is None for a new run.

    Args:
        out: the folder that the user asked for, or None.
        resume: the folder of a run to go on with, or None.
        name: what a folder without a name of its own is called after.

    Raises:
        ValueError: `resume` holds no run, `out` holds something else, or both are given.
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


def open_run(args, command, name, script):
    """Returns a run's folder, its command, and its config.json (None for a new run).

    Args:
        args: parsed arguments, with `out` and `resume`; an option that was not given is None.
        command: a dict, ready for JSON, of all that decides what the run does; None with `--resume`.
        name: what a folder without a name of its own is called after.
        script: the name of the script, which the command has as "script", too.

    Raises:
        ValueError: see `choose_folder` and `check_same_command`; or `--resume` has other options beside it.
    """
    folder, saved = choose_folder(args.out, args.resume, name)
    if saved and saved["command"]["script"] != script:
        raise ValueError(f"{str(folder)!r} holds a run of {saved['command']['script']}: go on with that")
    if args.resume:
        given = [key for key, value in vars(args).items() if value is not None]
        if others := [key for key in given if key != "resume"]:
            raise ValueError(
                f"--resume goes on with a run as it began, and takes no {', '.join(others)} beside it: leave "
                "that out, or start a new run"
            )
        command = saved["command"]
    if saved:
        check_same_command(folder, saved["command"], command)
        if saved.get("versions") != versions():
            print(f"note: the run began with {saved.get('versions')}, and goes on with {versions()}")
    return folder, command, saved


def versions():
    """Returns what a run's numbers depend on, bit by bit, besides its settings."""
    backend = keras.backend.backend()
    return {"keras": keras.__version__, "backend": backend, backend: version(backend)}


def read_config(folder):
    """Returns the config.json of a run; a ValueError where it is damaged."""
    config = read_json(folder / CONFIG)
    if not all(isinstance(config.get(key), dict) for key in ("command", "recipe")):
        raise ValueError(f"{str(folder / CONFIG)!r} cannot be read: it is not a run's")
    config["command"] = Saved(config["command"])
    for part in (config, config["command"]):
        for key in KINDS.keys() & part.keys():
            if part[key] is not None and not isinstance(part[key], KINDS[key]):
                found = f"{KINDS[key].__name__} as {key!r}, got {shown(part[key])}"
                raise ValueError(f"{str(folder / CONFIG)!r} must have {found}")
    return Saved(config)


class Saved(dict):
    """A part of a run's config.json, in which a missing key is a ValueError."""

    def __missing__(self, key):
        raise ValueError(f"the run's {CONFIG} has no {key!r}: bring the file back from a copy, or start anew")


def read_model(saved):
    """Returns what a run's config.json says of the model: variant, hyperparameters, preprocessing, new_head.

    Raises:
        ValueError: no model can be built by it.
    """
    try:
        described = Saved(saved["model"].items())
        described["new_head"]
        get_variant(described["variant"], **described["hyperparameters"])
        Preprocessing(**described["preprocessing"])
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the run's {CONFIG} describes no model that can be built ({brief(error)}): bring the file back "
            "from a copy, or start anew"
        ) from error
    return described


def check_same_command(folder, saved, given):
    """Raises a ValueError that names the options in which two commands differ.

    Args:
        folder: the run's folder.
        saved, given: dicts from option to value.
    """
    saved, given = ({**command, **command.get("settings", {})} for command in (saved, given))
    names = [name for name in {**saved, **given} if name != "settings"]
    differing = [name for name in names if saved.get(name) != given.get(name)]
    if differing:
        changes = ", ".join(f"{name} {saved.get(name)!r} (now {given.get(name)!r})" for name in differing)
        raise ValueError(
            f"{str(folder)!r} holds a run with {changes}: give --resume {shell_quoted(folder)} alone to go "
            "on with it, or another --out to start anew"
        )


def is_leftover(name):
    """Whether a file is of a run that ended before its config.json was written."""
    return name in (LOCK, "split.csv", "bad_files.csv") or name.startswith(PARTIAL)


@contextmanager
def locked(folder):
    """Makes the folder, and keeps other processes from training in it; a killed one keeps nobody.

    From here on the run no longer needs a reader of its output.

    Raises:
        ValueError: another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is training in {str(folder)!r}: wait for it, or choose another folder"
            ) from None
        for place in (folder, folder / "model"):
            remove_partial_files(place)
        try:
            with outliving():
                yield
        finally:
            if all(is_leftover(entry.name) for entry in folder.iterdir()):  # it ended before it began
                remove_partial_files(folder)
                for entry in folder.iterdir():
                    entry.unlink()
                folder.rmdir()
