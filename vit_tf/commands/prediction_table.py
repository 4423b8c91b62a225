"""The CSV file of `vit-tf predict`: one row per image, which a later run continues."""

import csv
import errno
import io
import os
import sys
from contextlib import contextmanager, nullcontext

from vit_tf.checks import quoted, require, shown

OPTIONS = dict(newline="", encoding="utf-8", errors="surrogateescape")  # file names may be any bytes


class PredictionTable:
    """A table of predictions.

    Each row has the image, the predicted labels joined by |, and labels with their probabilities. The row of
    a regression has the image and the labels with their values.

    Args:
        predictor: a `Predictor`.
        top: int, the number of labels per image.
    """

    def __init__(self, predictor, top):
        from vit_tf.labels import REGRESSION
        from vit_tf.predictions import check_labels

        self.is_classifier = predictor.problem_type != REGRESSION
        self.labels = check_labels(predictor.labels, predictor.num_outputs, self.is_classifier)
        self.columns = min(top, len(self.labels)) if self.is_classifier else predictor.num_outputs
        self.header = ["image", "predicted"] if self.is_classifier else ["image"]
        for i in range(1, self.columns + 1):
            self.header += [f"label_{i}", f"probability_{i}" if self.is_classifier else f"value_{i}"]

    def open_rows(self, path):
        """Returns the images that have a row in a file, a set. A row that is not whole is cut off.

        Raises:
            ValueError: the file is no table of a model with these labels, with this number of them in a row.
        """
        if not os.path.exists(path):
            return set()
        images, size = self.read_rows(path)
        os.truncate(path, size)
        return images

    def read_rows(self, path):
        """Returns the images of the whole rows of a file, and the number of bytes of these rows."""
        problem = f"--resume cannot continue {str(path)!r}"
        images, size, num_bytes, is_whole = set(), 0, 0, True

        def lines():
            nonlocal num_bytes, is_whole
            for line in file:
                num_bytes += len(line.encode("utf-8", "surrogateescape"))
                is_whole = line.endswith("\n")
                yield line

        def rows():
            try:
                yield from csv.reader(lines(), strict=True)
            except csv.Error as error:
                if str(error) != "unexpected end of data":  # in the middle of the last row
                    raise ValueError(f"{problem}: it is no CSV ({error})") from error

        with open(path, **OPTIONS) as file:
            for number, row in enumerate(rows()):
                if not is_whole:
                    break  # the end of the file
                if not number:
                    is_same = row == self.header
                    hint = "it is of another model or another --top"
                    require(is_same, f"{problem}: its columns are {quoted(row)}; {hint}")
                else:
                    self.check_row(row, f"{problem}: its row {number + 1:,}")
                    images.add(row[0])
                size = num_bytes
            if not size:
                file.seek(0)
                self.check_start(file.read(1000), problem)
        return images, size

    def check_start(self, text, problem):
        """Raises a ValueError unless a file without a whole row is the beginning of a table of this model."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(self.header)
        begins_so = line.getvalue().startswith(text)
        require(begins_so, f"{problem}: it begins with {shown(text[:40])}, and is no table of this model")

    def check_row(self, row, problem):
        require(len(row) == len(self.header), f"{problem} has {len(row)} columns, not {len(self.header)}")
        if self.is_classifier:
            unknown = quoted(sorted({*row[2::2]} - {*self.labels}))
            require(not unknown, f"{problem} has {unknown}, and the model has no such label")

    @contextmanager
    def output(self, path, append=False):
        """A context of a function `(path, predictions)` that writes a row.

        Args:
            path: of the file, or - for stdout.
            append: bool, whether to add rows to an existing file.
        """
        mode = "a" if append else "w"
        with (
            naming_the_file(path),
            nullcontext(sys.stdout) if path == "-" else open(path, mode, buffering=1, **OPTIONS) as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            if path == "-" or not file.tell():
                writer.writerow(self.header)

            def write(path, predictions):
                row = [path, "|".join(predicted_labels(predictions))] if self.is_classifier else [path]
                for label, number in predictions[: self.columns]:
                    row += [label, f"{number:.6g}"]
                writer.writerow(row)

            yield write


@contextmanager
def naming_the_file(path):
    """A scope in which the error of a full disk names the file."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def predicted_labels(predictions):
    """Returns the labels that reach their thresholds; without thresholds the likeliest one."""
    if predictions[0].selected is None:
        return [predictions[0].label]
    return [each.label for each in predictions if each.selected]
