//! Finds the user that an argument means: by an id, or by a present or former username.

use std::collections::BTreeSet;

use events::{Position, Time, UserEvent, UserId, Version};
use http_kit::username::Username;
use ledger::feed::read_after;
use ledger::store::History;

use super::terminal::visible;

/// Events read at once.
const BATCH: usize = 512;
/// The stored name of the event by which a username is given up.
const RENAMED: &str = "username-changed";

/// The ledger does not contain it: exit code 3.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("no user has or had the id or username `{}`", visible(.0))]
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
    #[error("the user did not exist yet; it was registered at position {position}, {time}")]
    NotRegisteredThen { position: Position, time: Time },
}

impl NotFound {
    pub(crate) const EXIT_CODE: u8 = 3;
}

fn list(users: &BTreeSet<UserId>) -> String {
    let users: Vec<_> = users.iter().map(ToString::to_string).collect();
    users.join(", ")
}

/// The user with this id; or the user that has this username; or the only user that ever had it, which a line on standard
/// error reports.
pub(crate) async fn find(history: &dyn History, text: &str) -> anyhow::Result<UserId> {
    if let Ok(user) = text.parse()
        && !history.read_user(&user, 0, 1).await?.is_empty()
    {
        return Ok(user);
    }
    let username = text.to_ascii_lowercase();
    let not_found = || NotFound::User(text.to_owned());
    // History may contain names that the present rules reserve.
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

/// The users that gave a username up. Old claims are removed, so this reads the ledger.
async fn former_holders(history: &dyn History, username: &str) -> anyhow::Result<BTreeSet<UserId>> {
    let mut users = BTreeSet::new();
    let (mut after, head) = (0, history.head().await?.position);
    while after < head {
        let events = read_after(history, after, BATCH).await?;
        after += events.len() as u64;
        for event in events {
            // Only this type is decoded.
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

#[cfg(test)]
mod tests {
    use events::event::UsernameChanged;
    use events::{Context, EventId, Recorded};
    use ledger::store::sqlite::SqliteStore;
    use ledger::store::{Batch, EventStore as _};

    use super::*;

    /// A ledger in which users gave a username up, so long ago that no claim is left.
    async fn given_up(folder: &tempfile::TempDir, users: &[(u8, &str)]) -> SqliteStore {
        let path = folder.path().join("ledger.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let expected = store.head().await.unwrap();
        let event = |(index, (user, username)): (usize, &(u8, &str))| {
            let time = expected.recorded_at;
            let recorded = Recorded {
                position: index as u64 + 1,
                event_id: EventId::new(time, [*user; 10]),
                user_id: user_id(*user),
                version: 1,
                time,
                recorded_at: time,
                previous: None,
                context: Context::default(),
                event: UserEvent::UsernameChanged(UsernameChanged {
                    before: (*username).to_owned(),
                    after: format!("user{user}"),
                    held_until: time,
                }),
            };
            recorded.to_stored()
        };
        let batch = Batch {
            recorded_at: expected.recorded_at,
            events: users.iter().enumerate().map(event).collect(),
            claims: Vec::new(),
            outcomes: Vec::new(),
            expected,
        };
        store.append(&batch).await.unwrap();
        store
    }

    fn user_id(user: u8) -> UserId {
        UserId::new(Time::from_millis(0), [user; 8])
    }

    #[tokio::test]
    async fn a_username_given_up_long_ago_finds_its_only_holder_and_not_one_of_several() {
        let folder = tempfile::tempdir().unwrap();
        let store = given_up(&folder, &[(1, "john"), (2, "jane"), (3, "john")]).await;
        assert_eq!(find(&store, "Jane").await.unwrap(), user_id(2));
        let error = find(&store, "john").await.unwrap_err();
        let told = error.downcast::<NotFound>().unwrap().to_string();
        let wanted = format!(
            "`john`: {}, {}; give one of these ids",
            user_id(1),
            user_id(3)
        );
        assert!(told.contains(&wanted), "{told}");
    }
}
