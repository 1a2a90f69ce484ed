//! The contract of every store, whatever its backend: `run_all` panics at the first violation. Each
//! backend's tests call it with a function that opens a new, empty store.

use std::sync::Arc;
use std::time::Duration;

use super::{AppendError, Batch, Claim, EventStore, Head, Outcome, OutcomeKey, claims_of};
use crate::feed::{Feed as _, StoreFeed};
use events::envelope::{Context, Recorded, StoredEvent};
use events::event::{Profile, UserEvent, UserRegistered, UsernameChanged};
use events::{EventId, Time, UserId};

mod reading;

/// How long a test waits before it fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// The identifier of the nth user of a test.
pub(super) fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().expect("24 hexadecimal digits")
}

/// The registration of the nth user as the next event after a head.
pub(super) fn registered(head: &Head, n: u64, username: &str) -> StoredEvent {
    let profile = Profile {
        name: "John".to_owned(),
        surname: "Doe".to_owned(),
        ..Profile::default()
    };
    let registered = UserRegistered {
        username: username.to_owned(),
        profile,
        country_code: None,
        phone_number: None,
        consents: events::event::Consents::default(),
        is_registration_complete: true,
        roles: vec!["user".to_owned()],
        last_login: None,
    };
    stored(
        head,
        1,
        n,
        1,
        UserEvent::UserRegistered(Box::new(registered)),
    )
}

/// An event of the nth user, `ahead` positions after a head.
pub(super) fn stored(
    head: &Head,
    ahead: u64,
    n: u64,
    version: u64,
    event: UserEvent,
) -> StoredEvent {
    let position = head.position + ahead;
    let recorded = Recorded {
        position,
        event_id: EventId::new(Time::from_millis(1), random(position)),
        user_id: user(n),
        version,
        time: head.recorded_at,
        recorded_at: head.recorded_at,
        previous: None,
        context: Context::default(),
        event,
    };
    recorded.to_stored()
}

fn random(seed: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&seed.to_be_bytes());
    bytes
}

/// A batch of events after a head, with the claims of the events.
pub(super) fn batch_after(head: &Head, events: Vec<StoredEvent>) -> Batch {
    let claims = events
        .iter()
        .flat_map(|stored| {
            claims_of(
                &stored.user_id,
                &stored.decode().expect("a test's own event").event,
            )
        })
        .collect();
    Batch {
        expected: head.clone(),
        recorded_at: head.recorded_at,
        events,
        claims,
        outcomes: Vec::new(),
    }
}

fn renamed(before: &str, after: &str, held_until: i64) -> UserEvent {
    UserEvent::UsernameChanged(UsernameChanged {
        before: before.to_owned(),
        after: after.to_owned(),
        held_until: Time::from_millis(held_until),
    })
}

fn outcome(key: &str, answer: &[u8], millis: i64) -> Outcome {
    Outcome {
        key: OutcomeKey {
            actor: "actor".to_owned(),
            key: key.to_owned(),
        },
        fingerprint: [7; 32],
        answer: answer.to_vec(),
        recorded_at: Time::from_millis(millis),
    }
}

/// Runs every test, each on a new store.
pub(super) async fn run_all(open: impl AsyncFn() -> Arc<dyn EventStore>) {
    a_new_ledger_is_empty(&*open().await).await;
    reading::run_all(&open).await;
    an_append_on_an_old_head_changes_nothing(&*open().await).await;
    an_append_without_events_moves_the_head_too(&*open().await).await;
    an_append_of_another_epoch_or_ledger_is_refused(&*open().await).await;
    a_taken_name_rolls_everything_back(&*open().await).await;
    a_held_name_is_free_when_its_hold_has_ended(&*open().await).await;
    a_name_can_change_owner_within_a_batch(&*open().await).await;
    outcomes_are_kept_and_replaced(&*open().await).await;
    sweeping_deletes_only_expired_values(&*open().await).await;
    an_abandoned_append_leaves_nothing(open().await).await;
    let store = open().await;
    a_follower_sees_every_event_once_in_order(vec![Arc::clone(&store); 6], store).await;
}

async fn a_new_ledger_is_empty(store: &dyn EventStore) {
    let head = store.head().await.expect("head");
    assert_eq!(head.position, 0);
    assert!(!head.store_id.is_empty());
    assert_eq!(*store.watch_head().borrow(), 0);
    assert!(store.read(0, 10).await.expect("read").is_empty());
}

/// Appends users `1..=n` in one batch and returns the head afterwards.
async fn register(store: &dyn EventStore, n: u64) -> Head {
    let head = store.head().await.expect("head");
    let events = (1..=n)
        .map(|i| {
            let at = Head {
                position: head.position + i - 1,
                ..head.clone()
            };
            registered(&at, i, &format!("user{i}"))
        })
        .collect();
    store
        .append(&batch_after(&head, events))
        .await
        .expect("append");
    store.head().await.expect("head")
}

async fn an_append_on_an_old_head_changes_nothing(store: &dyn EventStore) {
    let old = store.head().await.expect("head");
    let head = register(store, 1).await;
    let mut batch = batch_after(&old, vec![registered(&old, 2, "late")]);
    batch.outcomes.push(outcome("late", b"no", 1));
    assert!(matches!(
        store.append(&batch).await,
        Err(AppendError::HeadMoved)
    ));
    assert_eq!(store.head().await.expect("head"), head);
    assert!(
        store
            .claims(&["late".to_owned()])
            .await
            .expect("claims")
            .is_empty()
    );
    assert!(
        store
            .outcomes(&[batch.outcomes[0].key.clone()])
            .await
            .expect("outcomes")
            .is_empty()
    );
}

async fn an_append_without_events_moves_the_head_too(store: &dyn EventStore) {
    let head = store.head().await.expect("head");
    let mut batch = batch_after(&head, vec![]);
    batch.outcomes.push(outcome("k", b"first", 1));
    store.append(&batch).await.expect("append");
    // If both were decided on the same head, the same key would get a second outcome.
    let mut late = batch_after(&head, vec![]);
    late.outcomes.push(outcome("k", b"second", 1));
    assert!(matches!(
        store.append(&late).await,
        Err(AppendError::HeadMoved)
    ));
    let kept = store.outcomes(&[outcome("k", b"", 1).key]).await;
    assert_eq!(kept.expect("outcomes")[0].answer, b"first");
    let moved = store.head().await.expect("head");
    assert_eq!(
        (moved.position, moved.appends),
        (head.position, head.appends + 1)
    );
}

async fn an_append_of_another_epoch_or_ledger_is_refused(store: &dyn EventStore) {
    let head = store.head().await.expect("head");
    for wrong in [
        Head {
            epoch: head.epoch + 1,
            ..head.clone()
        },
        Head {
            store_id: "other".to_owned(),
            ..head.clone()
        },
    ] {
        let batch = batch_after(&wrong, vec![registered(&wrong, 1, "john")]);
        assert!(matches!(
            store.append(&batch).await,
            Err(AppendError::HeadMoved)
        ));
    }
}

async fn a_taken_name_rolls_everything_back(store: &dyn EventStore) {
    let head = register(store, 1).await;
    let mut batch = batch_after(&head, vec![registered(&head, 2, "user1")]);
    batch.outcomes.push(outcome("taken", b"no", 1));
    assert!(matches!(
        store.append(&batch).await,
        Err(AppendError::NameTaken)
    ));
    assert_eq!(store.head().await.expect("head"), head);
    assert_eq!(store.read(0, 10).await.expect("read").len(), 1);
    assert!(
        store
            .outcomes(&[batch.outcomes[0].key.clone()])
            .await
            .expect("outcomes")
            .is_empty()
    );
}

async fn a_held_name_is_free_when_its_hold_has_ended(store: &dyn EventStore) {
    let head = register(store, 1).await;
    let rename = stored(&head, 1, 1, 2, renamed("user1", "renamed", 1_000));
    store
        .append(&batch_after(&head, vec![rename]))
        .await
        .expect("append");
    let claims = store
        .claims(&[
            "user1".to_owned(),
            "renamed".to_owned(),
            "nobody".to_owned(),
        ])
        .await
        .expect("claims");
    assert_eq!(claims.len(), 2);
    let listed = async |after: &str, limit| {
        let claims = store.claims_after(after, limit).await.expect("claims");
        claims
            .into_iter()
            .map(|claim| claim.username)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("", 10).await, ["renamed", "user1"]);
    assert_eq!(listed("", 1).await, ["renamed"]);
    assert_eq!(listed("renamed", 10).await, ["user1"]);
    assert_eq!(listed("user1", 10).await, [""; 0]);
    let held = claims
        .iter()
        .find(|claim| claim.username == "user1")
        .expect("held");
    assert_eq!(held.held_until, Some(Time::from_millis(1_000)));
    for (millis, free) in [(999, false), (1_000, true)] {
        let mut head = store.head().await.expect("head");
        let recorded_at = Time::from_millis(millis);
        head.recorded_at = recorded_at;
        let event = registered(&head, 2, "user1");
        let batch = Batch {
            recorded_at,
            ..batch_after(&head, vec![event])
        };
        match store.append(&batch).await {
            Ok(()) => assert!(free, "a name was taken while it was held"),
            Err(AppendError::NameTaken) => assert!(!free, "a name stayed held after its time"),
            Err(other) => panic!("{other}"),
        }
    }
}

async fn a_name_can_change_owner_within_a_batch(store: &dyn EventStore) {
    let head = register(store, 1).await;
    // Held until a time that has already passed when the batch is recorded.
    let events = vec![
        stored(&head, 1, 1, 2, renamed("user1", "second", 0)),
        registered(
            &Head {
                position: head.position + 1,
                ..head.clone()
            },
            2,
            "user1",
        ),
    ];
    store
        .append(&batch_after(&head, events))
        .await
        .expect("append");
    let claims = store.claims(&["user1".to_owned()]).await.expect("claims");
    assert_eq!(
        claims,
        [Claim {
            username: "user1".to_owned(),
            user_id: user(2),
            held_until: None
        }]
    );
}

async fn outcomes_are_kept_and_replaced(store: &dyn EventStore) {
    let head = store.head().await.expect("head");
    let first = outcome("k", b"first", 1);
    let mut batch = batch_after(&head, Vec::new());
    batch.outcomes.push(first.clone());
    store
        .append(&batch)
        .await
        .expect("an outcome without events");
    assert_eq!(store.head().await.expect("head").position, head.position);
    assert_eq!(
        store
            .outcomes(std::slice::from_ref(&first.key))
            .await
            .expect("outcomes"),
        std::slice::from_ref(&first)
    );
    let second = outcome("k", b"second", 2);
    batch.expected = store.head().await.expect("head");
    batch.outcomes = vec![second.clone()];
    batch.recorded_at = Time::from_millis(2);
    store.append(&batch).await.expect("append");
    let other = OutcomeKey {
        actor: "other".to_owned(),
        key: "k".to_owned(),
    };
    assert_eq!(
        store
            .outcomes(&[second.key.clone(), other])
            .await
            .expect("outcomes"),
        [second]
    );
}

async fn sweeping_deletes_only_expired_values(store: &dyn EventStore) {
    let head = register(store, 1).await;
    let rename = stored(&head, 1, 1, 2, renamed("user1", "renamed", 1_000));
    let mut batch = batch_after(&head, vec![rename]);
    batch.outcomes = vec![outcome("old", b"", 10), outcome("new", b"", 20)];
    store.append(&batch).await.expect("append");
    let names = ["user1".to_owned(), "renamed".to_owned()];
    let keys = batch
        .outcomes
        .iter()
        .map(|outcome| outcome.key.clone())
        .collect::<Vec<_>>();
    store
        .sweep(Time::from_millis(1_000), Time::from_millis(20))
        .await
        .expect("sweep");
    assert_eq!(
        store.claims(&names).await.expect("claims").len(),
        2,
        "held until exactly this millisecond"
    );
    assert_eq!(
        store.outcomes(&keys).await.expect("outcomes"),
        batch.outcomes[1..]
    );
    store
        .sweep(Time::from_millis(1_001), Time::from_millis(20))
        .await
        .expect("sweep");
    assert_eq!(store.claims(&names).await.expect("claims").len(), 1);
    assert_eq!(store.read(0, 10).await.expect("read").len(), 2);
}

async fn an_abandoned_append_leaves_nothing(store: Arc<dyn EventStore>) {
    // When dropped at each of its first awaits, the append is complete or absent, and the next
    // append works.
    for polls in 0..40 {
        let head = store.head().await.expect("head");
        let batch = batch_after(
            &head,
            vec![registered(
                &head,
                head.position + 1,
                &format!("u{}", head.position),
            )],
        );
        let mut append = std::pin::pin!(store.append(&batch));
        for _ in 0..polls {
            if futures::poll!(append.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let head = settled_head(&*store).await;
    let events = store.read(0, 100).await.expect("read");
    assert_eq!(events.len() as u64, head.position);
}

/// The head after an append that waits its turn behind abandoned appends.
async fn settled_head(store: &dyn EventStore) -> Head {
    loop {
        let head = store.head().await.expect("head");
        let n = head.position + 1_000;
        match store
            .append(&batch_after(
                &head,
                vec![registered(&head, n, &format!("last{n}"))],
            ))
            .await
        {
            Ok(()) => return store.head().await.expect("head"),
            Err(AppendError::HeadMoved) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The stores of the writers and of the follower open the same ledger.
pub(super) async fn a_follower_sees_every_event_once_in_order(
    stores: Vec<Arc<dyn EventStore>>,
    store: Arc<dyn EventStore>,
) {
    const EACH: u64 = 40;
    let all = stores.len() as u64 * EACH;
    let mut writers = tokio::task::JoinSet::new();
    for (writer, store) in (0..).zip(stores) {
        writers.spawn(async move {
            let mut done = 0;
            let mut tries = 0_u64;
            while done < EACH {
                tries += 1;
                let head = store.head().await.expect("head");
                let n = writer * EACH + done + 1;
                let batch = batch_after(&head, vec![registered(&head, n, &format!("user{n}"))]);
                // Sometimes a writer pauses between deciding and writing, or gives up halfway.
                if (writer + tries).is_multiple_of(7) {
                    let append = store.append(&batch);
                    if let Ok(done_anyway) =
                        tokio::time::timeout(Duration::from_micros(50), append).await
                    {
                        done += u64::from(done_anyway.is_ok());
                    } else {
                        done += u64::from(
                            !store
                                .read_user(&user(n), 0, 1)
                                .await
                                .expect("read")
                                .is_empty(),
                        );
                    }
                    continue;
                }
                match store.append(&batch).await {
                    Ok(()) => done += 1,
                    // The name exists when an append that seemed abandoned took place.
                    Err(AppendError::HeadMoved | AppendError::NameTaken) => {
                        done += u64::from(
                            !store
                                .read_user(&user(n), 0, 1)
                                .await
                                .expect("read")
                                .is_empty(),
                        );
                    }
                    // For the same reason the database refuses a second registration of a user.
                    Err(AppendError::Store(error)) => {
                        let there = !store
                            .read_user(&user(n), 0, 1)
                            .await
                            .expect("read")
                            .is_empty();
                        assert!(there, "{error:?}");
                        done += 1;
                    }
                }
            }
            // The last event may be of an append that seemed abandoned; `head` finds it.
            store.head().await.expect("head");
        });
    }
    let mut feed = StoreFeed::new(Arc::clone(&store) as _, 0, 16);
    let follower = async {
        let mut expected = 1;
        while expected <= all {
            for event in feed.next().await.expect("next") {
                assert_eq!(event.position, expected);
                expected += 1;
            }
        }
    };
    tokio::time::timeout(DEADLINE, follower)
        .await
        .expect("the follower saw every event before the deadline");
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer");
    }
    let events = store.read(0, 1_000).await.expect("read");
    assert!(events.iter().map(|event| event.position).eq(1..=all));
}
