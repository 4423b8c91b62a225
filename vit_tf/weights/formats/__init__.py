"""One module per source of weights: each translates its names to timm's."""
