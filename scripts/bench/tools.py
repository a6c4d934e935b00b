"""The uploaders: how each is told to upload a directory, and what it leaves undone."""

import dataclasses

PREFIX = "run"


@dataclasses.dataclass
class Tool:
    """An uploader. `command` and `environment` take the sink, the directory and the number of workers."""

    name: str
    command: object
    environment: object
    leaves_out: str
    # What it may write beside the files that it was given.
    own_objects: frozenset = frozenset()


def _ours(context):
    def command(sink, directory, workers):
        return [
            *[context.ours, "--dir", directory, "--bucket", "bench", "--prefix", PREFIX],
            *["--endpoint-url", sink.endpoint, "--workers", workers, "--part-size", "16MiB", "--quiet"],
            *(["--ca-bundle", context.certificate] if sink.is_tls else []),
        ]

    return command


def ours(context):
    return Tool(
        "mydumper2s3",
        _ours(context),
        lambda sink, workers: {},
        "nothing: every request carries its MD5, every ETag is compared, the bucket is compared before the commit, and "
        "the local files are removed",
        frozenset({"mydumper2s3.json"}),
    )


def ours_serial(context):
    return dataclasses.replace(
        ours(context),
        name="mydumper2s3, serial MD5",
        environment=lambda sink, workers: {"MYDUMPER2S3_MD5": "serial"},
        leaves_out="nothing; one MD5 stream per part, as a processor without vector instructions would have it",
    )


def s5cmd(context):
    def command(sink, directory, workers):
        return [
            *[context.tools / "s5cmd", "--endpoint-url", sink.endpoint, "--numworkers", workers],
            *["--log", "error", "cp", "--concurrency", workers, "--part-size", "16"],
            *[f"{directory}/", f"s3://bench/{PREFIX}/"],
        ]

    return Tool(
        "s5cmd",
        command,
        lambda sink, workers: {"SSL_CERT_FILE": context.certificate} if sink.is_tls else {},
        "compares no ETag, does not look into the bucket, removes nothing",
    )


def rclone(context):
    def command(sink, directory, workers):
        # One file after the other where it has parts, so that there are never more requests than workers.
        transfers = 1 if any(entry.stat().st_size > 16 << 20 for entry in directory.iterdir()) else workers
        return [
            *[context.tools / "rclone", "copy", "--quiet", "--config", "/dev/null"],
            *["--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", sink.endpoint, "--s3-region", "us-east-1"],
            *["--s3-chunk-size", "16M", "--s3-upload-cutoff", "16M", "--s3-upload-concurrency", workers],
            *["--transfers", transfers, "--checkers", workers],
            *(["--ca-cert", context.certificate] if sink.is_tls else []),
            *[directory, f":s3:bench/{PREFIX}"],
        ]

    return Tool(
        "rclone",
        command,
        lambda sink, workers: {},
        "compares the MD5 of small files; of files in parts the size; removes nothing",
    )


def aws(context):
    def command(sink, directory, workers):
        return [
            *[context.tools / "aws", "--endpoint-url", sink.endpoint, "s3", "cp", "--recursive", "--only-show-errors"],
            *(["--ca-bundle", context.certificate] if sink.is_tls else []),
            *[directory, f"s3://bench/{PREFIX}/"],
        ]

    return Tool(
        "aws cli",
        command,
        lambda sink, workers: {"AWS_CONFIG_FILE": context.aws_config(workers)},
        "sends CRCs, compares no ETag, does not look into the bucket, removes nothing",
    )


def python_tool(context):
    def command(sink, directory, workers):
        return [
            *[context.tools / "mydumper2s3", "--access_key", "bench", "--secret_key", "bench-secret"],
            *["--domain", sink.host, "--bucket", "bench", "--path", directory, "--upload-thread", workers],
            *(["--ssl"] if sink.is_tls else ["--no-ssl"]),
        ]

    return Tool(
        "Python mydumper2s3 0.1.6",
        command,
        lambda sink, workers: {"SSL_CERT_FILE": context.certificate} if sink.is_tls else {},
        "verifies nothing and ends with status 0 whatever happened; here it removes nothing",
    )


def all_of(context):
    return [make(context) for make in (ours, ours_serial, s5cmd, aws, rclone, python_tool)]
