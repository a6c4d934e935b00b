//! Before the first upload: mydumper is started, and the dump is found.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::no_disk::NoDisk;
use crate::aside::aside;
use crate::claim;
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{self, Child, Life, LivingDump, Sight, Sighted};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::file_kind::is_of_the_filesystem;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::identity::DumpIdentity;
use crate::model::left_out::LeftOut;
use crate::model::manifest::ClosedBy;
use crate::model::verdict::Ending;
use crate::program::AfterUs;
use crate::report::Report;
use crate::s3::Store;
use crate::stop::Stop;

/// Between two looks for a dump.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same without files: mydumper waits until its first rows are taken.
const LOOK_IN_HASTE: Duration = Duration::from_millis(10);

/// Starts mydumper, after all that can be checked before. With it comes the directory, locked, if it is there already.
pub async fn start_child(
    args: &UploadArgs,
    no_disk: Option<&NoDisk>,
    store: &Store,
    report: &Report,
) -> Result<Option<(Child, Option<Arc<DumpDir>>)>, Failure> {
    if !args.starts_mydumper() {
        refuse_own_pid(args.dump.pid.map(u32::cast_signed))?;
        return Ok(None);
    }
    let path = args.dump.dir.clone();
    let held = aside(move || hold_empty(&path)).await?;
    if args.destination.prefix.is_fixed() {
        let host = crate::platform::host_name();
        let prefix = args.destination.prefix.expand(&host, Timestamp::now()).map_err(Failure::usage)?;
        let directory = super::place::directory_of(&args.dump.dir);
        claim::check_free(store, &args.destination, &prefix, (&host, &directory)).await?;
    }
    let command = args.command.clone();
    let left_out = aside(move || dumper::left_out_by_command(&command)).await.unwrap_or_default();
    // Nothing is waited for behind this: a signal would end the wait, and leave a mydumper that nobody knows of.
    let with_rows = no_disk.map(|no_disk| no_disk.command(args));
    let child = Child::start(dumper::Start {
        command: with_rows.as_ref().unwrap_or(&args.command),
        directory: &args.dump.dir,
        keep_aws_environment: args.dump.keep_aws_env,
        on_line: report.child_output_wanted(),
        after_us: if no_disk.is_some() { AfterUs::Dies } else { AfterUs::GoesOn },
        helper: no_disk.map(|no_disk| no_disk.reception.helper()),
    })
    .map_err(Failure::usage)?;
    if let Some(no_disk) = no_disk {
        no_disk.reception.watch(child.pid());
    }
    info!(pid = child.pid(), "started {}", args.command[0].to_string_lossy());
    say_what_is_left_out(&left_out);
    Ok(Some((child, held)))
}

/// mydumper dumps no trigger, routine or event that it is not asked for, and says nothing of it.
fn say_what_is_left_out(left_out: &[LeftOut]) {
    let (options, not_asked): (Vec<_>, Vec<_>) =
        left_out.iter().filter_map(|what| Some((what.option()?, what.as_str()))).unzip();
    if !not_asked.is_empty() {
        let (not_asked, options) = (not_asked.join(", "), options.join(" "));
        warn!("mydumper was not asked for these, so they will not be in the dump: {not_asked} (add {options})");
    }
}

/// A process that we came from is not mydumper: paused, it would pause us, and it ends after us.
fn refuse_own_pid(pid: Option<i32>) -> Result<(), Failure> {
    let Some(pid) = pid else { return Ok(()) };
    let ours = rustix::process::getpid().as_raw_nonzero().get();
    let whose = match pid {
        _ if pid == ours => "mydumper2s3 itself",
        _ if dumper::ancestors(ours).contains(&pid) => "a process that started mydumper2s3",
        _ => return Ok(()),
    };
    let error = anyhow!("--pid {pid} is {whose}, not mydumper");
    Err(Failure::usage(hinted(error, "give mydumper's own process id: in a shell `$!`, right after `mydumper … &`")))
}

/// A dump of our own goes into an empty directory: what stands there is of another one. Locks it, if it is there.
fn hold_empty(path: &Path) -> Result<Option<Arc<DumpDir>>, Failure> {
    let directory = match DumpDir::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::usage(cannot_open(path, error))),
    };
    let names = directory.names().with_context(|| format!("cannot list '{}'", path.display()))?;
    match names.iter().find(|name| !is_of_the_filesystem(&name.to_string_lossy())) {
        None => locked(directory).map(Some),
        Some(name) => {
            let name = name.to_string_lossy();
            let error = anyhow!("'{}' is not empty: it holds '{}'", path.display(), name.escape_debug());
            let hint = "what stands there is no dump of mydumper that could be finished first; move it away";
            Err(Failure::usage(hinted(error, hint)))
        }
    }
}

/// Keeps a second program off the directory, as long as the result lives.
fn locked(directory: DumpDir) -> Result<Arc<DumpDir>, Failure> {
    let path = directory.path().display();
    match directory.lock() {
        Ok(true) => {}
        Ok(false) => {
            let error = anyhow!("another mydumper2s3 works on '{path}'");
            return Err(Failure::usage(hinted(error, "wait for it, or use one directory for each")));
        }
        Err(error) => {
            warn!("'{path}' cannot be locked, so a second mydumper2s3 would not be kept off: {error}");
        }
    }
    Ok(Arc::new(directory))
}

fn cannot_open(path: &Path, error: io::Error) -> anyhow::Error {
    let hint = "name the directory that mydumper writes into, and run as the user that runs mydumper";
    hinted(anyhow::Error::new(error).context(format!("cannot open the dump directory '{}'", path.display())), hint)
}

/// A dump that was found.
#[derive(Debug)]
pub struct Found {
    /// The directory that it was found in, locked.
    pub directory: Arc<DumpDir>,
    /// The dump.
    pub dump: LivingDump,
    /// Whether it was seen alive.
    pub seen_alive: bool,
}

/// Looks for a dump to upload.
pub struct Search<'a> {
    /// The settings.
    pub args: &'a UploadArgs,
    /// This host.
    pub host: &'a str,
    /// mydumper, if it is our child.
    pub child: Option<&'a Child>,
    /// A stop that was asked for ends the search.
    pub stop: &'a Stop,
    /// A dump that is done: not found again.
    pub done: Option<DumpIdentity>,
    /// When the search gives up, unless mydumper is our child.
    pub deadline: Instant,
}

impl Search<'_> {
    /// Waits for a dump; `None` when there is none in time, or our child ended without one.
    pub async fn run(&self, held: Option<Arc<DumpDir>>) -> Result<Option<Found>, Failure> {
        tokio::select! {
            found = self.search(held) => found,
            signal = self.stop.wait() => Err(super::stopped(signal)),
        }
    }

    async fn search(&self, held: Option<Arc<DumpDir>>) -> Result<Option<Found>, Failure> {
        let mut directory = held;
        let mut dying: Option<LivingDump> = None;
        info!("waiting for a dump in '{}'", self.args.dump.dir.display());
        loop {
            // Asked before the look: a child that is over by then has left all that there will be.
            let was_over = self.child.is_some_and(Child::is_over);
            let (path, held, host) = (self.args.dump.dir.clone(), directory.take(), self.host.to_owned());
            if let Some((there, sight)) = aside(move || look(&path, held, &host)).await? {
                match self.take(sight, &there, &mut dying).await? {
                    Some((dump, seen_alive)) => return self.found(&there, dump, seen_alive).await.map(Some),
                    None => debug!("no living dump yet"),
                }
                directory = Some(there);
            }
            let given_up = match self.child {
                // What it left behind may still begin a dump.
                Some(_) => was_over,
                None => Instant::now() >= self.deadline,
            };
            if given_up {
                // What is left is a dump that died, if there is one.
                return match (directory, dying) {
                    (Some(directory), Some(dump)) => self.found(&directory, dump, false).await.map(Some),
                    (Some(directory), None) => clear_failed_start(self.args, &directory).await.map(|()| None),
                    _ => Ok(None),
                };
            }
            tokio::select! {
                () = tokio::time::sleep(self.look_every()) => {}
                () = self.child_over(), if !was_over => {}
            }
        }
    }

    fn look_every(&self) -> Duration {
        let is_waited_for = self.child.is_some() && self.args.without.no_disk;
        self.args.dump.interval.min(if is_waited_for { LOOK_IN_HASTE } else { LOOK_EVERY })
    }

    /// Waits for the end of our child and of all that it started: then nothing more will come.
    async fn child_over(&self) {
        match self.child {
            Some(child) => child.wait_until_over().await,
            None => std::future::pending().await,
        }
    }

    /// A dump that is to be uploaded now. One that seems dead is put into `dying`: a living one may take its place.
    async fn take(
        &self,
        sight: Sight,
        directory: &Arc<DumpDir>,
        dying: &mut Option<LivingDump>,
    ) -> Result<Option<(LivingDump, bool)>, Failure> {
        match sight {
            Sight::Refused(why) => Err(Failure::usage(anyhow!(why))),
            Sight::Nothing | Sight::Starting => {
                *dying = None;
                Ok(None)
            }
            Sight::Finished(sighted) if self.done.as_ref() == Some(&sighted.identity) => Ok(None),
            Sight::Finished(sighted) => Ok(Some((self.follow(sighted, directory).await, false))),
            Sight::Partial(sighted) => {
                let mut dump = match dying.take() {
                    Some(dump) if dump.sighted.identity == sighted.identity => dump,
                    _ => self.follow(sighted, directory).await,
                };
                if matches!(dump.probe(directory).await, Life::Alive { .. }) {
                    return Ok(Some((dump, true)));
                }
                *dying = Some(dump);
                Ok(None)
            }
        }
    }

    async fn follow(&self, sighted: Sighted, directory: &Arc<DumpDir>) -> LivingDump {
        let (directory, child, pid) = (Arc::clone(directory), self.child.cloned(), self.args.dump.pid);
        aside(move || LivingDump::follow(sighted, &directory, child.as_ref(), pid.map(u32::cast_signed))).await
    }

    async fn found(&self, directory: &Arc<DumpDir>, dump: LivingDump, seen_alive: bool) -> Result<Found, Failure> {
        let there = Arc::clone(directory);
        let (why_not_removable, owner) = aside(move || {
            let lead = if there.identity(METADATA_PARTIAL).is_ok() { METADATA_PARTIAL } else { METADATA };
            (there.why_not_removable(lead), there.owner_of(METADATA_PARTIAL))
        })
        .await;
        if !self.args.dump.keep
            && let Some(why) = why_not_removable
        {
            let error =
                anyhow!("files in '{}' could not be removed after their upload: {why}", directory.path().display());
            let hint = "run as the user that runs mydumper, or leave the files in place with --keep";
            return Err(Failure::usage(hinted(error, hint)));
        }
        let word = if seen_alive { "running" } else { "ended" };
        info!(started = dump.sighted.identity.started, "found a dump ({word})");
        say_how_closed_files_are_known(&dump, owner);
        Ok(Found { directory: Arc::clone(directory), dump, seen_alive })
    }
}

/// The directory that stands at the path now, locked: a script may remove it and make it again before the dump. And what is
/// in it. Blocks.
fn look(path: &Path, held: Option<Arc<DumpDir>>, host: &str) -> Result<Option<(Arc<DumpDir>, Sight)>, Failure> {
    let there = match DumpDir::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::usage(cannot_open(path, error))),
    };
    let directory = match held.filter(|held| held.is_same(&there)) {
        Some(held) => held,
        None => locked(there)?,
    };
    let sight = dumper::look(&directory, host).map_err(Failure::usage)?;
    Ok(Some((directory, sight)))
}

fn say_how_closed_files_are_known(dump: &LivingDump, owner: Option<u32>) {
    let reason = dump.closed_by_reason;
    match dump.closed_by {
        ClosedBy::Lease => info!("closed files are known by leases: {reason}"),
        ClosedBy::Proc => info!("closed files are known by /proc: {reason}"),
        ClosedBy::End => {
            let owner = owner.map_or("unknown".to_owned(), |owner| owner.to_string());
            let ours = rustix::process::geteuid().as_raw();
            warn!(
                "nothing is uploaded before the dump has ended, because it cannot be known which files are closed \
                 ({reason}); the dump's user id is {owner}, ours is {ours}: run as the same user"
            );
        }
    }
}

/// What a mydumper left that failed before it began must not stop the nights that follow: it is removed and said once.
pub async fn clear_failed_start(args: &UploadArgs, directory: &Arc<DumpDir>) -> Result<(), Failure> {
    let (directory, keep) = (Arc::clone(directory), args.dump.keep);
    aside(move || clear(&directory, keep)).await
}

fn clear(directory: &DumpDir, keep: bool) -> Result<(), Failure> {
    let Some(identity) = dumper::failed_before_it_began(directory) else { return Ok(()) };
    let path = directory.path().display();
    let error = anyhow!("a mydumper failed before its dump began: '{METADATA_PARTIAL}' in '{path}' is empty");
    if keep {
        return Err(Failure::incomplete(hinted(error, "remove it before the next dump")));
    }
    match directory.remove_verified(METADATA_PARTIAL, &identity) {
        Ok(_) => Err(Failure::incomplete(hinted(error, "it was removed; mydumper's own messages say why it failed"))),
        Err(cause) => Err(Failure::failed(error.context(format!("it cannot be removed: {cause}")))),
    }
}

/// Whether another dump stands in a directory that is to get a new one; one that lives is somebody else's.
pub async fn has_earlier_dump(args: &UploadArgs, directory: &Arc<DumpDir>) -> Result<bool, Failure> {
    let (there, pid) = (Arc::clone(directory), args.dump.pid);
    let Some((mut dump, _)) = aside(move || standing(&there, pid)).await.map_err(Failure::usage)? else {
        return Ok(false);
    };
    if matches!(dump.probe(directory).await, Life::Alive { known: true }) {
        let error = anyhow!("another mydumper is writing into '{}'", directory.path().display());
        return Err(Failure::usage(hinted(error, "wait for it, or use one directory for each")));
    }
    Ok(true)
}

/// The dump that stands in the directory now, without waiting for one and without a lock.
pub async fn find_now(args: &UploadArgs) -> anyhow::Result<Option<Found>> {
    let (path, pid) = (args.dump.dir.clone(), args.dump.pid);
    aside(move || {
        let directory = match DumpDir::open(&path) {
            Ok(directory) => Arc::new(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_open(&path, error)),
        };
        let found = standing(&directory, pid)?;
        Ok(found.map(|(dump, seen_alive)| Found { directory, dump, seen_alive }))
    })
    .await
}

/// The dump that stands in a directory, and whether it has its last name yet: then it is not alive. Blocks.
fn standing(directory: &DumpDir, pid: Option<u32>) -> anyhow::Result<Option<(LivingDump, bool)>> {
    let (sighted, may_live) = match dumper::look(directory, &crate::platform::host_name())? {
        Sight::Partial(sighted) => (sighted, true),
        Sight::Finished(sighted) => (sighted, false),
        Sight::Nothing | Sight::Starting => return Ok(None),
        Sight::Refused(why) => return Err(anyhow!(why)),
    };
    Ok(Some((LivingDump::follow(sighted, directory, None, pid.map(u32::cast_signed)), may_live)))
}

/// What a dump's directory shows at its end, for a dump that was not seen alive.
pub async fn ending_of(dump: &LivingDump, directory: &Arc<DumpDir>) -> Ending {
    let (directory, lead) = (Arc::clone(directory), dump.sighted.lead.inode);
    let is_final = aside(move || directory.identity(METADATA).is_ok_and(|there| (there.device, there.inode) == lead));
    if is_final.await { Ending::Renamed } else { Ending::Died }
}
