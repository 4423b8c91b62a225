"""What a run comes to: metrics, pictures, and the folder of the model."""

import numpy as np

from vit_tf import classifier, files, plots
from vit_tf.predictions import probabilities
from vit_tf.training.lora import merge_lora
from vit_tf.training.metrics import confident_mistakes, evaluate, predict


def write_metrics(trainer, recipe, test, class_names, folder, details=None):
    """Tests the best weights, and writes metrics.json.

    Args:
        trainer: a `Trainer` whose run is finished. Its network has the best weights afterwards.
        recipe: its `Recipe`.
        test: `vit_tf.data.Batches` that does not shuffle.
        class_names: k names.
        folder: the run's folder.
        details: dict or None, goes into metrics.json, too.

    Returns:
        (metrics, logits): those of `evaluate`, and what is known of the run; float32 (n, k).
    """
    trainer.load_best()
    logits, targets = predict(trainer.model, test, recipe.mirror)
    progress = trainer.progress
    metrics = {
        **(details or {}),
        **evaluate(logits, targets.argmax(-1), class_names),
        "test_images": len(logits),
        "best_epoch": progress.best["epoch"],
        "validation_accuracy": progress.best["val_accuracy"],
        "seconds": progress.rows[-1]["seconds"],
        "images_per_second": round(progress.images / progress.train_seconds, 1),
        "epochs": round(progress.step / len(trainer.train), 2),
    }
    files.write_json(folder / "metrics.json", metrics)
    return metrics, logits


def draw_report(rows, test, logits, class_names, folder, title):
    """Draws curves, confusion matrix, predictions, and the mistakes of which the model was surest.

    Args:
        rows: the history, see `Trainer`.
        test: the `vit_tf.data.Batches` that were tested.
        logits: float array (n, k), what the model made of them.
        class_names: k names.
        folder: where the pictures go: curves.png, confusion.png, predictions.png, mistakes.png.
        title: their heading.
    """
    matrix = np.array(evaluate(logits, test.labels, class_names)["confusion"])
    figures = {
        "curves.png": plots.curves(rows, title),
        "confusion.png": plots.confusion(matrix, class_names, title),
    }
    spread = np.unique(np.linspace(0, len(logits) - 1, 24).astype(int))  # files come class by class
    shown = {"predictions.png": (spread, "predictions")}
    wrong = confident_mistakes(logits, test.labels)
    if len(wrong):
        shown["mistakes.png"] = (wrong, "most confident mistakes")
    for name, (indices, subject) in shown.items():
        images = np.stack([evaluated_picture(test, i) for i in indices])
        shares = probabilities(logits[indices], "softmax")
        figures[name] = plots.predictions(
            images, test.labels[indices], shares, class_names, f"{title}: {subject}"
        )
    for name, figure in figures.items():
        plots.save(figure, folder / name)


def evaluated_picture(batches, index):
    """Returns an image (h, w, c) of `Batches` as the model sees it in the evaluation."""
    image = batches.images[int(index)]
    return np.asarray(batches.transform(image, None) if batches.transform else image)


def save_model(network, recipe, folder, variant, hyperparameters, preprocessing, class_names):
    """Writes the network as a folder that `vit_tf.load` reads; LoRA is merged into it."""
    if recipe.lora_rank:
        merge_lora(network)
    classifier.save(folder, network, variant, hyperparameters, preprocessing, class_names)
