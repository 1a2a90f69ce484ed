//! The users of a measurement, and what they send.

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

/// Users beyond these get a token each time they send something: a million tokens are 200 MB.
const TOKENS: u64 = 100_000;
const BOUNDARY: &str = "profile-ledger-bench";

/// Users 0 to a count, who are registered.
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
    /// Registers users in an empty installation, whose service is not running.
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

/// A token of a caller for a day.
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

/// Another bio each time: a command that always changes something.
pub(crate) fn profile(token: &str, number: u64) -> Sent {
    request(
        Method::PUT,
        "/api/v1/users/profile",
        token,
        "application/json",
        profile_body(number).into(),
    )
}

/// What [`profile`] sends.
pub(crate) fn profile_body(number: u64) -> String {
    let mut body = String::with_capacity(256);
    let _ = write!(
        body,
        r#"{{"name":"Ayşe","surname":"Yılmaz","email":"ayse@example.com","birthDate":"1990-05-17","interests":["music","travel","food"],"expertise":"chef","bio":"Cooks, travels and writes about both: {number}","instagram":"ayse"}}"#
    );
    body
}

/// A name that nobody had. Allowed once a user.
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

/// An upload that nobody has sent before, as the same photo again would change nothing: decoders stop at the end of
/// the image, and the number comes after it.
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
