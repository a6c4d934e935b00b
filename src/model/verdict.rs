//! Whether a dump ended well. Where it did not, the reason says why, in words for the person who reads the mail.

use super::dump_metadata::{DumpMetadata, TableSection};
use super::file_kind::{FileKind, KnownNames, NameParts};
use super::file_name::FileName;
use super::full_disk::FullDisk;
use super::manifest::DumperExit;
use super::missing_files::{MissingFiles, missing_files};
use super::row_proof::{RowProof, TableRows};
use super::units::first_few_of;

/// How a dump ended, as its directory shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `metadata.partial` was renamed to `metadata`.
    Renamed,
    /// `metadata.partial` stands there without a writer.
    Died,
    /// Another dump has begun in the directory.
    Overwritten,
    /// `metadata.partial` is gone, and no `metadata` took its place.
    Vanished,
}

/// All that the verdict rests on.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What the directory shows.
    pub ending: Ending,
    /// What the final `metadata` (or what is left of `metadata.partial`) says.
    pub metadata: &'a DumpMetadata,
    /// mydumper's exit status.
    pub exit: DumperExit,
    /// Whether an exit status that was not seen is bad: asked for, or promised by an exit status file.
    pub exit_is_required: bool,
    /// Whether the exit status of a program that started mydumper is as good as its own.
    pub wrapper_exit_is_enough: bool,
    /// Whether we told mydumper to stop.
    pub stopped_by_us: bool,
    /// Whether a dump without schema and data is fine.
    pub allow_empty: bool,
    /// Names of all files of the dump, those that are uploaded among them.
    pub names: &'a [&'a str],
    /// Files whose content is broken, each with why.
    pub broken: &'a [(String, String)],
    /// Files that went away before they were proved, and not by mydumper's hand, each with what was seen.
    pub lost: &'a [(FileName, String)],
    /// The rows in the files beside those that mydumper counted, where they were counted here.
    pub rows: &'a RowProof,
    /// How full the disk was at its fullest while mydumper wrote.
    pub full_disk: Option<FullDisk>,
    /// Whether mydumper is known to come through that.
    pub survives_full_disk: bool,
    /// Why what earlier runs gave up here is not what the bucket has of it.
    pub unaccounted: Option<&'a str>,
}

/// The files that are named in a message at most.
const NAMED_MAX: usize = 3;

/// Why the dump did not end well; `None` if it did, as far as can be seen.
pub fn why_incomplete(evidence: &Evidence) -> Option<String> {
    why_ended_badly(evidence).or_else(|| why_content_is_bad(evidence))
}

fn why_ended_badly(evidence: &Evidence) -> Option<String> {
    let exit = evidence.exit;
    if evidence.stopped_by_us {
        return Some("mydumper was told to stop before the dump was whole".to_owned());
    }
    if let Some(signal) = exit.signal {
        return Some(format!("mydumper was ended by signal {signal}"));
    }
    match evidence.ending {
        Ending::Overwritten => return Some("another dump has begun in the directory".to_owned()),
        Ending::Vanished => {
            return Some("metadata.partial is gone, and no metadata took its place".to_owned());
        }
        Ending::Died if !exit.is_failure() => {
            return Some("mydumper is gone and left metadata.partial: it was killed or crashed".to_owned());
        }
        Ending::Died | Ending::Renamed => {}
    }
    if exit.is_failure() {
        let full = evidence.full_disk.filter(|full| *full == FullDisk::Was);
        let full = full.map_or_else(String::new, |full| format!(": {full}"));
        return Some(format!("mydumper's exit status was {exit}{full}"));
    }
    if evidence.metadata.finished.is_none() {
        return Some("metadata has no line 'Finished dump at'".to_owned());
    }
    if evidence.exit_is_required && exit.is_unseen() && !(exit.through && evidence.wrapper_exit_is_enough) {
        let why = match exit.through {
            true => {
                "only the exit status of the program that started mydumper was seen (--accept-wrapper-exit takes it)"
            }
            false => "mydumper's exit status was not seen",
        };
        return Some(format!("{why}, and it was required"));
    }
    None
}

fn why_content_is_bad(evidence: &Evidence) -> Option<String> {
    let more = |others: usize| if others == 0 { String::new() } else { format!(" (and {others} more)") };
    if let Some(why) = evidence.unaccounted {
        return Some(why.to_owned());
    }
    if let Some((name, why)) = evidence.lost.first() {
        let more = more(evidence.lost.len() - 1);
        return Some(format!("'{name}' is missing: {why}; mydumper did not remove it{more}"));
    }
    if let Some((name, why)) = evidence.broken.first() {
        let more = more(evidence.broken.len() - 1);
        return Some(format!("'{name}' is broken: {why}{more}"));
    }
    let differing = || {
        let differing: Vec<_> = evidence.rows.differing().filter_map(TableRows::difference).collect();
        (!differing.is_empty()).then(|| listed(differing.into_iter()))
    };
    let empty = || {
        (!evidence.allow_empty && !has_content(evidence.names))
            .then(|| "it holds neither a schema nor data (--allow-empty takes such a dump)".to_owned())
    };
    why_files_are_missing(&missing_files(evidence.metadata, evidence.names.iter().copied()))
        .or_else(differing)
        .or_else(|| why_content_is_in_doubt(evidence))
        .or_else(empty)
}

/// What a disk that was or may have been full leaves of doubts, where mydumper does not come through that and the rows in
/// the files do not prove that nothing came of it.
pub fn doubt(evidence: &Evidence) -> Option<FullDisk> {
    evidence.full_disk.filter(|_| !evidence.survives_full_disk && !evidence.rows.is_proved())
}

/// A doubt that forbids the commit: rows could have been counted and were not, or the disk is known to have been full.
fn why_content_is_in_doubt(evidence: &Evidence) -> Option<String> {
    let full = doubt(evidence)?;
    let says = format!("{full} while mydumper wrote, and a mydumper before 0.20.1 then writes garbage and ends with 0");
    if !evidence.rows.has_counts() {
        return (full == FullDisk::Was).then(|| format!("{says}; nothing counts the rows that would prove its files"));
    }
    let first = evidence.rows.not_counted().next();
    let first = first
        .map_or_else(String::new, |(table, because)| format!(" ('{}.{}': {because})", table.database, table.table));
    Some(format!("{says}; the rows of {} tables could not be counted{first}", evidence.rows.not_counted().count()))
}

fn why_files_are_missing(missing: &MissingFiles) -> Option<String> {
    if !missing.schemas.is_empty() {
        let names = listed(missing.schemas.iter().map(|missing| missing.expected.clone()));
        return Some(format!(
            "metadata names tables or views without a schema file ({names}): mydumper was stopped before its end"
        ));
    }
    if missing.data.is_empty() {
        return None;
    }
    let tables = missing.data.iter();
    let tables = listed(tables.map(|missing| format!("{} of {} rows", missing.expected, missing.rows)));
    Some(format!("metadata counts rows of tables without a data file ({tables}): somebody removed it, or it was lost"))
}

/// The first ones, and how many more there are.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    first_few_of(&names.take(NAMED_MAX).collect::<Vec<_>>(), count, NAMED_MAX, ", ")
}

/// Files without a byte that cannot be right: a schema always says something, and a table with rows has them somewhere.
/// Other empty data files are what `--build-empty-files` makes.
pub fn wrongly_empty<'a>(
    metadata: &DumpMetadata,
    sizes: impl Iterator<Item = (&'a str, u64)>,
) -> Vec<(&'a str, &'static str)> {
    let empty: Vec<&str> = sizes.filter(|(_, size)| *size == 0).map(|(name, _)| name).collect();
    if empty.is_empty() {
        return Vec::new();
    }
    let known = KnownNames::new(Some(metadata), empty.iter().copied());
    let has_rows = |parts: &NameParts| {
        let is_its = |table: &&TableSection| {
            parts.database == Some(table.database.as_str()) && parts.file_table == Some(table.file_table.as_str())
        };
        metadata.tables.iter().find(is_its).is_some_and(|table| table.rows.is_some_and(|rows| rows > 0))
    };
    let why = |name: &&str| {
        let parts = NameParts::parse(name, &known);
        match parts.kind {
            FileKind::SchemaCreate | FileKind::Schema | FileKind::SchemaView | FileKind::SchemaSequence => {
                Some("a schema file without a byte")
            }
            FileKind::Data | FileKind::DataText if has_rows(&parts) => {
                Some("a data file without a byte, of a table that has rows")
            }
            _ => None,
        }
    };
    empty.iter().filter_map(|name| Some((*name, why(name)?))).collect()
}

fn has_content(names: &[&str]) -> bool {
    let known = KnownNames::default();
    names.iter().any(|name| {
        !matches!(
            NameParts::parse(name, &known).kind,
            FileKind::Metadata | FileKind::MetadataHeader | FileKind::Private | FileKind::Manifest
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::ExitSeen;
    use crate::model::row_count::FileRows;

    static NOT_COUNTED: RowProof = RowProof { tables: Vec::new() };
    const GOOD: &str = "Started dump at: 2026-11-22 02:00:01\nFinished dump at: 2026-11-22 02:00:09\n";

    fn good(metadata: &DumpMetadata) -> Evidence<'_> {
        Evidence {
            ending: Ending::Renamed,
            metadata,
            exit: DumperExit { status: Some(0), ..DumperExit::seen(ExitSeen::Child) },
            exit_is_required: false,
            wrapper_exit_is_enough: false,
            stopped_by_us: false,
            allow_empty: false,
            names: &["shop-schema-create.sql", "metadata"],
            broken: &[],
            lost: &[],
            rows: &NOT_COUNTED,
            full_disk: None,
            survives_full_disk: false,
            unaccounted: None,
        }
    }

    #[test]
    fn a_dump_that_ended_well_has_no_reason() {
        let metadata = DumpMetadata::parse(GOOD.as_bytes());
        assert_eq!(why_incomplete(&good(&metadata)), None);
        assert_eq!(why_incomplete(&Evidence { exit: DumperExit::NOT_SEEN, ..good(&metadata) }), None);
        let empty = Evidence { names: &["metadata"], allow_empty: true, ..good(&metadata) };
        assert_eq!(why_incomplete(&empty), None);
    }

    #[test]
    fn everything_else_has_one() {
        let metadata = DumpMetadata::parse(GOOD.as_bytes());
        let unfinished = DumpMetadata::parse(b"Started dump at: 2026-11-22 02:00:01\n");
        let broken = [("a.zst".to_owned(), "cut short".to_owned())];
        let lost = [("s.t.sql".parse().expect("a name"), "20 bytes were seen".to_owned())];
        let good = || good(&metadata);
        let wrapper = DumperExit { status: Some(0), through: true, ..DumperExit::NOT_SEEN };
        let enough = Evidence { exit: wrapper, exit_is_required: true, wrapper_exit_is_enough: true, ..good() };
        assert_eq!(why_incomplete(&enough), None);
        let exit = |status, signal| DumperExit { status, signal, ..DumperExit::seen(ExitSeen::Child) };
        for (wanted, evidence) in [
            ("told to stop", Evidence { stopped_by_us: true, ..good() }),
            ("signal 9", Evidence { exit: exit(None, Some(9)), ..good() }),
            ("status was 1", Evidence { exit: exit(Some(1), None), ..good() }),
            ("another dump", Evidence { ending: Ending::Overwritten, ..good() }),
            ("gone, and no metadata", Evidence { ending: Ending::Vanished, ..good() }),
            ("killed or crashed", Evidence { ending: Ending::Died, ..good() }),
            ("no line", Evidence { metadata: &unfinished, ..good() }),
            ("not seen", Evidence { exit: DumperExit::NOT_SEEN, exit_is_required: true, ..good() }),
            ("only the exit status of the program", Evidence { exit: wrapper, exit_is_required: true, ..good() }),
            ("neither", Evidence { names: &["metadata"], ..good() }),
            ("'a.zst' is broken: cut short", Evidence { broken: &broken, ..good() }),
            ("2 files are gone", Evidence { unaccounted: Some("2 files are gone"), ..good() }),
            ("'s.t.sql' is missing: 20 bytes were seen", Evidence { lost: &lost, ..good() }),
        ] {
            let reason = why_incomplete(&evidence).expect(wanted);
            assert!(reason.contains(wanted), "{reason}");
        }
    }

    #[test]
    fn empty_files_are_wrong_where_something_must_be() {
        let text = b"# Started dump at: 2026-11-22 02:00:01\n[`s`.`t`]\nrows = 3\n[`s`.`e`]\nrows = 0\n";
        let metadata = DumpMetadata::parse(text);
        let sizes = [
            ("s.t.00000.sql", 0),
            ("s.t.00001.sql", 9),
            ("s.e.00000.sql", 0),
            ("s.e-schema.sql", 0),
            ("s.x.00000.sql", 0),
        ];
        let wrong: Vec<_> = wrongly_empty(&metadata, sizes.into_iter()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(wrong, ["s.t.00000.sql", "s.e-schema.sql"]);
    }

    #[test]
    fn a_view_that_metadata_names_must_have_its_schema() {
        let text = b"# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nrows = 3\n[`shop`.`v`]\n# Finished dump at: 2026-11-22 02:00:09\n";
        let metadata = DumpMetadata::parse(text);
        let names = ["shop-schema-create.sql", "shop.t-schema.sql", "shop.t.00000.sql", "metadata"];
        let evidence = Evidence {
            ending: Ending::Renamed,
            metadata: &metadata,
            exit: DumperExit::NOT_SEEN,
            exit_is_required: false,
            wrapper_exit_is_enough: false,
            stopped_by_us: false,
            allow_empty: false,
            names: &names,
            broken: &[],
            lost: &[],
            rows: &NOT_COUNTED,
            full_disk: None,
            survives_full_disk: false,
            unaccounted: None,
        };
        assert!(why_incomplete(&evidence).expect("a reason").contains("shop.v-schema.sql"));
    }

    #[test]
    fn the_rows_in_the_files_are_as_many_as_mydumper_counted() {
        let text = b"# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nrows = 2\n# Finished dump at: 2026-11-22 02:00:09\n";
        let metadata = DumpMetadata::parse(text);
        let names = ["shop.t.00000.sql", "metadata"];
        let why = |rows| {
            let rows = RowProof::of(&metadata, [("shop.t.00000.sql", Some(FileRows::Rows(rows)))]);
            why_incomplete(&Evidence { names: &names, rows: &rows, ..good(&metadata) })
        };
        assert_eq!(why(2), None);
        assert_eq!(why(1).as_deref(), Some("metadata counts 2 rows of 'shop.t', its files hold 1"));
    }

    #[test]
    fn after_a_full_disk_rows_prove_what_an_early_mydumper_wrote() {
        let text = b"# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nrows = 2\n# Finished dump at: 2026-11-22 02:00:09\n";
        let counting = DumpMetadata::parse(text);
        let counted = RowProof::of(&counting, [("shop.t.00000.sql", Some(FileRows::Rows(2)))]);
        let unclear = RowProof::of(&counting, [("shop.t.00000.sql", Some(FileRows::Unknown))]);
        let plain = DumpMetadata::parse(GOOD.as_bytes());
        let names = ["shop.t.00000.sql", "metadata"];
        let judge = |metadata, rows, full, survives_full_disk| {
            let evidence =
                Evidence { names: &names, rows, full_disk: Some(full), survives_full_disk, ..good(metadata) };
            (why_incomplete(&evidence), doubt(&evidence))
        };
        for full in [FullDisk::MayHaveBeen, FullDisk::Was] {
            assert_eq!(judge(&counting, &counted, full, false), (None, None), "proved");
            assert_eq!(judge(&counting, &unclear, full, true), (None, None), "a mydumper that comes through it");
            let (why, _) = judge(&counting, &unclear, full, false);
            let why = why.expect("a reason");
            assert!(why.contains("the rows of 1 tables could not be counted ('shop.t': "), "{why}");
        }
        assert_eq!(judge(&plain, &NOT_COUNTED, FullDisk::MayHaveBeen, false), (None, Some(FullDisk::MayHaveBeen)));
        let (why, _) = judge(&plain, &NOT_COUNTED, FullDisk::Was, false);
        assert!(why.expect("a reason").starts_with("the disk was full (0 B free)"));
        let exit = DumperExit { status: Some(1), ..DumperExit::seen(ExitSeen::Child) };
        let failed = Evidence { exit, full_disk: Some(FullDisk::Was), survives_full_disk: true, ..good(&plain) };
        let why = why_incomplete(&failed);
        assert_eq!(why.as_deref(), Some("mydumper's exit status was 1: the disk was full (0 B free)"));
    }

    #[test]
    fn a_table_with_rows_must_have_a_data_file() {
        let text = b"# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nrows = 2\n# Finished dump at: 2026-11-22 02:00:09\n";
        let metadata = DumpMetadata::parse(text);
        let names = ["shop-schema-create.sql", "shop.t-schema.sql", "metadata"];
        let reason = why_incomplete(&Evidence { names: &names, ..good(&metadata) }).expect("a reason");
        assert!(reason.contains("shop.t.00000.sql of 2 rows"), "{reason}");
        let names = ["shop.t-schema.sql", "shop.t.00000.sql", "metadata"];
        assert_eq!(why_incomplete(&Evidence { names: &names, ..good(&metadata) }), None);
    }
}
