//! What myloader complains of. Its exit status does not tell: 0.10.1 ends with 0 whatever becomes of a statement.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::program::OnLine;

/// Complaints that are kept by their words.
const KEPT_MAX: usize = 5;
/// The most of each that is kept, in characters.
const LENGTH_MAX: usize = 300;

/// The complaints of one run.
#[derive(Debug, Default, Clone)]
pub struct Complaints {
    /// All of them.
    pub count: usize,
    /// The first.
    pub kept: Vec<String>,
}

/// What listens to myloader.
#[derive(Debug, Clone, Default)]
pub struct Listener(Arc<Mutex<Complaints>>);

impl Listener {
    /// Listens, and passes each line on.
    pub fn before(&self, next: OnLine) -> OnLine {
        let listener = self.clone();
        Arc::new(move |line, is_stderr| {
            if let Some(complaint) = complaint(line) {
                let mut complaints = listener.0.lock();
                complaints.count += 1;
                if complaints.kept.len() < KEPT_MAX {
                    complaints.kept.push(complaint);
                }
            }
            next(line, is_stderr);
        })
    }

    /// What was heard so far.
    pub fn heard(&self) -> Complaints {
        self.0.lock().clone()
    }
}

/// `** (myloader:17820): CRITICAL **: 02:56:30.498: Error restoring shop.t from file …`: GLib's form of `g_critical` in the
/// program itself. What GLib complains of by itself has another name before `CRITICAL`.
fn complaint(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let (_, rest) = line.split_once("): CRITICAL **: ").or_else(|| line.split_once("): ERROR **: "))?;
    // The time of day.
    let text = rest.split_once(": ").filter(|(time, _)| time.bytes().all(|byte| b"0123456789:.".contains(&byte)));
    let text = text.map_or(rest, |(_, text)| text);
    Some(text.trim().chars().take(LENGTH_MAX).collect::<String>().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_from_other_words() {
        let of = |line: &str| complaint(line.as_bytes());
        let text = "** (myloader:17820): CRITICAL **: 02:56:30.498: Error restoring shop.t: Duplicate entry '1'";
        assert_eq!(of(text).as_deref(), Some("Error restoring shop.t: Duplicate entry \\'1\\'"));
        assert_eq!(of("** (myloader:1): CRITICAL **: no time here").as_deref(), Some("no time here"));
        assert_eq!(of("** Message: 02:56:30.498: 4 threads created"), None);
        assert_eq!(of("(myloader:1): GLib-CRITICAL **: 02:56:30.498: g_key_file_free: assertion failed"), None);
        assert_eq!(of("** (myloader:1): WARNING **: 02:56:30.498: zstd command not found"), None);
    }
}
