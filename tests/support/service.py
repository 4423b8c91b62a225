"""A predictor without a model, and requests, for the tests of the service."""

import asyncio
import io
import json
import sys
import threading
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from PIL import Image

from vit_tf.preprocessing import Preprocessing

LABELS = ("red", "green", "blue")


class Answer(NamedTuple):
    label: str
    logit: float

    def as_dict(self):
        return self._asdict()


class FakePredictor:
    """Its logits are the mean colour of an image. It imports no Keras. `gate` holds its batches back."""

    def __init__(self):
        self.preprocessing = Preprocessing((4, 4), crop_mode="squash", crop_fraction=1.0)
        self.manifest = None
        self.runtime = SimpleNamespace(name="none", model=SimpleNamespace(name="fake"))
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def require_head(self):
        pass

    def read(self, image):
        return self.preprocessing(image)[0]

    def compute(self, arrays):
        images = np.stack(arrays)
        self.gate.wait(10)
        if self.error:
            raise self.error
        self.batches.append(len(images))
        return images.mean((1, 2))

    def decode(self, outputs, top=5):
        return [
            [Answer(LABELS[i], float(output[i])) for i in np.argsort(-output)[:top]] for output in outputs
        ]


def finish(coroutine):
    """Runs a coroutine, for at most 20 seconds, and returns its result."""
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def until(condition):
    """Waits until a function returns a true value."""
    while not condition():
        await asyncio.sleep(0.001)


def image_bytes(colour="red", size=(8, 8), format="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, format)
    return file.getvalue()


def noise_bytes(width, height):
    """Returns a PNG file of nearly three bytes per pixel."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def main(seconds, settings):
    """Serves a `FakePredictor` whose batches take some seconds; prints the port."""
    from vit_tf.deploy.service import ServiceSettings, create_app
    from vit_tf.deploy.service.server import bind, run_service

    predictor = FakePredictor()
    compute = predictor.compute
    predictor.compute = lambda arrays: time.sleep(seconds) or compute(arrays)
    bound = bind("127.0.0.1", 0)
    app = create_app(predictor, ServiceSettings(**settings))
    print(bound.getsockname()[1], flush=True)
    run_service(app, bound)
    print("stopped", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), json.loads(sys.argv[2]))
