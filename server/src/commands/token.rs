//! `token`: prints a token to try the service.

use std::process::ExitCode;

use anyhow::bail;
use events::Time;
use http_kit::caller::{Grant, Role, mint_hs256};
use http_kit::clock::Clock;

use crate::config::Config;
use crate::{dev, parts};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The subject: the id of a user, or any name for a service
    #[arg(long)]
    user: String,
    /// A role of the token; repeat the flag for several roles
    #[arg(long = "role", value_name = "ROLE", default_value = "user", value_parser = role)]
    roles: Vec<Role>,
    /// The hours for which the token is valid
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    hours: u32,
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "one of user, service, auditor, admin".to_owned())
}

pub(crate) fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    if config.jwt_public_key.is_some() || config.jwt_jwks.is_some() {
        bail!(
            "this command signs tokens only with JWT_SECRET or the secret of development mode; tokens for a public key need its private key"
        );
    }
    if args.user.is_empty() || args.user.len() > 128 {
        bail!("--user takes 1 to 128 characters");
    }
    let secret = match Config::jwt_secret() {
        Some(secret) => secret,
        None => dev::secret(&config.data_dir, &parts::randomness())?,
    };
    let now = Clock::system().now();
    let expires = Time::from_millis(Time::from(now).millis() + i64::from(args.hours) * 3_600_000);
    let grant = Grant {
        subject: &args.user,
        roles: &args.roles,
        issuer: config.jwt_issuer.as_deref(),
        audience: config.jwt_audience.as_deref(),
        issued: now,
        expires: expires.into(),
    };
    let token = mint_hs256(secret.as_bytes(), &grant);
    println!("{token}");
    Ok(ExitCode::SUCCESS)
}
