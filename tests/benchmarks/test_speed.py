import json
import sys
import time

import pytest
from support.paths import ROOT

from vit_tf import build_vit, count_flops
from vit_tf.commands import parser as cli

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))

import contestants  # noqa: E402
import speed  # noqa: E402
from contestants import figure, pool, tables, worker  # noqa: E402

FAKE = """
import os, signal, time
from contestants import Built

class Output:
    shape = (2, 10)

def build(job, seconds=0.0, error_after=None, kill_after=None, log=None):
    calls = []
    def step():
        calls.append(1)
        if len(calls) == error_after:
            raise MemoryError("no room\\n for 9 GB")
        if len(calls) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if log:
            with open(log, "a") as file:
                file.write(f"{os.path.basename(log)} {time.time()}\\n")
        print("libraries print")
        time.sleep(seconds)
        return Output()
    return Built(lambda batch_size: step, 7)
"""
TINY = contestants.Dimensions(16, 32, 2, 2, 64, num_classes=10)
on_tensorflow = pytest.mark.tensorflow_only("that is what the module builds on")


def fake(label, needs=(), kinds=("inference",), precisions=contestants.BOTH, **options):
    return contestants.Contestant(label, "fake_contestant", needs, kinds, precisions, options)


@pytest.fixture
def rivals(tmp_path, monkeypatch):
    """Contestants that only sleep or fail, in processes of their own."""
    (tmp_path / "fake_contestant.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = {
        "quick": fake("quick", seconds=0.004),
        "slow": fake("slow", seconds=0.012),
        "failing": fake("failing", error_after=1),
        "killed": fake("killed", kill_after=4),
        "absent": fake("absent", needs=("no_such_package",)),
        "coarse": fake("coarse", precisions=("bfloat16",)),
    }
    monkeypatch.setattr(speed, "num_cores", lambda: 2)
    monkeypatch.setattr(speed, "GEMM", fake("matrix product", kinds=("limit",), seconds=0.002))
    contestants.CONTESTANTS.clear()
    contestants.CONTESTANTS.update(names)
    yield names
    contestants.CONTESTANTS.clear()
    contestants.CONTESTANTS.update(ALL)


ALL = dict(contestants.CONTESTANTS)


def arguments(folder, *more):
    options = ["--trial", "--only", "inference,limit", "--precisions", "float32", "--rounds", "2"]
    return [*options, "--out", str(folder), *more]


@pytest.mark.slow
def test_a_run_measures_what_it_can_and_goes_on(rivals, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out" / "speed"
    assert speed.main(arguments(folder)) == 0
    limit, group = json.loads((folder / "speed.json").read_text())["groups"]
    assert (limit["kind"], group["kind"], group["batch_sizes"]) == ("limit", "inference", [1, 2])

    entries = group["entries"]
    assert "failed" not in entries["quick"] and "failed" not in entries["slow"]
    for name, least in (("quick", 0.004), ("slow", 0.012)):
        for size in ("1", "2"):
            rounds = entries[name]["seconds"][size]
            assert len(rounds) == 2 and all(time >= least for times in rounds for time in times)
            assert all(sum(times) >= 0.02 for times in rounds)  # a turn is at least so long
        assert entries[name]["parameters"] == 7 and entries[name]["output_shape"] == [2, 10]
        assert entries[name]["peak"] >= entries[name]["resident"] > 1e6
        assert entries[name]["idle"] < 0.1
    assert entries["failing"]["failed"] == "MemoryError: no room for 9 GB"
    assert "memory" in entries["killed"]["failed"]
    assert set(group["skipped"]) == {"absent", "coarse"}
    assert group["skipped"]["absent"] == "not installed: no_such_package"
    assert "float32" in group["skipped"]["coarse"]

    printed = (folder / "speed.md").read_text()
    assert printed in capsys.readouterr().out
    assert "| quick | **" in printed and "| slow | **" not in printed
    assert "- failing, inference tiny 32 float32 batch 1/2: MemoryError: no room for 9 GB" in printed
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")

    with pytest.raises(ValueError, match="--resume"):
        speed.main(arguments(folder))
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("it was done already"))
    assert speed.main(arguments(folder, "--resume")) == 0
    (folder / "speed.json").write_text('{"groups": []}')
    with pytest.raises(ValueError, match="another --out"):
        speed.main(arguments(folder, "--resume"))


@pytest.mark.slow
def test_contestants_take_turns(rivals, tmp_path):
    logs = [tmp_path / name for name in "ab"]
    for name, log in zip("ab", logs):
        contestants.CONTESTANTS[name] = fake(name, log=str(log), seconds=0.02)
    group = speed.Group("inference", "float32", ("a", "b"), 3, speed.TRIAL, (1,), "tiny", 32)
    speed.measure(group, tmp_path, lambda seconds: None)
    calls = [line.split() for log in logs for line in log.read_text().splitlines()]
    calls = [name for name, _ in sorted(calls, key=lambda call: float(call[1]))]
    assert "".join(calls[2 * worker.WARM_UP_CALLS :]) == "ababab"


@pytest.mark.slow
def test_long_calls_rest_every_second_round(rivals, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "LONG_CALL", 0.01)
    group = speed.Group("inference", "float32", ("quick", "slow"), 3, speed.TRIAL, (1,), "tiny", 32)
    entries = speed.measure(group, tmp_path, lambda seconds: None)["entries"]
    assert [len(entries[name]["seconds"]["1"]) for name in group.names] == [3, 2]


def test_what_does_not_fit_into_memory_waits(rivals, tmp_path, monkeypatch):
    """Each wave starts as many workers as are built together, and the next when these ended."""
    alive, most = [], []

    class Counted(pool.Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.append(self)
            most.append(len(alive))

        def close(self):
            super().close()
            if self in alive:
                alive.remove(self)

    monkeypatch.setattr(speed, "Worker", Counted)
    monkeypatch.setattr(speed, "free_memory", lambda: 0)
    monkeypatch.setattr(speed, "num_cores", lambda: 1)
    names = ("quick", "slow", "quick-too")
    contestants.CONTESTANTS["quick-too"] = fake("quick too")
    group = speed.Group("inference", "float32", names, 1, speed.TRIAL, (1,), "tiny", 32)
    entries = speed.measure(group, tmp_path, lambda seconds: None)["entries"]
    assert list(entries) == list(names) and all(entry["seconds"] for entry in entries.values())
    assert max(most) == 2  # the matrix product and one contestant
    assert not alive


@pytest.mark.slow
def test_worker_errors(rivals, tmp_path, monkeypatch):
    job = contestants.Job("inference", "float32", (1,))
    with pool.Worker(fake("no module"), job, tmp_path / "log") as running:
        monkeypatch.setattr(pool, "LIMIT_SECONDS", 0.01)
        with pytest.raises(pool.WorkerError, match="no answer in 0.01"):
            running.ask("build")
    monkeypatch.undo()
    missing = contestants.Contestant("missing", "no_such_module", ())
    with pool.Worker(missing, job, tmp_path / "log") as running:
        with pytest.raises(pool.WorkerError, match="exit code 1: ModuleNotFoundError.*no_such_module"):
            running.ask("build")
        with pytest.raises(pool.WorkerError, match="exit code 1"):  # it stays so
            running.ask("build")
    assert running.process.poll() is not None


@pytest.mark.parametrize(
    "options, named",
    [
        (["--only", "inferense"], "did you mean 'inference'"),
        (["--only", ""], "--only is empty"),
        (["--models", "vit_x16"], "--models"),
        (["--contestants", "timn"], "did you mean 'timm'"),
        (["--contestants", "tutorial", "--only", "training"], "nothing to measure"),
        (["--precisions", "float16"], "--precisions"),
        (["--batch-sizes", "1,-8"], "--batch-sizes"),
        (["--batch-sizes", "1,,8"], "--batch-sizes"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_bad_arguments(options, named, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: speed.main([*options, "--out", str(tmp_path / "out")]))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def plan(*options):
    return {group.key: group for group in speed.make_plan(speed.parse_arguments(options))}


def test_plan():
    groups = plan()
    assert [key for key in groups if "ViT-B/16 224" in key] == [
        "inference ViT-B/16 224 float32 batch 1/8/32",
        "inference ViT-B/16 224 bfloat16 batch 1/8/32",
        "training ViT-B/16 224 float32 batch 8",
        "training ViT-B/16 224 bfloat16 batch 8",
        "resolution ViT-B/16 224 float32 batch 1",
    ]
    assert [group.image_size for group in groups.values() if group.kind == "resolution"] == [
        *(224, 384, 512, 768, 1024)
    ]
    slow = groups["inference ViT-B/16 224 float32 batch 1/8/32"].names
    assert "timm-compile" in slow and "openvino" in slow and "tutorial" not in slow
    assert "timm-compile" not in groups["inference ViT-S/16 224 float32 batch 1/8/32"].names
    training = groups["training ViT-B/16 224 float32 batch 8"].names
    assert not {"openvino", "timm-compile"} & set(training) and "timm" in training
    assert groups["tutorial float32 batch 256"].names == ("tutorial", "preset-fit", "preset-loop")

    families = [group for group in groups.values() if group.kind == "families"]
    assert [group.key for group in families[::2]] == [
        "families vit_small_patch16_dinov3 256 float32 batch 8",
        "families vit_base_patch16_dinov3 256 float32 batch 8",
    ]
    assert all(group.names == ("ours", "ours-plain", "timm") for group in families)
    assert [speed.count_tokens(families[0], name) for name in families[0].names] == [261, 257, 261]

    quick = plan("--quick")
    assert {group.model for group in quick.values() if group.kind == "training"} == {"vit_b16", "vit_s16"}
    for group in quick.values():
        assert not any(ALL[name].slow_build or "xla" in name for name in group.names)
    assert sum(group.expected_seconds for group in quick.values()) < 30 * 60

    groups = plan(
        "--contestants", "timm-compile,openvino", "--models", "vit_ti16,vit_s16", "--only", "inference"
    )
    assert all(group.names == ("timm-compile", "openvino") for group in groups.values())
    assert len(groups) == 4


def test_every_contestant_has_its_module():
    for name, contestant in {**ALL, "gemm": contestants.GEMM}.items():
        assert (BENCHMARKS / f"{contestant.module.replace('.', '/')}.py").is_file(), name
        assert set(contestant.kinds) <= set(speed.KINDS), name
    assert set(contestants.RESOLUTION_DEFAULT) <= set(ALL)


def test_compiler_is_needed_for_torch_compile(monkeypatch):
    monkeypatch.setattr(contestants.shutil, "which", lambda name: None)
    monkeypatch.setattr(contestants.importlib.util, "find_spec", lambda name: object())
    assert "compiler" in contestants.why_not(ALL["timm-compile"], "float32")
    assert contestants.why_not(ALL["timm"], "float32") is None


def test_flops_of_inference_and_training(monkeypatch):
    """Closed form; training has no gradient of the images, so the stem counts twice and not thrice."""
    monkeypatch.setitem(speed.MODELS, "small", TINY)
    p, d, layers, m, k, n = 4, 32, 2, 64, 10, 5
    stem = 2 * p * 16 * 16 * 3 * d
    rest = layers * (2 * n * d * (4 * d + 2 * m) + 4 * n * n * d) + 2 * d * k
    assert speed.flops_per_image("inference", "small", 32) == stem + rest
    assert speed.flops_per_image("training", "small", 32) == 2 * stem + 3 * rest
    assert speed.flops_per_image("tutorial", "", 0) is None


@pytest.mark.slow
@on_tensorflow
def test_ours_and_the_textbook_are_the_same_model():
    from contestants import ours, textbook

    job = contestants.Job("inference", "float32", (2,), 32, TINY)
    expected = count_flops(build_vit("vit_b16", image_size=32, **speed.asdict(TINY))).totals.parameters
    for module in (ours, textbook):
        built = module.build(job)
        assert built.parameters == expected
        assert built.make_step(2)().shape == (2, 10)


@pytest.mark.slow
@on_tensorflow
def test_families_and_their_plain_vits():
    from contestants import ours

    job = contestants.Job("families", "float32", (2,), 32, TINY, variant="vit_small_patch16_dinov3")
    rotary, plain = ours.build(job), ours.build(job, plain=True)
    assert rotary.parameters == build_vit(job.variant).count_params() != plain.parameters
    assert plain.make_step(2)().shape == (2, 10)


@pytest.mark.slow
@on_tensorflow
def test_training_steps_learn():
    from contestants import ours

    step = ours.build(contestants.Job("training", "float32", (2,), 32, TINY)).make_step(2)
    losses = [float(step()) for _ in range(5)]
    assert losses[-1] < losses[0]  # the same two images again and again


@on_tensorflow
def test_session_answers(monkeypatch):
    job = contestants.Job("limit", "bfloat16", (64,))
    session = worker.Session("contestants.gemm", {}, job)
    assert session.build()["parameters"] == 0
    assert session.warm_up(64)["output_shape"] == [64, 64]
    start = time.perf_counter()
    answer = session.run(64, 0.05)
    assert 0.05 <= sum(answer["times"]) <= time.perf_counter() - start
    assert answer["peak"] > 1e8
    assert len(session.run(64, 0)["times"]) == 1


def group(**changes):
    """A group as it stands in speed.json; matrix products of 2,000 FLOPs take 1 s, so the limit is 2,000."""
    base = {
        "key": "inference tiny 32 float32 batch 1/8",
        "kind": "inference",
        "model": "ViT-B/16",
        "precision": "float32",
        "image_size": 32,
        "batch_sizes": [1, 8],
        "batches": 1,
        "rounds": 3,
        "matrix_side": 10,
        "flops_per_image": 500,
        "limit": {"seconds": {"10": [[0.5], [1.0, 1.0, 9.0], [2.0]]}},
        "skipped": {},
        "entries": {
            "ours": entry({"1": [[0.5], [0.4], [0.6]], "8": [[4.0, 4.0], [2.0], [5.0]]}),
            "timm": entry({"1": [[0.25]] * 3, "8": [[5.0]] * 3}),
        },
    }
    return {**base, **changes}


def entry(seconds, **more):
    return {"seconds": seconds, "parameters": 1234567, "peak": 3e9, "resident": 1e9, **more}


def test_families_table():
    entries = {"ours": entry({"8": [[3.0]]}), "ours-plain": entry({"8": [[2.0]]})}
    record = group(kind="families", batch_sizes=[8], entries=entries, tokens={"ours": 12, "ours-plain": 10})
    rows = tables.families_table(record).splitlines()
    assert rows[2:] == [
        "| **vit_tf, TensorFlow** | 3,000 | 12 | 1.25 | 3.00 |",
        "| **vit_tf, TensorFlow, the plain ViT of this size** | 2,000 | 10 | 1.00 | 3.00 |",
    ]


def test_times_table():
    assert tables.limit(group()) == (2000, 1000, 4000)
    assert tables.times_table(group()).splitlines() == [
        "| float32 | batch 1, ms | batch 8, ms | images/s, batch 1 / 8 | of the limit, batch 1 / 8 "
        "| peak memory, GB |",
        "|---|---:|---:|---:|---:|---:|",
        # 500 FLOPs in 0.5 s are 1,000 FLOP/s, half of the limit; 8 x 500 in 4 s as well
        "| **vit_tf, TensorFlow** | 500 (400 to 600) | **4,000** (2,000 to 5,000) | 2.00 / 2.00 "
        "| 50 % / 50 % | 3.00 |",
        "| timm, PyTorch eager | **250** | 5,000 | 4.00 / 1.60 | 100 % / 40 % | 3.00 |",
    ]
    without = group(limit={"seconds": {}, "failed": "exit code 1: no"})
    assert "| - / - |" in tables.times_table(without)
    assert "matrix product, inference tiny 32 float32 batch 1/8: exit code 1: no" in tables.failures(
        [without]
    )


def test_resolution_tutorial_and_limit_tables():
    small = group(kind="resolution", batch_sizes=[1], image_size=224)
    large = group(kind="resolution", batch_sizes=[1], image_size=1024)
    large["entries"] = {"ours": large["entries"]["ours"], "timm": {"seconds": {}, "failed": "killed"}}
    assert tables.resolution_tables([small, large]).splitlines()[2:4] == [
        "| **vit_tf, TensorFlow** | 500 (400 to 600) | 500 (400 to 600) |",
        "| timm, PyTorch eager | 250 | - |",
    ]
    assert tables.resolution_tables([small, large]).splitlines()[-2:] == [
        "| **vit_tf, TensorFlow** | 2.00 | 2.00 |",
        "| timm, PyTorch eager | 2.00 | - |",
    ]
    tutorial = group(kind="tutorial", batch_sizes=[256], batches=4, flops_per_image=None)
    tutorial["entries"] = {"tutorial": entry({"256": [[8.0], [4.0], [16.0]]})}
    assert tables.tutorial_table(tutorial).splitlines()[-1] == (
        "| the Keras tutorial's code, fit | 128 (64.0 to 256) | 1,234,567 | 3.00 |"
    )
    assert tables.limit_table([small, large]).splitlines()[-1] == (
        f"| float32 | {tables.number(2e-6)} ({tables.number(1e-6)} to {tables.number(4e-6)}) |"
    )


@pytest.mark.parametrize(
    "value, text",
    [(1530.2, "1,530"), (609.7, "610"), (77.34, "77.3"), (5.0, "5.00"), (0.01234, "0.0123"), (0, "0")],
)
def test_number(value, text):
    assert tables.number(value) == text


def test_figure_has_a_panel_a_model_and_task():
    groups = [
        group(),
        group(precision="bfloat16"),
        group(kind="training", batch_sizes=[8]),
        group(kind="limit"),
    ]
    drawn = figure.speeds(groups, "title")
    assert [axes.get_title() for axes in drawn.axes] == [
        "ViT-B/16: inference, batch 8",
        "ViT-B/16: training, batch 8",
    ]
    widths = [round(bar.get_width(), 3) for bar in drawn.axes[0].patches]
    assert widths == [2.0, 1.6, 2.0, 1.6]  # images a second of batch 8
    assert [text.get_text() for text in drawn.axes[0].texts[:2]] == ["2.00 (50 %)", "1.60 (40 %)"]
    assert [line.get_xdata()[0] for line in drawn.axes[0].lines if len(set(line.get_xdata())) == 1].count(
        4.0
    ) == 2
    assert figure.speeds([group(kind="limit")], "title") is None
