"""The forward pass of a plain ViT in NumPy, written from the paper's equations, float64 throughout.

It shares no code with the package: weights come by name from `{path: array}`.
"""

import math

import numpy as np

erf = np.vectorize(math.erf)


def layer_norm(x, gamma, beta, epsilon=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def softmax(x):
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def attention(x, weights, name, num_heads):
    qkv = x @ weights[f"{name}/qkv/kernel"] + weights.get(f"{name}/qkv/bias", 0)
    query, key, value = np.split(qkv, 3, axis=-1)
    width = query.shape[-1] // num_heads
    heads = []
    for h in range(num_heads):
        columns = slice(h * width, (h + 1) * width)
        q, k, v = query[..., columns], key[..., columns], value[..., columns]
        heads.append(softmax(q @ k.swapaxes(1, 2) / math.sqrt(width)) @ v)
    kernel, bias = weights[f"{name}/projection/kernel"], weights[f"{name}/projection/bias"]
    return np.concatenate(heads, -1) @ kernel + bias


def mlp(x, weights, name):
    x = x @ weights[f"{name}/fc1/kernel"] + weights[f"{name}/fc1/bias"]
    x = x * 0.5 * (1 + erf(x / math.sqrt(2)))
    return x @ weights[f"{name}/fc2/kernel"] + weights[f"{name}/fc2/bias"]


def embed_patches(images, weights):
    kernel = weights["patch_embedding/projection/kernel"]
    rows, columns = kernel.shape[:2]
    tokens = []
    for top in range(0, images.shape[1], rows):
        for left in range(0, images.shape[2], columns):
            patch = images[:, top : top + rows, left : left + columns]
            tokens.append(np.einsum("bhwc,hwcd->bd", patch, kernel))
    return np.stack(tokens, 1) + weights["patch_embedding/projection/bias"]


def forward(images, weights, num_layers, num_heads, pooling="token"):
    """Logits (b, num_classes) of images (b, h, w, c)."""
    x = forward_tokens(images, weights, num_layers, num_heads, pooling == "token")
    x = layer_norm(x, weights["norm/gamma"], weights["norm/beta"])
    x = x[:, 0] if pooling == "token" else x.mean(1)
    return x @ weights["head/kernel"] + weights["head/bias"]


def forward_tokens(images, weights, num_layers, num_heads, has_class_token=True):
    """The tokens (b, n, d) after the last block, before the norm, of images (b, h, w, c)."""
    weights = {path: value.astype("float64") for path, value in weights.items()}
    x = embed_patches(images.astype("float64"), weights)
    if has_class_token:
        token = np.repeat(weights["patch_encoder/class_token"], len(x), axis=0)
        x = np.concatenate([token, x], axis=1)
    x = x + weights["patch_encoder/position_embedding"]
    for i in range(num_layers):
        block = f"block_{i}"

        def scaled(y, branch, block=block):
            return y * weights.get(f"{block}/{branch}_scale/gamma", 1)

        def norm(y, name):
            return layer_norm(y, weights[f"{name}/gamma"], weights[f"{name}/beta"])

        y = attention(norm(x, f"{block}/attention_norm"), weights, f"{block}/attention", num_heads)
        x = x + scaled(y, "attention")
        x = x + scaled(mlp(norm(x, f"{block}/mlp_norm"), weights, f"{block}/mlp"), "mlp")
    return x
