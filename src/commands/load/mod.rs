//! A dump into a server, without a disk that holds it: myloader reads each data file out of a pipe, and what goes in is
//! proved before.

mod beside;
pub(super) mod complaints;
mod differences;
pub(super) mod feed;
mod patience;
pub(super) mod stage;
mod tables;
pub(super) mod target;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use self::complaints::{Complaints, Listener};
use self::feed::{Fed, Feeding, Trouble};
use self::stage::Stage;
use self::tables::Tables;
use super::choose::chosen;
use super::reach::{first_answer, reach, stopped};
use crate::aside::aside;
use crate::bucket_dump::Listing;
use crate::cli::LoadArgs;
use crate::exit_status::{Failure, Status};
use crate::hasher::Hasher;
use crate::hint::hinted;
use crate::model::dump_metadata::without_sections;
use crate::model::file_kind::FileKind;
use crate::model::file_name::{FileName, METADATA};
use crate::model::load_target::LoadTarget;
use crate::model::loader_command::LoaderCommand;
use crate::model::object_key::Prefix;
use crate::model::replication::statements;
use crate::model::units::{ByteSize, Rate, first_few, human_duration};
use crate::object_hash::KnownHash;
use crate::platform::Exit;
use crate::program::{AfterUs, Launch, OnLine};
use crate::report::Report;
use crate::retrieval::NAMED_MAX;
use crate::retrieval::bring::{Bring, Proved};
use crate::retrieval::directory::RestoreDir;
use crate::retrieval::memory::Memory;
use crate::retrieval::myloader;
use crate::retrieval::pieces::{Pieces, Supply};
use crate::retrieval::pipes::Pipes;
use crate::retrieval::plan::{Plan, Selection, Wanted};
use crate::s3::{ObjectRef, Store};
use crate::stop::Stop;

/// Loads a dump and says how that went.
pub async fn run(args: &LoadArgs, report: &Report, stop: &Stop) -> Status {
    load(args, report, stop).await.unwrap_or_else(|failure| super::fail(report, &failure))
}

async fn load(args: &LoadArgs, report: &Report, stop: &Stop) -> Result<Status, Failure> {
    let began = Instant::now();
    let command = LoaderCommand::parse(&args.command).map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::usage(hinted(anyhow!("{error}"), hint))
    })?;
    let prepared = tokio::select! {
        prepared = prepare(args, &command, report) => prepared?,
        signal = stop.wait() => return Err(stopped(signal, "nothing was loaded")),
    };
    let (plan, target, prepared) = prepared;
    let data = data_of(&plan);
    let bytes: u64 = data.iter().map(|wanted| wanted.listed.size).sum();
    let line = command.complete(&prepared.stage.dump(), args.replace, args.into.as_deref());
    let tables = Tables::of(&data);
    let (table_count, rows) = (tables.count(), tables.rows());
    let (fed, complaints) =
        prepared.hand_over(&line, &data, report.takes_child_output("myloader"), report, stop).await?;
    let waited = fed.longest_wait;
    let concluded = conclude(&data, fed, &complaints);
    concluded.map_err(|failure| patience::named(failure, waited, target.as_ref()))?;
    say_loaded(report, table_count, rows, data.len(), bytes, began.elapsed());
    if let Some(target) = &target {
        target::say_what_replicas_lack(target, &command);
    }
    let statements = statements(plan.sources(), target.as_ref().map(LoadTarget::dialect));
    if !statements.is_empty() {
        report.data(&statements.join("\n")).await?;
    }
    plan.conclude()
}

fn say_loaded(report: &Report, tables: usize, rows: Option<u64>, files: usize, bytes: u64, took: Duration) {
    let counted = rows.map_or_else(String::new, |rows| format!(" with {rows} rows"));
    info!(
        "loaded {files} data files of {tables} tables{counted}, {} in {}, {}",
        ByteSize(bytes).human(),
        human_duration(took),
        Rate::of(bytes, took).human(),
    );
    report.figures(vec![
        ("tables", tables.into()),
        ("rows", rows.into()),
        ("files", files.into()),
        ("bytes", bytes.into()),
        ("duration_seconds", took.as_secs_f64().into()),
    ]);
}

/// Which file holds the rows of which LOAD DATA statement: both have the name of the chunk, up to `.sql` and `.dat`.
fn rows_of(data: &[&Wanted]) -> HashMap<usize, usize> {
    let stem = |wanted: &Wanted, kind: &str| {
        let name = wanted.listed.name.as_str();
        name.rfind(kind).map(|at| name[..at].to_owned())
    };
    let rows = data.iter().enumerate().filter(|(_, wanted)| wanted.kind == FileKind::DataText);
    let rows: HashMap<_, _> = rows.filter_map(|(number, wanted)| Some((stem(wanted, ".dat")?, number))).collect();
    let statements = data.iter().enumerate().filter(|(_, wanted)| wanted.kind == FileKind::Data);
    statements.filter_map(|(number, wanted)| Some((number, *rows.get(&stem(wanted, ".sql")?)?))).collect()
}

/// The files with rows, in the order of the pipes.
pub(super) fn data_of(plan: &Plan) -> Vec<&Wanted> {
    plan.wanted.iter().filter(|wanted| wanted.is_data()).collect()
}

/// All that can be done before myloader is started.
pub(super) struct Prepared {
    /// What myloader is shown.
    pub(super) stage: Stage,
    pipes: Pipes,
    /// Tidies up if we die.
    supply: Arc<Supply>,
    /// Of each data file, in the order of the pipes.
    pub(super) pieces: Vec<Pieces>,
}

async fn prepare(
    args: &LoadArgs,
    command: &LoaderCommand,
    report: &Report,
) -> Result<(Plan, Option<LoadTarget>, Prepared), Failure> {
    let store = reach(&args.connection, &args.dump.bucket).await?;
    let prefix = chosen(&args.dump, &store).await?;
    let listing = first_answer(&store, Listing::of(&store, &prefix).await)?;
    store.wait_for(Instant::now(), args.retry_for);
    let selection = Selection { tables: &args.tables, incomplete: args.incomplete, by_real_names: false };
    let mut plan = Plan::make(&selection, &store, &prefix, listing).await?;
    plan.refuse_stream()?;
    if args.into.is_some() {
        beside::keep_tables_alone(&mut plan)?;
    }
    let has_sequences = plan.wanted.iter().any(|wanted| wanted.kind == FileKind::SchemaSequence);
    myloader::refuse_unfit(command.program(), plan.generation(), has_sequences).await?;
    let target = target::check(args, command, &plan).await?;
    let prepared = Prepared::of(args, report, &store, &prefix, &mut plan).await?;
    if target.is_some() {
        differences::check(command, &plan, &prepared.stage).await?;
    }
    Ok((plan, target, prepared))
}

impl Prepared {
    /// Fetches what is a real file, and lays out pipes for all others.
    pub(super) async fn of(
        args: &LoadArgs,
        report: &Report,
        store: &Store,
        prefix: &Prefix,
        plan: &mut Plan,
    ) -> Result<Self, Failure> {
        plan.wanted.sort_by(|one, other| one.listed.name.cmp(&other.listed.name));
        let all: Vec<&Wanted> = plan.wanted.iter().collect();
        plan.check_archived(store, prefix, &all, args.workers).await?;
        let (data, files): (Vec<&Wanted>, Vec<&Wanted>) = all.into_iter().partition(|wanted| wanted.is_data());
        let supply = Arc::new(Supply {
            store: store.clone(),
            memory: Memory::new(args.max_memory.0),
            requests: Semaphore::new(args.workers),
        });
        let pieces = all_pieces(args, &supply, prefix, &data).await?;
        let names: Vec<FileName> = data.iter().map(|wanted| wanted.listed.name.clone()).collect();
        let (stage, pipes) = aside(move || Stage::make(&names)).await.map_err(Failure::failed)?;
        place(args, report, store, prefix, &stage, &files, plan).await?;
        Ok(Self { stage, pipes, supply, pieces })
    }

    /// Starts myloader by that line and feeds it. `on_line` gets what it says.
    pub(super) async fn hand_over(
        self,
        line: &[OsString],
        data: &[&Wanted],
        on_line: OnLine,
        report: &Report,
        stop: &Stop,
    ) -> Result<(Fed, Complaints), Failure> {
        let Self { stage, pipes, supply, pieces } = self;
        let bytes: u64 = data.iter().map(|wanted| wanted.listed.size).sum();
        let listener = Listener::default();
        let launch = Launch {
            line,
            keep_aws_environment: false,
            on_line: Some(listener.before(on_line)),
            // 1.x makes directories there, and leaves them when it is killed.
            temporary: Some(&stage.temporary()),
            stdout: None,
            after_us: AfterUs::Dies,
        };
        let (holds, in_helper) = (stage.root().holds(), stage.root().holds());
        let watch = pipes.watch(move |opened| in_helper.hold(opened.number, opened.writer.as_fd()));
        let watch = watch.map_err(|error| Failure::failed(anyhow!(error).context("cannot watch the pipes")))?;
        let program = launch.start().map_err(Failure::usage)?.watch(|| ());
        stage.root().watch(program.pid());
        watch.follow(program.pid());
        info!(pid = program.pid(), "started {}", line[0].to_string_lossy());
        let progress = Arc::new(report.progress("loading", data.len(), bytes));
        let fed =
            Feeding::new(program, watch, holds, pieces, rows_of(data), progress, Tables::of(data)).run(stop).await;
        drop(supply);
        let path = stage.root().path().to_owned();
        if let Err(error) = aside(move || stage.remove()).await {
            warn!("{error:#}; nothing in '{}' is needed any more", path.display());
        }
        Ok((fed, listener.heard()))
    }
}

/// How each data file will be proved. What cannot be is said now.
async fn all_pieces(
    args: &LoadArgs,
    supply: &Arc<Supply>,
    prefix: &Prefix,
    data: &[&Wanted],
) -> Result<Vec<Pieces>, Failure> {
    let pieces = futures_util::stream::iter(data).map(async |wanted| {
        let listed = &wanted.listed;
        let key = format!("{}{}", prefix.directory(), listed.name);
        let known = match wanted.record.as_ref().and_then(|record| KnownHash::of_record(record, listed.size)) {
            Some(known) => known,
            None => KnownHash::of_object(&supply.store, &key, listed).await?,
        };
        let object = ObjectRef { key, size: listed.size, etag: listed.etag.clone() };
        Ok::<_, crate::s3::StoreError>((&listed.name, Pieces::of(supply, object, &known, args.unproved)))
    });
    let pieces: Vec<_> = pieces.buffered(args.workers).try_collect().await.map_err(Failure::failed)?;
    let unproved: Vec<_> =
        pieces.iter().filter(|(_, pieces)| pieces.is_none()).map(|(name, _)| format!("'{name}'")).collect();
    if !unproved.is_empty() {
        return Err(cannot_be_proved(&unproved));
    }
    Ok(pieces.into_iter().filter_map(|(_, pieces)| pieces).collect())
}

fn cannot_be_proved(names: &[String]) -> Failure {
    let count = names.len();
    let error = anyhow!("{count} files have no hash that could prove them: {}", first_few(names, NAMED_MAX));
    Failure::failed(hinted(error, "nothing was loaded; --unproved loads them as they are"))
}

/// Schema files and `metadata` are real files: they are small, and myloader reads them more than once.
async fn place(
    args: &LoadArgs,
    report: &Report,
    store: &Store,
    prefix: &Prefix,
    stage: &Stage,
    files: &[&Wanted],
    plan: &Plan,
) -> Result<(), Failure> {
    let directory = Arc::new(stage.directory().map_err(Failure::failed)?);
    let bytes = files.iter().map(|wanted| wanted.listed.size).sum();
    let bring = Bring {
        store,
        prefix,
        directory: &directory,
        workers: args.workers,
        hasher: Hasher::new(args.workers),
        requests: Semaphore::new(args.workers),
        progress: Some(report.progress("fetching schemas", files.len(), bytes)),
    };
    let brought = futures_util::stream::iter(files).map(async |wanted| {
        let proved = bring.bring(wanted).await.with_context(|| format!("cannot fetch '{}'", wanted.listed.name))?;
        Ok::<_, anyhow::Error>((proved == Proved::BySizeOnly).then(|| format!("'{}'", wanted.listed.name)))
    });
    let brought: Vec<_> = brought.buffer_unordered(args.workers).try_collect().await.map_err(Failure::failed)?;
    let unproved: Vec<_> = brought.into_iter().flatten().collect();
    if !unproved.is_empty() && !args.unproved {
        return Err(cannot_be_proved(&unproved));
    }
    if args.into.is_some() {
        let (tables, there) = (beside::tables(plan), Arc::clone(&directory));
        aside(move || beside::cut_foreign_keys(&tables, &there)).await.map_err(Failure::failed)?;
    }
    let sections = if args.tables.is_empty() { None } else { Some(plan.sections()) };
    write_metadata(&directory, plan, sections.as_ref()).context("cannot write metadata").map_err(Failure::failed)
}

/// `metadata` says what there is. What is not loaded is not in it; a dump that was never completed gets one.
fn write_metadata(
    directory: &RestoreDir,
    plan: &Plan,
    sections: Option<&HashSet<(String, Option<String>)>>,
) -> std::io::Result<()> {
    let mut text = match plan.salvaged_metadata() {
        Some(text) => text.as_bytes().to_vec(),
        None if sections.is_some() => directory.read(METADATA)?,
        None => return Ok(()),
    };
    if let Some(sections) = sections {
        let is_wanted =
            |database: &str, table: Option<&str>| sections.contains(&(database.to_owned(), table.map(str::to_owned)));
        text = without_sections(&text, is_wanted);
    }
    directory.write_metadata(&text)
}

/// Whether all of it is in the server; else why not, and what is incomplete there.
pub(super) fn conclude(data: &[&Wanted], fed: Fed, complaints: &Complaints) -> Result<(), Failure> {
    let unread: Vec<_> = data.iter().zip(&fed.is_done).filter(|(_, done)| !**done).map(|(wanted, _)| *wanted).collect();
    let name = |number: usize| data.get(number).map_or_else(String::new, |wanted| wanted.listed.name.to_string());
    let (status, error) = match fed.end {
        Ok(Exit::Status(0)) if unread.is_empty() && complaints.count == 0 => return Ok(()),
        Ok(Exit::Status(0)) if unread.is_empty() => {
            let (count, what) = (complaints.count, first_few(&complaints.kept, NAMED_MAX));
            (Status::Failure, anyhow!("myloader ended with status 0 and reported {count} errors: {what}"))
        }
        Ok(Exit::Status(0)) => {
            let names: Vec<_> = unread.iter().map(|wanted| format!("'{}'", wanted.listed.name)).collect();
            let error = anyhow!(
                "myloader ended with status 0 and left {} files unread: {}",
                names.len(),
                first_few(&names, NAMED_MAX)
            );
            (Status::Failure, error)
        }
        Ok(Exit::Status(status)) => (Status::Failure, anyhow!("myloader ended with status {status}")),
        Ok(Exit::Signal(signal)) => (Status::Failure, anyhow!("myloader was ended by signal {signal}")),
        Err(Trouble::Stopped(signal)) => (Status::Signal(signal), anyhow!("stopped by signal {signal}")),
        Err(Trouble::Different(number)) => {
            let error = anyhow!(
                "'{}' in the bucket is not what was uploaded (`mydumper2s3 verify --deep` shows what else is not)",
                name(number)
            );
            (Status::Difference, error)
        }
        Err(Trouble::Unknown(number)) => {
            let error = anyhow!(
                "'{}' has another hash than its ETag, which some stores make in another way: --unproved loads it as it is",
                name(number)
            );
            (Status::Failure, error)
        }
        Err(Trouble::Store(number, error)) => {
            (Status::Failure, anyhow::Error::new(error).context(format!("cannot fetch '{}'", name(number))))
        }
        Err(Trouble::Local(number, error)) => {
            let what = number.map_or_else(|| "the dump's files".to_owned(), |number| format!("'{}'", name(number)));
            (Status::Failure, anyhow!(error).context(format!("cannot hand {what} to myloader")))
        }
        Err(Trouble::Unread(number)) => (Status::Failure, anyhow!("myloader closed '{}' before its end", name(number))),
    };
    let error = hinted(error, what_is_incomplete(data, &fed.is_done));
    Err(Failure { status, error })
}

fn what_is_incomplete(data: &[&Wanted], is_done: &[bool]) -> String {
    let mut tables: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (wanted, done) in data.iter().zip(is_done) {
        let (files, left) = tables.entry(wanted.table()).or_default();
        *files += 1;
        *left += usize::from(!done);
    }
    let total = tables.len();
    tables.retain(|_, (_, left)| *left > 0);
    let named: Vec<_> =
        tables.iter().map(|(table, (files, left))| format!("{table} ({left} of {files} files missing)")).collect();
    match named.len() {
        0 => "the rows of all tables were handed over; what follows them (indexes, views, triggers) may be missing"
            .to_owned(),
        _ => format!(
            "{} of {total} tables are not whole on the server: {}; drop them before they are loaded again, which --tables and --replace do",
            named.len(),
            first_few(&named, NAMED_MAX)
        ),
    }
}
