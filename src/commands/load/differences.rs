//! What the dump's schema files depend on and the server has otherwise: said, or refused, before anything is loaded.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};
use tracing::info;

use super::stage::Stage;
use super::target::connection;
use crate::aside::aside;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::dump_metadata::session_sql_mode;
use crate::model::file_kind::FileKind;
use crate::model::file_name::METADATA;
use crate::model::load_target::{ABILITIES, knows_collation, modes_that_differ};
use crate::model::loader_command::LoaderCommand;
use crate::model::schema_text::collations;
use crate::model::units::first_few;
use crate::real_names::text_of;
use crate::retrieval::NAMED_MAX;
use crate::retrieval::directory::RestoreDir;
use crate::retrieval::plan::Plan;
use crate::sql_client::SqlClient;

/// The largest text of a schema file that is looked into, in bytes.
const SCHEMA_MAX: u64 = 16 * 1024 * 1024;

/// What the dump's own files say.
struct Needs {
    /// Each collation, with the first file that names it.
    collations: BTreeMap<String, String>,
    sql_mode: Option<String>,
}

/// Looks into the files that stand in the stage, and asks the server.
pub async fn check(command: &LoaderCommand, plan: &Plan, stage: &Stage) -> Result<(), Failure> {
    let Some(client) = SqlClient::find(connection(command)) else { return Ok(()) };
    let is_schema = |kind| matches!(kind, FileKind::SchemaCreate | FileKind::Schema);
    let schemas = plan.wanted.iter().filter(|wanted| is_schema(wanted.kind));
    let schemas: Vec<String> = schemas.map(|wanted| wanted.listed.name.to_string()).collect();
    let directory = stage.directory().map_err(Failure::failed)?;
    let needs = aside(move || needs(&directory, &schemas)).await;
    let rows = client.ask(ABILITIES).await.context("cannot look at the server that is to be loaded into");
    let rows = rows.map_err(Failure::failed)?;
    let of = |wanted: &'static str| {
        rows.iter().filter_map(move |row| match row.as_slice() {
            [Some(what), Some(value)] if what == wanted => Some(value.to_ascii_lowercase()),
            _ => None,
        })
    };
    if let (Some(dump), Some(server)) = (&needs.sql_mode, of("sql_mode").next()) {
        say_modes(dump, &server);
    }
    let known: BTreeSet<String> = of("collation").collect();
    let unknown = needs.collations.iter().filter(|(name, _)| !known.is_empty() && !knows_collation(&known, name));
    let unknown: Vec<_> = unknown.map(|(name, file)| format!("{name} (in '{file}')")).collect();
    if !unknown.is_empty() {
        let (count, names) = (unknown.len(), first_few(&unknown, NAMED_MAX));
        let error = anyhow!("the dump needs {count} collations that the server does not know: {names}");
        let hint = "nothing was loaded; load into a server of the kind that was dumped. --unchecked loads all the same";
        return Err(Failure::usage(hinted(error, hint)));
    }
    Ok(())
}

fn say_modes(dump: &str, server: &str) {
    let (of_dump, of_server) = modes_that_differ(dump, server);
    let named = |modes: Vec<String>| if modes.is_empty() { "nothing".to_owned() } else { modes.join(",") };
    if !of_dump.is_empty() || !of_server.is_empty() {
        info!(
            "sql_mode differs: the dump is loaded with its own, which has {} more, and the server's has {} more",
            named(of_dump),
            named(of_server)
        );
    }
}

/// Blocks. A file that cannot be read is left to myloader.
fn needs(directory: &RestoreDir, schemas: &[String]) -> Needs {
    let mut named = BTreeMap::new();
    for file in schemas {
        let text = directory.read(file).and_then(|bytes| text_of(file, &bytes, SCHEMA_MAX));
        for collation in text.map(|text| collations(&text)).unwrap_or_default() {
            named.entry(collation).or_insert_with(|| file.clone());
        }
    }
    let metadata = directory.read(METADATA).unwrap_or_default();
    Needs { collations: named, sql_mode: session_sql_mode(&String::from_utf8_lossy(&metadata)) }
}
