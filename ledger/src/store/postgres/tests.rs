use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::super::conformance::{self, batch_after, registered, user};
use super::*;
use crate::test_servers::postgres::Postgres as Server;

mod plans;
mod rights;

/// How long a test waits before it fails.
const DEADLINE: Duration = Duration::from_secs(60);
/// The maximum time of an operation when the database is unavailable, with a margin for a busy
/// machine.
const GIVEN_UP: Duration = Duration::from_millis(2_500);

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url).await.unwrap()
}

/// Opens a store on a database of its own.
async fn open_new() -> (PostgresStore, String) {
    let url = Server::shared().database().await;
    (open(&url).await, url)
}

/// A connection without any of our settings, like that of a person with a shell.
async fn stranger(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// Registers the next user after a head.
async fn register(store: &PostgresStore, head: &Head) -> Result<(), AppendError> {
    let n = head.position + 1;
    let event = registered(head, n, &format!("user{n}"));
    store.append(&batch_after(head, vec![event])).await
}

/// Registers the next user, beside other appending processes.
async fn register_next(store: &PostgresStore) {
    let head = store.head().await.unwrap();
    register(store, &head).await.unwrap();
}

async fn in_time<T>(operation: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, operation)
        .await
        .expect("done before the deadline")
}

async fn conforms(parameters: &str) {
    conformance::run_all(async || {
        let url = Server::shared().database().await;
        let store: Arc<dyn EventStore> = Arc::new(open(&format!("{url}{parameters}")).await);
        store
    })
    .await;
}

#[tokio::test]
async fn the_postgres_store_passes_the_conformance_suite() {
    conforms("").await;
}

#[tokio::test]
async fn a_store_behind_a_pooler_passes_the_conformance_suite() {
    conforms("?statement-cache-capacity=0").await;
}

#[tokio::test]
async fn a_turn_makes_others_wait_until_it_is_used() {
    let (first, url) = open_new().await;
    let second = open(&url).await;
    let turn = first.take_turn().await.unwrap();
    let stale = second.head().await.unwrap();
    let mut overtaken = std::pin::pin!(register(&second, &stale));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), overtaken.as_mut())
            .await
            .is_err(),
        "an append did not wait for the turn"
    );
    register(&first, &turn.head).await.unwrap();
    assert!(matches!(
        in_time(overtaken).await,
        Err(AppendError::HeadMoved)
    ));
    assert_eq!(second.head().await.unwrap().position, 1);
    // A used turn is over although the value still exists.
    register_next(&second).await;
    drop(turn);
}

#[tokio::test]
async fn a_dropped_or_forgotten_turn_delays_nobody() {
    let (first, url) = open_new().await;
    let second = open(&url).await;
    let turn = first.take_turn().await.unwrap();
    drop(turn);
    register_next(&second).await;
    // As if the process had been stopped: the server ends the turn, and using it is an error.
    let turn = first.take_turn().await.unwrap();
    in_time(async {
        loop {
            let head = second.head().await.unwrap();
            match register(&second, &head).await {
                Ok(()) => break,
                Err(AppendError::Store(Error::Unavailable(_))) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    assert!(register(&first, &turn.head).await.is_err());
    register_next(&first).await;
    assert_eq!(second.head().await.unwrap().position, 3);
}

#[tokio::test]
async fn an_abandoned_turn_leaves_no_transaction_open() {
    let (store, url) = open_new().await;
    let other = open(&url).await;
    for polls in 0..20 {
        let mut turn = Box::pin(store.take_turn());
        for _ in 0..polls {
            if futures::poll!(turn.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(turn);
        register_next(&store).await;
        // Other processes see every acknowledged append.
        assert_eq!(other.head().await.unwrap().position, polls + 1);
    }
}

#[tokio::test]
async fn an_overtaken_store_gets_its_turn_among_busy_ones() {
    let (slow, url) = open_new().await;
    let mut busy = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let store = open(&url).await;
        busy.spawn(async move {
            loop {
                let head = store.head().await.unwrap();
                match register(&store, &head).await {
                    Ok(()) | Err(AppendError::HeadMoved) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    for _ in 0..20 {
        let turn = in_time(slow.take_turn()).await.unwrap();
        // Nobody overtakes it, however long the decision takes.
        tokio::time::sleep(Duration::from_millis(5)).await;
        register(&slow, &turn.head).await.unwrap();
    }
    assert!(busy.try_join_next().is_none(), "a busy writer gave up");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_processes_append_and_a_seventh_misses_nothing() {
    let (follower, url) = open_new().await;
    let mut writers: Vec<Arc<dyn EventStore>> = Vec::new();
    for n in 0..6 {
        let parameters = if n % 2 == 0 {
            ""
        } else {
            "?statement-cache-capacity=0"
        };
        writers.push(Arc::new(open(&format!("{url}{parameters}")).await));
    }
    conformance::a_follower_sees_every_event_once_in_order(writers, Arc::new(follower)).await;
}

#[tokio::test]
async fn appends_of_other_processes_are_noticed() {
    let (store, url) = open_new().await;
    let other = open(&url).await;
    let mut head = store.watch_head();
    for position in 1..=3 {
        register_next(&other).await;
        in_time(head.wait_for(|head| *head == position))
            .await
            .unwrap();
        assert_eq!(store.read(position - 1, 1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_contradiction_within_a_batch_is_a_taken_name() {
    let (store, _url) = open_new().await;
    register_next(&store).await;
    let claim = |n, held_until: Option<i64>| Claim {
        username: "name".to_owned(),
        user_id: user(n),
        held_until: held_until.map(Time::from_millis),
    };
    for (claims, is_taken) in [
        (vec![claim(1, None), claim(2, None)], true),
        (vec![claim(1, Some(1)), claim(2, None)], true),
        (
            vec![claim(1, Some(0)), claim(2, Some(0)), claim(3, None)],
            false,
        ),
        // The name is user 3's now, so user 1 cannot have given it to user 3.
        (vec![claim(1, Some(0)), claim(3, None)], true),
        (
            vec![claim(3, Some(9)), claim(3, None), claim(3, Some(0))],
            false,
        ),
        (vec![claim(4, None)], false),
    ] {
        let head = store.head().await.unwrap();
        let batch = Batch {
            claims: claims.clone(),
            ..batch_after(&head, Vec::new())
        };
        match store.append(&batch).await {
            Ok(()) => assert!(!is_taken, "{claims:?}"),
            Err(AppendError::NameTaken) => assert!(is_taken, "{claims:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    let claims = store.claims(&["name".to_owned()]).await.unwrap();
    assert_eq!(claims, [claim(4, None)]);
}

#[tokio::test]
async fn an_append_is_on_disk_whatever_the_settings_of_the_database() {
    let server = Server::start();
    let url = server.database().await;
    let mut stranger = stranger(&url).await;
    sqlx::raw_sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$",
    )
    .execute(&mut stranger)
    .await
    .unwrap();
    let store = open(&url).await;
    for _ in 0..10 {
        register_next(&store).await;
        let is_flushed: bool = sqlx::query_scalar(
            "SELECT pg_current_wal_flush_lsn() >= (SELECT max(lsn) FROM (SELECT pg_current_wal_insert_lsn() AS lsn) AS l)",
        )
        .fetch_one(&mut stranger)
        .await
        .unwrap();
        assert!(is_flushed);
    }
}

#[tokio::test]
async fn an_unavailable_server_causes_a_timely_error_and_recovers() {
    let server = Server::start();
    let store = open(&server.database().await).await;
    let mut head = store.watch_head();
    register_next(&store).await;
    let known = store.head().await.unwrap();
    server.stop();
    // Not only reads and appends but also opening.
    let url = server.url("test0");
    let refused = tokio::time::timeout(GIVEN_UP, async {
        tokio::join!(
            store.read(0, 10),
            register(&store, &known),
            PostgresStore::open(&url),
        )
    })
    .await
    .expect("given up in time");
    assert!(matches!(refused.0, Err(Error::Unavailable(_))));
    assert!(matches!(
        refused.1,
        Err(AppendError::Store(Error::Unavailable(_)))
    ));
    assert!(matches!(refused.2, Err(Error::Unavailable(_))));
    server.start_again();
    // One append may still get a connection from before.
    let known = store.head().await.unwrap();
    let _ = register(&store, &known).await;
    register_next(&store).await;
    let last = store.head().await.unwrap().position;
    in_time(head.wait_for(|head| *head == last)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_causes_a_timely_error_and_recovers() {
    let server = Server::start();
    let store = open(&server.database().await).await;
    register_next(&store).await;
    let known = store.head().await.unwrap();
    server.freeze();
    let refused = tokio::time::timeout(GIVEN_UP, async {
        tokio::join!(store.read(0, 10), register(&store, &known))
    })
    .await
    .expect("given up in time");
    assert!(matches!(refused.0, Err(Error::Unavailable(_))));
    assert!(matches!(
        refused.1,
        Err(AppendError::Store(Error::Unavailable(_)))
    ));
    server.thaw();
    // A statement that was sent may still take effect; the next append finds out.
    in_time(async {
        loop {
            let head = store.head().await.unwrap();
            match register(&store, &head).await {
                Ok(()) => break,
                Err(AppendError::HeadMoved) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let head = store.head().await.unwrap();
    assert_eq!(store.read(0, 10).await.unwrap().len() as u64, head.position);
}

#[tokio::test]
async fn a_restarted_server_costs_no_read_and_at_most_one_append() {
    let server = Server::start();
    let store = open(&server.database().await).await;
    register_next(&store).await;
    for _ in 0..3 {
        // Every connection of the pools is used once, and broken afterwards.
        let reads = (0..READERS).map(|_| store.read(0, 10));
        for read in futures::future::join_all(reads).await {
            read.unwrap();
        }
        let sweeps = (0..WRITERS).map(|_| store.sweep(Time::from_millis(0), Time::from_millis(0)));
        for sweep in futures::future::join_all(sweeps).await {
            sweep.unwrap();
        }
        server.kill();
        server.start_again();
        for _ in 0..READERS {
            store.read(0, 10).await.unwrap();
        }
        let mut failed = 0;
        for _ in 0..4 {
            let head = store.head().await.unwrap();
            failed += u32::from(register(&store, &head).await.is_err());
        }
        assert!(failed <= 1, "{failed} appends failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_survive_a_killed_server() {
    let server = Server::start();
    let url = server.database().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let store = open(&url).await;
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let Ok(head) = store.head().await else { break };
                let event = registered(&head, writer << 32 | n, &format!("w{writer}n{n}"));
                match store.append(&batch_after(&head, vec![event.clone()])).await {
                    Ok(()) => acknowledged.push(event),
                    Err(AppendError::HeadMoved) => {}
                    Err(AppendError::NameTaken) => panic!("a name was taken"),
                    Err(AppendError::Store(_)) => break,
                }
            }
            acknowledged
        });
    }
    let store = open(&url).await;
    let mut head = store.watch_head();
    in_time(head.wait_for(|head| *head >= 200)).await.unwrap();
    server.kill();
    let acknowledged = in_time(writers.join_all()).await.concat();
    assert!(acknowledged.len() >= 150, "{}", acknowledged.len());
    server.start_again();
    let events = in_time(store.read(0, 100_000)).await.unwrap();
    let last = store.head().await.unwrap().position;
    assert!(events.iter().map(|event| event.position).eq(1..=last));
    for event in acknowledged {
        let position = usize::try_from(event.position).unwrap();
        assert_eq!(events[position - 1], event);
    }
}
