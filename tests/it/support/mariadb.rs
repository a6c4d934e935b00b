//! A private MariaDB, one for all tests of this process, and databases for each test; mydumper
//! and myloader for it: Debian's, or those that MYDUMPER and MYLOADER name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::background::{Server, find_program, free_ports};

/// It takes under 2 s on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

const USER: &str = "dumper";
const PASSWORD: &str = "secret word";

/// The real one, not the scripted one that a sandbox has in its PATH.
pub fn mydumper() -> PathBuf {
    find_program("mydumper", "MYDUMPER")
}

/// Whether it is of 1.x, which wants other arguments; asked of the program itself, once.
pub fn is_mydumper_1() -> bool {
    static IS_1: OnceLock<bool> = OnceLock::new();
    *IS_1.get_or_init(|| {
        let said = Command::new(mydumper()).arg("--version").output().expect("mydumper's version");
        let said = String::from_utf8_lossy(&said.stdout);
        let version = said.split_whitespace().nth(1).map(|word| word.trim_start_matches('v').to_owned());
        version.unwrap_or_else(|| panic!("no version in '{said}'")).starts_with("1.")
    })
}

pub struct MariaDb {
    server: Server,
    socket: PathBuf,
    port: u16,
}

impl MariaDb {
    /// The server of this test process; the first who asks starts it.
    pub fn shared() -> &'static MariaDb {
        static SERVER: OnceLock<MariaDb> = OnceLock::new();
        SERVER.get_or_init(MariaDb::start)
    }

    /// A second server, for what is loaded back: empty, and gone with the test process.
    pub fn second() -> &'static MariaDb {
        static SERVER: OnceLock<MariaDb> = OnceLock::new();
        SERVER.get_or_init(MariaDb::start)
    }

    /// A server of its own on a disk of so many MiB, of which some 33 are taken from the start. Only root can do that.
    pub fn on_a_small_disk(mebibytes: u32) -> MariaDb {
        let mount = "mount -t tmpfs -o size=$0 disk \"$1\" && shift && \
                     mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
                         --user=root --innodb-log-file-size=4M --datadir=\"$1\" && shift && exec \"$@\"";
        let dir = Server::directory("mariadb");
        let data = dir.join("data");
        std::fs::create_dir(&data).expect("a place for the disk");
        let wrapper = ["unshare", "--mount", "sh", "-c", mount, &format!("{mebibytes}m")].map(OsString::from);
        let wrapper = wrapper.into_iter().chain([data.clone().into(), data.clone().into()]);
        let mut small = options(&data, &dir.join("socket")).map(OsString::from).to_vec();
        // Without a binary log, for which a full server waits.
        small.retain(|option| !option.to_string_lossy().starts_with("--log-bin"));
        small.push("--innodb-log-file-size=4M".into());
        let started = MariaDb::start_in(dir, wrapper.collect(), small);
        started.unwrap_or_else(|log| panic!("MariaDB does not start on a small disk:\n{log}"))
    }

    /// A database that has one of everything, among it names that are hard on file names and keys, and a
    /// table `big` of about 260 bytes a row.
    #[track_caller]
    pub fn create_sample(&self, database: &str, rows: u32) {
        self.sql(&format!("CREATE DATABASE `{database}`; USE `{database}`; {}", sample(rows)));
    }

    /// `CHECKSUM TABLE` of every table, by its name.
    #[track_caller]
    pub fn checksums(&self, database: &str) -> BTreeMap<String, String> {
        let tables = self.sql(&format!(
            "SELECT table_name FROM information_schema.tables
             WHERE table_schema = '{database}' AND table_type = 'BASE TABLE'"
        ));
        let checksum = |table: &str| {
            let name = format!("`{database}`.`{}`", table.replace('`', "``"));
            let row = self.sql(&format!("CHECKSUM TABLE {name} EXTENDED"));
            let (_, checksum) = row.trim_end().rsplit_once('\t').expect("a row of two columns");
            (table.to_owned(), checksum.to_owned())
        };
        tables.lines().map(checksum).collect()
    }

    /// The views, triggers, routines and events, each as `kind name`.
    #[track_caller]
    pub fn programs(&self, database: &str) -> Vec<String> {
        let rows = self.sql(&format!(
            "SELECT CONCAT('view ', table_name) FROM information_schema.views
              WHERE table_schema = '{database}'
             UNION SELECT CONCAT('trigger ', trigger_name) FROM information_schema.triggers
              WHERE trigger_schema = '{database}'
             UNION SELECT CONCAT('routine ', routine_name) FROM information_schema.routines
              WHERE routine_schema = '{database}'
             UNION SELECT CONCAT('event ', event_name) FROM information_schema.events
              WHERE event_schema = '{database}'
             ORDER BY 1"
        ));
        rows.lines().map(str::to_owned).collect()
    }

    /// The arguments of mydumper for a whole dump of a database, but for the output directory.
    pub fn mydumper_arguments(&self, database: &str) -> Vec<OsString> {
        let mut arguments = self.connection();
        if is_mydumper_1() {
            // It has two threads at least; and without this it refuses the table that is not transactional.
            arguments.extend(["-t", "2", "--trx-tables=0", "-B", database, "-G", "-E", "-R"].map(OsString::from));
            return arguments;
        }
        // One thread: with more, 0.10.1 deadlocks by itself in about one run of a hundred, all of its threads waiting for
        // a job (seen in 3 of 250 runs without anything beside it).
        arguments.extend(["-t", "1", "-B", database, "-G", "-E", "-R"].map(OsString::from));
        arguments
    }

    /// A command line of myloader for this server.
    pub fn myloader(&self) -> Vec<OsString> {
        let mut line = vec![find_program("myloader", "MYLOADER").into_os_string()];
        line.extend(self.connection());
        line
    }

    /// Loads a dump into a database that need not exist yet.
    #[track_caller]
    pub fn load(&self, dump: &Path, source: &str, database: &str) {
        self.sql(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"));
        let loaded = Command::new(find_program("myloader", "MYLOADER"))
            .args(self.connection())
            .args(["-s", source, "-B", database, "-o", "-d"])
            .arg(dump)
            .stdin(Stdio::null())
            .output()
            .expect("myloader");
        // 1.0.1 stumbles over its own missing file of settings, and that is no matter.
        let said = String::from_utf8_lossy(&loaded.stderr).replace("GLib-CRITICAL", "GLib");
        // Its exit status is 0 whatever happens to a statement.
        let fine = loaded.status.success() && !said.contains("CRITICAL") && !said.contains("rror");
        assert!(fine, "myloader of {}: {}\n{said}", dump.display(), loaded.status);
    }

    /// Runs statements as root, and returns what they select: a row a line, columns between tabs.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.server.assert_running();
        let answer = self.try_sql(statements);
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "{said}\nin: {statements}");
        String::from_utf8(answer.stdout).expect("an answer in UTF-8")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same as another user, whom this makes with these rights on everything.
    #[track_caller]
    pub fn myloader_with_rights(&self, user: &str, rights: &str) -> Vec<OsString> {
        self.sql(&format!("GRANT {rights} ON *.* TO '{user}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'"));
        let mut line = vec![find_program("myloader", "MYLOADER").into_os_string()];
        line.extend(self.connection_of(user));
        line
    }

    /// Options that say how to connect.
    pub fn connection(&self) -> Vec<OsString> {
        self.connection_of(USER)
    }

    fn connection_of(&self, user: &str) -> Vec<OsString> {
        let port = self.port.to_string();
        ["-h", "127.0.0.1", "-P", &port, "-u", user, "-p", PASSWORD].map(OsString::from).to_vec()
    }

    fn try_sql(&self, statements: &str) -> Output {
        let mut client = Command::new(find_program("mariadb", "MARIADB"))
            .args(["--no-defaults", "--user=root", "--batch", "--raw", "--skip-column-names"])
            .arg("--default-character-set=utf8mb4")
            .arg(format!("--socket={}", self.socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client of MariaDB");
        let mut input = client.stdin.take().expect("its input");
        // Fails when the client has ended already, for a reason that it says.
        let _ = input.write_all(statements.as_bytes());
        drop(input);
        client.wait_with_output().expect("its answer")
    }

    fn start() -> MariaDb {
        // Somebody else may get a port between our choice and its use.
        for _ in 0..2 {
            if let Ok(server) = MariaDb::try_start() {
                return server;
            }
        }
        MariaDb::try_start().unwrap_or_else(|log| panic!("MariaDB does not start:\n{log}"))
    }

    fn try_start() -> Result<MariaDb, String> {
        let dir = Server::directory("mariadb");
        let data = dir.join("data");
        install(&data);
        let options = options(&data, &dir.join("socket")).map(OsString::from);
        MariaDb::start_in(dir, Vec::new(), options.to_vec())
    }

    fn start_in(dir: PathBuf, mut line: Vec<OsString>, options: Vec<OsString>) -> Result<MariaDb, String> {
        let socket = dir.join("socket");
        let [port] = free_ports();
        line.push(find_program("mariadbd", "MARIADBD").into_os_string());
        line.extend(options);
        line.push(format!("--port={port}").into());
        line.extend(as_whoever_we_are());
        let mariadb = MariaDb { server: Server::start("MariaDB", dir, &line, ""), socket, port };
        mariadb.wait_until_ready()?;
        mariadb.create_user();
        Ok(mariadb)
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.try_sql("SELECT 1").status.success() {
            if !self.server.is_running() || Instant::now() > deadline {
                return Err(self.server.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Over TCP and with a password, as a real dump connects.
    fn create_user(&self) {
        for host in ["localhost", "127.0.0.1"] {
            let user = format!("'{USER}'@'{host}'");
            self.sql(&format!("GRANT ALL ON *.* TO {user} IDENTIFIED BY '{PASSWORD}'"));
        }
    }
}

fn install(data: &Path) {
    let installed = Command::new(find_program("mariadb-install-db", "MARIADB_INSTALL_DB"))
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .args(as_whoever_we_are())
        .output()
        .expect("mariadb-install-db");
    let said = String::from_utf8_lossy(&installed.stdout);
    assert!(installed.status.success(), "mariadb-install-db failed:\n{said}");
}

/// MariaDB runs as root only when it is told to.
fn as_whoever_we_are() -> Option<OsString> {
    rustix::process::getuid().is_root().then(|| "--user=root".into())
}

fn options(data: &Path, socket: &Path) -> [String; 9] {
    [
        // It must come first.
        "--no-defaults".to_owned(),
        format!("--datadir={}", data.display()),
        format!("--socket={}", socket.display()),
        "--bind-address=127.0.0.1".to_owned(),
        "--log-bin=binlog".to_owned(),
        "--server-id=1".to_owned(),
        // Threads of one myloader wait for each other; on a busy machine longer than the usual 50 s.
        "--innodb-lock-wait-timeout=600".to_owned(),
        "--character-set-server=utf8mb4".to_owned(),
        // It is thrown away after the tests.
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
    ]
}

fn sample(rows: u32) -> String {
    let names = ["two words", "50% off #1", "dotted.name", "größe", "naïve \"quotes\""];
    let odd: String = names
        .iter()
        .map(|name| {
            format!(
                "CREATE TABLE `{name}` (id INT PRIMARY KEY, v VARCHAR(100));
                 INSERT INTO `{name}` SELECT seq, CONCAT('line\\n', seq, ' “{name}”') FROM seq_1_to_50;"
            )
        })
        .collect();
    format!(
        "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, k INT, v TEXT, KEY (k));
         INSERT INTO big (k, v) SELECT seq % 1000, REPEAT(SHA2(seq, 512), 2) FROM seq_1_to_{rows};
         CREATE TABLE small (id INT PRIMARY KEY, at DATETIME(6), price DECIMAL(10,2), raw VARBINARY(20));
         INSERT INTO small VALUES (1, '2026-01-02 03:04:05.678901', -1.50, x'00ff0a0d5c27'),
                                  (2, NULL, NULL, NULL);
         CREATE TABLE empty_one (id INT PRIMARY KEY);
         CREATE TABLE empty_two (id INT PRIMARY KEY, v TEXT) ENGINE = Aria;
         CREATE TABLE changes (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(100));
         {odd}
         CREATE VIEW cheap AS SELECT id, price FROM small WHERE price < 100;
         CREATE TRIGGER small_changed AFTER UPDATE ON small FOR EACH ROW
             INSERT INTO changes (what) VALUES (CONCAT('changed ', NEW.id));
         CREATE FUNCTION doubled(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
         CREATE PROCEDURE forget() DELETE FROM changes;
         CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM changes;"
    )
}
