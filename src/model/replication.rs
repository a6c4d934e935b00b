//! What makes a server that a dump was loaded into a replica: statements to be read and run by a person.

use super::dump_metadata::{ReplicationSource, SourceRole};

/// Whose words the server understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `CHANGE MASTER TO`, and GTIDs like `0-1-5`.
    MariaDb,
    /// `CHANGE REPLICATION SOURCE TO`, and GTIDs like `3E11FA47-…:1-5`.
    MySql,
}

/// The statements for each source that the dump's `metadata` names, with a comment above. Positions are text of a stranger:
/// one that cannot be a position is left out.
pub fn statements(sources: &[ReplicationSource], target: Option<Dialect>) -> Vec<String> {
    sources.iter().flat_map(|source| of_source(source, target)).collect()
}

fn of_source(source: &ReplicationSource, target: Option<Dialect>) -> Vec<String> {
    let plain = |text: &Option<String>| text.as_deref().map(without_spaces).filter(|text| is_plain(text));
    let (gtid, file) = (plain(&source.gtid), plain(&source.file));
    let of_gtid = gtid.as_deref().map(|gtid| if gtid.contains(':') { Dialect::MySql } else { Dialect::MariaDb });
    let dialect = of_gtid.or(target).unwrap_or(Dialect::MariaDb);
    let host = match (source.role, plain(&source.host)) {
        (SourceRole::Own, _) => "THE-SERVER-THAT-WAS-DUMPED".to_owned(),
        (SourceRole::Replica, host) => host.unwrap_or_else(|| "ITS-SOURCE".to_owned()),
    };
    let what = match source.role {
        SourceRole::Own => "-- as a replica of the server that was dumped:",
        SourceRole::Replica => "-- as another replica of the source of the server that was dumped:",
    };
    let channel = plain(&source.channel).filter(|channel| !channel.is_empty());
    let position = match (&gtid, &file, source.position, dialect) {
        (Some(_), .., Dialect::MariaDb) => "MASTER_USE_GTID = slave_pos".to_owned(),
        (Some(_), .., Dialect::MySql) => "SOURCE_AUTO_POSITION = 1".to_owned(),
        (None, Some(file), Some(position), Dialect::MariaDb) => {
            format!("MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {position}")
        }
        (None, Some(file), Some(position), Dialect::MySql) => {
            format!("SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {position}")
        }
        _ => return Vec::new(),
    };
    let before = gtid.map(|gtid| match dialect {
        Dialect::MariaDb => format!("SET GLOBAL gtid_slave_pos = '{gtid}';"),
        Dialect::MySql => format!("SET GLOBAL gtid_purged = '{gtid}';"),
    });
    let change = match (dialect, channel) {
        (Dialect::MariaDb, None) => format!("CHANGE MASTER TO MASTER_HOST = '{host}', {position};"),
        (Dialect::MariaDb, Some(channel)) => {
            format!("CHANGE MASTER '{channel}' TO MASTER_HOST = '{host}', {position};")
        }
        (Dialect::MySql, None) => format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', {position};"),
        (Dialect::MySql, Some(channel)) => {
            format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', {position} FOR CHANNEL '{channel}';")
        }
    };
    [Some(what.to_owned()), before, Some(change)].into_iter().flatten().collect()
}

/// GTID sets are written in several lines.
fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Whether a text can be a position, a file or a host: nothing that ends a string.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".:,-_/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(role: SourceRole, gtid: Option<&str>) -> ReplicationSource {
        ReplicationSource {
            role,
            channel: None,
            host: Some("db0".into()),
            file: Some("binlog.000007".into()),
            position: Some(4242),
            gtid: gtid.map(str::to_owned),
        }
    }

    #[test]
    fn each_server_gets_its_own_words() {
        let of = |role, gtid, target| statements(&[source(role, gtid)], target).split_off(1).join("\n");
        assert_eq!(
            of(SourceRole::Own, Some("0-1-5"), None),
            "SET GLOBAL gtid_slave_pos = '0-1-5';\n\
             CHANGE MASTER TO MASTER_HOST = 'THE-SERVER-THAT-WAS-DUMPED', MASTER_USE_GTID = slave_pos;"
        );
        assert_eq!(
            of(SourceRole::Replica, Some("3e11fa47-0000:1-5,\n3e11fa48-0000:1"), None),
            "SET GLOBAL gtid_purged = '3e11fa47-0000:1-5,3e11fa48-0000:1';\n\
             CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'db0', SOURCE_AUTO_POSITION = 1;"
        );
        assert_eq!(
            of(SourceRole::Replica, None, Some(Dialect::MySql)),
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'db0', SOURCE_LOG_FILE = 'binlog.000007', SOURCE_LOG_POS = 4242;"
        );
        assert_eq!(
            of(SourceRole::Own, None, None),
            "CHANGE MASTER TO MASTER_HOST = 'THE-SERVER-THAT-WAS-DUMPED', MASTER_LOG_FILE = 'binlog.000007', \
             MASTER_LOG_POS = 4242;"
        );
    }

    #[test]
    fn what_is_no_position_makes_no_statement() {
        let odd = ReplicationSource { file: Some("x'; DROP".into()), ..source(SourceRole::Own, Some("a'b")) };
        assert_eq!(statements(&[odd], None), [] as [String; 0]);
        let odd = ReplicationSource { host: Some("a'b".into()), ..source(SourceRole::Replica, None) };
        assert!(statements(&[odd], None)[1].contains("'ITS-SOURCE'"));
    }
}
