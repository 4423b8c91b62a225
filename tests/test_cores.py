"""How many cores a process may use."""

import os

import pytest

from vit_tf import cores

AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    "text, quota",
    [("max 100000", None), ("150000 100000", 1.5), ("20000 100000", 0.2), ("-1 100000", None), ("x y", None)],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, text, quota):
    expected = AFFINITY if quota is None else max(1, min(AFFINITY, round(quota)))
    names = ("cpu.max", "quota", "period")
    for name, content in zip(names, (text, *text.split())):
        (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(cores, "OLD_QUOTA", (tmp_path / "quota", tmp_path / "period"))
    for current in (tmp_path / "cpu.max", tmp_path / "missing"):
        monkeypatch.setattr(cores, "QUOTA", current)
        assert cores.core_quota() == quota
        assert cores.num_cores() == expected


def test_without_a_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "missing")
    monkeypatch.setattr(cores, "OLD_QUOTA", (tmp_path / "missing",) * 2)
    assert cores.core_quota() is None and cores.num_cores() == AFFINITY
