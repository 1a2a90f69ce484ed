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

#[expect(
    clippy::enum_variant_names,
    reason = "a role has the name of its crate"
)]
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one role: decide commands, append events and publish them. Needs PostgreSQL
    CommandApi,
    /// Run one role: fold events into user documents. Of several such processes one works, the others stand by
    Projector,
    /// Run one role: serve user documents and photos
    QueryApi,
    /// Bring the databases up to date and stop. Every role does the same at its start, if it has the rights
    Migrate,
    /// Ask the process with the same --listen whether it is ready. Exit code 0 if ready, 1 if not ready, 2 if no process
    /// answers
    Ready,
    /// Print the OpenAPI 3.1 description of the whole API
    #[command(name = "openapi")]
    OpenApi(openapi::Args),
    /// Print a token to try the service
    Token(token::Args),
    /// Print events as they happen: one CloudEvent in JSON per line, or one coloured line per event on a terminal. The
    /// source is --nats-url if it is set, otherwise the ledger, also while the service runs
    Tail(tail::Args),
    /// Hash, fold and compare everything again: the ledger with its checkpoints, the user documents, and with --nats-url
    /// the stream; or an export with a checkpoint. Changes nothing, and works while the service runs. Exit code 1 and the
    /// first wrong position if something is wrong
    Verify(verify::Args),
    /// Register the users of a file, one JSON object per line. Safe to repeat: existing users are skipped
    Import(import::Args),
    /// Show the history of a user: each event with its actor, time, origin, and every field before and after
    History(history::Args),
    /// Show a user as it is in the ledger, or as it was at a version, a position or a time
    State(state::Args),
    /// Show what differs between two versions of a user
    Diff(diff::Args),
    /// Write events exactly as the ledger stores them to a file with a manifest, or to standard output
    Export(export::Args),
    /// Fold all documents again beside the live ones, compare both, and swap them. The service runs on, and readers
    /// notice nothing. Run it as the owner of the tables. Exit code 0 if the new documents are live, 1 if they differ and
    /// nothing was swapped, 2 after a failure, with nothing swapped
    Rebuild(rebuild::Args),
    /// List the parked users: an event of theirs could not be folded, and the later ones wait. Exit code 0 if there are
    /// none, 1 if there are some, 2 after a failure
    Parked(parked::Args),
    /// Copy history to another system, as files or as messages, up to the head at the start of the command. Exit code 0
    /// if everything was copied, 2 after a failure, 3 for a position that the ledger does not have. A failure names the
    /// position to continue from
    Replay(replay::Args),
    /// Print the AsyncAPI document that GET /asyncapi.json serves
    Asyncapi(asyncapi::Args),
    /// Write the JSON Schemas of events and their envelope that GET /schemas/TYPE/VERSION.json serves
    Schemas(schemas::Args),
}

/// Runs a command, or the whole service if there is no command. Returns the exit code.
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
