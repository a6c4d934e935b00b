"""Dumps to upload: directories as mydumper leaves them when it has ended."""

import os
import pathlib
import shutil
import subprocess
import time

MIB = 1 << 20
GIB = 1 << 30
SCHEMAS = {
    "shop-schema-create.sql": b"CREATE DATABASE `shop`;\n",
    "shop.t-schema.sql": b"CREATE TABLE `t` (`id` int NOT NULL, `v` longblob);\n",
}


def fresh(source, target):
    """A hard link; but a `metadata` of its own, since an attribute of it is the uploader's memory of that dump."""
    if os.path.basename(source) != "metadata":
        os.link(source, target)
        return
    shutil.copyfile(source, target)
    status = os.stat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


class Dump:
    """A finished dump. Its files are shared by hard links with the directories that are uploaded."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.started = time.time() - 5
        for name, text in SCHEMAS.items():
            self.write(name, text)

    def write(self, name, content):
        (self.directory / name).write_bytes(content)

    def finish(self):
        def line(what, when):
            return f"{what} dump at: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))}\n"

        text = line("Started", self.started) + "\n" + line("Finished", time.time())
        self.write("metadata", text.encode())
        return self

    def files(self):
        return {entry.name: entry.stat().st_size for entry in os.scandir(self.directory)}

    @property
    def bytes(self):
        return sum(self.files().values())

    def copy(self, directory):
        """The same files in a fresh directory, by hard links: an uploader may remove those."""
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.directory, directory, copy_function=fresh)
        return pathlib.Path(directory)


def random_file(path, size):
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.write(os.urandom(size % MIB))


def one_file(directory, size):
    dump = Dump(directory)
    random_file(dump.directory / "shop.t.00000.sql", size)
    return dump.finish()


def sparse_file(directory, size):
    dump = Dump(directory)
    with open(dump.directory / "shop.t.00000.sql", "wb") as file:
        file.truncate(size)
    return dump.finish()


def many_files(directory, count, size):
    dump = Dump(directory)
    for number in range(count):
        dump.write(f"shop.t.{number:05}.sql", os.urandom(size))
    return dump.finish()


def compressed_files(directory, plain_file, count, suffix):
    """`count` compressed files of about the same size together as the plain one has."""
    dump = Dump(directory)
    program = {"zst": ["zstd", "-q", "-1", "-c"], "gz": ["gzip", "-1", "-c"]}[suffix]
    for number in range(count):
        with open(dump.directory / f"shop.t.{number:05}.sql.{suffix}", "wb") as file:
            subprocess.run([*program, str(plain_file)], stdout=file, check=True)
    return dump.finish()
