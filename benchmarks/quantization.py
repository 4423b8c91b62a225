"""What int8 costs the packaged CIFAR-10 model: accuracy, changed answers, file size and speed.

    python benchmarks/quantization.py --data cifar10.npz                       # Keras's own modes
    python benchmarks/quantization.py --data cifar10.npz --runtime openvino    # `vit_tf.deploy.quantize`
    python benchmarks/quantization.py --speed vit_base_patch16_224             # int8 in OpenVINO

`--data` takes what `scripts/train_cifar10.py --data` takes. Each quantized model is written to disk, loaded
again, and tested on all test images. Without `--runtime`, Keras quantizes the kernels of dense layers in each
of its modes. With it, `vit_tf.deploy.quantize` chooses the settings on validation images, and the test images
only test what it chose. `--speed` compares the precisions of OpenVINO, with random weights and images; the
models take turns within one run.
"""

import argparse
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import vit_tf
from vit_tf import data
from vit_tf.commands import parser as cli

MODES = (None, "int8", "int4", "float8")
RUNTIMES = ("openvino", "onnxruntime", "litert", "keras")
BATCH_SIZE = 250
HELD_OUT = 5000  # all validation images


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10")
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, help="quantize for these runtimes")
    parser.add_argument("--limit", type=int, help="test only the first N images", metavar="N")
    parser.add_argument("--speed", help="compare the speed of this variant instead", metavar="NAME")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "limit")
    if args.speed:
        compare_precisions(args.speed)
        return
    if not args.data:
        parser.error("give --data or --speed")
    test = data.load_cifar(args.data)
    images, labels = test.x_test[: args.limit], test.y_test[: args.limit]
    if args.runtime:
        compare_runtimes(args.data, args.runtime, images, labels)
    else:
        compare_modes(images, labels)


def compare_modes(images, labels):
    print("| weights | accuracy | changed answers | `.keras` file, MB |\n|---|---:|---:|---:|")
    reference = None
    for mode in MODES:
        answers, megabytes = measure(mode, images)
        reference = answers if reference is None else reference
        accuracy, changed = (answers == labels).mean(), (answers != reference).mean()
        print(f"| {mode or 'float32'} | {accuracy:.2%} | {changed:.2%} | {megabytes:.2f} |", flush=True)


def measure(mode, images):
    """Returns the predicted classes of the quantized and reloaded model, and the size of its file in MB."""
    model = vit_tf.build_vit(weights="cifar10", include_preprocessing=True)
    if mode:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of each layer that has no kernel
            model.quantize(mode)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        model, megabytes = keras.models.load_model(path), path.stat().st_size / 1e6
    return model.predict(images, batch_size=BATCH_SIZE, verbose=0).argmax(-1), megabytes


def compare_runtimes(source, runtimes, images, labels):
    """Prints the test accuracy of what `quantize` chose for each runtime, and the report of what it tried."""
    from vit_tf.commands.quantize import print_report
    from vit_tf.deploy import quantize
    from vit_tf.deploy.runtimes import open_runtime

    classifier = vit_tf.load("cifar10")
    inputs = np.concatenate([classifier.preprocessing(list(batch)) for batch in batches(images)])
    expected = classifier.model.predict(inputs, batch_size=BATCH_SIZE, verbose=0).argmax(-1)
    rows = [
        "| runtime | settings | accuracy | changed answers | MB | speed |",
        "|---|---|---:|---:|---:|---:|",
    ]
    rows.append(f"| Keras, float32 | | {(expected == labels).mean():.2%} | | | |")
    for runtime in runtimes:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / runtime
            manifest = quantize("cifar10", folder, source, runtime=runtime, held_out=HELD_OUT, progress=print)
            run = open_runtime(folder, manifest).run
            answers = np.concatenate([run(batch)[0] for batch in batches(inputs)]).argmax(-1)
        report = manifest.quantization
        print_report(report)
        rows.append(
            f"| {runtime} | {report['name']} | {(answers == labels).mean():.2%} | "
            f"{(answers != expected).mean():.2%} | {report['bytes_after'] / 1e6:.2f} | "
            f"{report['speed_ratio']:.2f} x |"
        )
    print("\n".join(rows))


def batches(images):
    return [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]


def compare_precisions(variant):
    """Prints the time of a batch of 8 images in OpenVINO, in float32, bfloat16 and int8."""
    from vit_tf.deploy.quality import compare_speed
    from vit_tf.deploy.quantizers import openvino_quantizer
    from vit_tf.deploy.quantizing import write_float
    from vit_tf.deploy.runtimes import open_runtime
    from vit_tf.deploy.subject import open_subject

    keras.utils.set_random_seed(0)
    subject = open_subject(vit_tf.build_vit(variant))
    images = np.random.default_rng(0).normal(size=(8, *subject.image_size, 3)).astype("float32")
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "float32"
        source.mkdir()
        manifest = write_float(subject, source, "openvino", print)
        runs = {"float32": open_runtime(source, manifest).run}
        runs["bfloat16"] = open_runtime(source, replace(manifest, precision="bfloat16")).run
        for i, candidate in enumerate(openvino_quantizer.CANDIDATES):
            folder = Path(place) / str(i)
            folder.mkdir()
            openvino_quantizer.write(candidate, subject, source, images, folder / "model.xml")
            for rest in ("bfloat16", "float32"):
                settings = {"precision": "int8", "quantization": {"float_precision": rest}}
                name = f"int8: {candidate.name}, {rest}"
                runs[name] = open_runtime(folder, replace(manifest, **settings)).run
        seconds = compare_speed(runs, images)
    print("| precision | ms | of float32 | of bfloat16 |\n|---|---:|---:|---:|")
    for name, value in seconds.items():
        ratios = (f"{seconds[other] / value:.2f} x" for other in ("float32", "bfloat16"))
        print(f"| {name} | {1e3 * value:,.0f} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    cli.run(main)
