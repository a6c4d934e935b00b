//! Tables beside others: `--into` loads rows into a database of its own, as an aid in need. So nothing comes along that
//! would act on others or name them: no view, trigger, routine or event, and no foreign key that leaves what is loaded.

use std::collections::{BTreeSet, HashSet};
use std::io;

use anyhow::{Context, anyhow};
use tracing::info;

use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::file_kind::FileKind;
use crate::model::file_name::FileName;
use crate::model::schema_text::without_foreign_keys;
use crate::model::units::first_few;
use crate::real_names::text_of;
use crate::retrieval::NAMED_MAX;
use crate::retrieval::directory::RestoreDir;
use crate::retrieval::plan::Plan;

/// The largest text of a schema file, in bytes.
const SCHEMA_MAX: u64 = 16 * 1024 * 1024;

/// Leaves tables and rows in the plan, and nothing else.
pub fn keep_tables_alone(plan: &mut Plan) -> Result<(), Failure> {
    let views: HashSet<_> = plan
        .wanted
        .iter()
        .filter(|wanted| wanted.kind == FileKind::SchemaView)
        .map(|wanted| wanted.of.clone())
        .collect();
    // What stands in for a view until it is made has a table's schema.
    plan.wanted.retain(|wanted| match wanted.kind {
        FileKind::Schema => !views.contains(&wanted.of),
        kind => matches!(kind, FileKind::Data | FileKind::DataText | FileKind::Metadata),
    });
    let tables = || plan.wanted.iter().filter(|wanted| wanted.kind == FileKind::Schema);
    let databases: BTreeSet<_> = tables().filter_map(|wanted| wanted.of.0.as_deref()).collect();
    if databases.len() > 1 {
        let names: Vec<_> = databases.iter().map(|name| format!("'{name}'")).collect();
        let error = anyhow!("--into takes tables of one database, and these are of {}", first_few(&names, NAMED_MAX));
        return Err(Failure::usage(hinted(error, "load those of each into a database of its own")));
    }
    if tables().next().is_none() {
        let error = anyhow!("there is no table among what was chosen");
        return Err(Failure::usage(hinted(error, "views are not loaded with --into")));
    }
    Ok(())
}

/// The schema file of each table in the plan, and the table's name.
pub fn tables(plan: &Plan) -> Vec<(FileName, String)> {
    let tables = plan.wanted.iter().filter(|wanted| wanted.kind == FileKind::Schema);
    tables.filter_map(|wanted| Some((wanted.listed.name.clone(), wanted.of.1.clone()?))).collect()
}

/// Takes foreign keys to other tables out of the schema files that stand there. Blocks.
pub fn cut_foreign_keys(tables: &[(FileName, String)], directory: &RestoreDir) -> anyhow::Result<()> {
    let names: HashSet<&str> = tables.iter().map(|(_, table)| table.as_str()).collect();
    let mut changed = Vec::new();
    for (file, table) in tables {
        let failed = || format!("cannot change '{file}'");
        let text = read(directory, file.as_str()).with_context(failed)?;
        let kept = without_foreign_keys(&text, |table| names.contains(table));
        if kept != text {
            // Without its compression: myloader takes either.
            let name = file.as_str();
            let plain = name.find(".sql").map_or(name, |at| &name[..at + ".sql".len()]);
            directory.replace(name, plain, kept.as_bytes()).with_context(failed)?;
            changed.push(format!("'{table}'"));
        }
    }
    if !changed.is_empty() {
        info!("without foreign keys to what is not loaded: {}", first_few(&changed, NAMED_MAX));
    }
    Ok(())
}

fn read(directory: &RestoreDir, name: &str) -> io::Result<String> {
    let text = text_of(name, &directory.read(name)?, SCHEMA_MAX)?;
    if text.len() as u64 == SCHEMA_MAX {
        return Err(io::Error::other("it is larger than a schema can be"));
    }
    Ok(text)
}
