//! A server's program: which it is, how old, and who may run it.

use std::fmt;

/// MariaDB or MySQL (or what is like it), and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSoftware {
    /// As it says it: `10.11.14-MariaDB-0+deb12u2`, `8.0.36`.
    pub version: String,
    /// Whether it is MariaDB.
    pub is_mariadb: bool,
    /// As versioned comments have it: 101114, 80036.
    pub number: u32,
}

impl ServerSoftware {
    /// From what `mariadbd --version` or `mysqld --version` prints: `/usr/sbin/mariadbd  Ver 10.11.14-MariaDB-… for …`.
    pub fn of_version(said: &str) -> Option<Self> {
        let version = said.split("Ver ").nth(1)?.split_whitespace().next()?.to_owned();
        let mut numbers = version.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok().filter(|number| *number < 100);
        let number = next()? * 10_000 + next()? * 100 + next()?;
        let is_mariadb = said.contains("MariaDB");
        Some(Self { version, is_mariadb, number })
    }

    /// Why it may pass over things in a dump whose newest versioned comment is this; `None` where it does not.
    ///
    /// MariaDB passes over those of MySQL 5.7 to 9 in any case (its lexer takes 50700 to 99999 for MySQL's own).
    pub fn why_unfit(&self, newest_comment: u32) -> Option<String> {
        if self.is_mariadb && (50_700..=99_999).contains(&newest_comment) {
            return Some(format!("the dump is of a MySQL of {} or later", in_words(newest_comment)));
        }
        (newest_comment > self.number)
            .then(|| format!("the dump is of a server of {} or later, which is newer", in_words(newest_comment)))
    }
}

fn in_words(number: u32) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

impl fmt::Display for ServerSoftware {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_mariadb {
            formatter.write_str("MySQL ")?;
        }
        formatter.write_str(&self.version)
    }
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub user: u32,
    /// Its group's.
    pub group: u32,
}

/// The user of that name in the text of `/etc/passwd`.
pub fn account_in(users: &str, name: &str) -> Option<Account> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let (user, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Account { name: name.to_owned(), user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARIADB: &str =
        "/usr/sbin/mariadbd  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu on x86_64 (Debian 12)";
    const MYSQL: &str = "/usr/sbin/mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)";

    #[test]
    fn versions_are_read() {
        let mariadb = ServerSoftware::of_version(MARIADB).expect("a version");
        assert_eq!((mariadb.is_mariadb, mariadb.number), (true, 101_114));
        assert_eq!(mariadb.to_string(), "10.11.14-MariaDB-0+deb12u2");
        let mysql = ServerSoftware::of_version(MYSQL).expect("a version");
        assert_eq!((mysql.is_mariadb, mysql.number), (false, 80_036));
        assert_eq!(mysql.to_string(), "MySQL 8.0.36");
        for text in ["", "Ver ", "Ver x.y.z", "mysqld 8.0.36", "Ver 8"] {
            assert_eq!(ServerSoftware::of_version(text), None, "{text}");
        }
    }

    #[test]
    fn a_server_that_is_older_or_another_is_unfit() {
        let mariadb = ServerSoftware::of_version(MARIADB).expect("a version");
        let mysql = ServerSoftware::of_version(MYSQL).expect("a version");
        assert!(mariadb.why_unfit(40_101).is_none() && mysql.why_unfit(80_016).is_none());
        assert!(mariadb.why_unfit(80_016).is_some_and(|why| why.contains("MySQL of 8.0.16")));
        assert!(mariadb.why_unfit(110_400).is_some_and(|why| why.contains("11.4.0 or later")));
        assert!(mysql.why_unfit(80_037).is_some());
    }

    #[test]
    fn users_are_found_by_their_names() {
        let users = "root:x:0:0:root:/root:/bin/bash\nmysql:x:102:105:MySQL,,,:/nonexistent:/bin/false\nbad:x:y\n";
        let account = account_in(users, "mysql").expect("an account");
        assert_eq!((account.user, account.group), (102, 105));
        assert_eq!((account_in(users, "mysq"), account_in(users, "bad")), (None, None));
    }
}
