//! What the service is told: flag, then environment, then default. Read once.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use http_kit::caller::Role;

/// User profiles kept as an append-only ledger of events.
///
/// Without a command, runs the whole service in this process, on SQLite and local files in the data directory.
#[derive(Debug, Parser)]
#[command(name = "profile-ledger", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) config: Config,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Address and port to listen on; port 0 takes a free one. Without a JWT key only loopback addresses are allowed
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080", global = true)]
    pub(crate) listen: SocketAddr,

    /// Folder of the ledger, the read model, the photos and, in development mode, the token secret
    #[arg(long, env = "DATA_DIR", default_value = "data", global = true)]
    pub(crate) data_dir: PathBuf,

    /// Where clients reach the service, for the URLs of photos; without it, the address that is listened on
    #[arg(long, env = "PUBLIC_URL", global = true, value_parser = public_url)]
    pub(crate) public_url: Option<String>,

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
pub(crate) enum Command {
    /// Print a token for trying the service out
    Token(TokenArgs),
    /// Register the users of a file, one JSON object a line. Safe to run again: who is there already is passed over
    Import(ImportArgs),
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
pub(crate) struct ImportArgs {
    /// NDJSON: each line is the body of `POST /api/v1/users`. Without `_id`, a user's id is made from its username
    pub(crate) file: PathBuf,
}

impl Config {
    /// The secret of HS256 tokens, if one is configured.
    pub(crate) fn jwt_secret() -> Option<String> {
        std::env::var("JWT_SECRET")
            .ok()
            .filter(|secret| !secret.is_empty())
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "one of user, service, auditor, admin".to_owned())
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
