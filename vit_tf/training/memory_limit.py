"""Messages about runs that need more memory than the machine has."""

from contextlib import contextmanager

from vit_tf.flops import training_bytes
from vit_tf.memory import OutOfMemory, describe, gigabytes, is_out_of_memory, total_memory

FAR_TOO_MUCH = 4  # times the machine's memory: an estimate may be wrong, and a GPU may have more
HINT = "a smaller --batch-size (--accumulation-steps makes up for it), smaller images or --remat"


def require_step_memory(model, recipe):
    """Raises an `OutOfMemory` if a training step needs far more memory than the machine has.

    The system may kill a process that takes too much without a message. With `remat` there is no estimate.
    """
    total, needed = total_memory(), None if recipe.remat else training_bytes(model, recipe.batch_size)
    if total and needed and needed > FAR_TOO_MUCH * total:
        raise OutOfMemory(f"{comparison(recipe.batch_size, needed, total)}: choose {HINT}")


def comparison(batch_size, needed, total):
    step = f"a training step of {batch_size} images needs about {gigabytes(needed)} of memory"
    return f"{step}, and this machine has {gigabytes(total)}"


@contextmanager
def memory_explained(trainer):
    """A scope that turns a lack of memory into one line with an estimate, and prints a note if it is likely.

    Raises:
        OutOfMemory: the memory was exhausted.
    """
    batch_size = trainer.engine.loader.batch_size
    needed, total = training_bytes(trainer.model, batch_size), total_memory()
    about = "the model or its batch is too large"
    if needed and total:
        about = comparison(batch_size, needed, total)
        if needed > total:
            print(f"note: {about}; --remat needs less")
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        step = trainer.progress.step
        raise OutOfMemory(
            f"out of memory at step {step}{describe(error)}: {about}; start a new run with {HINT}"
        ) from error
