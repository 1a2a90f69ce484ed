#![doc = include_str!("../README.md")]

use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use command_api::Randomness;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

mod baseline;
mod cli;
mod command_load;
mod commands;
mod fill;
mod growth;
mod history;
mod http;
mod installation;
mod lag;
mod load;
mod photos;
mod pictures;
mod publish;
mod random;
mod reads;
mod report;
mod run;
mod service;
mod stream;
mod usage;
mod users;

/// The allocator of the service, so that the baseline of reads has the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .init();
    match measure(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("profile-ledger-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Measures until done or interrupted. An interrupted measurement removes its data first.
async fn measure(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let mut measured = pin!(cli.measure(randomness(), stop.clone()));
    tokio::select! {
        biased;
        code = interrupted() => {
            stop.cancel();
            // Its error is that it was stopped.
            let _ = measured.await;
            Ok(ExitCode::from(code.context("signals cannot be received")?))
        }
        done = &mut measured => done.map(|()| ExitCode::SUCCESS),
    }
}

/// Resolves at a signal to end, with the exit code that a shell reports for it.
async fn interrupted() -> std::io::Result<u8> {
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

#[expect(
    clippy::disallowed_methods,
    reason = "this is the edge at which randomness enters"
)]
fn randomness() -> Randomness {
    Randomness::new(|bytes| rand::Rng::fill_bytes(&mut rand::rng(), bytes))
}
