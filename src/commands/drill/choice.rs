//! What of a dump is drilled.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use anyhow::anyhow;
use tracing::{info, warn};

use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::file_kind::FileKind;
use crate::model::sample;
use crate::model::units::ByteSize;
use crate::retrieval::plan::{Plan, Wanted};

/// Databases of the server itself: its users and rights, among others.
const SYSTEM: [&str; 2] = ["mysql", "sys"];

/// A server has these of its own, and would not survive others. Returns whether there were any.
pub fn leave_system_databases(plan: &mut Plan) -> bool {
    let is_system = |wanted: &Wanted| wanted.of.0.as_deref().is_some_and(|database| SYSTEM.contains(&database));
    let is_any = plan.wanted.iter().any(is_system);
    if is_any {
        warn!("the server's own databases (mysql, sys) are not drilled");
        plan.wanted.retain(|wanted| !is_system(wanted));
    }
    is_any
}

/// Chooses tables by chance; returns the seed that repeats it.
pub fn sample(plan: &mut Plan, limit: ByteSize, seed: Option<u64>) -> Result<u64, Failure> {
    // The system's random numbers, without a crate for it.
    let seed = seed.unwrap_or_else(|| u64::from(RandomState::new().hash_one(0) as u32));
    let views: BTreeSet<_> = of_kind(plan, FileKind::SchemaView);
    let mut sizes: BTreeMap<(String, String), u64> = of_kind(plan, FileKind::Schema)
        .into_iter()
        .filter(|name| !views.contains(name))
        .map(|name| (name, 0))
        .collect();
    for wanted in &plan.wanted {
        if let Some(size) = name_of(wanted).and_then(|name| sizes.get_mut(&name)) {
            *size += wanted.listed.size;
        }
    }
    let (names, sizes): (Vec<_>, Vec<_>) = sizes.into_iter().unzip();
    let taken = sample::chosen(&sizes, limit.0, seed);
    if taken.is_empty() {
        let smallest = sizes.iter().min().map_or(0, |size| *size);
        let error = anyhow!("no table of the dump fits in {}", limit.human());
        let hint = format!("the smallest takes {}", ByteSize(smallest).human());
        return Err(Failure::usage(hinted(error, hint)));
    }
    let bytes: u64 = taken.iter().map(|at| sizes[*at]).sum();
    let (count, all) = (taken.len(), names.len());
    info!("a sample of {count} of {all} tables, {} (--seed {seed} repeats it)", ByteSize(bytes).human());
    let taken: BTreeSet<_> = taken.into_iter().map(|at| names[at].clone()).collect();
    let databases: BTreeSet<_> = taken.iter().map(|(database, _)| database.as_str()).collect();
    plan.wanted.retain(|wanted| match name_of(wanted) {
        Some(name) => taken.contains(&name),
        None => wanted.of.0.as_deref().is_none_or(|database| databases.contains(database)),
    });
    Ok(seed)
}

fn of_kind(plan: &Plan, kind: FileKind) -> BTreeSet<(String, String)> {
    plan.wanted.iter().filter(|wanted| wanted.kind == kind).filter_map(name_of).collect()
}

fn name_of(wanted: &Wanted) -> Option<(String, String)> {
    Some((wanted.of.0.clone()?, wanted.of.1.clone()?))
}

/// Of a database that is taken in part, leaves out what may need tables that are not in it: the triggers of all tables in one
/// file, routines and events.
pub fn leave_what_needs_more(plan: &mut Plan) {
    let sections = plan.sections();
    let is_whole = |database: &str| sections.contains(&(database.to_owned(), None));
    plan.wanted.retain(|wanted| match (wanted.kind, wanted.of.0.as_deref(), wanted.of.1.as_deref()) {
        (FileKind::SchemaTriggers | FileKind::SchemaPost, Some(database), None) => is_whole(database),
        _ => true,
    });
}

/// Of nothing it cannot be said that it is a backup; and without schemas there is nothing that rows could go into.
pub fn refuse_nothing(plan: &Plan) -> Result<(), Failure> {
    let makes_something =
        |wanted: &Wanted| matches!(wanted.kind, FileKind::Schema | FileKind::SchemaView | FileKind::SchemaSequence);
    if plan.wanted.iter().any(makes_something) {
        return Ok(());
    }
    let (error, hint) = match plan.wanted.iter().any(Wanted::is_data) {
        true => (
            anyhow!("the dump has rows and no schemas: no server can be made of it"),
            "mydumper writes schemas without --no-schemas",
        ),
        false => (
            anyhow!("there is no table among what was chosen: nothing can be drilled"),
            "`mydumper2s3 list --files` shows what the dump has",
        ),
    };
    Err(Failure::usage(hinted(error, hint)))
}
