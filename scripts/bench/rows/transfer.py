"""Finished dumps, uploaded by each tool."""

import shutil

from .. import data, tools
from ..sink import Sink
from ..upload import interleaved

SMALL_SIZE = 4096
SMALL_COUNT = 5000


def remove(dump):
    shutil.rmtree(dump.directory)


def big_dump(context, name="big"):
    return data.one_file(context.work / name, data.GIB // context.scale)


def compared(context):
    """Every tool, the slow ones in fewer rounds."""
    fast = {"mydumper2s3", "mydumper2s3, serial MD5", "s5cmd"}
    return [(tool, context.rounds if tool.name in fast else context.few_rounds) for tool in tools.all_of(context)]


def big(context):
    """One file of 1 GiB in parts of 16 MiB, over http."""
    dump = big_dump(context)
    with Sink(context) as sink:
        row = interleaved(context, sink, compared(context), dump, 4, context.rounds)
    remove(dump)
    return row


def big_tls(context):
    """The same over https."""
    dump = big_dump(context)
    with Sink(context, tls=True) as sink:
        row = interleaved(context, sink, compared(context), dump, 4, context.rounds)
    remove(dump)
    return row


def wide(context):
    """The same with 64 requests at once, for the memory that it takes."""
    dump = big_dump(context)
    # The Python tool has no setting for the parts of one file.
    chosen = [(tool, 2) for tool in tools.all_of(context)[:5] if "serial" not in tool.name]
    with Sink(context) as sink:
        row = interleaved(context, sink, chosen, dump, 64, 1 if context.quick else 2)
    remove(dump)
    return row


def small(context):
    """Many small files."""
    dump = data.many_files(context.work / "small", SMALL_COUNT // context.scale, SMALL_SIZE)
    chosen = [(tool, limit) for tool, limit in compared(context) if "serial" not in tool.name]
    with Sink(context) as sink:
        row = interleaved(context, sink, chosen, dump, 4, context.rounds)
    remove(dump)
    return row


def latency(context):
    """The same with a store that takes 30 ms for each answer, and 64 workers."""
    latency_ms = 30
    dump = data.many_files(context.work / "small", SMALL_COUNT // context.scale, SMALL_SIZE)
    chosen = [(make(context), context.few_rounds) for make in (tools.ours, tools.s5cmd)]
    with Sink(context, "--latency-ms", latency_ms) as sink:
        row = interleaved(context, sink, chosen, dump, 64, context.few_rounds)
    remove(dump)
    return {**row, "latency_ms": latency_ms}


def sparse(context):
    """One file of 10 GiB without content on the disk, and one of 1 GiB."""
    rows = []
    for gib in (1, 10):
        dump = data.sparse_file(context.work / "sparse", gib * data.GIB // context.scale)
        chosen = [(tools.ours(context), context.few_rounds), (tools.s5cmd(context), 1)]
        with Sink(context) as sink:
            rows.append(interleaved(context, sink, chosen, dump, 4, context.few_rounds))
        remove(dump)
    return {"samples": rows[0]["samples"] + rows[1]["samples"], "commands": rows[1]["commands"]}


def many(context):
    """10,000 and 100,000 files in one run."""
    samples, commands = [], {}
    for count in (10_000, 100_000):
        dump = data.many_files(context.work / "many", count // context.scale, 1024)
        with Sink(context) as sink:
            row = interleaved(context, sink, [(tools.ours(context), 2)], dump, 4, 1 if context.quick else 2)
        samples += row["samples"]
        commands = row["commands"]
        remove(dump)
    return {"samples": samples, "commands": commands}


ROWS = {
    "big": big,
    "big-tls": big_tls,
    "wide": wide,
    "small": small,
    "latency": latency,
    "sparse": sparse,
    "many": many,
}
