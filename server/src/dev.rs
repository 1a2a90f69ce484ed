//! Development mode: what makes `cargo run` enough. On when no key for tokens is configured.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use command_api::Randomness;
use command_api::committer::{Command, Committer};
use command_api::user::{Action, Rejection};
use command_api::values;
use events::{Context, Time};
use http_kit::caller::{Grant, Role, mint_hs256};
use http_kit::clock::Clock;
use http_kit::fields::Fields;

/// The user of the published page that the API follows.
pub(crate) const DEMO_USER: &str = "507f1f77bcf86cd799439011";
const DEMO_REGISTRATION: &str = include_str!("dev/demo-user.json");
const DEMO_PHOTO: &[u8] = include_bytes!("dev/demo-photo.jpg");

/// Refuses to serve strangers with a secret that nobody chose.
pub(crate) fn refuse_other_than_loopback(listen: SocketAddr) -> anyhow::Result<()> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    bail!(
        "no key for tokens is configured, so only loopback addresses may be listened on, not {}. Set JWT_SECRET, \
         JWT_PUBLIC_KEY or JWT_JWKS, or listen on 127.0.0.1",
        listen.ip()
    )
}

/// The secret in the data directory; made at the first call, readable by its owner only.
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
                    "{} holds no secret of at least 32 characters; remove it to have one made",
                    path.display()
                );
            }
            Ok(secret.trim().to_owned())
        }
        Err(error) => Err(error).with_context(describe),
    }
}

/// Registers the demo user unless it is there.
pub(crate) async fn register_demo_user(committer: &Committer, clock: &Clock) -> anyhow::Result<()> {
    let mut fields = Fields::parse(DEMO_REGISTRATION.as_bytes())
        .map_err(|_| anyhow::anyhow!("no JSON object"))?;
    let registration = values::registration(&mut fields, Time::from(clock.now()).date());
    let (Some(user_id), registration) = registration.context("the demo user breaks a rule")? else {
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
    match committer.submit(command).await?.result {
        Ok(_) | Err(Rejection::UserExists { .. }) => Ok(()),
        Err(rejection) => {
            tracing::warn!(%rejection, "The demo user cannot be registered");
            Ok(())
        }
    }
}

/// A photo to upload, beside the ledger.
pub(crate) fn write_demo_photo(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("demo-photo.jpg");
    let describe = || format!("cannot write {}", path.display());
    std::fs::write(&path, DEMO_PHOTO).with_context(describe)?;
    // The lines of the banner may be pasted in another folder.
    path.canonicalize().with_context(describe)
}

/// What a newcomer needs: URLs, a token, and lines to paste.
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
        expires: Time::from(now).plus_days(30).into(),
    };
    let token = mint_hs256(secret.as_bytes(), &grant);
    let photo = photo.display();
    format!(
        r#"
Profile Ledger is running on {url}  (development mode: loopback only, no key configured)
{publishing}

The demo user is johndoe123, id {DEMO_USER}. Paste:

TOKEN={token}
# change the photo
curl -sSw '\n' -X PATCH {url}/api/v1/users/profile/photo -H "Authorization: Bearer $TOKEN" -F 'file=@{photo}'
# replace the profile
curl -sSw '\n' -X PUT {url}/api/v1/users/profile -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"name":"John","surname":"Doe","bio":"Hello from curl","interests":["music","travel"]}}'
# change the username (once in 30 days)
curl -sSw '\n' -X PATCH {url}/api/v1/users/username -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"newUsername":"john.doe"}}'
# read it back
curl -sSw '\n' {url}/api/v1/users/profile -H "Authorization: Bearer $TOKEN"
curl -sSw '\n' {url}/api/v1/users/profile/username/john.doe

Other tokens: profile-ledger token --user ID --role user|service|auditor|admin
Stop with Ctrl-C.
"#
    )
}
