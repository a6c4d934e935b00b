//! A MariaDB or MySQL server of our own: made in a private directory, reached by its socket alone, and gone when we are.
//!
//! It reads no option file of the host's, replicates nothing, runs no events, loads no plugin, and keeps to little memory.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tracing::{debug, info};

use crate::aside::aside;
use crate::hint::hinted;
use crate::model::server_software::{Account, ServerSoftware, account_in};
use crate::platform::Exit;
use crate::program::{AfterUs, Launch, OnLine, Program, give_environment};
use crate::scratch_dir::{Purpose, ScratchDir};
use crate::sql_client::{Connection, SqlClient};

/// The servers that are looked for, in this order.
const SERVERS: [&str; 2] = ["mariadbd", "mysqld"];
/// Where they are beside PATH, which often lacks these places.
const PLACES: [&str; 5] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/usr/local/mariadb/bin"];
/// What makes MariaDB's own tables, by its names of several ages; and where it is, seen from the server's directory.
const INSTALLERS: [&str; 2] = ["mariadb-install-db", "mysql_install_db"];
const INSTALLER_PLACES: [&str; 3] = ["../bin", "../scripts", "."];
/// What its directory has.
const DIRECTORIES: [&str; 5] = ["data", "run", "tmp", "files", "plugins"];
/// Who runs it where we are root. First who owns nothing: `mysql` may own the databases of this host, and a dump is text of
/// others.
const ACCOUNTS: [&str; 3] = ["nobody", "mysql", "mariadb"];
/// How long it may take to say its version, and to be ready.
const VERSION_TIMEOUT: Duration = Duration::from_secs(15);
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two looks whether it is ready.
const LOOK: Duration = Duration::from_millis(50);
/// The longest path of a socket, in bytes (`sun_path` of unix(7), with its end).
const SOCKET_PATH_MAX: usize = 107;
/// Lines of its log that are kept, and characters of each.
const KEPT_LINES: usize = 12;
const KEPT_LENGTH: usize = 300;

/// A server's program.
#[derive(Debug, Clone)]
pub struct ServerProgram {
    path: PathBuf,
    /// What it says of itself.
    pub software: ServerSoftware,
}

impl ServerProgram {
    /// That one, or the first that is found.
    pub async fn find(given: Option<&Path>) -> anyhow::Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => aside(find_server).await.ok_or_else(|| {
                let error = anyhow!("there is neither 'mariadbd' nor 'mysqld' in PATH or where servers usually are");
                hinted(error, "install one (no service needs to run), or name it with --server FILE")
            })?,
        };
        let failed = || format!("cannot ask '{}' for its version", path.display());
        let mut command = tokio::process::Command::new(&path);
        give_environment(command.as_std_mut(), false);
        command.args(["--no-defaults", "--version"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await;
        let output = output.map_err(|_| anyhow!("it did not answer")).and_then(|output| Ok(output?));
        let said = output.with_context(failed)?.stdout;
        let software = ServerSoftware::of_version(&String::from_utf8_lossy(&said));
        let software = software.ok_or_else(|| anyhow!("its answer was not understood")).with_context(failed)?;
        Ok(Self { path, software })
    }
}

fn find_server() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from)).collect();
    SERVERS.iter().find_map(|name| places.iter().map(|place| place.join(name)).find(|file| file.is_file()))
}

/// What makes a MariaDB's own tables: beside the server, or in PATH.
fn find_installer(server: &Path) -> Option<PathBuf> {
    let server = server.canonicalize().unwrap_or_else(|_| server.to_owned());
    let beside = INSTALLER_PLACES.iter().filter_map(|place| Some(server.parent()?.join(place)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = beside.chain(std::env::split_paths(&path)).collect();
    places.iter().flat_map(|place| INSTALLERS.map(|name| place.join(name))).find(|file| file.is_file())
}

/// A server, from its directory to its end.
pub struct PrivateServer {
    program: ServerProgram,
    root: ScratchDir,
    /// Who runs it, where we are root.
    account: Option<Account>,
    running: Option<Program>,
    last_words: LastWords,
}

impl PrivateServer {
    /// Makes the directory. Blocks.
    pub fn place(program: ServerProgram) -> anyhow::Result<Self> {
        let place = std::env::temp_dir();
        let root = ScratchDir::make(Purpose::Drill, &DIRECTORIES)?;
        let account = rustix::process::geteuid().is_root().then(account).transpose()?;
        let server = Self { program, root, account, running: None, last_words: LastWords::default() };
        server.lay_out().with_context(|| format!("cannot make the server's directories in '{}'", place.display()))?;
        let length = server.socket().as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let error =
                anyhow!("the path of the server's socket would have {length} bytes, and {SOCKET_PATH_MAX} can be");
            return Err(hinted(error, "set TMPDIR to a directory with a shorter path"));
        }
        Ok(server)
    }

    fn lay_out(&self) -> std::io::Result<()> {
        let others_may_pass = if self.account.is_some() { 0o711 } else { 0o700 };
        std::fs::set_permissions(self.root(), std::fs::Permissions::from_mode(others_may_pass))?;
        for name in DIRECTORIES {
            let path = self.root().join(name);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
            if let Some(account) = &self.account {
                std::os::unix::fs::chown(&path, Some(account.user), Some(account.group))?;
            }
        }
        std::fs::write(self.no_options(), "")
    }

    /// All of it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.root().join("run/socket")
    }

    /// An empty option file, for programs that would read the host's.
    pub fn no_options(&self) -> PathBuf {
        self.root().join("none.cnf")
    }

    /// Bytes that may still be written beside it.
    pub async fn free_space(&self) -> anyhow::Result<u64> {
        let path = self.root().to_owned();
        let filesystem = aside(move || rustix::fs::statvfs(&path)).await;
        let filesystem = filesystem.with_context(|| format!("cannot ask the disk of '{}'", self.root().display()))?;
        Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
    }

    /// What its program says of itself.
    pub fn software(&self) -> &ServerSoftware {
        &self.program.software
    }

    /// A client for it, where PATH has one.
    pub fn client(&self) -> Option<SqlClient> {
        let socket = self.socket().to_string_lossy().into_owned();
        let options =
            vec![("user", Some("root".to_owned())), ("socket", Some(socket)), ("protocol", Some("socket".to_owned()))];
        SqlClient::find(Connection { options, is_alone: true, ..Connection::default() })
    }

    /// Makes its own tables, starts it, and waits until it answers. Whatever becomes of this: [`PrivateServer::end`] leaves
    /// nothing behind.
    pub async fn start(&mut self, client: &SqlClient) -> anyhow::Result<()> {
        let began = Instant::now();
        let line = self.initialisation().await?;
        let exit = self.launch(&line)?.wait().await;
        if exit != Exit::Status(0) {
            let error = self.last_words.explain(&format!("'{}' failed", line[0].to_string_lossy()));
            return Err(match &self.account {
                Some(account) => {
                    let (name, place) = (&account.name, std::env::temp_dir());
                    hinted(
                        error,
                        format!("it runs as '{name}', who must be able to enter '{}' (TMPDIR)", place.display()),
                    )
                }
                None => error,
            });
        }
        let line = self.line();
        let program = self.launch(&line)?;
        self.wait_until_ready(client, &program).await?;
        info!("started {} {}, its socket in {}", line[0].to_string_lossy(), self.software(), self.root().display());
        debug!("it took {:.1} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    fn launch(&mut self, line: &[OsString]) -> anyhow::Result<Program> {
        self.last_words = LastWords::default();
        let on_line = self.last_words.listener();
        let temporary = self.root().join("tmp");
        let launch = Launch {
            line,
            keep_aws_environment: false,
            on_line: Some(on_line),
            temporary: Some(&temporary),
            stdout: None,
            after_us: AfterUs::Dies,
        };
        let program = launch.start()?.watch(|| ());
        self.root.watch(program.pid());
        self.running = Some(program.clone());
        Ok(program)
    }

    async fn wait_until_ready(&self, client: &SqlClient, program: &Program) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let answer = client.ask("SELECT 1").await;
            if answer.is_ok() {
                return Ok(());
            }
            if program.exit().is_some() {
                return Err(self.last_words.explain("the private server ended at its start"));
            }
            if Instant::now() > deadline {
                let why = format!("the private server was not ready within {} s", START_TIMEOUT.as_secs());
                return Err(self.last_words.explain(&why));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How it ended, if it did so by itself.
    pub fn why_ended(&self) -> Option<anyhow::Error> {
        self.running.as_ref()?.exit()?;
        Some(self.last_words.explain("the private server ended by itself"))
    }

    /// Ends it and removes all of it.
    pub async fn end(self) -> anyhow::Result<()> {
        if let Some(program) = &self.running {
            // Nothing of it is to last.
            program.kill();
            program.wait().await;
        }
        aside(move || self.root.remove()).await
    }

    async fn initialisation(&self) -> anyhow::Result<Vec<OsString>> {
        let mut line: Vec<OsString> = Vec::new();
        if self.software().is_mariadb {
            let server = self.program.path.clone();
            let installer = aside(move || find_installer(&server)).await.ok_or_else(|| {
                let error = anyhow!("there is no 'mariadb-install-db' beside the server or in PATH");
                hinted(error, "install it with the server's package")
            })?;
            line.push(installer.into());
            line.extend(
                ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"].map(Into::into),
            );
        } else {
            line.push(self.program.path.clone().into());
            line.extend(["--no-defaults", "--initialize-insecure"].map(Into::into));
        }
        line.push(self.option("datadir", "data"));
        line.push(self.option("tmpdir", "tmp"));
        line.extend(self.account.as_ref().map(|account| OsString::from(format!("--user={}", account.name))));
        Ok(line)
    }

    fn line(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![self.program.path.clone().into()];
        // It must come first.
        line.push("--no-defaults".into());
        line.extend(OPTIONS.map(OsString::from));
        for (name, place) in [
            ("datadir", "data"),
            ("tmpdir", "tmp"),
            ("socket", "run/socket"),
            ("pid-file", "run/pid"),
            ("secure-file-priv", "files"),
            ("plugin-dir", "plugins"),
        ] {
            line.push(self.option(name, place));
        }
        line.extend(self.account.as_ref().map(|account| OsString::from(format!("--user={}", account.name))));
        line
    }

    fn option(&self, name: &str, place: &str) -> OsString {
        let mut option = OsString::from(format!("--{name}="));
        option.push(self.root().join(place));
        option
    }
}

/// What it is told, beside places. `loose` where only some of the servers know it.
const OPTIONS: [&str; 28] = [
    "--skip-networking",
    "--loose-mysqlx=OFF",
    "--event-scheduler=OFF",
    "--loose-skip-slave-start",
    "--loose-skip-replica-start",
    "--skip-log-bin",
    // What leads out of its directory: DATA DIRECTORY is passed over without these (MySQL refuses it by itself).
    "--loose-skip-symbolic-links",
    // What leads to other servers.
    "--loose-skip-federated",
    "--loose-skip-connect",
    "--loose-skip-spider",
    // Little memory: the host has other things to do.
    "--innodb-buffer-pool-size=128M",
    "--key-buffer-size=8M",
    "--loose-aria-pagecache-buffer-size=16M",
    "--performance-schema=OFF",
    "--max-connections=100",
    "--table-open-cache=400",
    "--loose-innodb-log-file-size=128M",
    // Nothing of it is to last.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    // As the server let it in that was dumped; but never in another engine.
    "--sql-mode=NO_ENGINE_SUBSTITUTION",
    "--loose-log-bin-trust-function-creators=ON",
    "--loose-local-infile=ON",
    "--max-allowed-packet=1G",
    // A store that is away is waited for while a statement waits for its rows.
    "--net-read-timeout=86400",
    "--net-write-timeout=86400",
    "--wait-timeout=86400",
    "--loose-innodb-lock-wait-timeout=3600",
    "--loose-lock-wait-timeout=3600",
];

/// A user of the system that may run the server.
fn account() -> anyhow::Result<Account> {
    let users = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    ACCOUNTS.iter().find_map(|name| account_in(&users, name)).ok_or_else(|| {
        let error =
            anyhow!("a server does not run as root, and there is no user {} in /etc/passwd", ACCOUNTS.join(" or "));
        hinted(error, "run this as another user, or make one of these")
    })
}

/// The last lines of what a program says.
#[derive(Debug, Clone, Default)]
struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    fn listener(&self) -> OnLine {
        let words = Arc::clone(&self.0);
        Arc::new(move |line, _| {
            let line = String::from_utf8_lossy(line).chars().take(KEPT_LENGTH).collect::<String>();
            debug!("the private server: {line}");
            let mut words = words.lock();
            if words.len() == KEPT_LINES {
                words.pop_front();
            }
            words.push_back(line);
        })
    }

    fn explain(&self, what: &str) -> anyhow::Error {
        let words = self.0.lock();
        let words: Vec<String> = words.iter().map(|line| line.escape_debug().to_string()).collect();
        match words.len() {
            0 => anyhow!("{what}, and said nothing"),
            _ => anyhow!("{what}; its last words:\n  {}", words.join("\n  ")),
        }
    }
}
