"""`DataLoader` in Keras's own `fit`, `evaluate` and `predict`."""

import keras
import numpy as np
import pytest
from support.batches import AUGMENT, CLASSES, COUNT, LABELS, assert_equal, batches, each_setting

from vit_tf.data.augment.mixing import MixUpCutMix


def linear():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


@each_setting
def test_a_batch_is_that_of_the_epoch(settings):
    source = batches(**settings)
    assert_equal([source.batch(3, i) for i in range(len(source))], list(source.epoch(3)))
    with pytest.raises(IndexError, match="no batch 5"):
        source.batch(0, 5)
    with pytest.raises(ValueError, match="`epoch` must be"):
        source.batch(-1, 0)


@pytest.mark.slow
def test_fit_trains_on_the_epochs_that_the_trainer_sees():
    model, expected = linear(), linear()
    source = batches(lambda image, generator: np.asarray(AUGMENT(image, generator)), MixUpCutMix())
    model.fit(source, epochs=2, shuffle=False, verbose=0)
    assert source.keras_epoch == 2
    model.fit(source, epochs=1, shuffle=False, verbose=0)
    for epoch in range(3):
        for images, labels in source.epoch(epoch):
            expected.train_on_batch(images, labels)
    np.testing.assert_allclose(model.get_weights()[0], expected.get_weights()[0], atol=1e-6)


@pytest.mark.slow
def test_fit_in_parts_of_an_epoch_and_in_an_order_of_keras():
    source = batches(batch_size=8)
    linear().fit(source, epochs=4, steps_per_epoch=2, shuffle=False, verbose=0)
    assert source.keras_epoch == 2  # eight batches
    model = linear()
    history = model.fit(source, validation_data=batches(shuffle=False), epochs=3, verbose=0).history
    assert source.keras_epoch == 5 and history["loss"][-1] < history["loss"][0]
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(batches(shuffle=False), verbose=0)[0])


@pytest.mark.slow
def test_evaluate_and_predict_have_every_image_once():
    model, source = linear(), batches(shuffle=False)
    whole = np.concatenate([images for images, _ in source.epoch()])
    logits = model.predict(source, verbose=0)
    np.testing.assert_allclose(logits, model.predict(whole, verbose=0), atol=1e-6)
    _, accuracy = model.evaluate(source, verbose=0)
    assert accuracy == pytest.approx(np.mean(logits.argmax(-1) == LABELS)) and len(logits) == COUNT
