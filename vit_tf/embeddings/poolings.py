"""The names of the poolings of features, without Keras."""

POOLINGS = ("token", "avg", "gem", "cls+avg")
