"""Writes the page from the measured rows. Its words are in page.md, its figures come from here."""

import pathlib

from . import plots, targets
from .figures import (
    GIB,
    Row,
    cpu_per_file_us,
    cpu_per_gib,
    field,
    files_per_s,
    files_per_transfer_s,
    wall_per_gib,
)
from .svg import number
from .tools import all_of

TEMPLATE = pathlib.Path(__file__).with_name("page.md")
CAPTIONS = {
    "cpu-per-gib": "CPU per GiB by tool",
    "memory": "Peak memory by tool",
    "disk-over-time": "Local disk over time of a real dump, with mydumper2s3 and without",
    "ways": "Local disk over time: in files, one file followed, given back, without a file",
    "scan": "CPU of a scan against the number of files",
}
NOT_MEASURED = "Not measured in this run."


def table(head, lines):
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def by_tool(row, columns):
    """A line for each tool. `columns`: heading and figure."""
    failures = "".join(f"\n\n{tool} is left out: {why}" for tool, why in row.get("failures", {}).items())
    row = Row(row)
    lines = [[tool, *(row.text(figure, tool=tool) for _, figure in columns)] for tool in row.tools()]
    return table(["tool", *(heading for heading, _ in columns)], lines) + failures


UPLOAD_COLUMNS = [
    ("CPU s/GiB", cpu_per_gib),
    ("time s/GiB", wall_per_gib),
    ("peak memory MiB", field("rss_mib")),
    ("requests", field("requests")),
    ("connections", field("connections_opened")),
]
FILES_COLUMNS = [
    ("CPU µs/file", cpu_per_file_us),
    ("files/s, whole run", files_per_s),
    ("files/s, in transfer", files_per_transfer_s),
    ("peak memory MiB", field("rss_mib")),
    ("requests/file", lambda sample: sample["requests"] / sample["files"]),
]


def uploads(row):
    return by_tool(row, UPLOAD_COLUMNS)


def small(row):
    return by_tool(row, FILES_COLUMNS)


def sparse(row):
    row = Row(row)
    lines = []
    for tool in row.tools():
        for size in sorted({sample["bytes"] for sample in row.samples}):
            where = {"tool": tool, "bytes": size}
            figures = [row.text(figure, **where) for figure in (cpu_per_gib, wall_per_gib, field("rss_mib"))]
            lines.append([tool, f"{size / GIB:.3g} GiB", *figures])
    return table(["tool", "file", "CPU s/GiB", "time s/GiB", "peak memory MiB"], lines)


def idle(row):
    lines = [
        [f"{sample['files']:,}", number(sample["cpu_s_per_scan"] * 1000), sample["scans"], number(sample["rss_mib"])]
        for sample in row["samples"]
    ]
    return table(["files", "CPU ms/scan", "scans looked at", "peak memory MiB"], lines)


def many(row):
    row = Row(row)
    lines = []
    for files in sorted({sample["files"] for sample in row.samples}):
        figures = (field("wall_s"), field("cpu_s"), cpu_per_file_us, field("rss_mib"))
        lines.append([f"{files:,}", *(row.text(figure, files=files) for figure in figures)])
    return table(["files", "time s", "CPU s", "CPU µs/file", "peak memory MiB"], lines)


def sidecar(row):
    row = Row(row)
    disk = field("disk_peak_bytes", 1 / GIB)
    lines = []
    for is_with in (False, True):
        where = {"is_with": is_with}
        lines.append(
            [
                "with mydumper2s3" if is_with else "mydumper alone",
                row.text(field("wall_s"), **where),
                row.text(cpu_per_gib, **where),
                row.text(lambda sample: sample["sidecar"]["cpu_s"] * GIB / sample["bytes"], **where) if is_with else "",
                row.text(lambda sample: sample["sidecar"]["rss_mib"], **where) if is_with else "",
                row.text(lambda sample: sample["sidecar"]["wall_s"] - sample["wall_s"], **where) if is_with else "",
                row.text(disk, **where),
            ]
        )
    size = number(row.samples[0]["bytes"] / GIB)
    head = ["", "mydumper's time s", "mydumper's CPU s/GiB", "mydumper2s3's CPU s/GiB", "its memory MiB"]
    head += ["uploads end after mydumper s", "most local disk GiB"]
    return f"The dump has {size} GiB.\n\n" + table(head, lines)


def ways(row):
    lines = []
    for sample in row["samples"]:
        ours = sample.get("sidecar", sample)
        lines.append([sample["way"], *map(number, (ours["wall_s"], sample["disk_peak_bytes"] / (1 << 20)))])
    return table(["", "until the commit s", "most local disk MiB"], lines)


def start(row):
    return by_tool(row, [("exec to first request ms", field("start_s", 1000)), ("whole run s", field("wall_s"))])


def content(row):
    data, row = row["files"], Row(row)
    lines = []
    for suffix in ("zst", "gz"):
        for is_checked in (False, True):
            where = {"suffix": suffix, "is_checked": is_checked}
            per_plain = field("cpu_s", GIB / data[suffix]["plain_bytes"])
            figures = [row.text(figure, **where) for figure in (cpu_per_gib, per_plain, wall_per_gib, field("rss_mib"))]
            lines.append([f".{suffix}", "yes" if is_checked else "no", *figures])
    ratio = ", ".join(
        f".{suffix}: {number(sizes['plain_bytes'] / sizes['bytes'])} to 1" for suffix, sizes in data.items()
    )
    head = ["files", "content check", "CPU s/GiB", "CPU s/GiB of what was compressed", "time s/GiB", "peak memory MiB"]
    return f"Compressed {ratio}.\n\n" + table(head, lines)


def back(row):
    return by_tool(row, UPLOAD_COLUMNS[:3])


def cache(row):
    row = Row(row)
    lines = []
    for was_cached in (False, True):
        where = {"was_cached": was_cached}
        figures = (
            lambda sample: sample["disk_read_bytes"] / sample["size"],
            lambda sample: sample["cached_after"] / sample["size"],
            lambda sample: sample["cpu_s"] * GIB / sample["size"],
        )
        lines.append(["yes" if was_cached else "no", *(row.text(figure, **where) for figure in figures)])
    return table(["in the cache before", "read from the disk / size", "in the cache after / size", "CPU s/GiB"], lines)


def profile(row):
    if "left_out" in row:
        return f"Left out: {row['left_out']}."
    from .rows.profile import CATEGORIES

    profiles = row["profiles"]
    lines = []
    for category in CATEGORIES:
        shares = [profile["by_category"].get(category, 0) * 100 / profile["samples"] for profile in profiles.values()]
        if max(shares) >= 0.1:
            lines.append([category, *(f"{share:.1f}" for share in shares)])
    return table(["", *profiles], lines)


BLOCKS = {
    "big": uploads,
    "big-tls": uploads,
    "wide": uploads,
    "small": small,
    "latency": small,
    "sparse": sparse,
    "idle": idle,
    "many": many,
    "sidecar": sidecar,
    "ways": ways,
    "start": start,
    "content": content,
    "back": back,
    "cache": cache,
    "profile": profile,
}


def target_table(found):
    lines = [
        [
            target.work,
            target.figure,
            target.ours,
            target.compared_with,
            number(target.ratio),
            target.target,
            "met" if target.is_met else "**missed**",
        ]
        for target in found
    ]
    return table(["work", "figure", "mydumper2s3", "compared with", "ratio", "target", ""], lines)


def missed(found, missing):
    lines = []
    if missing:
        lines.append(f"Rows that were not measured, whose targets are left out: {', '.join(missing)}.")
    # One remark may be of several targets.
    remarks = dict.fromkeys((target.work, target.remark) for target in found if target.remark)
    if remarks:
        lines += ["Why targets are missed:\n", *(f"- {work}: {remark}" for work, remark in remarks)]
    return "\n".join(lines) + "\n" if lines else ""


def machine_table(rows):
    """Of the row that was measured last; where rows come from different versions, that is said."""
    described = [row["machine"] for row in rows.values()]
    if not described:
        return NOT_MEASURED
    latest = max(rows.values(), key=lambda row: row["measured"])["machine"]
    versions = {machine["mydumper2s3"] for machine in described}
    text = table(["", ""], latest.items())
    if len(versions) > 1:
        text += "\n\nThe rows are of different versions of mydumper2s3: " + ", ".join(sorted(versions)) + "."
    return text


def command_list(rows):
    blocks = []
    for name, row in rows.items():
        commands = "\n".join(f"# {tool}\n{command}" for tool, command in row.get("commands", {}).items())
        if commands:
            summary = f"<summary>{name}, measured {row['measured']}</summary>"
            blocks.append(f"<details>{summary}\n\n```sh\n{commands}\n```\n\n</details>")
    return "\n\n".join(blocks)


def write(results, directory):
    from .rows import ROWS

    rows = {name: results["rows"][name] for name in ROWS if name in results["rows"]}
    drawn = plots.write(rows, directory / "benchmarks")
    found, missing = targets.judged(rows)
    values = {
        "note": "**A quick run with little data: it shows that the harness works, not how fast anything is.**\n"
        if results["is_quick"]
        else "",
        "targets": target_table(found),
        "missed": missed(found, missing),
        "plots": "\n\n".join(f"![{CAPTIONS[name]}](benchmarks/{name}.svg)" for name in drawn),
        "leaves_out": "\n".join(f"- {tool.name}: {tool.leaves_out}." for tool in all_of(None)),
        "machine": machine_table(rows),
        "commands": command_list(rows),
    }
    for name, block in BLOCKS.items():
        values[name] = block(rows[name]) if name in rows else NOT_MEASURED
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    (directory / "benchmarks.md").write_text(text, encoding="utf-8")
