#![doc = include_str!("../README.md")]

use std::process::ExitCode;

use clap::Parser as _;

use crate::service::Roles;

mod config;
mod described;
mod dev;
mod export;
mod health;
mod history;
mod import;
mod lifecycle;
mod log_key;
mod logs;
mod metrics;
mod openapi;
mod parts;
mod playground;
mod progress;
mod ready;
mod rebuild;
mod replay;
mod service;
mod state;
mod tail;
mod terminal;
mod token;
mod user;
mod verify;

/// Gives memory back soon after a photo is done; the system's keeps much of it. Does not ask for huge pages, which would
/// hold 2 MiB for every few KiB that are used. Libraries in C have it, too: SQLite's rows are freed by another
/// thread than the one that made them, which the system's is slow at.
///
/// Its second version: in the third as the crate has it (3.3.2), processes die of SIGSEGV
/// (<https://github.com/microsoft/mimalloc/issues/1287>).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = config::Cli::parse();
    let _logs = logs::init();
    let done = match cli.command {
        None => service::run(cli.config, Roles::ALL).await,
        Some(config::Job::CommandApi) => service::run(cli.config, Roles::COMMANDS).await,
        Some(config::Job::Projector) => service::run(cli.config, Roles::PROJECTION).await,
        Some(config::Job::QueryApi) => service::run(cli.config, Roles::QUERIES).await,
        Some(config::Job::Migrate) => parts::migrate(&cli.config).await,
        Some(config::Job::OpenApi(args)) => openapi::run(&args),
        Some(config::Job::Ready) => ready::run(&cli.config),
        Some(config::Job::Token(args)) => token::run(&cli.config, &args),
        Some(config::Job::Tail(args)) => tail::run(&cli.config, &args).await,
        Some(config::Job::Verify(args)) => verify::run(&cli.config, &args).await,
        Some(config::Job::Import(args)) => import::run(&cli.config, &args).await,
        Some(config::Job::History(args)) => history::run(&cli.config, &args).await,
        Some(config::Job::State(args)) => state::state(&cli.config, &args).await,
        Some(config::Job::Diff(args)) => state::diff(&cli.config, &args).await,
        Some(config::Job::Export(args)) => export::run(&cli.config, &args).await,
        Some(config::Job::Rebuild(args)) => rebuild::run(&cli.config, &args).await,
        Some(config::Job::Parked(args)) => rebuild::parked(&cli.config, &args).await,
        Some(config::Job::Replay(args)) => replay::run(&cli.config, &args).await,
        Some(config::Job::Asyncapi(args)) => described::asyncapi(&args),
        Some(config::Job::Schemas(args)) => described::schemas(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) if terminal::is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that a person can act on; the causes follow, nearest first.
            eprintln!("profile-ledger: {error:#}");
            if error.is::<user::NotFound>() {
                ExitCode::from(user::NotFound::EXIT_CODE)
            } else {
                ExitCode::from(2)
            }
        }
    }
}
