"""What a run comes to: metrics, pictures, and the folder of the model."""

import numpy as np

from vit_tf import classifier, files, plots
from vit_tf.training.lora import merge_lora
from vit_tf.training.metrics import confident_mistakes, evaluate, predict, softmax


def write_report(trainer, recipe, test, class_names, folder, title, details=None):
    """Tests the best weights, and writes what the run has come to.

    Args:
        trainer: a `Trainer` whose run is finished.
        recipe: its `Recipe`.
        test: `vit_tf.data.Batches` that does not shuffle.
        class_names: k names.
        folder: the run's folder. `metrics.json` and the pictures are written there.
        title: heading of the pictures.
        details: dict or None, goes into metrics.json, too.

    Returns:
        The metrics: those of `evaluate`, and what is known of the run.
    """
    trainer.load_best()
    logits, targets = predict(trainer.model, test, recipe.mirror)
    labels, progress = targets.argmax(-1), trainer.progress
    metrics = {
        **(details or {}),
        **evaluate(logits, labels, class_names),
        "test_images": len(labels),
        "best_epoch": progress.best["epoch"],
        "validation_accuracy": progress.best["val_accuracy"],
        "seconds": progress.rows[-1]["seconds"],
        "images_per_second": round(progress.images / progress.train_seconds, 1),
        "epochs": round(progress.step / len(trainer.train), 2),
    }
    files.write_json(folder / "metrics.json", metrics)
    matrix = np.array(metrics["confusion"])
    draw = {
        "curves.png": plots.curves(progress.rows, title),
        "confusion.png": plots.confusion(matrix, class_names, f"{title}: test images"),
    }
    wrong = confident_mistakes(logits, labels)
    spread = np.unique(np.linspace(0, len(labels) - 1, 24).astype(int))  # files come class by class
    shown = {"predictions.png": (spread, "test images")}
    if len(wrong):
        shown["mistakes.png"] = (wrong, "most confident mistakes")
    for name, (indices, subject) in shown.items():
        images = np.stack([evaluated_picture(test, i) for i in indices])
        draw[name] = plots.predictions(
            images, labels[indices], softmax(logits[indices]), class_names, f"{title}: {subject}"
        )
    for name, figure in draw.items():
        plots.save(figure, folder / name)
    return metrics


def evaluated_picture(batches, index):
    """Returns an image (h, w, c) of `Batches` as the model sees it in the evaluation."""
    image = batches.images[int(index)]
    return np.asarray(batches.transform(image, None) if batches.transform else image)


def save_model(network, recipe, folder, variant, hyperparameters, preprocessing, class_names):
    """Writes the network as a folder that `vit_tf.load` reads; LoRA is merged into it."""
    if recipe.lora_rank:
        merge_lora(network)
    classifier.save(folder, network, variant, hyperparameters, preprocessing, class_names)
