"""Writing models in the formats of export: a module per format.

Each module has `write(model, manifest, folder, opset)`, which writes the files of a format into a folder:

- `model` is a `vit_tf.deploy.inference_model.InferenceModel.model`.
- `manifest` is its `Manifest`, without the agreement.
- `opset` is for ONNX.
"""

WRITERS = {
    "savedmodel": "vit_tf.deploy.writers.savedmodel_file",
    "onnx": "vit_tf.deploy.writers.onnx_file",
    "openvino": "vit_tf.deploy.writers.openvino_file",
    "litert": "vit_tf.deploy.writers.litert_file",
    "web": "vit_tf.deploy.web.page",
}
