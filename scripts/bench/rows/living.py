"""Beside a dump that lives."""

import ctypes
import os
import shutil
import struct
import time

from .. import data, measure, tools
from ..sink import Sink
from ..upload import shown

INTERVAL_S = 0.5
SCANS = 20
IN_OPEN, IN_ISDIR = 0x20, 0x40000000


class DirectoryOpenings:
    """Counts how often a directory was opened: a scan opens it once. What happens to its files is not looked at."""

    def __init__(self, directory):
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0 or libc.inotify_add_watch(self.descriptor, os.fsencode(directory), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "cannot watch the directory", str(directory))

    def count(self):
        """Since it was last asked."""
        openings = 0
        while True:
            try:
                events = os.read(self.descriptor, 1 << 20)
            except BlockingIOError:
                return openings
            while events:
                _, mask, _, length = struct.unpack_from("iIII", events)
                openings += bool(mask & IN_ISDIR) and length == 0
                events = events[16 + length :]

    def close(self):
        os.close(self.descriptor)


class LivingDump:
    """A dump as mydumper 1.x writes it, that does not end: whoever holds `metadata.partial` open for writing is
    mydumper to us."""

    def __init__(self, directory, files):
        self.directory = directory
        directory.mkdir()
        self.metadata = open(directory / "metadata.partial", "a", encoding="utf-8")
        self.metadata.write(f"# Started dump at: {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        self.metadata.flush()
        for name, text in data.SCHEMAS.items():
            (directory / name).write_bytes(text)
        for number in range(files):
            (directory / f"shop.t.{number:05}.sql").write_bytes(b"%01023d\n" % number)

    def remove(self):
        self.metadata.close()
        shutil.rmtree(self.directory)


def wait_until(condition, what, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise measure.Failed(f"waited {seconds} s for {what}")
        time.sleep(0.2)


def puts(sink):
    return sink.counters()["requests_by_operation"].get("PutObject", 0)


def scan_cost(context, sink, files):
    directory = context.work / "living"
    sink.reset()
    dump = LivingDump(directory, files)
    tool = tools.ours(context)
    command = [*tool.command(sink, directory, 4), "--keep", "--interval", INTERVAL_S]
    result, log = context.work / "sample.json", context.work / "output.log"
    process = None
    try:
        process = measure.start(command, context.environment(), result, log)
        pid = measure.child_of(process)
        # The dump's files and the claim.
        wait_until(lambda: puts(sink) >= files + 3 or process.poll() is not None, f"{files} uploads")
        if process.poll() is not None:
            measure.finish(process, command, result, log)
        openings = DirectoryOpenings(directory)
        time.sleep(2 * INTERVAL_S)
        openings.count()
        cpu, requests, began = measure.cpu_s(pid), sink.counters()["requests"], time.monotonic()
        scans = 0
        while scans < SCANS // (4 if context.quick else 1):
            time.sleep(INTERVAL_S)
            scans += openings.count()
            if time.monotonic() - began > 20 * SCANS * INTERVAL_S:
                raise measure.Failed("no scan was seen: how a scan is counted is wrong")
        cpu = measure.cpu_s(pid) - cpu
        if sink.counters()["requests"] != requests:
            raise measure.Failed("an idle scan sent requests")
        openings.close()
        sample = {"files": files, "scans": scans, "cpu_s_per_scan": cpu / scans, "rss_mib": measure.peak_mib(pid)}
        return sample, shown(context, sink, command)
    finally:
        if process:
            measure.stop(process)
        dump.remove()


def idle(context):
    """A look at a directory whose files are all uploaded and kept."""
    samples, commands = [], {}
    with Sink(context) as sink:
        for files in (1000, 10_000, 100_000):
            sample, commands["mydumper2s3"] = scan_cost(context, sink, files // context.scale)
            samples.append(sample)
    return {"samples": samples, "commands": commands}


ROWS = {"idle": idle}
