//! Beside our child from its first moment: who opened the dump's lead, whether our child outlived it, and what of all
//! that it started is still there.
//!
//! A thread of its own: a dump of a tenth of a second is over before the next look for one, and what must be asked of
//! `/proc` takes its time.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tracing::{info, warn};

use super::kinship::descendants;
use super::writer::{Role, Writer};
use crate::dump_dir::DumpDir;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::reminder::Reminder;
use crate::model::units::human_duration;
use crate::platform::{self, Kinship, Lease, Process};

/// Between two looks for the lead, at first: one look is one question to the kernel.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The same for a child that takes its time, and while its family is waited for.
const PATIENT: Duration = Duration::from_millis(20);
/// Between two looks for a process that is called mydumper, at first and later: each reads a handful of files.
const LOOK_FOR_NAME_EVERY: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
/// How long a child is looked at in haste.
const HASTE: Duration = Duration::from_secs(10);
/// The longest time between two searches for a writer that is not to be seen: each goes through all of `/proc`.
const SEARCH_EVERY_MAX: Duration = Duration::from_secs(60);
/// How long processes that our child left behind are waited for when they have no file of the dump open: one of them may
/// be about to write one.
const LINGER: Duration = Duration::from_secs(5);
/// How long a child that does not end after its last line is waited for in silence.
const MENTIONED_AFTER: Duration = Duration::from_secs(60);
/// How long processes that still write are waited for in silence.
const FAMILY_SILENCE: Duration = Duration::from_secs(2);

/// What is seen of our child and of those whom it started.
#[derive(Debug)]
pub struct Witness(Arc<Scene>);

#[derive(Debug)]
struct Scene {
    path: PathBuf,
    child: i32,
    /// A process of ours that is none of the child's, though in another session than we are.
    helper: Option<i32>,
    seen: Mutex<Seen>,
    is_over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Device and inode of the lead, and who opened it.
    lead: Option<((u64, u64), Option<Writer>)>,
    /// Who is mydumper by its name: it writes the dump where nobody was seen to.
    named: Option<Writer>,
    /// Once our child has ended: whether the dump was still being written then, or had not even begun.
    child_left: Option<bool>,
}

impl Witness {
    /// Looks on from now: right after the start, so that nothing is missed.
    pub fn begin(path: &Path, child: i32, command: &[OsString], helper: Option<i32>) -> Self {
        let seen = Mutex::new(Seen { named: Writer::by_command(child, command), ..Seen::default() });
        let is_over = watch::Sender::new(false);
        let scene = Arc::new(Scene { path: path.to_owned(), child, helper, seen, is_over });
        let weak = Arc::downgrade(&scene);
        let thread = std::thread::Builder::new().name("witness".to_owned());
        if let Err(error) = thread.spawn(move || look_on(&weak)) {
            warn!("mydumper cannot be watched from a thread of its own: {error}");
            scene.is_over.send_replace(true);
        }
        Self(scene)
    }

    /// Who opened the lead of that inode, if that was seen.
    pub fn writer_of(&self, inode: (u64, u64)) -> Option<Writer> {
        let seen = self.0.seen();
        let writer = seen.lead.as_ref().filter(|(lead, _)| *lead == inode).and_then(|(_, writer)| writer.clone());
        writer.or_else(|| seen.named.clone())
    }

    /// Who opened the lead last.
    pub fn writer(&self) -> Option<Writer> {
        self.0.writer()
    }

    /// Called when our child has just ended, before anything else happens.
    pub fn child_has_ended(&self) {
        let writer = self.writer();
        let left = match &writer {
            Some(Writer { role: Role::Child, .. }) => false,
            Some(writer) => !writer.has_ended(),
            None => self.0.is_unfinished(),
        };
        self.0.seen().child_left = Some(left);
    }

    /// Whether our child ended before the dump did: then its status says nothing of the dump.
    pub fn was_left_early(&self) -> bool {
        self.0.seen().child_left == Some(true)
    }

    /// Whether the dump's lead has got its last name.
    pub fn is_final(&self) -> bool {
        self.0.is_final()
    }

    /// Our child and all that it started, as far as they live.
    pub fn family(&self) -> Vec<i32> {
        relatives(&self.0).iter().map(|process| process.pid).collect()
    }

    /// Tells when our child has ended and nobody whom it started is left to write.
    pub fn is_over(&self) -> watch::Receiver<bool> {
        self.0.is_over.subscribe()
    }
}

impl Scene {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// Device and inode under a name, without opening anything.
    fn inode(&self, name: &str) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::symlink_metadata(self.path.join(name)).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    fn writer(&self) -> Option<Writer> {
        let seen = self.seen();
        seen.lead.as_ref().and_then(|(_, writer)| writer.clone()).or_else(|| seen.named.clone())
    }

    fn writer_pid(&self) -> Option<i32> {
        self.writer().map(|writer| writer.process.pid)
    }

    fn is_final(&self) -> bool {
        let lead = self.seen().lead.as_ref().map(|(inode, _)| *inode);
        lead.is_some() && self.inode(METADATA) == lead
    }

    /// Whether somebody still has the lead open, or there is no dump yet. What cannot be asked counts so, too.
    fn is_unfinished(&self) -> bool {
        let lead = DumpDir::open(&self.path).and_then(|directory| directory.open_file(METADATA_PARTIAL));
        match lead {
            Ok(lead) => !matches!(platform::probe_lease(&lead), Lease::NoWriter),
            Err(_) => self.inode(METADATA).is_none(),
        }
    }

    /// Whether the lead's writer is yet to be found. One that has ended may have made room for another.
    fn wants_writer(&self, inode: (u64, u64)) -> bool {
        match &self.seen().lead {
            Some((known, Some(writer))) => *known != inode || writer.has_ended(),
            _ => true,
        }
    }

    /// Until somebody is known: a wrapper becomes mydumper, or starts it, after a while.
    fn look_for_name(&self) {
        let is_wanted = {
            let seen = self.seen();
            seen.named.is_none() && !matches!(seen.lead, Some((_, Some(_))))
        };
        if is_wanted && let Some(named) = Writer::by_name(self.child, &self.path) {
            self.seen().named = Some(named);
        }
    }

    fn look_for_writer(&self, inode: (u64, u64)) -> bool {
        let child = self.seen().child_left.is_none().then_some(self.child);
        let found = DumpDir::open(&self.path).ok().and_then(|directory| Writer::find(&directory, inode, child, None));
        let has_found = found.is_some();
        let mut seen = self.seen();
        let earlier = seen.lead.take().filter(|(known, _)| *known == inode).and_then(|(_, writer)| writer);
        seen.lead = Some((inode, found.or(earlier)));
        has_found
    }
}

/// The thread's whole life: ends when our child and its family have, or when nobody wants to know any more.
fn look_on(scene: &Weak<Scene>) {
    let began = Instant::now();
    let (mut search_again, mut search_every) = (began, PATIENT);
    let mut look_for_name = began;
    let mut family = Family::default();
    let mut late = Reminder::new(Instant::now(), MENTIONED_AFTER);
    loop {
        let Some(scene) = scene.upgrade() else { return };
        let now = Instant::now();
        let lead = scene.inode(METADATA_PARTIAL);
        if now >= look_for_name {
            scene.look_for_name();
            look_for_name = now + LOOK_FOR_NAME_EVERY[usize::from(now - began > HASTE)];
        }
        if let Some(inode) = lead.filter(|inode| scene.wants_writer(*inode))
            && now >= search_again
        {
            let has_found = scene.look_for_writer(inode);
            search_every = if has_found { PATIENT } else { (search_every * 2).min(SEARCH_EVERY_MAX) };
            search_again = if has_found { now } else { now + search_every };
        }
        let child_has_ended = scene.seen().child_left.is_some();
        if child_has_ended && family.is_gone(&scene, now) {
            scene.is_over.send_replace(true);
            return;
        }
        if lead.is_some() || !scene.is_final() {
            late = Reminder::new(now, MENTIONED_AFTER);
        } else if let Some(so_long) = late.is_due(now) {
            warn!(
                pid = scene.writer_pid().filter(|_| child_has_ended).unwrap_or(scene.child),
                "the dump's metadata was finished {} ago, but what was started still runs: nothing is committed before its end",
                human_duration(so_long)
            );
        }
        let is_found = scene.seen().lead.is_some();
        drop(scene);
        std::thread::sleep(if is_found || now - began > HASTE { PATIENT } else { LOOK_EVERY });
    }
}

/// Those whom our child started, after its end.
#[derive(Default)]
struct Family {
    /// When our child's end was noticed, and when one of them was last seen with a file of the dump open.
    since: Option<Instant>,
    wrote: Option<Instant>,
    is_said: bool,
}

impl Family {
    /// Whether nobody is left who could write.
    fn is_gone(&mut self, scene: &Scene, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let left = relatives(scene);
        if left.is_empty() {
            return true;
        }
        let directory = std::fs::canonicalize(&scene.path).unwrap_or_default();
        let writer = scene.writer_pid();
        let writing = left.iter().find(|process| Some(process.pid) == writer || process.has_open_in(&directory));
        if let Some(process) = writing {
            self.wrote = Some(now);
            if !self.is_said && now - since > FAMILY_SILENCE {
                self.is_said = true;
                info!(
                    pid = process.pid,
                    "waiting for '{}', which mydumper started and which still writes", process.name
                );
            }
            return false;
        }
        let is_gone = now - self.wrote.unwrap_or(since) > LINGER;
        if let Some(process) = left.first().filter(|_| is_gone) {
            warn!(
                pid = process.pid,
                "'{}' still runs, which mydumper's command started; it has no file of the dump open and is not waited for",
                process.name
            );
        }
        is_gone
    }
}

/// What is alive of our child's session, and of those who left it for one of their own: orphaned, they are our children.
/// Everything else that we started is in our own session. On the way those who have ended are let go.
fn relatives(scene: &Scene) -> Vec<Process> {
    let ours = rustix::process::getpid().as_raw_nonzero().get();
    let our_session = Kinship::of(ours).map_or(ours, |kinship| kinship.session);
    let all = platform::kinships();
    let mut family = relatives_of(&all, ours, our_session, scene.child);
    family.retain(|kinship| Some(kinship.pid) != scene.helper);
    let writer = scene.writer_pid();
    for orphan in family.iter().filter(|kinship| kinship.is_gone && kinship.parent == ours) {
        // How our child and the writer ended is asked for elsewhere, and that reaps them.
        if orphan.pid != scene.child && Some(orphan.pid) != writer {
            platform::reap_orphan(orphan.pid);
        }
    }
    family.iter().filter(|kinship| !kinship.is_gone).filter_map(|kinship| Process::find(kinship.pid)).collect()
}

fn relatives_of(all: &[Kinship], ours: i32, our_session: i32, session: i32) -> Vec<Kinship> {
    let descendants: HashSet<i32> = descendants(all, ours).into_iter().collect();
    let is_relative = |kinship: &&Kinship| {
        let descends = kinship.session != our_session && descendants.contains(&kinship.pid);
        kinship.session == session || descends
    };
    all.iter().filter(is_relative).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_the_childs_session_and_who_left_it() {
        let kin = |pid, parent, session| Kinship { pid, parent, session, is_gone: false };
        // We are 10, our child was 20.
        let all = [
            kin(1, 0, 1),
            kin(10, 1, 5),
            // A helper of ours, in our session.
            kin(11, 10, 5),
            // An orphan in our child's session, its compressor, one that made a session of its own, and its child.
            kin(21, 10, 20),
            kin(22, 21, 20),
            kin(23, 10, 23),
            kin(24, 23, 23),
            // Somebody else's.
            kin(30, 1, 30),
        ];
        let family: Vec<_> = relatives_of(&all, 10, 5, 20).iter().map(|kinship| kinship.pid).collect();
        assert_eq!(family, [21, 22, 23, 24]);
    }
}
