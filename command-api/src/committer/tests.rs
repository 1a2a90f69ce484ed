use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use http_kit::fields::Fields;
use jiff::Timestamp;
use ledger::store::History as _;
use tokio::sync::Semaphore;

use super::*;
use crate::testing::{DAY, Fault, Faulty, count_up};
use crate::values;

const DEADLINE: Duration = Duration::from_mins(1);

/// A committer, its store, and a clock that a test can set.
struct Service {
    committer: Committer,
    store: Arc<Faulty>,
    now: Arc<Mutex<Timestamp>>,
}

impl Service {
    async fn start() -> Self {
        Self::on(Faulty::open().await)
    }

    fn on(store: Arc<Faulty>) -> Self {
        // No two services of a test may draw the same bytes, because the bytes become event ids.
        static DRAWN: AtomicU64 = AtomicU64::new(1);
        Self::with_randomness(store, |bytes| count_up(&DRAWN, bytes))
    }

    fn with_randomness(
        store: Arc<Faulty>,
        fill: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Self {
        let now = Arc::new(Mutex::new("2026-05-22T16:11:26.808Z".parse().unwrap()));
        let told = Arc::clone(&now);
        let clock = Clock::from_fn(move || *told.lock().unwrap());
        let (committer, commit_loop) =
            Committer::new(Arc::clone(&store) as _, clock, Randomness::new(fill));
        tokio::spawn(commit_loop);
        Self {
            committer,
            store,
            now,
        }
    }

    fn advance(&self, millis: i64) {
        let mut now = self.now.lock().unwrap();
        *now = Time::from_millis(Time::from(*now).millis() + millis).into();
    }

    async fn submit(&self, command: Command) -> Result<Decided, Undecided> {
        tokio::time::timeout(DEADLINE, self.committer.submit(command))
            .await
            .expect("an answer before the deadline")
    }

    async fn submit_all(&self, commands: Vec<Command>) -> Vec<Result<Decided, Undecided>> {
        join_all(commands.into_iter().map(|command| self.submit(command))).await
    }

    /// Registers users. Returns the version of each afterwards.
    async fn registered(&self, numbers: std::ops::RangeInclusive<u64>) {
        let commands = numbers.map(|n| register(n, &format!("user{n}"))).collect();
        for result in self.submit_all(commands).await {
            result.unwrap().result.unwrap();
        }
    }

    /// The whole ledger, after checking its invariants: positions and versions without gaps, every
    /// event once, times that never decrease.
    async fn ledger(&self) -> Vec<StoredEvent> {
        let events = self.store.read(0, 1_000_000).await.unwrap();
        let mut versions: HashMap<UserId, Version> = HashMap::new();
        let mut ids = HashSet::new();
        let mut before = Time::from_millis(0);
        for (expected, event) in (1..).zip(&events) {
            assert_eq!(event.position, expected, "positions have no gap");
            let version = versions.entry(event.user_id).or_default();
            *version += 1;
            assert_eq!(event.version, *version, "versions have no gap");
            assert!(ids.insert(event.event_id), "an event appears twice");
            assert!(event.recorded_at >= before, "time went back");
            before = event.recorded_at;
        }
        events
    }
}

fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().unwrap()
}

fn command(n: u64, action: Action) -> Command {
    Command {
        user_id: user(n),
        action,
        expected_version: None,
        idempotency: None,
        context: Context::default(),
    }
}

fn register(n: u64, username: &str) -> Command {
    let body = format!(r#"{{"username":"{username}","name":"John","surname":"Doe"}}"#);
    let mut fields = Fields::parse(body.as_bytes()).unwrap();
    let today = jiff::civil::date(2026, 1, 1);
    let (_, registration) = values::registration(&mut fields, today).unwrap();
    command(n, Action::Register(Box::new(registration)))
}

fn rename(n: u64, username: &str) -> Command {
    command(
        n,
        Action::ChangeUsername(values::username(username).unwrap()),
    )
}

fn replace(n: u64, name: &str) -> Command {
    let body = format!(r#"{{"name":"{name}","surname":"Doe"}}"#);
    let mut fields = Fields::parse(body.as_bytes()).unwrap();
    let profile = values::profile(&mut fields, jiff::civil::date(2026, 1, 1)).unwrap();
    command(n, Action::ReplaceProfile(Box::new(profile)))
}

fn with_key(command: Command, key: &str, fingerprint: u8) -> Command {
    let key = OutcomeKey {
        actor: command.user_id.to_string(),
        key: key.to_owned(),
    };
    Command {
        idempotency: Some(Idempotency {
            key,
            fingerprint: [fingerprint; 32],
        }),
        ..command
    }
}

#[tokio::test]
async fn a_batch_is_decided_in_arrival_order() {
    let service = Service::start().await;
    let results = service
        .submit_all(vec![
            register(1, "john"),
            register(2, "john"),
            replace(1, "Jane"),
            rename(1, "jane"),
            rename(3, "nobody"),
            register(2, "john2"),
        ])
        .await;
    let refused: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().unwrap().result.as_ref().err().cloned())
        .collect();
    let taken = Rejection::UsernameTaken {
        username: "john".to_owned(),
    };
    assert_eq!(
        refused,
        [
            None,
            Some(taken),
            None,
            None,
            Some(Rejection::NoSuchUser),
            None
        ]
    );
    assert_eq!(service.ledger().await.len(), 4);
}

#[tokio::test]
async fn commands_that_queue_during_a_commit_are_written_as_one_batch() {
    let service = Service::start().await;
    service.registered(1..=100).await;
    service.store.gate.forget_permits(Semaphore::MAX_PERMITS);
    let before = service.store.appends.load(Ordering::SeqCst);
    let commands: Vec<_> = (1..=100).map(|n| replace(n, "Jane")).collect();
    let first = service.submit(replace(1, "Ann"));
    let mut first = Box::pin(first);
    let mut rest = Box::pin(service.submit_all(commands));
    // After each is polled once, the first is being written and the others are queued.
    assert!(futures::poll!(&mut first).is_pending());
    while service.store.appends.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(&mut rest).is_pending());
    service.store.gate.add_permits(10);
    first.await.unwrap().result.unwrap();
    for result in rest.await {
        result.unwrap().result.unwrap();
    }
    let appends = service.store.appends.load(Ordering::SeqCst) - before;
    assert_eq!(appends, 2, "one append for the first, one for all others");
    assert_eq!(service.ledger().await.len(), 201);
}

#[tokio::test]
async fn a_full_disk_refuses_only_the_batch() {
    let service = Service::start().await;
    service.registered(1..=2).await;
    service.store.fail_next(Fault::Full);
    let results = service
        .submit_all(vec![replace(1, "Jane"), replace(2, "Jane")])
        .await;
    for result in results {
        assert!(matches!(
            result.unwrap_err(),
            Undecided::Store(store::Error::Unavailable(_))
        ));
    }
    assert_eq!(service.ledger().await.len(), 2);
    let decided = service.submit(replace(1, "Jane")).await.unwrap();
    assert_eq!(decided.result.unwrap().version, 2);
    assert_eq!(service.ledger().await.len(), 3);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_again() {
    let service = Service::start().await;
    service.registered(1..=1).await;
    service.store.fail_next(Fault::LostAnswer);
    let decided = service.submit(replace(1, "Jane")).await.unwrap();
    assert_eq!(decided.result.unwrap().version, 2);
    let decided = service.submit(replace(1, "Jack")).await.unwrap();
    assert_eq!(decided.result.unwrap().version, 3);
    assert_eq!(service.ledger().await.len(), 3);
}

#[tokio::test]
async fn a_panicking_decision_does_not_affect_other_commands() {
    let drawn = AtomicU64::new(1);
    let service = Service::with_randomness(Faulty::open().await, move |bytes| {
        let is_id = bytes.len() == 10;
        count_up(&drawn, bytes);
        // The id of the second decided event. Deciding again moves past it, so only this command
        // fails.
        assert!(
            !is_id || bytes[9] != 2,
            "a defect of the aggregate that a test planted"
        );
    });
    let results = service
        .submit_all(vec![
            register(1, "john"),
            register(2, "jane"),
            register(3, "jack"),
        ])
        .await;
    assert!(results[0].as_ref().unwrap().result.is_ok());
    assert!(matches!(
        results[1].as_ref().unwrap_err(),
        Undecided::Panicked
    ));
    assert!(results[2].as_ref().unwrap().result.is_ok());
    assert_eq!(service.ledger().await.len(), 2);
    service
        .submit(register(2, "jane"))
        .await
        .unwrap()
        .result
        .unwrap();
}

#[tokio::test]
async fn a_panicking_store_does_not_end_the_loop() {
    let service = Service::start().await;
    service.store.fail_next(Fault::Panic);
    let refused = service.submit(register(1, "john")).await.unwrap_err();
    assert!(matches!(refused, Undecided::Panicked));
    service
        .submit(register(1, "john"))
        .await
        .unwrap()
        .result
        .unwrap();
    assert_eq!(service.ledger().await.len(), 1);
}

#[tokio::test]
async fn two_committers_on_one_ledger_take_turns() {
    let store = Faulty::open().await;
    let one = Service::on(Arc::clone(&store));
    let other = Service::on(Arc::clone(&store));
    one.registered(1..=20).await;
    let mut handles = Vec::new();
    for (service, name) in [(one.committer, "Ann"), (other.committer, "Bob")] {
        handles.push(tokio::spawn(async move {
            for round in 0..20_u64 {
                let commands = (1..=20).map(|n| replace(n, &format!("{name} {round}")));
                let results = join_all(commands.map(|command| service.submit(command))).await;
                for result in results {
                    result.unwrap().result.unwrap();
                }
            }
        }));
    }
    for handle in handles {
        tokio::time::timeout(DEADLINE, handle)
            .await
            .unwrap()
            .unwrap();
    }
    let ledger = Service::on(store).ledger().await;
    assert_eq!(ledger.len(), 20 + 2 * 20 * 20);
}

#[tokio::test]
async fn two_committers_never_give_a_name_to_two_users() {
    let store = Faulty::open().await;
    let one = Service::on(Arc::clone(&store));
    let other = Service::on(Arc::clone(&store));
    for n in (1..=40).step_by(2) {
        let name = format!("name{n}");
        let (first, second) = futures::future::join(
            one.submit(register(n, &name)),
            other.submit(register(n + 1, &name)),
        )
        .await;
        let won = [first, second]
            .into_iter()
            .filter(|result| result.as_ref().unwrap().result.is_ok())
            .count();
        assert_eq!(won, 1, "{name}");
    }
    assert_eq!(one.ledger().await.len(), 20);
}

#[tokio::test]
async fn a_key_has_one_outcome() {
    let service = Service::start().await;
    service.registered(1..=1).await;
    let first = service
        .submit(with_key(replace(1, "Jane"), "k", 1))
        .await
        .unwrap();
    assert!(!first.is_repeat);
    service.submit(replace(1, "Jack")).await.unwrap();
    service.advance(1000);
    // Also after a restart.
    let restarted = Service::on(Arc::clone(&service.store));
    for service in [&service, &restarted] {
        let again = service
            .submit(with_key(replace(1, "Jane"), "k", 1))
            .await
            .unwrap();
        assert!(again.is_repeat);
        assert_eq!((again.at, &again.result), (first.at, &first.result));
        let reused = service
            .submit(with_key(replace(1, "Jill"), "k", 2))
            .await
            .unwrap_err();
        assert!(matches!(reused, Undecided::KeyReused));
    }
    assert_eq!(service.ledger().await.len(), 3);
}

#[tokio::test]
async fn the_same_key_twice_in_a_batch_happens_once() {
    let service = Service::start().await;
    service.registered(1..=1).await;
    let results = service
        .submit_all(vec![
            with_key(replace(1, "Jane"), "k", 1),
            with_key(replace(1, "Jane"), "k", 1),
            with_key(replace(1, "Jack"), "k", 2),
        ])
        .await;
    assert!(!results[0].as_ref().unwrap().is_repeat);
    assert!(results[1].as_ref().unwrap().is_repeat);
    assert!(matches!(results[2], Err(Undecided::KeyReused)));
    assert_eq!(service.ledger().await.len(), 2);
}

#[tokio::test]
async fn a_conflict_is_stored_and_a_missing_user_is_not() {
    let service = Service::start().await;
    service.registered(1..=2).await;
    let taken = with_key(rename(1, "user2"), "k", 1);
    let refused = service.submit(taken.clone()).await.unwrap();
    assert!(refused.result.is_err());
    // The name becomes free, but the earlier answer stays.
    service.submit(rename(2, "other")).await.unwrap();
    service.advance(3 * DAY);
    let again = service.submit(taken).await.unwrap();
    assert!(again.is_repeat);
    assert_eq!(again.result, refused.result);

    let missing = with_key(replace(3, "Jane"), "k", 1);
    assert_eq!(
        service.submit(missing.clone()).await.unwrap().result,
        Err(Rejection::NoSuchUser)
    );
    service.registered(3..=3).await;
    assert!(service.submit(missing).await.unwrap().result.is_ok());
}

#[tokio::test]
async fn a_key_is_free_again_after_exactly_7_days() {
    let service = Service::start().await;
    service.registered(1..=1).await;
    let keyed = || with_key(replace(1, "Jane"), "k", 1);
    service.submit(keyed()).await.unwrap();
    service.advance(7 * DAY - 1);
    assert!(service.submit(keyed()).await.unwrap().is_repeat);
    service.advance(1);
    assert!(!service.submit(keyed()).await.unwrap().is_repeat);
}

#[tokio::test]
async fn keys_of_different_actors_are_different_keys() {
    let service = Service::start().await;
    service.registered(1..=2).await;
    for n in 1..=2 {
        let decided = service
            .submit(with_key(replace(n, "Jane"), "k", u8::try_from(n).unwrap()))
            .await
            .unwrap();
        assert!(!decided.is_repeat);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_make_time_go_back() {
    let service = Service::start().await;
    service.registered(1..=1).await;
    service.advance(-400 * DAY);
    let decided = service.submit(replace(1, "Jane")).await.unwrap();
    assert_eq!(decided.result.unwrap().version, 2);
    service.ledger().await;
}

#[tokio::test]
async fn a_user_with_a_damaged_history_delays_nobody_else() {
    let store = Faulty::open().await;
    Service::on(Arc::clone(&store)).registered(1..=2).await;
    *store.damaged.lock().unwrap() = Some(user(1));
    let service = Service::on(store);
    let results = service
        .submit_all(vec![replace(1, "Jane"), replace(2, "Jane")])
        .await;
    assert!(
        matches!(results[0], Err(Undecided::Store(store::Error::Damaged(_)))),
        "{:?}",
        results[0]
    );
    assert!(results[1].as_ref().unwrap().result.is_ok());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let service = Service::start().await;
    service.store.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut first = Box::pin(service.submit(register(1, "john")));
    assert!(futures::poll!(&mut first).is_pending());
    while service.store.appends.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let mut queued: Vec<_> = (0..QUEUE)
        .map(|_| Box::pin(service.submit(replace(1, "Jane"))))
        .collect();
    for command in &mut queued {
        assert!(futures::poll!(command).is_pending());
    }
    let refused = service.submit(replace(1, "Jane")).await.unwrap_err();
    assert!(matches!(refused, Undecided::QueueFull));
    service.store.gate.add_permits(QUEUE);
    for command in queued {
        command.await.unwrap();
    }
}

#[tokio::test]
async fn submitted_commands_are_done_before_the_loop_ends() {
    let store = Faulty::open().await;
    let drawn = AtomicU64::new(1);
    let (committer, commit_loop) = Committer::new(
        Arc::clone(&store) as _,
        Clock::fixed("2026-05-22T16:11:26.808Z".parse().unwrap()),
        Randomness::new(move |bytes| count_up(&drawn, bytes)),
    );
    let clone = committer.clone();
    let mut abandoned = Box::pin(async move { clone.submit(register(1, "john")).await });
    assert!(futures::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    drop(committer);
    tokio::time::timeout(DEADLINE, commit_loop).await.unwrap();
    assert_eq!(store.head().await.unwrap().position, 1);
}
