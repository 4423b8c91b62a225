"""The picture of `benchmarks/speed.py`: images a second, ours against peers, and the machine's limit."""

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from contestants import CONTESTANTS
from contestants.tables import limit, measured, number, percent, share, summary
from vit_tf.plots import BLUE, INK, Figure, styled

PEERS, HEIGHT = "#8c8c8c", 0.38
PRECISIONS = {"float32": (-HEIGHT / 2, 1.0, ":"), "bfloat16": (HEIGHT / 2, 0.45, "--")}  # place, alpha, line

LABEL_BOX = dict(facecolor="white", edgecolor="none", pad=0.6)  # a line of the limit may pass behind it


def panel_batch(group):
    """Returns the batch size that is drawn: 8, where it was measured."""
    sizes = group["batch_sizes"]
    return 8 if 8 in sizes else max(sizes)


@styled
def speeds(groups, title):
    """Draws a panel for each model, inference and training, with a pair of bars for each contestant.

    Args:
        groups: list of groups as in speed.json; those of other kinds are left out.
        title: str.

    Returns:
        A Figure, None where there is nothing to draw.
    """
    panels = {}
    for group in groups:
        if group["kind"] in ("inference", "training") and measured(group):
            panels.setdefault((group["model"], group["kind"]), []).append(group)
    if not panels:
        return None
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    tallest = max(len(contestants(panel)) for panel in panels.values())
    size = (8 if columns == 1 else 12, rows * (1.2 + 0.42 * tallest) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, ((model, kind), panel) in zip(places, panels.items()):
        draw_panel(axes, f"{model}: {kind}, batch {panel_batch(panel[0])}", panel)
    for axes in list(places)[len(panels) :]:
        axes.set_axis_off()
    legend = dict(loc="outside lower center", ncols=5 if columns == 2 else 3, handlelength=2.2)
    figure.legend(handles=legend_entries(), **legend)
    return figure


def contestants(panel):
    return [name for name in CONTESTANTS if any(name in measured(group) for group in panel)]


def draw_panel(axes, title, panel):
    names = contestants(panel)
    axes.set(title=title, xlabel="images/s")
    axes.set_yticks(range(len(names)), [CONTESTANTS[name].label for name in names])
    for tick, name in zip(axes.get_yticklabels(), names):
        tick.set(fontweight="bold" if CONTESTANTS[name].is_ours else "normal")
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    for group in panel:
        draw_bars(axes, group, names, alone=len(panel) == 1)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)


def draw_bars(axes, group, names, alone):
    """Draws one precision's bars with their spread, their share of the limit, and the limit itself."""
    shift, alpha, line = PRECISIONS[group["precision"]]
    shift = 0 if alone else shift
    batch_size, entries = panel_batch(group), measured(group)
    for y, name in enumerate(names):
        if name not in entries:
            continue
        median, least, most = summary(entries[name]["seconds"][str(batch_size)])
        rate, low, high = batch_size / median, batch_size / most, batch_size / least
        color = BLUE if CONTESTANTS[name].is_ours else PEERS
        axes.barh(y + shift, rate, HEIGHT * 0.92, color=color, alpha=alpha)
        axes.plot([low, high], [y + shift] * 2, color=INK, linewidth=0.9)
        reached = share(group, median, batch_size)
        text = number(rate) + (f" ({percent(reached)})" if reached is not None else "")
        place = dict(xytext=(5, 0), textcoords="offset points", va="center", size=7, bbox=LABEL_BOX)
        axes.annotate(text, (high, y + shift), **place)
    reference = limit(group)
    if reference and group["flops_per_image"]:
        axes.axvline(reference[0] / group["flops_per_image"], color=INK, linestyle=line, linewidth=1)


def legend_entries():
    shades = [
        Patch(color=BLUE, label="ours"),
        Patch(color=PEERS, label="peers"),
        Patch(color=PEERS, alpha=PRECISIONS["bfloat16"][1], label="paler: bfloat16"),
    ]
    lines = [
        Line2D([], [], color=INK, linewidth=1, linestyle=style, label=f"100 %: {name} matrix product")
        for name, (_, _, style) in PRECISIONS.items()
    ]
    return [*shades, *lines]
