"""timm's ViT on PyTorch, eager or through `torch.compile`."""

import torch
from timm import create_model
from timm.models.vision_transformer import VisionTransformer

from contestants import Built


def make_model(dimensions, image_size):
    """Returns timm's model over images `(b, 3, h, w)`, with random weights."""
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=image_size,
        patch_size=dimensions.patch_size,
        embed_dim=dimensions.hidden_dim,
        depth=dimensions.num_layers,
        num_heads=dimensions.num_heads,
        mlp_ratio=dimensions.mlp_dim / dimensions.hidden_dim,
        num_classes=dimensions.num_classes,
    )


def build(job, compiled=False):
    if job.variant:
        torch.manual_seed(0)
        model = create_model(job.variant, img_size=job.image_size)
    else:
        model = make_model(job.dimensions, job.image_size)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    is_training = job.kind == "training"
    model.train(is_training)
    if job.precision == "bfloat16" and not is_training:
        model.to(torch.bfloat16)
    forward = torch.compile(model, dynamic=False) if compiled else model
    if is_training:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
        return Built(lambda b: training_step(forward, optimizer, job, b), parameters)
    return Built(lambda b: inference_step(forward, job, b), parameters)


def inference_step(forward, job, batch_size):
    images = random_images(job, batch_size).to(getattr(torch, job.precision))

    def step():
        with torch.inference_mode():
            return forward(images)

    return step


def training_step(forward, optimizer, job, batch_size):
    images = random_images(job, batch_size)
    labels = torch.arange(batch_size) % job.dimensions.num_classes

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bfloat16"):
            logits = forward(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def random_images(job, batch_size):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, 3, job.image_size, job.image_size, generator=generator)
