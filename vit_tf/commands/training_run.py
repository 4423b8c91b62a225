"""What `vit-tf train` and `vit-tf finetune` share: a run from its command to its report."""

import importlib.util
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from vit_tf import files
from vit_tf.commands.options import parse_image_size
from vit_tf.commands.process_failures import ending_together, failures_in_one_line
from vit_tf.commands.recipe_options import add_settings, given_settings
from vit_tf.commands.run_processes import add_distribution, join, split_together
from vit_tf.commands.startup import import_backend
from vit_tf.data import cifar
from vit_tf.terminal import printable, shell_quoted
from vit_tf.training.datasets import absolute, open_dataset
from vit_tf.training.distribution.choose import choose_backend, choose_placement
from vit_tf.training.distribution.process_group import Alone
from vit_tf.training.distribution.rendezvous import find_rendezvous
from vit_tf.training.loop.engines import ENGINES, check_recipe
from vit_tf.training.presets import make_recipe
from vit_tf.training.recipes import read_recipe
from vit_tf.training.run_folder import (
    Saved,
    locked,
    note_versions,
    num_stages,
    open_run,
    read_model,
    require_shared,
    versions,
)
from vit_tf.variants import get_variant

TASK_NAMES = ("single-label", "multi-label", "binary")
FRACTIONS = {"validation_fraction": 0.1, "test_fraction": 0.1, "max_bad": 0.01}  # the defaults


# ---------------------------------------------------------------------------------------------------
# Command
# ---------------------------------------------------------------------------------------------------
def add_run_options(parser):
    """Adds the options about images and labels, the run's folder, and the settings."""
    parser.add_argument("--image-size", metavar="PIXELS", help="side, or HEIGHTxWIDTH; default: the model's")
    parser.add_argument(
        "--task",
        choices=TASK_NAMES,
        help="one class per image, several, or two classes by one logit; default: single-label or "
        "multi-label, as the labels are",
    )
    parser.add_argument(
        "--validation-fraction", type=float, metavar="X", help="if DATA lacks this split (0.1)"
    )
    parser.add_argument(
        "--test-fraction", type=float, metavar="X", help="if image files lack this split (0.1)"
    )
    parser.add_argument("--max-bad", type=float, metavar="X", help="largest share of unreadable files (0.01)")
    parser.add_argument(
        "--check",
        choices=("none", "headers", "full"),
        help="of all image files before a new run: full decodes each (default), headers looks at its format, "
        "its size and its end, none opens no file; the results are kept for later runs",
    )
    parser.add_argument("--out", help="the run's folder (runs/NAME-TIME); a run in it is continued")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue the run in this folder with its own options; with --epochs or --minutes, train a "
        "finished run further, with a new learning-rate schedule",
    )
    add_distribution(parser)
    add_settings(parser)


def new_command(args, name, preset, engine, variant, hyperparameters=None, weights=None, tensorboard=False):
    """Returns everything that decides what a run does, ready for JSON.

    Raises:
        ValueError: an option is wrong. The checks do not import Keras.
    """
    command = {
        "name": name,
        "data": absolute(args.data),
        "preset": preset,
        "engine": engine,
        "variant": variant,
        "weights": weights,
        "hyperparameters": hyperparameters or {},
        "tensorboard": tensorboard,
        "image_size": args.image_size and list(parse_image_size(args.image_size)),
        "task": args.task,
        **FRACTIONS,
        **{key: getattr(args, key) for key in FRACTIONS if getattr(args, key) is not None},
        **({"check": args.check} if args.check not in (None, "full") else {}),
        "settings": given_settings(args),
    }
    check_recipe(engine, make_recipe(command))
    if variant:
        get_variant(variant, **command["hyperparameters"])
    if command["data"] not in (None, *cifar.NAMES) and not os.path.exists(command["data"]):
        open_dataset(command["data"])  # says that there is no such path, and suggests others
    return command


def require_engine_backend(engine):
    """Selects the backend that an engine needs; a ValueError if another one was selected before."""
    backend = ENGINES[engine].backend
    if backend is None:
        return
    if "keras" in sys.modules:
        selected = sys.modules["keras"].backend.backend()
    else:
        selected = os.environ.setdefault("KERAS_BACKEND", backend)
    if selected != backend:
        raise ValueError(
            f"--engine {engine} needs KERAS_BACKEND={backend}, or that variable unset, got {selected!r}"
        )
    if importlib.util.find_spec(backend) is None:
        raise ValueError(f"--engine {engine} needs JAX: pip install 'jax[cuda13]', or jax without a GPU")


def run_command(args, subcommand, make_command):
    """Starts the run of `make_command(args)`, or resumes a run with --resume; returns the exit code."""
    command = None if args.resume else make_command(args)
    distribute = args.distribute or "auto"
    places = args.coordinator_address, args.num_processes, args.process_id
    rendezvous = find_rendezvous(*places, joins_tasks=distribute != "none")
    choose_backend(distribute, rendezvous, command["engine"] if command else "train-batch")
    with failures_in_one_line(rendezvous), ending_together(rendezvous), ExitStack() as stack:
        group = Alone() if rendezvous.is_alone else join(rendezvous)
        options = {**command, **command["settings"]} if command else {"resume": args.resume}
        options.pop("settings", None)
        group.require_equal(options, "start every process with the same options")
        dataset = None
        if command and subcommand == "train" and not args.out:  # the folder's name marks the sample
            dataset = group.on_all(open_data, command, command["data"])
        folder, command, saved = open_together(group, args, command, dataset, subcommand, stack)
        group.on_all(choose_backend, distribute, rendezvous, command["engine"])  # that of a resumed run
        recipe = read_recipe(saved["recipe"]) if saved else make_recipe(command)
        source = (saved or {}).get("source", command["data"])
        dataset = dataset or group.on_all(open_data, command, source)
        import_for(command)
        placement = choose_placement(distribute, recipe, args.model_devices, command["engine"], stem(command))
        if group.count > 1 and placement.kind == "model":  # all processes write the checkpoints
            group.on_all(require_shared, folder)
        elif not group.is_main:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        from vit_tf.training.run import configure, fast_bfloat16

        if saved:
            note_versions(saved)
        if recipe.mixed_precision is None:
            recipe = replace(recipe, mixed_precision=group.share(fast_bfloat16()))
        return train(dataset, folder, command, configure(recipe), saved, placement)


def stem(command):
    """Returns the `patch_stem` of the model; None if only its weights tell."""
    variant = command["variant"]
    return variant and get_variant(variant, **command["hyperparameters"]).patch_stem


def open_together(group, args, command, dataset, subcommand, stack):
    """Opens and locks the run's folder in the main process; returns `open_run`'s values on all.

    The lock lasts as long as `stack`.
    """

    def open_in_main():
        folder, opened, saved = open_run(args, command, folder_name(command, dataset), subcommand)
        stack.enter_context(locked(folder))
        return [str(folder), opened, saved]

    folder, command, saved = group.on_main(open_in_main)
    return Path(folder), command and Saved(command), saved and Saved(saved)


def open_data(command, source):
    """Opens a data set, before the slow imports where Keras does not download it."""
    if source in (None, *cifar.DOWNLOADS):
        import_for(command)
    return open_dataset(source)


def import_for(command):
    require_engine_backend(command["engine"])
    import_backend(trains=True)


def folder_name(command, dataset):
    """Returns the beginning of the name of a new run's folder in runs/."""
    if command is None:
        return ""
    if command["name"] == "finetune":
        return os.path.splitext(os.path.basename(command["data"]))[0]
    return command["variant"] + ("-sample" if dataset and dataset.name == "sample" else "")


# ---------------------------------------------------------------------------------------------------
# Run
# ---------------------------------------------------------------------------------------------------
def train(dataset, folder, command, recipe, saved, placement):
    """Trains to the end and reports; returns the exit code."""
    from vit_tf.preprocessing import Preprocessing
    from vit_tf.training.ending import rehearse
    from vit_tf.training.run import run_training

    group = placement.group
    described, task = prepare_data(dataset, folder, command, recipe, saved, group)
    preprocessing = described["preprocessing"] and Preprocessing(**described["preprocessing"])
    with placement.scope():
        model = build_model(dataset, folder, command, recipe, described, preprocessing, group)
    parts = dataset.loaders(recipe, command["engine"], task, preprocessing)
    sizes = {name: part.num_images for name, part in parts.items() if part}
    if saved and saved.get("images", sizes) != sizes:
        raise ValueError(
            f"{printable(dataset.name)} has the images {sizes}, and the run began with {saved['images']}: "
            "restore the data, or start a new run"
        )
    with placement.scope():
        trainer = build_trainer(model, dataset, parts, folder, command, recipe, task, placement)
    ending = plan_ending(model, dataset, parts, recipe, described, preprocessing)
    config = {
        "command": command,
        "data": dataset.name,
        "source": dataset.source,
        "images": sizes,
        "model": described,
        "versions": versions(),
        **(saved or {}),
        "recipe": asdict(recipe),
    }
    if not saved:
        rehearse(ending, trainer)
    group.on_main(files.write_json, folder / "config.json", config)
    print_start(model, dataset, sizes, folder, described, task, placement)
    if command["name"] == "finetune" and command["weights"] is None and not saved:
        print("no --weights: training starts from random weights, which needs many more images and epochs")
    if not run_training(trainer, folder, num_stages(saved)):
        return 130
    report(ending, trainer, folder)
    group.gather(None)  # waits for the files of the main process
    return 0


def prepare_data(dataset, folder, command, recipe, saved, group):
    """Splits the data; returns the description of the model (see `describe_model`) and the task."""
    from vit_tf.flops import require_memory

    dataset.print_notes()
    described = read_model(saved) if saved else {"task": command["task"]}
    task = dataset.choose_task(described["task"])
    if not saved:
        described = describe_model(command, dataset, task)
        # `make_model` checks this, too; here it fails before all images are read.
        require_memory(described["variant"], described["hyperparameters"], recipe.batch_size)
    split_together(dataset, folder, command, recipe, saved, group)
    return described, task


def build_model(dataset, folder, command, recipe, described, preprocessing, group):
    """Returns the model at the start of the run; a checkpoint replaces its weights later."""
    from vit_tf.training.loop.checkpoints import Checkpoints
    from vit_tf.training.run import adapt_stem, make_model

    has_state = group.on_main(lambda: bool(Checkpoints(folder / "checkpoints").paths()))
    source = None if has_state else open_weights(command, described)
    model = make_model(described["variant"], described["hyperparameters"], recipe, preprocessing, source)
    if source is None and not has_state:
        adapt_stem(model, lambda: dataset.first_images(2000, preprocessing))
    return model


def build_trainer(model, dataset, parts, folder, command, recipe, task, placement):
    """Returns the `Trainer`, with TensorBoard if the command has it."""
    import keras

    from vit_tf.training.run import make_trainer

    callbacks = [keras.callbacks.TensorBoard(folder / "tensorboard")] if command["tensorboard"] else []
    image_size = dataset.image_size or model.input_shape[1:3]
    loaders = parts["train"], parts["validation"]
    engine = command["engine"]
    return make_trainer(model, recipe, *loaders, image_size, folder, callbacks, task, engine, placement)


def plan_ending(model, dataset, parts, recipe, described, preprocessing):
    """Returns the `Ending` of the run."""
    from vit_tf.training.ending import Ending

    variant = described["variant"]
    details = {"data": dataset.name, "tested_on": dataset.tested_on, "parameters": model.count_params()}
    return Ending(
        recipe,
        parts["test"] or parts["validation"],
        dataset.class_names,
        variant,
        described["hyperparameters"],
        preprocessing,
        title=f"{variant} on {printable(dataset.name)}",
        details=details,
    )


def print_start(model, dataset, sizes, folder, described, task, placement):
    sizes = ", ".join(f"{count:,} for {name}" for name, count in sizes.items())
    print(
        f"{described['variant']}: {model.count_params():,} parameters; {len(dataset.class_names)} classes "
        f"({task.name}), images: {sizes}; run folder {printable(folder)}"
    )
    if devices := placement.describe():
        print(f"--distribute {placement.kind}: {devices}")
    if described["new_head"] is False:
        print("the weights are of these classes: their head is kept")


def report(ending, trainer, folder):
    """Tests the best weights, once, and prints the results."""
    from vit_tf.training.loop.progress import format_duration
    from vit_tf.training.metrics import per_class

    metrics = ending.write(trainer, folder)
    print(per_class(metrics))
    print(
        f"{metrics['tested_on']} {trainer.task.summary(metrics)} (weights of epoch {metrics['best_epoch']}), "
        f"{format_duration(metrics['seconds'])} of training, {metrics['images_per_second']:.0f} images/s; "
        f"everything is in {printable(folder)}\n"
        f"try: vit-tf predict IMAGE --weights {shell_quoted(folder / 'model')}"
    )


def describe_model(command, dataset, task):
    """Returns what `make_model` needs to build the model, ready for JSON.

    The head is new, unless the weights were trained for the same classes and the same kind of task.
    """
    from vit_tf.preprocessing import get_preprocessing
    from vit_tf.weights import open_named

    fields = {"num_classes": task.num_outputs(len(dataset.class_names)), "in_channels": dataset.channels}
    if command["engine"] == "compiled-epoch" and dataset.image_size:
        fields["image_size"] = list(dataset.image_size)  # it does not resize
    fields |= command["hyperparameters"]
    if command["image_size"]:
        fields["image_size"] = command["image_size"]
    variant, config, new_head = command["variant"], None, True
    if command["weights"]:
        from vit_tf.labels import labels_from_config, problem_type_from_config

        source = open_named(command["weights"], variant)
        variant, described = source.describe(variant)
        config, about = source.preprocessing_config, source.checkpoint.config
        known = labels_from_config(about), problem_type_from_config(about), described["num_classes"]
        new_head = known != (dataset.class_names, task.problem_type, fields["num_classes"])
        fields = {**described, **fields}
    spec = get_variant(variant, **fields)
    if spec.takes_any_size:  # a run has one size; its weights load into a model for any size again
        fields |= {"image_size": list(spec.native_size), "position_grid": None}
    preprocessing = None
    if dataset.channels == 3:
        preprocessing = get_preprocessing(config or variant, image_size=spec.native_size).to_dict()
    model = {"variant": variant, "hyperparameters": fields, "preprocessing": preprocessing}
    return {**model, "task": task.name, "new_head": new_head}


def open_weights(command, described):
    """Returns the weights to start from, None for random weights."""
    if not command["weights"]:
        return None
    from vit_tf.weights import open_named

    source = open_named(command["weights"], described["variant"])
    return source.without_head() if described["new_head"] else source
