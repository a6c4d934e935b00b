//! One stream on its way, from its claim to its end.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::Told;
use super::pump::{Passed, Pump};
use super::source::Source;
use crate::bucket_dump::Listing;
use crate::claim::{ClaimError, Claimed, SharedClaim};
use crate::cli::PipeArgs;
use crate::commands::upload::guard::{LOOK_AT_CLAIM, believe};
use crate::commands::upload::place::place_of;
use crate::commands::upload::stopped;
use crate::exit_status::{Failure, Status};
use crate::hasher::Hasher;
use crate::hint::{find, hinted};
use crate::model::content_check::ContentCheck;
use crate::model::dump_end::EndWanted;
use crate::model::manifest::{self, DumpStateWord, ManifestFile, ManifestHeader, ObjectRecord};
use crate::model::part_sizes::PartSizes;
use crate::model::record::{Kind, Record};
use crate::model::units::{ByteSize, first_few};
use crate::model::user_metadata::{DUMP_ID, MTIME};
use crate::object_writer::{Broken, Cut, Gate, ObjectWriter, PartMemory, Pending, Trouble, Uploads};
use crate::platform;
use crate::recorder::Recorder;
use crate::report::Report;
use crate::s3::{ErrorKind, Store, StoreError};
use crate::stop::Stop;

/// How long unfinished uploads may take to be aborted, and the claim to be marked, when we are told to stop.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where nobody waits for us.
const MARK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the thread that reads may take to say why it ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Between two looks at how much was sent.
const LOOK_AT_SENT: Duration = Duration::from_secs(1);
/// Names that a message has at most.
const NAMED_MAX: usize = 5;
/// What the object is, as the manifest has it.
const KIND: &str = "stream";

/// A stream on its way.
pub struct Session<'a> {
    args: &'a PipeArgs,
    store: Store,
    stop: &'a Stop,
    claim: SharedClaim,
    header: ManifestHeader,
    writer: ObjectWriter,
    source: Source,
}

impl<'a> Session<'a> {
    /// Of a place that is ours.
    pub fn new(
        args: &'a PipeArgs,
        store: &Store,
        stop: &'a Stop,
        claimed: Claimed,
        source: Source,
    ) -> std::io::Result<Self> {
        let claim = claimed.claim;
        let (prefix, header) = (claim.prefix().clone(), claim.header().clone());
        let settings = &args.transfer;
        let is_open = claim.wait_before_use().is_none();
        let claim = SharedClaim::new(claim);
        let record = Record::new(Kind::Streams, &header, place_of(store, &prefix));
        let writer = ObjectWriter {
            store: store.clone(),
            dump_id: header.dump_id.clone(),
            cut: Cut { part_size: settings.part_size.0, max_parts: settings.max_parts },
            write_only: args.destination.write_only,
            claim: claim.clone(),
            hasher: Hasher::new(settings.workers),
            gate: Gate::new(settings.workers, is_open),
            // What was begun is known by its name in the claim, and nothing of it could be continued: a record that ends
            // with us will do.
            uploads: Uploads::new(Arc::new(Recorder::new(platform::memory_file("record")?, record))),
            has_opaque_parts: AtomicBool::new(false),
            prefix,
        };
        Ok(Self { args, store: store.clone(), stop, claim, header, writer, source })
    }

    /// Takes the stream to its end, and commits it if it is whole.
    pub async fn run(&mut self, input: File, report: &Report, told: &mut Told) -> Result<(), Failure> {
        self.say_memory();
        let result = match Box::pin(self.take(input, report)).await {
            Ok((pending, passed)) => Box::pin(self.conclude(pending, passed, told)).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &result {
            self.clean_up(failure).await;
        }
        result
    }

    fn say_memory(&self) {
        let sizes = self.writer.cut.growing();
        let memory = self.args.stream.memory;
        let from = first_longer_than(sizes, memory.0);
        let (largest, from) = (ByteSize(sizes.largest()).human(), from.map(|from| ByteSize(from).human()));
        match from {
            None => info!("up to {largest} fit; {} of it are in memory at most", memory.human()),
            Some(from) => info!(
                "up to {largest} fit; {} of it are in memory at most up to {from}, and beyond that one part, which grows; a \
                 larger --part-size begins later to grow",
                memory.human()
            ),
        }
    }

    /// All of the stream, here or in the store, and known to be whole.
    async fn take(&self, input: File, report: &Report) -> Result<(Pending, Passed), Failure> {
        let received = async {
            let (pending, passed) = self.receive(input).await?;
            match self.judge(&passed).await {
                Ok(()) => Ok((pending, passed)),
                Err(failure) => {
                    self.writer.abandon(pending).await;
                    Err(failure)
                }
            }
        };
        tokio::select! {
            received = received => received,
            failure = self.source.failed() => Err(failure),
            failure = self.guard_claim() => Err(failure),
            signal = self.stop.wait() => Err(stopped(signal)),
            never = self.show(report) => never,
        }
    }

    async fn show<T>(&self, report: &Report) -> T {
        let progress = report.progress("uploading", 0, 0);
        let mut shown = 0;
        loop {
            let sent = self.store.sent_bytes();
            progress.advance(0, sent - shown);
            shown = sent;
            tokio::time::sleep(LOOK_AT_SENT).await;
        }
    }

    async fn receive(&self, input: File) -> Result<(Pending, Passed), Failure> {
        let key = self.writer.prefix.key(&self.args.stream.name).map_err(Failure::usage)?;
        let memory = PartMemory::new(1, self.args.transfer.part_size.0, self.args.stream.memory.0);
        let (sink, incoming) = self.writer.open_stream(&memory).await.map_err(Failure::failed)?;
        let pump = Pump {
            input,
            sink,
            compress: self.args.stream.compress,
            check: ContentCheck::of_stream(&self.args.incoming_name(), self.end_wanted()),
            sha256: self.args.destination.sha256,
        };
        let pumped = tokio::task::spawn_blocking(move || pump.run());
        let metadata = HashMap::from([
            (DUMP_ID.to_owned(), self.header.dump_id.clone()),
            (MTIME.to_owned(), self.header.started.as_second().to_string()),
        ]);
        match self.writer.receive(&key, metadata, incoming).await {
            // It has said that this was all.
            Ok(pending) => match pumped.await.map_err(Failure::failed)? {
                Ok(passed) => Ok((pending, passed)),
                Err(broken) => {
                    self.writer.abandon(pending).await;
                    Err(not_read(broken))
                }
            },
            Err(trouble) => Err(why_not_received(trouble, pumped).await),
        }
    }

    /// What SQL must end with.
    fn end_wanted(&self) -> EndWanted {
        match () {
            () if self.args.starts_producer() => EndWanted::WherePromised,
            () if self.args.stream.accept_eof => EndWanted::Never,
            () => EndWanted::Always,
        }
    }

    /// Whether the stream that has ended is whole.
    async fn judge(&self, passed: &Passed) -> Result<(), Failure> {
        self.source.ended_well().await?;
        let needs_content = self.end_wanted() == EndWanted::Always;
        let why = match &passed.broken {
            Some(why) => why.as_str(),
            None if needs_content && !passed.is_seen => "its content cannot be looked at, and nothing else tells",
            None => return Ok(()),
        };
        let error = anyhow!("the stream is not whole: {why}");
        let hint = match self.args.starts_producer() {
            true => {
                "in a pipeline of a shell only the last program's status counts: let that compress which is started here \
                     (--compress), or use `set -o pipefail`"
            }
            false => {
                "let the program be started here, `-- COMMAND`, whose exit status tells; --accept-eof takes the end of \
                      standard input for the end of the dump"
            }
        };
        Err(Failure::incomplete(hinted(error, hint)))
    }

    /// Makes the object and commits it. A stop that is asked for by now waits for that as long as for a program.
    async fn conclude(&mut self, pending: Pending, passed: Passed, told: &mut Told) -> Result<(), Failure> {
        let (stop, patience) = (self.stop, self.args.stream.stop_timeout);
        let stopped_in_vain = async {
            let signal = stop.wait().await;
            tokio::time::sleep(patience).await;
            signal
        };
        tokio::select! {
            committed = self.commit(pending, passed, told) => committed,
            failure = self.guard_claim() => Err(failure),
            signal = stopped_in_vain => Err(stopped(signal)),
        }
    }

    async fn commit(&self, pending: Pending, passed: Passed, told: &mut Told) -> Result<(), Failure> {
        self.claim.lock().await.check().await.map_err(Failure::failed)?;
        let object = self.writer.complete(pending).await.map_err(not_sent)?;
        let object = ObjectRecord { sha256: passed.sha256, ..object };
        told.bytes = Some(object.size);
        self.check_bucket(&object).await?;
        let mut header = self.header.clone();
        header.format = header.format.max(object.hash.format());
        header.state = DumpStateWord::Complete;
        header.dumper_exit = self.source.exit();
        (header.total_files, header.total_bytes) = (1, object.size);
        info!("{} came, {} are in the bucket", ByteSize(passed.read).human(), ByteSize(object.size).human());
        let name = self.args.stream.name.clone();
        let file = ManifestFile { name, kind: KIND.to_owned(), database: None, table: None, rows: None, object };
        told.manifest_sha256 = Some(self.write_manifest(header, Some(file)).await?);
        Ok(())
    }

    /// The prefix must hold exactly the stream.
    async fn check_bucket(&self, object: &ObjectRecord) -> Result<(), Failure> {
        if self.args.destination.write_only {
            return Ok(());
        }
        let listing = Listing::of(&self.store, &self.writer.prefix).await.map_err(Failure::failed)?;
        let mut wrong: Vec<_> = listing.strangers.named.iter().map(|key| format!("'{}'", key.escape_debug())).collect();
        let name = self.args.stream.name.as_str();
        wrong.extend(listing.names().filter(|other| other.as_str() != name).map(|other| format!("'{other}'")));
        if !wrong.is_empty() {
            let error = anyhow!("objects lie beside it that are not of it: {}", first_few(&wrong, NAMED_MAX));
            return Err(Failure::failed(error.context("the stream is not committed")));
        }
        let is_it = listing.find(name).is_some_and(|there| {
            there.size == object.size && (there.etag.is_none() || object.etag.is_none() || there.etag == object.etag)
        });
        if is_it {
            return Ok(());
        }
        let error = anyhow!("a listing of {} does not show '{name}' as it was put", self.uri());
        Err(Failure::failed(error.context("the stream is not committed")))
    }

    /// Writes the last manifest; returns its SHA-256.
    async fn write_manifest(&self, header: ManifestHeader, file: Option<ManifestFile>) -> Result<String, Failure> {
        let header = ManifestHeader { finished: Some(Timestamp::now()), ..header };
        let mut text = Vec::new();
        let written = manifest::write(&mut text, &header, file.into_iter());
        let file = written.and_then(|()| {
            let mut file = platform::memory_file("manifest")?;
            file.write_all(&text).map(|()| file)
        });
        let file = file.context("cannot write the manifest").map_err(Failure::failed)?;
        let put = async |key: &str, file: File, condition, is_checked| {
            Box::pin(self.writer.put_own(key, file, condition, is_checked)).await
        };
        self.claim.lock().await.finish(file, put).await.map_err(Failure::failed)?;
        Ok(HEXLOWER.encode(&Sha256::digest(&text)))
    }

    /// Lets parts be sent once the claim may be believed, and renews it. Ends where the prefix is another's.
    async fn guard_claim(&self) -> Failure {
        if let Err(error) = believe(&self.claim, &self.writer.gate).await {
            return lost(error);
        }
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(LOOK_AT_CLAIM).await;
            if !self.claim.lock().await.is_due(renewed) {
                continue;
            }
            match self.claim.note(|_| {}).await {
                Ok(()) => renewed = Instant::now(),
                Err(error @ ClaimError::Lost(_)) => return lost(error),
                Err(error) => warn!("the claim cannot be renewed (will be retried): {error}"),
            }
        }
    }

    /// Ends the program, aborts what was sent, and says in the claim why nothing came of it.
    async fn clean_up(&self, failure: &Failure) {
        let aborted = tokio::time::timeout(ABORT_TIMEOUT, self.writer.abort_all());
        let (aborted, ()) = tokio::join!(aborted, self.source.end(self.args.stream.stop_timeout));
        if aborted.is_err() {
            warn!(
                "what was sent could not be taken back in time: it is there until `delete` or `prune` removes this dump"
            );
        }
        let cannot =
            find::<StoreError>(&failure.error).is_some_and(|error| error.is_outage() || error.is_about_rights());
        if cannot || self.claim.lock().await.is_lost() {
            return;
        }
        let mut header = self.header.clone();
        header.state = DumpStateWord::Incomplete;
        header.reason = Some(failure.to_string());
        header.dumper_exit = self.source.exit();
        header.told_to_stop = matches!(failure.status, Status::Signal(_));
        let patience = if header.told_to_stop { ABORT_TIMEOUT } else { MARK_TIMEOUT };
        let mark = async {
            believe(&self.claim, &self.writer.gate).await.map_err(lost)?;
            self.write_manifest(header, None).await
        };
        match tokio::time::timeout(patience, mark).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!("that it is not whole cannot be written down in {}: {error}", self.uri()),
            Err(_) => warn!("that it is not whole could not be written down in {} in time", self.uri()),
        }
    }

    fn uri(&self) -> String {
        self.store.uri(&self.writer.prefix.directory())
    }
}

/// Where the first part begins that is longer than that.
fn first_longer_than(sizes: PartSizes, length: u64) -> Option<u64> {
    let parts = (1..=sizes.max_parts()?).filter_map(|number| sizes.part(number));
    parts.into_iter().find(|part| part.length > length).map(|part| part.offset)
}

/// Why a stream did not arrive: the thread that reads it knows better where it was the first to end.
async fn why_not_received(trouble: Trouble, pumped: JoinHandle<Result<Passed, Broken>>) -> Failure {
    let is_cut = matches!(trouble, Trouble::Local(_));
    match tokio::time::timeout(LAST_WORDS, pumped).await {
        Ok(Ok(Err(broken))) if is_cut => not_read(broken),
        _ => not_sent(trouble),
    }
}

fn not_read(broken: Broken) -> Failure {
    match broken {
        Broken::Input(error) => Failure::failed(anyhow!(error).context("the stream cannot be read")),
        Broken::Output(error) => Failure::failed(anyhow!(error).context("the stream cannot be sent")),
    }
}

fn not_sent(trouble: Trouble) -> Failure {
    let context = "the stream cannot be sent";
    match trouble {
        Trouble::Local(why) => Failure::failed(anyhow!(why).context(context)),
        Trouble::Lost(error) => lost(error),
        Trouble::Store(error) if error.kind == ErrorKind::NoSuchUpload => {
            let error = anyhow!(error).context("the store has lost what was sent of the stream");
            let hint = "nobody can read a stream twice: begin it anew; a lifecycle rule may abort unfinished uploads too early";
            Failure::failed(hinted(error, hint))
        }
        Trouble::Store(error) => Failure::failed(anyhow!(error).context(context)),
    }
}

fn lost(error: ClaimError) -> Failure {
    match error {
        ClaimError::Lost(_) => {
            let hint = "give each dump a prefix of its own, with {host} and the time in it";
            Failure::failed(hinted(anyhow!(error), hint))
        }
        ClaimError::Store(error) => Failure::failed(error),
    }
}
