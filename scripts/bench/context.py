"""What all rows share: programs, sizes, a place for data, a certificate."""

import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Context:
    """One run. `scale` makes everything smaller, so that the harness can be tried in a minute or two."""

    def __init__(self, quick):
        self.quick = quick
        self.scale = 16 if quick else 1
        self.rounds = 1 if quick else 5
        self.few_rounds = 1 if quick else 3
        self.target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
        self.tools = ROOT / "target" / "tools" / "bench" / "bin"
        self.work = None
        # The Python tool writes it, wherever it runs.
        self.foreign_log = pathlib.Path("/tmp/mydumper2s3.log")
        self.keeps_foreign_log = self.foreign_log.exists()
        self._began = time.monotonic()

    def __enter__(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="mydumper2s3-bench."))
        (self.work / "home").mkdir()
        self._make_certificate()
        self._configure_aws()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.work, ignore_errors=True)
        if not self.keeps_foreign_log:
            self.foreign_log.unlink(missing_ok=True)

    def say(self, text):
        print(f"[{time.monotonic() - self._began:5.0f} s] {text}", file=sys.stderr, flush=True)

    def program(self, name):
        return self.target / "release" / name

    @property
    def ours(self):
        return self.program("mydumper2s3")

    def environment(self, **more):
        """Neither an account nor a setting of the user's may get in between."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.work / "home"),
            "TMPDIR": str(self.work),
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            **{name: str(value) for name, value in more.items()},
        }

    def _make_certificate(self):
        self.certificate, self.certificate_key = self.work / "tls.crt", self.work / "tls.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-addext", "basicConstraints=critical,CA:FALSE"]
            + ["-keyout", self.certificate_key, "-out", self.certificate],
            check=True,
            capture_output=True,
        )

    def trust(self):
        return ssl.create_default_context(cafile=self.certificate)

    def _configure_aws(self):
        for workers in (4, 64):
            self.aws_config(workers).write_text(
                "[default]\ns3 =\n"
                f"  max_concurrent_requests = {workers}\n  multipart_chunksize = 16MB\n  multipart_threshold = 16MB\n",
                encoding="utf-8",
            )

    def aws_config(self, workers):
        return self.work / f"aws-{workers}.ini"
