"""One upload by one tool, checked against what the sink got."""

import shutil

from . import measure

NOT_COUNTED = ("first_request_unix_ns", "last_answer_unix_ns", "connections_now")


def upload(context, sink, tool, dump, workers, options=(), **environment):
    """A sample. It counts only if the sink has got every file in its full length."""
    directory = dump.copy(context.work / "upload")
    sink.reset()
    command = [*tool.command(sink, directory, workers), *options]
    sample = measure.run(command, context.environment(**tool.environment(sink, workers), **environment), context.work)
    check_objects(sink, tool, dump)
    counters = sink.counters()
    sample["transfer_s"] = (counters["last_answer_unix_ns"] - counters["first_request_unix_ns"]) / 1e9
    sample["start_s"] = (counters["first_request_unix_ns"] - sample["started_unix_ns"]) / 1e9
    sample.update({name: value for name, value in counters.items() if name not in NOT_COUNTED})
    sample.update(tool=tool.name, workers=workers, bytes=dump.bytes, files=len(dump.files()))
    del sample["started_unix_ns"]
    shutil.rmtree(directory)
    variables = [f"{name}={value}" for name, value in tool.environment(sink, workers).items()]
    return sample, shown(context, sink, variables + command)


def check_objects(sink, tool, dump):
    there = {path.rsplit("/", 1)[-1]: size for path, size in sink.objects().items()}
    wanted = dump.files()
    extra = set(there) - set(wanted) - tool.own_objects
    wrong = [name for name, size in wanted.items() if there.get(name) != size]
    if extra or wrong:
        raise measure.Failed(
            f"{tool.name} did not do the whole job: {len(wrong)} of {len(wanted)} files are missing or have another "
            f"size, like {wrong[:3]}; {len(extra)} objects are not the dump's, like {sorted(extra)[:3]}"
        )


def shown(context, sink, command):
    """The command as a person would type it."""
    text = " ".join(str(word) for word in command)
    for what, word in (
        (str(context.work / "upload"), "DIR"),
        (str(context.work), "TMP"),
        (str(context.tools) + "/", ""),
        (str(context.ours), "mydumper2s3"),
        (sink.endpoint, ("https" if sink.is_tls else "http") + "://127.0.0.1:PORT"),
        (sink.host, "127.0.0.1:PORT"),
    ):
        text = text.replace(what, word)
    return text


def interleaved(context, sink, tools, dump, workers, rounds, **how):
    """Each tool in turn, `rounds` times: what the machine does meanwhile meets all of them. `tools` may hold a limit of
    its own for a slow one."""
    row = {"samples": [], "commands": {}, "failures": {}}
    for number in range(rounds):
        for tool, limit in tools:
            if number >= limit or tool.name in row["failures"]:
                continue
            try:
                sample, command = upload(context, sink, tool, dump, workers, **how)
            except measure.Failed as error:
                # A peer that cannot do it leaves its line empty; if we cannot, there is nothing to show.
                if tool.name.startswith("mydumper2s3"):
                    raise
                context.say(f"left out, {tool.name}: {error}")
                row["failures"][tool.name] = str(error).splitlines()[0]
                continue
            row["samples"].append(sample)
            row["commands"][tool.name] = command
    return row
