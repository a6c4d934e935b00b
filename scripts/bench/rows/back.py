"""The way back: restore, verify --deep, and s5cmd's download of the same bytes."""

import shutil

from .. import measure, tools
from ..sink import Sink
from ..upload import shown, upload
from .transfer import big_dump, remove


def back(context):
    """1 GiB downloaded from a sink that keeps its bodies in files."""
    dump = big_dump(context)
    kept = context.work / "kept"
    samples, commands = [], {}
    target = context.work / "download"
    with Sink(context, "--dir", kept) as sink:
        upload(context, sink, tools.ours(context), dump, 4)
        connection = ["--bucket", "bench", "--prefix", tools.PREFIX, "--endpoint-url", sink.endpoint, "--quiet"]
        ways = {
            "restore": [context.ours, "restore", "--dir", target, *connection],
            "verify --deep": [context.ours, "verify", "--deep", *connection],
            "s5cmd": [context.tools / "s5cmd", "--endpoint-url", sink.endpoint, "--numworkers", 4, "--log", "error"]
            + ["cp", "--concurrency", 4, "--part-size", 16, f"s3://bench/{tools.PREFIX}/*", f"{target}/"],
            "MD5 alone": ["openssl", "md5", dump.directory / "shop.t.00000.sql"],
        }
        for _ in range(context.rounds):
            for name, command in ways.items():
                shutil.rmtree(target, ignore_errors=True)
                if name == "s5cmd":
                    target.mkdir()
                sample = measure.run(command, context.environment(), context.work)
                if name in ("restore", "s5cmd"):
                    check_download(target, dump)
                samples.append({**sample, "tool": name, "bytes": dump.bytes})
                commands[name] = shown(context, sink, command).replace("TMP/download", "TARGET")
    for path in (target, kept):
        shutil.rmtree(path, ignore_errors=True)
    remove(dump)
    return {"samples": samples, "commands": commands}


def check_download(target, dump):
    there = {path.name: path.stat().st_size for path in target.iterdir()}
    wrong = [name for name, size in dump.files().items() if there.get(name) != size]
    if wrong:
        raise measure.Failed(f"these files did not come back whole: {wrong[:3]}")


ROWS = {"back": back}
