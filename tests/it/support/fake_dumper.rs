//! The scripted dumper, driven step by step: each call returns when the dumper has done it, so a story
//! never waits for time. It also keeps what the dump must be in the end.
//!
//!     let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
//!     dumper.open("shop.t.sql");
//!     dumper.write("shop.t.sql", 1_000_000);
//!     dumper.close("shop.t.sql");
//!     dumper.finish_and_exit();
//!     assert_eq!(bucket.files("host/2026…"), dumper.files());

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::sandbox::{Finished, Run, Sandbox, eventually_some};

#[path = "../../../examples/scripted_dumper/wire.rs"]
mod wire;

pub use wire::{CONTROL_VARIABLE, SCRIPT_VARIABLE};

/// The names under which the scripted dumper is found in a sandbox: its own, and its compressor's.
pub const LINKS: [&str; 2] = ["mydumper", "zstd"];

/// No command takes longer, except those that say how long they take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the scripted dumper was built from, to know a stale one.
const SOURCES: [&str; 3] = [
    include_str!("../../../examples/scripted_dumper/main.rs"),
    include_str!("../../../examples/scripted_dumper/hand_over.rs"),
    include_str!("../../../examples/scripted_dumper/wire.rs"),
];

/// `cargo test` builds the examples, and puts them beside the directory of the test binaries.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("the path of this test");
    let program = tests.ancestors().nth(2).expect("a target directory").join("examples/scripted_dumper");
    assert!(
        program.exists(),
        "{} is missing: `cargo build --example scripted_dumper` makes it, `cargo test` without a target too",
        program.display()
    );
    program
}

/// How `metadata` is written and named lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Debian's 0.10.1: free text.
    V0_10,
    /// 1.0.1: in the form of an INI file, and appended to.
    V1_0,
}

impl Generation {
    pub const ALL: [Generation; 2] = [Generation::V0_10, Generation::V1_0];

    fn word(self) -> &'static str {
        match self {
            Generation::V0_10 => "0.10",
            Generation::V1_0 => "1.0",
        }
    }
}

pub struct FakeDumper {
    control: Control,
    /// Where it was started by the test and not by the program.
    run: Option<Run>,
    contents: BTreeMap<OsString, Content>,
}

impl FakeDumper {
    /// A dump that has begun: a dumper beside the program, `metadata.partial` open and with its
    /// `Started` line.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, generation: Generation) -> Self {
        let mut dumper = FakeDumper::launch(sandbox);
        dumper.begin(generation);
        dumper
    }

    /// A dumper beside the program that has done nothing yet.
    #[track_caller]
    pub fn launch(sandbox: &Sandbox) -> Self {
        FakeDumper::launch_wrapped_in(sandbox, [] as [&str; 0])
    }

    /// The same through another program, as `["unshare", "--pid", "--fork"]`.
    #[track_caller]
    pub fn launch_wrapped_in<A: AsRef<OsStr>>(sandbox: &Sandbox, wrapper: impl IntoIterator<Item = A>) -> Self {
        let dumper = sandbox
            .program(sandbox.path("bin/mydumper"))
            .arg("--outputdir")
            .arg(sandbox.dump_dir())
            .wrapped_in(wrapper)
            // It ends when it is told to; the limits are those of the program under test.
            .time_limit(Duration::from_secs(3600))
            .start();
        let mut connected = FakeDumper::accept(sandbox);
        connected.run = Some(dumper);
        connected
    }

    /// The dumper that the program under test starts, as in `-- mydumper -B shop`. Waits for it.
    #[track_caller]
    pub fn accept(sandbox: &Sandbox) -> Self {
        FakeDumper { control: Control::accept(sandbox, "dumper"), run: None, contents: BTreeMap::new() }
    }

    /// `metadata.partial` appears, and has its `Started` line.
    pub fn begin(&mut self, generation: Generation) {
        self.create_metadata(generation);
        self.write_started();
    }

    /// `metadata.partial` appears, and is empty.
    pub fn create_metadata(&mut self, generation: Generation) {
        self.tell("start", &[generation.word()]);
        self.contents.insert("metadata.partial".into(), Content::default());
    }

    pub fn write_started(&mut self) {
        let line = self.tell("started", &[]);
        self.note_metadata(line);
    }

    /// The `Started` line with a time of the test's choice, as `2026-01-02 03:04:05`.
    pub fn write_started_at(&mut self, time: &str) {
        let line = self.tell("started", &[time]);
        self.note_metadata(line);
    }

    /// Any text, appended to `metadata.partial`.
    pub fn write_metadata(&mut self, text: &str) {
        let text = self.tell("metadata", &[text]);
        self.note_metadata(text);
    }

    pub fn write_finished(&mut self) {
        let line = self.tell("finished", &[]);
        self.note_metadata(line);
    }

    pub fn close_metadata(&mut self) {
        self.tell("close-metadata", &[]);
    }

    pub fn rename_metadata(&mut self) {
        self.tell("rename-metadata", &[]);
        self.note_rename("metadata.partial".as_ref(), "metadata".as_ref());
    }

    /// The normal end but for the exit: `Finished` line, close, rename to `metadata`.
    pub fn finish(&mut self) {
        self.finish_without_rename();
        self.rename_metadata();
    }

    /// `metadata.partial` is whole and closed; the rename has not come yet.
    pub fn finish_without_rename(&mut self) {
        self.write_finished();
        self.close_metadata();
    }

    /// A file is open for writing, and empty.
    pub fn open(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("open", &[name.as_ref()]);
        self.contents.insert(name.as_ref().to_owned(), Content::default());
    }

    /// A file whose rows are handed over to nobody: mydumper does not look what becomes of its program.
    pub fn open_in_vain(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("open-in-vain", &[name.as_ref()]);
        self.contents.insert(name.as_ref().to_owned(), Content::default());
    }

    /// A file that exists is opened again, to append. mydumper never does that.
    pub fn reopen(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("reopen", &[name.as_ref()]);
        self.contents.entry(name.as_ref().to_owned()).or_default();
    }

    /// So many bytes more, which depend on the file's name and the place in it.
    pub fn write(&mut self, name: impl AsRef<OsStr>, bytes: u64) {
        let name = name.as_ref();
        let command = format!("write {} {bytes}", wire::encode(name.as_bytes()));
        self.control.tell(&command, PATIENCE);
        self.note_generated(name, bytes);
    }

    /// These bytes more.
    pub fn write_bytes(&mut self, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
        let (name, bytes) = (name.as_ref(), bytes.as_ref());
        self.tell_names("text", &[name, OsStr::from_bytes(bytes)]);
        self.content_mut(name).pieces.push(Piece::Literal(bytes.to_vec()));
    }

    pub fn close(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("close", &[name.as_ref()]);
    }

    /// A whole file: opened, written, closed.
    pub fn file(&mut self, name: impl AsRef<OsStr>, bytes: u64) {
        self.open(&name);
        self.write(&name, bytes);
        self.close(&name);
    }

    /// A whole file of given bytes.
    pub fn file_of(&mut self, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
        self.open(&name);
        self.write_bytes(&name, bytes);
        self.close(&name);
    }

    pub fn rename(&mut self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) {
        self.tell_names("rename", &[from.as_ref(), to.as_ref()]);
        self.note_rename(from.as_ref(), to.as_ref());
    }

    pub fn delete(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("delete", &[name.as_ref()]);
        self.contents.remove(name.as_ref());
    }

    pub fn mkdir(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("mkdir", &[name.as_ref()]);
    }

    pub fn fifo(&mut self, name: impl AsRef<OsStr>) {
        self.tell_names("fifo", &[name.as_ref()]);
    }

    pub fn symlink(&mut self, target: impl AsRef<OsStr>, name: impl AsRef<OsStr>) {
        self.tell_names("symlink", &[target.as_ref(), name.as_ref()]);
    }

    /// Starts the compressor of an open file: a second process that has it open too.
    #[track_caller]
    pub fn compressor(&mut self, sandbox: &Sandbox, name: impl AsRef<OsStr>) -> Compressor {
        self.tell_names("compressor", &[name.as_ref()]);
        Compressor { control: Control::accept(sandbox, "compressor"), name: name.as_ref().to_owned() }
    }

    /// Writes `files` files of `bytes` each at `rate` bytes a second in all (0: as fast as it goes), and
    /// returns when the last one is closed.
    pub fn generate(&mut self, files: u64, bytes: u64, rate: u64) {
        let seconds = (files * bytes).checked_div(rate).unwrap_or(files * bytes / 10_000_000);
        let command = format!("generate {files} {bytes} {rate}");
        self.control.tell(&command, PATIENCE + Duration::from_secs(seconds * 2));
        for index in 0..files {
            let name = OsString::from(format!("shop.orders.{index:05}.sql"));
            self.contents.insert(name.clone(), Content::default());
            self.note_generated(&name, bytes);
        }
    }

    /// A line on its stdout.
    pub fn log(&mut self, line: &str) {
        self.tell("log", &[line]);
    }

    /// A line on its stderr.
    pub fn log_error(&mut self, line: &str) {
        self.tell("log-error", &[line]);
    }

    pub fn ignore_sigterm(&mut self) {
        self.tell("on-signal", &["TERM", "ignore"]);
    }

    pub fn ignore_sigint(&mut self) {
        self.tell("on-signal", &["INT", "ignore"]);
    }

    /// From now on SIGTERM makes it write a final `metadata` and exit with 0, as 1.0.1 does.
    pub fn finish_on_sigterm(&mut self) {
        self.tell("on-signal", &["TERM", "finish"]);
    }

    pub fn signal(&self, signal: Signal) {
        self.control.signal(signal);
    }

    /// Ends it with this status, and waits until it is gone. What it wrote can still be asked for.
    #[track_caller]
    pub fn exit(&mut self, status: u8) {
        self.tell("exit", &[&status.to_string()]);
        self.wait_for_end();
    }

    /// The normal end of a dump.
    #[track_caller]
    pub fn finish_and_exit(&mut self) {
        self.finish();
        self.exit(0);
    }

    /// SIGKILL, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_end();
    }

    /// Waits until the process has ended, whoever ends it.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Option<Finished> {
        self.control.wait_for_end();
        self.run.take().map(Run::finish)
    }

    pub fn pid(&self) -> Pid {
        self.control.pid
    }

    /// What the dump must be now: the names and bytes of the regular files that were not deleted.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let text = |name: &OsString| name.to_str().expect("a name in UTF-8").to_owned();
        self.contents.iter().map(|(name, content)| (text(name), content.bytes())).collect()
    }

    /// What one file must be now.
    #[track_caller]
    pub fn content(&self, name: impl AsRef<OsStr>) -> Vec<u8> {
        let name = name.as_ref();
        self.contents.get(name).unwrap_or_else(|| panic!("there is no {}", name.display())).bytes()
    }

    /// Any command, as it stands in a script; see `examples/scripted_dumper`.
    #[track_caller]
    pub fn tell(&mut self, command: &str, words: &[&str]) -> String {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        self.tell_names(command, &words)
    }

    #[track_caller]
    fn tell_names(&mut self, command: &str, names: &[&OsStr]) -> String {
        let mut line = command.to_owned();
        for name in names {
            line.push(' ');
            line.push_str(&wire::encode(name.as_bytes()));
        }
        self.control.tell(&line, PATIENCE)
    }

    fn content_mut(&mut self, name: &OsStr) -> &mut Content {
        self.contents.entry(name.to_owned()).or_default()
    }

    fn note_generated(&mut self, name: &OsStr, bytes: u64) {
        let seed = wire::seed_of(name.as_bytes());
        let content = self.content_mut(name);
        let offset = content.len();
        content.pieces.push(Piece::Generated { seed, offset, bytes });
    }

    fn note_metadata(&mut self, text: String) {
        let content = self.content_mut("metadata.partial".as_ref());
        content.pieces.push(Piece::Literal(text.into_bytes()));
    }

    fn note_rename(&mut self, from: &OsStr, to: &OsStr) {
        if let Some(content) = self.contents.remove(from) {
            self.contents.insert(to.to_owned(), content);
        }
    }
}

impl Drop for FakeDumper {
    fn drop(&mut self) {
        self.control.kill();
    }
}

/// A second process that has a file of the dump open for writing.
pub struct Compressor {
    control: Control,
    name: OsString,
}

impl Compressor {
    pub fn write_bytes(&mut self, dumper: &mut FakeDumper, bytes: impl AsRef<[u8]>) {
        let (name, bytes) = (wire::encode(self.name.as_bytes()), bytes.as_ref());
        self.control.tell(&format!("text {name} {}", wire::encode(bytes)), PATIENCE);
        dumper.content_mut(&self.name).pieces.push(Piece::Literal(bytes.to_vec()));
    }

    pub fn close(&mut self) {
        let name = wire::encode(self.name.as_bytes());
        self.control.tell(&format!("close {name}"), PATIENCE);
    }

    #[track_caller]
    pub fn exit(mut self, status: u8) {
        self.control.tell(&format!("exit {status}"), PATIENCE);
        self.control.wait_for_end();
    }

    pub fn pid(&self) -> Pid {
        self.control.pid
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.control.kill();
    }
}

/// The bytes of a file, kept as the recipe: a dump of gigabytes costs nothing until it is asked for.
#[derive(Default)]
struct Content {
    pieces: Vec<Piece>,
}

enum Piece {
    Generated { seed: u64, offset: u64, bytes: u64 },
    Literal(Vec<u8>),
}

impl Content {
    fn len(&self) -> u64 {
        let length = |piece: &Piece| match piece {
            Piece::Generated { bytes, .. } => *bytes,
            Piece::Literal(bytes) => bytes.len() as u64,
        };
        self.pieces.iter().map(length).sum()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len() as usize);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => all.extend_from_slice(bytes),
                Piece::Generated { seed, offset, bytes } => {
                    let start = all.len();
                    all.resize(start + *bytes as usize, 0);
                    wire::fill(*seed, *offset, &mut all[start..]);
                }
            }
        }
        all
    }
}

/// A process that asked for its commands.
struct Control {
    commands: UnixStream,
    answers: BufReader<UnixStream>,
    pid: Pid,
    /// Names the process for ever, whoever's child it is and whatever becomes of its pid.
    process: OwnedFd,
}

impl Control {
    #[track_caller]
    fn accept(sandbox: &Sandbox, role: &str) -> Self {
        let what = format!("a {role} that connects (nobody started one, or it failed)");
        let (socket, _) = eventually_some(&what, || sandbox.control().accept().ok());
        socket.set_nonblocking(false).expect("a socket that blocks");
        // Its pid as we see it, also when it lives in another PID namespace.
        let pid = rustix::net::sockopt::socket_peercred(&socket).expect("who connected").pid;
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor of who connected");
        let answers = BufReader::new(socket.try_clone().expect("the same socket"));
        let mut control = Control { commands: socket, answers, pid, process };
        let greeting = control.read_line("its greeting", PATIENCE);
        let built_from = wire::seed_of(SOURCES.concat().as_bytes());
        assert_eq!(
            greeting,
            format!("{role} {built_from:016x}"),
            "not the {role} that this test was built with; `cargo build --example scripted_dumper` renews it"
        );
        control
    }

    /// Sends one line, and returns when it has been carried out.
    #[track_caller]
    fn tell(&mut self, line: &str, patience: Duration) -> String {
        writeln!(self.commands, "{line}").unwrap_or_else(|error| panic!("cannot send '{line}': {error}"));
        let answer = self.read_line(line, patience);
        let (verdict, text) = answer.split_once(' ').unwrap_or((&answer, ""));
        let text = wire::decode(text).expect("an answer that can be read");
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(verdict, "ok", "the scripted dumper could not '{line}': {text}");
        text
    }

    #[track_caller]
    fn read_line(&mut self, to: &str, patience: Duration) -> String {
        self.commands.set_read_timeout(Some(patience)).expect("a time limit");
        let mut answer = String::new();
        match self.answers.read_line(&mut answer) {
            Ok(0) => panic!("the scripted dumper is gone, instead of an answer to '{to}'"),
            Ok(_) => answer.trim_end().to_owned(),
            Err(error) => panic!("no answer of the scripted dumper to '{to}': {error}"),
        }
    }

    fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).expect("a signal to a dumper that runs");
    }

    fn kill(&self) {
        // It has ended in most stories.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    #[track_caller]
    fn wait_for_end(&self) {
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        let ready = poll(&mut ended, Some(&patience)).expect("a poll of a process");
        assert_eq!(ready, 1, "the scripted dumper with pid {:?} never ended", self.pid);
    }
}
