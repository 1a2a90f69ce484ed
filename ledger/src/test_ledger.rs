//! A ledger for the tests of its followers, with events of every type and texts of every kind.

use std::sync::Arc;
use std::time::Duration;

use crate::store::sqlite::SqliteStore;
use crate::store::{Batch, EventStore, History};
use events::envelope::{Context, LeafHash, Previous, Recorded, StoredEvent};
use events::event::{PhotoChanged, Profile, UserEvent, UserRegistered, UsernameChanged};
use events::{EventId, PhotoId, Position, Time, UserId};

/// How long a test waits before it fails.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// Users whose events take turns.
const USERS: u64 = 10;

/// A ledger in a folder of its own.
pub(crate) struct TestLedger {
    store: Arc<SqliteStore>,
    /// Distinguishes two ledgers: the same position contains different events.
    name: &'static str,
    _folder: tempfile::TempDir,
}

impl TestLedger {
    pub(crate) async fn new(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("ledger.db")).await;
        Self {
            store: Arc::new(store.unwrap()),
            name,
            _folder: folder,
        }
    }

    pub(crate) fn history(&self) -> Arc<dyn History> {
        Arc::clone(&self.store) as _
    }

    /// Appends this many events in one batch. Returns the position of the last.
    pub(crate) async fn grow(&self, events: u64) -> Position {
        let head = self.store.head().await.unwrap();
        let end = head.position + events;
        let batch = Batch {
            events: (head.position + 1..=end)
                .map(|at| event(self.name, at))
                .collect(),
            recorded_at: head.recorded_at,
            expected: head,
            claims: Vec::new(),
            outcomes: Vec::new(),
        };
        self.store.append(&batch).await.unwrap();
        end
    }

    /// All events of the ledger.
    pub(crate) async fn events(&self) -> Vec<StoredEvent> {
        self.store.read(0, usize::MAX).await.unwrap()
    }
}

/// The event of a ledger at a position.
pub(crate) fn event(ledger: &str, position: Position) -> StoredEvent {
    let version = (position - 1) / USERS + 1;
    let mut random = [0; 10];
    random[..2].copy_from_slice(&ledger.as_bytes()[..2]);
    random[2..].copy_from_slice(&position.to_be_bytes());
    let text =
        (position.is_multiple_of(2)).then(|| format!("100 % \"Käse\"\r\n\u{1f600} {position} "));
    Recorded {
        position,
        event_id: EventId::new(Time::from_millis(1), random),
        user_id: UserId::new(Time::from_millis(0), (position % USERS).to_be_bytes()),
        version,
        time: Time::from_millis(5),
        recorded_at: Time::from_millis(6),
        previous: (version > 1).then(|| Previous {
            position: position - USERS,
            hash: LeafHash([7; 32]),
        }),
        context: Context {
            actor_type: "user".to_owned(),
            actor: ledger.to_owned(),
            device_id: text.clone(),
            request_id: Some(String::new()),
            ..Context::default()
        },
        event: happened(version, position, text.unwrap_or_default()),
    }
    .to_stored()
}

fn happened(version: u64, position: Position, text: String) -> UserEvent {
    if version == 1 {
        return UserEvent::UserRegistered(Box::new(UserRegistered {
            username: format!("user{position}"),
            profile: Profile {
                name: text,
                ..Profile::default()
            },
            country_code: None,
            phone_number: None,
            consents: events::event::Consents::default(),
            is_registration_complete: true,
            roles: Vec::new(),
            last_login: None,
        }));
    }
    match position % 3 {
        0 => UserEvent::UsernameChanged(UsernameChanged {
            before: text,
            after: "after".to_owned(),
            held_until: Time::from_millis(9),
        }),
        1 => UserEvent::ProfileUpdated(Box::default()),
        _ => UserEvent::PhotoChanged(Box::new(PhotoChanged {
            photo_id: PhotoId::new(Time::from_millis(1), [1; 8]),
            content_hash: "00".repeat(32),
            size: 1,
            media_type: "image/png".to_owned(),
            width: 1,
            height: 1,
            main: text,
            variants: Vec::new(),
            previous_photo_id: None,
        })),
    }
}
