"""Fine-tunes a Vision Transformer on labelled images: the same as `vit-tf finetune`."""

from vit_tf.commands.main import entry

if __name__ == "__main__":
    entry("finetune")
