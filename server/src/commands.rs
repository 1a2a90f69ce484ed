//! The commands. Each has a file in `commands/` with its arguments and its `run`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::Config;
use crate::roles::Roles;
use crate::service;

mod argument;
mod asyncapi;
mod diff;
mod export;
mod find_user;
mod history;
mod import;
mod migrate;
mod openapi;
mod parked;
mod progress;
mod ready;
mod rebuild;
mod replay;
mod schemas;
mod state;
mod tail;
mod terminal;
mod token;
mod verify;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one role: decide commands, append events and publish them. Needs a database that processes share
    CommandApi,
    /// Run one role: fold events into user documents. Of several, one works and the others stand by
    Projector,
    /// Run one role: serve user documents and photos
    QueryApi,
    /// Bring the databases up to date and stop. Every role does so when it starts, if it may
    Migrate,
    /// Ask the process that runs with the same --listen whether it is ready: exit code 0, 1 if not, 2 if nobody answers
    Ready,
    /// Print the description of the whole API: OpenAPI 3.1
    #[command(name = "openapi")]
    OpenApi(openapi::Args),
    /// Print a token for trying the service out
    Token(token::Args),
    /// Print events as they happen, one CloudEvent as JSON a line, or a coloured line each on a terminal. They come
    /// from --nats-url if it is given, else from the ledger, beside the service that has it open
    Tail(tail::Args),
    /// Hash, fold and compare everything again: the ledger with its checkpoints, the user documents, and with --nats-url the stream; or an export with a checkpoint. Reads only, also beside a running service. Exit code 1 with the first position that is wrong
    Verify(verify::Args),
    /// Register the users of a file, one JSON object a line. Safe to run again: who is there already is passed over
    Import(import::Args),
    /// Show what happened to a user: each event with who, when, from where, and every field before and after
    History(history::Args),
    /// Show a user as it is in the ledger, or as it was at a version, a position or a time
    State(state::Args),
    /// Show what differs between two versions of a user
    Diff(diff::Args),
    /// Write events as they are in the ledger to a file with a manifest, or to standard output
    Export(export::Args),
    /// Fold all documents anew beside the live ones, compare both and swap, while the service runs and nobody who
    /// reads notices. Run it as the owner of the tables. Exit code 0 when the new ones are live, 1 when they differ from
    /// the live ones and nothing was swapped, 2 when something failed and nothing was swapped
    Rebuild(rebuild::Args),
    /// List the users whose events wait because one of them could not be folded. Exit code 0 when there are none, 1 when
    /// there are some, 2 when something failed
    Parked(parked::Args),
    /// Hand history to another system, as files or as messages, up to the head as it is at the start. Exit code 0 when
    /// all of it is there, 2 when something failed, 3 for a position that the ledger does not have; what is there says
    /// where to go on
    Replay(replay::Args),
    /// Print the AsyncAPI document, which GET /asyncapi.json serves
    Asyncapi(asyncapi::Args),
    /// Write the JSON Schemas of events and of their envelope, which GET /schemas/TYPE/VERSION.json serves
    Schemas(schemas::Args),
}

/// Runs a command, or the whole service without one. Its exit code.
pub(crate) async fn run(config: Config, command: Option<Command>) -> ExitCode {
    let Some(command) = command else {
        return exit_code(service::run(config, Roles::ALL).await);
    };
    exit_code(match command {
        Command::CommandApi => service::run(config, Roles::COMMANDS).await,
        Command::Projector => service::run(config, Roles::PROJECTION).await,
        Command::QueryApi => service::run(config, Roles::QUERIES).await,
        Command::Migrate => migrate::run(&config).await,
        Command::Ready => ready::run(&config),
        Command::OpenApi(args) => openapi::run(&args),
        Command::Token(args) => token::run(&config, &args),
        Command::Tail(args) => tail::run(&config, &args).await,
        Command::Verify(args) => verify::run(&config, &args).await,
        Command::Import(args) => import::run(&config, &args).await,
        Command::History(args) => history::run(&config, &args).await,
        Command::State(args) => state::run(&config, &args).await,
        Command::Diff(args) => diff::run(&config, &args).await,
        Command::Export(args) => export::run(&config, &args).await,
        Command::Rebuild(args) => rebuild::run(&config, &args).await,
        Command::Parked(args) => parked::run(&config, &args).await,
        Command::Replay(args) => replay::run(&config, &args).await,
        Command::Asyncapi(args) => asyncapi::run(&args),
        Command::Schemas(args) => schemas::run(&args),
    })
}

/// The exit code of a command. A failure is printed as one line: the failure, then its causes, the nearest first.
fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) if terminal::is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("profile-ledger: {error:#}");
            if error.is::<find_user::NotFound>() {
                ExitCode::from(find_user::NotFound::EXIT_CODE)
            } else {
                ExitCode::from(2)
            }
        }
    }
}
