//! Shared parts of this crate's tests: a store that fails on demand, and the whole command API as a
//! function with a known clock and known identifiers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use events::envelope::{Recorded, StoredEvent};
use events::{EventId, PhotoId, Position, Time, UserId, Version};
use http_kit::caller::Role;
use http_kit::clock::Clock;
use http_kit::testing::{Answer, Ask, NOW, now, token, verifier};
use jiff::Timestamp;
use ledger::photos::PhotoStore;
use ledger::store::sqlite::SqliteStore;
use ledger::store::{
    self, AppendError, Batch, Claim, EventStore, Head, History, Outcome, OutcomeKey,
};
use photo::Photos;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::{CommandApi, Committer, Randomness, Uploads};

/// The example user of the published page.
pub(crate) const JOHN: &str = "507f1f77bcf86cd799439011";
/// Another user.
pub(crate) const JANE: &str = "507f1f77bcf86cd799439099";
/// The public URL in photo links.
pub(crate) const URL: &str = "https://example.com";
/// Milliseconds of a day.
pub(crate) const DAY: i64 = 86_400_000;

/// The fault that the store causes in the next append.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk is full: nothing is written.
    Full,
    /// The append is written, but its answer is lost.
    LostAnswer,
    /// The store panics before it writes.
    Panic,
}

/// A store on SQLite whose appends a test can count, delay and break.
pub(crate) struct Faulty {
    inner: SqliteStore,
    pub(crate) appends: AtomicUsize,
    pub(crate) gate: Semaphore,
    faults: Mutex<Vec<Fault>>,
    pub(crate) damaged: Mutex<Option<UserId>>,
    _folder: tempfile::TempDir,
}

impl Faulty {
    pub(crate) async fn open() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(Self {
            inner: SqliteStore::open(&folder.path().join("ledger.db"))
                .await
                .unwrap(),
            appends: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            faults: Mutex::default(),
            damaged: Mutex::default(),
            _folder: folder,
        })
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn unavailable() -> store::Error {
        store::Error::Unavailable(Arc::new(std::io::Error::from(
            std::io::ErrorKind::StorageFull,
        )))
    }
}

#[async_trait]
impl History for Faulty {
    async fn head(&self) -> Result<Head, store::Error> {
        self.inner.head().await
    }
    fn watch_head(&self) -> watch::Receiver<Position> {
        self.inner.watch_head()
    }
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredEvent>, store::Error> {
        self.inner.read(after, limit).await
    }
    async fn read_user(
        &self,
        user: &UserId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        self.inner.read_user(user, after, limit).await
    }
    async fn read_user_back(
        &self,
        user: &UserId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        self.inner.read_user_back(user, before, limit).await
    }
    async fn read_users(
        &self,
        users: &[UserId],
        after: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        let mut events = self.inner.read_users(users, after, limit).await?;
        let damaged = *self.damaged.lock().unwrap();
        for event in &mut events {
            if Some(event.user_id) == damaged {
                event.envelope = "{}".into();
            }
        }
        Ok(events)
    }
    async fn claims(&self, usernames: &[String]) -> Result<Vec<Claim>, store::Error> {
        self.inner.claims(usernames).await
    }
    async fn claims_after(&self, username: &str, limit: usize) -> Result<Vec<Claim>, store::Error> {
        self.inner.claims_after(username, limit).await
    }
    async fn outcomes(&self, keys: &[OutcomeKey]) -> Result<Vec<Outcome>, store::Error> {
        self.inner.outcomes(keys).await
    }
    async fn position_of(&self, event: &EventId) -> Result<Option<Position>, store::Error> {
        self.inner.position_of(event).await
    }
    async fn has_strays(&self) -> Result<bool, store::Error> {
        self.inner.has_strays().await
    }
}

#[async_trait]
impl EventStore for Faulty {
    async fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let fault = self.faults.lock().unwrap().pop();
        match fault {
            None => self.inner.append(batch).await,
            Some(Fault::Full) => Err(Self::unavailable().into()),
            Some(Fault::LostAnswer) => {
                self.inner.append(batch).await?;
                Err(Self::unavailable().into())
            }
            Some(Fault::Panic) => panic!("a defect of the store that a test planted"),
        }
    }
    async fn sweep(&self, now: Time, outcomes_before: Time) -> Result<(), store::Error> {
        self.inner.sweep(now, outcomes_before).await
    }
}

/// Fills bytes with the next number.
pub(crate) fn count_up(drawn: &AtomicU64, bytes: &mut [u8]) {
    let number = drawn.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let at = bytes.len() - number.len();
    bytes[at..].copy_from_slice(&number);
}

/// The nth identifier that the routes make at [`NOW`].
pub(crate) fn made(n: u64) -> String {
    PhotoId::new(Time::from(now()), n.to_be_bytes()).to_string()
}

/// The command API as a function: no socket, a clock that the test sets, identifiers that count up.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) store: Arc<Faulty>,
    pub(crate) photo_store: PhotoStore,
    pub(crate) photo_folder: PathBuf,
    now: Arc<Mutex<Timestamp>>,
    panics: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let store = Faulty::open().await;
        let folder = tempfile::tempdir().unwrap();
        let photo_folder = folder.path().join("photos");
        let photo_store = PhotoStore::local(&photo_folder).unwrap();
        let time = Arc::new(Mutex::new(now()));
        let told = Arc::clone(&time);
        let clock = Clock::from_fn(move || *told.lock().unwrap());
        // The loop has its own numbers, so that those of the routes do not depend on events.
        let drawn = AtomicU64::new(1);
        let numbers = Randomness::new(move |bytes| count_up(&drawn, bytes));
        let (committer, commit_loop) =
            Committer::new(Arc::clone(&store) as _, clock.clone(), numbers);
        tokio::spawn(commit_loop);
        let panics = Arc::new(AtomicBool::new(false));
        let (drawn, told) = (AtomicU64::new(1), Arc::clone(&panics));
        let randomness = Randomness::new(move |bytes| {
            let panics = told.swap(false, Ordering::SeqCst);
            assert!(!panics, "a defect of a route that a test planted");
            count_up(&drawn, bytes);
        });
        let api = CommandApi {
            committer,
            verifier: verifier(clock.clone()),
            clock: clock.clone(),
            randomness,
            photos: Arc::new(Photos::new(2)),
            photo_store: photo_store.clone(),
            uploads: Uploads::default(),
            public_url: URL.into(),
        };
        Self {
            router: http_kit::serve::harden(crate::router(api), clock),
            store,
            photo_store,
            photo_folder,
            now: time,
            panics,
            _folder: folder,
        }
    }

    /// A service with two users: John with the username `john`, and Jane with `jane`.
    pub(crate) async fn with_users() -> Self {
        let api = Self::start().await;
        for (id, name, username) in [(JOHN, "John", "john"), (JANE, "Jane", "jane")] {
            let body = json!({"_id": id, "username": username, "name": name, "surname": "Doe"});
            let answer = api.send(service("POST", "/api/v1/users").json(&body)).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        api
    }

    pub(crate) async fn send(&self, ask: Ask) -> Answer {
        ask.send(&self.router).await
    }

    pub(crate) fn advance(&self, millis: i64) {
        let mut now = self.now.lock().unwrap();
        *now = Time::from_millis(Time::from(*now).millis() + millis).into();
    }

    /// Makes the next use of randomness in a route panic.
    pub(crate) fn panic_next(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    /// The whole ledger.
    pub(crate) async fn ledger(&self) -> Vec<Recorded> {
        let events = self.store.read(0, 1_000_000).await.unwrap();
        events.iter().map(|event| event.decode().unwrap()).collect()
    }

    /// The type and the payload of the newest event.
    pub(crate) async fn newest(&self) -> (String, Value) {
        let event = self.ledger().await.pop().unwrap().event;
        let payload = serde_json::from_str(&event.to_json()).unwrap();
        (event.event_type().to_owned(), payload)
    }
}

/// A request of a user.
pub(crate) fn user(id: &str, method: &str, uri: &str) -> Ask {
    Ask::new(method, uri).bearer(&token(id, &[Role::User]))
}

/// A request of the sign-up service.
pub(crate) fn service(method: &str, uri: &str) -> Ask {
    Ask::new(method, uri).bearer(&token("sign-up", &[Role::Service]))
}

/// John as registered, in the member order of the published page.
pub(crate) fn john() -> Value {
    json!({
        "_id": JOHN,
        "name": "John",
        "surname": "Doe",
        "username": "john",
        "interests": [],
        "privacyPolicyAccepted": false,
        "termsOfUseAccepted": false,
        "consentFormAccepted": false,
        "isRegistrationComplete": true,
        "roles": ["user"],
        "createdAt": NOW,
        "updatedAt": NOW,
    })
}

/// The headers of an answer with the document of a user.
#[track_caller]
pub(crate) fn is_at(answer: &Answer, version: Version, position: Position) {
    let etag = format!("\"{version}\"");
    assert_eq!(answer.header("etag"), Some(etag.as_str()));
    let position = position.to_string();
    assert_eq!(answer.header("ledger-position"), Some(position.as_str()));
    assert!(answer.header("x-request-id").is_some());
}

/// A form of parts with names and bytes; its boundary is `x`.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"photo\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--x--\r\n");
    body
}

/// An upload of a photo.
pub(crate) fn upload(id: &str, photo: &[u8]) -> Ask {
    user(id, "PATCH", "/api/v1/users/profile/photo")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(form(&[("file", photo)]))
}
