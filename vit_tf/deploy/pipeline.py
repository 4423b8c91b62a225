"""Work in threads whose results come in order, with a bounded number of items under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def thread_pool(num_threads: int) -> Iterator[Executor]:
    """A pool of threads. At the end of the scope, work that has not begun is dropped."""
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="vit_tf")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def map_ahead(
    pool: Executor, function: Callable[[Any], Any], items: Iterable[Any], ahead: int
) -> Iterator[tuple[Any, Future]]:
    """Yields `(item, future of function(item))` in the order of the items.

    Args:
        pool: computes.
        function: of one item.
        items: any iterable, also one without an end. It is read in the thread of the caller. If it raises an
            error, the error follows the results of the items before.
        ahead: int, how many items more than have been yielded are under way.
    """
    waiting: deque[tuple[Any, Future]] = deque()
    iterator, error = iter(items), None
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            break
        except Exception as caught:
            error = caught
            break
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
    if error is not None:
        raise error
