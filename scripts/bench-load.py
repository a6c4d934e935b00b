#!/usr/bin/env python3
"""Measures `load` beside the same myloader from local files: wall time, CPU and peak memory of each program.

    cargo build --release --locked && cargo build --release --locked --package sink_server
    MYDUMPER=/opt/mydumper/mydumper MYLOADER=/opt/mydumper/myloader scripts/bench-load.py plain zstd many

Starts two MariaDB servers and a store in a temporary directory, and takes them away again. The store is the sink server with
its bodies in files, which takes next to no CPU of its own; or SeaweedFS, where WEED names it. The server that is loaded into
has its data in memory (/dev/shm), so that no disk is measured. Local files and `load` take turns. Prints a line a run.
Needs some 10 GB in $TMPDIR and 5 GB in /dev/shm. Run it on a machine that does nothing else.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PORTS = {"src": 34100, "dst": 34101, "s3": 34200}
TABLES = int(os.environ.get("TABLES", "20000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
THREADS = os.environ.get("THREADS", "8")
PROGRAM = os.environ.get("PROGRAM", "target/release/mydumper2s3")
MYDUMPER = os.environ.get("MYDUMPER", "mydumper")
MYLOADER = os.environ.get("MYLOADER", "myloader")
WEED = os.environ.get("WEED")
SINK = os.environ.get("SINK", "target/release/sink_server")
ACCESS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}
FORMS = {"plain": ("shop", []), "zstd": ("shop", ["-c", "zstd"]), "text": ("shop", ["--format", "LOAD_DATA"]), "many": ("many", [])}
SHOP = """CREATE DATABASE shop; USE shop;
CREATE TABLE t1 (id INT PRIMARY KEY AUTO_INCREMENT, k INT, v TEXT, KEY (k));
INSERT INTO t1 (k, v) SELECT seq % 1000, CONCAT(REPEAT(SHA2(seq, 512), 2), REPEAT('x', 200)) FROM seq_1_to_800000;
CREATE TABLE t2 LIKE t1; INSERT INTO t2 SELECT * FROM t1 LIMIT 700000;
CREATE TABLE t3 (id INT PRIMARY KEY AUTO_INCREMENT, k INT, d DATETIME, p DECIMAL(10,2), s VARCHAR(100), KEY (k));
INSERT INTO t3 (k, d, p, s) SELECT seq % 1000, '2026-01-01' + INTERVAL seq SECOND, seq / 7, MD5(seq) FROM seq_1_to_4000000;
"""

started = []


def start(line, log):
    process = subprocess.Popen(line, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    started.append(process)


def until(what, condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    sys.exit(f"{what} does not start")


def client(root, name, statements):
    line = ["mariadb", "--no-defaults", "-uroot", f"--socket={root / name}.sock", "--batch", "--skip-column-names"]
    return subprocess.run(line, input=statements, text=True, capture_output=True)


def start_mariadb(root, data, name):
    # fsync costs nothing here: what is measured is the way to the server.
    options = ["--no-defaults", f"--datadir={data}", "--user=root"] if os.geteuid() == 0 else ["--no-defaults", f"--datadir={data}"]
    install = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    line = ["mariadbd", *options, f"--socket={root / name}.sock", f"--port={PORTS[name]}", "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"]
    start(line, open(root / f"{name}.log", "w"))
    until(name, lambda: client(root, name, "SELECT 1").returncode == 0)
    client(root, name, "CREATE USER bench@'127.0.0.1'; GRANT ALL ON *.* TO bench@'127.0.0.1'").check_returncode()


def start_store(root):
    if WEED:
        start_weed(root)
        listing = [PROGRAM, "list", "--bucket", "bench", *store()]
        until("the store", lambda: subprocess.run(listing, env=os.environ | ACCESS, capture_output=True).returncode == 0)
        return
    process = subprocess.Popen([SINK, "--dir", root / "sink"], stdout=subprocess.PIPE, start_new_session=True, text=True)
    started.append(process)
    words = dict(word.split("=", 1) for word in process.stdout.readline().split() if "=" in word)
    PORTS["s3"] = int(words["endpoint"].rsplit(":", 1)[1])


def start_weed(root):
    (root / "weed").mkdir()
    keys = {"accessKey": "bench", "secretKey": "bench-secret"}
    identity = {"name": "bench", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (root / "identities.json").write_text(json.dumps({"identities": [identity]}))
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port.grpc", "admin.port", "admin.port.grpc", "metricsPort"]
    ports = [f"-{name}={PORTS['s3'] + 1 + number}" for number, name in enumerate(names)]
    start([WEED, "mini", f"-dir={root / 'weed'}", f"-s3.config={root / 'identities.json'}", "-bucket=bench",
           f"-s3.port={PORTS['s3']}", *ports, "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
           "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"],
          open(root / "weed.log", "w"))


def store():
    return ["--endpoint-url", f"http://127.0.0.1:{PORTS['s3']}"]


def connection(name):
    return ["-h", "127.0.0.1", "-P", str(PORTS[name]), "-u", "bench"]


def prepare(root, form):
    database, options = FORMS[form]
    if database == "shop":
        statements = SHOP
    else:
        table = "CREATE TABLE t{0:05} (id INT PRIMARY KEY, v VARCHAR(100)); INSERT INTO t{0:05} VALUES (1, 'a'), (2, 'b');"
        statements = "CREATE DATABASE many; USE many;" + "\n".join(table.format(number) for number in range(TABLES))
    if client(root, "src", f"USE {database}").returncode != 0:
        client(root, "src", statements).check_returncode()
    dump = root / form
    line = [MYDUMPER, *connection("src"), "-B", database, "-o", str(dump), "-t", "4", "-F", "64", *options]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    line = [PROGRAM, "--dir", str(dump), "--bucket", "bench", "--prefix", form, "--keep", "--quiet", "--settle", "0", *store()]
    subprocess.run(line, check=True, env=os.environ | ACCESS, stderr=subprocess.DEVNULL)


def usage(pid):
    """CPU in seconds, without that of children, and the peak of resident memory in MiB."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    peak = next((line.split()[1] for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")), 0)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak) / 1024


def machine():
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")


def measure(root, form, mode):
    client(root, "dst", f"DROP DATABASE IF EXISTS {FORMS[form][0]}").check_returncode()
    line = [MYLOADER, *connection("dst"), "--threads", THREADS]
    if mode == "local":
        line += ["-d", str(root / form)]
    else:
        line = [PROGRAM, "load", "--bucket", "bench", "--prefix", form, *store(), "--", *line]
    began, busy, cpu, memory = time.monotonic(), machine(), 0, 0
    with open(root / f"{mode}.log", "w") as log:
        process = subprocess.Popen(line, env=os.environ | ACCESS, stdout=log, stderr=log)
        while process.poll() is None:
            try:
                now = usage(process.pid)
                cpu, memory = max(cpu, now[0]), max(memory, now[1])
            except (OSError, IndexError, StopIteration):
                pass
            time.sleep(0.02)
    print(json.dumps({"form": form, "mode": mode, "status": process.returncode,
                      "seconds": round(time.monotonic() - began, 2), "own_cpu": round(cpu, 2), "own_mib": round(memory, 1),
                      "machine_cpu": round(machine() - busy, 1)}), flush=True)


def main():
    root, data = pathlib.Path(tempfile.mkdtemp(prefix="bench-load-")), tempfile.mkdtemp(dir="/dev/shm")
    try:
        start_mariadb(root, root / "src", "src")
        start_mariadb(root, pathlib.Path(data) / "data", "dst")
        start_store(root)
        for form in sys.argv[1:] or FORMS:
            prepare(root, form)
            for _ in range(ROUNDS):
                for mode in ["local", "load"]:
                    measure(root, form, mode)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
