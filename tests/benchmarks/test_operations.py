"""`benchmarks/operations.py`: where the time of a call goes."""

import re
import sys

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))
pytestmark = pytest.mark.tensorflow_only("the benchmark records TensorFlow's operations")


def test_time_inside_another_operation_counts_once():
    from operations import own_times

    events = [("Einsum", 0, 10), ("MatMul", 2, 5), ("MatMul", 5, 9), ("Cast", 6, 7), ("Add", 12, 13)]
    assert own_times(reversed(events)) == {"Einsum": 3, "MatMul": 6, "Cast": 1, "Add": 1}


def test_events_without_an_operation_are_left_out():
    from operations import operation_type

    assert operation_type("vit/block_0/MatMul:MatMul") == "MatMul"
    for name in ("Iterator::Prefetch", "EagerExecute: __inference_step", "step:PartitionedCall", "RunGraph"):
        assert operation_type(name) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "inference"])
def test_a_small_model(kind, monkeypatch, capsys):
    import operations
    import speed

    monkeypatch.setattr(operations, "FULL", speed.TRIAL)
    operations.main(["--kind", kind, "--model", "tiny", "--image-size", "32", "--batch-size", "2"])
    title, _, header, _, *rows, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"vit_tf, .*, tiny, {kind}, float32, batch 2: .* ms a call, \d+% of the .*/s", title)
    assert header == "| operation | ms a call | share |"
    times = {name: float(ms.replace(",", "")) for name, ms in (row.split(" | ")[:2] for row in rows)}
    assert any("MatMul" in name for name in times)
    total = float(last.split(" | ")[1])
    assert sum(times.values()) == pytest.approx(total, abs=0.1 * len(times)) and total > 0


@pytest.mark.parametrize("size", ["0", "-1"])
def test_batch_size(size):
    import operations

    with pytest.raises(ValueError, match=f"--batch-size must be a positive int, got {size}"):
        operations.main(["--batch-size", size])


def test_what_a_contestant_cannot_do(monkeypatch):
    import operations

    monkeypatch.setattr(operations, "why_not", lambda *_: "not installed: keras_hub")
    with pytest.raises(ValueError, match="keras-hub cannot be measured: not installed: keras_hub"):
        operations.main(["--contestant", "keras-hub"])
    with pytest.raises(ValueError, match="tutorial has no inference: expected --kind tutorial"):
        operations.main(["--kind", "inference", "--contestant", "tutorial"])
