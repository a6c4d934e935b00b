"""Runs one command and writes what it cost, as JSON: launch.py RESULT COMMAND…

A process of its own, and a small one: a program's peak memory as the kernel counts it begins with that of the process
that forked it, so it must not be forked from something larger than what is measured.
"""

import json
import os
import sys
import time

result, command = sys.argv[1], sys.argv[2:]
started_unix_ns, started = time.time_ns(), time.monotonic()
pid = os.fork()
if pid == 0:
    try:
        os.execvpe(command[0], command, os.environ)
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
    os._exit(127)
_, status, usage = os.wait4(pid, 0)
wall_s = time.monotonic() - started
with open(result, "w", encoding="utf-8") as file:
    # Its own and its children's. Blocks are of 512 bytes, whatever the disk has: read_bytes of /proc/PID/io.
    json.dump(
        {
            "status": os.waitstatus_to_exitcode(status),
            "user_s": usage.ru_utime,
            "system_s": usage.ru_stime,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": wall_s,
            "rss_mib": usage.ru_maxrss / 1024,
            "disk_read_bytes": usage.ru_inblock * 512,
            "started_unix_ns": started_unix_ns,
        },
        file,
    )
