"""A real dump of a real MariaDB by Debian's mydumper, with mydumper2s3 beside it and without."""

import contextlib
import os
import shutil
import threading
import time

from .. import measure, tools
from ..mariadb import MariaDb
from ..sink import Sink
from ..upload import shown

TABLES = 8
SAMPLE_EVERY_S = 0.05


class DiskOverTime:
    """What a directory takes on the disk, every 50 ms, as long as the `with` block."""

    def __init__(self, directory):
        self.directory = directory
        self.points = []
        self.peak = 0

    def __enter__(self):
        self.began = time.monotonic()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    def _watch(self):
        while not self.is_over.wait(SAMPLE_EVERY_S):
            taken = used_bytes(self.directory)
            self.peak = max(self.peak, taken)
            self.points.append([round(time.monotonic() - self.began, 2), taken])


def used_bytes(directory):
    """As `du` counts; files that vanish meanwhile take nothing."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def dump_bytes(directory):
    return sum(entry.stat().st_size for entry in os.scandir(directory))


def alone(context, database):
    directory = context.work / "dump"
    command = database.dump_command(directory)
    with DiskOverTime(directory) as disk:
        sample = measure.run(command, context.environment(), context.work)
    sample.update(is_with=False, bytes=dump_bytes(directory), disk_peak_bytes=disk.peak, disk=disk.points)
    shutil.rmtree(directory)
    return sample, [str(word) for word in command]


def with_sidecar(context, database, sink):
    directory = context.work / "dump"
    directory.mkdir()
    sink.reset()
    result, log = context.work / "ours.json", context.work / "ours.log"
    ours = tools.ours(context).command(sink, directory, 4)
    with DiskOverTime(directory) as disk:
        sidecar = measure.start(ours, context.environment(), result, log)
        try:
            sample = measure.run(database.dump_command(directory), context.environment(), context.work)
            of_ours = measure.finish(sidecar, ours, result, log)
        finally:
            measure.stop(sidecar)
    left = list(directory.iterdir())
    if left:
        raise measure.Failed(f"{len(left)} files are left in the directory")
    names = {path.rsplit("/", 1)[-1]: size for path, size in sink.objects().items()}
    uploaded = sum(size for name, size in names.items() if name != "mydumper2s3.json")
    if "metadata" not in names:
        raise measure.Failed("the dump was not committed")
    sample.update(is_with=True, bytes=uploaded, disk_peak_bytes=disk.peak, disk=disk.points)
    sample["sidecar"] = of_ours
    shutil.rmtree(directory)
    return sample, shown(context, sink, ours).replace("TMP/dump", "DIR")


def sidecar(context):
    """The same database dumped several times, in turn with and without."""
    samples, commands = [], {}
    with MariaDb(context) as database, Sink(context) as sink:
        database.fill(TABLES)
        # The first dump warms the caches and is not counted.
        alone(context, database)
        for _ in range(context.few_rounds):
            sample, command = alone(context, database)
            samples.append(sample)
            commands["mydumper"] = " ".join(command).replace(str(context.work / "dump"), "DIR")
            sample, commands["mydumper2s3"] = with_sidecar(context, database, sink)
            samples.append(sample)
    sizes = {sample["bytes"] for sample in samples}
    # `metadata` holds times, whose length does not change; so the sizes must not either.
    if len(sizes) != 1:
        raise measure.Failed(f"the dumps differ in size: {sorted(sizes)}")
    commands["mydumper"] = commands["mydumper"].replace(str(context.work), "TMP")
    return {"samples": samples, "commands": commands}


ROWS = {"sidecar": sidecar}
