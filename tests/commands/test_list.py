"""`vit-tf list`."""

from support.command_line import printed

from vit_tf.variants import VARIANTS


def test_list(capsys):
    output = printed(capsys, "list", "*reg4_dinov2")
    assert "vit_giant_patch14_reg4_dinov2  DINOv2 with registers: num_registers=4" in output
    assert output.splitlines()[-1] == "4 variants"
    assert "ViT: plain" in printed(capsys, "list", "vit_tiny_patch16_224")
    assert "vit_base_patch16_224  ViT: plain" in printed(capsys, "list", "vit_b1?")
    names = [line.split()[0] for line in printed(capsys, "list").splitlines()]
    assert names == [*VARIANTS, str(len(VARIANTS))]
    markdown = printed(capsys, "list", "test_vit", "--markdown").splitlines()
    assert markdown[0].startswith("| model | family |") and "| 371,240 | 0.04 | 160 |" in markdown[2]
