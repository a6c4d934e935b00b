//! The server that a dump is to be loaded into, as it answers, and what speaks against it.

use std::collections::BTreeSet;
use std::fmt;

use super::replication::Dialect;

/// What is asked: one row, in the order of [`LoadTarget::of_row`]. Each name is known to MariaDB 10 and MySQL 5.7 and later.
pub const QUESTION: &str = "SELECT @@hostname, @@port, @@version, @@global.read_only, @@lower_case_table_names, \
     @@net_read_timeout, (SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%')";

/// The tables and views that are there.
pub const TABLES: &str = "SELECT table_schema, table_name FROM information_schema.tables \
     WHERE table_schema NOT IN ('information_schema', 'performance_schema')";

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
}
