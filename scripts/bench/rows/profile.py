"""Where the CPU goes, by category: before, with one MD5 stream per part, and after, with lanes."""

import collections
import os
import re
import shutil
import subprocess

from .. import tools
from ..sink import Sink
from .transfer import big_dump, remove

HZ = 1997
# The first that matches a frame decides; frames of the kernel come with the system call below them.
IN_KERNEL = (
    ("file read", re.compile(r"pread64|sys_read\b|sys_preadv|vfs_read|filemap_read")),
    ("socket write", re.compile(r"tcp_sendmsg|sock_write_iter|sys_sendto|sys_sendmsg|sys_writev")),
    ("socket read", re.compile(r"sys_recv|sock_read_iter|tcp_recvmsg")),
)
IN_PROGRAM = (
    ("MD5", re.compile(r"md5|core_arch::x86", re.IGNORECASE)),
    ("TLS", re.compile(r"ring_|rustls|aes_|gcm|ghash|gfmul|chacha|bn_mul|ecp_|p256|aesni", re.IGNORECASE)),
    ("SHA-256", re.compile(r"sha2|sha256", re.IGNORECASE)),
)
CATEGORIES = ["MD5", "file read", "socket write", "TLS", "SHA-256", "socket read", "SDK and HTTP", "kernel, other"]


def category(stack):
    leaf, is_kernel = stack[0]
    if not is_kernel:
        return next((name for name, pattern in IN_PROGRAM if pattern.search(leaf)), "SDK and HTTP")
    for frame, _ in stack:
        for name, pattern in IN_KERNEL:
            if pattern.search(frame):
                return name
    return "kernel, other"


def stacks(script):
    """Of `perf script`: a stack is lines of address, symbol and (object), the leaf first, then an empty line."""
    for block in script.split("\n\n"):
        frames = []
        for line in block.splitlines():
            match = re.match(r"\s*([0-9a-f]+) (.*) \((.*)\)$", line)
            if match:
                address, symbol, origin = match.groups()
                frames.append((symbol, address.startswith("ffff") or "kernel" in origin))
        if frames:
            yield frames


def profiled(context, sink, tool, dump):
    directory = dump.copy(context.work / "upload")
    sink.reset()
    record = context.work / "perf.data"
    command = [str(word) for word in tool.command(sink, directory, 4)]
    environment = context.environment(**tool.environment(sink, 4))
    subprocess.run(
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HZ), "-g", "-o", str(record), "--", *command],
        env=environment,
        check=True,
        capture_output=True,
    )
    script = subprocess.run(
        ["perf", "script", "-i", str(record), "-F", "ip,sym,dso"], check=True, capture_output=True, text=True
    ).stdout
    counts = collections.Counter(category(stack) for stack in stacks(script))
    leaves = collections.Counter(stack[0][0] for stack in stacks(script))
    shutil.rmtree(directory)
    return {"samples": sum(counts.values()), "by_category": counts, "leaves": leaves.most_common(15)}


def profile(context):
    """1 GiB over http and https; needs root and the kernel's perf."""
    if not shutil.which("perf") or os.geteuid() != 0:
        return {"left_out": "it needs root and perf (linux-perf)"}
    dump = big_dump(context)
    profiles = {}
    for is_tls in (False, True):
        with Sink(context, tls=is_tls) as sink:
            for tool in (tools.ours_serial(context), tools.ours(context)):
                scheme = "https" if is_tls else "http"
                profiles[f"{tool.name}, {scheme}"] = profiled(context, sink, tool, dump)
    remove(dump)
    return {"profiles": profiles, "commands": {"perf": f"perf record -e cpu-clock -F {HZ} -g -- mydumper2s3 …"}}


ROWS = {"profile": profile}
