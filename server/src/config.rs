//! What the service is told: flag, then environment, then default. Read once.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use events::{Position, UserEvent, UserId};
use http_kit::caller::Role;
use ledger::merkle::note::PublicKey;

use crate::playground::{ApiServer, parse_server};
use crate::{export, history, openapi, state};

/// User profiles kept as an append-only ledger of events.
///
/// Without a command, runs the whole service in this process, on SQLite and local files in the data directory.
#[derive(Debug, Parser)]
#[command(name = "profile-ledger", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Settings of every command")]
    pub(crate) config: Config,
    #[command(subcommand)]
    pub(crate) command: Option<Job>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Address and port to listen on; port 0 takes a free one. Without a JWT key only loopback addresses are allowed
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080", global = true)]
    pub(crate) listen: SocketAddr,

    /// Folder of the ledger, the read model, the photos and, in development mode, the token secret
    #[arg(long, env = "DATA_DIR", default_value = "data", global = true)]
    pub(crate) data_dir: PathBuf,

    /// Database of the ledger, `postgres://…`; without it, an SQLite file in the data directory
    #[arg(long, env = "DATABASE_URL", global = true, value_parser = postgres_url, hide_env_values = true)]
    pub(crate) database_url: Option<String>,

    /// Database of the user documents, `postgres://…`; without it, beside the ledger
    #[arg(long, env = "READ_MODEL_URL", global = true, value_parser = postgres_url, hide_env_values = true)]
    pub(crate) read_model_url: Option<String>,

    /// NATS server with JetStream, `nats://…`, to which the ledger is published; without it, nothing is
    #[arg(long, env = "NATS_URL", global = true, hide_env_values = true)]
    pub(crate) nats_url: Option<String>,

    /// Where the bytes of photos are: `file:///folder` or `s3://bucket/prefix`; without it, in the data directory
    #[arg(long, env = "PHOTO_STORE", global = true, value_parser = photo_store)]
    pub(crate) photo_store: Option<PhotoUrl>,

    /// Where clients reach the service, for the URLs of photos; without it, the address that is listened on
    #[arg(long, env = "PUBLIC_URL", global = true, value_parser = public_url)]
    pub(crate) public_url: Option<String>,

    /// Another server that the page at /docs offers, `NAME=URL`, such as `Production=https://api.example.com`; may be given several times, in the variable separated by commas
    #[arg(long = "api-server", env = "API_SERVERS", global = true, value_name = "NAME=URL", value_delimiter = ',', value_parser = parse_server)]
    pub(crate) api_servers: Vec<ApiServer>,

    /// File with the Ed25519 key that signs the log's checkpoints, made there at the first start; without it, `log.key` in the data directory
    #[arg(long, env = "LOG_KEY", global = true)]
    pub(crate) log_key: Option<PathBuf>,

    /// PEM file with the public key of RS256, ES256 or EdDSA tokens
    #[arg(long, env = "JWT_PUBLIC_KEY", global = true)]
    pub(crate) jwt_public_key: Option<PathBuf>,

    /// File or URL of a JSON Web Key Set
    #[arg(long, env = "JWT_JWKS", global = true)]
    pub(crate) jwt_jwks: Option<String>,

    /// Required `iss` of tokens
    #[arg(long, env = "JWT_ISSUER", global = true)]
    pub(crate) jwt_issuer: Option<String>,

    /// Required `aud` of tokens
    #[arg(long, env = "JWT_AUDIENCE", global = true)]
    pub(crate) jwt_audience: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
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
    OpenApi(openapi::OpenApiArgs),
    /// Print a token for trying the service out
    Token(TokenArgs),
    /// Print events as they happen, one CloudEvent as JSON a line, or a coloured line each on a terminal. They come
    /// from --nats-url if it is given, else from the ledger, beside the service that has it open
    Tail(TailArgs),
    /// Hash, fold and compare everything again: the ledger with its checkpoints, the user documents, and with --nats-url the stream; or an export with a checkpoint. Reads only, also beside a running service. Exit code 1 with the first position that is wrong
    Verify(VerifyArgs),
    /// Register the users of a file, one JSON object a line. Safe to run again: who is there already is passed over
    Import(ImportArgs),
    /// Show what happened to a user: each event with who, when, from where, and every field before and after
    History(history::Args),
    /// Show a user as it is in the ledger, or as it was at a version, a position or a time
    State(state::StateArgs),
    /// Show what differs between two versions of a user
    Diff(state::DiffArgs),
    /// Write events as they are in the ledger to a file with a manifest, or to standard output
    Export(export::Args),
    /// Fold all documents anew beside the live ones, compare both and swap, while the service runs and nobody who
    /// reads notices. Run it as the owner of the tables. Exit code 0 when the new ones are live, 1 when they differ from
    /// the live ones and nothing was swapped, 2 when something failed and nothing was swapped
    Rebuild(RebuildArgs),
    /// List the users whose events wait because one of them could not be folded. Exit code 0 when there are none, 1 when
    /// there are some, 2 when something failed
    Parked(ParkedArgs),
    /// Hand history to another system, as files or as messages, up to the head as it is at the start. Exit code 0 when
    /// all of it is there, 2 when something failed, 3 for a position that the ledger does not have; what is there says
    /// where to go on
    Replay(ReplayArgs),
    /// Print the AsyncAPI document, which GET /asyncapi.json serves
    Asyncapi(AsyncApiArgs),
    /// Write the JSON Schemas of events and of their envelope, which GET /schemas/TYPE/VERSION.json serves
    Schemas(SchemasArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Whose token: the id of a user, or any name for a service
    #[arg(long)]
    pub(crate) user: String,
    /// What the token allows; may be given several times
    #[arg(long = "role", value_name = "ROLE", default_value = "user", value_parser = role)]
    pub(crate) roles: Vec<Role>,
    /// For how many hours it is valid
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub(crate) hours: u32,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The first position to print, from 1; waits for one that is not there yet. Without it, new events only
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    pub(crate) from: Option<Position>,
    /// Print events of this type only; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    pub(crate) types: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Verify this export instead (NDJSON, all events from the first on); needs --checkpoint and --public-key, and nothing else
    #[arg(long, value_name = "FILE", requires_all = ["checkpoint", "public_key"])]
    pub(crate) export: Option<PathBuf>,
    /// A checkpoint that was kept outside, as GET /api/v1/log/checkpoint answered it
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The public key of the log, which you have from somebody you trust; without it, the one that is kept beside the log
    #[arg(long, value_name = "KEY", value_parser = PublicKey::parse)]
    pub(crate) public_key: Option<PublicKey>,
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// NDJSON: each line is the body of `POST /api/v1/users`. Without `_id`, a user's id is made from its username
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// What to rebuild; there is only one projection
    #[arg(long, value_enum, default_value_t = Projection::Users)]
    pub(crate) projection: Projection,
    /// Swap although the rebuilt documents differ from the live ones, as they do after a fold was corrected
    #[arg(long)]
    pub(crate) accept_differences: bool,
    /// Bring the documents back that the last rebuild replaced, brought up to date
    #[arg(long, conflicts_with = "accept_differences")]
    pub(crate) rollback: bool,
    /// Print what it came to as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A projection that can be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Projection {
    /// The documents of users, and the words by which they are found.
    Users,
}

#[derive(Debug, Args)]
pub(crate) struct ParkedArgs {
    /// Try at once to fold them; a projector does so whenever it starts
    #[arg(long)]
    pub(crate) retry: bool,
    /// Print them as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Exactly one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReplayTarget {
    /// Folder for files of one CloudEvent as JSON a line, each named for its first position. Run again, it goes on after
    /// the last file
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Subject on the NATS server of --nats-url, of a JetStream stream that takes it
    #[arg(long, value_name = "SUBJECT", value_parser = replay_subject)]
    pub(crate) nats: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) target: ReplayTarget,
    /// The first position
    #[arg(long, value_name = "POSITION", default_value_t = 1, value_parser = position)]
    pub(crate) from: Position,
    /// The last position; without it, the head
    #[arg(long, value_name = "POSITION", value_parser = position)]
    pub(crate) until: Option<Position>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    pub(crate) types: Vec<String>,
    /// Only events of this user
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<UserId>,
    /// Events a file; a file ends at 256 MiB, too
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) segment_events: u64,
    /// Print what it came to as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AsyncApiArgs {
    /// The language of its texts
    #[arg(long, value_enum, default_value_t = Tongue::En)]
    pub(crate) lang: Tongue,
}

/// A language of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tongue {
    /// English.
    En,
    /// Turkish.
    Tr,
}

#[derive(Debug, Args)]
pub(crate) struct SchemasArgs {
    /// Folder for the files, TYPE/VERSION.json each; those that are there are replaced
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
}

impl Config {
    /// The secret of HS256 tokens, if one is configured.
    pub(crate) fn jwt_secret() -> Option<String> {
        std::env::var("JWT_SECRET")
            .ok()
            .filter(|secret| !secret.is_empty())
    }
}

/// A place for the bytes of photos.
#[derive(Debug, Clone)]
pub(crate) enum PhotoUrl {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The whole URL of a bucket.
    Bucket(String),
}

fn photo_store(text: &str) -> Result<PhotoUrl, String> {
    if let Some(path) = text
        .strip_prefix("file://")
        .filter(|path| path.starts_with('/'))
    {
        return Ok(PhotoUrl::Folder(path.into()));
    }
    match text.strip_prefix("s3://") {
        Some(bucket) if !bucket.is_empty() && !bucket.starts_with('/') => {
            Ok(PhotoUrl::Bucket(text.to_owned()))
        }
        _ => Err("file:///folder or s3://bucket/prefix".to_owned()),
    }
}

fn postgres_url(text: &str) -> Result<String, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        Ok(text.to_owned())
    } else {
        Err("a postgres:// URL".to_owned())
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "one of user, service, auditor, admin".to_owned())
}

fn position(text: &str) -> Result<Position, String> {
    let position = text.parse().ok().filter(|position| *position > 0);
    position.ok_or_else(|| "a position is a whole number, and the first is 1".to_owned())
}

fn event_type(text: &str) -> Result<String, String> {
    if UserEvent::TYPES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("one of {}", UserEvent::TYPES.join(", ")))
}

/// Only the relay publishes where the ledger is published.
fn replay_subject(text: &str) -> Result<String, String> {
    let mut tokens = text.split('.');
    if !tokens.all(|token| {
        !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"*>".contains(&b))
    }) {
        return Err("a subject such as copy.profiles, without wildcards".to_owned());
    }
    if text.starts_with('$') || text.starts_with("_INBOX.") {
        return Err("a subject that is not the server's own".to_owned());
    }
    if format!("{text}.").starts_with("profiles.v1.") {
        return Err(
            "a subject outside profiles.v1, where the ledger itself is published".to_owned(),
        );
    }
    Ok(text.to_owned())
}

fn public_url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"<>?#\\".contains(c);
    match rest {
        Some(rest) if !rest.is_empty() && rest.chars().all(is_plain) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("an http:// or https:// URL without query or fragment".to_owned()),
    }
}
