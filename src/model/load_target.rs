//! The server that a dump is to be loaded into, as it answers, and what speaks against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::replication::Dialect;

/// What is asked: one row, in the order of [`LoadTarget::of_row`]. Each name is known to MariaDB 10 and MySQL 5.7 and later.
pub const QUESTION: &str = "SELECT @@hostname, @@port, @@version, @@global.read_only, @@lower_case_table_names, \
     @@net_read_timeout, (SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%')";

/// The tables and views that are there.
pub const TABLES: &str = "SELECT table_schema, table_name FROM information_schema.tables \
     WHERE table_schema NOT IN ('information_schema', 'performance_schema')";

/// What a dump's schema files may depend on: a word that says what, and a value.
pub const ABILITIES: &str = "SELECT 'sql_mode', @@global.sql_mode UNION ALL \
     SELECT 'collation', collation_name FROM information_schema.collations";

/// Modes that mydumper leaves out or adds, whatever the server's are.
const MYDUMPERS_MODES: [&str; 3] = ["STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO"];

/// Of two `sql_mode`s, what only the first has and what only the second has.
pub fn modes_that_differ(dump: &str, server: &str) -> (Vec<String>, Vec<String>) {
    let modes = |text: &str| {
        let modes = text.split(',').map(|mode| mode.trim().to_ascii_uppercase());
        modes.filter(|mode| !mode.is_empty() && !MYDUMPERS_MODES.contains(&mode.as_str())).collect::<BTreeSet<_>>()
    };
    let (dump, server) = (modes(dump), modes(server));
    (dump.difference(&server).cloned().collect(), server.difference(&dump).cloned().collect())
}

/// Whether a server that lists these collations knows this one. MariaDB lists those of UCA 14.0.0 once for all character
/// sets, without their names.
pub fn knows_collation(listed: &BTreeSet<String>, name: &str) -> bool {
    let without_character_set = name.split_once('_').map(|(_, rest)| rest).filter(|rest| rest.starts_with("uca1400"));
    listed.contains(name) || without_character_set.is_some_and(|name| listed.contains(name))
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadTarget {
    host: String,
    port: String,
    version: String,
    is_read_only: bool,
    /// Whether names of tables are compared without their case.
    ignores_case: bool,
    /// Seconds that it waits for the next bytes of a connection.
    pub net_read_timeout: u64,
    /// Replicas that read its binary log now.
    pub replicas: u64,
}

impl LoadTarget {
    /// From the answer to [`QUESTION`].
    pub fn of_row(row: &[Option<String>]) -> Option<Self> {
        let [host, port, version, read_only, case, timeout, replicas] = row else { return None };
        Some(Self {
            host: host.clone().unwrap_or_default(),
            port: port.clone()?,
            version: version.clone()?,
            is_read_only: read_only.as_deref() != Some("0"),
            ignores_case: case.as_deref() != Some("0"),
            net_read_timeout: timeout.as_deref()?.parse().ok()?,
            replicas: replicas.as_deref()?.parse().ok()?,
        })
    }

    /// Those of the dump's tables that are there, sorted.
    pub fn tables_there<'a>(
        &self,
        dump: impl Iterator<Item = (&'a str, &'a str)>,
        there: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<String> {
        let name = |(database, table): (&str, &str)| {
            let name = (database.to_owned(), table.to_owned());
            if self.ignores_case { (name.0.to_lowercase(), name.1.to_lowercase()) } else { name }
        };
        let there: BTreeSet<_> = there.map(name).collect();
        let both: BTreeSet<_> = dump.map(name).filter(|name| there.contains(name)).collect();
        both.into_iter().map(|(database, table)| format!("{database}.{table}")).collect()
    }

    /// Of the dump's tables, pairs that are one to this server, sorted.
    pub fn collisions<'a>(&self, dump: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
        if !self.ignores_case {
            return Vec::new();
        }
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut collisions = Vec::new();
        for name in dump.map(|(database, table)| format!("{database}.{table}")).collect::<BTreeSet<_>>() {
            if let Some(other) = seen.insert(name.to_lowercase(), name.clone()) {
                collisions.push(format!("{other} and {name}"));
            }
        }
        collisions
    }

    /// Whose words it understands.
    pub fn dialect(&self) -> Dialect {
        if self.version.contains("MariaDB") { Dialect::MariaDb } else { Dialect::MySql }
    }

    /// Whether names of tables are compared without their case.
    pub fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// Whether MySQL or MariaDB says that nothing may be written.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }
}

impl fmt::Display for LoadTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = if self.dialect() == Dialect::MariaDb { "" } else { "MySQL " };
        let Self { host, port, version, replicas, .. } = self;
        write!(formatter, "{host}:{port}, {product}{version}")?;
        if self.is_read_only {
            formatter.write_str(", read-only")?;
        }
        match replicas {
            0 => formatter.write_str(", no replicas"),
            1 => formatter.write_str(", 1 replica"),
            more => write!(formatter, ", {more} replicas"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(case: &str) -> LoadTarget {
        let row = ["db1", "3306", "10.11.14-MariaDB", "0", case, "30", "2"].map(|text| Some(text.to_owned()));
        LoadTarget::of_row(&row).expect("a target")
    }

    #[test]
    fn a_server_is_shown_in_a_line() {
        assert_eq!(target("0").to_string(), "db1:3306, 10.11.14-MariaDB, 2 replicas");
        let row = ["db1", "3306", "8.4.3", "1", "0", "30", "0"].map(|text| Some(text.to_owned()));
        assert_eq!(
            LoadTarget::of_row(&row).expect("a target").to_string(),
            "db1:3306, MySQL 8.4.3, read-only, no replicas"
        );
        assert_eq!(LoadTarget::of_row(&row[1..]), None);
    }

    #[test]
    fn tables_that_are_there_are_found_in_the_servers_own_way_of_comparing() {
        let dump = [("shop", "Orders"), ("shop", "lines")];
        let there = [("shop", "orders"), ("crm", "lines")];
        let found = |case| target(case).tables_there(dump.into_iter(), there.into_iter());
        assert_eq!((found("0"), found("1")), (Vec::new(), vec!["shop.orders".to_owned()]));
    }

    #[test]
    fn modes_are_compared_without_those_of_mydumper() {
        let (dump, server) = modes_that_differ(
            "NO_AUTO_VALUE_ON_ZERO,NO_AUTO_CREATE_USER,ANSI_QUOTES",
            "STRICT_TRANS_TABLES,ansi_quotes,NO_ZERO_DATE",
        );
        assert_eq!((dump, server), (vec!["NO_AUTO_CREATE_USER".to_owned()], vec!["NO_ZERO_DATE".to_owned()]));
        assert_eq!(modes_that_differ("", ""), (Vec::new(), Vec::new()));
    }

    #[test]
    fn collations_are_known_by_either_name() {
        let listed = ["utf8mb4_bin", "uca1400_ai_ci"].map(str::to_owned).into();
        assert!(knows_collation(&listed, "utf8mb4_bin") && knows_collation(&listed, "utf8mb4_uca1400_ai_ci"));
        assert!(!knows_collation(&listed, "utf8mb4_0900_ai_ci") && !knows_collation(&listed, "utf8mb4_uca1400_xx"));
    }

    #[test]
    fn names_that_differ_by_their_case_alone_are_found() {
        let dump = [("shop", "lines"), ("shop", "Orders"), ("shop", "orders"), ("shop", "orders")];
        let found = |case| target(case).collisions(dump.into_iter());
        assert_eq!((found("0"), found("1")), (Vec::new(), vec!["shop.Orders and shop.orders".to_owned()]));
    }
}
