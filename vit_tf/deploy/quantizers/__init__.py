"""Post-training quantization by the tools of the runtimes: a module per runtime.

Each module has `CANDIDATES`, in the order in which they are tried, and two functions:

- `write(candidate, subject, source, images, path)` writes the file of a candidate. `source` is the folder of
  the float32 model in the same format, `images` are the calibration images (n, H, W, 3).
- `layers(path)` returns the layers of such a file that multiply by a matrix, as `Layer`s.
"""
