//! How far a command is that knows its total, verify and restore; or that only knows what went, pipe.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Report;
use super::rate::RateMeter;
use super::status_line::{Throttle, fit};
use crate::model::units::{ByteSize, human_duration};

/// Reported to by any worker; drawn as a bar on a terminal. Ends when it is dropped.
pub struct Progress {
    report: Report,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// "verifying", "downloading"
    phase: &'static str,
    total_files: usize,
    total_bytes: u64,
    files: usize,
    bytes: u64,
    meter: RateMeter,
    redraw: Throttle,
}

impl Progress {
    pub(super) fn new(report: Report, phase: &'static str, total_files: usize, total_bytes: u64) -> Self {
        let state = State {
            phase,
            total_files,
            total_bytes,
            files: 0,
            bytes: 0,
            meter: RateMeter::default(),
            redraw: Throttle::new(Duration::from_millis(200)),
        };
        let progress = Self { report, state: Mutex::new(state) };
        progress.advance(0, 0);
        progress
    }

    /// That many more are done.
    pub fn advance(&self, files: usize, bytes: u64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.files += files;
        state.bytes = state.bytes.saturating_add(bytes);
        if !state.redraw.is_due(now) {
            return;
        }
        self.report.show_live(now, |width| state.line(now, width));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.report.clear_live();
    }
}

impl State {
    fn line(&mut self, now: Instant, width: usize) -> String {
        let rate = self.meter.observe(now, self.bytes);
        let rest = self.total_bytes.saturating_sub(self.bytes);
        let time_left = match (rest, rate.0) {
            (0, _) | (_, 0) => String::new(),
            (rest, rate) => format!("{} left", human_duration(Duration::from_secs(rest.div_ceil(rate)))),
        };
        let files = format!("{} of {} files", self.files, self.total_files);
        let bytes = match self.total_bytes {
            0 => ByteSize(self.bytes).human(),
            total => format!("{} of {}", ByteSize(self.bytes).human(), ByteSize(total).human()),
        };
        fit(
            vec![
                (0, self.phase.to_owned()),
                (5, bar(self.bytes, self.total_bytes)),
                (1, if self.total_files > 0 { files } else { String::new() }),
                (2, if self.total_bytes > 0 || self.total_files == 0 { bytes } else { String::new() }),
                (4, if rate.0 > 0 { rate.human() } else { String::new() }),
                (3, time_left),
            ],
            width,
        )
    }
}

/// `[#####-----]`, or nothing where there are no bytes to count.
fn bar(done: u64, total: u64) -> String {
    const CELLS: u64 = 20;
    if total == 0 {
        return String::new();
    }
    let filled = (u128::from(done.min(total)) * u128::from(CELLS) / u128::from(total)) as usize;
    format!("[{}{}]", "#".repeat(filled), "-".repeat(CELLS as usize - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(files: usize, bytes: u64) -> State {
        State {
            phase: "verifying",
            total_files: 348,
            total_bytes: 10 << 30,
            files,
            bytes,
            meter: RateMeter::default(),
            redraw: Throttle::new(Duration::ZERO),
        }
    }

    #[test]
    fn the_line_tells_what_is_done_and_what_is_left() {
        let (mut state, start) = (state(0, 0), Instant::now());
        assert_eq!(state.line(start, 200), "verifying · [--------------------] · 0 of 348 files · 0 B of 10.0 GiB");
        (state.files, state.bytes) = (120, 5 << 30);
        let later = start + Duration::from_secs(8);
        assert_eq!(
            state.line(later, 200),
            "verifying · [##########----------] · 120 of 348 files · 5.0 GiB of 10.0 GiB · 640 MiB/s · 8.0s left"
        );
        assert_eq!(state.line(later, 60), "verifying · 120 of 348 files · 5.0 GiB of 10.0 GiB");
    }

    #[test]
    fn no_bytes_no_bar() {
        let mut state = State { total_bytes: 0, ..state(3, 0) };
        assert_eq!(state.line(Instant::now(), 200), "verifying · 3 of 348 files");
    }

    #[test]
    fn of_a_stream_only_what_went_is_known() {
        let mut state = State { total_files: 0, total_bytes: 0, ..state(0, 5 << 20) };
        assert_eq!(state.line(Instant::now(), 200), "verifying · 5.0 MiB");
    }

    #[test]
    fn more_than_everything_is_everything() {
        assert_eq!(bar(u64::MAX, 5), "[####################]");
    }
}
