use proptest::prelude::*;

use super::*;

/// Written by Debian's 0.10.1 on a MariaDB 10.11 with two named replication connections.
const FREE_TEXT: &str = "Started dump at: 2026-11-22 09:18:32
SHOW MASTER STATUS:
\tLog: binlog.000001
\tPos: 10428354
\tGTID:0-1-24

SHOW SLAVE STATUS:
\tConnection name: c2
\tHost: db-b
\tLog: x.000001
\tPos: 4
\tGTID:0-1-24

SHOW SLAVE STATUS:
\tConnection name: 
\tHost: ::1
\tLog: bin.000007
\tPos: 1234
\tGTID:0-1-24

Finished dump at: 2026-11-22 09:18:34
";

/// The form of 1.x on MySQL, a replica dumped with `--replica-data`, with a masked name, a sequence and a checksum.
const INI: &str = r#"# Started dump at: 2026-11-22 09:08:21
[config]
quote-character = BACKTICK

[myloader_session_variables]
SQL_MODE='NO_AUTO_VALUE_ON_ZERO,' /*!40101

[source]
# Channel_Name = '' # It can be use to setup replication FOR CHANNEL
#SOURCE_HOST = "127.0.0.1"
#SOURCE_LOG_FILE = "own-bin.000003"
#SOURCE_LOG_POS = 2999911
SOURCE_AUTO_POSITION = 1

[replication.north.eu]
Executed_Gtid_Set = "57846b4f:1-13,57a1fa5f:1-5"
SOURCE_LOG_FILE = "primary-bin.000003"
SOURCE_LOG_POS = 2063
# Source_Host = 'db-north'
# Source_Log_File = 'primary-bin.000009'
# Read_Source_Log_Pos = 9999
# Exec_Source_Log_Pos = 2063

[`shop`.`mydumper_0`]
real_table_name=a.b [x] #1 `` ü
rows = 1

[`shop`.`orders`]
real_table_name=orders
rows = 120000
schema_checksum = acf496de

[`shop`.`s`]
real_table_name=s
rows = 0
is_sequence = 1

[`shop`]
schema_checksum = 95DC8DDE
[config]
max-statement-size = 1000
# Finished dump at: 2026-11-22 09:09:01
"#;

fn parse(text: &str) -> DumpMetadata {
    DumpMetadata::parse(text.as_bytes())
}

/// Role, channel, host, file, position, GTID set; an empty text is `None`.
type SourceRow<'a> = (SourceRole, &'a str, &'a str, &'a str, Option<u64>, &'a str);

fn rows(metadata: &DumpMetadata) -> Vec<SourceRow<'_>> {
    let text = |value: &'_ Option<String>| value.as_deref().unwrap_or_default().to_owned().leak() as &str;
    let row =
        |s: &ReplicationSource| (s.role, text(&s.channel), text(&s.host), text(&s.file), s.position, text(&s.gtid));
    metadata.sources.iter().map(row).collect()
}

const OWN: SourceRole = SourceRole::Own;
const REPLICA: SourceRole = SourceRole::Replica;

#[test]
fn free_text_gives_times_and_every_connection() {
    let metadata = parse(FREE_TEXT);
    assert_eq!(metadata.started.as_deref(), Some("2026-11-22 09:18:32"));
    assert_eq!(metadata.finished.as_deref(), Some("2026-11-22 09:18:34"));
    assert_eq!(metadata.generation, Some(Generation::FreeText));
    assert_eq!(metadata.tables, []);
    let expected = [
        (OWN, "", "", "binlog.000001", Some(10_428_354), "0-1-24"),
        (REPLICA, "c2", "db-b", "x.000001", Some(4), "0-1-24"),
        (REPLICA, "", "::1", "bin.000007", Some(1234), "0-1-24"),
    ];
    assert_eq!(rows(&metadata), expected);
}

#[test]
fn ini_gives_sections_and_coordinates_with_or_without_a_comment_sign() {
    let metadata = parse(INI);
    assert_eq!(metadata.started.as_deref(), Some("2026-11-22 09:08:21"));
    assert_eq!(metadata.finished.as_deref(), Some("2026-11-22 09:09:01"));
    assert_eq!(metadata.generation, Some(Generation::Ini));
    let expected = [
        (OWN, "", "127.0.0.1", "own-bin.000003", Some(2_999_911), ""),
        (REPLICA, "north.eu", "db-north", "primary-bin.000003", Some(2063), "57846b4f:1-13,57a1fa5f:1-5"),
    ];
    assert_eq!(rows(&metadata), expected);

    let [odd, orders, sequence] = metadata.tables.as_slice() else { panic!("{:?}", metadata.tables) };
    assert_eq!((odd.file_table.as_str(), odd.table.as_str()), ("mydumper_0", "a.b [x] #1 ` ü"));
    assert_eq!((orders.database.as_str(), orders.rows), ("shop", Some(120_000)));
    assert_eq!(orders.schema_checksum.as_deref(), Some("acf496de"));
    assert_eq!((sequence.is_sequence, sequence.is_view, sequence.rows), (true, false, Some(0)));
    assert_eq!(sequence.schema_checksum, None, "the checksum of [`shop`] is not of the table before it");
}

#[test]
fn coordinates_of_every_version() {
    let cases: [(&str, &str, SourceRow<'_>); 7] = [
        (
            "0.10.1 on MySQL: a GTID set in two lines, the second not indented",
            "SHOW MASTER STATUS:\n\tLog: b.2\n\tPos: 7\n\tGTID:aaaa:1-12,\nbbbb:1-5\n\n",
            (OWN, "", "", "b.2", Some(7), "aaaa:1-12,bbbb:1-5"),
        ),
        (
            "0.10 with --less-locking names the moment behind the heading",
            "SHOW MASTER STATUS: /* AFTER CONNECTION POOL ESTABLISHED */\n\tLog: b.2\n\tPos: 7\n\tGTID:(null)\n",
            (OWN, "", "", "b.2", Some(7), ""),
        ),
        (
            "0.14 to 0.16: [master] in plain lines",
            "[master]\n# Channel_Name = '' # It can\nFile = b.2\nPosition = 1326\nExecuted_Gtid_Set = \n\n",
            (OWN, "", "", "b.2", Some(1326), ""),
        ),
        (
            "0.14: [replication] is all comments, MariaDB's GTID",
            "[replication]\n# relay_master_log_file = 'p.3'\n# exec_master_log_pos = 99\n# Gtid_Slave_Pos = 0-1-24\n\
             # Connection_name = ''\n# Master_Host = 'h'\n# Master_Log_File = 'p.8'\n# Read_Master_Log_Pos = 1\n\
             # Relay_Log_File = 'r.1'\n# Exec_Master_Log_Pos = 99\n# Gtid_IO_Pos = '0-1-30'\n",
            (REPLICA, "", "h", "p.3", Some(99), "0-1-24"),
        ),
        (
            "1.0.3: [source] is all comments",
            "[source]\n# executed_gtid_set = \"a:1\"\n# SOURCE_LOG_FILE = \"b.2\"\n# SOURCE_LOG_POS = 839\n",
            (OWN, "", "", "b.2", Some(839), "a:1"),
        ),
        (
            "a plain line corrects the comment before it",
            "[source]\n#SOURCE_LOG_FILE = \"b.1\"\nSOURCE_LOG_FILE = \"b.2\"\nSOURCE_LOG_FILE = \"b.3\"\n",
            (OWN, "", "", "b.2", None, ""),
        ),
        (
            "odd positions are unknown, not an error",
            "[replication.ch]\nSOURCE_LOG_FILE = \"b.2\"\nSOURCE_LOG_POS = -1\n=\n:\n#\n",
            (REPLICA, "ch", "", "b.2", None, ""),
        ),
    ];
    for (case, text, expected) in cases {
        assert_eq!(rows(&parse(text)), [expected], "{case}");
    }
    assert_eq!(parse("[source]\n# Channel_Name = '' # It can\n").sources, [], "1.x without --source-data");
}

#[test]
fn section_names_keep_quotes_dots_and_brackets() {
    let cases = [
        ("[`a`.`b`]", Some(("a", "b"))),
        ("[\"a\".\"b\"]", Some(("a", "b"))),
        ("[\"a\"\"x\".\"b`\"]", Some(("a\"x", "b`"))),
        ("[`a.b`.`c d`]  ", Some(("a.b", "c d"))),
        ("[`a``b`.`c``.``d`]", Some(("a`b", "c`.`d"))),
        ("[`a`.`b]c[#`]", Some(("a", "b]c[#"))),
        ("[`ä`.`日本`]", Some(("ä", "日本"))),
        // Not doubled, as `dbt->key` leaves it.
        ("[`a`.`tick`q`]", Some(("a", "tick`q"))),
        ("[`a`]", None),
        ("[`a`.`b]", None),
        ("[`a`.\"b\"]", None),
        ("[`]", None),
        ("[]", None),
        ("[`a`.`b`", None),
        ("[config]", None),
        ("[source]", None),
    ];
    for (line, expected) in cases {
        let metadata = parse(&format!("{line}\nRows = 5\n"));
        let table = metadata.tables.first();
        let names = table.map(|table| (table.database.as_str(), table.file_table.as_str()));
        assert_eq!(names, expected, "{line}");
        assert_eq!(table.and_then(|table| table.rows), expected.map(|_| 5), "{line}");
    }
}

#[test]
fn the_last_start_counts() {
    let dead = INI.split("# Finished").next().expect("a start");
    let dirty = parse(&format!("{dead}# Started dump at: 2026-11-23 01:00:00\n[config]\n"));
    assert_eq!(dirty.started.as_deref(), Some("2026-11-23 01:00:00"));
    assert_eq!((dirty.finished, dirty.sources, dirty.tables), (None, vec![], vec![]));

    let again = "# Started dump at: 2026-11-23 01:00:00\n[`shop`.`orders`]\nrows = 7\n[`shop`.`new`]\n";
    let merged = parse(&format!("{INI}{again}"));
    assert_eq!((merged.finished, merged.sources.len()), (None, 0));
    let tables: Vec<_> = merged.tables.iter().map(|t| (t.file_table.as_str(), t.rows)).collect();
    assert_eq!(tables, [("mydumper_0", Some(1)), ("orders", Some(7)), ("s", Some(0)), ("new", None)]);
}

#[test]
fn a_start_exists_only_when_its_line_is_whole() {
    for text in
        ["", "# Started dump at: 2026-11-22 09:08:2", "# Started dump at: 2026-11-22 09:08:21", "Started dump at:\n"]
    {
        assert_eq!(parse(text).started, None, "{text:?}");
    }
    assert_eq!(parse("").generation, None);
    assert_eq!(parse("Started dump at: 2026-11-22 09:08:21\r\n").started.as_deref(), Some("2026-11-22 09:08:21"));
}

#[test]
fn cut_at_any_byte_it_says_nothing_untrue() {
    for whole in [FREE_TEXT, INI] {
        let complete = parse(whole);
        for end in 0..whole.len() {
            let cut = DumpMetadata::parse(&whole.as_bytes()[..end]);
            assert!(cut.started.is_none() || cut.started == complete.started);
            assert_eq!(cut.finished, None, "at {end}");
            assert!(cut.tables.len() <= complete.tables.len());
            for (table, complete) in cut.tables.iter().zip(&complete.tables) {
                assert!(table.rows.is_none() || table.rows == complete.rows, "at {end}");
            }
            for (source, complete) in cut.sources.iter().zip(&complete.sources) {
                assert!(source.position.is_none() || source.position == complete.position, "at {end}");
            }
        }
    }
}

#[test]
fn local_times() {
    let good = ["2026-11-22 09:08:21", " 2026-11-22T09:08:21 ", "2026-11-22 09:08:21.123456", "2026-11-22 09:08:21,5"];
    let time = LocalTime { year: 2026, month: 11, day: 22, hour: 9, minute: 8, second: 21 };
    for text in good {
        assert_eq!(LocalTime::parse(text), Some(time), "{text:?}");
    }
    assert_eq!(parse(FREE_TEXT).started_local().map(|time| time.second), Some(32));
    assert!(LocalTime::parse("2024-02-29 23:59:59").is_some());
    let odd = [
        "",
        "2026-11-22",
        "2026-11-22 ",
        "2026-11-22 09:08",
        "2026-11-22 09:08:21 +0200",
        "2026-11-22 09:08:21Z",
        "2026-11-22 09:08:21.",
        "2026-11-22 09:08:21.1.2",
        "26-11-22 09:08:21",
        "2026-13-01 00:00:00",
        "2026-00-01 00:00:00",
        "2025-02-29 00:00:00",
        "1900-02-29 00:00:00",
        "2026-11-31 00:00:00",
        "2026-11-00 00:00:00",
        "2026-11-22 24:00:00",
        "2026-11-22 00:60:00",
        "2026-11-22 00:00:60",
        "2026-11-22-01 00:00:00",
        "2026-11-22 00:00:00:00",
        "+026-11-22 00:00:00",
        "2026-1١-22 00:00:00",
        "0000-01-01 00:00:00",
        "22/11/2026 09:08:21",
    ];
    for text in odd {
        assert_eq!(LocalTime::parse(text), None, "{text:?}");
    }
}

/// Long lines and many sections end in a moment, where quadratic work would take minutes.
#[test]
fn large_input_is_linear() {
    let mut text = "[replication]\nGTID:a,\n".to_owned() + &"x,\n".repeat(300_000);
    text += &"``".repeat(500_000);
    text += "\n";
    for number in 0..100_000 {
        text += &format!("[`d`.`t{number}`]\nrows = 1\n");
    }
    text += &format!("[`{}`.`t`]\n[{}\n", "``".repeat(500_000), "`.".repeat(500_000));
    assert_eq!(parse(&text).tables.len(), 100_001);
}

proptest! {
    #[test]
    fn any_bytes_give_a_value(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        DumpMetadata::parse(&bytes);
    }

    /// Random bytes hardly ever make a section; pieces of real ones do.
    #[test]
    fn any_mix_of_real_pieces_gives_a_value(pieces in proptest::collection::vec(piece(), 0..40)) {
        let metadata = parse(&pieces.concat());
        prop_assert!(metadata.finished.is_none() || metadata.generation.is_some());
        metadata.started_local();
    }
}

fn piece() -> impl Strategy<Value = String> {
    let real = [
        "\n",
        "[",
        "]",
        "`",
        "``",
        "\"",
        ".",
        "#",
        " ",
        "=",
        ":",
        "'",
        ",",
        "\n[`a`.`b`]\n",
        "\n[source]\n",
        "ü",
        "\n[replication.",
        "\nSHOW MASTER STATUS:\n",
        "\n\tGTID:a,\n",
        "rows = ",
        "real_table_name=",
        "1",
        "\n# Started dump at: ",
        "2026-11-22 09:08:21",
        "\n# Finished dump at: ",
        "\nStarted dump at: ",
    ];
    prop_oneof![4 => proptest::sample::select(real.to_vec()).prop_map(str::to_owned), 1 => ".{0,5}"]
}

#[test]
fn sections_of_what_is_not_wanted_are_left_out() {
    let text = b"# Started dump at: 2026-11-22 09:08:21\n[config]\nquote-character = BACKTICK\n[source]\n# SOURCE_LOG_POS = 4\n\
        [`shop`]\nschema_checksum = 1\n\n[`shop`.`a`]\nrows = 1\n\n[`shop`.`b``]`]\nrows = 2\n[`crm`]\nschema_checksum = 2\n\
        [`crm`.`a`]\nrows = 3\n# Finished dump at: 2026-11-22 09:09:01\n";
    let wanted = |database: &str, table: Option<&str>| database == "shop" && table != Some("a");
    let kept = String::from_utf8(without_sections(text, wanted)).expect("text");
    assert_eq!(
        kept,
        "# Started dump at: 2026-11-22 09:08:21\n[config]\nquote-character = BACKTICK\n[source]\n# SOURCE_LOG_POS = 4\n\
         [`shop`]\nschema_checksum = 1\n\n[`shop`.`b``]`]\nrows = 2\n# Finished dump at: 2026-11-22 09:09:01\n"
    );
    assert_eq!(without_sections(text, |_, _| true), text);
    let free_text = b"Started dump at: 2026-11-22 09:08:21\nSHOW MASTER STATUS:\n\tLog: a\n\nFinished dump at: 2026-11-22 09:09:01\n";
    assert_eq!(without_sections(free_text, |_, _| false), free_text);
}

#[test]
fn the_sql_mode_of_the_session_is_read() {
    let text =
        "# Started\n[config]\n\n[myloader_session_variables]\nSQL_MODE='A,B' /*!40101\n\n[source]\nSQL_MODE='C'\n";
    assert_eq!(session_sql_mode(text).as_deref(), Some("A,B"));
    assert_eq!(session_sql_mode("[myloader_session_variables]\n[source]\nSQL_MODE='C'\n"), None);
    assert_eq!(session_sql_mode("Started dump at: 2026-01-01 00:00:00\n"), None);
}
