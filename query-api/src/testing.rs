//! What the tests of this crate share: the whole query API as a function, on a ledger and a read model in
//! SQLite that a projection keeps together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use events::envelope::{Context, Previous, Recorded};
use events::event::{
    Change, Consents, PhotoChanged, Profile, ProfileUpdated, UserEvent, UserRegistered,
    UsernameChanged, Variant,
};
use events::{EventId, PhotoId, Position, Time, UserId};
use http_kit::caller::Role;
use http_kit::clock::Clock;
use http_kit::testing::{Answer, Ask, NOW, now, token, verifier};
use jiff::Timestamp;
use ledger::feed::StoreFeed;
use ledger::merkle::Integrator;
use ledger::merkle::note::Signer;
use ledger::merkle::sqlite::SqliteLog;
use ledger::photos::PhotoStore;
use ledger::store::sqlite::SqliteStore;
use ledger::store::{Batch, EventStore, History as _, claims_of};
use ledger::trail::sqlite::SqliteTrail;
use ledger::trail::{self, AuditTrail, Question, Read, RecordedRead};
use projector::projection::{Projection, wait_for};
use projector::read_model::sqlite::SqliteReadModel;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{QueryApi, Streams};

/// The user of the published page.
pub(crate) const JOHN: &str = "507f1f77bcf86cd799439011";
/// Another user.
pub(crate) const JANE: &str = "507f1f77bcf86cd799439099";
/// A photo of John.
pub(crate) const PHOTO: &str = "507f1f77bcf86cd799439012";
/// Where photos are said to be.
pub(crate) const URL: &str = "https://example.com";
/// Milliseconds of a day.
pub(crate) const DAY: i64 = 86_400_000;

/// The query API as a function: no socket, and a clock that a test sets.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) photo_store: PhotoStore,
    pub(crate) trail: Arc<Trail>,
    log: Arc<SqliteLog>,
    /// Ends the streams.
    pub(crate) stopping: CancellationToken,
    store: Arc<SqliteStore>,
    pub(crate) read_model: Arc<SqliteReadModel>,
    now: Arc<Mutex<Timestamp>>,
    folder: tempfile::TempDir,
}

impl Api {
    /// With nothing in it, and nothing that projects.
    pub(crate) async fn still() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("ledger.db")).await;
        let store = Arc::new(store.unwrap());
        let read_model = SqliteReadModel::open(&folder.path().join("read-model.db")).await;
        let read_model = Arc::new(read_model.unwrap());
        let photo_store = PhotoStore::local(&folder.path().join("photos")).unwrap();
        let trail = Arc::new(Trail {
            inner: SqliteTrail::open(&folder.path().join("audit.db"))
                .await
                .unwrap(),
            is_full: AtomicBool::new(false),
        });
        let log = SqliteLog::open(&folder.path().join("log.db")).await;
        let log = Arc::new(log.unwrap());
        let stopping = CancellationToken::new();
        let time = Arc::new(Mutex::new(now()));
        let told = Arc::clone(&time);
        let clock = Clock::from_fn(move || *told.lock().unwrap());
        let api = QueryApi {
            documents: Arc::clone(&read_model) as _,
            history: Arc::clone(&store) as _,
            trail: Arc::clone(&trail) as _,
            log: Arc::clone(&log) as _,
            streams: Streams::new(Arc::clone(&store) as _, stopping.clone()),
            photo_store: photo_store.clone(),
            verifier: verifier(clock.clone()),
            clock: clock.clone(),
            public_url: URL.into(),
        };
        Self {
            router: http_kit::serve::harden(crate::router(api), clock),
            photo_store,
            trail,
            log,
            stopping,
            store,
            read_model,
            now: time,
            folder,
        }
    }

    /// With nothing in it, and a projection that follows the ledger.
    pub(crate) async fn start() -> Self {
        let api = Self::still().await;
        api.project();
        api
    }

    /// With two users: John of the published page, who has everything, and Jane, who has the least.
    pub(crate) async fn with_users() -> Self {
        let api = Self::start().await;
        api.append(JOHN, registered("johndoe123", whole())).await;
        api.append(JANE, registered("jane", named("Jane", "Doe")))
            .await;
        api.append(JOHN, photo()).await;
        api
    }

    /// Starts a projection of what the ledger holds and will hold.
    pub(crate) fn project(&self) {
        let read_model = Arc::clone(&self.read_model) as _;
        let (projection, _) = Projection::new(
            read_model,
            Arc::clone(&self.store) as _,
            "a test".to_owned(),
        );
        let history = Arc::clone(&self.store);
        tokio::spawn(
            projection
                .run(move |after| Box::new(StoreFeed::new(Arc::clone(&history) as _, after, 512))),
        );
    }

    pub(crate) fn advance(&self, millis: i64) {
        let mut now = self.now.lock().unwrap();
        *now = Time::from_millis(Time::from(*now).millis() + millis).into();
    }

    pub(crate) async fn send(&self, ask: Ask) -> Answer {
        ask.send(&self.router).await
    }

    /// Sends a request that reads what is in the ledger now.
    pub(crate) async fn read(&self, ask: Ask) -> Answer {
        let head = self.store.head().await.unwrap().position;
        let ask = ask.header("ledger-min-position", head.to_string());
        ask.send(&self.router).await
    }

    /// Waits until the documents are the fold up to a position.
    pub(crate) async fn applied(&self, position: Position) {
        assert!(wait_for(&*self.read_model, position, Duration::from_secs(20)).await);
    }

    /// Signs what the ledger is now.
    pub(crate) async fn sign(&self) {
        let signer = Signer::new("example.com/log", [1; 32]).unwrap();
        let (history, log) = (Arc::clone(&self.store), Arc::clone(&self.log));
        let integrator = Integrator::new(history as _, log as _, signer);
        integrator.step().await.unwrap();
    }

    /// Appends an event of a user.
    pub(crate) async fn append(&self, id: &str, event: UserEvent) {
        self.append_from(id, event, Context::default()).await;
    }

    /// Appends an event of a user that somebody caused.
    pub(crate) async fn append_from(&self, id: &str, event: UserEvent, context: Context) {
        let user_id: UserId = id.parse().unwrap();
        let expected = self.store.head().await.unwrap();
        let before = self.store.read_user(&user_id, 0, 1_000).await.unwrap();
        let now = Time::from(*self.now.lock().unwrap());
        let position = expected.position + 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&position.to_be_bytes());
        let recorded = Recorded {
            position,
            event_id: EventId::new(now, random),
            user_id,
            version: before.len() as u64 + 1,
            time: now,
            recorded_at: now,
            previous: before.last().map(|event| Previous {
                position: event.position,
                hash: event.leaf_hash,
            }),
            context,
            event,
        };
        let batch = Batch {
            expected,
            recorded_at: now,
            events: vec![recorded.to_stored()],
            claims: claims_of(&user_id, &recorded.event),
            outcomes: Vec::new(),
        };
        self.store.append(&batch).await.unwrap();
    }
}

impl Api {
    /// Takes the events away from under the ledger.
    pub(crate) async fn lose_events(&self) {
        use sqlx::Connection as _;
        let path = self.folder.path().join("ledger.db");
        let url = format!("sqlite://{}", path.display());
        let mut stranger = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("ALTER TABLE events RENAME TO lost")
            .execute(&mut stranger)
            .await
            .unwrap();
    }

    /// The stored envelope at a position.
    pub(crate) async fn envelope(&self, position: Position) -> String {
        let event = self.store.read(position - 1, 1).await.unwrap().remove(0);
        String::from_utf8(event.envelope.to_vec()).unwrap()
    }

    /// Appends many events of John in one batch.
    pub(crate) async fn append_many(&self, count: u64) {
        let expected = self.store.head().await.unwrap();
        let user_id: UserId = JOHN.parse().unwrap();
        let before = self.store.read_user_back(&user_id, u64::MAX, 1).await;
        let before = before.unwrap().remove(0);
        let now = Time::from(*self.now.lock().unwrap());
        let events = (1..=count).map(|n| {
            let position = expected.position + n;
            let mut random = [1; 10];
            random[2..].copy_from_slice(&position.to_be_bytes());
            let recorded = Recorded {
                position,
                event_id: EventId::new(now, random),
                user_id,
                version: before.version + n,
                time: now,
                recorded_at: now,
                previous: None,
                context: Context {
                    actor: format!("actor-{}", n % 1_000),
                    request_id: Some(format!("request-{n}")),
                    ..Context::default()
                },
                event: called("John", "Johnny"),
            };
            recorded.to_stored()
        });
        let batch = Batch {
            events: events.collect(),
            expected,
            recorded_at: now,
            claims: Vec::new(),
            outcomes: Vec::new(),
        };
        self.store.append(&batch).await.unwrap();
    }
}

/// A trail that can be full.
pub(crate) struct Trail {
    inner: SqliteTrail,
    pub(crate) is_full: AtomicBool,
}

impl Trail {
    /// Everything that was recorded.
    pub(crate) async fn all(&self) -> Vec<Read> {
        let question = Question {
            limit: usize::MAX,
            ..Question::default()
        };
        let recorded = self.list(&question).await.unwrap();
        recorded.into_iter().map(|recorded| recorded.read).collect()
    }
}

#[async_trait]
impl AuditTrail for Trail {
    async fn record(&self, read: &Read) -> Result<u64, trail::Error> {
        if self.is_full.load(Ordering::Relaxed) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(trail::Error::Unavailable(Arc::new(full)));
        }
        self.inner.record(read).await
    }
    async fn count(&self) -> Result<u64, trail::Error> {
        self.inner.count().await
    }
    async fn list(&self, question: &Question) -> Result<Vec<RecordedRead>, trail::Error> {
        self.inner.list(question).await
    }
}

/// A request of an auditor.
pub(crate) fn auditor(uri: &str) -> Ask {
    Ask::new("GET", uri).bearer(&token("auditor-1", &[Role::Auditor]))
}

/// A request of a user.
pub(crate) fn user(id: &str, uri: &str) -> Ask {
    Ask::new("GET", uri).bearer(&token(id, &[Role::User]))
}

/// The least that a profile has.
pub(crate) fn named(name: &str, surname: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        surname: surname.to_owned(),
        ..Profile::default()
    }
}

/// A profile that has every member.
fn whole() -> Profile {
    http_kit::profile::example().profile
}

/// John of [`Api::with_users`], for himself.
pub(crate) fn own_john() -> Value {
    json!({
        "_id": JOHN,
        "name": "John",
        "surname": "Doe",
        "username": "johndoe123",
        "availabilityStatus": "available",
        "countryCode": "90",
        "phoneNumber": "5551234567",
        "gender": "male",
        "birthDate": "1995-06-15T00:00:00.000Z",
        "interests": ["music", "sports", "travel", "cooking", "reading"],
        "expertise": "designer",
        "privacyPolicyAccepted": true,
        "privacyPolicyVersion": "1.2.0",
        "termsOfUseAccepted": false,
        "consentFormAccepted": false,
        "isRegistrationComplete": true,
        "roles": ["user"],
        "profilePhoto": photo_shape(),
        "lastLogin": "2024-01-15T09:30:00.000Z",
        "createdAt": NOW,
        "updatedAt": NOW,
        "email": "john.doe@example.com",
        "bio": "Passionate about technology and travel",
        "instagram": "myinstagram",
        "tiktok": "mytiktok",
        "x": "mytwitterx",
        "snapchat": "mysnapchat",
        "facebook": "myfacebook",
    })
}

/// John of [`Api::with_users`], for everybody.
pub(crate) fn public_john() -> Value {
    json!({
        "_id": JOHN,
        "name": "John",
        "surname": "Doe",
        "username": "johndoe123",
        "availabilityStatus": "available",
        "profilePhoto": photo_shape(),
        "interests": ["music", "sports", "travel", "cooking", "reading"],
        "expertise": "designer",
        "age": 30,
        "bio": "Passionate about technology and travel",
        "instagram": "myinstagram",
        "snapchat": "mysnapchat",
        "x": "mytwitterx",
        "tiktok": "mytiktok",
        "facebook": "myfacebook",
    })
}

pub(crate) fn registered(username: &str, profile: Profile) -> UserEvent {
    UserEvent::UserRegistered(Box::new(UserRegistered {
        username: username.to_owned(),
        profile,
        country_code: Some("90".to_owned()),
        phone_number: Some("5551234567".to_owned()),
        consents: Consents {
            privacy_policy_accepted: true,
            privacy_policy_version: Some("1.2.0".to_owned()),
            ..Consents::default()
        },
        is_registration_complete: true,
        roles: vec!["user".to_owned()],
        last_login: Some("2024-01-15T09:30:00Z".parse().unwrap()),
    }))
}

pub(crate) fn renamed(before: &str, after: &str, held_until: &str) -> UserEvent {
    UserEvent::UsernameChanged(UsernameChanged {
        before: before.to_owned(),
        after: after.to_owned(),
        held_until: held_until.parse().unwrap(),
    })
}

/// The name becomes another one.
pub(crate) fn called(before: &str, after: &str) -> UserEvent {
    UserEvent::ProfileUpdated(Box::new(ProfileUpdated {
        name: Change::between(&before.to_owned(), &after.to_owned()),
        ..ProfileUpdated::default()
    }))
}

/// The hash of the bytes of [`PHOTO`].
pub(crate) fn hash() -> String {
    "ab".repeat(32)
}

fn photo() -> UserEvent {
    let variants = [(40, 40), (96, 96)].map(|(size, side)| Variant {
        size,
        file: format!("{size}.webp"),
        side,
    });
    UserEvent::PhotoChanged(Box::new(PhotoChanged {
        photo_id: PHOTO.parse::<PhotoId>().unwrap(),
        content_hash: hash(),
        size: 1_000,
        media_type: "image/png".to_owned(),
        width: 600,
        height: 600,
        main: "512.jpg".to_owned(),
        variants: variants.to_vec(),
        previous_photo_id: None,
    }))
}

/// `profilePhoto` of John.
pub(crate) fn photo_shape() -> Value {
    let hash = hash();
    let url = |file: &str| format!("{URL}/media/users/{JOHN}/photos/{hash}/{PHOTO}/{file}");
    json!({
        "_id": PHOTO,
        "url": url("512.jpg"),
        "type": "image",
        "variants": {"40": url("40.webp"), "96": url("96.webp")},
        "createdAt": http_kit::testing::NOW,
        "updatedAt": http_kit::testing::NOW,
    })
}
