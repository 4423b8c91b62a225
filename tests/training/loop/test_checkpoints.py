import json

import keras
import numpy as np
import pytest

from vit_tf.training.loop.checkpoints import Checkpoints, from_arrays, to_arrays


def content(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "model/0000/kernel": generator.normal(size=(3, 4)).astype("float32"),
        "model/0001/seed": generator.integers(0, 2**32, 2, "uint32"),
        "optimizer/0000/iteration": np.array(7, "int64"),
    }


STATE = {"epoch": 3, "loss": 0.1 + 0.2, "rows": [{"a": 1.0}], "best": None, "name": "né\n"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_comes_back_is_what_was_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    path = checkpoints.save(12, content(), STATE)
    assert path.name.startswith("step-00000012-")
    arrays, state = Checkpoints(tmp_path / "new" / "folder").load()
    assert state == STATE
    assert arrays.keys() == content().keys()
    for name, array in content().items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_the_last_two_stay_and_no_state_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for step in (1, 2, 3, 10**9):  # more digits than the names have at least
        checkpoints.save(step, content(step % 100), {"step": step})
    assert [int(name.split("-")[1]) for name in names(tmp_path)] == [3, 10**9]
    assert checkpoints.load()[1] == {"step": 10**9}


def test_the_same_step_twice(tmp_path):
    """As in the middle of an epoch's last batch, and at the end of the epoch."""
    checkpoints = Checkpoints(tmp_path)
    for i in range(3):
        checkpoints.save(5, content(i), {"i": i})
    assert len(names(tmp_path)) == 2 and checkpoints.load()[1] == {"i": 2}


def damage(path, how):
    data = path.read_bytes()
    if how == "flipped":
        position = len(data) - 5
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty"])
def test_a_broken_newest_one_falls_back_and_says_so(tmp_path, how):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        path = checkpoints.save(step, content(step), {"step": step})
    damage(path, how)
    with pytest.warns(
        UserWarning, match=f"corrupt, and passed over: {path.name}.*resuming from step-00000001"
    ):
        arrays, state = checkpoints.load()
    assert state == {"step": 1}
    np.testing.assert_array_equal(arrays["model/0000/kernel"], content(1)["model/0000/kernel"])
    checkpoints.save(2, content(2), {"step": 2})  # in the broken one's place
    assert checkpoints.load()[1] == {"step": 2} and len(names(tmp_path)) == 2


def test_all_broken_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        damage(checkpoints.save(step, content(step), {}), "truncated")
    with pytest.raises(ValueError, match="every checkpoint in .* is corrupt: step-00000002.*start a new run"):
        checkpoints.load()


def test_a_broken_past_does_not_outlive_the_way_around_it(tmp_path):
    """A later step than the one that was just saved belongs to what is over."""
    checkpoints = Checkpoints(tmp_path)
    damage(checkpoints.save(9, content(), {}), "flipped")
    checkpoints.save(4, content(), {"step": 4})
    assert [int(name.split("-")[1]) for name in names(tmp_path)] == [4]


def test_half_written_ones_are_removed_and_strange_files_left(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, content(), {"step": 1})
    half = tmp_path / "partial.ab12cd_x.step.safetensors" / "step.safetensors"
    half.parent.mkdir()
    half.write_bytes(b"half")
    (tmp_path / "step-00000009.safetensors").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    assert checkpoints.load()[1] == {"step": 1}
    assert len(names(tmp_path)) == 3 and "notes.txt" in names(tmp_path)


def test_a_full_disk_leaves_the_older_states(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, content(), {"step": 1})
    before = names(tmp_path)

    def full(arrays, path, metadata):
        from safetensors import SafetensorError

        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("vit_tf.training.loop.checkpoints.save_file", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(2, content(), {})
    with monkeypatch.context() as patch:
        patch.setattr("vit_tf.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
        with pytest.raises(OSError, match="No space left: .* bytes are needed, 10 are free"):
            checkpoints.save(2, content(), {})
    assert names(tmp_path) == before and checkpoints.load()[1] == {"step": 1}


def test_numbers_survive_the_header_bit_by_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=50).tolist() + [5e-324, 1.7976931348623157e308]
    path = Checkpoints(tmp_path).save(1, content(), {"values": values})
    assert Checkpoints(tmp_path).load()[1]["values"] == values
    assert json.dumps(values).encode().replace(b'"', b'\\"') in path.read_bytes()


def variables(*shapes, prefix="layer"):
    generator = np.random.default_rng(1)
    return [
        keras.Variable(generator.normal(size=shape), dtype="float32", name=f"{prefix}_{i}")
        for i, shape in enumerate(shapes)
    ]


def test_variables_there_and_back():
    groups = {"model": variables((2, 3), ()), "optimizer": variables((4,))}
    arrays = to_arrays(groups)
    saved = {name: array.copy() for name, array in arrays.items()}
    for variable in groups["model"] + groups["optimizer"]:
        variable.assign(np.zeros(variable.shape))
    for name, array in saved.items():  # the arrays are copies
        np.testing.assert_array_equal(arrays[name], array)
    from_arrays(groups, {**arrays, "best/0000/other": np.zeros(1)})
    for name, array in to_arrays(groups).items():
        np.testing.assert_array_equal(array, saved[name])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda a: a.pop("model/0001/layer_1"),
            "1 of its variables do not: model/0001/layer_1 is not in the",
        ),
        (
            lambda a: a.update({"model/0002/x": np.zeros(1)}),
            "model/0002/x is in the state and not in this run",
        ),
        (lambda a: a.update({"model/0000/layer_0": np.zeros((3, 2), "float32")}), r"\(3, 2\).*in the state"),
        (lambda a: a.update({"model/0000/layer_0": np.zeros((2, 3), "float64")}), "float64.*in the state"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(change, message):
    groups = {"model": variables((2, 3), (4,))}
    arrays = {name: array + 1 for name, array in to_arrays(groups).items()}
    before = to_arrays(groups)
    change(arrays)
    with pytest.raises(ValueError, match=message):
        from_arrays(groups, arrays)
    for name, array in to_arrays(groups).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_no_state(value):
    (variable,) = variables((3,))
    variable.assign([0.0, value, 1.0])
    with pytest.raises(ValueError, match="layer_0 has NaN or infinite values"):
        to_arrays({"model": [variable]})


def test_keras_s_own_numbers_do_not_count():
    """The same model has other paths when a process builds it twice."""

    def names_of_a_model():
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dropout(0.5)], name="model"
        )
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)
        return list(to_arrays({"model": model.variables, "optimizer": optimizer.variables}))

    assert names_of_a_model() == names_of_a_model()
