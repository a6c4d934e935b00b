//! The last line of a terminal: a spinner that turns by itself, so that one sees the program live while nothing changes,
//! and how it stands.

use std::time::{Duration, Instant};

/// A turn of the spinner, and what one sees of a line that changes all the time.
const FRAME: Duration = Duration::from_millis(150);
const SPINNER: [char; 8] = ['⠁', '⠂', '⠄', '⡀', '⢀', '⠠', '⠐', '⠈'];
/// Where a terminal does not say how wide it is.
const COLUMNS: usize = 80;

pub struct LiveLine {
    line: String,
    turns: usize,
    /// When it was drawn; not if it does not stand there.
    drawn: Option<Instant>,
}

impl LiveLine {
    /// Takes it away.
    pub const CLEAR: &[u8] = b"\r\x1b[2K";

    pub fn new(line: String) -> Self {
        Self { line, turns: 0, drawn: None }
    }

    pub fn set(&mut self, line: String) {
        self.line = line;
    }

    /// Something took its place.
    pub fn redraw(&mut self) {
        self.drawn = None;
    }

    pub fn until_next_frame(&self) -> Duration {
        self.drawn.map_or(Duration::ZERO, |drawn| FRAME.saturating_sub(drawn.elapsed()))
    }

    /// What draws it over itself.
    pub fn frame_if_due(&mut self) -> Option<Vec<u8>> {
        if !self.until_next_frame().is_zero() {
            return None;
        }
        self.drawn = Some(Instant::now());
        self.turns += 1;
        let spinner = SPINNER[self.turns % SPINNER.len()];
        // The terminal may have become narrower since, and a line that wraps cannot be taken away.
        let line: String = self.line.chars().take(width()).collect();
        Some(format!("\r{spinner} {line}\x1b[K").into_bytes())
    }
}

/// The columns that a line may take: less the spinner and its space; and a terminal may wrap when its last is written.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let columns = size.map_or(COLUMNS, |size| usize::from(size.ws_col));
    (if columns == 0 { COLUMNS } else { columns }).saturating_sub(3)
}
