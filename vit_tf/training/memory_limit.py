"""What a run says where the machine has too little memory for it."""

from contextlib import contextmanager

from vit_tf.flops import training_bytes
from vit_tf.memory import OutOfMemory, describe, gigabytes, is_out_of_memory, total_memory

FAR_TOO_MUCH = 4  # times the machine's memory: an estimate may be wrong, and a GPU may have more
HINT = "a smaller --batch-size (--accumulation-steps makes up for it), smaller images or --remat"


def require_step_memory(network, recipe):
    """Raises an `OutOfMemory` where a training step would need far more memory than there is.

    The system may end a process that takes too much without a word. With `remat` there is no estimate.

    Args:
        network: a model of `build_vit`, frozen as in the training.
        recipe: a `Recipe`.
    """
    total, needed = total_memory(), None if recipe.remat else training_bytes(network, recipe.batch_size)
    if total and needed and needed > FAR_TOO_MUCH * total:
        raise OutOfMemory(f"{step_memory(recipe.batch_size, needed)}, {machine_memory(total)}: choose {HINT}")


def step_memory(batch_size, needed):
    return f"a training step of {batch_size} images needs about {gigabytes(needed)} of memory"


def machine_memory(total):
    return f"and this machine has {gigabytes(total)}"


@contextmanager
def memory_explained(trainer):
    """A scope in which a lack of memory is one line with an estimate; a note tells before that it is likely.

    Raises:
        OutOfMemory: memory was used up.
    """
    batch_size = trainer.train.batch_size
    needed, total = training_bytes(trainer.network, batch_size), total_memory()
    about = "the model or its batch is too large"
    if needed and total:
        about = f"{step_memory(batch_size, needed)}, {machine_memory(total)}"
        if needed > total:
            print(f"note: {about}; it takes less with --remat")
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        step = trainer.progress.step
        raise OutOfMemory(
            f"out of memory at step {step}{describe(error)}: {about}; start anew with {HINT}"
        ) from error
