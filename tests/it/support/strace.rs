//! The system calls of a program, as `strace` tells them: what they are and what they return, not how long they take.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;

use super::background::find_program;
use super::sandbox::Sandbox;

/// Where the calls of one run are written.
pub struct Trace(PathBuf);

/// One call that has returned.
#[derive(Debug)]
pub struct Call {
    /// The thread that made it. The first one of all is the program's first, which serves the network and the signals.
    pub thread: String,
    pub name: String,
    /// Its arguments as they are printed; a descriptor has its path behind it: `7</tmp/dump/shop.t.sql>, …`.
    pub arguments: String,
    /// What came back; nothing for what never returns.
    pub result: Option<i64>,
}

impl Trace {
    pub fn new(sandbox: &Sandbox) -> Self {
        Trace(sandbox.path("strace"))
    }

    /// What goes before the program: `stage.upload().wrapped_in(trace.wrapper())`.
    pub fn wrapper(&self) -> Vec<OsString> {
        // All threads, with the paths of descriptors, without the bytes that are read and written.
        let options = ["-f", "-y", "-s", "0", "-e", "signal=none", "-o"];
        let mut line = vec![find_program("strace", "STRACE").into_os_string()];
        line.extend(options.map(OsString::from));
        line.extend([self.0.clone().into(), "--".into()]);
        line
    }

    /// The calls so far, in the order of their return. strace writes each line at once.
    #[track_caller]
    pub fn calls(&self) -> Vec<Call> {
        let text = std::fs::read(&self.0).expect("what strace wrote");
        let text = String::from_utf8_lossy(&text);
        let mut begun = HashMap::new();
        // A line that is being written has no end yet.
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.filter_map(|line| read(line, &mut begun)).collect()
    }
}

/// What goes before a program whose calls of that name on the dump directory or on the dump's lead do not come back: as on
/// a network's filesystem whose server is away. The program stays our child.
pub fn hanging(call: &str, sandbox: &Sandbox) -> Vec<OsString> {
    const TEN_MINUTES: &str = "600000000";
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:delay_enter={TEN_MINUTES}"));
    let mut line = vec![find_program("strace", "STRACE").into_os_string()];
    line.extend(["-D", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(OsString::from));
    for path in [sandbox.dump_dir(), sandbox.dump_dir().join("metadata.partial")] {
        line.extend(["-P".into(), path.into()]);
    }
    line.push("--".into());
    line
}

/// A line is `PID name(arguments) = result`. Where another thread comes in between there are two: the first ends in
/// `<unfinished ...>`, and the second goes on after `<... name resumed>`.
fn read<'a>(line: &'a str, begun: &mut HashMap<&'a str, &'a str>) -> Option<Call> {
    let (thread, line) = line.split_once(' ')?;
    let line = line.trim_start();
    if let Some(beginning) = line.strip_suffix("<unfinished ...>") {
        begun.insert(thread, beginning);
        return None;
    }
    let whole = match line.strip_prefix("<... ").and_then(|line| line.split_once(" resumed>")) {
        Some((_, end)) => format!("{}{end}", begun.remove(thread)?),
        None => line.to_owned(),
    };
    let (call, result) = whole.rsplit_once(" = ")?;
    let (name, arguments) = call.split_once('(')?;
    let digits = result.split(|c: char| !c.is_ascii_digit() && c != '-').next()?;
    Some(Call {
        thread: thread.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        result: digits.parse().ok(),
    })
}

/// How many calls of each name there are.
pub fn by_name<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.name.as_str()).or_default() += 1;
    }
    counts
}
