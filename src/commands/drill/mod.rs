//! A drill: a dump is restored into a server that is started for it (or into a scratch server of the operator's), and what
//! is there then is compared with all that the dump tells.

mod choice;
mod expected;
mod look;
mod outcome;
mod server;

use std::time::{Duration, Instant};

use anyhow::anyhow;
use tracing::{info, warn};

use self::expected::{Read, RowCounts};
use self::outcome::{LOADER, Outcome};
use self::server::Server;
use super::choose::chosen;
use super::load::complaints::Complaints;
use super::load::feed::Fed;
use super::load::{Prepared, conclude, data_of};
use super::reach::{first_answer, reach, stopped};
use crate::bucket_dump::Listing;
use crate::cli::{DrillArgs, LoadArgs};
use crate::exit_status::{Failure, Status};
use crate::model::drill::Compared;
use crate::model::left_out::LeftOut;
use crate::model::object_key::Prefix;
use crate::model::units::ByteSize;
use crate::platform::Exit;
use crate::report::{DrillMetrics, Report};
use crate::retrieval::myloader::warn_of_generations;
use crate::retrieval::plan::{Plan, Selection, Wanted};
use crate::s3::Store;
use crate::stop::Stop;

/// Memory for what is fetched ahead.
const MEMORY: ByteSize = ByteSize::mib(256);

/// Drills and says what came of it.
pub async fn run(args: &DrillArgs, report: &Report, stop: &Stop) -> Status {
    let began = Instant::now();
    let mut figures = Figures::default();
    let drilled = drill(args, &mut figures, report, stop).await;
    let status = drilled.unwrap_or_else(|failure| super::fail(report, &failure));
    if let Some(path) = &args.metrics_file {
        let metrics = DrillMetrics {
            bucket: args.dump.bucket.to_string(),
            prefix: args.dump.prefix.as_ref().map(ToString::to_string).unwrap_or_default(),
            exit_status: status.code(),
            tables: figures.tables,
            bytes: figures.bytes,
            differences: figures.differences,
            duration: began.elapsed(),
        };
        super::metrics::write(path, move |path, now| metrics.write(path, now)).await;
    }
    status
}

/// For the metrics.
#[derive(Debug, Default)]
struct Figures {
    tables: u64,
    bytes: u64,
    differences: u64,
}

async fn drill(args: &DrillArgs, figures: &mut Figures, report: &Report, stop: &Stop) -> Result<Status, Failure> {
    let began = Instant::now();
    let chosen = async { Ok::<_, Failure>((Chosen::of(args).await?, Server::choose(args).await?)) };
    let (chosen, mut server) = tokio::select! {
        chosen = chosen => chosen?,
        signal = stop.wait() => return Err(stopped(signal, "nothing was loaded")),
    };
    // Whatever comes: nothing of it stays.
    let drilled = drill_on(args, chosen, &mut server, report, stop).await;
    let ended = server.end().await;
    if let (Err(_), Err(error)) = (&drilled, &ended) {
        warn!("{error:#}");
    }
    let mut outcome = drilled?;
    ended.map_err(Failure::failed)?;
    outcome.took.whole = began.elapsed();
    let tables = outcome.compared.counts.iter().find(|count| count.what == "tables");
    *figures = Figures {
        tables: tables.map_or(0, |count| count.right),
        bytes: outcome.bytes,
        differences: outcome.compared.differences.len() as u64,
    };
    outcome.tell(args.json, report).await
}

/// The dump, and what of it is drilled.
struct Chosen {
    store: Store,
    prefix: Prefix,
    plan: Plan,
    /// Whether that is less than all of it.
    is_part: bool,
    /// The seed of a sample.
    seed: Option<u64>,
    left_out: Option<Vec<LeftOut>>,
}

impl Chosen {
    async fn of(args: &DrillArgs) -> Result<Self, Failure> {
        let store = reach(&args.connection, &args.dump.bucket).await?;
        let prefix = chosen(&args.dump, &store).await?;
        let listing = first_answer(&store, Listing::of(&store, &prefix).await)?;
        store.wait_for(Instant::now(), args.retry_for);
        let selection = Selection { tables: &args.tables, incomplete: false, by_real_names: true };
        let mut plan = Plan::make(&selection, &store, &prefix, listing).await?;
        plan.refuse_stream()?;
        if args.command.is_empty() {
            warn_of_generations(plan.generation()).await;
        }
        let is_without_system = choice::leave_system_databases(&mut plan);
        let seed = args.sample.map(|size| choice::sample(&mut plan, size, args.seed)).transpose()?;
        let is_part = is_without_system || seed.is_some() || !args.tables.is_empty();
        if is_part {
            choice::leave_what_needs_more(&mut plan);
        }
        choice::refuse_nothing(&plan)?;
        let left_out = plan.left_out().map(<[LeftOut]>::to_vec);
        Ok(Self { store, prefix, plan, is_part, seed, left_out })
    }
}

/// How long each phase took.
#[derive(Debug, Default, Clone, Copy)]
struct Took {
    server: Duration,
    load: Duration,
    comparison: Duration,
    whole: Duration,
}

async fn drill_on(
    args: &DrillArgs,
    chosen: Chosen,
    server: &mut Server,
    report: &Report,
    stop: &Stop,
) -> Result<Outcome, Failure> {
    let Chosen { store, prefix, mut plan, is_part, seed, left_out } = chosen;
    let mut took = Took::default();
    let began = Instant::now();
    let prepared = async {
        server.check(&plan).await?;
        server.start().await?;
        let load = load_args(args, is_part)?;
        let prepared = Prepared::of(&load, report, &store, &prefix, &mut plan).await?;
        let read = Read::of(&plan, &prepared, is_part).await?;
        server.make_definers(&read).await?;
        Ok::<_, Failure>((prepared, read))
    };
    let (mut prepared, read) = tokio::select! {
        prepared = prepared => prepared?,
        signal = stop.wait() => return Err(stopped(signal, "nothing of the drill is left")),
    };
    took.server = began.elapsed();

    let began = Instant::now();
    let counts = RowCounts::watch(&plan, &mut prepared);
    let line = server.line(&prepared.stage);
    let mismatches = outcome::Mismatches::default();
    let on_line = mismatches.before(report.takes_child_output("myloader"));
    let data = data_of(&plan);
    let (fed, complaints) = tokio::select! {
        handed = prepared.hand_over(&line, &data, on_line, report, stop) => handed?,
        // Dropped, it holds no pipe any more; the helper does, until myloader is dead.
        failure = server.wait_until_tight() => return Err(failure),
    };
    // What myloader says of a server that is gone leads astray.
    let said = went_in(&data, fed, complaints).map_err(|failure| match server.why_ended() {
        Some(error) if failure.status == Status::Failure => Failure::failed(error),
        _ => failure,
    })?;
    took.load = began.elapsed();
    let bytes: u64 = data.iter().map(|wanted| wanted.listed.size).sum();
    info!("loaded {} data files, {}; comparing", data.len(), ByteSize(bytes).human());

    let began = Instant::now();
    let expected = read.expected(&counts);
    let found = tokio::select! {
        found = look::look(server, &expected, report) => found?,
        signal = stop.wait() => return Err(stopped(signal, "nothing of the drill is left")),
    };
    let mut compared = Compared::of(&expected, &found);
    said.iter().for_each(|what| compared.add(LOADER, what.as_str()));
    mismatches.heard().into_iter().for_each(|what| compared.add(LOADER, what));
    took.comparison = began.elapsed();
    Ok(Outcome {
        uri: store.uri(&prefix.directory()),
        server: server.name(),
        compared,
        bytes,
        is_part,
        seed,
        left_out,
        took,
    })
}

/// How files are fetched and handed over is what `load` does.
fn load_args(args: &DrillArgs, is_part: bool) -> Result<LoadArgs, Failure> {
    // What is in part has a `metadata` of its own; which part that is was decided already.
    let all = "*.*".parse().map_err(|error| Failure::failed(anyhow!("{error}")))?;
    Ok(LoadArgs {
        dump: args.dump.clone(),
        tables: if is_part { vec![all] } else { Vec::new() },
        incomplete: false,
        into: None,
        replace: false,
        system_databases: false,
        unchecked: true,
        unproved: false,
        max_memory: MEMORY,
        workers: args.workers,
        retry_for: args.retry_for,
        command: Vec::new(),
        connection: args.connection.clone(),
        output: args.output.clone(),
    })
}

/// Whether every file was read to its end by a myloader that ended by itself: 1.x aborts where a statement fails. What it complained of is something to be
/// told, and what came of that is looked at; everything else is a failure.
fn went_in(data: &[&Wanted], fed: Fed, complaints: Complaints) -> Result<Vec<String>, Failure> {
    let is_whole = fed.is_done.iter().all(|done| *done);
    match fed.end {
        Ok(exit) if is_whole && (matches!(exit, Exit::Status(_)) || exit.is_own_abort()) => {
            let mut said = complaints.kept;
            match complaints.count.saturating_sub(said.len()) {
                0 => {}
                more => said.push(format!("and {more} errors more")),
            }
            match exit {
                Exit::Status(0) => {}
                Exit::Status(status) => said.push(format!("it ended with status {status}")),
                Exit::Signal(signal) => said.push(format!("it ended itself by signal {signal}")),
            }
            Ok(said)
        }
        _ => conclude(data, fed, &complaints).map(|()| Vec::new()),
    }
}
