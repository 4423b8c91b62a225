"""`create_app`: the ASGI application of the service."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from vit_tf import __version__
from vit_tf.checks import brief
from vit_tf.deploy.service.batcher import Batcher, ComputeError
from vit_tf.deploy.service.bodies import read_images
from vit_tf.deploy.service.decoding import read_within
from vit_tf.deploy.service.monitoring import Metrics
from vit_tf.deploy.service.refusals import Budget, Refusal
from vit_tf.deploy.service.settings import ServiceSettings

CLOSE = {"Connection": "close"}
logger = logging.getLogger("vit_tf.deploy.service")
# FastAPI describes no body that a function reads by itself.
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}}},
            }
        },
    },
}


def create_app(predictor: Any, settings: ServiceSettings | None = None) -> FastAPI:
    """Returns the ASGI application of the service: `vit-tf serve` runs it, and any ASGI server can.

    `POST /predict` takes image files as multipart/form-data, or `{"images": [base64, ...]}` as JSON. `GET
    /health` and `GET /metrics` are for monitors. A refused request gets a 4xx status, or 503 if the service
    is busy, with `{"detail": reason}`.

    Args:
        predictor: a `vit_tf.Predictor`.
        settings: batching and limits; None takes the defaults.

    Returns:
        A `fastapi.FastAPI`, whose `state.service` is the `Service`.

    Raises:
        ValueError: the model has no head.
    """
    service = Service(predictor, settings or ServiceSettings())

    @asynccontextmanager
    async def lifespan(app):
        yield
        service.close()

    # The pages /docs and /redoc load scripts from other hosts.
    app = FastAPI(title="vit_tf", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(Monitor, service=service)  # type: ignore[arg-type]  # Starlette's protocol of a factory
    app.add_exception_handler(Refusal, answer_refusal)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, answer_invalid)  # type: ignore[arg-type]

    @app.post("/predict", openapi_extra={"requestBody": BODY})
    async def predict(request: Request, top: Annotated[int, Query(ge=1, le=1_000_000)] = 5) -> Response:
        try:
            return JSONResponse({"results": await service.predict(request, top)})
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it, but the metrics count it

    @app.get("/health")
    async def health() -> Response:
        status = "stopping" if service.is_stopping else "ok"
        content = {"status": status, "model": service.description}
        return JSONResponse(content, 503 if service.is_stopping else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app


class Service:
    """A predictor behind queues: see `create_app`.

    Attributes:
        is_stopping: bool; responses then ask clients to close their connections.
    """

    def __init__(self, predictor, settings):
        predictor.require_head()
        self.predictor = predictor
        self.settings = settings
        self.images = Budget(settings.queue)
        self.held = Budget(settings.max_held)  # bytes of bodies
        self.decoders = ThreadPoolExecutor(settings.threads, "decode")
        self.model = ThreadPoolExecutor(1, "model")
        self.batcher = Batcher(
            self.compute, self.model, settings.batch_size, settings.max_wait_ms / 1000, self.arriving
        )
        self.description = describe(predictor)
        self.metrics = Metrics(self.description, lambda: self.images.taken, settings.batch_size)
        self.is_stopping = False
        self.num_submitted = 0

    def arriving(self):
        """Returns the number of images that are being received or decoded."""
        return self.images.taken - self.num_submitted

    def warm_up(self):
        """Computes a black image, alone and in a full batch: the first batches of a runtime take long."""
        black = self.predictor.read(Image.new("RGB", self.predictor.preprocessing.image_size[::-1]))
        for count in sorted({1, self.settings.batch_size}):
            self.predictor.compute([black] * count)

    def close(self):
        self.decoders.shutdown()
        self.model.shutdown()

    async def predict(self, request, top):
        """Returns the results of a request, in the order of its images."""
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        with self.images.share(1) as share, self.held.share() as held:
            body = await read_body(request, self.settings, held)
            content_type = request.headers.get("content-type", "")
            names, inputs = await loop.run_in_executor(self.decoders, self.prepare, body, content_type, share)
            self.num_submitted += len(inputs)
            try:
                outputs = await asyncio.gather(*map(self.batcher.submit, inputs))
                results = self.decode(names, outputs, top)
            except (ComputeError, ValueError) as error:  # the latter of outputs that are not finite
                logger.error("the model failed: %s", brief(error))
                raise Refusal(500, "the model failed: the log of the service says why") from error
            finally:
                self.num_submitted -= len(inputs)
        self.metrics.images.inc(len(inputs))
        self.metrics.request_seconds.observe(time.perf_counter() - start)
        return results

    def prepare(self, body, content_type, share):
        """Returns the names and the inputs (h, w, c) of the images in a body. Runs in a thread."""
        start = time.perf_counter()
        images = read_images(body, content_type, self.settings.queue)
        share.take(len(images) - 1)  # the request itself has taken one
        limit, read = self.settings.max_pixels, self.predictor.read
        inputs = [read_within(image, i, limit, read) for i, image in enumerate(images)]
        self.metrics.decode_seconds.observe(time.perf_counter() - start)
        return [image.name for image in images], inputs

    def compute(self, inputs):
        """Returns the outputs of a batch of inputs. Runs in a thread."""
        start = time.perf_counter()
        outputs = self.predictor.compute(inputs)
        self.metrics.model_seconds.observe(time.perf_counter() - start)
        self.metrics.batch_images.observe(len(inputs))
        return outputs

    def decode(self, names, outputs, top):
        results = []
        for name, output in zip(names, outputs, strict=True):
            (predictions,) = self.predictor.decode(output[None], top)
            results.append({"image": name, "predictions": [each.as_dict() for each in predictions]})
        return results


def describe(predictor):
    """Returns the labels of a predictor in /health and /metrics: a dict of texts."""
    manifest = predictor.manifest
    return {
        "model": predictor.runtime.model.name if manifest is None else manifest.variant,
        "precision": "float32" if manifest is None else manifest.precision,
        "runtime": predictor.runtime.name,
    }


async def read_body(request, settings, held):
    """Returns the bytes of a request's body.

    Args:
        held: the `Share` of bytes of the request.

    Raises:
        Refusal: the body is too large, takes too long to arrive, or the service holds too many bytes.
        ClientDisconnect: the client is gone.
    """
    reason = f"the body has more than {settings.max_body:,} bytes, the limit"
    length = int(request.headers.get("content-length", "0")[:18])
    if length > settings.max_body:
        # The server skips the rest of the body, so that the client reads the answer; up to a limit.
        raise Refusal(413, reason, **({} if length <= settings.max_held else CLOSE))
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > settings.max_body:
                    raise Refusal(413, reason, **CLOSE)
                held.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise Refusal(
            408, f"the body took more than {settings.body_seconds:g} s to arrive", **CLOSE
        ) from None
    return body


async def answer_refusal(request, refusal):
    return JSONResponse({"detail": str(refusal)}, refusal.status, refusal.headers)


async def answer_invalid(request, error):
    problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    return JSONResponse({"detail": brief("; ".join(problems), 300)}, 422)


class Monitor:
    """ASGI middleware that counts responses, and closes connections while the service stops."""

    def __init__(self, app, service):
        self.app = app
        self.service = service

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_counted(message):
            if message["type"] == "http.response.start":
                known = ("/predict", "/health", "/metrics")
                path = scope["path"] if scope["path"] in known else "other"
                self.service.metrics.requests.labels(path, message["status"]).inc()
                if self.service.is_stopping:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, send_counted)
