//! `list --files`: what lies in one dump's directory, beside what its manifest says.

use jiff::Timestamp;
use serde::Serialize;

use super::{DumpJson, to_json};
use crate::bucket_dump::{Listed, Listing, no_dump};
use crate::bucket_manifest::read_manifest;
use crate::catalog;
use crate::cli::ListArgs;
use crate::commands::reach::first_answer;
use crate::exit_status::{Failure, Status};
use crate::model::file_kind::{FileKind, KnownNames, NameParts, could_be_dump_file, has_masked_part};
use crate::model::file_name::MANIFEST;
use crate::model::manifest::ManifestFile;
use crate::model::units::ByteSize;
use crate::real_names::RealNames;
use crate::report::{Align, Report, Table};
use crate::s3::Store;

/// How listing and manifest compare. Contents are for `verify`.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum There {
    Present,
    /// In the manifest only.
    Missing,
    /// Of another size than the manifest says.
    Resized,
    /// Of a dump, as far as the name tells, but not in the manifest.
    Unlisted,
    /// No file that mydumper makes.
    Stranger,
}

#[derive(Serialize)]
struct FileJson {
    name: String,
    state: There,
    size: u64,
    kind: Option<String>,
    database: Option<String>,
    table: Option<String>,
    rows: Option<u64>,
    etag: Option<String>,
    stored: Option<Timestamp>,
    storage_class: Option<String>,
}

#[derive(Serialize)]
struct FilesJson<'a> {
    bucket: &'a str,
    dump: DumpJson<'a>,
    files: Vec<FileJson>,
}

/// Lists one dump's files.
pub async fn list(store: &Store, args: &ListArgs, report: &Report, now: Timestamp) -> Result<Status, Failure> {
    let (dump, _) = first_answer(store, catalog::look(store, args.prefix.clone(), now).await)?;
    let dump = dump.ok_or_else(|| Failure::incomplete(no_dump(store, &args.prefix)))?;
    let files = files(store, args).await?;
    if args.json {
        let dump = DumpJson::from(&dump);
        report.data(&to_json(&FilesJson { bucket: store.bucket(), dump, files })?).await?;
    } else {
        report.table(&table(&files)).await?;
    }
    Ok(Status::Success)
}

async fn files(store: &Store, args: &ListArgs) -> Result<Vec<FileJson>, Failure> {
    let mut listing = first_answer(store, Listing::of(store, &args.prefix).await)?;
    let mut files = Vec::new();
    let manifest = listing.manifest.clone();
    let each = |file: ManifestFile| {
        let object = listing.take(&file.name);
        files.push(of_manifest(file, object));
    };
    // What is wrong with a manifest is said by the dump's state.
    let _ = first_answer(store, read_manifest(store, manifest.as_ref(), each).await)?;
    let has_files = !files.is_empty();
    let rest: Vec<_> = listing.rest().collect();
    let known = KnownNames::new(None, rest.iter().map(|object| object.name.as_str()));
    let mut real_names = RealNames::default();
    let masked = rest.iter().map(|object| &object.name).filter(|name| has_masked_part(name.as_str()));
    real_names.complete(store, &args.prefix, masked).await;
    files.extend(rest.into_iter().map(|object| of_listing(object, &known, &real_names, has_files)));
    files.extend(manifest.map(|manifest| FileJson {
        size: manifest.size,
        kind: name_of(FileKind::Manifest),
        etag: manifest.etag.as_ref().map(ToString::to_string),
        stored: manifest.modified,
        storage_class: manifest.storage_class,
        ..unknown(MANIFEST)
    }));
    let directory = args.prefix.directory();
    let strangers = listing.strangers.named.iter().map(|key| key.strip_prefix(&directory).unwrap_or(key));
    files.extend(strangers.map(|name| FileJson { state: There::Stranger, ..unknown(name) }));
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn of_manifest(file: ManifestFile, object: Option<Listed>) -> FileJson {
    let state = match &object {
        None => There::Missing,
        Some(object) if object.size != file.object.size => There::Resized,
        Some(_) => There::Present,
    };
    let size = object.as_ref().map_or(file.object.size, |object| object.size);
    FileJson {
        name: file.name.as_str().to_owned(),
        state,
        size,
        kind: Some(file.kind),
        database: file.database,
        table: file.table,
        rows: file.rows,
        etag: object
            .as_ref()
            .and_then(|object| object.etag.as_ref())
            .or(file.object.etag.as_ref())
            .map(|etag| etag.to_string()),
        stored: object.as_ref().and_then(|object| object.modified),
        storage_class: object.and_then(|object| object.storage_class).map(String::from),
    }
}

fn of_listing(object: &Listed, known: &KnownNames, real_names: &RealNames, has_files: bool) -> FileJson {
    let parts = NameParts::parse(object.name.as_str(), known);
    let names = parts.database.zip(parts.file_table);
    let state = match () {
        () if !could_be_dump_file(object.name.as_str()) => There::Stranger,
        () if has_files => There::Unlisted,
        () => There::Present,
    };
    FileJson {
        state,
        size: object.size,
        kind: name_of(parts.kind),
        database: parts.database.map(|database| real_names.database(database).to_owned()),
        table: names.map(|(database, table)| real_names.table(database, table).to_owned()),
        etag: object.etag.as_ref().map(ToString::to_string),
        stored: object.modified,
        storage_class: object.storage_class.as_deref().map(str::to_owned),
        ..unknown(object.name.as_str())
    }
}

fn name_of(kind: FileKind) -> Option<String> {
    serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned))
}

fn unknown(name: &str) -> FileJson {
    FileJson {
        name: name.to_owned(),
        state: There::Present,
        size: 0,
        kind: None,
        database: None,
        table: None,
        rows: None,
        etag: None,
        stored: None,
        storage_class: None,
    }
}

fn table(files: &[FileJson]) -> Table {
    let mut table = Table::new([
        ("FILE", Align::Left),
        ("SIZE", Align::Right),
        ("KIND", Align::Left),
        ("TABLE", Align::Left),
        ("ROWS", Align::Right),
        ("ETAG", Align::Left),
        ("NOTE", Align::Left),
    ]);
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for file in files {
        let whose = match (&file.database, &file.table) {
            (Some(database), Some(table)) => format!("{database}.{table}"),
            (database, _) => text(database),
        };
        let note = match file.state {
            There::Present => "",
            There::Missing => "missing",
            There::Resized => "has another size than in the manifest",
            There::Unlisted => "not in the manifest",
            There::Stranger => "no file of a dump",
        };
        table.row([
            file.name.clone(),
            ByteSize(file.size).human(),
            text(&file.kind),
            whose,
            file.rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
            text(&file.etag),
            note.to_owned(),
        ]);
    }
    table
}
