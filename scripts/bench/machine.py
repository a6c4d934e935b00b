"""The machine and the versions that a measurement belongs to."""

import os
import pathlib
import platform
import re
import subprocess

from .context import ROOT


def _first_line(*command, pattern=None):
    try:
        output = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    text = output.stdout or output.stderr
    if pattern:
        found = re.search(pattern, text)
        return found.group(1) if found else text.strip().splitlines()[0]
    return text.strip().splitlines()[0] if text.strip() else "unknown"


def describe(context):
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = set(re.search(r"flags\s*: (.*)|$", cpuinfo).group(0).split())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text(encoding="ascii"))
    release = pathlib.Path("/etc/os-release").read_text(encoding="utf-8")
    return {
        "processor": model.group(1) if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "vector instructions": ", ".join(flag for flag in ("avx2", "avx512f") if flag in flags) or "none that matter",
        "memory": f"{int(memory.group(1)) / (1 << 20):.0f} GiB",
        "virtual machine": "yes" if "hypervisor" in flags else "no",
        "filesystem of the data": _first_line("findmnt", "-no", "FSTYPE", "-T", context.work),
        "kernel": platform.release(),
        "system": re.search(r'PRETTY_NAME="(.*)"', release).group(1),
        "mydumper2s3": commit(),
        "s5cmd": _first_line(context.tools / "s5cmd", "version"),
        "aws cli": _first_line(context.tools / "aws", "--version"),
        "rclone": _first_line(context.tools / "rclone", "version"),
        "Python mydumper2s3": _first_line(context.tools / "pip", "show", "mydumper2s3", pattern=r"Version: (.*)"),
        "mydumper": _first_line("mydumper", "--version"),
        "MariaDB": _first_line("mariadbd", "--version"),
        "rustc": _first_line("rustc", "--version"),
        "openssl": _first_line("openssl", "version"),
    }


def commit():
    """The last one that changed what is measured."""
    sources = ["--", "src", "md5-lanes", "Cargo.toml", "Cargo.lock"]
    text = _first_line("git", "-C", ROOT, "log", "-1", "--format=%h", *sources)
    changed = subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", *sources], check=False)
    return f"commit {text}" + (", with changes" if changed.returncode else "")
