use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use events::document::fold;
use events::envelope::{Context, Previous, Recorded};
use events::feed::StoreFeed;
use events::store::{Claim, Head, Outcome, OutcomeKey};
use events::user::{Change, Profile, ProfileUpdated, UserRegistered, UsernameChanged};
use events::{EventId, Time, UserEvent, Version};

use super::*;
use crate::read_model::sqlite::SqliteReadModel;
use crate::read_model::{Search, Stored};

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().unwrap()
}

/// A ledger in memory.
pub(crate) struct Ledger {
    events: Mutex<Vec<StoredEvent>>,
    head: watch::Sender<Position>,
    is_away: AtomicBool,
    asked: AtomicU32,
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

    fn answer<T>(&self, value: T) -> Result<T, store::Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            let away = std::io::Error::other("away");
            return Err(store::Error::Unavailable(Arc::new(away)));
        }
        Ok(value)
    }
}

fn profile(name: &str) -> Profile {
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

/// A read model that can be made to fail.
struct Fragile {
    inner: SqliteReadModel,
    is_full: AtomicBool,
    panics: AtomicBool,
}

#[async_trait]
impl Documents for Fragile {
    fn watch_applied(&self) -> watch::Receiver<Position> {
        self.inner.watch_applied()
    }
    async fn document(&self, user: &UserId) -> Result<Option<Document>, read_model::Error> {
        self.inner.document(user).await
    }
    async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, read_model::Error> {
        self.inner.documents(users).await
    }

    async fn documents_by_username(
        &self,
        usernames: &[String],
    ) -> Result<Vec<Document>, read_model::Error> {
        self.inner.documents_by_username(usernames).await
    }
    async fn search(&self, search: &Search) -> Result<Vec<Document>, read_model::Error> {
        self.inner.search(search).await
    }
    async fn parked(&self) -> Result<Vec<Parked>, read_model::Error> {
        self.inner.parked().await
    }
}

#[async_trait]
impl ReadModel for Fragile {
    async fn checkpoint(&self) -> Result<Position, read_model::Error> {
        self.inner.checkpoint().await
    }

    async fn stored(&self, from: &str, limit: usize) -> Result<Vec<Stored>, read_model::Error> {
        self.inner.stored(from, limit).await
    }
    async fn take_over(&self, owner: &str) -> Result<Position, read_model::Error> {
        self.inner.take_over(owner).await
    }
    async fn is_owned(&self) -> Result<bool, read_model::Error> {
        self.inner.is_owned().await
    }
    async fn apply(&self, owner: &str, batch: &Batch) -> Result<(), ApplyError> {
        assert!(!self.panics.load(Ordering::Relaxed), "a planted defect");
        if self.is_full.load(Ordering::Relaxed) {
            let full = std::io::Error::other("no space left on device");
            return Err(read_model::Error::Unavailable(Arc::new(full)).into());
        }
        self.inner.apply(owner, batch).await
    }
}

struct Fixture {
    ledger: Arc<Ledger>,
    read_model: Arc<Fragile>,
    projectors: AtomicU32,
    _folder: tempfile::TempDir,
}

/// A projection that runs until it is dropped.
struct Running {
    health: watch::Receiver<Health>,
    task: tokio::task::JoinHandle<Error>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = SqliteReadModel::open(&folder.path().join("read-model.db"))
            .await
            .unwrap();
        let read_model = Arc::new(Fragile {
            inner,
            is_full: AtomicBool::new(false),
            panics: AtomicBool::new(false),
        });
        Self {
            ledger: Ledger::new(),
            read_model,
            projectors: AtomicU32::new(0),
            _folder: folder,
        }
    }

    fn start(&self) -> Running {
        let history = Arc::clone(&self.ledger);
        self.start_on(move |after| Box::new(StoreFeed::new(Arc::clone(&history) as _, after, 3)))
    }

    fn start_on(
        &self,
        feed_after: impl FnMut(Position) -> Box<dyn Feed> + Send + 'static,
    ) -> Running {
        let (projection, health) = Projection::new(
            Arc::clone(&self.read_model) as _,
            Arc::clone(&self.ledger) as _,
            self.projectors.fetch_add(1, Ordering::Relaxed).to_string(),
        );
        let task = tokio::spawn(projection.run(feed_after));
        Running { health, task }
    }

    async fn reach(&self, position: Position) {
        assert!(
            wait_for(&*self.read_model, position, DEADLINE).await,
            "position {position} is never reached"
        );
    }

    async fn username(&self, n: u64) -> Option<String> {
        let document = self.read_model.document(&user(n)).await.unwrap();
        document.map(|document| document.username)
    }
}

impl Running {
    async fn state(&mut self, wanted: impl Fn(&State) -> bool) {
        let waited = self.health.wait_for(|health| wanted(&health.state));
        let waited = tokio::time::timeout(DEADLINE, waited).await;
        waited.expect("the state is never reached").unwrap();
    }

    async fn ends(mut self) -> Error {
        let ended = tokio::time::timeout(DEADLINE, &mut self.task).await;
        ended.expect("the projection never ends").unwrap()
    }
}

#[tokio::test]
async fn the_read_model_is_the_fold_of_the_ledger() {
    let fixture = Fixture::new().await;
    for n in 1..=5 {
        fixture.ledger.register(n);
    }
    let _running = fixture.start();
    fixture.reach(5).await;
    fixture.ledger.rename(3, "user3", "third");
    let update = ProfileUpdated {
        name: Change::between(&"Name4".to_owned(), &"Fourth".to_owned()),
        ..ProfileUpdated::default()
    };
    let head = fixture
        .ledger
        .record(user(4), UserEvent::ProfileUpdated(Box::new(update)));
    fixture.reach(head).await;

    let mut folded: HashMap<UserId, Document> = HashMap::new();
    for event in fixture.ledger.events.lock().unwrap().iter() {
        let before = folded.remove(&event.user_id);
        folded.insert(
            event.user_id,
            fold(before, &event.decode().unwrap()).unwrap(),
        );
    }
    for (user_id, document) in folded {
        let kept = fixture.read_model.document(&user_id).await.unwrap();
        assert_eq!(kept, Some(document));
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_folded_parks_its_user_and_no_other() {
    let fixture = Fixture::new().await;
    fixture.ledger.register(1);
    fixture.ledger.register(2);
    let from = fixture.ledger.record_from_the_future(1);
    fixture.ledger.rename(1, "b", "later");
    let head = fixture.ledger.rename(2, "user2", "second");
    let _running = fixture.start();
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
    assert_eq!(fixture.username(2).await.as_deref(), Some("second"));
    let parked = fixture.read_model.parked().await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].user_id, parked[0].from), (user(1), from));
    assert!(parked[0].error.contains("soul-sold"), "{}", parked[0].error);
}

#[tokio::test]
async fn a_parked_user_waits_over_a_restart_and_folds_when_its_event_can_be() {
    let fixture = Fixture::new().await;
    fixture.ledger.register(1);
    let head = fixture.ledger.record_from_the_future(1);
    let running = fixture.start();
    fixture.reach(head).await;
    drop(running);

    let running = fixture.start();
    let head = fixture.ledger.rename(1, "b", "later");
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
    drop(running);

    fixture.ledger.learn();
    let _running = fixture.start();
    let head = fixture.ledger.register(2);
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("later"));
    assert_eq!(fixture.read_model.parked().await.unwrap(), []);
}

#[tokio::test]
async fn a_user_that_waits_for_another_reason_than_before_is_said_to() {
    let fixture = Fixture::new().await;
    let first = fixture.ledger.register(1);
    let head = fixture.ledger.record_from_the_future(1);
    let running = fixture.start();
    fixture.reach(head).await;
    drop(running);
    let parked = fixture.read_model.parked().await.unwrap();

    // As an earlier program left it, to which even the first event was new.
    let kept = Parked {
        from: first,
        error: "in other words".to_owned(),
        ..parked[0].clone()
    };
    fixture.read_model.take_over("earlier").await.unwrap();
    let batch = Batch {
        from: head,
        to: head,
        documents: Vec::new(),
        same_words: HashSet::new(),
        parked: vec![kept],
        unparked: Vec::new(),
    };
    fixture.read_model.apply("earlier", &batch).await.unwrap();
    fixture.read_model.take_over(NOBODY).await.unwrap();

    let _running = fixture.start();
    let head = fixture.ledger.register(2);
    fixture.reach(head).await;
    assert_eq!(fixture.read_model.parked().await.unwrap(), parked);
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
}

#[tokio::test]
async fn a_projector_that_was_overtaken_tells_of_no_parked_user() {
    let said = Arc::new(Said::default());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Arc::clone(&said))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fixture = Fixture::new().await;
    let head = fixture.ledger.register(1);
    let mut running = fixture.start();
    fixture.reach(head).await;

    // Another one folds the next event first.
    let ahead = Ledger::new();
    ahead.register(1);
    let to = ahead.register(2);
    let event = ahead.events.lock().unwrap()[1].clone();
    let document = fold(None, &event.decode().unwrap()).unwrap();
    fixture.read_model.take_over("later").await.unwrap();
    let batch = Batch {
        from: head,
        to,
        documents: vec![document],
        same_words: HashSet::new(),
        parked: Vec::new(),
        unparked: Vec::new(),
    };
    fixture.read_model.apply("later", &batch).await.unwrap();
    fixture.ledger.register(2);
    running.state(|state| *state == State::Standby).await;
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("Another projector has taken over"), "{said}");
    assert!(!said.contains("cannot be folded"), "{said}");
}

/// What was logged.
#[derive(Default)]
struct Said(Mutex<Vec<u8>>);

impl std::io::Write for &Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_feed_asks_the_ledger_nothing_and_wakes_at_once() {
    let ledger = Ledger::new();
    let mut feed = StoreFeed::new(Arc::clone(&ledger) as _, 0, 3);
    let day = Duration::from_secs(24 * 60 * 60);
    let idle = tokio::time::timeout(day, feed.next()).await;
    assert!(idle.is_err());
    assert_eq!(ledger.asked.load(Ordering::Relaxed), 0);
    ledger.register(1);
    let woken = feed.next().now_or_never();
    assert_eq!(woken.expect("at once").unwrap().len(), 1);
}

/// Gives what it is told, whatever the positions.
struct Scripted(VecDeque<Vec<StoredEvent>>);

#[async_trait]
impl Feed for Scripted {
    async fn next(&mut self) -> Result<Vec<StoredEvent>, feed::Error> {
        match self.0.pop_front() {
            Some(events) => Ok(events),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_gap_stops_the_projection_and_nothing_behind_it_is_applied() {
    let fixture = Fixture::new().await;
    for n in 1..=3 {
        fixture.ledger.register(n);
    }
    let mut events = fixture.ledger.read(0, 10).await.unwrap();
    events.remove(1);
    let mut script = Some(VecDeque::from([events]));
    let running = fixture.start_on(move |_| Box::new(Scripted(script.take().unwrap_or_default())));
    let error = running.ends().await;
    assert!(
        matches!(
            error,
            Error::Feed(feed::Error::Gap {
                expected: 2,
                found: 3
            })
        ),
        "{error}"
    );
    assert_eq!(fixture.read_model.checkpoint().await.unwrap(), 0);
}

#[tokio::test]
async fn a_gap_in_the_ledger_itself_stops_the_projection() {
    let fixture = Fixture::new().await;
    for n in 1..=3 {
        fixture.ledger.register(n);
    }
    fixture.ledger.events.lock().unwrap().remove(1);
    let error = fixture.start().ends().await;
    assert!(
        matches!(error, Error::Feed(feed::Error::Gap { expected: 2, .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_read_model_ahead_of_its_ledger_is_left_alone() {
    let fixture = Fixture::new().await;
    fixture.ledger.register(1);
    let running = fixture.start();
    fixture.reach(1).await;
    drop(running);
    fixture.ledger.events.lock().unwrap().clear();
    fixture.ledger.head.send_replace(0);
    let error = fixture.start().ends().await;
    assert!(
        matches!(
            error,
            Error::AheadOfLedger {
                checkpoint: 1,
                head: 0
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_disk_is_waited_for_and_nothing_is_skipped() {
    let fixture = Fixture::new().await;
    fixture.read_model.is_full.store(true, Ordering::Relaxed);
    fixture.ledger.register(1);
    let mut running = fixture.start();
    running
        .state(|state| matches!(state, State::Retrying { error } if error.contains("no space")))
        .await;
    fixture.ledger.register(2);
    fixture.read_model.is_full.store(false, Ordering::Relaxed);
    running.state(|state| *state == State::Running).await;
    fixture.reach(2).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
}

#[tokio::test]
async fn a_ledger_that_was_away_is_followed_again() {
    let fixture = Fixture::new().await;
    fixture.ledger.is_away.store(true, Ordering::Relaxed);
    let mut running = fixture.start();
    running
        .state(|state| matches!(state, State::Retrying { .. }))
        .await;
    fixture.ledger.is_away.store(false, Ordering::Relaxed);
    running.state(|state| *state == State::Running).await;
    let head = fixture.ledger.register(1);
    fixture.reach(head).await;
}

#[tokio::test]
async fn of_two_projectors_one_works_and_the_other_takes_over_when_it_is_gone() {
    let fixture = Fixture::new().await;
    let mut first = fixture.start();
    let head = fixture.ledger.register(1);
    fixture.reach(head).await;
    // The newcomer works, the elder stands by at its next event.
    let second = fixture.start();
    let head = fixture.ledger.register(2);
    fixture.reach(head).await;
    first.state(|state| *state == State::Standby).await;
    for n in 3..=10 {
        let head = fixture.ledger.register(n);
        fixture.reach(head).await;
    }
    assert_eq!(first.health.borrow().state, State::Standby);
    // As if it was killed: it says nothing to anybody.
    drop(second);
    let head = fixture.ledger.register(11);
    fixture.reach(head).await;
    first.state(|state| *state == State::Running).await;
    assert_eq!(fixture.username(11).await.as_deref(), Some("user11"));
}

#[tokio::test]
async fn a_user_parked_by_one_projector_waits_for_the_other_too() {
    let fixture = Fixture::new().await;
    let first = fixture.start();
    fixture.ledger.register(1);
    let head = fixture.ledger.record_from_the_future(1);
    fixture.reach(head).await;
    // A newer program folds it, and is gone again; the elder must not go on skipping that user.
    fixture.ledger.learn();
    let second = fixture.start();
    let head = fixture.ledger.rename(1, "b", "c");
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("c"));
    drop(second);
    let head = fixture.ledger.rename(1, "c", "d");
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("d"));
    drop(first);
}

#[tokio::test]
async fn a_panicking_step_stops_the_projection_loudly() {
    let fixture = Fixture::new().await;
    fixture.read_model.panics.store(true, Ordering::Relaxed);
    fixture.ledger.register(1);
    let mut running = fixture.start();
    running
        .state(|state| matches!(state, State::Stopped { .. }))
        .await;
    assert!(matches!(running.ends().await, Error::Panicked));
}
