"""`ServiceSettings`: batching and limits of the service. Plain data, without the web framework."""

from dataclasses import dataclass

from vit_tf.checks import check_int, check_number, require

LARGEST_BODY = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How the service batches images, and what it refuses.

    Args:
        batch_size: int, the most images that the model takes at once.
        max_wait_ms: milliseconds that an image waits at most for others to join its batch, while the model is
            idle. An image does not wait if no other image is on its way.
        queue: int, the most images in the service at a time, from the first byte of a request to its answer.
            A request beyond gets status 503.
        max_body: int, the most bytes of a request's body.
        max_pixels: int, the most pixels of an image, by its header.
        body_seconds: seconds in which the body of a request must arrive.
        threads: int, the number of threads that decode images.
    """

    batch_size: int = 16
    max_wait_ms: float = 5.0
    queue: int = 128
    max_body: int = 16 << 20
    max_pixels: int = 25_000_000
    body_seconds: float = 20.0
    threads: int = 2

    def __post_init__(self):
        check_int("batch_size", self.batch_size, 1)
        check_number("max_wait_ms", self.max_wait_ms, "[0, 10000]")
        check_int("queue", self.queue, 1)
        check_int("max_body", self.max_body, 1, LARGEST_BODY)
        check_int("max_pixels", self.max_pixels, 1)
        check_number("body_seconds", self.body_seconds, "(0, 3600]")
        check_int("threads", self.threads, 1)
        sizes = f"{self.queue} < {self.batch_size}"
        require(self.queue >= self.batch_size, f"`queue` must be at least `batch_size`, got {sizes}")

    @property
    def max_held(self):
        """The most bytes of bodies that the service holds at a time."""
        return 8 * self.max_body
