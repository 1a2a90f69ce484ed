//! The contract of every read model whose tables can be replaced, whatever its backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ledger::feed::StoreFeed;
use ledger::test_servers::memory::{Memory, user};
use tokio::task::JoinHandle;

use super::*;
use crate::projection::{self, Projection, wait_for};
use crate::read_model::Search;
use crate::search::words;

const DEADLINE: Duration = Duration::from_secs(60);
static RUNS: AtomicU32 = AtomicU32::new(0);

fn run() -> String {
    format!("run{}", RUNS.fetch_add(1, Ordering::Relaxed))
}

/// A read model as two processes see it: the service and the rebuild.
pub(crate) struct Opened {
    pub(crate) service: Arc<dyn Replaceable>,
    pub(crate) operator: Arc<dyn Replaceable>,
}

/// Runs every test, each on a new read model.
pub(crate) async fn run_all(open: impl AsyncFn() -> Opened) {
    a_rebuild_beside_an_active_projector_is_invisible(open().await).await;
    a_wrong_document_is_found_repaired_and_rolled_back(open().await).await;
    missing_and_extra_users_and_wrong_words_are_found(open().await).await;
    a_parked_user_is_folded_again_and_the_projector_notices(open().await).await;
    a_user_that_cannot_be_folded_is_still_parked_after_a_rebuild(open().await).await;
    a_second_rebuild_is_refused_and_an_interrupted_one_leaves_nothing(open().await).await;
    a_read_model_ahead_of_the_ledger_is_rebuilt_when_accepted(open().await).await;
    a_fold_larger_than_memory_works_too(open().await).await;
}

async fn rebuilt(
    ledger: &Arc<Memory>,
    operator: &dyn Replaceable,
    accept_differences: bool,
) -> Result<Report, Error> {
    let history = Arc::clone(ledger) as _;
    rebuild(history, operator, &run(), accept_differences, &|_| {}).await
}

async fn rolled_back(ledger: &Arc<Memory>, operator: &dyn Replaceable) -> Result<Position, Error> {
    roll_back(Arc::clone(ledger) as _, operator, &run(), &|_| {}).await
}

/// An active projector; it ends with the test.
struct Projector(JoinHandle<projection::Error>);

impl Drop for Projector {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn project(ledger: &Arc<Memory>, read_model: &Arc<dyn Replaceable>) -> Projector {
    let history: Arc<dyn History> = Arc::clone(ledger) as _;
    let (projection, _) = Projection::new(Arc::clone(read_model) as _, Arc::clone(&history), run());
    let feed_after = move |after| {
        Box::new(StoreFeed::new(Arc::clone(&history), after, 16)) as Box<dyn feed::Feed>
    };
    Projector(tokio::spawn(projection.run(feed_after)))
}

async fn reach(read_model: &dyn Replaceable, position: Position) {
    let has_come = wait_for(read_model, position, DEADLINE).await;
    assert!(has_come, "position {position} is never reached");
}

async fn read(read_model: &dyn Replaceable, n: u64) -> Document {
    let read = read_model.document(&user(n)).await;
    read.expect("readable").expect("the user is there")
}

async fn a_rebuild_beside_an_active_projector_is_invisible(opened: Opened) {
    let ledger = Memory::new();
    for n in 1..=300 {
        ledger.register(n);
    }
    let projector = project(&ledger, &opened.service);
    reach(&*opened.service, 300).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|n| {
            let (read_model, is_over) = (Arc::clone(&opened.service), Arc::clone(&is_over));
            tokio::spawn(async move {
                let (mut reads, mut version) = (0_u32, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let applied = *read_model.watch_applied().borrow();
                    let document = read(&*read_model, n + 1).await;
                    assert!(document.version >= version, "an older version was read");
                    version = document.version;
                    assert!(
                        *read_model.watch_applied().borrow() >= applied,
                        "the position went back"
                    );
                    let search = Search {
                        words: words("Name"),
                        expertise: None,
                        offset: 0,
                        limit: 10,
                    };
                    let found = read_model.search(&search).await.expect("searchable");
                    assert_eq!(found.len(), 10);
                    reads += 1;
                    // Other tests need the machine too.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                reads
            })
        })
        .collect();
    let writer = {
        let (ledger, read_model, is_over) = (
            Arc::clone(&ledger),
            Arc::clone(&opened.service),
            Arc::clone(&is_over),
        );
        tokio::spawn(async move {
            let mut writes = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                let n = writes % 300 + 1;
                let position = ledger.rename(n, "before", &format!("after{writes}"));
                // Reads its own write, like a client with `minPosition`.
                reach(&*read_model, position).await;
                assert!(read(&*read_model, n).await.position >= position);
                writes += 1;
            }
            writes
        })
    };
    for _ in 0..3 {
        let report = rebuilt(&ledger, &*opened.operator, false)
            .await
            .expect("rebuilt");
        assert_eq!(report.live, report.rebuilt);
        assert!(report.swapped_at >= Some(report.compared_at), "{report:?}");
        let back = rolled_back(&ledger, &*opened.operator).await.expect("back");
        assert!(Some(back) >= report.swapped_at);
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.expect("no reader failed") > 0);
    }
    assert!(writer.await.expect("the writer did not fail") > 0);
    // The next event is read from the tables that are now live.
    let position = ledger.rename(7, "x", "new.name");
    reach(&*opened.service, position).await;
    assert_eq!(read(&*opened.service, 7).await.username, "new.name");
    assert!(!projector.0.is_finished());
    let report = rebuilt(&ledger, &*opened.operator, false)
        .await
        .expect("rebuilt");
    assert_eq!(report.differences, 0);
}

async fn spoil(read_model: &dyn Replaceable, documents: Vec<Document>) {
    let checkpoint = read_model.take_over("a bug").await.expect("owned");
    let batch = Batch {
        from: checkpoint,
        to: checkpoint,
        documents,
        parked: Vec::new(),
        same_words: HashSet::new(),
        unparked: Vec::new(),
    };
    read_model.apply("a bug", &batch).await.expect("applied");
}

async fn a_wrong_document_is_found_repaired_and_rolled_back(opened: Opened) {
    let ledger = Memory::new();
    for n in 1..=30 {
        ledger.register(n);
    }
    let projector = project(&ledger, &opened.service);
    reach(&*opened.service, 30).await;
    drop(projector);
    assert!(matches!(
        rolled_back(&ledger, &*opened.operator).await,
        Err(Error::NothingKept)
    ));
    let right = read(&*opened.service, 7).await;
    let mut wrong = right.clone();
    wrong.profile.bio = Some("never written".to_owned());
    spoil(&*opened.service, vec![wrong.clone()]).await;

    let report = rebuilt(&ledger, &*opened.operator, false)
        .await
        .expect("compared");
    assert_eq!((report.differences, report.swapped_at), (1, None));
    let difference = Difference {
        user_id: user(7).to_string(),
        live: Some(7),
        rebuilt: Some(7),
    };
    assert_eq!(report.differing, [difference]);
    assert_ne!(report.live.hash, report.rebuilt.hash);
    assert_eq!(
        read(&*opened.service, 7).await,
        wrong,
        "nothing was swapped"
    );

    let report = rebuilt(&ledger, &*opened.operator, true)
        .await
        .expect("rebuilt");
    assert_eq!((report.differences, report.swapped_at), (1, Some(30)));
    assert_eq!(read(&*opened.service, 7).await, right);
    // A step that began before the swap may carry the wrong document, so it must have no effect.
    let step = Batch {
        from: 30,
        to: 31,
        documents: vec![wrong.clone()],
        parked: Vec::new(),
        same_words: HashSet::new(),
        unparked: Vec::new(),
    };
    let late = opened.service.apply("a bug", &step).await;
    assert!(matches!(late, Err(ApplyError::NotOwner)));

    // The earlier tables are brought up to date first: no reader sees an older position.
    let projector = project(&ledger, &opened.service);
    let position = ledger.rename(8, "user8", "eighth");
    reach(&*opened.service, position).await;
    let back = rolled_back(&ledger, &*opened.operator).await.expect("back");
    assert_eq!(back, position);
    assert_eq!(read(&*opened.service, 7).await, wrong);
    assert_eq!(read(&*opened.service, 8).await.username, "eighth");
    let forth = rolled_back(&ledger, &*opened.operator)
        .await
        .expect("forth");
    assert_eq!(forth, position);
    assert_eq!(read(&*opened.service, 7).await, right);
    drop(projector);
}

async fn missing_and_extra_users_and_wrong_words_are_found(opened: Opened) {
    let ledger = Memory::new();
    for n in 1..=30 {
        ledger.register(n);
    }
    let projector = project(&ledger, &opened.service);
    reach(&*opened.service, 30).await;
    drop(projector);
    let mut surplus: Vec<_> = Vec::new();
    for n in 1..=25 {
        let mut document = read(&*opened.service, n).await;
        document.user_id = user(1000 + n);
        surplus.push(document);
    }
    spoil(&*opened.service, surplus).await;
    let report = rebuilt(&ledger, &*opened.operator, false)
        .await
        .expect("compared");
    assert_eq!((report.differences, report.differing.len()), (25, 20));
    assert_eq!(report.differing[0].rebuilt, None);
    assert_eq!((report.live.users, report.rebuilt.users), (55, 30));
    let report = rebuilt(&ledger, &*opened.operator, true)
        .await
        .expect("rebuilt");
    assert!(report.swapped_at.is_some());
    let gone = opened
        .service
        .document(&user(1001))
        .await
        .expect("readable");
    assert_eq!(gone, None);
}

async fn a_parked_user_is_folded_again_and_the_projector_notices(opened: Opened) {
    let ledger = Memory::new();
    ledger.register(1);
    ledger.register(2);
    ledger.record_from_the_future(1);
    let projector = project(&ledger, &opened.service);
    reach(&*opened.service, 3).await;
    assert_eq!(opened.service.parked().await.expect("listed").len(), 1);
    ledger.learn();
    let report = rebuilt(&ledger, &*opened.operator, false)
        .await
        .expect("rebuilt");
    assert_eq!((report.differences, report.swapped_at), (0, Some(3)));
    assert_eq!(report.unparked.len(), 1);
    assert_eq!(report.parked, []);
    assert_eq!(opened.service.parked().await.expect("listed"), []);
    // The active projector had cached that the user is parked.
    let position = ledger.rename(1, "b", "c");
    reach(&*opened.service, position).await;
    assert_eq!(read(&*opened.service, 1).await.username, "c");
    assert!(!projector.0.is_finished());
}

async fn a_user_that_cannot_be_folded_is_still_parked_after_a_rebuild(opened: Opened) {
    let ledger = Memory::new();
    ledger.register(1);
    ledger.record_from_the_future(1);
    ledger.rename(1, "b", "c");
    let projector = project(&ledger, &opened.service);
    reach(&*opened.service, 3).await;
    let before = opened.service.parked().await.expect("listed");
    let report = rebuilt(&ledger, &*opened.operator, false)
        .await
        .expect("rebuilt");
    assert_eq!((&report.parked, report.swapped_at), (&before, Some(3)));
    assert_eq!(opened.service.parked().await.expect("listed"), before);
    let position = ledger.rename(1, "c", "d");
    reach(&*opened.service, position).await;
    assert_eq!(read(&*opened.service, 1).await.version, 1);
    drop(projector);
    ledger.learn();
    let (again, _) = Projection::new(Arc::clone(&opened.operator) as _, ledger, run());
    assert_eq!(again.retry_parked().await.expect("tried"), []);
    assert_eq!(read(&*opened.service, 1).await.username, "d");
}

async fn a_second_rebuild_is_refused_and_an_interrupted_one_leaves_nothing(opened: Opened) {
    let ledger = Memory::new();
    ledger.register(1);
    let projector = project(&ledger, &opened.service);
    reach(&*opened.service, 1).await;
    let first = opened.operator.fresh("first").await.expect("made");
    assert!(matches!(
        rebuilt(&ledger, &*opened.operator, false).await,
        Err(Error::Busy)
    ));
    assert!(matches!(
        rolled_back(&ledger, &*opened.operator).await,
        Err(Error::Busy)
    ));
    drop(first);
    let again = async {
        loop {
            match rebuilt(&ledger, &*opened.operator, false).await {
                // The server has not noticed yet that the first one is gone.
                Err(Error::Busy) => tokio::task::yield_now().await,
                rebuilt => return rebuilt.expect("rebuilt"),
            }
        }
    };
    let report = tokio::time::timeout(DEADLINE, again)
        .await
        .expect("free again");
    assert_eq!(report.swapped_at, Some(1));
    drop(projector);
}

async fn a_read_model_ahead_of_the_ledger_is_rebuilt_when_accepted(opened: Opened) {
    let ledger = Memory::new();
    for n in 1..=5 {
        ledger.register(n);
    }
    let batch = Batch {
        from: 0,
        to: 9,
        documents: Vec::new(),
        parked: Vec::new(),
        same_words: HashSet::new(),
        unparked: Vec::new(),
    };
    opened.service.apply("", &batch).await.expect("applied");
    let report = rebuilt(&ledger, &*opened.operator, false)
        .await
        .expect("compared");
    assert_eq!((report.was_ahead, report.swapped_at), (Some(9), None));
    let report = rebuilt(&ledger, &*opened.operator, true)
        .await
        .expect("rebuilt");
    assert_eq!((report.was_ahead, report.swapped_at), (Some(9), Some(5)));
    assert_eq!(opened.service.checkpoint().await.expect("read"), 5);
    assert!(matches!(
        rolled_back(&ledger, &*opened.operator).await,
        Err(Error::KeptAreAhead { kept: 9, head: 5 })
    ));
}

async fn a_fold_larger_than_memory_works_too(opened: Opened) {
    let ledger = Memory::new();
    let users = IN_MEMORY as u64 * 3;
    for n in 1..=users {
        ledger.register(n);
    }
    for n in 1..=users {
        ledger.rename(n, "x", "y");
    }
    let mut beside = opened.operator.fresh(&run()).await.expect("made");
    let mut rebuild = Rebuild {
        waiting: HashSet::new(),
        changed: BTreeSet::new(),
        unparked: HashSet::new(),
        history: Arc::clone(&ledger) as _,
        beside: &mut *beside,
        tell: &|_| {},
    };
    rebuild.load(2 * users).await.expect("loaded");
    let rows = beside
        .rows(Tables::Beside, Which::Page("", 10_000))
        .await
        .expect("rows");
    assert_eq!(rows.len() as u64, users);
    assert!(
        rows.iter().all(|row| row.rest[0] == "2"),
        "a version is missing"
    );
    assert!(
        rows.iter().all(|row| row.rest[3].contains("doe")),
        "words are missing"
    );
}
