"""Widths, depths and switches that several families of variants share."""

# Width, blocks, heads, width of the MLP.
TINY = dict(hidden_dim=192, num_layers=12, num_heads=3, mlp_dim=768)
SMALL = dict(hidden_dim=384, num_layers=12, num_heads=6, mlp_dim=1536)
MEDIUM = dict(hidden_dim=512, num_layers=12, num_heads=8, mlp_dim=2048)
BETWIXT = dict(hidden_dim=640, num_layers=12, num_heads=10, mlp_dim=2560)
BASE = dict(hidden_dim=768, num_layers=12, num_heads=12, mlp_dim=3072)
LARGE = dict(hidden_dim=1024, num_layers=24, num_heads=16, mlp_dim=4096)
SO400M = dict(hidden_dim=1152, num_layers=27, num_heads=16, mlp_dim=4304)
HUGE = dict(hidden_dim=1280, num_layers=32, num_heads=16, mlp_dim=5120)
GIANT = dict(hidden_dim=1408, num_layers=40, num_heads=16, mlp_dim=6144)
GIANTOPT = dict(hidden_dim=1536, num_layers=40, num_heads=16, mlp_dim=6144)
GIGANTIC = dict(hidden_dim=1664, num_layers=48, num_heads=16, mlp_dim=8192)

# Switches.
MAP = dict(pooling="map")
GAP = dict(pooling="avg")
LAYER_SCALE = dict(layer_scale_init=1e-5)
