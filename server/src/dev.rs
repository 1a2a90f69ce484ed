//! Development mode: `cargo run` needs no configuration. It is on when no key for tokens is configured.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::State;
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderName};
use axum::routing::get;
use command_api::Randomness;
use command_api::committer::{Command, Committer, Undecided};
use command_api::user::{Action, Rejection, USERNAME_DAYS};
use command_api::values;
use events::{Context, Time};
use http_kit::answer::Answer;
use http_kit::caller::{Grant, Role, mint_hs256};
use http_kit::clock::Clock;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use http_kit::profile::OwnProfile;
use http_kit::serve::limits;
use ledger::store;

/// The demo user, from the published page that the API follows.
pub(crate) const DEMO_USER: &str = "507f1f77bcf86cd799439011";
const DEMO_PHOTO: &[u8] = include_bytes!("dev/demo-photo.jpg");

/// Days for which the token of the banner is valid.
const TOKEN_DAYS: i64 = 30;

/// Refuses to serve other machines with a secret that no operator chose.
pub(crate) fn refuse_other_than_loopback(listen: SocketAddr) -> anyhow::Result<()> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    bail!(
        "no key for tokens is configured, so the service listens on loopback addresses only, not on {}. Set JWT_SECRET, \
         JWT_PUBLIC_KEY or JWT_JWKS, or listen on 127.0.0.1",
        listen.ip()
    )
}

/// The secret in the data directory. The first call creates the file, readable by its owner only.
pub(crate) fn secret(data_dir: &Path, randomness: &Randomness) -> anyhow::Result<String> {
    let path = data_dir.join("dev-jwt-secret");
    let describe = || format!("cannot use the development secret {}", path.display());
    crate::parts::private_folder(data_dir)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Ok(mut file) => {
            let secret = hex::encode(randomness.bytes::<32>());
            file.write_all(secret.as_bytes()).with_context(describe)?;
            file.sync_all().with_context(describe)?;
            Ok(secret)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let secret = std::fs::read_to_string(&path).with_context(describe)?;
            if secret.trim().len() < 32 {
                bail!(
                    "{} does not contain a secret of at least 32 characters; remove the file to get a new one",
                    path.display()
                );
            }
            Ok(secret.trim().to_owned())
        }
        Err(error) => Err(error).with_context(describe),
    }
}

/// The body that registers the demo user: the example user of the API, without what the service itself sets.
fn demo_registration() -> serde_json::Result<Vec<u8>> {
    let example = http_kit::profile::example();
    let mut members = query_api::changes::object(&OwnProfile {
        document: &example,
        public_url: "",
    });
    for member in ["profilePhoto", "createdAt", "updatedAt"] {
        members.shift_remove(member);
    }
    serde_json::to_vec(&members)
}

/// Registers the demo user unless it exists.
pub(crate) async fn register_demo_user(committer: &Committer, clock: &Clock) -> anyhow::Result<()> {
    let mut fields =
        Fields::parse(&demo_registration()?).map_err(|_| anyhow::anyhow!("no JSON object"))?;
    let registration = values::registration(&mut fields, Time::from(clock.now()).date());
    let (Some(user_id), registration) =
        registration.context("the data of the demo user is invalid")?
    else {
        bail!("the demo user has no id")
    };
    let action = Action::Register(Box::new(registration));
    let context = Context {
        actor_type: "system".to_owned(),
        actor: "development-mode".to_owned(),
        ..Context::default()
    };
    let command = Command {
        user_id,
        action,
        expected_version: None,
        idempotency: None,
        context,
    };
    let submitted = match committer.submit(command).await {
        // The demo user exists with damaged events. The other users need the service.
        Err(Undecided::Store(store::Error::Damaged(error))) => {
            tracing::warn!(error, "The demo user cannot be used");
            return Ok(());
        }
        submitted => submitted?,
    };
    match submitted.result {
        Ok(_) | Err(Rejection::UserExists { .. }) => Ok(()),
        Err(rejection) => {
            tracing::warn!(%rejection, "The demo user cannot be registered");
            Ok(())
        }
    }
}

/// Writes a photo to upload into the data directory.
pub(crate) fn write_demo_photo(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("demo-photo.jpg");
    let describe = || format!("cannot write {}", path.display());
    std::fs::write(&path, DEMO_PHOTO).with_context(describe)?;
    // The lines of the banner may be pasted in another folder.
    path.canonicalize().with_context(describe)
}

/// The text for newcomers: URLs, a token, and commands to paste.
pub(crate) fn banner(
    url: &str,
    secret: &str,
    publishing: &str,
    photo: &Path,
    clock: &Clock,
) -> String {
    let now = clock.now();
    let grant = Grant {
        subject: DEMO_USER,
        roles: &[Role::User],
        issuer: None,
        audience: None,
        issued: now,
        expires: Time::from(now).plus_days(TOKEN_DAYS).into(),
    };
    let token = mint_hs256(secret.as_bytes(), &grant);
    let photo = photo.display();
    format!(
        r#"
Profile Ledger is running on {url}  (development mode: loopback only, no key configured)
{publishing}

Console: {url}/console
The API, to try out: {url}/docs

The demo user is johndoe123, id {DEMO_USER}. Paste:

TOKEN={token}
# change the photo
curl -sSw '\n' -X PATCH {url}/api/v1/users/profile/photo -H "Authorization: Bearer $TOKEN" -F 'file=@{photo}'
# replace the profile
curl -sSw '\n' -X PUT {url}/api/v1/users/profile -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"name":"John","surname":"Doe","bio":"Hello from curl","interests":["music","travel"]}}'
# change the username (once in {USERNAME_DAYS} days)
curl -sSw '\n' -X PATCH {url}/api/v1/users/username -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"newUsername":"john.doe"}}'
# read it back
curl -sSw '\n' {url}/api/v1/users/profile -H "Authorization: Bearer $TOKEN"
curl -sSw '\n' {url}/api/v1/users/profile/username/john.doe

Other tokens: profile-ledger token --user ID --role user|service|auditor|admin
Stop with Ctrl-C.
"#
    )
}

/// The token that a page of ours fetches by itself. It exists in development mode only.
#[derive(Clone)]
struct PageToken {
    subject: &'static str,
    roles: &'static [Role],
    secret: String,
    clock: Clock,
}

/// `GET /console/token`: a token of an auditor for the console.
pub(crate) fn console(secret: String, clock: Clock) -> Router {
    let token = PageToken {
        subject: "console",
        roles: &[Role::Auditor],
        secret,
        clock,
    };
    page_token("/console/token", token)
}

/// `GET /docs/token`: a token for the page at `/docs`. It belongs to the demo user and allows every operation.
pub(crate) fn playground(secret: String, clock: Clock) -> Router {
    let token = PageToken {
        subject: DEMO_USER,
        roles: &[Role::User, Role::Admin],
        secret,
        clock,
    };
    page_token("/docs/token", token)
}

fn page_token(path: &str, token: PageToken) -> Router {
    let route = limits(get(give_token), 1024, Duration::from_secs(10));
    Router::new().route(path, route).with_state(token)
}

async fn give_token(State(page): State<PageToken>, headers: HeaderMap) -> Result<Answer, ApiError> {
    if !is_asked_by_own_page(&headers) {
        return Err(ApiError::new(Code::InsufficientPermissions));
    }
    let now = page.clock.now();
    let grant = Grant {
        subject: page.subject,
        roles: page.roles,
        issuer: None,
        audience: None,
        issued: now,
        expires: Time::from(now).plus_days(1).into(),
    };
    let token = mint_hs256(page.secret.as_bytes(), &grant);
    let answer = Answer::ok(now, &serde_json::json!({"token": token}));
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    Ok(answer.header(policy, "same-origin"))
}

/// Whether a script of our own page sent the request. Pages cannot set `Sec-Fetch-Site`. A page under a foreign name that
/// resolves to this machine (DNS rebinding) counts as our own for the browser, but sends its name as `Host`.
fn is_asked_by_own_page(headers: &HeaderMap) -> bool {
    let only = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    let is_own = only(HeaderName::from_static("sec-fetch-site")) == Some("same-origin");
    is_own && only(HOST).is_some_and(is_loopback)
}

/// Whether a `Host` names this machine, with or without a port.
fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, port),
        _ => (host, "0"),
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_address = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
    };
    port.parse::<u16>().is_ok() && (is_address || name.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]",
            "[::1]:8080",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "::1",
            "localhost:",
            "localhost:x",
            "localhost:80:80",
            "evil@localhost",
            "localhost/",
            "[::1",
            "0x7f.1",
            "[127.0.0.1]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn only_a_script_of_the_own_page_is_given_a_token() {
        let asks = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            is_asked_by_own_page(&map)
        };
        let own = ("sec-fetch-site", "same-origin");
        let here = ("host", "127.0.0.1:8080");
        assert!(asks(&[own, here]));
        assert!(!asks(&[here]), "no browser that says who asks");
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!asks(&[("sec-fetch-site", site), here]), "{site}");
        }
        assert!(!asks(&[own]));
        assert!(!asks(&[own, ("host", "evil.example:8080")]));
        assert!(!asks(&[own, here, ("host", "evil.example")]));
        assert!(!asks(&[own, ("sec-fetch-site", "cross-site"), here]));
    }
}
