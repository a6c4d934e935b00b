//! A place of its own for each test: a dump directory, a `bin` directory with the scripted dumper, a clean
//! environment, and the real program run in it. Whatever was started ends with the sandbox.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::fake_dumper;
pub use super::run::{Finished, Run};
use super::run::{Output, Stream, Terminal};

/// How long a condition may take to come true. Generous: a passing test never waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const POLL: Duration = Duration::from_millis(10);
/// How long one run of a program may take, unless the test says otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// Marks every process that a sandbox started, however far down.
const SANDBOX_VARIABLE: &str = "TEST_SANDBOX";

/// Where a bucket is and who asks: all that the sandbox knows of a store.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
}

/// Polls until `condition` holds, and panics with `what` when it never does.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Polls until there is a value, and panics with `what` when there never is.
#[track_caller]
pub fn eventually_some<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < deadline, "this never came true: {what}");
        std::thread::sleep(POLL);
    }
}

pub struct Sandbox {
    root: tempfile::TempDir,
    control: UnixListener,
}

impl Sandbox {
    /// An empty dump directory, and everything around it. Other users may enter, so that a test can run
    /// a program as one.
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("mydumper2s3-test-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a directory for the sandbox");
        for (name, mode) in [("dump", 0o755), ("bin", 0o755), ("home", 0o777)] {
            let dir = root.path().join(name);
            std::fs::create_dir(&dir).expect("a directory in the sandbox");
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).expect("its mode");
        }
        for name in fake_dumper::LINKS {
            // A link, not a copy: a file that was just written cannot always be executed, when another
            // thread forks in between. The process is named after the link.
            std::os::unix::fs::symlink(fake_dumper::program(), root.path().join("bin").join(name))
                .expect("a link to the scripted dumper");
        }
        let socket = root.path().join("control");
        let control = UnixListener::bind(&socket).expect("a socket to drive dumpers through");
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).expect("its mode");
        control.set_nonblocking(true).expect("a socket that does not block");
        Sandbox { root, control }
    }

    pub fn dump_dir(&self) -> PathBuf {
        self.path("dump")
    }

    /// A path in the sandbox, outside the dump directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// The socket on which scripted dumpers of this sandbox ask for their commands.
    pub(super) fn control(&self) -> &UnixListener {
        &self.control
    }

    /// The program under test: `sandbox.mydumper2s3().upload_to(&endpoint).start()`.
    pub fn mydumper2s3(&self) -> Program<'_> {
        self.program(env!("CARGO_BIN_EXE_mydumper2s3"))
    }

    /// Any program, in the same clean environment and with the same care.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Program<'_> {
        Program {
            sandbox: self,
            line: vec![program.as_ref().to_owned()],
            environment: self.environment(),
            time_limit: TIME_LIMIT,
            terminal: false,
            typed: None,
        }
    }

    /// Nothing of the host but the way to its programs: no credentials, no settings, no home.
    fn environment(&self) -> BTreeMap<OsString, OsString> {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let settings: [(&str, OsString); 8] = [
            ("PATH", path),
            ("HOME", self.path("home").into()),
            ("LANG", "C.UTF-8".into()),
            ("TZ", "UTC".into()),
            ("RUST_BACKTRACE", "1".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            (SANDBOX_VARIABLE, self.root.path().into()),
            (fake_dumper::CONTROL_VARIABLE, self.path("control").into()),
        ];
        settings.map(|(name, value)| (name.into(), value)).into()
    }

    /// The names in the dump directory, sorted.
    #[track_caller]
    pub fn local_names(&self) -> Vec<OsString> {
        names_in(&self.dump_dir())
    }

    #[track_caller]
    pub fn assert_local_names<N: AsRef<str>>(&self, expected: impl IntoIterator<Item = N>) {
        let mut expected: Vec<OsString> = expected.into_iter().map(|name| name.as_ref().to_owned().into()).collect();
        expected.sort();
        assert_eq!(self.local_names(), expected, "the files in the dump directory");
    }

    /// The regular files in the dump directory with their bytes.
    #[track_caller]
    pub fn local_files(&self) -> BTreeMap<String, Vec<u8>> {
        files_in(&self.dump_dir())
    }

    /// Puts a file there that no dumper of this story wrote.
    pub fn put_local(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.dump_dir().join(name), bytes).expect("a file in the dump directory");
    }

    /// Every process that this sandbox started, directly or not.
    fn kill_everything(&self) {
        let mut mark = format!("{SANDBOX_VARIABLE}=").into_bytes();
        mark.extend(self.root.path().as_os_str().as_encoded_bytes());
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if let Some(pid) = pid
                && environment.split(|&byte| byte == 0).any(|setting| setting == mark)
            {
                // It may have ended by itself meanwhile.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.kill_everything();
        // A directory in which a test took the rights away, from us too where we are not root.
        let _ = std::fs::set_permissions(self.dump_dir(), std::fs::Permissions::from_mode(0o755));
    }
}

/// The names in a directory, sorted.
#[track_caller]
pub fn names_in(dir: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<OsString> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names
}

/// The regular files directly in a directory, with their bytes; one that vanishes is left out.
#[track_caller]
pub fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let regular = |name: &OsString| std::fs::symlink_metadata(dir.join(name)).is_ok_and(|metadata| metadata.is_file());
    let read = |name: OsString| {
        let bytes = std::fs::read(dir.join(&name)).ok()?;
        Some((String::from_utf8_lossy(&name.into_vec()).into_owned(), bytes))
    };
    names_in(dir).into_iter().filter(regular).filter_map(read).collect()
}

/// A command line that is being put together.
pub struct Program<'a> {
    sandbox: &'a Sandbox,
    line: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    time_limit: Duration,
    terminal: bool,
    typed: Option<String>,
}

impl Program<'_> {
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.line.push(argument.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.line.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, settings: impl IntoIterator<Item = (N, V)>) -> Self {
        settings.into_iter().fold(self, |program, (name, value)| program.env(name, value))
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// How to reach the store: `--endpoint-url`, `--path-style`, and the credentials in the environment.
    pub fn connect_to(self, endpoint: &Endpoint) -> Self {
        self.args(["--endpoint-url", &endpoint.url, "--path-style"])
            .env("AWS_ACCESS_KEY_ID", &endpoint.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key)
    }

    /// The main job, in a hurry: `--dir`, `--bucket`, a short `--interval`, and the connection.
    pub fn upload_to(self, endpoint: &Endpoint) -> Self {
        let dir = self.sandbox.dump_dir();
        self.arg("--dir").arg(dir).args(["--bucket", &endpoint.bucket, "--interval", "0.2"]).connect_to(endpoint)
    }

    /// Puts another program before it: `["setpriv", "--reuid=65534", …]` or `["unshare", "--pid", "--fork"]`.
    pub fn wrapped_in<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        let wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned());
        self.line.splice(0..0, wrapper);
        self
    }

    /// As a user who owns nothing here. Only root can do that.
    pub fn by_nobody(self) -> Self {
        self.wrapped_in(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"])
    }

    /// With a terminal of 100 columns as its stderr.
    pub fn on_a_terminal(mut self) -> Self {
        self.terminal = true;
        self.env("TERM", "xterm")
    }

    /// With somebody at the terminal who has typed this already; so it is the program's stdin, too.
    pub fn typing(mut self, line: &str) -> Self {
        self.typed = Some(format!("{line}\n"));
        self.on_a_terminal()
    }

    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Starts it in the background, in a process group of its own.
    #[track_caller]
    pub fn start(self) -> Run {
        let title = self.line.join(OsStr::new(" ")).display().to_string();
        let terminal = self.terminal.then(Terminal::open);
        let stderr = match &terminal {
            Some(terminal) => Stdio::from(terminal.inside()),
            None => Stdio::piped(),
        };
        let stdin = match (&terminal, &self.typed) {
            (Some(terminal), Some(typed)) => {
                rustix::io::write(&terminal.outside, typed.as_bytes()).expect("a keyboard");
                Stdio::from(terminal.inside())
            }
            _ => Stdio::null(),
        };
        let mut child = self
            .command()
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {title}: {error}"));
        let stdout = child.stdout.take().expect("its stdout").into();
        let stderr = match terminal {
            Some(terminal) => terminal.outside,
            None => child.stderr.take().expect("its stderr").into(),
        };
        let output = Arc::new(Output::default());
        let readers =
            vec![Output::follow(&output, Stream::Stdout, stdout), Output::follow(&output, Stream::Stderr, stderr)];
        Run { title, child, output, readers, deadline: Instant::now() + self.time_limit, time_limit: self.time_limit }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// The command for whoever wants to start it in a way of their own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.line[0]);
        command.args(&self.line[1..]).env_clear().envs(&self.environment);
        command.current_dir(self.sandbox.path("home"));
        command
    }
}

/// Watches how many bytes lie in a directory, and remembers the most. Sizes, not blocks: the figure is
/// then the same on every filesystem.
pub struct PeakLocalBytes {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl PeakLocalBytes {
    pub fn watch(dir: PathBuf) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&peak), Arc::clone(&stop));
        let watcher = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
                let bytes = entries.filter_map(|entry| entry.metadata().ok()).filter(|file| file.is_file());
                seen.fetch_max(bytes.map(|file| file.len()).sum(), Ordering::Relaxed);
                std::thread::sleep(POLL);
            }
        });
        PeakLocalBytes { peak, stop, watcher: Some(watcher) }
    }

    pub fn bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for PeakLocalBytes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}
