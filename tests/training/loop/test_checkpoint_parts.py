"""Checkpoints in parts, written by two threads that stand for two processes."""

import threading

import numpy as np
import pytest

from vit_tf.training.distribution.host_arrays import ArrayPieces
from vit_tf.training.distribution.process_group import AgreedError, Alone
from vit_tf.training.loop.checkpoints import Checkpoints

STATE = {"epoch": 1, "rows": []}


class Threads(Alone):
    """The group of two threads."""

    count = 2
    values = [None, None]
    barrier = threading.Barrier(2, timeout=30)

    def __init__(self, rank):
        self.rank = rank

    def gather(self, value):
        self.values[self.rank] = value
        self.barrier.wait()
        gathered = list(self.values)
        self.barrier.wait()
        return gathered

    def on_main(self, function, *arguments):
        outcome = None
        if self.is_main:
            try:
                outcome = function(*arguments), None
            except (ValueError, OSError) as error:
                outcome = None, str(error)
        result, problem = self.gather(outcome)[0]
        if problem:
            raise AgreedError(problem)
        return result


def together(function):
    """Calls `function(group)` in both threads; returns the results or errors."""
    results = [None, None]

    def call(rank):
        try:
            results[rank] = function(Threads(rank))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def arrays_of(rank, whole):
    """What a process holds: half of the columns of a matrix, and a number that both have."""
    place = ((0, 4), (3 * rank, 3 * rank + 3))
    piece = whole[:, 3 * rank : 3 * rank + 3].copy()
    return {
        "model/kernel": ArrayPieces((4, 6), whole.dtype, {place: piece}, frozenset([place])),
        "model/count": np.array(7, "int32"),
    }


def save(folder, step, seed=0):
    whole = np.random.default_rng(seed).normal(size=(4, 6)).astype("float32")
    paths = together(
        lambda group: Checkpoints(folder, group=group).save(step, arrays_of(group.rank, whole), STATE)
    )
    assert paths[0] == paths[1]
    return whole, paths[0]


def test_ranges_are_read_from_the_parts(tmp_path):
    whole, path = save(tmp_path, 3)
    assert path.suffix == ".json"
    arrays, state = Checkpoints(tmp_path).load()
    assert state == STATE
    kernel = arrays["model/kernel"]
    for index in (np.s_[:, :], np.s_[1:3, 2:5], np.s_[0:1, 0:6], np.s_[:, 3:6]):
        assert np.array_equal(kernel[index], whole[index])
    assert arrays["model/count"][()] == 7
    assert arrays["model/count"][()].shape == ()


def test_all_processes_read_what_two_have_written(tmp_path):
    whole, _ = save(tmp_path, 3)
    for arrays, state in together(lambda group: Checkpoints(tmp_path, group=group).load()):
        assert np.array_equal(arrays["model/kernel"][:, :], whole)
        assert state == STATE


def test_old_parts_are_removed(tmp_path):
    for step in range(4):
        save(tmp_path, step, seed=step)
    names = sorted(path.name.split("-")[:2] for path in tmp_path.iterdir())
    assert names == [["part", f"{step:08d}"] for step in (2, 2, 3, 3)] + [
        ["step", f"{step:08d}"] for step in (2, 3)
    ]


@pytest.mark.parametrize("damage", ["missing", "changed", "index"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    first, _ = save(tmp_path, 1, seed=1)
    _, path = save(tmp_path, 2, seed=2)
    part = next(tmp_path.glob("part-00000002-1-*"))
    if damage == "missing":
        part.unlink()
    else:
        target = path if damage == "index" else part
        target.write_bytes(target.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="corrupt, and passed over: step-00000002"):
        arrays, _ = Checkpoints(tmp_path).load()
    assert np.array_equal(arrays["model/kernel"][:, :], first)


def test_one_full_disk_is_an_error_of_all(tmp_path, monkeypatch):
    from vit_tf.training.loop import checkpoint_parts

    first, _ = save(tmp_path, 1)
    write = checkpoint_parts.write_hashed

    def fail(folder, stem, ending, content):
        if stem.endswith("-1"):
            raise OSError(28, "No space left on device")
        return write(folder, stem, ending, content)

    monkeypatch.setattr(checkpoint_parts, "write_hashed", fail)
    errors = together(
        lambda group: Checkpoints(tmp_path, group=group).save(2, arrays_of(group.rank, first), STATE)
    )
    assert all(isinstance(error, AgreedError) for error in errors)
    assert "process 1: [Errno 28] No space left on device" in str(errors[0])
    monkeypatch.undo()
    assert np.array_equal(Checkpoints(tmp_path).load()[0]["model/kernel"][:, :], first)
