#![doc = include_str!("../README.md")]

use std::process::ExitCode;

use clap::Parser as _;

mod cli;
mod commands;
mod config;
mod dev;
mod health;
mod lifecycle;
mod log_key;
mod logging;
mod metrics;
mod openapi;
mod parts;
mod playground;
mod roles;
mod service;

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
    let cli = cli::Cli::parse();
    let _logging = logging::init();
    commands::run(cli.config, cli.command).await
}
