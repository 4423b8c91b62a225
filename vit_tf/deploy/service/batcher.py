"""`Batcher`: images of concurrent requests go through the model together."""

import asyncio
from collections import deque
from typing import NamedTuple


class ComputeError(Exception):
    """The function of a `Batcher` failed; its own error is the cause."""


class Waiting(NamedTuple):
    """An item in the queue of a `Batcher`."""

    item: object
    future: asyncio.Future
    deadline: float  # of the event loop's clock


class Batcher:
    """Computes the items that concurrent tasks submit in batches, in threads.

    A batch starts when a thread is free, and the batch is full, its oldest item has waited for `max_wait`
    seconds, or no other item is on its way. Items that arrive while all threads compute wait for the next
    batch. All methods belong to the thread of the event loop.

    Args:
        compute: function from a list of items to as many results. It runs in a thread of `executor`.
        executor: a `concurrent.futures.Executor`.
        batch_size: int, the most items of a batch.
        max_wait: seconds.
        arriving: function that returns the number of items that may be submitted soon.
        workers: int, the number of batches that are computed at a time.
    """

    def __init__(self, compute, executor, batch_size, max_wait, arriving, workers=1):
        self.compute = compute
        self.executor = executor
        self.batch_size = batch_size
        self.max_wait = max_wait
        self.arriving = arriving
        self.idle = workers
        self.queue = deque()
        self.tasks = set()
        self.timer = None

    async def submit(self, item):
        """Returns the result of an item.

        Raises:
            ComputeError: the function failed for the batch of the item.
        """
        loop = asyncio.get_running_loop()
        waiting = Waiting(item, loop.create_future(), loop.time() + self.max_wait)
        self.queue.append(waiting)
        self.start_batches()
        return await waiting.future

    def start_batches(self):
        """Starts the batches that are due, and a timer for the next one."""
        loop = asyncio.get_running_loop()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        while self.queue and self.idle:
            is_full = len(self.queue) >= self.batch_size
            if not is_full and self.arriving() and loop.time() < self.queue[0].deadline:
                self.timer = loop.call_at(self.queue[0].deadline, self.start_batches)
                return
            batch = [self.queue.popleft() for _ in range(min(self.batch_size, len(self.queue)))]
            batch = [waiting for waiting in batch if not waiting.future.done()]  # cancelled ones are
            if batch:
                self.idle -= 1
                task = loop.create_task(self.run(batch))
                self.tasks.add(task)  # the loop itself keeps weak references only
                task.add_done_callback(self.tasks.discard)

    async def run(self, batch):
        """Computes a batch and answers its items."""
        loop = asyncio.get_running_loop()
        try:
            items = [waiting.item for waiting in batch]
            results = await loop.run_in_executor(self.executor, self.compute, items)
        except Exception as error:
            for waiting in batch:
                if not waiting.future.done():
                    failure = ComputeError(str(error))
                    failure.__cause__ = error
                    waiting.future.set_exception(failure)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(result)
        finally:
            self.idle += 1
            self.start_batches()
