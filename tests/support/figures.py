"""What stands in a figure."""


def texts(figure):
    found = [] if figure.get_suptitle() == "" else [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(loc=side) for side in ("left", "center")] + [
            t.get_text() for t in axes.texts
        ]
    return found
