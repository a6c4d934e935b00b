"""The page cache: what is left in it, and how much is read from the disk."""

import os
import shutil
import subprocess

from .. import measure, tools
from ..sink import Sink
from ..upload import shown
from .transfer import big_dump, remove


def cached_bytes(path):
    output = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", path], check=True, capture_output=True, text=True
    )
    return int(output.stdout.split()[0])


def set_cached(path, wanted):
    """In the cache as a whole, or not at all."""
    with open(path, "rb") as file:
        if wanted:
            while file.read(1 << 22):
                pass
        else:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cache(context):
    """Kept files, that were in the page cache before and that were not."""
    dump = big_dump(context)
    tool = tools.ours(context)
    file = dump.directory / "shop.t.00000.sql"
    size = file.stat().st_size
    samples, command = [], []
    with Sink(context) as sink:
        for was_cached in (False, True):
            for _ in range(1 if context.quick else 3):
                sink.reset()
                set_cached(file, was_cached)
                before = cached_bytes(file)
                if before != (size if was_cached else 0):
                    raise measure.Failed(f"{before} of {size} bytes are in the page cache before the run")
                command = [*tool.command(sink, dump.directory, 4), "--keep"]
                sample = measure.run(command, context.environment(), context.work)
                sample.update(was_cached=was_cached, size=size, cached_before=before, cached_after=cached_bytes(file))
                samples.append(sample)
        text = shown(context, sink, command).replace("TMP/big", "DIR")
    remove(dump)
    shutil.rmtree(context.work / "upload", ignore_errors=True)
    return {"samples": samples, "commands": {"mydumper2s3": text}}


ROWS = {"cache": cache}
