"""The subcommands of `vit-tf`, one module each."""
