//! mydumper as our child, and all that it started.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::exit_status::judged;
use super::witness::Witness;
use super::writer::{Role, Writer};
use crate::aside::aside;
use crate::model::manifest::DumperExit;
use crate::platform::{self, Exit};
use crate::program::{AfterUs, Launch, OnLine, Program};

/// How long the dump directory may take to be looked at before it is ended.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How long mydumper is given to end on SIGTERM when it has written all that it had to.
const NOTHING_TO_LOSE: Duration = Duration::from_secs(2);
/// Between two looks at a process that is not our own child.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How mydumper is to be started.
pub struct Start<'a> {
    /// The program with its arguments; not empty.
    pub command: &'a [OsString],
    /// Where it will write.
    pub directory: &'a Path,
    /// Whether it inherits our access to the store.
    pub keep_aws_environment: bool,
    /// Gets its output, where that must pass through us.
    pub on_line: Option<OnLine>,
    /// What becomes of it when we die.
    pub after_us: AfterUs,
    /// A process of ours that has a session of its own, too.
    pub helper: Option<i32>,
}

/// A running mydumper.
#[derive(Debug, Clone)]
pub struct Child {
    program: Program,
    witness: Arc<Witness>,
}

impl Child {
    /// Starts it.
    pub fn start(start: Start<'_>) -> anyhow::Result<Self> {
        let Start { command: line, directory, keep_aws_environment, on_line, after_us, helper } = start;
        // Else who is orphaned among all that it starts would be out of sight.
        platform::adopt_orphans();
        let launched =
            Launch { line, keep_aws_environment, on_line, temporary: None, stdout: None, after_us }.start()?;
        let witness = Arc::new(Witness::begin(directory, launched.pid(), line, helper));
        let sees_end = Arc::clone(&witness);
        Ok(Self { program: launched.watch(move || sees_end.child_has_ended()), witness })
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.program.exit()
    }

    /// Who writes the dump of this lead, if that was seen from the child's first moment on.
    pub fn writer_of(&self, inode: (u64, u64)) -> Option<Writer> {
        self.witness.writer_of(inode)
    }

    /// What its end tells of the dump that it left, if it has ended.
    pub fn dumper_exit(&self) -> Option<DumperExit> {
        let writer = self.witness.writer();
        let own = writer.as_ref().filter(|writer| writer.role != Role::Child).map(Writer::exit);
        let is_writer = writer.is_some() && own.is_none();
        self.exit().map(|exit| judged(exit, is_writer, self.was_left_early(), own.flatten()))
    }

    /// Whether it ended before the dump did: then its status says nothing of the dump.
    pub fn was_left_early(&self) -> bool {
        self.witness.was_left_early()
    }

    /// Whether it has ended, and nobody is left of all that it started who could still write.
    pub fn is_over(&self) -> bool {
        *self.witness.is_over().borrow()
    }

    /// Whether the dump may not be done yet: then it can be told to stop. Something that a wrapper left running is none
    /// of the dump.
    pub async fn may_still_write(&self) -> bool {
        let is_unknown = self.witness.writer().is_none() && !self.is_over();
        self.exit().is_none() || self.stray_writer().is_some() || (is_unknown && !self.is_final().await)
    }

    /// Whether the dump's lead is known to have got its last name.
    async fn is_final(&self) -> bool {
        let witness = Arc::clone(&self.witness);
        tokio::time::timeout(LAST_LOOK, aside(move || witness.is_final())).await.unwrap_or(false)
    }

    /// All that is alive of it and of what it started, itself first.
    pub fn family(&self) -> Vec<i32> {
        let mut family = self.witness.family();
        family.sort_by_key(|pid| *pid != self.pid());
        family
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        self.program.wait().await
    }

    /// Waits for its end and that of all that it started.
    pub async fn wait_until_over(&self) {
        self.wait().await;
        // Nobody tells any more only where the witness is gone, and that is with us.
        let _ = self.witness.is_over().wait_for(|is_over| *is_over).await;
    }

    /// How many of its two ends have come: its own, and that of all that it started.
    pub fn ends(&self) -> usize {
        usize::from(self.exit().is_some()) + usize::from(self.is_over())
    }

    /// Waits until one more has come than there were; for ever when there is none more to come.
    pub async fn next_end(&self, before: usize) {
        let mut is_over = self.witness.is_over();
        while self.ends() <= before {
            tokio::select! {
                Some(_) = self.program.seen_end(), if self.exit().is_none() => {}
                Ok(_) = is_over.wait_for(|is_over| *is_over), if !self.is_over() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Ends it: it is asked first, and after `patience` all that it started is killed.
    ///
    /// Always by SIGTERM: SIGINT makes mydumper 1.0.1 ask a question that nobody answers.
    pub async fn stop(&self, patience: Duration) {
        let patience = if self.is_final().await { patience.min(NOTHING_TO_LOSE) } else { patience };
        self.signal(Signal::TERM);
        if tokio::time::timeout(patience, self.writer_and_child_end()).await.is_err() {
            self.kill();
            self.writer_and_child_end().await;
        }
    }

    async fn writer_and_child_end(&self) {
        self.wait().await;
        while self.stray_writer().is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Who writes the dump, lives, and is not our child itself.
    fn stray_writer(&self) -> Option<Writer> {
        self.witness.writer().filter(|writer| writer.role != Role::Child && !writer.has_ended())
    }

    fn signal(&self, signal: Signal) {
        self.program.signal(signal);
        if let Some(writer) = self.stray_writer() {
            let _ = writer.handle().signal(signal);
        }
    }

    /// Ends it and all that it started, at once.
    pub fn kill(&self) {
        self.program.kill();
        if let Some(writer) = self.stray_writer() {
            let _ = writer.handle().signal(Signal::KILL);
        }
    }
}
