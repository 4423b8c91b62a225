"""Fine-tunes a Vision Transformer on your own images.

    python scripts/finetune.py pets/ --weights hf:timm/vit_small_patch16_224.augreg_in21k_ft_in1k
    python scripts/finetune.py pets.zip --weights small.npz --model vit_small_patch16_224 --recipe lora
    python scripts/finetune.py --resume runs/NAME            # after Ctrl-C, a crash or a power cut

DATA is a folder with a folder a class, a folder of files named like cat.12.jpg, either of them under
train/, val/ and test/, a zip of any of these, or a CSV of path and label, or of path and several labels
(cat|dog, or a column per class), which trains by sigmoid cross-entropy. The run's folder has all that
comes of it; RUN/model is read by `vit-tf predict --weights RUN/model` and `vit_tf.load("RUN/model")`.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow looks for GPUs aloud

from vit_tf import data, files, training
from vit_tf.commands import main as cli
from vit_tf.commands.options import parse_image_size
from vit_tf.flops import require_memory
from vit_tf.labels import labels_from_config, problem_type_from_config
from vit_tf.preprocessing import Preprocessing, get_preprocessing
from vit_tf.terminal import printable, shell_quoted
from vit_tf.variants import get_variant
from vit_tf.weights import open_named

DEFAULT_MODEL = "vit_small_patch16_224"


# ---------------------------------------------------------------------------------------------------
# Command
# ---------------------------------------------------------------------------------------------------
def parse_arguments(arguments):
    parser = cli.Parser(
        usage="finetune.py DATA [--weights SOURCE] [options], or finetune.py --resume RUN",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="see above")
    parser.add_argument("--weights", metavar="SOURCE", help="a file, a folder or hf:owner/name")
    parser.add_argument(
        "--model", metavar="NAME", help=f"the variant, where SOURCE does not say it ({DEFAULT_MODEL})"
    )
    parser.add_argument("--image-size", metavar="PIXELS", help="side, or HEIGHTxWIDTH; the weights' own")
    parser.add_argument("--recipe", choices=training.RECIPES, help="what the settings start from (full)")
    parser.add_argument(
        "--task",
        choices=training.TASKS,
        help="one class per image, several, or two by one logit; by default single-label or multi-label, as "
        "DATA has it",
    )
    parser.add_argument(
        "--validation-fraction", type=float, metavar="SHARE", help="where DATA has none (0.1)"
    )
    parser.add_argument("--test-fraction", type=float, metavar="SHARE", help="where DATA has none (0.1)")
    parser.add_argument("--max-bad", type=float, metavar="SHARE", help="of files that cannot be read (0.01)")
    parser.add_argument("--out", help="the run's folder, by default runs/NAME-TIME; a run in it goes on")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as it began")
    training.add_settings(parser)
    return parser.parse_args(arguments)


def make_command(args):
    """Returns all that decides what a run does, ready for JSON; a ValueError names a wrong option."""
    if args.data is None:
        raise ValueError("DATA is missing: give a folder, a zip or a CSV of images, or --resume RUN")
    command = {
        "script": "finetune.py",
        "data": os.path.abspath(args.data),
        "model": args.model,
        "weights": os.path.abspath(args.weights) if os.path.exists(args.weights or "") else args.weights,
        "image_size": args.image_size and list(parse_image_size(args.image_size)),
        "recipe": args.recipe or "full",
        "task": args.task,
        "validation_fraction": 0.1 if args.validation_fraction is None else args.validation_fraction,
        "test_fraction": 0.1 if args.test_fraction is None else args.test_fraction,
        "max_bad": 0.01 if args.max_bad is None else args.max_bad,
        "settings": training.given_settings(args),
    }
    make_recipe(command)
    return command


def make_recipe(command):
    return training.override(training.RECIPES[command["recipe"]], command["settings"])


def main(arguments=None):
    args = parse_arguments(arguments)
    name = Path(args.data).stem if args.data else ""
    command = None if args.resume else make_command(args)
    folder, command, saved = training.open_run(args, command, name, "finetune.py")
    recipe = training.read_recipe(saved["recipe"]) if saved else make_recipe(command)
    training.configure(recipe)
    with training.locked(folder):
        return train(folder, command, recipe, saved)


def train(folder, command, recipe, saved):
    # -----------------------------------------------------------------------------------------------
    # Data: checked and split once, then as split.csv says
    # -----------------------------------------------------------------------------------------------
    images = data.find_images(command["data"])
    for note in images.notes:
        print(f"note: {printable(note)}")
    described = training.read_model(saved) if saved else {"task": command["task"]}
    task = training.choose_task(images, described.get("task", "single-label"))  # version 0.1 wrote none
    images = task.prepare(images)
    if saved:
        images = data.read_split(images, folder / "split.csv")
        for note in images.notes:
            print(f"note: {printable(note)}")
    else:
        described = describe_model(command, images.class_names, task)
        # `make_network` does this, too; it need not wait until all images are checked.
        require_memory(described["variant"], described["hyperparameters"], recipe.batch_size)
        images = check_and_split(images, command, recipe, folder)

    # -----------------------------------------------------------------------------------------------
    # Model
    # -----------------------------------------------------------------------------------------------
    variant, hyperparameters = described["variant"], described["hyperparameters"]
    prepare = Preprocessing(**described["preprocessing"])
    has_state = training.Checkpoints(folder / "checkpoints").paths()
    source = None if has_state else open_source(command, described)
    network = training.make_network(variant, hyperparameters, recipe, prepare, source)

    # -----------------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------------
    parts = {part: training.make_batches(images, part, recipe, prepare, task) for part in data.SPLITS}
    trainer = training.make_trainer(
        network, recipe, parts["train"], parts["validation"], prepare.image_size, folder, task=task
    )
    test = parts["test"] or parts["validation"]
    tested_on = "test" if parts["test"] else "validation (there are no test images)"
    ending = training.Ending(
        recipe,
        test,
        images.class_names,
        variant,
        hyperparameters,
        prepare,
        title=f"{variant} on {printable(Path(command['data']).stem)}",
        details={"tested_on": tested_on},
    )
    if not saved:
        training.rehearse(ending, trainer)
        config = {"command": command, "recipe": asdict(recipe), "model": described}
        files.write_json(folder / "config.json", {**config, "versions": training.versions()})
    sizes = ", ".join(f"{part.num_images:,} for {name}" for name, part in parts.items() if part)
    classes = f"{len(images.class_names)} classes ({task.name})"
    print(f"{variant} on {classes}, images: {sizes}; run folder {printable(folder)}")
    if described["new_head"] is False:
        print("the weights know these classes: their head is kept")
    if command["weights"] is None and not saved:
        print("no --weights: the training starts at random, which takes many more images and epochs")
    if not training.run_training(trainer, folder):
        return 130

    # -----------------------------------------------------------------------------------------------
    # Report: the weights that were best in validation, once, on the test images
    # -----------------------------------------------------------------------------------------------
    metrics = ending.write(trainer, folder)
    print(task.table(metrics))
    print(
        f"{tested_on} {task.summary(metrics)} (weights of epoch "
        f"{metrics['best_epoch']}), {training.format_duration(metrics['seconds'])} minutes; "
        f"everything is in {printable(folder)}\n"
        f"try: vit-tf predict IMAGE --weights {shell_quoted(folder / 'model')}"
    )


def check_and_split(images, command, recipe, folder):
    """Returns the images that can be read, with their splits, and writes both down in the run's folder."""
    fractions = command["validation_fraction"], command["test_fraction"]
    data.split_files(images, *fractions, recipe.seed)  # what is wrong there need not wait for the check
    num_notes = len(images.notes)
    images, bad = data.check_images(images, command["max_bad"])
    for note in images.notes[num_notes:]:
        print(f"note: {printable(note)}")
    (folder / "bad_files.csv").unlink(missing_ok=True)  # of a start that was killed
    if bad:
        files.write_csv(folder / "bad_files.csv", ("path", "reason"), bad)
        print(f"{len(bad)} files cannot be read and are left out: see {printable(folder / 'bad_files.csv')}")
    images = data.split_files(images, *fractions, recipe.seed)
    data.write_split(images, folder / "split.csv")
    return images


def describe_model(command, class_names, task=training.TASKS["single-label"]):
    """Returns what `training.make_network` needs to build the model, ready for JSON.

    The head is new, unless the weights were trained for the same classes and the same kind of task.
    """
    fields = {"num_classes": task.num_outputs(len(class_names))}
    if command["image_size"]:
        fields["image_size"] = command["image_size"]
    variant, config, new_head = command["model"] or DEFAULT_MODEL, None, True
    if command["weights"]:
        source = open_named(command["weights"], command["model"])
        variant, described = source.describe(command["model"])
        config, about = source.preprocessing_config, source.checkpoint.config
        known = labels_from_config(about), problem_type_from_config(about), described["num_classes"]
        new_head = known != (class_names, task.problem_type, fields["num_classes"])
        fields = {**described, **fields}
    image_size = get_variant(variant, **fields).image_size
    prepare = get_preprocessing(config or variant, image_size=image_size)
    model = {"variant": variant, "hyperparameters": fields, "preprocessing": prepare.to_dict()}
    return {**model, "task": task.name, "new_head": new_head}


def open_source(command, described):
    """Returns the weights to start from, None for random ones."""
    if not command["weights"]:
        return None
    source = open_named(command["weights"], command["model"])
    return source.without_head() if described["new_head"] else source


if __name__ == "__main__":
    cli.run(main)
