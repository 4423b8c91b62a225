import keras
import numpy as np
import pytest
from conftest import randomize
from support.distilled import DEPTHS, distilled_vit

from vit_tf import build_vit, layers
from vit_tf.layers.relative_positions import RelativePositions
from vit_tf.training.lora import add_lora
from vit_tf.training.optimizers import averaged_weights, make_optimizer

pytestmark = pytest.mark.every_backend

RATE, DECAY = 1e-2, 0.1
HYBRID = dict(stem_width=6, hidden_dim=8, num_heads=2, mlp_dim=12)


@pytest.fixture(scope="module")
def shared():
    return distilled_vit()


@pytest.fixture
def vit(shared):
    for variable in shared.weights:
        variable.trainable = True
    return randomize(shared)


def values(variables):
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def random_gradients(variables, steps, seed=3):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=v.shape).astype("float32") for v in variables] for _ in range(steps)]


def apply(optimizer, gradients, variables):
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)


def factor(variable, layer_decay):
    return 1.0 if layer_decay == 1 else layer_decay ** (3 - DEPTHS[variable.path.partition("/")[0]])


def check_steps(vit, optimizer, rule, layer_decay, steps=3):
    """Compares the weights after each step with `rule(weight, gradient, rate, decay, state, step)`."""
    variables = vit.trainable_variables
    expected = [w.astype("float64") for w in values(variables)]
    states = [{} for _ in variables]
    for step, gradients in enumerate(random_gradients(variables, steps), start=1):
        apply(optimizer, gradients, variables)
        for i, variable in enumerate(variables):
            rate = RATE * factor(variable, layer_decay)
            decay = DECAY if variable.path.endswith("/kernel") else 0.0
            expected[i] = rule(expected[i], gradients[i], rate, decay, states[i], step)
        for variable, actual, wanted in zip(variables, values(variables), expected):
            # float32 against float64: some units in the last place of weights of about one.
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=2e-6, err_msg=variable.path)


def adamw_step(weight, gradient, rate, decay, state, step):
    """Loshchilov and Hutter, algorithm 2, with Keras's place of epsilon and PyTorch's order."""
    gradient = gradient.astype("float64")
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * gradient**2
    alpha = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    return weight * (1 - rate * decay) - alpha * state["m"] / (np.sqrt(state["v"]) + 1e-7)


def sgd_step(weight, gradient, rate, decay, state, step):
    state["v"] = 0.9 * state.get("v", 0.0) - rate * gradient.astype("float64")
    return weight * (1 - rate * decay) + state["v"]


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("name, rule", [("adamw", adamw_step), ("sgd", sgd_step)])
def test_steps_are_those_of_numpy(vit, name, rule, layer_decay):
    optimizer = make_optimizer(vit, name, RATE, DECAY, layer_decay)
    check_steps(vit, optimizer, rule, layer_decay)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
@pytest.mark.parametrize("dtype, tolerance", [(None, 1e-5), ("bfloat16", 0.1)])
def test_muon_iterates_as_keras_does(shape, dtype, tolerance):
    """The same polynomial of singular values, in another order of products and in bfloat16."""
    from vit_tf.training.optimizers import Muon

    gradient = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32"))
    ours = Muon(iteration_dtype=dtype).zeropower_via_newtonschulz5(gradient, 5)
    theirs = keras.optimizers.Muon().zeropower_via_newtonschulz5(gradient, 5)
    assert keras.backend.standardize_dtype(ours.dtype) == "float32"
    ours, theirs = map(keras.ops.convert_to_numpy, (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_muon_turns_convolutions_before_a_norm_and_keeps_their_length(layer_decay):
    model = randomize(build_vit("vit_cifar10_hybrid", **HYBRID))
    optimizer = make_optimizer(model, "muon", RATE, DECAY, layer_decay)
    variables = model.trainable_variables
    before = values(variables)
    (gradients,) = random_gradients(variables, 1)
    apply(optimizer, gradients, variables)
    turned = 0
    for variable, old, new, gradient in zip(variables, before, values(variables), gradients):
        rate = RATE * layer_decay**2  # of what comes before the only block
        if variable.path.endswith("/convolution/kernel"):
            turned += 1
            direction = keras.ops.reshape(gradient, (-1, gradient.shape[-1]))
            direction = keras.ops.convert_to_numpy(optimizer.orthogonalize(direction, 5))
            norm = np.linalg.norm(old)
            step = 8 * rate * norm * direction.reshape(old.shape) / min(direction.shape) ** 0.5
            wanted = (old - step) * norm / np.linalg.norm(old - step)
            np.testing.assert_allclose(new, wanted, rtol=0, atol=1e-5, err_msg=variable.path)
        elif variable.path.startswith("patch_embedding/"):
            wanted = adamw_step(old, gradient, rate, 0, {}, 1)
            np.testing.assert_allclose(new, wanted, rtol=0, atol=2e-6, err_msg=variable.path)
    assert turned == 5


def test_muon_leaves_convolutions_without_a_norm_to_adamw():
    stem = layers.OverlapPatchEmbedding(8, 4)
    stem.build((1, 8, 8, 3))
    check_steps(stem, make_optimizer(stem, "muon", RATE, DECAY), adamw_step, 1.0, steps=1)


def test_muon_leaves_tables_of_relative_positions_to_adamw():
    positions = RelativePositions((2, 3), 1)
    positions.build((1, 2, 7, 7))
    check_steps(positions, make_optimizer(positions, "muon", RATE, DECAY), adamw_step, 1.0, steps=1)


@pytest.mark.slow
def test_muon_turns_kernels_of_the_blocks_and_leaves_the_rest_to_adamw(vit):
    optimizer = make_optimizer(vit, "muon", RATE, DECAY, layer_decay=0.5)
    variables = vit.trainable_variables
    before = values(variables)
    (gradients,) = random_gradients(variables, 1)
    apply(optimizer, gradients, variables)
    turned = 0
    for variable, old, new, gradient in zip(variables, before, values(variables), gradients):
        rate = RATE * factor(variable, 0.5)
        decay = DECAY if variable.name == "kernel" else 0.0
        if variable.path.startswith("block_") and variable.name == "kernel":
            turned += 1
            update = (old * (1 - rate * decay) - new) / (rate * 0.2 * max(old.shape) ** 0.5)
            singular = np.linalg.svd(update, compute_uv=False)
            # Keras's five steps of Newton-Schulz end within about 0.3 of 1.
            assert singular.min() > 0.5 and singular.max() < 1.5, variable.path
            assert np.sum(update * gradient) > 0, variable.path
        else:
            wanted = adamw_step(old, gradient, rate, decay, {}, 1)
            np.testing.assert_allclose(new, wanted, rtol=0, atol=2e-6, err_msg=variable.path)
    assert turned == 2 * 4


def test_adapters_are_decayed_at_the_rate_of_their_block():
    """Without gradients a step is the decay alone."""
    vit = distilled_vit()
    add_lora(vit, 2)
    randomize(vit)
    variables = vit.trainable_variables
    before = values(variables)
    optimizer = make_optimizer(vit, "adamw", 0.5, DECAY, layer_decay=0.5)
    apply(optimizer, [np.zeros(v.shape, "float32") for v in variables], variables)
    names = [v.name for v in variables]
    assert names.count("lora_kernel_a") == names.count("lora_kernel_b") == 4
    for variable, old, new in zip(variables, before, values(variables)):
        decay = 0 if variable.name == "bias" else DECAY * 0.5 * factor(variable, 0.5)
        np.testing.assert_allclose(new, old * (1 - decay), rtol=1e-6, err_msg=variable.path)


def test_frozen_variables_have_no_slots_and_stay(vit):
    frozen = vit.get_layer("block_0").weights
    for variable in frozen:
        variable.trainable = False
    optimizer = make_optimizer(vit, "adamw", RATE, layer_decay=0.5)
    before = values(frozen)
    variables = vit.trainable_variables
    apply(optimizer, *random_gradients(variables, 1), variables)
    assert all((old == new).all() for old, new in zip(before, values(frozen)))
    assert len(optimizer.variables) == 2 + 2 * len(variables)
    assert not any("block_0" in variable.path for variable in optimizer.variables)


def test_the_last_blocks_may_be_frozen(vit):
    """The depth counts all blocks, not only those that are trained."""
    for variable in vit.get_layer("block_1").weights:
        variable.trainable = False
    optimizer = make_optimizer(vit, "sgd", RATE, DECAY, layer_decay=0.5)
    check_steps(vit, optimizer, sgd_step, 0.5, steps=1)


@pytest.mark.fast_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_accumulation_is_a_larger_batch(vit, name):
    """Four gradients make one step with their mean, clipped after it; two steps, average and all."""
    options = dict(learning_rate=RATE, weight_decay=DECAY, layer_decay=0.5, clip_norm=1.5, ema=0.9)
    variables = vit.trainable_variables
    start = values(variables)
    results = []
    for accumulation_steps in (1, 4):
        for variable, value in zip(variables, start):
            variable.assign(value)
        optimizer = make_optimizer(vit, name, accumulation_steps=accumulation_steps, **options)
        quarters = random_gradients(variables, 8)
        means = [[np.mean(g, axis=0) for g in zip(*quarters[i : i + 4])] for i in (0, 4)]
        for i, gradients in enumerate(quarters if accumulation_steps == 4 else means):
            apply(optimizer, gradients, variables)
            if accumulation_steps == 4 and i == 2:
                assert all((a == b).all() for a, b in zip(values(variables), start))
        assert int(optimizer.iterations) == 2
        averages = values([optimizer.average(v) for v in variables])
        results.append(values(variables) + averages)
    for one, four in zip(*results):
        np.testing.assert_allclose(four, one, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_accumulation_in_a_compiled_step():
    """Batches of 2 and `accumulation_steps=4` against one batch of 8, through the model itself."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 16)
    results = []
    for size, accumulation_steps in ((8, 1), (2, 4)):
        vit = randomize(distilled_vit(distillation_token=False, num_layers=1))
        vit.compile(
            make_optimizer(
                vit, "sgd", 0.1, DECAY, 0.5, clip_norm=0.5, accumulation_steps=accumulation_steps, ema=0.5
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        before = values(vit.weights)
        vit.fit(x, y, batch_size=size, shuffle=False, verbose=0)
        raw = values(vit.weights)
        with averaged_weights(vit, vit.optimizer):
            averaged = values(vit.weights)
            vit.predict(x[:2], verbose=0)  # JAX gives the arrays away that it predicts with
        averages = [vit.optimizer.average(variable) for variable in vit.weights]
        assert all((a == b).all() for a, b in zip(raw, values(vit.weights)))
        assert all((a == b).all() for a, b in zip(averaged, values(averages)))
        results.append(raw + averaged)
        assert max(np.abs(a - b).max() for a, b in zip(before, raw)) > 1e-2
    for one, four in zip(*results):
        np.testing.assert_allclose(four, one, rtol=0, atol=1e-5)


def test_clipping_is_by_the_norm_of_all_gradients(vit):
    variables = vit.trainable_variables
    (gradients,) = random_gradients(variables, 1)
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
    for limit, scale in ((norm / 4, 0.25), (2 * norm, 1.0)):
        before = values(variables)
        optimizer = make_optimizer(vit, "sgd", 1.0, 0.0, momentum=0.0, clip_norm=float(limit))
        apply(optimizer, gradients, variables)
        for old, new, gradient in zip(before, values(variables), gradients):
            np.testing.assert_allclose(old - new, scale * gradient, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_averages_are_those_of_numpy_and_come_and_go_bit_by_bit(vit):
    optimizer = make_optimizer(vit, "adamw", 0.1, ema=0.7)
    variables = vit.trainable_variables
    start = values(variables)
    for prepare in (lambda: None, lambda: optimizer.build(variables)):
        prepare()
        with averaged_weights(vit, optimizer):  # no step yet, no average
            assert all((a == b).all() for a, b in zip(values(variables), start))
    expected = None
    for gradients in random_gradients(variables, 4):
        apply(optimizer, gradients, variables)
        raw = values(variables)
        expected = raw if expected is None else [0.7 * e + 0.3 * w for e, w in zip(expected, raw)]
    with pytest.raises(RuntimeError, match="left early"), averaged_weights(vit, optimizer):
        for actual, wanted in zip(values(variables), expected):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-6)
        raise RuntimeError("left early")
    assert all((a == b).all() for a, b in zip(values(variables), raw))
    with averaged_weights(vit, make_optimizer(vit)):  # keeps no average
        assert all((a == b).all() for a, b in zip(values(variables), raw))
    with pytest.raises(ValueError, match="built for other variables"):
        with averaged_weights(distilled_vit(), optimizer):
            pass


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_kerass_callback_validates_the_averages(name):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(8, size)).astype("float32") for size in (5, 3))
    model.compile(make_optimizer(model, name, 0.1, ema=0.9), "mse")
    swap = keras.callbacks.SwapEMAWeights()
    for _ in range(2):
        history = model.fit(x, y, 4, validation_data=(x, y), verbose=0, callbacks=[swap]).history
        raw = model.evaluate(x, y, verbose=0)
        with averaged_weights(model, model.optimizer):
            averaged = model.evaluate(x, y, verbose=0)
        assert history["val_loss"][0] == pytest.approx(averaged) and abs(raw - averaged) > 1e-3
    last = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)  # leaves the averages in the model
    model.fit(x, y, 4, verbose=0, callbacks=[last])
    for variable in model.trainable_variables:
        np.testing.assert_allclose(*values([variable, model.optimizer.average(variable)]))


@pytest.mark.tensorflow_only
@pytest.mark.fast_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_saved_model_goes_on_as_the_other(vit, name, tmp_path):
    optimizer = make_optimizer(
        vit, name, RATE, DECAY, 0.5, momentum=0.8, clip_norm=9.0, accumulation_steps=2, ema=0.9
    )
    vit.compile(optimizer)
    first, *later = random_gradients(vit.trainable_variables, 4)
    apply(optimizer, first, vit.trainable_variables)
    vit.save(tmp_path / "vit.keras")
    again = keras.saving.load_model(tmp_path / "vit.keras")
    assert again.optimizer.get_config() == optimizer.get_config()
    for model in (vit, again):
        model.optimizer.learning_rate = 0.5
        for gradients in later:
            apply(model.optimizer, gradients, model.trainable_variables)
    for one, other in ((vit, again), (vit.optimizer, again.optimizer)):
        for a, b in zip(values(one.variables), values(other.variables)):
            assert (a == b).all()


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="adam"), r"`name` must be one of 'adamw', .* got 'adam' \(did you mean 'adamw'\?\)"),
        (dict(learning_rate=0), "`learning_rate` must be a positive number"),
        (dict(learning_rate=float("nan")), "`learning_rate` must be a positive number"),
        (dict(learning_rate="1e-3"), "`learning_rate` must be a positive number"),
        (dict(weight_decay=-0.1), "`weight_decay` must be a non-negative number"),
        (dict(layer_decay=1.1), r"`layer_decay` must be a number in \(0, 1\]"),
        (dict(layer_decay=0), r"`layer_decay` must be a number in \(0, 1\]"),
        (dict(momentum=1.0), r"`momentum` must be a number in \[0, 1\)"),
        (dict(clip_norm=0.0), "`clip_norm` must be a positive number or None"),
        (dict(accumulation_steps=0), "`accumulation_steps` must be a positive int"),
        (dict(accumulation_steps=2.0), "`accumulation_steps` must be a positive int"),
        (dict(accumulation_steps=True), "`accumulation_steps` must be a positive int"),
        (dict(ema=1.0), r"`ema` must be a number in \(0, 1\) or None"),
    ],
)
def test_bad_options(vit, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(vit, **options)


def test_layer_decay_needs_blocks():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no encoder blocks"):
        make_optimizer(model, layer_decay=0.9)
    assert make_optimizer(model).layer_decay == 1
