//! The reading part of the contract.

use super::{batch_after, register, registered, renamed, stored, user};
use crate::store::{AppendError, Batch, EventStore, position_at};
use events::envelope::StoredEvent;
use events::{EventId, Time};

/// Runs every reading test, each on a new store.
pub(super) async fn run_all(open: impl AsyncFn() -> std::sync::Arc<dyn EventStore>) {
    events_are_read_back_byte_for_byte(&*open().await).await;
    events_are_read_in_pages(&*open().await).await;
    users_of_events_are_listed(&*open().await).await;
    users_are_read_by_version_and_position(&*open().await).await;
    events_of_a_user_are_read_backwards_from_the_newest(&*open().await).await;
    a_time_is_found_as_a_position(&*open().await).await;
    an_event_is_found_by_its_id(&*open().await).await;
}

async fn events_are_read_back_byte_for_byte(store: &dyn EventStore) {
    let mut head = store.head().await.expect("head");
    head.recorded_at = Time::from_millis(5_000);
    let event = registered(&head, 1, "john");
    head.recorded_at = Time::from_millis(0);
    let batch = Batch {
        recorded_at: Time::from_millis(5_000),
        ..batch_after(&head, vec![event.clone()])
    };
    store.append(&batch).await.expect("append");
    let read = store.read(0, 10).await.expect("read");
    assert_eq!(read, [event]);
    assert_eq!(read[0].leaf_hash, events::LeafHash::of(&read[0].envelope));
    let head = store.head().await.expect("head");
    assert_eq!(
        (head.position, head.recorded_at),
        (1, Time::from_millis(5_000))
    );
    assert_eq!(*store.watch_head().borrow(), 1);
}

async fn events_are_read_in_pages(store: &dyn EventStore) {
    register(store, 300).await;
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = store.read(after, 77).await.expect("read");
        assert!(page.len() <= 77);
        let Some(last) = page.last() else { break };
        after = last.position;
        seen.extend(page.iter().map(|event| event.position));
    }
    assert!(seen.into_iter().eq(1..=300));
    assert!(store.read(u64::MAX, 10).await.expect("read").is_empty());
}

async fn users_of_events_are_listed(store: &dyn EventStore) {
    let before = store.head().await.expect("head");
    register(store, 3).await;
    // While nothing has failed, the newest events are in memory.
    for _ in 0..2 {
        for (after, until) in [(0, 3), (1, 3), (1, 2), (3, 3)] {
            let users = store.users_between(after, until).await.expect("users");
            let wanted: Vec<_> = (after + 1..=until).map(user).collect();
            assert_eq!(users, wanted, "{after} to {until}");
        }
        let late = registered(&before, 9, "late");
        let refused = store.append(&batch_after(&before, vec![late])).await;
        assert!(matches!(refused, Err(AppendError::HeadMoved)));
    }
}

async fn users_are_read_by_version_and_position(store: &dyn EventStore) {
    let head = register(store, 3).await;
    let events = vec![
        stored(&head, 1, 2, 2, renamed("user2", "other2", 10)),
        stored(&head, 2, 1, 2, renamed("user1", "other1", 10)),
        stored(&head, 3, 2, 3, renamed("other2", "third2", 10)),
    ];
    store
        .append(&batch_after(&head, events))
        .await
        .expect("append");
    let versions =
        |events: &[StoredEvent]| events.iter().map(|event| event.version).collect::<Vec<_>>();
    assert_eq!(
        versions(&store.read_user(&user(2), 0, 10).await.expect("read")),
        [1, 2, 3]
    );
    assert_eq!(
        versions(&store.read_user(&user(2), 1, 1).await.expect("read")),
        [2]
    );
    assert!(
        store
            .read_user(&user(9), 0, 10)
            .await
            .expect("read")
            .is_empty()
    );
    let both = store
        .read_users(&[user(2), user(1), user(9)], 0, 100)
        .await
        .expect("read");
    assert_eq!(
        both.iter().map(|event| event.position).collect::<Vec<_>>(),
        [1, 2, 4, 5, 6]
    );
    let many: Vec<_> = (0..5_000).map(user).collect();
    assert_eq!(
        store.read_users(&many, 0, 100).await.expect("read").len(),
        6
    );
}

async fn events_of_a_user_are_read_backwards_from_the_newest(store: &dyn EventStore) {
    let head = register(store, 2).await;
    let events = vec![
        stored(&head, 1, 2, 2, renamed("user2", "other2", 10)),
        stored(&head, 2, 1, 2, renamed("user1", "other1", 10)),
        stored(&head, 3, 2, 3, renamed("other2", "third2", 10)),
    ];
    store
        .append(&batch_after(&head, events))
        .await
        .expect("append");
    for (before, limit, versions) in [
        (u64::MAX, 10, &[3, 2, 1][..]),
        (u64::MAX, 1, &[3]),
        (3, 1, &[2]),
        (3, 10, &[2, 1]),
        (1, 10, &[]),
        (0, 10, &[]),
    ] {
        let read = store.read_user_back(&user(2), before, limit).await;
        let read = read.expect("read");
        assert!(read.iter().all(|event| event.user_id == user(2)));
        let read: Vec<_> = read.iter().map(|event| event.version).collect();
        assert_eq!(read, versions, "before {before}, {limit} at most");
    }
    let nobody = store.read_user_back(&user(9), u64::MAX, 10).await;
    assert!(nobody.expect("read").is_empty());
}

async fn a_time_is_found_as_a_position(store: &dyn EventStore) {
    let at = async |millis| {
        let position = position_at(store, Time::from_millis(millis)).await;
        position.expect("position")
    };
    assert_eq!(at(i64::MAX).await, 0, "nothing is recorded yet");
    for (n, millis) in (1..).zip([10, 20, 20, 20, 30]) {
        let mut head = store.head().await.expect("head");
        let recorded_at = Time::from_millis(millis);
        head.recorded_at = recorded_at;
        let event = registered(&head, n, &format!("user{n}"));
        let expected = store.head().await.expect("head");
        let batch = Batch {
            expected,
            recorded_at,
            ..batch_after(&head, vec![event])
        };
        store.append(&batch).await.expect("append");
    }
    for (millis, position) in [
        (i64::MIN, 0),
        (9, 0),
        (10, 1),
        (19, 1),
        (20, 4),
        (29, 4),
        (30, 5),
        (i64::MAX, 5),
    ] {
        assert_eq!(at(millis).await, position, "{millis}");
    }
}

async fn an_event_is_found_by_its_id(store: &dyn EventStore) {
    register(store, 3).await;
    let event = store.read(1, 1).await.expect("read").remove(0);
    assert_eq!(
        store.position_of(&event.event_id).await.expect("position"),
        Some(2)
    );
    let unknown = EventId::new(Time::from_millis(99), [9; 10]);
    assert_eq!(store.position_of(&unknown).await.expect("position"), None);
}
