import vit_tf


def test_public_names():
    assert sorted(vit_tf.__all__) == [
        "attention_distance",
        "attention_maps",
        "attention_rollout",
        "build_vit",
        "class_relevance",
        "count_flops",
        "decode_predictions",
        "features_to_rgb",
        "forward_features",
        "get_flops",
        "get_preprocessing",
        "grad_cam",
        "imagenet_classes",
        "layers",
        "linear_cka",
        "list_models",
        "load",
        "load_weights",
        "patch_filters",
        "position_similarity",
        "resize_model",
        "save_weights",
    ]
    for name in vit_tf.__all__:
        assert getattr(vit_tf, name) is not None


def test_layers_are_registered_under_the_package():
    import keras

    from vit_tf.data.augment import batch

    for module in (vit_tf.layers, batch):
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, keras.layers.Layer)
        ]
        assert len(classes) >= 4
        for layer_class in classes:
            if layer_class.__name__ not in ("Block", "RandomLayer"):  # base classes are never saved
                assert keras.saving.get_registered_name(layer_class) == f"vit_tf>{layer_class.__name__}"
