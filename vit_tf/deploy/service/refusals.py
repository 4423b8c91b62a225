"""`Refusal`: a request that gets an error status with a reason of one line; and the budgets behind 503."""

from contextlib import contextmanager
from threading import Lock

from vit_tf.checks import brief, printable


class Refusal(Exception):
    """A request that the service does not answer with predictions.

    Args:
        status: int, the HTTP status.
        reason: text, which becomes one printable line.
        headers: dict of further headers of the response.
    """

    def __init__(self, status, reason, **headers):
        super().__init__(printable(brief(reason, 300)))
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def busy():
    """Returns the `Refusal` of a request for which there is no room now."""
    return Refusal(503, "the service is busy: try again", Retry_After="1")


class Budget:
    """A number of things that may be in the service at a time. Several threads may use it.

    Args:
        limit: int.

    Attributes:
        taken: int.
    """

    def __init__(self, limit):
        self.limit = limit
        self.taken = 0
        self.lock = Lock()

    @contextmanager
    def share(self, count=0):
        """Yields a `Share` with `count` things, and gives back at its end what the share holds."""
        share = Share(self)
        share.take(count)
        try:
            yield share
        finally:
            with self.lock:
                self.taken -= share.count


class Share:
    """What one request holds of a `Budget`."""

    def __init__(self, budget):
        self.budget = budget
        self.count = 0

    def take(self, count):
        """Takes `count` more; raises the `Refusal` of a busy service if they exceed the budget."""
        with self.budget.lock:
            if self.budget.taken + count > self.budget.limit:
                raise busy()
            self.budget.taken += count
            self.count += count
