//! Log lines go to standard error: as text on a terminal, otherwise as JSON.

use std::io::{self, IsTerminal as _, Stderr, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The time for which lines below a warning wait for others, so that many are written at once. That saves a system call
/// per request.
const GATHERING: Duration = Duration::from_millis(20);
/// The most bytes of waiting lines. A thread that logs beyond it writes them.
const GATHERED: usize = 256 * 1024;

/// Writes the waiting lines when it is dropped.
pub(crate) struct Logging(Option<&'static Gathered<Stderr>>);

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(lines) = self.0 {
            lines.write();
        }
    }
}

/// Starts logging. `RUST_LOG` chooses the lines; the default is `info`.
pub(crate) fn init() -> Logging {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written, for example to a full disk, is lost. Reporting that would panic.
        .log_internal_errors(false);
    let gathered = if io::stderr().is_terminal() {
        lines.with_writer(io::stderr).init();
        None
    } else {
        // The buffer and its thread live as long as the process.
        let gathered: &'static Gathered<_> = Box::leak(Box::new(Gathered::new(io::stderr())));
        std::thread::spawn(|| gathered.write_now_and_then());
        lines
            .with_writer(gathered)
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .init();
        Some(gathered)
    };
    // A panic becomes a log line. A formatted message may quote data of a client, so only constant ones are logged.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>();
        tracing::error!(
            panic.message = message.copied().unwrap_or("(withheld)"),
            panic.place = panic.location().map(ToString::to_string),
            "Something panicked: a defect"
        );
    }));
    Logging(gathered)
}

/// Lines that wait to be written.
struct Gathered<W> {
    waiting: Mutex<Vec<u8>>,
    begun: Condvar,
    /// Locked while lines are written. The lines stay in order, and other threads can log meanwhile.
    written: Mutex<Written<W>>,
}

struct Written<W> {
    to: W,
    lines: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Write> Gathered<W> {
    fn new(to: W) -> Self {
        Self {
            waiting: Mutex::default(),
            begun: Condvar::new(),
            written: Mutex::new(Written {
                to,
                lines: Vec::new(),
            }),
        }
    }

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
        let Written { to, lines } = &mut *lock(&self.written);
        std::mem::swap(lines, &mut *lock(&self.waiting));
        // There is no other place to report it.
        let _ = to.write_all(lines);
        lines.clear();
    }
}

/// A writer of one line.
struct Line<W: 'static> {
    of: &'static Gathered<W>,
    is_urgent: bool,
}

impl<'a, W: Write> MakeWriter<'a> for &'static Gathered<W> {
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Line<W> {
        Line {
            of: self,
            is_urgent: true,
        }
    }

    /// Warnings and errors are written at once, after the lines that wait.
    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<W> {
        Line {
            of: self,
            is_urgent: *about.level() <= Level::WARN,
        }
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = lock(&self.of.waiting);
        let is_first = waiting.is_empty();
        waiting.extend_from_slice(line);
        let is_much = waiting.len() > GATHERED;
        drop(waiting);
        if self.is_urgent || is_much {
            self.of.write();
        } else if is_first {
            self.of.begun.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn gathered<W: Write>(to: W) -> &'static Gathered<W> {
        Box::leak(Box::new(Gathered::new(to)))
    }

    fn log<W: Write>(of: &'static Gathered<W>, line: &str, is_urgent: bool) {
        Line { of, is_urgent }.write_all(line.as_bytes()).unwrap();
    }

    /// Hands on what is written.
    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            self.0.send(lines.to_vec()).unwrap();
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(of: &Gathered<Vec<u8>>) -> String {
        String::from_utf8(lock(&of.written).to.clone()).unwrap()
    }

    #[test]
    fn a_warning_is_written_at_once_after_what_was_logged_before_it() {
        let lines = gathered(Vec::new());
        log(lines, "one\n", false);
        assert_eq!(written(lines), "");
        log(lines, "two\n", true);
        assert_eq!(written(lines), "one\ntwo\n");
        log(lines, "three\n", false);
        assert_eq!(written(lines), "one\ntwo\n");
        lines.write();
        assert_eq!(written(lines), "one\ntwo\nthree\n");
    }

    #[test]
    fn no_more_lines_wait_than_there_is_room_for() {
        let lines = gathered(Vec::new());
        let line = "x".repeat(GATHERED / 8);
        for _ in 0..20 {
            log(lines, &line, false);
            assert!(lock(&lines.waiting).len() <= GATHERED);
        }
        lines.write();
        assert_eq!(written(lines).len(), 20 * line.len());
    }

    #[test]
    fn what_nobody_has_to_act_on_is_written_soon_and_whole_and_in_the_order_of_each_thread() {
        let (told, written) = channel();
        let lines = gathered(Told(told));
        std::thread::spawn(|| lines.write_now_and_then());
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                scope.spawn(move || {
                    for number in 0..500 {
                        log(lines, &format!("{name} {number}\n"), number % 50 == 0);
                    }
                });
            }
        });
        // Nobody says any more: what waits is written all the same.
        let mut text = String::new();
        while text.lines().count() < 1_000 {
            let more = written.recv_timeout(Duration::from_secs(60));
            text.push_str(str::from_utf8(&more.expect("it is written soon")).unwrap());
        }
        for name in ["a", "b"] {
            let of_one = text.lines().filter(|line| line.starts_with(name));
            assert!(of_one.eq((0..500).map(|number| format!("{name} {number}"))));
        }
    }
}
