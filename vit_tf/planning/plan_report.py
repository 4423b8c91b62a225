"""A `Plan` as text: tables that say what a run takes."""

from vit_tf.memory import gigabytes

FEW_IMAGES = 32  # per device: the efficiencies were measured with more


def report(plan) -> str:
    """Returns a plan as text of several paragraphs."""
    parts = [
        title(plan),
        recommendation(plan),
        table("Time", *time_table(plan)),
        table("Memory per device, GB", *memory_table(plan)),
        table("All-reduce per step: what each device sends", *traffic_table(plan)),
        input_text(plan),
        "Assumptions\n" + "\n".join(f"- {text}" for text in plan.assumptions),
    ]
    return "\n\n".join(part for part in parts if part)


def title(plan):
    job, cluster, workload = plan.job, plan.cluster, plan.workload
    hosts = f"{cluster.hosts} host{'s' * (cluster.hosts > 1)} of {cluster.per_host}"
    size = "x".join(map(str, workload.image_size))
    average = ", with averaged weights" if job.ema else ""
    return (
        f"{workload.model} at {size} on {cluster.devices} x {cluster.device.about} ({hosts})\n"
        f"{job.image_set.images:,} images, {job.epochs} epochs, batch {job.batch_size:,} = {job.steps:,} "
        f"steps; {job.optimizer}, {job.precision}{average}\n"
        f"{workload.parameters / 1e6:,.1f} million parameters; {workload.forward_flops / 1e9:,.1f} GFLOPs "
        f"per image, {workload.training_flops() / 1e9:,.1f} in training"
    )


def recommendation(plan):
    layout = plan.recommended
    if layout is None:
        largest = max(plan.layouts, key=lambda layout: layout.largest_batch)
        if not largest.largest_batch:
            return "No layout fits: take devices with more memory, more model parallelism or a smaller model."
        return (
            f"No layout fits with this batch. The largest batch that fits is {largest.largest_batch:,} "
            f"({describe(largest)}): choose a smaller --batch-size, or accumulate gradients."
        )
    lines = [
        f"Recommended: {describe(layout)}. {duration(layout.hours)}, {layout.device_hours:,.0f} "
        f"device-hours; {gigabytes(layout.memory.total)} per device."
    ]
    without = [x for x in plan.layouts if (x.degree, x.remat) == (layout.degree, False)]
    if layout.remat and without and without[0].largest_batch:
        lines.append(
            f"Note: a batch of {without[0].largest_batch:,} fits without rematerialisation: smaller batches "
            f"whose gradients are accumulated take about {duration(without[0].hours)}."
        )
    per_device = layout.memory.images / layout.degree
    if per_device < FEW_IMAGES and plan.cluster.devices > 1:
        lines.append(
            f"Note: {per_device:g} images per device are few. The devices may be less efficient than assumed."
        )
    return "\n".join(lines)


def describe(layout):
    kind = "data parallel" if layout.degree == 1 else f"model parallel among {layout.degree} devices"
    return f"{kind}, {'with' if layout.remat else 'without'} rematerialisation"


def duration(hours):
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:,.1f} minutes"


def flags(layout):
    return layout.name, "yes" if layout.remat else "no"


def time_table(plan):
    header = ("layout", "remat", "fits", "step, ms", "of it all-reduce", "images/s", "hours", "device-hours")
    rows = [
        (
            *flags(layout),
            "yes" if layout.fits else "no",
            f"{1000 * layout.step_seconds:,.1f}",
            f"{100 * layout.communication_share:.1f} %",
            f"{layout.images_per_second:,.0f}",
            f"{layout.hours:,.2f}" if layout.hours < 10 else f"{layout.hours:,.1f}",
            f"{layout.device_hours:,.0f}",
        )
        for layout in plan.layouts
    ]
    return header, rows


def memory_table(plan):
    header = ("layout", "remat", "weights", "gradients", "moments", "averages", "activations", "total")
    header += ("largest batch",)
    rows = []
    for layout in plan.layouts:
        memory = layout.memory
        parts = (memory.weights, memory.gradients, memory.moments, memory.averages, memory.activations)
        numbers = [f"{part / 1e9:,.2f}" for part in (*parts, memory.total)]
        rows.append((*flags(layout), *numbers, f"{layout.largest_batch:,}"))
    return header, rows


def traffic_table(plan):
    header = ("layout", "remat", "gradients, MB", "activations, MB", "GB/s", "ms", "of the step")
    rows = []
    for layout in plan.layouts:
        sent = layout.gradient_bytes + layout.activation_bytes
        seconds = layout.communication_seconds
        rows.append(
            (
                *flags(layout),
                f"{layout.gradient_bytes / 1e6:,.1f}",
                f"{layout.activation_bytes / 1e6:,.1f}",
                f"{sent / seconds / 1e9:,.1f}" if seconds else "-",
                f"{1000 * seconds:,.2f}",
                f"{100 * layout.communication_share:.1f} %",
            )
        )
    return (header, rows) if plan.cluster.devices > 1 else (header, [])


def input_text(plan):
    rates, hosts = plan.input_rates, plan.cluster.hosts
    text = (
        f"Input ({describe(plan.fastest)})\n"
        f"{rates['images_per_second']:,.0f} images/s, {rates['bytes_per_second'] / 1e6:,.1f} MB/s, and "
        f"{rates['cores']:,.1f} CPU cores that decode and augment"
    )
    if hosts == 1:
        return text
    images, size = (rates[name] / hosts for name in ("images_per_second", "bytes_per_second"))
    cores = rates["cores_per_host"]
    return f"{text}\nper host: {images:,.0f} images/s, {size / 1e6:,.1f} MB/s, {cores:,.1f} cores"


def table(title, header, rows):
    """Returns rows of text below a title; columns but the first two are to the right. "" without rows."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row):
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([title, line(header), *map(line, rows)])
