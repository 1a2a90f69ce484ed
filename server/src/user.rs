//! Which user is meant: an id, or a username that somebody has or had.

use std::collections::BTreeSet;

use events::feed::read_after;
use events::store::History;
use events::{Position, Time, UserEvent, UserId, Username, Version};

use crate::terminal::visible;

/// Events looked at at once.
const BATCH: usize = 512;
/// The stored name of the event by which a username is given up.
const RENAMED: &str = "username-changed";

/// What was asked for is not in the ledger: exit code 3.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("no user has the id or username `{}`, or ever had it", visible(.0))]
    User(String),
    #[error("several users had the username `{}`: {}; give one of these ids", visible(.username), list(.users))]
    Ambiguous {
        username: String,
        users: BTreeSet<UserId>,
    },
    #[error("the user has no version {wanted}; the newest is {newest}")]
    Version { wanted: Version, newest: Version },
    #[error("the ledger has no position {wanted}; the newest is {newest}")]
    Position { wanted: Position, newest: Position },
    #[error("the user was not there yet; it was registered at position {position}, {time}")]
    NotRegisteredThen { position: Position, time: Time },
}

impl NotFound {
    pub(crate) const EXIT_CODE: u8 = 3;
}

fn list(users: &BTreeSet<UserId>) -> String {
    let users: Vec<_> = users.iter().map(ToString::to_string).collect();
    users.join(", ")
}

/// The user of an id; else the one that has the username; else the only one that ever had it, which is told
/// on standard error.
pub(crate) async fn find(history: &dyn History, text: &str) -> anyhow::Result<UserId> {
    if let Ok(user) = text.parse()
        && !history.read_user(&user, 0, 1).await?.is_empty()
    {
        return Ok(user);
    }
    let username = text.to_ascii_lowercase();
    let not_found = || NotFound::User(text.to_owned());
    // Names that today's rules reserve may be in history nevertheless.
    if username.len() > Username::MAX || !username.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(not_found().into());
    }
    let claims = history.claims(std::slice::from_ref(&username)).await?;
    if let Some(claim) = claims.iter().find(|claim| claim.held_until.is_none()) {
        return Ok(claim.user_id);
    }
    let mut users = former_holders(history, &username).await?;
    match (users.pop_first(), users.is_empty()) {
        (None, _) => Err(not_found().into()),
        (Some(user), true) => {
            eprintln!("profile-ledger: `{username}` is a former username of user {user}");
            Ok(user)
        }
        (Some(user), false) => {
            users.insert(user);
            Err(NotFound::Ambiguous { username, users }.into())
        }
    }
}

/// Who gave a username up. Claims are forgotten with time; the ledger is not.
async fn former_holders(history: &dyn History, username: &str) -> anyhow::Result<BTreeSet<UserId>> {
    let mut users = BTreeSet::new();
    let (mut after, head) = (0, history.head().await?.position);
    while after < head {
        let events = read_after(history, after, BATCH).await?;
        after += events.len() as u64;
        for event in events {
            // The others are not worth decoding.
            if event.event_type == RENAMED
                && let UserEvent::UsernameChanged(changed) = event.decode()?.event
                && changed.before == username
            {
                users.insert(event.user_id);
            }
        }
    }
    Ok(users)
}
