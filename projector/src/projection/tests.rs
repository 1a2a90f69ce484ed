use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use events::UserEvent;
use events::document::fold;
use events::event::{Change, ProfileUpdated};
use ledger::feed::StoreFeed;
use ledger::test_servers::memory::{Memory, user};

use super::*;
use crate::read_model::sqlite::SqliteReadModel;
use crate::read_model::{Search, Stored};

mod parked;

const DEADLINE: Duration = Duration::from_secs(20);

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
    ledger: Arc<Memory>,
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
            ledger: Memory::new(),
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
    for event in fixture.ledger.all().iter() {
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

#[tokio::test(start_paused = true)]
async fn an_idle_feed_sends_no_requests_to_the_ledger_and_wakes_at_once() {
    let ledger = Memory::new();
    let mut feed = StoreFeed::new(Arc::clone(&ledger) as _, 0, 3);
    let day = Duration::from_secs(24 * 60 * 60);
    let idle = tokio::time::timeout(day, feed.next()).await;
    assert!(idle.is_err());
    assert_eq!(ledger.requests.load(Ordering::Relaxed), 0);
    ledger.register(1);
    let woken = feed.next().now_or_never();
    assert_eq!(woken.expect("at once").unwrap().len(), 1);
}

/// Returns prepared batches, whatever their positions.
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
    fixture.ledger.all().remove(1);
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
    fixture.ledger.all().clear();
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
async fn a_full_disk_is_waited_out_and_nothing_is_skipped() {
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
async fn a_ledger_is_followed_again_after_an_outage() {
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
async fn one_of_two_projectors_is_active_and_the_other_takes_over_when_it_is_gone() {
    let fixture = Fixture::new().await;
    let mut first = fixture.start();
    let head = fixture.ledger.register(1);
    fixture.reach(head).await;
    // The second projector becomes active; the first stands by at its next event.
    let second = fixture.start();
    let head = fixture.ledger.register(2);
    fixture.reach(head).await;
    first.state(|state| *state == State::Standby).await;
    for n in 3..=10 {
        let head = fixture.ledger.register(n);
        fixture.reach(head).await;
    }
    assert_eq!(first.health.borrow().state, State::Standby);
    // As if it was killed: it informs nobody.
    drop(second);
    let head = fixture.ledger.register(11);
    fixture.reach(head).await;
    first.state(|state| *state == State::Running).await;
    assert_eq!(fixture.username(11).await.as_deref(), Some("user11"));
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
