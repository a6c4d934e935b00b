//! Which dump is meant: the one at a prefix, or the newest complete one.

use std::collections::BTreeMap;

use anyhow::anyhow;
use jiff::Timestamp;
use tracing::info;

use super::reach::first_answer;
use crate::catalog::{self, FoundDump};
use crate::cli::{Choice, ChoiceArgs};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::object_key::Prefix;
use crate::model::series::Series;
use crate::model::units::first_few;
use crate::s3::Store;

/// Series that a message names at most.
const NAMED_MAX: usize = 10;

/// The dump that is meant.
pub async fn chosen(args: &ChoiceArgs, store: &Store) -> Result<Prefix, Failure> {
    let (under, series, before) = match args.choice() {
        Choice::At(prefix) => return Ok(prefix),
        Choice::Latest { under, series, before } => (under, series, before),
    };
    let dumps = first_answer(store, catalog::find(store, &under, Timestamp::now()).await)?;
    let is_meant = |dump: &&FoundDump| {
        let is_early = before.is_none_or(|before| dump.started().is_some_and(|started| started < before));
        dump.counts() && is_early && dump.is_of(series.as_ref())
    };
    // The oldest comes first, so the newest is left over.
    let newest: BTreeMap<&Series, &FoundDump> =
        dumps.iter().filter(is_meant).map(|dump| (&dump.series, dump)).collect();
    let place = store.uri(&under.directory());
    match newest.values().next() {
        None => Err(Failure::incomplete(no_such(&place, series.as_ref()))),
        Some(_) if newest.len() > 1 => Err(Failure::usage(several(&place, &newest))),
        Some(dump) => {
            let started = dump.started().map(|started| started.to_string()).unwrap_or_default();
            info!("the newest complete dump is {}, begun {started}", store.uri(&dump.prefix.directory()));
            Ok(dump.prefix.clone())
        }
    }
}

fn no_such(place: &str, series: Option<&Series>) -> anyhow::Error {
    let of_series = series.map(|series| format!(" of the series '{series}'")).unwrap_or_default();
    hinted(anyhow!("there is no complete dump{of_series} under {place}"), "`mydumper2s3 list` shows what there is")
}

/// Which of them is the newest says nothing: they are not of the same thing.
fn several(place: &str, newest: &BTreeMap<&Series, &FoundDump>) -> anyhow::Error {
    let named: Vec<_> = newest.keys().map(|series| format!("'{series}'")).collect();
    let error = anyhow!("there are dumps of {} series under {place}: {}", named.len(), first_few(&named, NAMED_MAX));
    hinted(error, "name the one that is meant with --series, or its directory with --prefix")
}
