"""A private MariaDB with a database to dump."""

import os
import shutil
import subprocess
import time

from . import measure

DATABASE = "shop"
# A dump of about 440 MB for each table.
ROWS_PER_TABLE = 480_000


class MariaDb:
    """Runs as long as the `with` block, with a data directory of its own and without a network."""

    def __init__(self, context):
        self.context = context
        self.data = context.work / "mariadb"
        self.socket = context.work / "mariadb.sock"

    def __enter__(self):
        common = ["--no-defaults", f"--datadir={self.data}"]
        if os.geteuid() == 0:
            common.append("--user=root")
        self.log = open(self.context.work / "mariadb.log", "wb")
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            stdout=self.log,
            stderr=self.log,
        )
        # Its own cache and the kernel's hold the whole database, so that a dump does not wait for the disk.
        self.process = subprocess.Popen(
            ["mariadbd", *common, f"--socket={self.socket}", "--skip-networking", "--innodb-buffer-pool-size=1G"]
            + ["--innodb-log-file-size=1G", "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=fsync"]
            + ["--innodb-doublewrite=0", "--log-bin=binlog", "--server-id=1"],
            stdout=self.log,
            stderr=self.log,
        )
        end = time.monotonic() + 60
        while self._client("SELECT 1", check=False).returncode != 0:
            if time.monotonic() > end or self.process.poll() is not None:
                self.__exit__()
                raise measure.Failed("MariaDB did not start")
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)

    def _client(self, statements, check=True):
        return subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root"],
            input=statements.encode(),
            check=check,
            capture_output=True,
        )

    def fill(self, tables, rows=ROWS_PER_TABLE):
        rows //= self.context.scale
        self._client(
            f"SET sql_log_bin = 0; CREATE DATABASE {DATABASE}; USE {DATABASE};"
            "CREATE TABLE orders_1 (id INT PRIMARY KEY, customer INT NOT NULL, document TEXT NOT NULL);"
            "SET unique_checks = 0, foreign_key_checks = 0;"
            "INSERT INTO orders_1 SELECT seq, 1 + seq % 10000, CONCAT(SHA2(seq, 512), SHA2(-seq, 512),"
            "SHA2(seq + 0.5, 512), SHA2(seq - 0.3, 512), SHA2(seq * 1.7, 512), SHA2(seq * 3.1, 512),"
            f"SHA2(seq - 0.9, 512)) FROM seq_1_to_{rows};"
        )
        for number in range(2, tables + 1):
            self._client(
                f"SET sql_log_bin = 0; USE {DATABASE}; CREATE TABLE orders_{number} LIKE orders_1;"
                "SET unique_checks = 0, foreign_key_checks = 0;"
                f"INSERT INTO orders_{number} SELECT id, customer, REVERSE(document) FROM orders_1;"
            )

    def dump_command(self, directory, chunk_mb=64):
        """By Debian's mydumper; `None`: a table is one file."""
        return [
            *["mydumper", "--socket", self.socket, "--user", "root", "--database", DATABASE],
            *["--outputdir", directory, "--threads", "2"],
            *(["--chunk-filesize", chunk_mb] if chunk_mb else []),
        ]
