"""The content check: every compressed file is decoded to its end before the commit."""

import shutil

from .. import data, tools
from ..sink import Sink
from ..upload import interleaved

SOURCE_MIB = 32


def text_file(path, size):
    """Rows as mydumper writes them: they shrink as real ones do, to a third or so."""
    import hashlib

    with open(path, "wb") as file:
        number = 0
        while file.tell() < size:
            rows = []
            for _ in range(2000):
                number += 1
                digest = hashlib.sha256(str(number).encode()).hexdigest()
                rows.append(f"({number},{number % 1000},'customer {number % 9973}','{digest[:40]}','open order')")
            file.write(("INSERT INTO `t` VALUES" + "\n,".join(rows) + ";\n").encode())


def content(context):
    """With `--content-check` and without."""
    plain = context.work / "plain.sql"
    text_file(plain, SOURCE_MIB * data.MIB)
    status = context.work / "mydumper.status"
    samples, commands, files = [], {}, {}
    for suffix in ("zst", "gz"):
        # Compressed once: the same bytes under other names are other files.
        one = data.compressed_files(context.work / "one", plain, 1, suffix)
        source = one.directory / f"shop.t.00000.sql.{suffix}"
        count = max(1, data.GIB // 2 // context.scale // source.stat().st_size)
        dump = data.Dump(context.work / "compressed")
        for number in range(count):
            shutil.copyfile(source, dump.directory / f"shop.t.{number:05}.sql.{suffix}")
        dump.finish()
        # As a script would: when the dump is finished. An older one is taken for an earlier night's.
        status.write_text("0\n", encoding="ascii")
        files[suffix] = {"bytes": dump.bytes, "plain_bytes": count * plain.stat().st_size}
        with Sink(context) as sink:
            for check in ((), ("--content-check",)):
                # Where no exit status vouches for them, .gz files are decoded in any case.
                options = ["--exit-status-file", status, *check]
                row = interleaved(
                    context, sink, [(tools.ours(context), 9)], dump, 4, context.few_rounds, options=options
                )
                for sample in row["samples"]:
                    sample.update(suffix=suffix, is_checked=bool(check))
                samples += row["samples"]
                commands["mydumper2s3" + (", checked" if check else "")] = row["commands"]["mydumper2s3"]
        shutil.rmtree(one.directory)
        shutil.rmtree(dump.directory)
    return {"samples": samples, "commands": commands, "files": files}


ROWS = {"content": content}
