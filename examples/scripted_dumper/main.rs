//! A dumper that does what it is told: it stands in for mydumper in the tests and in the demo without a
//! database. Started through a link named `mydumper`, it looks like one in `/proc`.
//!
//! Each line of its script is a command. With `SCRIPTED_DUMPER_CONTROL` it connects to that Unix socket,
//! and answers each line when it is carried out: so a test waits for what has happened, never for time.
//! With `SCRIPTED_DUMPER_SCRIPT` it reads the lines from that file. Of mydumper's arguments the output directory
//! counts, and `--exec-per-thread`: then what is written goes to that program. See `Dumper::obey` for the commands.

mod hand_over;
mod wire;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hand_over::{HandedOver, program_per_file};

/// Says to a second process of ours that it is the compressor of the file with this (encoded) name.
const COMPRESSOR_VARIABLE: &str = "SCRIPTED_DUMPER_COMPRESSES";

/// Whoever drives us compares this with its own sources: cargo does not build examples for `--test it`,
/// and a stale dumper would make puzzling failures.
const SOURCES: [&str; 3] = [include_str!("main.rs"), include_str!("hand_over.rs"), include_str!("wire.rs")];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--version") {
        println!("mydumper 1.0.1, scripted");
        return ExitCode::SUCCESS;
    }
    let result = match std::env::var(COMPRESSOR_VARIABLE) {
        Ok(name) => compressor(&name).and_then(|dumper| drive("compressor", dumper)),
        Err(_) => output_directory().and_then(|dir| drive("dumper", Dumper::new(dir))),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("scripted dumper: {error}");
            ExitCode::from(70)
        }
    }
}

/// A failure in words: for the person who wrote the script, or the test that drives us.
type Outcome<T> = Result<T, String>;

fn output_directory() -> Outcome<PathBuf> {
    let directory = argument(&["-o", "--outputdir"])?;
    directory.map(PathBuf::from).ok_or_else(|| "no output directory: give -o DIR".to_owned())
}

/// The value of an option, given as `--name VALUE` or `--name=VALUE`.
fn argument(names: &[&str]) -> Outcome<Option<OsString>> {
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if names.iter().any(|name| argument == *name) {
            let value = arguments.next();
            return value.map(Some).ok_or_else(|| format!("{} needs a value", argument.display()));
        }
        let value = |name: &&str| argument.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
        if let Some(value) = names.iter().find_map(value) {
            return Ok(Some(OsStr::from_bytes(value).to_owned()));
        }
    }
    Ok(None)
}

/// Takes the commands from the socket or from the script, whichever the environment names.
fn drive(role: &str, dumper: Dumper) -> Outcome<u8> {
    let dumper = Arc::new(Mutex::new(dumper));
    match (std::env::var_os(wire::CONTROL_VARIABLE), std::env::var_os(wire::SCRIPT_VARIABLE)) {
        (Some(socket), _) => obey_socket(role, &dumper, &PathBuf::from(socket)),
        (None, Some(script)) => obey_script(&dumper, &PathBuf::from(script)),
        (None, None) => Err(format!("nothing to do: set {} or {}", wire::CONTROL_VARIABLE, wire::SCRIPT_VARIABLE)),
    }
}

fn obey_socket(role: &str, dumper: &Arc<Mutex<Dumper>>, path: &Path) -> Outcome<u8> {
    let socket = UnixStream::connect(path).map_err(|error| format!("cannot connect to {}: {error}", path.display()))?;
    let mut answers = socket.try_clone().map_err(words)?;
    writeln!(answers, "{role} {:016x}", sources_hash()).map_err(words)?;
    for line in BufReader::new(socket).lines() {
        let line = line.map_err(words)?;
        let done = Dumper::obey(dumper, &line);
        let answer = match &done {
            Ok(Done::GoOn(text)) => format!("ok {}", wire::encode(text.as_bytes())),
            Ok(_) => "ok \\e".to_owned(),
            Err(error) => format!("error {}", wire::encode(error.as_bytes())),
        };
        writeln!(answers, "{answer}").map_err(words)?;
        if let Ok(Done::Exit(status)) = done {
            return Ok(status);
        }
    }
    Err("whoever gave the commands has gone".to_owned())
}

fn obey_script(dumper: &Arc<Mutex<Dumper>>, path: &Path) -> Outcome<u8> {
    let script = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    for (index, line) in script.lines().enumerate() {
        let done = Dumper::obey(dumper, line).map_err(|error| format!("{}:{}: {error}", path.display(), index + 1))?;
        if let Done::Exit(status) = done {
            return Ok(status);
        }
    }
    Ok(0)
}

fn sources_hash() -> u64 {
    wire::seed_of(SOURCES.concat().as_bytes())
}

/// How `metadata` is written: free text by Debian's 0.10.1, in the form of an INI file by 1.x.
#[derive(Clone, Copy, PartialEq)]
enum Generation {
    V0_10,
    V1_0,
}

enum Done {
    GoOn(String),
    Exit(u8),
}

struct Dumper {
    dir: PathBuf,
    generation: Generation,
    /// `metadata.partial`, open for writing from the start of the dump to its end.
    metadata: Option<File>,
    open: BTreeMap<OsString, OpenFile>,
}

struct OpenFile {
    /// What is written to: the file itself, or the pipe to the program that it was handed over to.
    file: File,
    handed: Option<HandedOver>,
    seed: u64,
    offset: u64,
}

impl Dumper {
    fn new(dir: PathBuf) -> Self {
        Dumper { dir, generation: Generation::V1_0, metadata: None, open: BTreeMap::new() }
    }

    /// Carries out one line. The lock is not held while a command waits, so that a signal can end the
    /// dump in the middle of one.
    fn obey(dumper: &Arc<Mutex<Dumper>>, line: &str) -> Outcome<Done> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Done::GoOn(String::new()));
        }
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let command = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let now = || locked(dumper);
        match (command, words.as_slice()) {
            // `metadata.partial`, step by step.
            ("start", [generation]) => now().start(generation),
            ("started", rest) => now().metadata_line("Started", rest),
            ("metadata", rest) => now().metadata_text(&text(rest)?),
            ("finished", rest) => now().metadata_line("Finished", rest),
            ("close-metadata", []) => now().close_metadata(),
            ("rename-metadata", []) => now().rename("metadata.partial", "metadata"),
            ("finish", []) => now().finish(),
            // Files, as mydumper treats them.
            ("open", [name]) => now().open(name, OpenOptions::new().create(true).truncate(true)),
            // As if the program could not be started: mydumper does not look.
            ("open-in-vain", [name]) => now().open_in_vain(name),
            ("reopen", [name]) => now().open(name, OpenOptions::new().append(true)),
            ("write", [name, bytes]) => now().write(name, number(bytes)?),
            ("text", [name, rest @ ..]) => now().write_text(name, &text(rest)?),
            ("close", [name]) => now().close(name),
            ("rename", [from, to]) => now().rename(from, to),
            ("delete", [name]) => now().delete(name),
            ("mkdir", [name]) => now().mkdir(name),
            ("fifo", [name]) => now().fifo(name),
            ("symlink", [target, name]) => now().symlink(target, name),
            ("compressor", [name]) => now().compressor(name),
            // What takes time.
            ("generate", [files, bytes, rate]) => generate(dumper, number(files)?, number(bytes)?, number(rate)?),
            ("sleep", [milliseconds]) => {
                std::thread::sleep(Duration::from_millis(number(milliseconds)?));
                go_on()
            }
            ("hang", []) => loop {
                std::thread::park();
            },
            // What a person sees, signals, and the end.
            ("log", rest) => print(io::stdout(), &text(rest)?),
            ("log-error", rest) => print(io::stderr(), &text(rest)?),
            ("on-signal", [signal, answer]) => on_signal(dumper, signal, answer),
            ("exit", [status]) => Ok(Done::Exit(number(status)? as u8)),
            ("crash", []) => crash(),
            _ => Err(format!("no such command: {line}")),
        }
    }

    fn start(&mut self, generation: &str) -> Outcome<Done> {
        fs::create_dir_all(&self.dir).map_err(words)?;
        let path = self.dir.join("metadata.partial");
        let mut options = OpenOptions::new();
        self.generation = match generation {
            // 0.10.1 begins the file anew, 1.x appends to whatever stands there.
            "0.10" => {
                options.write(true).truncate(true);
                Generation::V0_10
            }
            "1.0" => {
                options.append(true);
                Generation::V1_0
            }
            _ => return Err(format!("no such generation: {generation}")),
        };
        self.metadata = Some(options.create(true).open(&path).map_err(at(&path))?);
        go_on()
    }

    /// The `Started` or `Finished` line, at the given time or now.
    fn metadata_line(&mut self, what: &str, time: &[&str]) -> Outcome<Done> {
        let time = match time {
            [] => jiff::ZonedDateTime::now().strftime("%Y-%m-%d %H:%M:%S").to_string(),
            _ => String::from_utf8_lossy(&text(time)?).into_owned(),
        };
        let comment = match self.generation {
            Generation::V0_10 => "",
            Generation::V1_0 => "# ",
        };
        self.metadata_text(format!("{comment}{what} dump at: {time}\n").as_bytes())
    }

    /// Answers with what it wrote, so that whoever drives us knows the whole text in the end.
    fn metadata_text(&mut self, text: &[u8]) -> Outcome<Done> {
        let file = self.metadata.as_mut().ok_or("metadata.partial is not open")?;
        file.write_all(text).map_err(words)?;
        Ok(Done::GoOn(String::from_utf8_lossy(text).into_owned()))
    }

    fn close_metadata(&mut self) -> Outcome<Done> {
        self.metadata = None;
        go_on()
    }

    fn finish(&mut self) -> Outcome<Done> {
        let written = self.metadata_line("Finished", &[])?;
        self.close_metadata()?;
        self.rename("metadata.partial", "metadata")?;
        Ok(written)
    }

    fn path(&self, name: &str) -> Outcome<(OsString, PathBuf)> {
        let name = OsString::from_vec(wire::decode(name)?);
        let path = self.dir.join(&name);
        Ok((name, path))
    }

    fn open(&mut self, name: &str, options: &mut OpenOptions) -> Outcome<Done> {
        let (name, path) = self.path(name)?;
        let file = options.write(true).open(&path).map_err(at(&path))?;
        let offset = file.metadata().map_err(words)?.len();
        let seed = wire::seed_of(name.as_bytes());
        let (file, handed) = match program_per_file()? {
            Some(program) => HandedOver::begin(&program, file).map(|(pipe, handed)| (pipe, Some(handed)))?,
            None => (file, None),
        };
        self.open.insert(name, OpenFile { file, handed, seed, offset });
        go_on()
    }

    fn open_in_vain(&mut self, name: &str) -> Outcome<Done> {
        let (name, path) = self.path(name)?;
        let (file, handed) = HandedOver::begin(&["false".into()], File::create(&path).map_err(at(&path))?)?;
        let seed = wire::seed_of(name.as_bytes());
        self.open.insert(name, OpenFile { file, handed: Some(handed), seed, offset: 0 });
        go_on()
    }

    fn opened(&mut self, name: &str) -> Outcome<&mut OpenFile> {
        let name = OsString::from_vec(wire::decode(name)?);
        self.open.get_mut(&name).ok_or_else(|| format!("'{}' is not open", name.display()))
    }

    fn write(&mut self, name: &str, bytes: u64) -> Outcome<Done> {
        let open = self.opened(name)?;
        let mut buffer = vec![0; 256 * 1024];
        let end = open.offset + bytes;
        while open.offset < end {
            let part = ((end - open.offset) as usize).min(buffer.len());
            wire::fill(open.seed, open.offset, &mut buffer[..part]);
            open.file.write_all(&buffer[..part]).map_err(words)?;
            open.offset += part as u64;
        }
        go_on()
    }

    fn write_text(&mut self, name: &str, text: &[u8]) -> Outcome<Done> {
        let open = self.opened(name)?;
        open.file.write_all(text).map_err(words)?;
        open.offset += text.len() as u64;
        go_on()
    }

    fn close(&mut self, name: &str) -> Outcome<Done> {
        self.opened(name)?;
        let closed = self.open.remove(&OsString::from_vec(wire::decode(name)?));
        if let Some(OpenFile { file, handed: Some(handed), .. }) = closed {
            drop(file);
            handed.end()?;
        }
        go_on()
    }

    /// A file that is open stays open, under its new name.
    fn rename(&mut self, from: &str, to: &str) -> Outcome<Done> {
        let ((from, from_path), (to, to_path)) = (self.path(from)?, self.path(to)?);
        fs::rename(&from_path, to_path).map_err(at(&from_path))?;
        if let Some(open) = self.open.remove(&from) {
            self.open.insert(to, open);
        }
        go_on()
    }

    fn delete(&mut self, name: &str) -> Outcome<Done> {
        let (_, path) = self.path(name)?;
        fs::remove_file(&path).map_err(at(&path))?;
        go_on()
    }

    fn mkdir(&mut self, name: &str) -> Outcome<Done> {
        let (_, path) = self.path(name)?;
        fs::create_dir(&path).map_err(at(&path))?;
        go_on()
    }

    fn fifo(&mut self, name: &str) -> Outcome<Done> {
        let (_, path) = self.path(name)?;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o644)).map_err(at(&path))?;
        go_on()
    }

    fn symlink(&mut self, target: &str, name: &str) -> Outcome<Done> {
        let (_, path) = self.path(name)?;
        let target = OsString::from_vec(wire::decode(target)?);
        std::os::unix::fs::symlink(target, &path).map_err(at(&path))?;
        go_on()
    }

    /// Starts a second process that has this open file too, as 1.x does with `zstd`: it inherits the
    /// descriptor, and takes its commands from a connection of its own.
    fn compressor(&mut self, name: &str) -> Outcome<Done> {
        let inherited = self.opened(name)?.file.try_clone().map_err(words)?;
        Command::new("zstd")
            .env(COMPRESSOR_VARIABLE, name)
            .stdin(Stdio::null())
            .stdout(inherited)
            .spawn()
            .map_err(|error| format!("cannot start 'zstd', a link to this program: {error}"))?;
        go_on()
    }
}

/// The second writer: it has one file, which it found as its standard output.
fn compressor(name: &str) -> Outcome<Dumper> {
    let stdout = io::stdout();
    let file = File::from(stdout.as_fd().try_clone_to_owned().map_err(words)?);
    // Else the file would stay open for writing until this process ends, whatever it is told to close.
    let null = OpenOptions::new().write(true).open("/dev/null").map_err(words)?;
    rustix::stdio::dup2_stdout(null).map_err(words)?;
    let offset = file.metadata().map_err(words)?.len();
    let name = OsString::from_vec(wire::decode(name)?);
    let seed = wire::seed_of(name.as_bytes());
    let mut dumper = Dumper::new(PathBuf::from("/nowhere"));
    dumper.open.insert(name, OpenFile { file, handed: None, seed, offset });
    Ok(dumper)
}

/// Writes `files` files of `bytes` each, one after the other, at `rate` bytes a second in all; 0 is as
/// fast as it goes.
fn generate(dumper: &Mutex<Dumper>, files: u64, bytes: u64, rate: u64) -> Outcome<Done> {
    const PIECE: u64 = 64 * 1024;
    let begun = Instant::now();
    let mut written = 0;
    for index in 0..files {
        let name = format!("shop.orders.{index:05}.sql");
        locked(dumper).open(&name, OpenOptions::new().create(true).truncate(true))?;
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(PIECE);
            locked(dumper).write(&name, piece)?;
            (left, written) = (left - piece, written + piece);
            if rate > 0 {
                let due = Duration::from_secs_f64(written as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
        locked(dumper).close(&name)?;
    }
    go_on()
}

/// From now on this signal is ignored, or makes us do what 1.0.1 does on SIGTERM: write a `metadata` that
/// looks whole, and exit with status 0 in the middle of the dump.
fn on_signal(dumper: &Arc<Mutex<Dumper>>, signal: &str, answer: &str) -> Outcome<Done> {
    use tokio::signal::unix::{SignalKind, signal as listen};
    let kind = match signal {
        "TERM" => SignalKind::terminate(),
        "INT" => SignalKind::interrupt(),
        _ => return Err(format!("no such signal: {signal}")),
    };
    let finishes = match answer {
        "finish" => true,
        "ignore" => false,
        _ => return Err(format!("no such answer to a signal: {answer}")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(words)?;
    // Here and not in the thread, so that the answer to the command says that it holds.
    let mut signals = runtime.block_on(async { listen(kind) }).map_err(words)?;
    let dumper = Arc::clone(dumper);
    std::thread::spawn(move || {
        while runtime.block_on(signals.recv()).is_some() {
            if finishes {
                let mut dumper = locked(&dumper);
                dumper.open.clear();
                let finished = dumper.finish();
                std::process::exit(if finished.is_ok() { 0 } else { 70 });
            }
        }
    });
    go_on()
}

fn crash() -> Outcome<Done> {
    let ourselves = rustix::process::getpid();
    rustix::process::kill_process(ourselves, rustix::process::Signal::KILL).map_err(words)?;
    go_on()
}

fn print(mut to: impl Write, text: &[u8]) -> Outcome<Done> {
    to.write_all(text).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush()).map_err(words)?;
    go_on()
}

fn go_on() -> Outcome<Done> {
    Ok(Done::GoOn(String::new()))
}

fn locked(dumper: &Mutex<Dumper>) -> MutexGuard<'_, Dumper> {
    dumper.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rest of a line, its words joined as they were.
fn text(encoded: &[&str]) -> Outcome<Vec<u8>> {
    wire::decode(&encoded.join(" "))
}

fn number(word: &str) -> Outcome<u64> {
    word.parse().map_err(|_| format!("'{word}' is not a number"))
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn at<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}
