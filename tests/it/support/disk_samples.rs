//! How many bytes lie in a directory, over time, as somebody else sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until it is asked for what it saw.
pub struct DiskWatch {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<DiskSamples>,
}

/// What was seen.
#[derive(Default)]
pub struct DiskSamples {
    bytes: Vec<(Instant, u64)>,
    first_data: Option<Instant>,
}

impl DiskWatch {
    pub fn on(dir: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = thread::spawn(move || {
            let mut samples = DiskSamples::default();
            while !stopped.load(Ordering::Relaxed) {
                samples.take(&dir);
                thread::sleep(EVERY);
            }
            samples
        });
        DiskWatch { stop, watcher }
    }

    pub fn end(self) -> DiskSamples {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().expect("a watcher of the disk")
    }
}

impl DiskSamples {
    fn take(&mut self, dir: &Path) {
        let now = Instant::now();
        let mut sum = 0;
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            // It may be gone since it was listed.
            sum += entry.metadata().map_or(0, |file| file.len());
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if self.first_data.is_none() && name.contains(".sql") && !name.contains("-schema") {
                self.first_data = Some(now);
            }
        }
        self.bytes.push((now, sum));
    }

    /// The most that ever lay there.
    pub fn peak(&self) -> u64 {
        self.peak_since(self.bytes[0].0)
    }

    /// The most from so long after the first data file on.
    #[track_caller]
    pub fn peak_after_first_data(&self, grace: Duration) -> u64 {
        self.peak_since(self.first_data.expect("a data file") + grace)
    }

    fn peak_since(&self, start: Instant) -> u64 {
        self.bytes.iter().filter(|(at, _)| *at >= start).map(|(_, bytes)| *bytes).max().expect("a look since then")
    }

    /// The most that was added within that time.
    pub fn most_added_within(&self, window: Duration) -> u64 {
        let mut most = 0;
        let mut earlier = self.bytes.iter().peekable();
        for (at, bytes) in &self.bytes {
            // The last look that is at least a window old: a little more than was asked for, never less.
            while earlier.peek().is_some_and(|(next, _)| *next + window + EVERY < *at) {
                earlier.next();
            }
            most = most.max(bytes.saturating_sub(earlier.peek().expect("an earlier look").1));
        }
        most
    }
}
