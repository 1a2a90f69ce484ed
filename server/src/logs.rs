//! Where log lines go: to standard error, as text on a terminal and as JSON otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging. `RUST_LOG` chooses what; `info` without it.
pub(crate) fn init() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, on a full disk say, is lost: complaining of it would panic.
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        lines.init();
    } else {
        lines
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
}
