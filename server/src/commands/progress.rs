//! How far a long job has come: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(2);

/// How far a job has come that goes through events.
pub(crate) struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    said: std::sync::Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(
            ProgressStyle::with_template(
                "{msg} {wide_bar} {human_pos}/{human_len}  {per_sec}  ETA {eta}",
            )
            .expect("a constant template"),
        );
        Self {
            bar,
            is_terminal,
            said: std::sync::Mutex::new(Instant::now()),
        }
    }

    /// What is done now.
    pub(crate) fn begin(&self, what: &'static str, length: u64) {
        if self.bar.message() != what {
            self.bar.set_message(what);
            self.bar.set_position(0);
            self.bar.reset_eta();
        }
        self.bar.set_length(length);
    }

    /// So much of it is done.
    pub(crate) fn at(&self, position: u64) {
        self.bar.set_position(position);
        let Ok(mut said) = self.said.lock() else {
            return;
        };
        if !self.is_terminal && said.elapsed() >= EVERY {
            *said = Instant::now();
            eprintln!(
                "{}: {position} of {}, {:.0}/s, ETA {}",
                self.bar.message(),
                self.bar.length().unwrap_or_default(),
                self.bar.per_sec(),
                HumanDuration(self.bar.eta()),
            );
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
