"""What `benchmarks/speed.py` measured, as Markdown.

A group is a dict as it stands in speed.json. Times are medians over the rounds of the median call in each
round; in brackets are the least and the most of these.
"""

import math
import statistics

from contestants import CONTESTANTS

TITLES = {
    "inference": "{model} at {image_size}, inference, {precision}",
    "training": "{model} at {image_size}, one AdamW step, {precision}",
    "families": "{variant} at {image_size}, inference, {precision}",
    "tutorial": "The Keras tutorial's CIFAR-10 recipe, training, {precision}",
}


def summary(rounds):
    """Returns (median, least, most) of the rounds' medians of seconds."""
    medians = [statistics.median(times) for times in rounds]
    return statistics.median(medians), min(medians), max(medians)


def limit(group):
    """Returns FLOP/s of the matrix product in the same rounds as (median, least, most), None if it failed."""
    rounds = group["limit"].get("seconds", {}).get(str(group["matrix_side"]))
    if not rounds:
        return None
    median, least, most = summary(rounds)
    flops = 2 * group["matrix_side"] ** 3
    return flops / median, flops / most, flops / least


def share(group, seconds, batch_size):
    """Returns the part of the limit that a call of so many seconds reached, None where it is unknown."""
    reference = limit(group)
    if not (reference and group["flops_per_image"]):
        return None
    return group["flops_per_image"] * batch_size / seconds / reference[0]


def measured(group):
    """Returns {name: entry} of the contestants that were measured to the end."""
    return {name: entry for name, entry in group["entries"].items() if "failed" not in entry}


def number(value):
    """Returns three significant digits, such as 1,530 or 0.0123."""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def percent(value):
    return "-" if value is None else f"{100 * value:.0f} %"


def spread(values, best=False):
    """Returns a cell with the median and, where they differ from it, the least and the most."""
    median, least, most = map(number, values)
    cell = f"**{median}**" if best else median
    return cell if least == most else f"{cell} ({least} to {most})"


def table(header, rows):
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def label(name):
    contestant = CONTESTANTS[name]
    return f"**{contestant.label}**" if contestant.is_ours else contestant.label


def times_table(group):
    """Milliseconds a batch, share of the limit, peak memory: inference and training."""
    batch_sizes = [str(size) for size in group["batch_sizes"]]
    entries = measured(group)
    times = {name: {b: summary(entry["seconds"][b]) for b in batch_sizes} for name, entry in entries.items()}
    best = {b: min((values[b][0] for values in times.values()), default=None) for b in batch_sizes}
    joined = " / ".join(batch_sizes)
    header = [group["precision"], *(f"batch {b}, ms" for b in batch_sizes), "images/s", "of the limit"]
    header[-2:] = [f"{column}, batch {joined}" for column in header[-2:]]
    rows = []
    for name, values in times.items():
        cells = [spread([1e3 * s for s in values[b]], values[b][0] == best[b]) for b in batch_sizes]
        rates = " / ".join(number(int(b) / values[b][0]) for b in batch_sizes)
        shares = " / ".join(percent(share(group, values[b][0], int(b))) for b in batch_sizes)
        rows.append([label(name), *cells, rates, shares, number(entries[name]["peak"] / 1e9)])
    return table([*header, "peak memory, GB"], rows)


def families_table(group):
    """Milliseconds a batch, and the time per token against that of the plain ViT."""
    (batch_size,) = group["batch_sizes"]
    entries, tokens = measured(group), group["tokens"]
    times = {name: summary(entry["seconds"][str(batch_size)]) for name, entry in entries.items()}
    plain = next((name for name in times if CONTESTANTS[name].options.get("plain")), None)
    rows = []
    for name, seconds in times.items():
        ratio = times[name][0] / tokens[name] / (times[plain][0] / tokens[plain]) if plain else None
        cells = [spread([1e3 * s for s in seconds]), str(tokens[name])]
        memory = number(entries[name]["peak"] / 1e9)
        rows.append([label(name), *cells, "-" if ratio is None else f"{ratio:.2f}", memory])
    header = [group["precision"], f"batch {batch_size}, ms", "tokens", "time per token, plain ViT = 1"]
    return table([*header, "peak memory, GB"], rows)


def tutorial_table(group):
    """Images a second of training: whole calls of `fit` or of an epoch."""
    (batch_size,) = group["batch_sizes"]
    count, rows = batch_size * group["batches"], []
    for name, entry in measured(group).items():
        median, least, most = summary(entry["seconds"][str(batch_size)])
        rates = spread([count / median, count / most, count / least])
        rows.append([label(name), rates, f"{entry['parameters']:,}", number(entry["peak"] / 1e9)])
    return table([f"batches of {batch_size}", "images/s", "parameters", "peak memory, GB"], rows)


TABLES = {"tutorial": tutorial_table, "families": families_table}


def resolution_tables(groups):
    """Time and memory above the weights against image size, at batch 1."""
    names = [name for name in CONTESTANTS if any(name in group["entries"] for group in groups)]
    times, memory = [], []
    for name in names:
        found = [measured(group).get(name) for group in groups]
        batches = [str(group["batch_sizes"][0]) for group in groups]
        seconds = [entry and summary(entry["seconds"][b]) for entry, b in zip(found, batches)]
        times.append([label(name), *(spread([1e3 * s for s in x]) if x else "-" for x in seconds)])
        above = [entry and (entry["peak"] - entry["resident"]) / 1e9 for entry in found]
        memory.append([label(name), *("-" if x is None else number(x) for x in above)])
    sizes = [f"{group['image_size']}" for group in groups]
    first = f"{groups[0]['model']}, {groups[0]['precision']}, batch {groups[0]['batch_sizes'][0]}"
    return (
        f"{table([f'{first}: ms at', *sizes], times)}\n\n{table(['GB above the weights at', *sizes], memory)}"
    )


def limit_table(groups):
    """The matrix product's speed over all groups of a precision, and so the drift of the machine."""
    rows = []
    for precision in ("float32", "bfloat16"):
        of_precision = [group for group in groups if group["precision"] == precision]
        found = [values for values in map(limit, of_precision) if values]
        if found:
            values = [statistics.median(v[0] for v in found), min(v[1] for v in found)]
            rows.append([precision, spread([x / 1e9 for x in (*values, max(v[2] for v in found))])])
    sides = sorted({group["matrix_side"] for group in groups})
    title = f"product of two matrices of {' or '.join(map(str, sides))} squared"
    return table([title, "GFLOP/s"], rows)


def failures(groups):
    """Returns a line for each contestant of a group that was not measured, with the reason."""
    lines = []
    for group in groups:
        reasons = {n: entry["failed"] for n, entry in group["entries"].items() if "failed" in entry}
        for name, reason in {**group["skipped"], **reasons}.items():
            lines.append(f"- {CONTESTANTS[name].label}, {group['key']}: {reason}")
        if "failed" in group["limit"]:
            lines.append(f"- matrix product, {group['key']}: {group['limit']['failed']}")
    return "\n".join(lines)


def describe(machine):
    return f"{machine['cpu']}, {machine['cores']} core{'s' if machine['cores'] > 1 else ''}"


def report(results):
    """Returns all tables of a speed.json as Markdown."""
    machine, groups = results["machine"], results["groups"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rounds = max((group["rounds"] for group in groups), default=0)
    parts = [
        f"{describe(machine)}, {machine['memory_gb']:.0f} GB; Python "
        f"{machine['python']}, {versions}; {results['date']}. Medians, in brackets the least and the most "
        f"of up to {rounds} rounds, in which the contestants took turns.",
        limit_table(groups),
    ]
    for group in groups:
        if group["kind"] in TITLES:
            content = TABLES.get(group["kind"], times_table)(group)
            parts.append(f"### {TITLES[group['kind']].format(**group)}\n\n{content}")
    resolution = [group for group in groups if group["kind"] == "resolution"]
    if resolution:
        parts.append(f"### Resolution\n\n{resolution_tables(resolution)}")
    if failures(groups):
        parts.append(f"### Not measured\n\n{failures(groups)}")
    return "\n\n".join(parts) + "\n"
