import json
from dataclasses import replace

import pytest
from support.scripts import load_script

from vit_tf.planning import DEVICES, IMAGE_SETS, Cluster, Job, Speed, estimate, read_measured_speed
from vit_tf.planning.cluster import assumed_speed
from vit_tf.planning.image_sets import images_per_core
from vit_tf.planning.layout_estimates import choose_degrees
from vit_tf.planning.plan_report import report

IMAGENET = IMAGE_SETS["imagenet1k"]
# What benchmarks/gpu.py wrote on an H200 (docs/results/gpu.md).
GPU_JSON = {
    "machine": "NVIDIA H200, x86_64, jax 0.11.2",
    "vit": {"gemm": 7.3e14, "steps": {"128": 0.0378, "256": 0.07333}, "flops": 105382969344},
}
SPEED_JSON = {
    "machine": {"cpu": "AMD EPYC", "cores": 2},
    "groups": [
        {"kind": "inference", "precision": "float32"},
        {
            "kind": "training",
            "precision": "float32",
            "model": "ViT-B/16",
            "image_size": 224,
            "batches": 1,
            "flops_per_image": 105151758336,
            "entries": {
                "ours": {"seconds": {"8": [[4.38], [4.30, 4.46]]}},
                "timm": {"seconds": {"8": [[1.0]]}},
            },
        },
    ],
}


def make_plan(workload, name="h100", devices=8, job=None, degrees=(1,), **options):
    job = job or Job(IMAGENET, batch_size=1024)
    speed = options.pop("speed", None) or assumed_speed(DEVICES[name], job.precision)
    return estimate(workload, job, Cluster(name, devices), speed, degrees, **options)


def test_an_h200_trains_as_fast_as_measured(vit_b16):
    plan = make_plan(vit_b16, "h200", 1, Job(IMAGENET, batch_size=256))
    assert plan.recommended.images_per_second == pytest.approx(3491, rel=0.01)


def test_two_cores_train_as_fast_as_measured(vit_b16):
    """An AdamW step of 8 images took 4.38 s in float32 and 2.48 s in bfloat16 (docs/results/speed.md)."""
    for precision, seconds in (("float32", 4.382), ("bfloat16", 2.475)):
        speed = assumed_speed(DEVICES["cpu-core"], precision)
        assert 8 * vit_b16.training_flops() / 2 / speed.flops == pytest.approx(seconds, rel=0.05)


def test_time_is_that_of_the_steps(vit_b16):
    plan = make_plan(vit_b16, degrees=(1, 2))
    assert plan.job.steps == 300 * 1252
    plain, remat, split, _ = plan.layouts
    assert plan.recommended is plain and plain.name == "data" and split.name == "model 2"
    assert plain.compute_seconds == pytest.approx(128 * 3 * 35_127_656_448 / (0.37 * 989.4e12))
    assert remat.compute_seconds == pytest.approx(4 / 3 * plain.compute_seconds)
    assert plain.hours == pytest.approx(300 * 1252 * plain.step_seconds / 3600)
    assert plain.device_hours == 8 * plain.hours
    assert split.compute_seconds == pytest.approx(plain.compute_seconds)
    assert split.communication_seconds > plain.communication_seconds


def test_input_must_keep_up(vit_b16):
    plan = make_plan(vit_b16, devices=64, job=Job(IMAGENET, batch_size=4096))
    rates = plan.input_rates
    assert rates["images_per_second"] == plan.recommended.images_per_second
    assert rates["bytes_per_second"] == pytest.approx(115e3 * rates["images_per_second"])
    assert rates["cores_per_host"] == pytest.approx(rates["images_per_second"] / 294 / 8)
    assert images_per_core(IMAGENET.image_bytes) == pytest.approx(294)
    assert images_per_core(3e3) < 464 and images_per_core(2 * 115e3) < 294


def test_the_fastest_layout_that_fits_is_recommended(vit_b16):
    large = replace(vit_b16, parameters=4 * 10**9, split_parameters=4 * 10**9)
    small = make_plan(vit_b16, "t4", degrees=(1, 2))
    fits = small.layouts[0].largest_batch
    assert small.recommended.remat and f"a batch of {fits:,} fits without rematerialisation" in report(small)
    plan = make_plan(large, "a100-80", degrees=(1, 2, 4))
    assert [layout.fits for layout in plan.layouts] == [False, False, True, True, True, True]
    assert plan.recommended.name == "model 4"  # so many gradients take longer than the activations
    nothing = make_plan(replace(large, parameters=10**12), degrees=(1, 2))
    assert nothing.recommended is None and "No layout fits: take devices" in report(nothing)
    crowded = make_plan(vit_b16, "t4", job=Job(IMAGENET, batch_size=2**20))
    assert crowded.recommended is None
    largest = max(layout.largest_batch for layout in crowded.layouts)
    assert f"largest batch that fits is {largest:,}" in report(crowded)
    assert make_plan(vit_b16, "t4", job=Job(IMAGENET, batch_size=largest)).recommended.remat


def test_degrees():
    job, cluster = Job(IMAGENET, batch_size=64), Cluster("h100", 16)
    assert choose_degrees(job, cluster, [16]) == [1, 2, 4, 8]
    assert choose_degrees(job, cluster, [12]) == [1, 2, 4]
    assert choose_degrees(job, cluster, [16, 2]) == [1, 2]  # heads of keys and values
    assert choose_degrees(job, cluster, [16], "data") == [1]
    assert choose_degrees(job, cluster, [16], "model") == [2, 4, 8]
    assert choose_degrees(job, cluster, [16], "model", 16) == [16]
    few = Job(IMAGENET, batch_size=4)
    assert choose_degrees(few, cluster, [16], "model") == [4, 8]
    with pytest.raises(ValueError, match="a batch of 4 cannot be divided among 16 devices"):
        choose_degrees(few, cluster, [16])
    with pytest.raises(ValueError, match="a batch of 4 cannot be divided among 8 groups of 2 devices"):
        choose_degrees(few, cluster, [16], "model", 2)
    with pytest.raises(ValueError, match="heads cannot be split among 3 devices"):
        choose_degrees(job, cluster, [16], "model", 3)


@pytest.mark.parametrize(
    "content, precision, rate", [(GPU_JSON, "bfloat16", 3491), (SPEED_JSON, "float32", 1.83)]
)
def test_measured_speeds_are_taken_over(vit_b16, tmp_path, content, precision, rate):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(content))
    speed = read_measured_speed(path, precision)
    assert speed.flops / vit_b16.training_flops() == pytest.approx(rate, rel=0.01)
    plan = make_plan(vit_b16, "h200", 1, Job(IMAGENET, precision=precision), speed=speed)
    assert plan.layouts[0].images_per_second == pytest.approx(rate, rel=0.01)
    assert speed.source in report(plan) and f"{rate:,}"[:4] in speed.source
    other = {"float32": "bfloat16", "bfloat16": "float32"}[precision]
    with pytest.raises(ValueError, match=f"no training of vit_tf in {other}"):
        read_measured_speed(path, other)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"groups": [1]}', '{"vit": 3}', '{"groups": 1, "machine": {}}']
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="gpu.json or speed.json"):
        read_measured_speed(path, "bfloat16")


@pytest.mark.parametrize(
    "seconds, flops", [(0, 1e12), (-0.5, 1e12), (0.5, None), (0.5, -1e12), (1e-300, 1e300)]
)
def test_bad_measurements_are_refused(tmp_path, seconds, flops):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": "a GPU", "vit": {"steps": {"8": seconds}, "flops": flops}}))
    with pytest.raises(ValueError, match="gpu.json or speed.json"):
        read_measured_speed(path, "bfloat16")


def test_a_measurement_of_something_else(tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": "a GPU", "cifar": {"accuracy": 0.9}}))
    with pytest.raises(ValueError, match="has no training of vit_tf in bfloat16"):
        read_measured_speed(path, "bfloat16")


def test_prediction_of_two_processes_is_the_plan_s(vit_b16):
    """Where time is proportional to FLOPs, `benchmarks/plan_check.py` predicts it exactly."""
    script = load_script("plan_check", "benchmarks")
    small, large = (script.workload_of(size) for size in (script.CALIBRATION, script.LARGER))
    seconds = {"one calibration": 1.0, "two calibrations": 1.25, "all-reduce": 0.5}
    one, two, reduction, rates = script.predict(seconds, 32)
    ratio = large.forward_flops / small.forward_flops
    assert one == pytest.approx(ratio)
    assert reduction == pytest.approx(0.5)
    assert two == pytest.approx(1.25 * ratio / 2 + reduction)


def test_a_speed_has_a_source(vit_b16):
    assert assumed_speed(DEVICES["a100-80"], "bfloat16", 0.5) == Speed(
        156e12, "training reaches 50 % of the peak of 312 TFLOP/s in bfloat16"
    )
    assert "93.5 GFLOP/s" not in assumed_speed(DEVICES["cpu-core"], "float32").source
    for device in DEVICES.values():
        assert 0 < device.efficiency <= 1 and device.float32 <= device.bfloat16
        assert device.memory > 1e9 and device.link > 0 and device.network > 0
