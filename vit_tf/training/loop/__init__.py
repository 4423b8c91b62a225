"""The training loop: trainer, checkpoints, interrupts, progress."""
