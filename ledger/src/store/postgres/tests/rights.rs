//! The rights in the database: who may change what, and who may create its tables.

use super::super::super::conformance::{batch_after, registered, user};
use super::*;
use crate::test_servers::rights::{granted, refused, refused_to_owner};

#[tokio::test]
async fn the_database_refuses_to_change_or_delete_events() {
    let (store, url) = open_new().await;
    for _ in 0..2 {
        register_next(&store).await;
    }
    let statements = [
        "UPDATE ledger.events SET envelope = '\\x00'",
        "UPDATE ledger.events SET envelope = '\\x00' WHERE false",
        "DELETE FROM ledger.events",
        "TRUNCATE ledger.events",
        "TRUNCATE ledger.events, ledger.username_claims CASCADE",
        "INSERT INTO ledger.events SELECT * FROM ledger.events ON CONFLICT (position) DO UPDATE SET envelope = '\\x00'",
        "MERGE INTO ledger.events AS e USING (SELECT 1::bigint AS position) AS w ON e.position = w.position WHEN MATCHED THEN DELETE",
        "UPDATE ledger.ledger_head SET position = 1",
        "UPDATE ledger.ledger_head SET recorded_at = -1",
        "DELETE FROM ledger.ledger_head",
        "TRUNCATE ledger.ledger_head",
    ];
    refused_to_owner(&url, &statements).await;
    assert_eq!(store.read(0, 10).await.unwrap().len(), 2);
}

/// One event with a position, user, version and time.
const EVENT: &str = "INSERT INTO ledger.events SELECT $1, gen_random_uuid(), $2, $3, 'x', 1, $4, '', leaf_hash FROM ledger.events WHERE position = 1";

/// Three events from position 3 on, with users, versions and times.
const EVENTS: &str = "INSERT INTO ledger.events SELECT n + 2, gen_random_uuid(), u, v, 'x', 1, r, '', sha256('') FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS e(u, v, r, n)";

#[tokio::test]
async fn the_database_refuses_events_out_of_order() {
    let (store, url) = open_new().await;
    for _ in 0..2 {
        register_next(&store).await;
    }
    let mut stranger = stranger(&url).await;
    sqlx::query("UPDATE ledger.ledger_head SET position = 4")
        .execute(&mut stranger)
        .await
        .unwrap();
    for (position, user, version, recorded_at) in [
        (3, "a", 1, 0),
        (4, "a", 1, 0),
        (5, "a", 1, 0),
        (6, "a", 1, 0),
    ] {
        let refused = sqlx::query(EVENT)
            .bind(position)
            .bind(user)
            .bind(version)
            .bind(recorded_at)
            .execute(&mut stranger)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("positions are"), "{refused}");
    }
    sqlx::query("UPDATE ledger.ledger_head SET position = 5")
        .execute(&mut stranger)
        .await
        .unwrap();
    let first = user(1).to_string();
    for (users, versions, times, refusal) in [
        ([&*first, "a", "b"], [3, 1, 1], [0, 0, 0], "versions"),
        (["a", "a", "b"], [2, 1, 1], [0, 0, 0], "versions"),
        (["a", "a", "b"], [1, 3, 1], [0, 0, 0], "versions"),
        (["a", "a", "a"], [0, 1, 2], [0, 0, 0], "versions"),
        ([&*first, "a", "b"], [2, 1, 1], [-1, 0, 0], "time"),
        ([&*first, "a", "b"], [2, 1, 1], [0, 2, 1], "time"),
        ([&*first, "a", "a"], [2, 1, 2], [0, 2, 2], ""),
    ] {
        let inserted = sqlx::query(EVENTS)
            .bind(users.map(str::to_owned).to_vec())
            .bind(versions.to_vec())
            .bind(times.to_vec())
            .execute(&mut stranger)
            .await;
        match inserted {
            Ok(_) => assert_eq!(refusal, "", "{users:?} {versions:?} {times:?}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!refusal.is_empty() && error.contains(refusal), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn the_program_needs_no_right_to_change_or_delete_events() {
    let url = Server::shared().database().await;
    migrate(&url).await.unwrap();
    let grants = include_str!("../../../../../migrations/postgres/grants/ledger.sql");
    let url = granted(&url, "ledger_keeper", grants).await;
    let store = open(&url).await;
    let head = store.head().await.unwrap();
    let mut batch = batch_after(&head, vec![registered(&head, 1, "john")]);
    batch.outcomes.push(Outcome {
        key: OutcomeKey {
            actor: "any \0 text".to_owned(),
            key: "k".to_owned(),
        },
        fingerprint: [7; 32],
        answer: Vec::new(),
        recorded_at: head.recorded_at,
    });
    store.append(&batch).await.unwrap();
    let key = batch.outcomes[0].key.clone();
    assert_eq!(store.outcomes(&[key]).await.unwrap(), batch.outcomes);
    assert_eq!(store.read(0, 10).await.unwrap(), batch.events);
    let turn = store.take_turn().await.unwrap();
    register(&store, &turn.head).await.unwrap();
    let later = Time::from_millis(1);
    store.sweep(later, later).await.unwrap();
    let statements = [
        "UPDATE ledger.events SET envelope = '\\x00'",
        "DELETE FROM ledger.events",
        "TRUNCATE ledger.events",
        "DELETE FROM ledger.ledger_head",
        "ALTER TABLE ledger.events DISABLE TRIGGER ALL",
        "DROP TABLE ledger.events",
        "DROP FUNCTION ledger.refuse() CASCADE",
        "CREATE TABLE ledger.mine ()",
        "DELETE FROM ledger.migrations",
    ];
    refused(&url, "42501", &statements).await;
}

#[tokio::test]
async fn a_read_only_store_shows_appends_of_others_and_refuses_writes() {
    for parameters in ["", "?statement-cache-capacity=0"] {
        let url = Server::shared().database().await + parameters;
        assert!(PostgresStore::open_to_read(&url).await.is_err());
        let tables = "SELECT count(*) FROM pg_namespace WHERE nspname = 'ledger'";
        let made: i64 = sqlx::query_scalar(tables)
            .fetch_one(&mut stranger(&url).await)
            .await
            .unwrap();
        assert_eq!(made, 0, "nothing is created");
        let store = open(&url).await;
        let reading = PostgresStore::read_only(&url).await.unwrap();
        let mut seen = reading.watch_head();
        register_next(&store).await;
        in_time(seen.wait_for(|head| *head == 1)).await.unwrap();
        assert_eq!(
            reading.read(0, 10).await.unwrap(),
            store.read(0, 10).await.unwrap()
        );
        let head = reading.head().await.unwrap();
        let refused = register(&reading, &head).await.unwrap_err();
        let AppendError::Store(Error::Unavailable(error)) = &refused else {
            panic!("{refused}");
        };
        assert!(error.to_string().contains("read-only"), "{error}");
        assert!(
            reading
                .sweep(head.recorded_at, head.recorded_at)
                .await
                .is_err()
        );
        assert_eq!(store.head().await.unwrap(), head);
    }
}

#[tokio::test]
async fn a_role_without_the_right_to_migrate_gets_a_clear_error() {
    let url = Server::shared().database().await;
    let mut owner = stranger(&url).await;
    sqlx::raw_sql("CREATE ROLE nobody_at_all LOGIN")
        .execute(&mut owner)
        .await
        .unwrap();
    let refused = PostgresStore::open(&url.replace("postgres@", "nobody_at_all@")).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn many_processes_may_migrate_at_once() {
    let url = Server::shared().database().await;
    let opened = (0..8).map(|n| {
        let parameters = if n % 2 == 0 {
            ""
        } else {
            "?statement-cache-capacity=0"
        };
        let url = format!("{url}{parameters}");
        async move { open(&url).await.head().await.unwrap().store_id }
    });
    let ids = in_time(futures::future::join_all(opened)).await;
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn a_newer_program_may_have_migrated_already() {
    let (_store, url) = open_new().await;
    let mut stranger = stranger(&url).await;
    sqlx::raw_sql("INSERT INTO ledger.migrations VALUES (9999, 'later', now(), true, '', 0)")
        .execute(&mut stranger)
        .await
        .unwrap();
    open(&url).await;
    migrate(&url).await.unwrap();
}
