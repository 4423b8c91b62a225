"""Training on several devices, and by several processes on one or more machines.

On JAX it is `keras.distribution` over `jax.distributed`; on TensorFlow `tf.distribute.MirroredStrategy`.
"""
