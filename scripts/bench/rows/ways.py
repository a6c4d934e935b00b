"""One table of one file through a small disk: what the dump directory takes over time, in each way that there is."""

import os
import shutil
import subprocess

from .. import measure, tools
from ..mariadb import MariaDb
from ..sink import Sink
from .sidecar import DiskOverTime

# The store is slower than mydumper, as it mostly is.
RATE = "50MiB/s"
ROWS_OF_TABLE = 4 * 480_000
MARK = "256MiB"


def beside(context, database, sink, chunk_mb, options):
    """mydumper writes files; the program runs beside it."""
    directory = context.work / "dump"
    directory.mkdir()
    result, log = context.work / "ours.json", context.work / "ours.log"
    ours = [*tools.ours(context).command(sink, directory, 4), "--limit-rate", RATE, *options]
    with DiskOverTime(directory) as disk:
        sidecar = measure.start(ours, context.environment(), result, log)
        try:
            dumper = database.dump_command(directory, chunk_mb)
            sample = measure.run(dumper, context.environment(), context.work)
            of_ours = measure.finish(sidecar, ours, result, log)
        finally:
            measure.stop(sidecar)
    sample["sidecar"] = of_ours
    return sample, disk, [*dumper, "&", *ours]


def without_disk(context, database, sink, dumper):
    """mydumper writes no files: the program starts it."""
    directory = context.work / "dump"
    ours = tools.ours(context).command(sink, directory, 4)
    line = [*ours, "--limit-rate", RATE, "--no-disk", "--", dumper]
    line += ["--socket", database.socket, "--user", "root", "--database", "shop", "--threads", "2"]
    directory.mkdir()
    with DiskOverTime(directory) as disk:
        sample = measure.run(line, context.environment(), context.work)
    return sample, disk, line


def is_of_today(dumper):
    """`--no-disk` needs a newer mydumper than Debian's."""
    return dumper and subprocess.run([dumper, "--version"], capture_output=True, check=False).returncode == 0


def ways(context):
    """One table of 1.7 GiB to a store of 50 MiB/s: files of 64 MB, one file, given back, no file."""
    samples, commands = [], {}
    dumper = os.environ.get("MYDUMPER")
    with MariaDb(context) as database, Sink(context) as sink:
        database.fill(1, ROWS_OF_TABLE)
        runs = {
            "files of 64 MB": lambda: beside(context, database, sink, 64, []),
            "one file, followed": lambda: beside(context, database, sink, None, []),
            "one file, given back": lambda: beside(
                context, database, sink, None, ["--max-local", MARK, "--give-back"]
            ),
        }
        if is_of_today(dumper):
            runs["no file"] = lambda: without_disk(context, database, sink, dumper)
        for way, run in runs.items():
            sink.reset()
            sample, disk, line = run()
            names = {path.rsplit("/", 1)[-1]: size for path, size in sink.objects().items()}
            if "metadata" not in names:
                raise measure.Failed(f"the dump was not committed ({way})")
            uploaded = sum(size for name, size in names.items() if name != "mydumper2s3.json")
            sample.update(way=way, bytes=uploaded, disk_peak_bytes=disk.peak, disk=disk.points)
            samples.append(sample)
            commands[way] = " ".join(map(str, line)).replace(str(context.work / "dump"), "DIR")
            commands[way] = commands[way].replace(str(context.work), "TMP").replace(sink.endpoint, "http://127.0.0.1:PORT")
            shutil.rmtree(context.work / "dump", ignore_errors=True)
    return {"samples": samples, "commands": commands}


ROWS = {"ways": ways}
