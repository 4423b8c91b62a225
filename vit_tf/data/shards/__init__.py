"""Shards: images in a few large files, ArrayRecord or WebDataset's tar, with an index."""
