"""The plots of the page, from the measured rows."""

from . import svg
from .figures import GIB, Row, cpu_per_gib, field


def _colour(tool):
    if tool == "mydumper2s3":
        return svg.OURS
    return svg.OURS_SERIAL if tool.startswith("mydumper2s3") else svg.PEER


def _label(tool):
    return tool.replace("Python mydumper2s3 0.1.6", "Python mydumper2s3")


def _entries(row, measure):
    entries = []
    for tool in row.tools():
        low, high = row.spread(measure, tool=tool)
        entries.append((_label(tool), row.median(measure, tool=tool), low, high, _colour(tool)))
    return sorted(entries, key=lambda entry: entry[1])


def cpu(rows):
    groups = [
        (scheme, _entries(Row(rows[name]), cpu_per_gib)) for name, scheme in (("big", "http"), ("big-tls", "https"))
    ]
    return svg.bars(
        "CPU that an upload takes",
        "1 GiB file, parts of 16 MiB, 4 at once; medians, the line is the spread",
        groups,
        "CPU seconds (user + system) per GiB",
    )


def memory(rows):
    groups = [
        (f"{workers} at once", _entries(Row(rows[name]), field("rss_mib")))
        for name, workers in (("big", 4), ("wide", 64))
    ]
    return svg.bars(
        "Memory that an upload takes",
        "the same file; peak resident memory, medians, the line is the spread",
        groups,
        "MiB",
    )


def disk(rows):
    """Of each kind the run whose dump took the median time."""
    series = []
    for is_with, name in ((False, "mydumper alone"), (True, "with mydumper2s3 beside it")):
        samples = sorted(Row(rows["sidecar"]).select(is_with=is_with), key=lambda sample: sample["wall_s"])
        sample = samples[len(samples) // 2]
        series.append((name, [(when, taken / GIB) for when, taken in sample["disk"]]))
    # The right end of the longer line, drawn on: what mydumper alone wrote stays.
    end = max(points[-1][0] for _, points in series)
    series = [(name, [(0, 0), *points, (end, points[-1][1])]) for name, points in series]
    return svg.lines(
        "Local disk during a real dump",
        "MariaDB, mydumper with 2 threads; what the dump directory takes, every 50 ms",
        series,
        ("seconds since the start", "GiB on the local disk"),
    )


def ways(rows):
    series = []
    for sample in rows["ways"]["samples"]:
        # What is left at the end is gone.
        series.append((sample["way"], [(0, 0), *((when, taken / GIB) for when, taken in sample["disk"])]))
    return svg.lines(
        "Local disk, in each way",
        "one table of 1.7 GiB, to a store of 50 MiB/s; what the dump directory takes, every 50 ms",
        series,
        ("seconds since the start", "GiB on the local disk"),
    )


def scan(rows):
    points = [(sample["files"], sample["cpu_s_per_scan"] * 1000) for sample in rows["idle"]["samples"]]
    return svg.lines(
        "CPU of a scan that finds nothing new",
        "all files are uploaded and kept; both axes are logarithmic",
        [("mydumper2s3", points)],
        ("files in the directory", "milliseconds of CPU per scan"),
        is_logarithmic=True,
        with_points=True,
    )


PLOTS = {
    "cpu-per-gib": (cpu, ("big", "big-tls")),
    "memory": (memory, ("big", "wide")),
    "disk-over-time": (disk, ("sidecar",)),
    "ways": (ways, ("ways",)),
    "scan": (scan, ("idle",)),
}


def write(rows, directory):
    """Names of the plots that could be drawn."""
    drawn = []
    for name, (draw, needed) in PLOTS.items():
        if all(row in rows for row in needed):
            (directory / f"{name}.svg").write_text(draw(rows), encoding="utf-8")
            drawn.append(name)
    return drawn
