//! A question to the person at the terminal.

use std::io::IsTerminal;

use super::{Report, Stream, escape};

impl Report {
    /// Whether somebody is there to answer: both ends must be a terminal, or the question is not seen.
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks, and blocks until a line was typed. Anything but a yes is a no, and so is the end of input, and a question that
    /// could not be asked.
    pub fn confirm(&self, question: &str) -> bool {
        self.clear_live();
        let asked = self.sink().data(Stream::Stderr, format!("{} [y/N] ", escape(question)).into_bytes());
        if !matches!(asked.blocking_recv(), Ok(Ok(()))) {
            return false;
        }
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(_) => is_yes(&answer),
            Err(_) => false,
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yesterday\n", false)] {
            assert_eq!(is_yes(answer), expected, "{answer:?}");
        }
    }
}
