//! Feeds myloader: each file that it opens gets its bytes, and its end when all of them were proved and written.
//!
//! The end of a pipe says that the file is whole. So a pipe is closed only when it is; and whatever fails, myloader is
//! killed and awaited first, and all pipes are closed after that.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::trace;

use super::tables::Tables;
use crate::platform::Exit;
use crate::program::Program;
use crate::report::Progress;
use crate::retrieval::pieces::{NoPiece, Pieces};
use crate::retrieval::pipes::{Opened, Watch};
use crate::s3::StoreError;
use crate::scratch_dir::Holds;
use crate::stop::Stop;

/// How long myloader may take to end by itself, and to say why, after it closed a file too early.
const OWN_END: Duration = Duration::from_secs(10);
/// How long what is left may take once myloader has ended: nobody reads any more.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Files up to so many bytes are fetched before they are opened.
const SMALL: u64 = 256 * 1024;
/// So many of them at a time.
const AHEAD_AT_ONCE: usize = 16;

/// Why a load failed; numbers are those of the files.
#[derive(Debug)]
pub enum Trouble {
    /// We were told to stop.
    Stopped(i32),
    /// The store did not give a file.
    Store(usize, StoreError),
    /// A file in the bucket has other bytes.
    Different(usize),
    /// A file in the bucket has another hash than its ETag, which need not be a hash of it.
    Unknown(usize),
    /// myloader closed a file before its end, and went on.
    Unread(usize),
    /// Something failed here, with one file or with all.
    Local(Option<usize>, io::Error),
}

/// What came of it.
pub struct Fed {
    /// How myloader ended, if that was its own doing.
    pub end: Result<Exit, Trouble>,
    /// Whether each file was written to its end.
    pub is_done: Vec<bool>,
    /// How long the rows of a LOAD DATA were waited for, at the longest; amid them the server has a patience of its own.
    pub longest_wait: Duration,
}

/// A file that was not opened yet.
enum Waiting {
    /// Nothing of it was fetched.
    Untouched(Box<Pieces>),
    /// Its first piece is being fetched, or in hand, which the second one tells.
    Primed(oneshot::Receiver<Box<Pieces>>, watch::Receiver<bool>),
    /// It was opened.
    Opened,
}

/// A load that is under way.
pub struct Feeding {
    program: Program,
    watch: Watch,
    /// Of each file, until it is opened.
    pieces: Vec<Waiting>,
    /// Small files that are fetched before they are opened, the next one first.
    ahead: VecDeque<usize>,
    primers: JoinSet<Result<(), Trouble>>,
    /// Of each file with a statement, the one with its rows.
    rows_of: HashMap<usize, usize>,
    progress: Arc<Progress>,
    tables: Tables,
    /// Pipes do not end when we die.
    holds: Holds,
    /// A second hold on the pipe of each file that is being written: whatever becomes of its writer, it does not end.
    open: Vec<Option<OwnedFd>>,
    is_done: Vec<bool>,
    longest_wait: Rc<Cell<Duration>>,
    writers: JoinSet<(usize, Result<(), Trouble>)>,
}

impl Feeding {
    /// Begins with nothing opened.
    ///
    /// `rows_of` leads from a file with a LOAD DATA statement to the one with its rows.
    pub fn new(
        program: Program,
        watch: Watch,
        holds: Holds,
        pieces: Vec<Pieces>,
        rows_of: HashMap<usize, usize>,
        progress: Arc<Progress>,
        tables: Tables,
    ) -> Self {
        let (count, ahead) = (pieces.len(), ahead(&pieces, &rows_of));
        Self {
            program,
            watch,
            pieces: pieces.into_iter().map(|pieces| Waiting::Untouched(Box::new(pieces))).collect(),
            ahead,
            primers: JoinSet::new(),
            rows_of,
            progress,
            tables,
            holds,
            open: (0..count).map(|_| None).collect(),
            is_done: vec![false; count],
            longest_wait: Rc::default(),
            writers: JoinSet::new(),
        }
    }

    /// Feeds until myloader ends, or something fails.
    pub async fn run(mut self, stop: &Stop) -> Fed {
        let end = match self.feed(stop).await {
            Ok(exit) => Ok(exit),
            Err(trouble) => self.end_loader(trouble).await,
        };
        // Here nobody reads any more: now pipes may close.
        self.primers.shutdown().await;
        self.writers.shutdown().await;
        Fed { end, is_done: self.is_done, longest_wait: self.longest_wait.get() }
    }

    async fn feed(&mut self, stop: &Stop) -> Result<Exit, Trouble> {
        let mut all_opened = false;
        self.fetch_ahead();
        let exit = loop {
            tokio::select! {
                opened = self.watch.next(), if !all_opened => match opened {
                    Some(Ok(opened)) => self.begin(opened)?,
                    Some(Err(error)) => return Err(Trouble::Local(None, error)),
                    None => all_opened = true,
                },
                Some(written) = self.writers.join_next() => self.end(written)?,
                // What cannot be had will not be had when it is opened: said now.
                Some(primed) = self.primers.join_next() => {
                    primed.map_err(|error| Trouble::Local(None, io::Error::other(error)))??;
                    self.fetch_ahead();
                }
                exit = self.program.wait() => break exit,
                signal = stop.wait() => return Err(Trouble::Stopped(signal)),
            }
        };
        // What was written last may not have been noted yet.
        let rest = async {
            while let Some(written) = self.writers.join_next().await {
                if self.end(written).is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(AFTERWARDS, rest).await;
        Ok(exit)
    }

    /// A file was opened: it gets its bytes from now on.
    fn begin(&mut self, opened: Opened) -> Result<(), Trouble> {
        let Opened { number, writer } = opened;
        let waiting = std::mem::replace(&mut self.pieces[number], Waiting::Opened);
        trace!(number, "a file was opened");
        // The server waits for rows from the moment that it has the statement, and not for long: so it gets that only when
        // there are rows to be sent.
        let rows_in_hand = self.rows_of.get(&number).copied().and_then(|rows| self.prime(rows));
        let held = writer.try_clone().map_err(|error| Trouble::Local(Some(number), error))?;
        self.open[number] = Some(held);
        let progress = Arc::clone(&self.progress);
        let waits = self.rows_of.values().any(|rows| *rows == number).then(|| Rc::clone(&self.longest_wait));
        self.writers.spawn_local(async move {
            let pieces = match waiting {
                Waiting::Untouched(pieces) => Some(pieces),
                Waiting::Primed(pieces, _) => match pieces.await {
                    Ok(pieces) => Some(pieces),
                    // It cannot be had, and that is being said.
                    Err(_) => pending().await,
                },
                Waiting::Opened => None,
            };
            if let Some(mut in_hand) = rows_in_hand
                && in_hand.wait_for(|is_in_hand| *is_in_hand).await.is_err()
            {
                pending::<()>().await;
            }
            let written = match pieces {
                Some(pieces) => write(number, writer, *pieces, &progress, waits).await,
                None => Err(Trouble::Local(Some(number), io::Error::other("it was opened twice"))),
            };
            (number, written)
        });
        Ok(())
    }

    /// Fetches the first piece of a file that is to be opened, unless it is; what is returned tells when it is in hand.
    fn prime(&mut self, number: usize) -> Option<watch::Receiver<bool>> {
        match std::mem::replace(&mut self.pieces[number], Waiting::Opened) {
            Waiting::Untouched(mut pieces) => {
                let ((sender, primed), (tell, in_hand)) = (oneshot::channel(), watch::channel(false));
                self.primers.spawn_local(async move {
                    pieces.prime().await.map_err(|error| trouble_of(number, error))?;
                    // Nobody takes it where all is over.
                    let _ = sender.send(pieces);
                    let _ = tell.send(true);
                    Ok(())
                });
                self.pieces[number] = Waiting::Primed(primed, in_hand);
            }
            waiting => self.pieces[number] = waiting,
        }
        match &self.pieces[number] {
            Waiting::Primed(_, in_hand) => Some(in_hand.clone()),
            _ => None,
        }
    }

    /// Small files cost a round trip each, which is longer than their loading: so the next ones are fetched before.
    fn fetch_ahead(&mut self) {
        while self.primers.len() < AHEAD_AT_ONCE
            && let Some(number) = self.ahead.front().copied()
        {
            match &self.pieces[number] {
                Waiting::Untouched(pieces) if !pieces.leave_room() => return,
                Waiting::Untouched(_) => drop(self.prime(number)),
                _ => {}
            }
            self.ahead.pop_front();
        }
    }

    /// A writer has ended. Only after success is its pipe closed.
    fn end(&mut self, written: Result<(usize, Result<(), Trouble>), tokio::task::JoinError>) -> Result<(), Trouble> {
        let (number, result) = written.map_err(|error| Trouble::Local(None, io::Error::other(error)))?;
        result?;
        self.open[number] = None;
        self.holds.release(number);
        self.is_done[number] = true;
        self.progress.advance(1, 0);
        self.tables.done(number);
        self.fetch_ahead();
        Ok(())
    }

    /// Ends myloader before any pipe is closed. If it is ending by itself its own end tells more.
    async fn end_loader(&mut self, trouble: Trouble) -> Result<Exit, Trouble> {
        if matches!(trouble, Trouble::Unread(_))
            && let Ok(exit) = tokio::time::timeout(OWN_END, self.program.wait()).await
            && exit != Exit::Status(0)
        {
            return Ok(exit);
        }
        self.program.kill();
        self.program.wait().await;
        Err(trouble)
    }
}

/// Small files, the largest first: 1.x loads those of many rows first. Rows as text are fetched with their statement.
fn ahead(pieces: &[Pieces], rows_of: &HashMap<usize, usize>) -> VecDeque<usize> {
    let is_rows: HashSet<_> = rows_of.values().collect();
    let mut small: Vec<_> =
        (0..pieces.len()).filter(|number| pieces[*number].size() <= SMALL && !is_rows.contains(number)).collect();
    small.sort_by_key(|number| Reverse(pieces[*number].size()));
    small.into()
}

/// A wait for the next piece. Its time counts however it ends.
struct Wait(Option<Rc<Cell<Duration>>>, Instant);

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(longest) = &self.0 {
            longest.set(longest.get().max(self.1.elapsed()));
        }
    }
}

async fn write(
    number: usize,
    writer: OwnedFd,
    mut pieces: Pieces,
    progress: &Progress,
    waits: Option<Rc<Cell<Duration>>>,
) -> Result<(), Trouble> {
    let mut writer = pipe::Sender::from_owned_fd(writer).map_err(|error| Trouble::Local(Some(number), error))?;
    loop {
        let wait = Wait(waits.clone(), Instant::now());
        let next = pieces.next().await;
        drop(wait);
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(()),
            Err(error) => return Err(trouble_of(number, error)),
        };
        match writer.write_all(&piece.bytes).await {
            Ok(()) => progress.advance(0, piece.bytes.len() as u64),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Trouble::Unread(number)),
            Err(error) => return Err(Trouble::Local(Some(number), error)),
        }
    }
}

fn trouble_of(number: usize, error: NoPiece) -> Trouble {
    match error {
        NoPiece::Store(error) => Trouble::Store(number, error),
        NoPiece::Different => Trouble::Different(number),
        NoPiece::Unknown => Trouble::Unknown(number),
        NoPiece::Local(error) => Trouble::Local(Some(number), error),
    }
}
