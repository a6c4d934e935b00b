use super::*;

fn missing_schema_files<'a>(metadata: &DumpMetadata, names: impl IntoIterator<Item = &'a str>) -> Vec<MissingSchema> {
    missing_files(metadata, names).schemas
}

fn metadata(sections: &str) -> DumpMetadata {
    DumpMetadata::parse(format!("# Started dump at: 2026-11-22 09:08:21\n{sections}").as_bytes())
}

const EMPTY_TABLE: &str = "[`shop`.`empty`]\nreal_table_name=empty\nrows = 0\n";
const TABLE: &str = "[`shop`.`t`]\nreal_table_name=t\nrows = 3\n";
const VIEW: &str = "[`shop`.`v`]\nreal_table_name=v\nrows = 0\n";

#[test]
fn a_good_dump_misses_no_schema() {
    let cases: [(&str, String, &[&str]); 13] = [
        ("plain", [TABLE, VIEW].concat(), &["shop.t-schema.sql", "shop.v-schema.sql", "shop.v-schema-view.sql"]),
        ("compressed", [TABLE, VIEW].concat(), &["shop.t-schema.sql.zst", "shop.v-schema-view.sql.enc"]),
        ("--no-schemas", [TABLE, EMPTY_TABLE].concat(), &["shop-schema-create.sql", "shop.t.00000.sql"]),
        ("--no-data", EMPTY_TABLE.into(), &["shop.empty-schema.sql"]),
        ("--views-as-tables", VIEW.into(), &["shop.v-schema.sql"]),
        ("a sequence", "[`shop`.`s`]\nrows = 0\nis_sequence = 1\n".into(), &["shop.s-schema-sequence.sql"]),
        ("a sequence as a table", "[`shop`.`s`]\nRows = 1\n".into(), &["shop.s-schema.sql"]),
        (
            "object_to_export=DATA for some tables",
            [TABLE, EMPTY_TABLE, VIEW].concat(),
            &["shop.v-schema.sql", "shop.t.00000.sql"],
        ),
        (
            "a masked name with its mapping",
            "[`shop`.`mydumper_0`]\nreal_table_name=a.b\nrows = 1\n".into(),
            &["shop.mydumper_0-schema.sql"],
        ),
        (
            "a masked name without it, a table called like one, and an odd database",
            format!("{TABLE}[`shop`.`a.b`]\nreal_table_name=a.b\n[`shop`.`mydumper_7`]\n[`odd.db`.`x`]\nrows = 0\n"),
            &[
                "shop.t-schema.sql",
                "shop.mydumper_0-schema.sql",
                "shop.mydumper_1-schema.sql",
                "mydumper_2.x-schema.sql",
            ],
        ),
        (
            "--masquerade-filename without mapping",
            format!("{TABLE}{EMPTY_TABLE}schema_checksum = 1\n{VIEW}"),
            &[
                "mydumper_0.mydumper_1-schema.sql",
                "mydumper_0.mydumper_2-schema.sql",
                "mydumper_0.mydumper_3-schema.sql",
            ],
        ),
        (
            "--masquerade-filename with mapping",
            "[`mydumper_0`.`mydumper_1`]\nreal_table_name=t\nrows = 0\n".into(),
            &["mydumper_0.mydumper_1-schema.sql"],
        ),
        ("only databases", "[`shop`]\nschema_checksum = 1\n".into(), &["shop.t-schema.sql"]),
    ];
    for (case, sections, names) in cases {
        assert_eq!(missing_schema_files(&metadata(&sections), names.iter().copied()), [], "{case}");
    }
    let free_text = DumpMetadata::parse(b"Started dump at: 2026-11-22 09:08:21\n");
    assert_eq!(missing_schema_files(&free_text, ["shop.t-schema.sql"]), []);
}

#[test]
fn a_stopped_dump_misses_the_schema_of_its_view() {
    let odd = "[`shop`.`a.b`]\nreal_table_name=a.b\nrows = 1\n";
    type Case<'a> = (&'a str, String, &'a [&'a str], (&'a str, bool));
    let cases: [Case<'_>; 4] = [
        ("SIGTERM", [TABLE, VIEW].concat(), &["shop.t-schema.sql", "shop.t.00000.sql"], ("v", false)),
        (
            "SIGTERM, beside an odd name",
            [TABLE, odd, VIEW].concat(),
            &["shop.t-schema.sql", "shop.mydumper_0-schema.sql"],
            ("v", false),
        ),
        (
            "a file lost after its checksum was taken",
            format!("{VIEW}{TABLE}schema_checksum = ab\n"),
            &["shop.v-schema.sql", "shop.t.00000.sql"],
            ("t", true),
        ),
        (
            "a table with a mapped name",
            format!("{TABLE}[`shop`.`mydumper_0`]\nreal_table_name=a.b\nrows = 0\n"),
            &["shop.t-schema.sql"],
            ("a.b", false),
        ),
    ];
    for (case, sections, names, (table, proven)) in cases {
        let missing = missing_schema_files(&metadata(&sections), names.iter().copied());
        let found: Vec<_> = missing.iter().map(|missing| (missing.table.as_str(), missing.proven)).collect();
        assert_eq!(found, [(table, proven)], "{case}");
    }
    let missing = missing_schema_files(&metadata(&[TABLE, VIEW].concat()), ["shop.t-schema.sql"]);
    assert_eq!(missing[0].expected, "shop.v-schema.sql");
}

#[test]
fn rows_without_a_data_file_are_missing_rows() {
    let odd = "[`shop`.`a.b`]\nrows = 1\n";
    type Case<'a> = (&'a str, String, &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 5] = [
        ("the only data file", TABLE.into(), &["shop.t-schema.sql"], &["t"]),
        (
            "one of two tables",
            format!("{TABLE}[`shop`.`u`]\nRows = 1\n"),
            &["shop.u-schema.sql", "shop.t.00000.sql"],
            &["u"],
        ),
        ("all of them, with --no-schemas", TABLE.into(), &["shop-schema-create.sql"], &["t"]),
        ("beside an odd name without its mapping", [TABLE, odd].concat(), &["shop.mydumper_0.00000.sql"], &["t"]),
        (
            "a table whose name begins like another's",
            TABLE.into(),
            &["shop.t2.00000.sql", "shop.t.x.00000.sql"],
            &["t"],
        ),
    ];
    for (case, sections, names, tables) in cases {
        let missing = missing_files(&metadata(&sections), names.iter().copied()).data;
        let found: Vec<_> = missing.iter().map(|missing| missing.table.as_str()).collect();
        assert_eq!(found, tables, "{case}");
    }
    let missing = missing_files(&metadata(TABLE), ["shop.t-schema.sql"]).data;
    assert_eq!((missing[0].expected.as_str(), missing[0].rows), ("shop.t.00000.sql", 3));
}

#[test]
fn a_good_dump_misses_no_data() {
    let cases: [(&str, String, &[&str]); 13] = [
        ("plain", TABLE.into(), &["shop.t.00000.sql"]),
        ("a view, an empty table, --no-data", [VIEW, EMPTY_TABLE].concat(), &["shop.v-schema.sql"]),
        ("compressed", TABLE.into(), &["shop.t.00000.sql.zst"]),
        ("cut by rows and size", TABLE.into(), &["shop.t.00007.00001.sql.gz"]),
        ("LOAD_DATA", TABLE.into(), &["shop.t.00000.dat", "shop.t.00000.sql"]),
        ("an extension of one's own", TABLE.into(), &["shop.t.00000.sql.enc"]),
        ("one without a dot", TABLE.into(), &["shop.t.00000.sqlenc"]),
        ("0.10's name", TABLE.into(), &["shop.t.sql"]),
        ("rows that nobody counted", "[`shop`.`t`]\n".into(), &["shop.t-schema.sql"]),
        (
            "a masked name with its mapping",
            "[`mydumper_0`.`mydumper_1`]\nreal_table_name=t\nrows = 1\n".into(),
            &["mydumper_0.mydumper_1.00000.sql"],
        ),
        ("an odd database without it", "[`odd.db`.`x`]\nrows = 2\n".into(), &["mydumper_0.x.00000.sql"]),
        (
            "--masquerade-filename without it",
            format!("{TABLE}[`shop`.`u`]\nrows = 1\n"),
            &["mydumper_0.mydumper_1.00000.sql", "mydumper_0.mydumper_2.00003.00001.sql"],
        ),
        ("a database with a dot, as it is called", "[`odd.db`.`x`]\nrows = 2\n".into(), &["odd.db.x.00000.sql"]),
    ];
    for (case, sections, names) in cases {
        assert_eq!(missing_files(&metadata(&sections), names.iter().copied()).data, [], "{case}");
    }
    let free_text = DumpMetadata::parse(b"Started dump at: 2026-11-22 09:08:21\n");
    assert_eq!(missing_files(&free_text, ["shop.t-schema.sql"]), MissingFiles::default());
}
