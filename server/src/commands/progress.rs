//! The progress of a long command: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two drawings of the bar.
const DRAWN: Duration = Duration::from_millis(100);
/// Characters of a full bar.
const WIDTH: usize = 20;
/// Puts the cursor at the beginning of the line and clears the line.
const CLEAR: &str = "\r\x1b[K";

/// Reports progress on standard error.
pub(super) struct Progress {
    is_terminal: bool,
    /// The time between two reports.
    every: Duration,
    stage: Mutex<Stage>,
}

/// A part of the work.
struct Stage {
    name: &'static str,
    /// The size of the whole, in events or bytes.
    of: u64,
    begun: Instant,
    /// The time of the next report.
    next: Instant,
}

impl Progress {
    /// Elsewhere than on a terminal there are `every` seconds between two lines.
    pub(super) fn new(every: Duration) -> Self {
        let (is_terminal, now) = (stderr().is_terminal(), Instant::now());
        let every = if is_terminal { DRAWN } else { every };
        let stage = Stage {
            name: "",
            of: 0,
            begun: now,
            next: if is_terminal { now } else { now + every },
        };
        Self {
            is_terminal,
            every,
            stage: Mutex::new(stage),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Begins a stage, or changes the size of the present one.
    pub(super) fn begin(&self, name: &'static str, of: u64) {
        let mut stage = self.stage();
        if stage.name != name {
            stage.name = name;
            stage.begun = Instant::now();
        }
        stage.of = of;
    }

    /// So much of the stage is done.
    pub(super) fn at(&self, done: u64) {
        self.tell(done, |stage, seconds| {
            let (name, of, rate) = (stage.name, stage.of, per_second(done, seconds));
            format!("{name}: {done} of {of}, {rate:.0}/s")
        });
    }

    /// So many lines of a file, and so many of its bytes, are done.
    pub(super) fn at_line(&self, lines: u64, bytes: u64) {
        self.tell(bytes, |_, seconds| {
            format!("{lines} lines, {:.0} lines/s", per_second(lines, seconds))
        });
    }

    fn tell(&self, done: u64, text: impl FnOnce(&Stage, f64) -> String) {
        let mut stage = self.stage();
        let now = Instant::now();
        if now < stage.next {
            return;
        }
        stage.next = now + self.every;
        let seconds = (now - stage.begun).as_secs_f64();
        let text = format!(
            "{}, ETA {}",
            text(&stage, seconds),
            eta(done, stage.of, seconds)
        );
        if self.is_terminal {
            // A terminal that has gone does not end the work.
            let _ = write!(stderr(), "{CLEAR}{} {text}", bar(done, stage.of));
        } else {
            eprintln!("{text}");
        }
    }

    /// Prints a line above the bar.
    pub(super) fn say(&self, line: &str) {
        self.finish();
        eprintln!("{line}");
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if self.is_terminal {
            let _ = write!(stderr(), "{CLEAR}");
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(done: u64, seconds: f64) -> f64 {
    done as f64 / seconds.max(0.001)
}

/// The time that is left if the work goes on as fast.
fn eta(done: u64, of: u64, seconds: f64) -> String {
    let rate = per_second(done, seconds);
    if done == 0 {
        return "?".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    let left = of.saturating_sub(done) as f64 / rate;
    if left < 120.0 {
        format!("{left:.0} s")
    } else {
        format!("{:.0} min", left / 60.0)
    }
}

fn bar(done: u64, of: u64) -> String {
    let width = u128::try_from(WIDTH).unwrap_or_default();
    let filled = u128::from(done.min(of)) * width / u128::from(of.max(1));
    let filled = usize::try_from(filled).unwrap_or(WIDTH);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_with_the_work() {
        assert_eq!(bar(0, 0), "[--------------------]");
        assert_eq!(bar(5, 10), "[##########----------]");
        assert_eq!(bar(11, 10), "[####################]");
        assert_eq!(bar(u64::MAX, u64::MAX), "[####################]");
    }

    #[test]
    fn the_time_that_is_left_follows_from_the_rate() {
        assert_eq!(eta(0, 10, 5.0), "?");
        assert_eq!(eta(10, 40, 5.0), "15 s");
        assert_eq!(eta(10, 1_000, 5.0), "8 min");
        assert_eq!(eta(20, 10, 5.0), "0 s");
    }
}
