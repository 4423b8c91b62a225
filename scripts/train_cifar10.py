"""Trains a small Vision Transformer on CIFAR-10 from scratch: the same as `vit-tf train`."""

from vit_tf.commands.main import entry

if __name__ == "__main__":
    entry("train")
