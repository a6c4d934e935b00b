//! What a dump tells of itself: its schema files, `metadata` and what older versions write beside, and the rows that pass.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::Context;

use super::super::load::{Prepared, data_of};
use crate::aside::aside;
use crate::exit_status::Failure;
use crate::model::drill::{Expected, Name};
use crate::model::file_kind::FileKind;
use crate::model::file_name::FileName;
use crate::model::left_out::LeftOut;
use crate::model::row_count::FileRows;
use crate::model::row_proof::rows_in_files;
use crate::model::schema_programs::{Account, definers, newest_version, programs};
use crate::model::table_shape::TableShape;
use crate::real_names::text_of;
use crate::retrieval::directory::RestoreDir;
use crate::retrieval::pieces::RowsOfFile;
use crate::retrieval::plan::{Plan, Wanted};

/// So much of a schema file is read, in bytes.
const SCHEMA_MAX: u64 = 16 * 1024 * 1024;

/// What was read before anything is loaded.
#[derive(Debug, Default)]
pub struct Read {
    expected: Expected,
    /// Who defines views and programs.
    pub definers: BTreeSet<Account>,
    /// The newest server that something in the schema files is meant for.
    pub newest_version: Option<u32>,
}

/// A file that stands there, and what it is of.
struct Small {
    name: FileName,
    kind: FileKind,
    of: (Option<String>, Option<String>),
}

impl Read {
    /// Reads the files that were fetched for myloader.
    pub async fn of(plan: &Plan, prepared: &Prepared, is_part: bool) -> Result<Self, Failure> {
        let files: Vec<Small> = plan
            .wanted
            .iter()
            .filter(|wanted| !wanted.is_data())
            .map(|wanted| Small { name: wanted.listed.name.clone(), kind: wanted.kind, of: wanted.of.clone() })
            .collect();
        let directory = prepared.stage.directory().map_err(Failure::failed)?;
        let mut read = aside(move || Self::of_files(&files, &directory)).await.map_err(Failure::failed)?;
        read.names(plan);
        read.metadata(plan, is_part);
        Ok(read)
    }

    fn of_files(files: &[Small], directory: &RestoreDir) -> anyhow::Result<Self> {
        let mut read = Self::default();
        for file in files {
            let failed = || format!("cannot read '{}'", file.name);
            let bytes = directory.read(file.name.as_str()).with_context(failed)?;
            let text = text_of(file.name.as_str(), &bytes, SCHEMA_MAX).with_context(failed)?;
            read.file(file, &text);
        }
        Ok(read)
    }

    fn file(&mut self, file: &Small, text: &str) {
        let Some(database) = file.of.0.clone() else { return };
        let table = file.of.1.clone().map(|table| (database.clone(), table));
        let number = text.trim();
        match (file.kind, table) {
            (FileKind::Schema, Some(name)) => {
                self.expected.tables.entry(name).or_default().shape = TableShape::of(text);
            }
            (FileKind::TableMetadata, Some(name)) => {
                self.expected.tables.entry(name).or_default().rows_told = number.parse().ok();
            }
            // Those of schemas are made in another way in each version.
            (FileKind::Checksum, Some(name)) if !file.name.as_str().contains("-schema") => {
                let is_sum = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                self.expected.tables.entry(name).or_default().checksum = is_sum.then(|| number.to_owned());
            }
            _ => {}
        }
        if matches!(file.kind, FileKind::SchemaTriggers | FileKind::SchemaPost) {
            let made = programs(text).into_iter().map(|(kind, name)| (kind, (database.clone(), name)));
            self.expected.programs.extend(made);
        }
        if matches!(file.kind, FileKind::SchemaTriggers | FileKind::SchemaPost | FileKind::SchemaView) {
            self.definers.extend(definers(text));
        }
        self.newest_version = self.newest_version.max(newest_version(text));
    }

    /// What is told by the names of files alone. What stands in for a view until all are made has a table's schema.
    fn names(&mut self, plan: &Plan) {
        for wanted in &plan.wanted {
            self.expected.databases.extend(wanted.of.0.clone());
            let Some(name) = name_of(wanted) else { continue };
            match wanted.kind {
                FileKind::SchemaView => drop(self.expected.views.insert(name)),
                FileKind::SchemaSequence | FileKind::Data | FileKind::DataText => {
                    self.expected.tables.entry(name).or_default();
                }
                _ => {}
            }
        }
        let views = &self.expected.views;
        self.expected.tables.retain(|name, _| !views.contains(name));
    }

    /// What `metadata` tells. It names all that was chosen for the dump, whatever was then written of it.
    fn metadata(&mut self, plan: &Plan, is_part: bool) {
        let has_views = !plan.left_out().unwrap_or_default().contains(&LeftOut::Views);
        for section in plan.tables() {
            let name = (section.database.clone(), section.table.clone());
            let is_known = self.expected.tables.contains_key(&name);
            if section.is_view || self.expected.views.contains(&name) {
                if !is_part && has_views {
                    self.expected.views.insert(name);
                }
                continue;
            }
            // One without a file and without a row may be a view: most versions do not say.
            if !is_known && (is_part || section.rows.unwrap_or_default() == 0) {
                continue;
            }
            let table = self.expected.tables.entry(name).or_default();
            table.rows_told = section.rows.or(table.rows_told);
            let sum = section.data_checksum.clone().filter(|sum| sum.bytes().all(|byte| byte.is_ascii_digit()));
            table.checksum = sum.or(table.checksum.take());
        }
    }

    /// With the rows that passed.
    pub fn expected(mut self, counts: &RowCounts) -> Expected {
        for (name, table) in &mut self.expected.tables {
            table.rows_in_files = counts.of(name);
        }
        self.expected
    }
}

fn name_of(wanted: &Wanted) -> Option<Name> {
    Some((wanted.of.0.clone()?, wanted.of.1.clone()?))
}

/// The rows of each data file, counted while they pass.
#[derive(Debug, Default)]
pub struct RowCounts(HashMap<Name, Vec<(FileName, RowsOfFile)>>);

impl RowCounts {
    /// Counts from now on.
    pub fn watch(plan: &Plan, prepared: &mut Prepared) -> Self {
        let mut counts = Self::default();
        for (wanted, pieces) in data_of(plan).iter().zip(&mut prepared.pieces) {
            let file = wanted.listed.name.clone();
            let rows = pieces.count_rows(file.as_str());
            if let Some(name) = name_of(wanted) {
                counts.0.entry(name).or_default().push((file, rows));
            }
        }
        counts
    }

    /// The rows in the files of a table, or why that cannot be told; `None` where it has none.
    fn of(&self, name: &Name) -> Option<Result<u64, &'static str>> {
        let files = self.0.get(name)?;
        let rows = |rows: &RowsOfFile| -> Option<FileRows> { Arc::clone(rows).get().copied().flatten() };
        Some(rows_in_files(files.iter().map(|(file, counted)| (file.as_str(), rows(counted)))))
    }
}
