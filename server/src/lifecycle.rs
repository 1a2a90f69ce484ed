//! Signals: the first one asks the service to finish, the second one ends it at once. A command cleans up first.

use tokio::signal::unix::{SignalKind, signal};

/// Exit code after a second signal. A shell reports the same for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Resolves at the first SIGINT or SIGTERM. The second one ends the process at once, which is safe: every answered
/// command is on disk.
pub(crate) async fn shutdown_signal() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    tracing::info!("Shutting down: new connections are refused, running requests are finished");
    #[expect(
        clippy::disallowed_methods,
        reason = "a second signal must not wait for `main`"
    )]
    tokio::spawn(async move {
        next().await;
        tracing::warn!("Stopped at once by a second signal");
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

/// Resolves at a signal that ends a command, with the exit code that a shell reports for that signal.
pub(crate) async fn interrupted() -> std::io::Result<u8> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let kind = tokio::select! {
        _ = hangup.recv() => SignalKind::hangup(),
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    Ok(u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX))
}
