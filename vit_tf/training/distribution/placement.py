"""Where a run computes: one device, or several devices of one or more processes.

Shapes: b images of a batch, p rows of the padded batch.
"""

from contextlib import nullcontext

import keras
import numpy as np

from vit_tf.checks import check_int, require
from vit_tf.training.distribution.process_group import Alone, JaxProcesses

BATCH = "batch"  # the axis of the mesh of devices over which a batch is divided


class OneDevice:
    """The placement of a run on one device, which Keras chooses.

    Attributes:
        kind: "none", "data" or "model", see `--distribute`.
        group: the processes of the run, see `vit_tf.training.distribution.process_group`.
        num_devices: int, devices of all processes.
        num_parts: int, into how many equal parts a batch is divided.
    """

    kind = "none"
    num_devices = 1
    num_parts = 1

    def __init__(self):
        self.group = Alone()

    def describe(self):
        """Returns the devices and processes as text; "" for one device."""
        return ""

    def scope(self):
        """A scope in which model, optimizer and engine are made."""
        return nullcontext()


class MirroredDevices(OneDevice):
    """The placement of a run on several devices of one host, by TensorFlow's `MirroredStrategy`.

    Attributes: see `OneDevice`.
    """

    kind = "data"

    def __init__(self):
        from vit_tf.training.loop.engines.mirrored_batch import mirrored_strategy

        super().__init__()
        self.strategy = mirrored_strategy()
        self.num_devices = self.num_parts = self.strategy.num_replicas_in_sync

    def describe(self):
        return f"{self.num_devices} devices"

    def scope(self):
        return self.strategy.scope()


class JaxDevices(OneDevice):
    """The placement of a run on several devices of JAX, by `keras.distribution`.

    Every process computes the same step on its part of the global batch. Attributes: see `OneDevice`.

    Args:
        kind: "data": each device has the whole model, and a part of the batch. "model": the weights are
            divided over `model_devices` devices, and the batch over groups of so many.
        model_devices: int, how many devices share one copy of the model; None for all.

    Raises:
        ValueError: the devices cannot be divided in this way.
    """

    def __init__(self, kind="data", model_devices=None):
        import jax

        from vit_tf.training.distribution.layout import MODEL, ViTModelParallel

        check_int("--model-devices", model_devices, 1, optional=True)
        self.kind = kind
        self.group = JaxProcesses() if jax.process_count() > 1 else Alone()
        self.num_devices = jax.device_count()
        shared_by = 1 if kind == "data" else model_devices or self.num_devices
        require(
            self.num_devices % shared_by == 0,
            f"--model-devices {shared_by} does not divide the {self.num_devices} device(s) of this run",
        )
        self.num_parts = self.num_devices // shared_by
        devices = keras.distribution.list_devices(jax.default_backend())
        if kind == "data":
            mesh = keras.distribution.DeviceMesh((self.num_parts,), (BATCH,), devices)
            distribution = keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False)
        else:
            mesh = keras.distribution.DeviceMesh((self.num_parts, shared_by), (BATCH, MODEL), devices)
            distribution = ViTModelParallel(mesh)
        keras.distribution.set_distribution(distribution)
        spec = jax.sharding.PartitionSpec
        self.by_row = jax.sharding.NamedSharding(mesh.backend_mesh, spec(BATCH))
        self.replicated = jax.sharding.NamedSharding(mesh.backend_mesh, spec())

    def describe(self):
        processes = f" of {self.group.count} processes" if self.group.count > 1 else ""
        shared_by = self.num_devices // self.num_parts
        copies = f", each copy of the model on {shared_by}" if self.kind == "model" else ""
        return f"{self.num_devices} devices{processes}{copies}"

    def padded_length(self, length):
        """Returns p: the smallest multiple of `num_parts` that is not below the b rows of a batch."""
        return -(-length // self.num_parts) * self.num_parts

    def rows(self, length):
        """Returns the rows of a batch of b = `length` images that this process reads, int64 (n,).

        Padding, the rows from b to p, repeats the first ones.
        """
        padded = self.padded_length(length)
        places = self.by_row.addressable_devices_indices_map((padded,)).values()
        numbers = np.arange(padded)
        return np.unique(np.concatenate([numbers[place] for place in places])) % length

    def to_global(self, rows, length):
        """Returns the global array (p, ...) of which this process has the `rows` (n, ...), see `rows`."""
        import jax

        shape = (self.padded_length(length), *rows.shape[1:])
        return jax.make_array_from_process_local_data(self.by_row, rows, shape)

    def to_all(self, values):
        """Returns a tree of arrays, the same on every process, as global arrays on every device."""
        import jax

        def place(value):
            value = np.asarray(value)
            return jax.make_array_from_callback(value.shape, self.replicated, lambda index: value[index])

        return jax.tree.map(place, values)
