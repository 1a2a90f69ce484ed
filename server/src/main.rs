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

/// Returns memory soon after a photo is done; the allocator of the system keeps much of it. It does not ask for huge
/// pages, which would hold 2 MiB for a few used KiB. C libraries use it, too: one thread allocates the rows of SQLite and
/// another frees them, and the allocator of the system is slow at that.
///
/// Version 2, because processes crash with SIGSEGV in version 3 as the crate has it (3.3.2):
/// <https://github.com/microsoft/mimalloc/issues/1287>.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let _logging = logging::init();
    commands::run(cli.config, cli.command).await
}
