//! The program around the library: questions, answers, what is printed.

pub(crate) mod manual;
pub(crate) mod print;

use gfs2r_fsck::{Issue, Talk};
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Yes,
    No,
    Ask,
}

/// With the user.
pub(crate) struct Conversation {
    answers: Answers,
    quiet: bool,
    cancelled: Arc<AtomicBool>,
}

impl Conversation {
    pub(crate) fn new(answers: Answers, quiet: bool) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second time it is meant: stop at once. What is being written goes through a journal.
            let twice = signal_hook::flag::register_conditional_shutdown(signal, 32, cancelled.clone());
            let once = signal_hook::flag::register(signal, cancelled.clone());
            if twice.and(once).is_err() {
                // Then the signal does what it always does.
                continue;
            }
        }
        Self { answers, quiet, cancelled }
    }
}

impl Talk for Conversation {
    fn step(&mut self, what: &str) {
        if !self.quiet {
            // Nobody listens any more: no reason to stop in the middle.
            let _ = writeln!(io::stdout(), "{what}");
        }
    }
    fn approve(&mut self, issue: &Issue) -> bool {
        match self.answers {
            Answers::Yes => return true,
            Answers::No => return false,
            Answers::Ask => {}
        }
        let mut line = String::new();
        loop {
            let asked = write!(io::stdout(), "{issue}\nRepair it? (y/n/a) ").and_then(|()| io::stdout().flush());
            line.clear();
            let read = asked.and_then(|()| io::stdin().lock().read_line(&mut line));
            if !io::stdin().is_terminal() {
                // The answer was not echoed. An error of printing shows up at the next question.
                let _ = writeln!(io::stdout());
            }
            if self.cancelled() || !matches!(read, Ok(1..)) {
                // Nobody is there to answer.
                self.answers = Answers::No;
                return false;
            }
            match line.trim_start().bytes().next().map(|b| b.to_ascii_lowercase()) {
                Some(b'y') => return true,
                Some(b'n') => return false,
                Some(b'a') => {
                    self.answers = Answers::Yes;
                    return true;
                }
                _ => {}
            }
        }
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
