//! The settings: a flag, else an environment variable, else a default. They are read once.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

pub(crate) use api_server::ApiServer;

mod api_server;

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Address and port to listen on; port 0 chooses a free port. Without a JWT key only loopback addresses are allowed
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080", global = true)]
    pub(crate) listen: SocketAddr,

    /// Folder of the ledger, the read model, the photos and, in development mode, the token secret
    #[arg(long, env = "DATA_DIR", default_value = "data", global = true)]
    pub(crate) data_dir: PathBuf,

    /// Database of the ledger, `postgres://…`; by default an SQLite file in the data directory
    #[arg(long, env = "DATABASE_URL", global = true, value_parser = postgres_url, hide_env_values = true)]
    pub(crate) database_url: Option<String>,

    /// Database of the user documents, `postgres://…`; by default beside the ledger
    #[arg(long, env = "READ_MODEL_URL", global = true, value_parser = postgres_url, hide_env_values = true)]
    pub(crate) read_model_url: Option<String>,

    /// NATS server with JetStream, `nats://…`, to which the ledger is published; by default nothing is published
    #[arg(long, env = "NATS_URL", global = true, hide_env_values = true)]
    pub(crate) nats_url: Option<String>,

    /// Store of the photos, `file:///folder` or `s3://bucket/prefix`; by default a folder in the data directory
    #[arg(long, env = "PHOTO_STORE", global = true, value_parser = photo_store)]
    pub(crate) photo_store: Option<PhotoUrl>,

    /// Base URL under which clients reach the service, for the URLs of photos; by default the address of --listen
    #[arg(long, env = "PUBLIC_URL", global = true, value_parser = public_url)]
    pub(crate) public_url: Option<String>,

    /// Another server that the page at /docs offers, `NAME=URL`, such as `Production=https://api.example.com`; repeat the
    /// flag for several, or separate them with commas in the variable
    #[arg(long = "api-server", env = "API_SERVERS", global = true, value_name = "NAME=URL", value_delimiter = ',', value_parser = ApiServer::parse)]
    pub(crate) api_servers: Vec<ApiServer>,

    /// File with the Ed25519 key that signs the checkpoints of the log; the first start creates it; by default `log.key` in
    /// the data directory
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

impl Config {
    /// The secret of HS256 tokens, if one is configured.
    pub(crate) fn jwt_secret() -> Option<String> {
        std::env::var("JWT_SECRET")
            .ok()
            .filter(|secret| !secret.is_empty())
    }
}

/// A store for photos.
#[derive(Debug, Clone)]
pub(crate) enum PhotoUrl {
    /// A folder on this machine.
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
