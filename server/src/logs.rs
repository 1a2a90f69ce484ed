//! Where log lines go: to standard error, as text on a terminal and as JSON otherwise.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How long lines that nobody has to act on wait for others, so that many are written at once: a request costs a
/// system call less.
const GATHERING: Duration = Duration::from_millis(20);
/// Bytes of lines that wait at the most. Whoever logs more writes them.
const GATHERED: usize = 256 * 1024;

static LINES: Gathered = Gathered {
    waiting: Mutex::new(Vec::new()),
    begun: Condvar::new(),
    written: Mutex::new(Vec::new()),
};

/// Writes what waits when it is dropped.
pub(crate) struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        LINES.write();
    }
}

/// Starts logging. `RUST_LOG` chooses what; `info` without it.
pub(crate) fn init() -> Logs {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written, on a full disk say, is lost: complaining of it would panic.
        .log_internal_errors(false);
    if io::stderr().is_terminal() {
        lines.with_writer(io::stderr).init();
    } else {
        // It ends with the process.
        std::thread::spawn(|| LINES.write_now_and_then());
        lines
            .with_writer(&LINES)
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .init();
    }
    // A panic is a line like any other. A message that was put together may quote what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>();
        tracing::error!(
            panic.message = message.copied().unwrap_or("(withheld)"),
            panic.place = panic.location().map(ToString::to_string),
            "Something panicked: a defect"
        );
    }));
    Logs(())
}

/// Lines that wait to be written.
struct Gathered {
    waiting: Mutex<Vec<u8>>,
    begun: Condvar,
    /// Held while lines are written, so that they stay in order and nobody waits to log meanwhile.
    written: Mutex<Vec<u8>>,
}

fn lock(lines: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gathered {
    fn write_now_and_then(&self) {
        loop {
            let waiting = self
                .begun
                .wait_while(lock(&self.waiting), |lines| lines.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            drop(
                self.begun
                    .wait_timeout_while(waiting, GATHERING, |lines| !lines.is_empty()),
            );
            self.write();
        }
    }

    fn write(&self) {
        let mut lines = lock(&self.written);
        std::mem::swap(&mut *lines, &mut *lock(&self.waiting));
        // Whoever logs has no better place to complain.
        let _ = io::stderr().write_all(&lines);
        lines.clear();
    }
}

/// Takes one line.
struct Line {
    is_urgent: bool,
}

impl<'a> MakeWriter<'a> for &'static Gathered {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { is_urgent: true }
    }

    /// Warnings and errors are written at once, and what was logged before them.
    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line {
        Line {
            is_urgent: *about.level() <= Level::WARN,
        }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = lock(&LINES.waiting);
        let is_first = waiting.is_empty();
        waiting.extend_from_slice(line);
        let is_much = waiting.len() > GATHERED;
        drop(waiting);
        if self.is_urgent || is_much {
            LINES.write();
        } else if is_first {
            LINES.begun.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
