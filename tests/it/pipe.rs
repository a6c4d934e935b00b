//! `pipe`: what a program writes becomes one object, if that program ended well; what comes through standard input, if its
//! content says that it is whole; and nothing else becomes one.

use std::io::Write;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::peak_memory;
use crate::support::s3_server::{BUCKET, Fault, Limits, OpaqueEtags, Operation, S3Server, SECRET_KEY};
use crate::support::sandbox::{Finished, Program, eventually};
use crate::support::stage::Stage;
use crate::support::stored_dump::bytes;

const MIB: usize = 1 << 20;
const PART: usize = 5 * MIB;
const PREFIX: &str = "nightly/shop";
const HEADER: &str = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n--\n";
const LAST_LINE: &str = "-- Dump completed on 2026-11-22  2:00:09\n";

/// A stage, and what is piped.
struct Story {
    stage: Stage,
    input: PathBuf,
}

impl Story {
    fn of(content: impl AsRef<[u8]>) -> Self {
        Story::on(Stage::new(), content)
    }

    fn on(stage: Stage, content: impl AsRef<[u8]>) -> Self {
        let input = stage.sandbox.path("input");
        std::fs::write(&input, content).expect("an input");
        Story { stage, input }
    }

    /// In parts of 5 MiB, of which four are in memory.
    fn pipe_to(&self, prefix: &str, name: &str) -> Program<'_> {
        let pipe = self.stage.command("pipe").args(["--prefix", prefix, "--name", name]);
        pipe.args(["--part-size", "5MiB", "--memory", "20MiB", "--retry-for", "5"])
    }

    fn pipe(&self, name: &str) -> Program<'_> {
        self.pipe_to(PREFIX, name)
    }

    /// A shell that has the input as `$INPUT`.
    fn by_shell(&self, name: &str, script: &str) -> Program<'_> {
        self.pipe(name).env("INPUT", &self.input).args(["--", "sh", "-c", script])
    }

    /// Through standard input, in pieces that are no parts.
    fn through_stdin(&self, name: &str, options: &[&str]) -> Finished {
        let pipe = self.pipe(name).args(options).env("INPUT", &self.input);
        pipe.wrapped_in(["sh", "-c", "cat \"$INPUT\" | \"$@\"", "sh"]).run()
    }

    fn command(&self, name: &str) -> Program<'_> {
        self.stage.command(name).args(["--prefix", PREFIX])
    }

    fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.stage.server.object(BUCKET, &format!("{PREFIX}/{name}")).map(|object| object.bytes())
    }

    /// The stream is there, and is called whole.
    #[track_caller]
    fn assert_committed(&self, name: &str, content: &[u8]) {
        let there = self.object(name).unwrap_or_else(|| panic!("there is no {name}"));
        assert!(there == content, "{} bytes are there, {} were sent", there.len(), content.len());
        let manifest = self.stage.manifest_of(PREFIX);
        assert_eq!((&manifest["state"], &manifest["kind"]), (&"complete".into(), &"stream".into()), "{manifest}");
        assert_eq!(self.stage.server.open_multipart_uploads(BUCKET), []);
    }

    /// Nothing of it is there but the claim, and that says why.
    #[track_caller]
    fn assert_nothing_but_why(&self, why: &str) {
        assert_eq!(self.stage.files(PREFIX).into_keys().collect::<Vec<_>>(), [""; 0]);
        let manifest = self.stage.manifest_of(PREFIX);
        assert_eq!(manifest["state"], "incomplete", "{manifest}");
        let reason = manifest["reason"].as_str().expect("a reason");
        assert!(reason.contains(why), "{reason}");
        assert_eq!(self.stage.server.open_multipart_uploads(BUCKET), []);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("into memory")
}

fn dump(rows: usize) -> String {
    format!("{HEADER}{}{LAST_LINE}", "INSERT INTO `t` VALUES (1,'a');\n".repeat(rows))
}

#[test]
fn a_stream_of_any_length_becomes_one_object() {
    let story = Story::of("");
    for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 7 * PART, 7 * PART + 4] {
        let content = bytes(length.next_multiple_of(4))[..length].to_vec();
        std::fs::write(&story.input, &content).expect("an input");
        let prefix = format!("of/{length}");
        let pipe = story.pipe_to(&prefix, "shop.bin").arg("--").arg("cat").arg(&story.input);
        pipe.run().assert_status(0).assert_says("the stream is whole, and its object is in the bucket, verified");
        let files = story.stage.files(&prefix);
        assert!(files["shop.bin"] == content && files.len() == 1, "{length}");
        let begun = story.stage.server.requests_of(Operation::CreateMultipartUpload);
        let begun = begun.iter().filter(|request| request.key == format!("{prefix}/shop.bin")).count();
        assert_eq!(begun, usize::from(length > PART), "{length}");
        let manifest = story.stage.manifest_of(&prefix);
        assert_eq!((&manifest["kind"], &manifest["format"]), (&"stream".into(), &2.into()));
        assert_eq!((&manifest["state"], &manifest["dumper_exit"]["status"]), (&"complete".into(), &0.into()));
        assert_eq!((&manifest["total_files"], &manifest["total_bytes"]), (&1.into(), &length.into()));
        assert_eq!(manifest["files"][0]["name"], "shop.bin");
        let verify = story.stage.command("verify").args(["--prefix", &prefix, "--deep"]);
        verify.run().assert_status(0).assert_says("1 match, 0 mismatch, 0 missing, 0 extra");
    }
    assert_eq!(story.stage.server.open_multipart_uploads(BUCKET), []);
}

/// "It is a dump like others."
#[test]
fn a_stream_is_a_dump_like_others() {
    let content = bytes(3 * PART + 400);
    let story = Story::of(&content);
    story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
    story.stage.command("list").run().assert_status(0).assert_says(PREFIX).assert_says("complete");
    story.command("list").args(["--files", "--json"]).run().assert_status(0).assert_says("\"state\": \"present\"");
    story.command("verify").run().assert_status(0).assert_says("1 match");
    let directory = story.stage.sandbox.path("back");
    let restored = story.command("restore").arg("--dir").arg(&directory).run().assert_status(0);
    assert_eq!(restored.stdout, "", "no myloader could load it");
    assert!(std::fs::read(directory.join("shop.bin")).expect("the file") == content);
    let out = story.stage.sandbox.path("out");
    let to_file = ["sh".into(), "-c".into(), "exec \"$@\" > \"$OUT\"".into(), "sh".to_owned()];
    let restore = story.command("restore").arg("--stdout").env("OUT", &out).wrapped_in(to_file);
    restore.run().assert_status(0);
    assert!(std::fs::read(&out).expect("what was written") == content);
    let latest = story.stage.command("verify").args(["--prefix", "nightly", "--latest", "--deep"]);
    latest.run().assert_status(0);
    story.command("delete").arg("--yes").run().assert_status(0).assert_says("deleted 2 objects");
    assert_eq!(story.stage.server.keys(BUCKET), [""; 0]);
}

#[test]
fn what_is_written_out_is_proved_part_by_part() {
    let content = bytes(3 * PART);
    let story = Story::of(&content);
    story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
    // A byte in the last of three parts.
    story.stage.server.corrupt(BUCKET, &format!("{PREFIX}/shop.bin"));
    let out = story.stage.sandbox.path("out");
    let restore = story.command("restore").arg("--stdout").env("OUT", &out);
    let finished = restore.wrapped_in(["sh", "-c", "exec \"$@\" > \"$OUT\"", "sh"]).run().assert_status(1);
    finished.assert_says("not those that were uploaded").assert_says(&format!("the first {} bytes", 2 * PART));
    assert!(std::fs::read(&out).expect("what was written") == content[..2 * PART]);
    story.command("verify").arg("--deep").run().assert_status(4);
}

#[test]
fn no_object_comes_of_a_program_that_fails() {
    for length in [100, 4 * PART] {
        for (script, why) in [
            ("cat \"$INPUT\"; exit 3", "ended with status 3"),
            ("cat \"$INPUT\"; kill -KILL $$", "was ended by signal 9"),
            ("head -c 50 \"$INPUT\"; exit 1", "ended with status 1"),
            // It lives on with the pipe open: nobody waits for that.
            ("cat \"$INPUT\"; sleep 1000 & exit 4", "ended with status 4"),
        ] {
            let story = Story::of(bytes(length));
            let finished = story.by_shell("shop.bin", script).run().assert_status(3);
            finished.assert_says(why);
            story.assert_nothing_but_why(why);
            story.command("verify").run().assert_status(3).assert_says(why);
        }
    }
}

/// In a pipeline only the last program's status counts; the text knows better.
#[test]
fn a_pipeline_that_hides_a_failure_is_found_out_by_its_text() {
    let cut = |text: &str| text[..text.len() - LAST_LINE.len() - 9].to_owned();
    let text = dump(100_000);
    for (name, filter) in [("shop.sql", "cat"), ("shop.sql.gz", "gzip -1")] {
        let story = Story::of(cut(&text));
        let script = format!("(cat \"$INPUT\"; exit 2) | {filter}");
        let finished = story.by_shell(name, &script).run().assert_status(3);
        finished.assert_says("'-- Dump completed'").assert_says("pipefail");
        story.assert_nothing_but_why("'-- Dump completed'");
        let whole = Story::of(&text);
        let script = format!("cat \"$INPUT\" | {filter}");
        whole.by_shell(name, &script).run().assert_status(0);
    }
    // What has no comments promises nothing: the status alone tells.
    let story = Story::of("INSERT INTO `t` VALUES (1);\n");
    story.by_shell("shop.sql", "cat \"$INPUT\"").run().assert_status(0);
}

#[test]
fn of_standard_input_the_content_must_tell() {
    let text = dump(100_000);
    let cut = &text.as_bytes()[..text.len() - LAST_LINE.len()];
    let (zst, gz) = (zstd(text.as_bytes()), gzip(text.as_bytes()));
    let cases: [(&str, &[u8], Option<&str>); 10] = [
        ("shop.sql", text.as_bytes(), None),
        ("shop.sql.zst", &zst, None),
        ("shop.sql.gz", &gz, None),
        ("shop.xb.zst", &zstd(b"no text"), None),
        ("shop.sql", cut, Some("'-- Dump completed'")),
        ("shop.sql", b"", Some("'-- Dump completed'")),
        // mysqldump was killed, and the compressor did not notice.
        ("shop.sql.zst", &zstd(cut), Some("'-- Dump completed'")),
        ("shop.sql.zst", &zst[..zst.len() - 5], Some("cut short")),
        ("shop.sql.gz", &gz[..gz.len() - 5], Some("cut short")),
        ("shop.sql.zst", text.as_bytes(), Some("cannot be decoded")),
    ];
    for (name, content, why) in cases {
        let story = Story::of(content);
        let finished = story.through_stdin(name, &[]);
        match why {
            None => {
                finished.assert_status(0);
                story.assert_committed(name, content);
                let manifest = story.stage.manifest_of(PREFIX);
                assert_eq!(manifest["dumper_exit"]["seen"], "not-seen");
                story.stage.command("list").run().assert_says("complete, exit status not seen");
            }
            Some(why) => {
                finished.assert_status(3).assert_says(why).assert_says("--accept-eof");
                story.assert_nothing_but_why(why);
            }
        }
    }
}

#[test]
fn the_end_of_standard_input_is_enough_where_that_is_said() {
    let story = Story::of(bytes(PART + 8));
    story.through_stdin("shop.xbstream", &[]).assert_status(2).assert_says("--accept-eof");
    assert_eq!(story.stage.server.keys(BUCKET), [""; 0]);
    story.through_stdin("shop.xbstream", &["--accept-eof"]).assert_status(0);
    story.assert_committed("shop.xbstream", &bytes(PART + 8));
    let cut = Story::of(HEADER);
    cut.through_stdin("shop.sql", &["--accept-eof"]).assert_status(0);
    // That its frames are whole can be known all the same.
    let text = dump(100_000);
    let zst = zstd(text.as_bytes());
    let cut = Story::of(&zst[..zst.len() - 5]);
    cut.through_stdin("shop.sql.zst", &["--accept-eof"]).assert_status(3).assert_says("cut short");
}

#[test]
fn a_terminal_is_no_stream() {
    let story = Story::of("");
    let finished = story.pipe("shop.sql").typing("CREATE TABLE t (id INT);\n").run().assert_status(2);
    finished.assert_says("standard input is a terminal");
}

#[test]
fn it_is_compressed_on_its_way() {
    let text = dump(400_000);
    let decoded = |name: &str, there: &[u8]| match name.ends_with(".gz") {
        false => zstd::decode_all(there).expect("zstd"),
        true => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(there).and_then(|()| decoder.finish()).expect("gzip")
        }
    };
    for (kind, name) in [("zstd", "shop.sql.zst"), ("zstd:1", "shop.sql.zst"), ("gzip", "shop.sql.gz")] {
        let story = Story::of(&text);
        let pipe = story.pipe(name).args(["--compress", kind, "--sha256"]).arg("--").arg("cat").arg(&story.input);
        pipe.run().assert_status(0);
        let there = story.object(name).expect("an object");
        assert!(decoded(name, &there) == text.as_bytes() && there.len() < text.len() / 10, "{kind}");
        story.command("verify").arg("--deep").run().assert_status(0);
        let manifest = story.stage.manifest_of(PREFIX);
        assert_eq!(manifest["files"][0]["sha256"].as_str().map(str::len), Some(64), "{manifest}");
    }
    // What comes out again is what went in.
    let story = Story::of(bytes(4 * PART));
    let pipe = story.pipe("shop.bin.zst").args(["--compress", "zstd:1"]).arg("--").arg("cat").arg(&story.input);
    pipe.run().assert_status(0);
    assert!(decoded("", &story.object("shop.bin.zst").expect("an object")) == bytes(4 * PART));
    let refused = Story::of("").pipe("shop.sql").args(["--compress", "zstd", "--", "true"]).run().assert_status(2);
    refused.assert_says("shop.sql.zst");
}

#[test]
fn names_that_mean_something_else_are_refused() {
    for name in ["metadata", "metadata.partial", "metadata.sql", "mydumper2s3.json", "a/b.sql", "", ".."] {
        let story = Story::of("x");
        story.by_shell(name, "cat \"$INPUT\"").run().assert_status(2);
        assert_eq!(story.stage.server.requests().len(), 0, "{name}");
    }
}

/// "A part is proved by Content-MD5 and ETag and can be sent again."
#[test]
fn what_goes_wrong_on_the_way_is_sent_again() {
    for fault in [
        Fault::answer(503, "SlowDown").on(Operation::UploadPart).times(3),
        Fault::damage_in_transit().on(Operation::UploadPart).part(2).once(),
        Fault::wrong_etag().on(Operation::UploadPart).part(2).once(),
        Fault::lose_answer().on(Operation::UploadPart).part(3).once(),
        Fault::answer(500, "InternalError").on(Operation::CompleteMultipartUpload).once(),
        Fault::lose_answer().on(Operation::CompleteMultipartUpload).once(),
        Fault::error_inside_ok("InternalError").on(Operation::CompleteMultipartUpload).once(),
    ] {
        let content = bytes(6 * PART + 12);
        let story = Story::of(&content);
        let fault = story.stage.server.inject(fault);
        story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
        assert!(fault.hits() > 0);
        story.assert_committed("shop.bin", &content);
    }
    for fault in [
        Fault::answer(503, "SlowDown").key_where(|key| key.ends_with("shop.bin")).on(Operation::PutObject).times(2),
        Fault::damage_in_transit().key_where(|key| key.ends_with("shop.bin")).on(Operation::PutObject).once(),
        Fault::damage_stored().key_where(|key| key.ends_with("nothing")).on(Operation::PutObject).once(),
    ] {
        let story = Story::of(bytes(400));
        story.stage.server.inject(fault);
        story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
        story.assert_committed("shop.bin", &bytes(400));
    }
}

#[test]
fn where_etags_are_no_md5s_a_stream_is_proved_all_the_same() {
    for (length, checks_content_md5) in [(400, true), (400, false), (3 * PART, true), (3 * PART, false)] {
        let limits = Limits { checks_content_md5, opaque_etags: OpaqueEtags::All, ..Limits::default() };
        let story = Story::on(Stage::with(S3Server::builder().limits(limits).start()), bytes(length));
        story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
        story.assert_committed("shop.bin", &bytes(length));
        let file = &story.stage.manifest_of(PREFIX)["files"][0];
        assert_eq!((&file["proof"], file["read_back"] == true), (&"content-md5".into(), !checks_content_md5), "{file}");
        story.command("verify").arg("--deep").run().assert_status(0);
    }
}

/// Nobody can read a stream twice: what the store lost of it is lost, and that is said.
#[test]
fn a_stream_whose_upload_the_store_lost_is_never_called_whole() {
    for (fault, at_end) in [
        (Fault::answer(404, "NoSuchUpload").on(Operation::UploadPart).part(3).once(), false),
        (Fault::answer(404, "NoSuchUpload").on(Operation::CompleteMultipartUpload).once(), true),
    ] {
        let story = Story::of(bytes(6 * PART));
        story.stage.server.inject(fault);
        let finished = story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(1);
        if at_end {
            finished.assert_says("not there after its upload");
        } else {
            finished.assert_says("the store has lost what was sent of the stream").assert_says("begin it anew");
        }
        assert_eq!(story.object("shop.bin"), None);
        assert_eq!(story.stage.manifest_of(PREFIX)["state"], "incomplete");
    }
}

#[test]
fn a_store_that_stays_away_ends_the_program_and_nothing_is_called_whole() {
    let story = Story::of(bytes(6 * PART));
    let pid = story.stage.sandbox.path("pid");
    let fault = story.stage.server.inject(Fault::answer(503, "SlowDown").on(Operation::UploadPart));
    let script = "echo $$ > \"$PID\"; cat \"$INPUT\"; exec sleep 1000";
    let pipe = story.by_shell("shop.bin", script).env("PID", &pid);
    pipe.run().assert_status(1).assert_says("the stream cannot be sent");
    assert!(fault.hits() > 1);
    assert_is_gone(&pid);
    assert_eq!(story.object("shop.bin"), None);
}

#[track_caller]
fn assert_is_gone(pid: &std::path::Path) {
    let pid = std::fs::read_to_string(pid).expect("a pid");
    eventually("the program is gone", || !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[test]
fn a_signal_ends_the_program_and_leaves_nothing() {
    let story = Story::of(bytes(6 * PART));
    let pid = story.stage.sandbox.path("pid");
    let held = story.stage.server.inject(Fault::hold().on(Operation::UploadPart).part(2));
    let script = "echo $$ > \"$PID\"; cat \"$INPUT\"; exec sleep 1000";
    let run = story.by_shell("shop.bin", script).env("PID", &pid).start();
    held.wait_for_hits(1);
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
    assert_is_gone(&pid);
    story.assert_nothing_but_why("stopped by signal 15");
}

#[test]
fn a_signal_is_answered_while_the_program_says_nothing() {
    let story = Story::of("");
    let mut run = story.by_shell("shop.bin", "echo ready >&2; exec sleep 1000").start();
    run.wait_for_line("ready");
    run.signal(Signal::INT);
    run.finish().assert_status(130);
    story.assert_nothing_but_why("stopped by signal 2");
}

#[test]
fn killed_amid_a_stream_it_leaves_no_program_and_the_next_run_says_so() {
    let story = Story::of(bytes(6 * PART));
    let pid = story.stage.sandbox.path("pid");
    let held = story.stage.server.inject(Fault::hold().on(Operation::UploadPart).part(2));
    let script = "echo $$ > \"$PID\"; cat \"$INPUT\"; exec sleep 1000";
    let run = story.by_shell("shop.bin", script).env("PID", &pid).start();
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    assert_is_gone(&pid);
    assert_eq!(story.object("shop.bin"), None);
    story.stage.command("list").run().assert_status(0).assert_says("uploading");
    let again = story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(2);
    again.assert_says("occupied");
    // Its unfinished upload is known to be of it, whatever its name.
    assert_eq!(story.stage.server.open_multipart_uploads(BUCKET).len(), 1);
    give_up(&story);
    story.command("delete").arg("--yes").run().assert_status(0);
    assert_eq!(story.stage.server.open_multipart_uploads(BUCKET), []);
    story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
    story.assert_committed("shop.bin", &bytes(6 * PART));
}

/// As if somebody had written down that nothing comes of it any more: an hour's silence says the same.
fn give_up(story: &Story) {
    let key = format!("{PREFIX}/mydumper2s3.json");
    let mut manifest = story.stage.manifest_of(PREFIX);
    manifest["state"] = "incomplete".into();
    story.stage.server.replace_directly(BUCKET, &key, manifest.to_string().as_bytes());
}

#[test]
fn a_whole_stream_is_not_taken_for_half_of_a_dump() {
    let story = Story::of("first");
    story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
    let again = |option: &str| {
        let pipe = story.pipe("shop.bin").args([option, "--", "echo", "-n", "second"]);
        pipe.run()
    };
    again("--replace-incomplete").assert_status(2).assert_says("it holds another dump");
    story.assert_committed("shop.bin", b"first");
    again("--overwrite").assert_status(0);
    story.assert_committed("shop.bin", b"second");
}

#[test]
fn what_lies_beside_it_forbids_the_commit() {
    let story = Story::of(bytes(4 * PART));
    let held = story.stage.server.inject(Fault::hold().on(Operation::UploadPart).part(4));
    let run = story.by_shell("shop.bin", "cat \"$INPUT\"").start();
    held.wait_for_hits(1);
    story.stage.server.put_directly(BUCKET, &format!("{PREFIX}/another"), b"x");
    held.clear();
    run.finish().assert_status(1).assert_says("'another'");
    assert_eq!(story.stage.manifest_of(PREFIX)["state"], "incomplete");
}

#[test]
fn myloader_is_not_asked_to_load_a_stream() {
    let story = Story::of("x");
    story.by_shell("shop.bin", "cat \"$INPUT\"").run().assert_status(0);
    let load = story.command("load").arg("--unchecked").args(["--", "myloader"]);
    load.run().assert_status(2).assert_says("it is a stream").assert_says("restore --stdout");
}

/// Two jobs of one minute get the same prefix; each is a series of its own.
#[test]
fn streams_of_one_second_lie_side_by_side_and_are_counted_by_their_names() {
    let story = Story::of("x");
    let pipe = |name: &str| {
        let pipe = story.stage.command("pipe").args(["--name", name]);
        pipe.arg("--").arg("cat").arg(&story.input).start()
    };
    let runs = [pipe("shop.bin"), pipe("crm.bin")];
    runs.into_iter().for_each(|run| drop(run.finish().assert_status(0)));
    let prefixes = story.stage.prefixes();
    assert_eq!(prefixes.len(), 2, "{prefixes:?}");
    let series = |prefix: &String| story.stage.manifest_of(prefix)["series"].as_str().expect("a series").to_owned();
    let mut series: Vec<_> = prefixes.iter().map(series).collect();
    series.sort();
    assert!(series[0].ends_with("/crm.bin") && series[1].ends_with("/shop.bin"), "{series:?}");
    let pruned = story.stage.command("prune").args(["--prefix", "", "--keep-last", "1"]).run().assert_status(0);
    pruned.assert_says("removing 0 of 2 dumps");
}

#[test]
fn a_store_that_may_only_be_written_to_gets_the_stream() {
    let content = bytes(3 * PART);
    let story = Story::of(&content);
    let pipe = story.pipe_to("w/%Y-%m-%dT%H%M%SZ", "shop.bin").arg("--write-only").arg("--").arg("cat");
    pipe.arg(&story.input).run().assert_status(0);
    let prefix = story.stage.prefix();
    assert!(story.stage.files(&prefix)["shop.bin"] == content);
    assert_eq!(story.stage.manifest_of(&prefix)["state"], "complete");
}

#[test]
fn the_program_does_not_get_our_secrets() {
    let story = Story::of("");
    story.by_shell("shop.bin", "env; echo \"on stderr\" >&2").run().assert_status(0).assert_says("on stderr");
    let there = String::from_utf8(story.object("shop.bin").expect("an object")).expect("text");
    assert!(there.contains("PATH=") && !there.contains(SECRET_KEY), "{there}");
}

#[test]
fn a_program_that_cannot_be_started_leaves_nothing() {
    let story = Story::of("");
    let pipe = story.pipe("shop.bin").args(["--", "/nonexistent/mysqldump"]);
    pipe.run().assert_status(2).assert_says("cannot start '/nonexistent/mysqldump'");
    assert_eq!(story.stage.server.keys(BUCKET), [""; 0]);
}

#[test]
fn memory_is_bounded_however_long_the_stream_is() {
    let story = Story::of("");
    let peak = |prefix: &str, bytes: &str| {
        let pipe = story.pipe_to(prefix, "shop.bin").args(["--", "head", "-c", bytes, "/dev/zero"]);
        peak_memory::mib(&pipe.wrapped_in(peak_memory::WRAPPER).run().assert_status(0))
    };
    let (short, long) = (peak("short", "1"), peak("long", "300000000"));
    println!("{short} MiB for one byte, {long} MiB for 300 MB through 20 MiB of parts");
    assert!(long < short + 20 + 8, "{long} MiB, and {short} MiB for one byte");
}
