from vit_tf.training.legacy import *  # noqa
