"""Results of a run: metrics and plots."""

import numpy as np

from vit_tf import files, plots
from vit_tf.predictions import probabilities
from vit_tf.training.label_metrics import wrong_images
from vit_tf.training.metrics import confident_mistakes
from vit_tf.training.tasks import MULTI_LABEL, SINGLE_LABEL

VALIDATED = {"val_accuracy": "validation_accuracy", "val_map": "validation_mean_average_precision"}


def write_metrics(trainer, recipe, test, class_names, folder, details=None):
    """Tests the best weights, and writes metrics.json.

    Thresholds of a multi-label or binary task are chosen on the validation images.

    Args:
        trainer: a `Trainer` whose run is finished. Its model has the best weights afterwards.
        recipe: its `Recipe`.
        test: `vit_tf.data.DataLoader` that does not shuffle.
        class_names: k names.
        folder: the run's folder.
        details: dict or None, added to metrics.json.

    Returns:
        (metrics, logits): the metrics of the trainer's task and of the run; float32 (n, o).
    """
    trainer.load_best()
    progress, task, thresholds = trainer.progress, trainer.task, None
    logits, targets = trainer.engine.predict(test, recipe.flip_tta)
    if task is not SINGLE_LABEL:
        validation = trainer.engine.predict(trainer.engine.validation, recipe.flip_tta)
        thresholds = task.thresholds(*validation)
    metrics = {
        **(details or {}),
        "task": task.name,
        **task.evaluate(logits, targets, class_names, thresholds),
        "test_images": len(logits),
        "best_epoch": progress.best["epoch"],
        **{VALIDATED[name]: value for name, value in progress.best.items() if name in VALIDATED},
        "seconds": progress.rows[-1]["seconds"],
        "images_per_second": round(progress.images / progress.train_seconds, 1),
        "stages": progress.stage,
        "epochs": round(progress.step / trainer.engine.steps_per_epoch, 2),
    }
    if trainer.group.is_main:
        files.write_json(folder / "metrics.json", metrics)
    return metrics, logits


def draw_report(rows, test, logits, metrics, class_names, folder, title):
    """Draws training curves, per-class quality, predictions, and the most confident mistakes.

    Args:
        rows: the history, see `Trainer`.
        test: the `vit_tf.data.DataLoader` of the test images.
        logits: float array (n, o), of these images.
        metrics: returned by `write_metrics`.
        class_names: k names.
        folder: where the plots are written: curves.png, confusion.png (average_precision.png for a
            multi-label task), predictions.png, mistakes.png.
        title: heading of the plots.
    """
    figures = {"curves.png": plots.curves(rows, title)}
    if "confusion" in metrics:
        matrix = np.array(metrics["confusion"])
        figures["confusion.png"] = plots.confusion(matrix, class_names, title)
    else:
        figures["average_precision.png"] = plots.average_precisions(metrics["classes"], title)
    if metrics["task"] == SINGLE_LABEL.name:
        wrong = confident_mistakes(logits, test.labels)
    else:
        wrong = wrong_images(logits, test.labels, metrics["thresholds"])
    spread = np.unique(np.linspace(0, len(logits) - 1, 24).astype(int))  # files come class by class
    shown = {"predictions.png": (spread, "predictions"), "mistakes.png": (wrong, "most confident mistakes")}
    for name, (indices, subject) in shown.items():
        if len(indices):
            figures[name] = draw_images(indices, test, logits, metrics, class_names, f"{title}: {subject}")
    for name, figure in figures.items():
        plots.save(figure, folder / name)


def draw_images(indices, test, logits, metrics, class_names, title):
    """Returns a figure of the test images at `indices`, with their labels and predictions."""
    images = np.stack([evaluated_image(test, i) for i in indices])
    labels, logits = test.labels[indices], logits[indices]
    if metrics["task"] == SINGLE_LABEL.name:
        return plots.predictions(images, labels, probabilities(logits, "softmax"), class_names, title)
    shares, thresholds = probabilities(logits, "sigmoid"), metrics["thresholds"]
    if metrics["task"] == MULTI_LABEL.name:
        return plots.multi_label_predictions(images, labels, shares, thresholds, class_names, title)
    guesses, labels = (x[:, 0].astype(int) for x in (shares >= thresholds, labels))
    return plots.predictions(images, labels, np.hstack([1 - shares, shares]), class_names, title, guesses)


def evaluated_image(batches, index):
    """Returns an image (h, w, c) of `DataLoader` as the model gets it in evaluation."""
    image = batches.images[int(index)]
    return np.asarray(batches.transform(image, None) if batches.transform else image)
