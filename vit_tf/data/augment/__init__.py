"""Augmentation: of single images with Pillow, of batches in the graph, and mixing of a batch."""
