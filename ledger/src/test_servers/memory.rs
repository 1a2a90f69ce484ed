//! A ledger in memory, for the tests of its followers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::store::{self, Claim, Head, History, Outcome, OutcomeKey};
use events::envelope::{Context, Previous, Recorded};
use events::event::{Consents, Profile, UserRegistered, UsernameChanged};
use events::{EventId, Position, StoredEvent, Time, UserEvent, UserId, Version};

/// A user by number.
pub fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().expect("it is 24 digits")
}

/// A ledger that a test may change in ways that no database allows.
pub struct Memory {
    events: Mutex<Vec<StoredEvent>>,
    /// The head that followers watch.
    pub head: watch::Sender<Position>,
    /// Whether it fails every request, like an unavailable database.
    pub is_away: AtomicBool,
    /// The number of requests so far.
    pub requests: AtomicU32,
}

impl Memory {
    /// A ledger without events.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            head: watch::Sender::new(0),
            is_away: AtomicBool::new(false),
            requests: AtomicU32::new(0),
        })
    }

    /// All events, for inspection and change.
    pub fn all(&self) -> MutexGuard<'_, Vec<StoredEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event of a user. Returns its position.
    pub fn record(&self, user_id: UserId, event: UserEvent) -> Position {
        let mut events = self.all();
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

    /// Adds a registration.
    pub fn register(&self, n: u64) -> Position {
        let registered = UserRegistered {
            username: format!("user{n}"),
            profile: profile(&format!("Name{n}")),
            country_code: None,
            phone_number: None,
            consents: Consents::default(),
            is_registration_complete: true,
            roles: vec!["user".to_owned()],
            last_login: None,
        };
        self.record(user(n), UserEvent::UserRegistered(Box::new(registered)))
    }

    /// Adds a change of a username.
    pub fn rename(&self, n: u64, before: &str, after: &str) -> Position {
        let renamed = UsernameChanged {
            before: before.to_owned(),
            after: after.to_owned(),
            held_until: Time::from_millis(1),
        };
        self.record(user(n), UserEvent::UsernameChanged(renamed))
    }

    /// Adds an event of a type that this program does not know.
    pub fn record_from_the_future(&self, n: u64) -> Position {
        let position = self.rename(n, "a", "b");
        let mut events = self.all();
        if let Some(event) = events.last_mut() {
            retype(event, "username-changed", "soul-sold");
        }
        position
    }

    /// Makes the event known to this program.
    pub fn learn(&self) {
        for event in self.all().iter_mut() {
            retype(event, "soul-sold", "username-changed");
        }
    }

    fn answer<T>(&self, value: T) -> Result<T, store::Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            let away = std::io::Error::other("away");
            return Err(store::Error::Unavailable(Arc::new(away)));
        }
        Ok(value)
    }
}

fn retype(event: &mut StoredEvent, from: &str, to: &str) {
    let text = String::from_utf8_lossy(&event.envelope);
    event.envelope = text.replace(from, to).into();
}

/// A profile with a given name.
pub fn profile(name: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        surname: "Doe".to_owned(),
        ..Profile::default()
    }
}

#[async_trait]
impl History for Memory {
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
        let events = self.all();
        let later = events.iter().filter(|event| event.position > after);
        self.answer(later.take(limit).cloned().collect())
    }

    async fn read_user(
        &self,
        user: &UserId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        let events = self.all();
        let later = events
            .iter()
            .filter(|event| event.user_id == *user && event.version > after);
        self.answer(later.take(limit).cloned().collect())
    }

    async fn read_user_back(
        &self,
        user: &UserId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        let events = self.all();
        let earlier = events
            .iter()
            .rev()
            .filter(|event| event.user_id == *user && event.version < before);
        self.answer(earlier.take(limit).cloned().collect())
    }

    async fn read_users(
        &self,
        users: &[UserId],
        after: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        let events = self.all();
        let later = events
            .iter()
            .filter(|event| event.position > after && users.contains(&event.user_id));
        self.answer(later.take(limit).cloned().collect())
    }

    async fn claims(&self, _: &[String]) -> Result<Vec<Claim>, store::Error> {
        unreachable!("only stores keep claims")
    }

    async fn claims_after(&self, _: &str, _: usize) -> Result<Vec<Claim>, store::Error> {
        unreachable!("only stores keep claims")
    }

    async fn outcomes(&self, _: &[OutcomeKey]) -> Result<Vec<Outcome>, store::Error> {
        unreachable!("only stores keep outcomes")
    }

    async fn position_of(&self, id: &EventId) -> Result<Option<Position>, store::Error> {
        let events = self.all();
        let found = events.iter().find(|event| event.event_id == *id);
        self.answer(found.map(|event| event.position))
    }

    async fn has_strays(&self) -> Result<bool, store::Error> {
        self.answer(false)
    }
}
