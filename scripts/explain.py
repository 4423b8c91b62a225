"""Show what a model attends to in images: the same as `vit-tf explain`."""

from vit_tf.commands.main import entry

if __name__ == "__main__":
    entry("explain")
