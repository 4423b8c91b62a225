"""Keras's optimizers with what fine-tuning a ViT needs.

These are weight decay of kernels alone, a learning rate per depth of the model, and averaged weights. All
three are in `update_step`, the method that Keras documents for custom optimizers.
"""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops

from vit_tf.layers.composite import register
from vit_tf.structure import HEADS, ViTStructure, depth
from vit_tf.training.recipes import check_setting

NORMED_CONVOLUTION = "/convolution/kernel"  # end of the path of a kernel in `vit_tf.layers.ConvNorm`
CONVOLUTION_RATE = 8.0  # of these kernels: their relative change in a step is this times the learning rate
# Adapters are decayed as kernels are: with decay 0.01 to 0.1 in the LoRA paper (appendix D), by `ndim >= 2`
# in timm and PEFT. Decay pulls their product to 0, and so the weights to those before fine-tuning.
DECAYED = ("kernel", "lora_kernel_a", "lora_kernel_b")


class FineTuning:
    """Mixin for Keras's optimizers: weight decay, layer decay and averages.

    Args:
        learning_rate: float, of the deepest weights.
        weight_decay: float. Each step takes learning_rate * weight_decay of a kernel from it, with the
            learning rate of its depth (decoupled: Loshchilov and Hutter, https://arxiv.org/abs/1711.05101).
        layer_decay: float in (0, 1], factor on the learning rate from each depth to the depth below.
        num_layers: int, how many blocks the model has.
        ema: float in (0, 1) or None, momentum of the average of each weight.
        **kwargs: of Keras's optimizer.
    """

    def __init__(
        self, learning_rate=1e-3, weight_decay=0.0, layer_decay=1.0, num_layers=0, ema=None, **kwargs
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=None, **kwargs)
        self.kernel_decay = weight_decay
        self.layer_decay = layer_decay
        self.num_layers = num_layers
        self.ema = ema

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.rate_factors = tuple(
            self.layer_decay ** (self.num_layers + 1 - depth(variable.path, self.num_layers))
            for variable in variables
        )
        self.decays = tuple(self.kernel_decay if self.is_decayed(variable) else 0.0 for variable in variables)
        # With accumulation Keras's `use_ema` updates after every batch; these averages with every step.
        self.averages = [] if self.ema is None else self.add_optimizer_variables(variables, "average")
        if self.averages:
            # `keras.callbacks.SwapEMAWeights` uses this name.
            self._model_variables_moving_average = self.averages

    def is_decayed(self, variable):
        return variable.name in DECAYED

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.rate_factors[index]
        if self.decays[index]:
            with after(gradient):
                self.assign_sub(variable, variable * (rate * self.decays[index]))
        super().update_step(gradient, variable, rate)
        if self.averages:
            # The first step copies the weights, so that the average never contains its start at zero.
            kept = ops.cast(ops.not_equal(self.iterations, 0), variable.dtype) * self.ema
            average = self.averages[index]
            self.assign_sub(average, (average - variable) * (1 - kept))

    # Keras calls the next two methods, on TensorFlow, on each device with gradients of its own, which it sums
    # there. Sums over the devices (`engines/mirrored_batch.py`) come in the cross-replica context.
    def _backend_update_step(self, gradients, variables, learning_rate):
        if not in_cross_replica_context():
            super()._backend_update_step(gradients, variables, learning_rate)
            return
        pairs = zip(gradients, [variable.value for variable in variables])
        self._distributed_tf_update_step(self._distribution_strategy, pairs, learning_rate)

    def _backend_increment_gradient_accumulators(self, gradients, accumulators):
        if not in_cross_replica_context():
            super()._backend_increment_gradient_accumulators(gradients, accumulators)
            return
        for gradient, accumulator in zip(gradients, accumulators):
            update = self._distribution_strategy.extended.update
            update(accumulator.value, lambda own, value: own.assign_add(value), args=(gradient,), group=False)

    def average(self, variable):
        """Returns the variable that holds the average of a model's `variable`."""
        return self.averages[self._get_variable_index(variable)]

    def get_config(self):
        return {
            **super().get_config(),
            "weight_decay": self.kernel_decay,
            "layer_decay": self.layer_decay,
            "num_layers": self.num_layers,
            "ema": self.ema,
        }


def after(gradient):
    """A scope whose operations a graph of TensorFlow runs when it has computed a gradient.

    Else it runs them as soon as the step begins. The forward pass still holds the weights then, so that each
    changed variable becomes a copy: a step would need the memory of all weights once more.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([gradient])


def in_cross_replica_context():
    """Returns whether TensorFlow has several devices here, and none of them is computing its own part."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.in_cross_replica_context()


class Adam(keras.optimizers.Adam):
    """Keras's Adam. On TensorFlow one operation updates a weight and its moments, instead of ten."""

    def update_step(self, gradient, variable, learning_rate):
        if not self.has_kernel(gradient, variable):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index = self._get_variable_index(variable)
        step = ops.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, variable.dtype),
        )

    def has_kernel(self, gradient, variable):
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return False
        import tensorflow as tf

        # Under a strategy a variable is several, until each is updated in the cross-replica context. Sparse
        # gradients have their own kernels.
        is_one = in_cross_replica_context() or not tf.distribute.has_strategy()
        return isinstance(gradient, tf.Tensor) and is_one


@register
class AdamW(FineTuning, Adam):
    """Adam with decoupled weight decay; see `FineTuning` and `keras.optimizers.Adam`."""


@register
class SGD(FineTuning, keras.optimizers.SGD):
    """Gradient descent with momentum; see `FineTuning` and `keras.optimizers.SGD`."""


@register
class Muon(FineTuning, keras.optimizers.Muon):
    """Muon for the kernels of blocks and convolutional stems, AdamW for the rest.

    See `FineTuning` and `keras.optimizers.Muon`. The rest is what Keras's Muon leaves out itself (embeddings,
    and all that is not a matrix), the heads, and tables of relative positions. Of the stem it takes the
    convolutions that a norm follows, as matrices with a column per filter, as in Jordan,
    https://github.com/KellerJordan/cifar10-airbench. Each of these keeps its Euclidean length, which the norm
    would divide out: a step changes its direction alone, and there is no weight decay. Steps in the blocks
    are scaled to the size of AdamW's, so that rate and decay of AdamW fit (Liu et al., "Muon is Scalable for
    LLM Training", https://arxiv.org/abs/2502.16982, section 2.2).

    Args:
        learning_rate: float, see `FineTuning`.
        iteration_dtype: dtype of the products that turn a gradient into an orthogonal matrix; None for that
            of the gradient. "bfloat16" is the authors' choice (Jordan et al.,
            https://kellerjordan.github.io/posts/muon/), and halves the time on processors that multiply it.
        **kwargs: of `FineTuning` and `keras.optimizers.Muon`.
    """

    def __init__(self, learning_rate=1e-3, iteration_dtype=None, **kwargs):
        own = {"adam_weight_decay": None, "exclude_layers": [f"^{head}/" for head in HEADS]}
        super().__init__(learning_rate, **{**kwargs, **own})
        self.iteration_dtype = iteration_dtype

    def _should_use_adamw(self, variable):
        if variable.path.endswith(NORMED_CONVOLUTION):
            return False
        # A table of relative positions is a matrix, but multiplies nothing.
        return variable.name not in DECAYED or super()._should_use_adamw(variable)

    def is_decayed(self, variable):
        return super().is_decayed(variable) and not variable.path.endswith(NORMED_CONVOLUTION)

    def _muon_update_step(self, gradient, variable, lr, m):
        if len(variable.shape) == 2:
            super()._muon_update_step(gradient, variable, lr, m)
            return
        length = ops.norm(as_matrix(variable))
        super()._muon_update_step(gradient, variable, lr * length, m)
        self.assign(variable, variable * (length / (ops.norm(as_matrix(variable)) + 1e-7)))

    def lr_adjust(self, x):
        if len(x.shape) == 2:
            return super().lr_adjust(x)
        return x * CONVOLUTION_RATE / min(as_matrix(x).shape) ** 0.5  # the norm of an orthogonal matrix

    def zeropower_via_newtonschulz5(self, x, steps):
        return ops.reshape(self.orthogonalize(as_matrix(x), steps), x.shape)

    def orthogonalize(self, x, steps):
        """Returns an approximation of the orthogonal matrix U V^T of a matrix U S V^T.

        This is Keras's iteration X <- a X + (b A + c A A) X with A = X X^T, written as products with a square
        matrix alone: passes over X would take as long as the products of a small model.
        """
        dtype, is_tall = x.dtype, x.shape[0] > x.shape[1]
        x = ops.transpose(x) if is_tall else x
        rows = x.shape[0]
        x = ops.cast(x / (ops.norm(x) + 1e-7), self.iteration_dtype or dtype)
        identity = ops.cast(self.muon_a, x.dtype) * ops.eye(rows, dtype=x.dtype)
        b, c = (ops.cast(value, x.dtype) for value in (self.muon_b, self.muon_c))
        for _ in range(steps):
            square = ops.matmul(x, ops.transpose(x))
            x = ops.matmul(identity + b * square + ops.matmul(c * square, square), x)
        return ops.cast(ops.transpose(x) if is_tall else x, dtype)

    def get_config(self):
        return {**super().get_config(), "iteration_dtype": self.iteration_dtype}


def as_matrix(kernel):
    """Returns a kernel `(..., f)` with its f filters as columns."""
    return ops.reshape(kernel, (-1, kernel.shape[-1]))


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "muon": Muon}


def make_optimizer(
    model: keras.Model,
    name: str = "adamw",
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    layer_decay: float = 1.0,
    momentum: float = 0.9,
    clip_norm: float | None = None,
    accumulation_steps: int = 1,
    ema: float | None = None,
) -> keras.optimizers.Optimizer:
    """Returns an optimizer for a ViT that decays kernels only: no biases, norms, tokens or positions.

    A variable that is frozen when training begins has no state in the optimizer and does not change.

    Args:
        model: a model of `build_vit`, or one that contains it; any built `keras.Model` if `layer_decay` is 1.
        name: "adamw", "sgd" or "muon".
        learning_rate: float, of the heads; other weights have it times
            layer_decay ** (number of blocks + 1 - depth), with the depth of `vit_tf.structure.depth`.
        weight_decay: non-negative float; each step subtracts learning rate * weight_decay * kernel from a
            kernel, with all three optimizers. "muon" does not decay convolutions before a norm, see `Muon`.
        layer_decay: float in (0, 1]; 1 gives every weight the same rate.
        momentum: float in [0, 1), of "sgd" alone.
        clip_norm: positive float; the global norm of the gradients is clipped to this value, after
            accumulation. None: no clipping.
        accumulation_steps: positive int, batches per step, by the mean of their gradients. Batches left over
            at the end of an epoch count for the first step of the next.
        ema: float in (0, 1), such as 0.9999: momentum of the weights' moving average, which starts at the
            weights after the first step. `averaged_weights` and `keras.callbacks.SwapEMAWeights` use it.
            None: no average.

    Returns:
        A `keras.optimizers.Optimizer` whose `learning_rate` can be set before each step.

    Raises:
        ValueError: an unknown name, or a value out of range.
    """
    check_setting("optimizer", name, "name")
    settings = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "layer_decay": layer_decay,
        "momentum": momentum,
        "clip_norm": clip_norm,
        "accumulation_steps": accumulation_steps,
        "ema": ema,
    }
    for setting, value in settings.items():
        check_setting(setting, value)
    return OPTIMIZERS[name](
        float(learning_rate),
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        num_layers=0 if layer_decay == 1 else ViTStructure(model, nested=True).num_blocks,
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=None if accumulation_steps == 1 else accumulation_steps,
        ema=ema,
        **own_options(name, model, momentum),
    )


def own_options(name, model, momentum):
    """Returns the arguments of one optimizer alone."""
    if name == "sgd":
        return {"momentum": float(momentum)}
    if name == "muon":  # float16 is too narrow for the iteration
        return {"iteration_dtype": "bfloat16" if model.compute_dtype == "bfloat16" else None}
    return {}


@contextlib.contextmanager
def averaged_weights(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """A scope in which a model has its averaged weights; afterwards its own weights are restored exactly.

    Nothing changes if the optimizer keeps no average (`ema=None`) or has made no step.

    Args:
        model: the model that `optimizer` trains, or a part of it, such as the ViT in a training model.
        optimizer: of `make_optimizer`.

    Raises:
        ValueError: the optimizer was not built for a trainable variable of the model.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under float16 Keras scales the loss
    if not getattr(optimizer, "averages", None) or ops.convert_to_numpy(optimizer.iterations) == 0:
        yield
        return
    variables = model.trainable_variables
    try:
        averages = [optimizer.average(variable) for variable in variables]
    except KeyError:
        raise ValueError(
            f"the optimizer was built for other variables than {model.name!r} trains now: "
            "change what is frozen before compiling, and give the model that was compiled, or a part of it"
        ) from None
    own = [ops.convert_to_numpy(variable.value) for variable in variables]
    try:
        for variable, average in zip(variables, averages):
            # A copy: JAX's `predict` donates the arrays of its variables.
            variable.assign(ops.convert_to_numpy(average.value))
        yield
    finally:
        for variable, value in zip(variables, own):
            variable.assign(value)
