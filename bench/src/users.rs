//! The users of a measurement, and their requests.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use http_kit::caller::{Grant, Role, mint_hs256};
use http_kit::clock::Clock;
use jiff::ToSpan as _;

use crate::http::{Sent, request};
use crate::installation::Installation;

/// The number of users whose tokens are kept in memory. Other tokens are made for each request: a million tokens would
/// need 200 MB.
const TOKENS: u64 = 100_000;
const BOUNDARY: &str = "profile-ledger-bench";

/// The registered users 0 to `count`.
pub(crate) struct Users {
    pub(crate) count: u64,
    tokens: Vec<String>,
    secret: String,
}

pub(crate) fn id(user: u64) -> String {
    format!("be{user:022x}")
}

pub(crate) fn username(user: u64) -> String {
    format!("user{user:08}")
}

fn registration(user: u64) -> String {
    let (id, username) = (id(user), username(user));
    format!(
        r#"{{"_id":"{id}","username":"{username}","name":"Ayşe {user}","surname":"Yılmaz","email":"{username}@example.com","birthDate":"1990-05-17","interests":["music","travel","food"],"expertise":"chef","bio":"Cooks, travels and writes about both.","instagram":"{username}"}}"#
    )
}

impl Users {
    /// Registers users in an empty installation. No service may be running.
    pub(crate) async fn register(installation: &Installation, count: u64) -> anyhow::Result<Self> {
        let path = installation.path("users.ndjson");
        let mut file = BufWriter::new(std::fs::File::create(&path)?);
        for user in 0..count {
            writeln!(file, "{}", registration(user))?;
        }
        file.into_inner().context("cannot write users")?;
        let path_text = path.to_string_lossy();
        installation.run(&["import", &path_text]).await?;
        std::fs::remove_file(&path)?;
        Ok(Self {
            count,
            tokens: (0..count.min(TOKENS))
                .map(|user| token(installation.secret(), &id(user), Role::User))
                .collect(),
            secret: installation.secret().to_owned(),
        })
    }

    pub(crate) fn token(&self, user: u64) -> Cow<'_, str> {
        let kept = usize::try_from(user)
            .ok()
            .and_then(|user| self.tokens.get(user));
        match kept {
            Some(token) => token.into(),
            None => token(&self.secret, &id(user), Role::User).into(),
        }
    }
}

/// Makes a token that is valid for a day.
pub(crate) fn token(secret: &str, subject: &str, role: Role) -> String {
    let issued = Clock::system().now();
    let grant = Grant {
        subject,
        roles: &[role],
        issuer: None,
        audience: None,
        issued,
        expires: issued + 24.hours(),
    };
    mint_hs256(secret.as_bytes(), &grant)
}

/// A command that replaces a profile. The bio contains the number, so the command always changes something.
pub(crate) fn profile(token: &str, number: u64) -> Sent {
    request(
        Method::PUT,
        "/api/v1/users/profile",
        token,
        "application/json",
        profile_body(number).into(),
    )
}

/// The body of [`profile`].
pub(crate) fn profile_body(number: u64) -> String {
    let mut body = String::with_capacity(256);
    let _ = write!(
        body,
        r#"{{"name":"Ayşe","surname":"Yılmaz","email":"ayse@example.com","birthDate":"1990-05-17","interests":["music","travel","food"],"expertise":"chef","bio":"Cooks, travels and writes about both: {number}","instagram":"ayse"}}"#
    );
    body
}

/// A command that changes a username to an unused one. A user may do this once.
pub(crate) fn rename(token: &str, user: u64) -> Sent {
    let body = format!(r#"{{"newUsername":"renamed{user:08}"}}"#);
    request(
        Method::PATCH,
        "/api/v1/users/username",
        token,
        "application/json",
        body.into(),
    )
}

/// An upload with new bytes, because the same photo again would change nothing. The number follows the end of the image,
/// where decoders have stopped.
pub(crate) fn photo(token: &str, media_type: &str, bytes: &[u8], number: u64) -> Sent {
    let head = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"photo\"\r\ncontent-type: {media_type}\r\n\r\n"
    );
    let body = [
        head.as_bytes(),
        bytes,
        &number.to_be_bytes(),
        format!("\r\n--{BOUNDARY}--\r\n").as_bytes(),
    ]
    .concat();
    request(
        Method::PATCH,
        "/api/v1/users/profile/photo",
        token,
        &format!("multipart/form-data; boundary={BOUNDARY}"),
        Bytes::from(body),
    )
}
