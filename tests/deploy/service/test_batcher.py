import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.service import finish, until

from vit_tf.deploy.service.batcher import Batcher, ComputeError


class Doubler:
    """Doubles numbers, and remembers its batches; `gate` holds them back."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items):
        self.gate.wait(10)
        self.batches.append(items)
        return [2 * item for item in items]


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_a_lone_item_does_not_wait(executor):
    async def main():
        batcher = Batcher(Doubler(), executor, batch_size=4, max_wait=100, arriving=lambda: 0)
        return await batcher.submit(3)

    assert finish(main()) == 6


def test_items_on_their_way_are_awaited(executor):
    async def main():
        double = Doubler()
        batcher = Batcher(double, executor, batch_size=4, max_wait=100, arriving=lambda: 1)
        results = await asyncio.gather(*map(batcher.submit, range(4)))
        return results, double.batches

    assert finish(main()) == ([0, 2, 4, 6], [[0, 1, 2, 3]])


def test_the_wait_ends(executor):
    async def main():
        double = Doubler()
        batcher = Batcher(double, executor, batch_size=4, max_wait=0.03, arriving=lambda: 1)
        start = asyncio.get_running_loop().time()
        results = await asyncio.gather(*map(batcher.submit, range(3)))
        return results, double.batches, asyncio.get_running_loop().time() - start

    results, batches, seconds = finish(main())
    assert (results, batches) == ([0, 2, 4], [[0, 1, 2]])
    assert seconds >= 0.029


def test_items_gather_while_the_model_computes(executor):
    async def main():
        double = Doubler()
        double.gate.clear()
        batcher = Batcher(double, executor, batch_size=4, max_wait=0, arriving=lambda: 0)
        tasks = [asyncio.ensure_future(batcher.submit(i)) for i in range(10)]
        await until(lambda: len(batcher.queue) == 9)
        double.gate.set()
        await asyncio.gather(*tasks)
        return double.batches

    assert finish(main()) == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


def test_two_workers(executor):
    async def main():
        double = Doubler()
        double.gate.clear()
        batcher = Batcher(double, executor, batch_size=4, max_wait=0, arriving=lambda: 0, workers=2)
        tasks = [asyncio.ensure_future(batcher.submit(i)) for i in range(3)]
        await until(lambda: not batcher.idle)
        double.gate.set()
        await asyncio.gather(*tasks)
        return sorted(double.batches)

    assert finish(main()) == [[0], [1], [2]]


def test_an_error_reaches_every_item_and_the_next_batch_runs(executor):
    def compute(items):
        if -1 in items:
            raise ValueError("no")
        return items

    async def main():
        batcher = Batcher(compute, executor, batch_size=2, max_wait=100, arriving=lambda: 1)
        results = await asyncio.gather(*map(batcher.submit, (1, -1)), return_exceptions=True)
        assert [type(result) for result in results] == [ComputeError] * 2 and results[0] is not results[1]
        assert isinstance(results[0].__cause__, ValueError)
        return await asyncio.gather(*map(batcher.submit, (1, 2)))

    assert finish(main()) == [1, 2]


def test_cancelled_items_are_left_out(executor):
    async def main():
        double = Doubler()
        double.gate.clear()
        batcher = Batcher(double, executor, batch_size=4, max_wait=0, arriving=lambda: 0)
        tasks = [asyncio.ensure_future(batcher.submit(i)) for i in range(3)]
        await until(lambda: len(batcher.queue) == 2)
        tasks[0].cancel()  # in the model
        tasks[1].cancel()  # in the queue
        await asyncio.sleep(0)
        double.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return double.batches, batcher.idle

    assert finish(main()) == ([[0], [2]], 1)
