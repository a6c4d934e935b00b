use proptest::prelude::*;

use super::*;

type Row<'a> = (FileKind, Compression<'a>, &'a str, &'a str, Option<(u64, Option<u64>)>);

fn row<'a>(name: &'a str, known: &KnownNames) -> Row<'a> {
    let file = NameParts::parse(name, known);
    let chunk = file.chunk.map(|chunk| (chunk.part, chunk.sub_part));
    (file.kind, file.compression, file.database.unwrap_or(""), file.file_table.unwrap_or(""), chunk)
}

#[test]
fn names_of_every_kind() {
    use Compression::{Gzip, None as Plain, Other as Unknown, Zstd};
    use FileKind::*;
    let cases: [(&str, Row<'_>); 35] = [
        ("metadata", (Metadata, Plain, "", "", None)),
        ("metadata.header", (MetadataHeader, Plain, "", "", None)),
        ("metadata.partial", (Private, Plain, "", "", None)),
        ("metadata.partial.3", (Private, Plain, "", "", None)),
        ("resume", (Private, Plain, "", "", None)),
        ("not_updated_tables", (NotUpdatedTables, Plain, "", "", None)),
        ("mydumper2s3.json", (Manifest, Plain, "", "", None)),
        ("all-schema-create-tablespace.sql.gz", (Tablespace, Gzip, "", "", None)),
        ("shop-schema-create.sql", (SchemaCreate, Plain, "shop", "", None)),
        ("odd.db-x-schema-create.sql.zst", (SchemaCreate, Zstd, "odd.db-x", "", None)),
        ("shop.t-schema.sql", (Schema, Plain, "shop", "t", None)),
        ("shop.t x-schema.sql.gz", (Schema, Gzip, "shop", "t x", None)),
        ("shop.mydumper_0-schema.sql", (Schema, Plain, "shop", "mydumper_0", None)),
        ("shop.v-schema-view.sql", (SchemaView, Plain, "shop", "v", None)),
        ("shop.s-schema-sequence.sql", (SchemaSequence, Plain, "shop", "s", None)),
        ("shop.t-schema-triggers.sql", (SchemaTriggers, Plain, "shop", "t", None)),
        ("shop-schema-triggers.sql", (SchemaTriggers, Plain, "shop", "", None)),
        ("shop-schema-post.sql", (SchemaPost, Plain, "shop", "", None)),
        ("shop-schema-routines.sql", (SchemaPost, Plain, "shop", "", None)),
        ("shop-schema-events.sql.zst", (SchemaPost, Zstd, "shop", "", None)),
        ("shop.t-checksum", (Checksum, Plain, "shop", "t", None)),
        ("shop.t-schema-checksum", (Checksum, Plain, "shop", "t", None)),
        ("shop-schema-create-checksum", (Checksum, Plain, "shop", "", None)),
        ("shop.t-metadata", (TableMetadata, Plain, "shop", "t", None)),
        ("shop.t.sql", (Data, Plain, "shop", "t", None)),
        ("shop.t.sql.gz", (Data, Gzip, "shop", "t", None)),
        ("shop.t.00002.sql", (Data, Plain, "shop", "t", Some((2, None)))),
        ("shop.t.00002.00001.sql.zst", (Data, Zstd, "shop", "t", Some((2, Some(1))))),
        ("shop.t.123456789.dat.gz", (DataText, Gzip, "shop", "t", Some((123_456_789, None)))),
        ("shop.t.00002.sql.enc", (Data, Unknown("enc"), "shop", "t", Some((2, None)))),
        ("shop.t-schema.sql.gz.gpg", (Schema, Unknown("gz.gpg"), "shop", "t", None)),
        ("shop.ünï#%.sql", (Data, Plain, "shop", "ünï#%", None)),
        ("notes.sql", (Other, Plain, "", "", None)),
        ("README.txt", (Other, Plain, "", "", None)),
        ("0/metadata", (Other, Plain, "", "", None)),
    ];
    for (name, expected) in cases {
        assert_eq!(row(name, &KnownNames::default()), expected, "{name}");
    }
}

/// The listing of a real 0.10.1 dump of such tables.
#[test]
fn dots_and_suffixes_in_names_are_read_with_the_help_of_the_other_files() {
    let names = [
        "odd.db-x-schema-create.sql",
        "odd.db-x.t-schema.sql",
        "odd.db-x.t.sql",
        "shop-schema-create.sql",
        "shop.a.b-schema.sql",
        "shop.a.b.sql",
        "shop.t.00001-schema.sql",
        "shop.t.00001.sql",
        "shop.x-schema-schema.sql",
        "shop.x-schema.sql",
    ];
    let known = KnownNames::new(None, names);
    let cases = [
        ("odd.db-x.t.sql", (FileKind::Data, "odd.db-x", "t", None)),
        ("odd.db-x.new.00003.sql", (FileKind::Data, "odd.db-x", "new", Some((3, None)))),
        ("shop.a.b.sql", (FileKind::Data, "shop", "a.b", None)),
        ("shop.a.b.00002.sql", (FileKind::Data, "shop", "a.b", Some((2, None)))),
        ("shop.t.00001.sql", (FileKind::Data, "shop", "t.00001", None)),
        ("shop.t.00001.00002.sql", (FileKind::Data, "shop", "t.00001", Some((2, None)))),
        ("shop.t.00002.sql", (FileKind::Data, "shop", "t", Some((2, None)))),
        ("shop.x-schema.sql", (FileKind::Data, "shop", "x-schema", None)),
        ("shop.x-schema-schema.sql", (FileKind::Schema, "shop", "x-schema", None)),
    ];
    for (name, (kind, database, table, chunk)) in cases {
        assert_eq!(row(name, &known), (kind, Compression::None, database, table, chunk), "{name}");
    }
    // The sections of a 1.x metadata know that both `x` and `x-schema` are tables.
    let both = metadata("[`shop`.`x`]\n[`shop`.`x-schema`]\n");
    let known = KnownNames::new(Some(&both), names);
    assert_eq!(NameParts::parse("shop.x-schema.sql", &known).kind, FileKind::Schema);
}

#[test]
fn what_is_never_data() {
    for name in ["metadata.partial", "metadata.partial.0", "metadata.partial.12.aB3xYz", "resume", "resume.partial"] {
        assert!(is_never_data(name), "{name}");
    }
    for name in [
        "metadata",
        "metadata.header",
        "metadata.partial.",
        "metadata.partial.x",
        "metadata.partial.1.ab",
        "metadata.partial.1.abcdef.sql",
        "metadata.partial.1.abcde/",
        "resume.sql",
        "resume.x",
    ] {
        assert!(!is_never_data(name), "{name}");
    }
}

#[test]
fn only_files_that_mydumper_or_we_make_can_be_of_a_dump() {
    for name in [
        "metadata",
        "metadata.header",
        "metadata.partial",
        "mydumper2s3.json",
        "not_updated_tables",
        "shop.t.sql",
        "shop.t.sql.gz",
        "shop.t.00000.sql.enc",
        "shop.t.00000.dat",
        "shop.t-schema.sql.bz2",
        "shop-schema-post.sql",
        "shop.t-checksum",
        "shop.t-metadata",
        "all-schema-create-tablespace.sql",
    ] {
        assert!(could_be_dump_file(name), "{name}");
    }
    for name in [
        "README.txt",
        "photo.jpg",
        "notes.sql",
        "notes.sql.bak",
        "shop.t.sql.bak",
        "model.v1.dat",
        "a.sqlite",
        "resume",
        "my-checksum",
        "my-metadata",
        "-checksum",
        ".sql",
        "..sql",
        ".t.sql",
        "sub/shop.t.sql",
        "",
        "metadata/",
        "METADATA",
        "metadata.json",
        "other.json",
        "t-schema.sql",
        "-schema-create.sql",
        "a.b.sql.",
    ] {
        assert!(!could_be_dump_file(name), "{name}");
    }
}

fn metadata(sections: &str) -> DumpMetadata {
    DumpMetadata::parse(format!("# Started dump at: 2026-11-22 09:08:21\n{sections}").as_bytes())
}

proptest! {
    #[test]
    fn any_name_is_something(names in proptest::collection::vec("[a.`/ü0-]{0,4}(-schema|-schema-create|\\.00001|-checksum|metadata\\.partial\\.)?(.{0,3})(\\.sql|\\.dat)?(\\.gz|\\.)?", 0..8), sections in ".{0,60}") {
        let metadata = DumpMetadata::parse(format!("[`a`.`b`]\n[`{sections}`.`0`]\n").as_bytes());
        let known = KnownNames::new(Some(&metadata), names.iter().map(String::as_str));
        for name in &names {
            let file = NameParts::parse(name, &known);
            prop_assert!(file.file_table.is_none() || file.database.is_some());
            prop_assert!(!(is_never_data(name) && file.kind != FileKind::Private));
            could_be_dump_file(name);
        }
        super::super::missing_files::missing_files(&metadata, names.iter().map(String::as_str));
    }
}
