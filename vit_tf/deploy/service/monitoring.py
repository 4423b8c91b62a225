"""What the service counts and measures, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The metrics of one service, in a registry of its own.

    Args:
        description: dict of the labels of `vit_tf_model_info`.
        in_progress: function that returns the number of images in the service.
        batch_size: int, the largest batch.
    """

    def __init__(self, description, in_progress, batch_size):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time and open files; on Linux only
        sizes = sorted({*(2**i for i in range(batch_size.bit_length())), batch_size})
        self.requests = Counter("vit_tf_requests", "answered requests", ["path", "status"], registry=registry)
        self.images = Counter("vit_tf_images", "images with predictions", registry=registry)
        self.request_seconds = Histogram(
            "vit_tf_request_seconds",
            "from a request to /predict to its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "vit_tf_decode_seconds", "reading the images of a request", buckets=SECONDS, registry=registry
        )
        self.model_seconds = Histogram(
            "vit_tf_model_seconds", "a batch in the model", buckets=SECONDS, registry=registry
        )
        self.batch_images = Histogram(
            "vit_tf_batch_images", "images per batch", buckets=sizes, registry=registry
        )
        gauge = Gauge("vit_tf_images_in_progress", "images in the service", registry=registry)
        gauge.set_function(in_progress)
        names = list(description)
        Gauge("vit_tf_model_info", "the model", names, registry=registry).labels(**description).set(1)

    def text(self):
        """Returns all metrics as bytes in Prometheus's text format."""
        return generate_latest(self.registry)
