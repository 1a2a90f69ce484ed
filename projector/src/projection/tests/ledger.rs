//! A ledger in memory.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use events::envelope::{Context, Previous, Recorded};
use events::store::{self, Claim, Head, History, Outcome, OutcomeKey};
use events::user::{Profile, UserRegistered, UsernameChanged};
use events::{EventId, Position, StoredEvent, Time, UserEvent, UserId, Version};
use tokio::sync::watch;

pub(crate) fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().unwrap()
}

/// A ledger in memory.
pub(crate) struct Ledger {
    pub(super) events: Mutex<Vec<StoredEvent>>,
    pub(super) head: watch::Sender<Position>,
    pub(super) is_away: AtomicBool,
    pub(super) asked: AtomicU32,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            head: watch::Sender::new(0),
            is_away: AtomicBool::new(false),
            asked: AtomicU32::new(0),
        })
    }

    pub(crate) fn record(&self, user_id: UserId, event: UserEvent) -> Position {
        let mut events = self.events.lock().unwrap();
        let position = events.len() as u64 + 1;
        let last = events.iter().rev().find(|event| event.user_id == user_id);
        let recorded = Recorded {
            position,
            event_id: EventId::new(Time::from_millis(0), [0; 10]),
            user_id,
            version: last.map_or(0, |last| last.version) + 1,
            time: Time::from_millis(0),
            recorded_at: Time::from_millis(0),
            previous: last.map(|last| Previous {
                position: last.position,
                hash: last.leaf_hash,
            }),
            context: Context::default(),
            event,
        };
        events.push(recorded.to_stored());
        self.head.send_replace(position);
        position
    }

    pub(crate) fn register(&self, n: u64) -> Position {
        let registered = UserRegistered {
            username: format!("user{n}"),
            profile: profile(&format!("Name{n}")),
            country_code: None,
            phone_number: None,
            consents: events::user::Consents::default(),
            is_registration_complete: true,
            roles: vec!["user".to_owned()],
            last_login: None,
        };
        self.record(user(n), UserEvent::UserRegistered(Box::new(registered)))
    }

    pub(crate) fn rename(&self, n: u64, before: &str, after: &str) -> Position {
        let renamed = UsernameChanged {
            before: before.to_owned(),
            after: after.to_owned(),
            held_until: Time::from_millis(1),
        };
        self.record(user(n), UserEvent::UsernameChanged(renamed))
    }

    /// An event of a type that this program does not know.
    pub(crate) fn record_from_the_future(&self, n: u64) -> Position {
        let position = self.rename(n, "a", "b");
        let mut events = self.events.lock().unwrap();
        let event = events.last_mut().unwrap();
        let text = String::from_utf8(event.envelope.to_vec()).unwrap();
        event.envelope = text.replace("username-changed", "soul-sold").into();
        position
    }

    /// Now this program knows it.
    pub(crate) fn learn(&self) {
        for event in self.events.lock().unwrap().iter_mut() {
            let text = String::from_utf8(event.envelope.to_vec()).unwrap();
            event.envelope = text.replace("soul-sold", "username-changed").into();
        }
    }

    pub(super) fn answer<T>(&self, value: T) -> Result<T, store::Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            let away = std::io::Error::other("away");
            return Err(store::Error::Unavailable(Arc::new(away)));
        }
        Ok(value)
    }
}

pub(super) fn profile(name: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        surname: "Doe".to_owned(),
        ..Profile::default()
    }
}

#[async_trait]
impl History for Ledger {
    async fn head(&self) -> Result<Head, store::Error> {
        self.answer(Head {
            store_id: "memory".to_owned(),
            epoch: 1,
            position: *self.head.borrow(),
            recorded_at: Time::from_millis(0),
            appends: 0,
        })
    }

    fn watch_head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredEvent>, store::Error> {
        let events = self.events.lock().unwrap();
        let later = events.iter().filter(|event| event.position > after);
        self.answer(later.take(limit).cloned().collect())
    }

    async fn read_user(
        &self,
        user: &UserId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        let events = self.events.lock().unwrap();
        let later = events
            .iter()
            .filter(|event| event.user_id == *user && event.version > after);
        self.answer(later.take(limit).cloned().collect())
    }

    async fn read_user_back(
        &self,
        _: &UserId,
        _: Version,
        _: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        unreachable!("a projection goes forward")
    }

    async fn read_users(
        &self,
        _: &[UserId],
        _: Position,
        _: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        unreachable!("a projection reads no users together")
    }

    async fn claims(&self, _: &[String]) -> Result<Vec<Claim>, store::Error> {
        unreachable!("a projection reads no claims")
    }

    async fn claims_after(&self, _: &str, _: usize) -> Result<Vec<Claim>, store::Error> {
        unreachable!("a projection reads no claims")
    }

    async fn outcomes(&self, _: &[OutcomeKey]) -> Result<Vec<Outcome>, store::Error> {
        unreachable!("a projection reads no outcomes")
    }

    async fn position_of(&self, _: &EventId) -> Result<Option<Position>, store::Error> {
        unreachable!("a projection looks no event up")
    }
    async fn has_strays(&self) -> Result<bool, store::Error> {
        unreachable!("a projection verifies nothing")
    }
}
