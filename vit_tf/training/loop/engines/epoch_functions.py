"""An epoch of training as a pure function of JAX, to be compiled. KERAS_BACKEND must be jax.

What training changes is a dict of lists of arrays, the values of the variables in `groups`: the functions
take it and return a new one.

Shapes: n images of a data set, b images of a batch, s steps, h rows, w columns, c channels, k classes.
"""

import jax
import jax.numpy as jnp
import keras

from vit_tf.checks import require
from vit_tf.data.augment.mixing import blend, draw_mixing


def groups(model, augmentation, optimizer):
    """Returns all variables that training changes, as a dict of lists.

    The order is that of `stateless_call` and `stateless_apply`. The group "non_trainable" includes moving
    averages, seeds and whitening filters.
    """
    return {
        "trainable": model.trainable_variables,
        "non_trainable": model.non_trainable_variables,
        "augmentation": augmentation.variables,
        "optimizer": optimizer.variables,
    }


def make_step(model, augmentation, optimizer, loss):
    """Returns one training step as a pure function.

    Args:
        model: a `keras.Model` from images (b, h, w, c) in [0, 255] to float32 logits (b, k).
        augmentation: a `keras.Model` from images to images of the same shape, without trainable weights.
        optimizer: of `make_optimizer`, built for `model.trainable_variables`.
        loss: a `keras.losses.Loss` of labels and logits.

    Returns:
        A function `(values, images, labels, rate, mixing=None) -> (values, (loss, accuracy))`: values as of
        `groups`; images (b, h, w, c), uint8 or float; labels float32 (b, k), rows that sum to one; rate
        float32, the learning rate; mixing as `draw_mixing` gives it for (b,).

    Raises:
        ValueError: Keras does not compute by JAX.
    """
    backend, hint = keras.backend.backend(), "start the process with KERAS_BACKEND=jax"
    require(backend == "jax", f"--engine compiled-epoch needs Keras on JAX, got {backend!r}: {hint}")
    update = make_update(model, optimizer, loss)

    def step(values, images, labels, rate, mixing=None):
        images, seeds = augmentation.stateless_call([], values["augmentation"], images, training=True)
        # Pixels are whole numbers so far, which bfloat16 holds exactly up to 255; blended ones are not.
        images, labels = blend(images.astype("float32"), labels, mixing)
        values, value, logits = update(values, images, labels, rate)
        is_right = logits.argmax(-1) == labels.argmax(-1)
        return {**values, "augmentation": seeds}, (value, is_right.mean())

    return step


def make_update(model, optimizer, loss):
    """Returns the part of a step that trains: the gradients of a loss, and the optimizer's update.

    Args:
        model, optimizer: see `make_step`.
        loss: function of labels and logits, a number.

    Returns:
        A function `(values, images, labels, rate) -> (values, loss, logits)`; values with "trainable",
        "non_trainable" and "optimizer".
    """
    rate_index = [x is optimizer.learning_rate for x in optimizer.variables].index(True)

    def compute_loss(trainable, non_trainable, images, labels):
        logits, non_trainable = model.stateless_call(trainable, non_trainable, images, training=True)
        return loss(labels, logits), (logits, non_trainable)

    compute_gradients = jax.value_and_grad(compute_loss, has_aux=True)

    def update(values, images, labels, rate):
        (value, (logits, non_trainable)), gradients = compute_gradients(
            values["trainable"], values["non_trainable"], images, labels
        )
        state = list(values["optimizer"])
        state[rate_index] = rate
        trainable, state = optimizer.stateless_apply(state, gradients, values["trainable"])
        return dict(trainable=trainable, non_trainable=non_trainable, optimizer=state), value, logits

    return update


def make_epoch(step, batch_size, mix=None):
    """Returns an epoch as a pure function, made of the steps of `make_step`.

    Args:
        step: what `make_step` returns.
        batch_size: int, b. Images that do not fill a last batch are left out, others in each epoch.
        mix: a `vit_tf.data.augment.mixing.MixUpCutMix` or None.

    Returns:
        A function `(values, images, labels, rates, key) -> (values, (loss, accuracy))`: images uint8
        (n, h, w, c) and labels float32 (n, k), all of them; rates float32 (s,), one per step; key of
        `jax.random`, which determines the order and the mixing. Loss and accuracy are means over the steps.
    """

    def epoch(values, images, labels, rates, key):
        order, mixing = draw_epoch(key, len(images), len(rates), batch_size, mix, images.shape[1:3])

        def body(values, drawn):
            indices, rate, mixing = drawn
            return step(values, images[indices], labels[indices], rate, mixing)

        values, results = jax.lax.scan(body, values, (order, rates, mixing))
        return values, jax.tree.map(jnp.mean, results)

    return epoch


def draw_epoch(key, num_images, num_steps, batch_size, mix, image_size):
    """Draws an epoch's order, int (s, b), and its mixing, see `draw_mixing`."""
    order_key, mixing_key = jax.random.split(key)
    order = jax.random.permutation(order_key, num_images)[: num_steps * batch_size]
    order = order.reshape(num_steps, batch_size)
    return order, draw_mixing(mix, mixing_key, order.shape, image_size)


def make_predict(model, batch_size=1000):
    """Returns a pure function from all images of a data set to their logits, batch by batch.

    Args:
        model: as of `make_step`.
        batch_size: int, images at a time.

    Returns:
        A function `(trainable, non_trainable, images) -> logits`: lists of values; uint8 (n, h, w, c);
        float32 (n, k).
    """

    def predict(trainable, non_trainable, images):
        n = len(images)
        b = min(n, batch_size)
        rows = (jnp.arange(-(-n // b) * b) % n).reshape(-1, b)  # the last batch is filled up with the first

        def logits_of(indices):
            return model.stateless_call(trainable, non_trainable, images[indices], training=False)[0]

        logits = jax.lax.map(logits_of, rows)  # (s, b, k)
        return logits.reshape(-1, logits.shape[-1])[:n]

    return predict


def values_of(variables):
    """Returns the values of a dict of lists of variables."""
    # `asarray` with a dtype: a value made from a Python number has a weak type and would be compiled again.
    return jax.tree.map(lambda variable: jnp.asarray(variable.value, variable.value.dtype), variables)


def assign(variables, values):
    """Puts values into a dict of lists of variables. No array is copied."""
    for name, group in variables.items():
        for variable, value in zip(group, values[name]):
            variable.assign(value)
