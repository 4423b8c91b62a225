"""Show the cost of models: the same as `vit-tf summary`."""

from vit_tf.commands.main import entry

if __name__ == "__main__":
    entry("summary")
