"""The sink server: see examples/sink_server."""

import json
import subprocess
import urllib.request


class Sink:
    """Runs as long as the `with` block. It speaks https where a certificate is given."""

    def __init__(self, context, *options, tls=False):
        self.context = context
        self.command = [context.program("sink_server"), *map(str, options)]
        if tls:
            self.command += ["--tls-cert", context.certificate, "--tls-key", context.certificate_key]
        self.is_tls = tls

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "endpoint" not in words:
            self.process.kill()
            raise RuntimeError(f"the sink server did not start: {line!r}")
        self.endpoint = words["endpoint"]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    @property
    def host(self):
        return self.endpoint.split("://")[1]

    def _ask(self, path, method="GET"):
        request = urllib.request.Request(f"{self.endpoint}/{path}", method=method)
        with urllib.request.urlopen(request, context=self.context.trust() if self.is_tls else None) as answer:
            return answer.read()

    def reset(self):
        self._ask("_reset", "POST")

    def counters(self):
        return json.loads(self._ask("_counters"))

    def objects(self):
        """Size by path, of all objects."""
        lines = self._ask("_objects").decode().splitlines()
        return {path: int(size) for size, path in (line.split(" ", 1) for line in lines)}
