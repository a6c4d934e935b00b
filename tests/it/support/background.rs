//! Real servers for as long as this test process lives, and no longer: however it ends, the server is
//! killed and its directory removed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Starts the server, says its pid, and waits for the end of its input, which is the end of the test
/// process. A parent-death signal would not do: it comes when the *thread* that started the child ends,
/// and each test has a thread of its own. Nor does a static's destructor: it never runs.
const WATCHER: &str = r#"
    "$@" </dev/null >"$DIRECTORY/log" 2>&1 &
    server=$!
    echo $server
    read -r nothing
    kill -KILL $server
    wait $server
    rm -rf "$DIRECTORY" $LITTER
"#;

pub struct Server {
    name: &'static str,
    dir: PathBuf,
    pid: String,
    /// Holds the watcher's input open.
    _watcher: Child,
}

impl Server {
    /// A directory of the server's own, short enough for the path of a socket in it.
    pub fn directory(name: &str) -> PathBuf {
        tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in("/tmp")
            .expect("a directory for a server")
            .keep()
    }

    /// Starts `line`, which keeps all it has in `dir`, but for what the shell patterns of `litter` name.
    pub fn start(name: &'static str, dir: PathBuf, line: &[OsString], litter: &str) -> Self {
        let mut watcher = Command::new("sh")
            .args(["-c", WATCHER, "sh"])
            .args(line)
            .env("DIRECTORY", &dir)
            .env("TMPDIR", &dir)
            .env("LITTER", litter)
            // Ctrl-C at the terminal ends the tests, and so comes here too, but in this order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut pid = String::new();
        let says = watcher.stdout.take().expect("its output");
        BufReader::new(says).read_line(&mut pid).expect("the server's pid");
        Server { name, dir, pid: pid.trim().to_owned(), _watcher: watcher }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn is_running(&self) -> bool {
        // The shell has not waited for it, so an ended server is a zombie, which has no command line.
        let line = Path::new("/proc").join(&self.pid).join("cmdline");
        std::fs::read(line).is_ok_and(|line| !line.is_empty())
    }

    /// Panics with the server's log when it has ended.
    #[track_caller]
    pub fn assert_running(&self) {
        assert!(self.is_running(), "{} has ended:\n{}", self.name, self.log());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

/// Ports that nobody uses, as far as one can know: chosen by the kernel, all held at once so that they
/// differ, and let go.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held: [TcpListener; COUNT] = std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    held.map(|listener| listener.local_addr().expect("its address").port())
}

/// A program from the variable that names it, or from PATH. Missing it is a failure, not a reason to skip.
pub fn find_program(name: &str, variable: &str) -> PathBuf {
    if let Some(program) = std::env::var_os(variable) {
        let program = PathBuf::from(program);
        assert!(program.is_file(), "{variable} names {}, which is no file", program.display());
        return program;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian keeps servers, and where `scripts/test.sh` installs what is no Debian package.
    let more = ["/usr/sbin", concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/seaweedfs/bin")];
    let dirs = std::env::split_paths(&path).chain(more.map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|program| program.is_file()).unwrap_or_else(|| {
        panic!(
            "the program '{name}' is missing: it is not in PATH, and {variable} does not name it. \
             `scripts/test.sh` installs it and runs the tests"
        )
    })
}
