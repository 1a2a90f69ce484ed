use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::super::conformance::{self, batch_after, registered, user};
use super::*;
use crate::UserEvent;
use crate::test_servers::postgres::Postgres as Server;

/// How long a test waits before it fails.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long an operation may take when the database is away, and a little for a busy machine.
const GIVEN_UP: Duration = Duration::from_millis(2_500);

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url).await.unwrap()
}

/// Opens a store on a database of its own.
async fn open_new() -> (PostgresStore, String) {
    let url = Server::shared().database().await;
    (open(&url).await, url)
}

/// Another connection, without any of our settings: what a person with a shell has.
async fn stranger(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn code_of(connection: &mut PgConnection, statement: &'static str) -> Option<String> {
    let refused = sqlx::query(statement).execute(connection).await;
    let error = refused.expect_err(statement);
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Registers the next user after a head.
async fn register(store: &PostgresStore, head: &Head) -> Result<(), AppendError> {
    let n = head.position + 1;
    let event = registered(head, n, &format!("user{n}"));
    store.append(&batch_after(head, vec![event])).await
}

/// Registers the next user, whoever else is appending.
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
async fn the_postgres_store_does_what_every_store_must() {
    conforms("").await;
}

#[tokio::test]
async fn a_store_behind_a_pooler_does_what_every_store_must() {
    conforms("?statement-cache-capacity=0").await;
}

#[tokio::test]
async fn the_database_refuses_to_change_or_delete_events() {
    let (store, url) = open_new().await;
    for _ in 0..2 {
        register_next(&store).await;
    }
    // The superuser, who owns the tables, and as if it replayed what another server did.
    let mut stranger = stranger(&url).await;
    for role in ["origin", "replica"] {
        sqlx::query("SELECT set_config('session_replication_role', $1, false)")
            .bind(role)
            .execute(&mut stranger)
            .await
            .unwrap();
        for statement in [
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
        ] {
            let code = code_of(&mut stranger, statement).await;
            assert_eq!(code.as_deref(), Some("P0001"), "{statement}");
        }
    }
    assert_eq!(store.read(0, 10).await.unwrap().len(), 2);
}

/// One event by position, user, version and time.
const EVENT: &str = "INSERT INTO ledger.events SELECT $1, gen_random_uuid(), $2, $3, 'x', 1, $4, '', leaf_hash FROM ledger.events WHERE position = 1";

/// Three events, from position 3 on, by users, versions and times.
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
    let mut owner = stranger(&url).await;
    sqlx::raw_sql("CREATE ROLE profile_ledger LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC")
        .execute(&mut owner)
        .await
        .unwrap();
    sqlx::raw_sql(include_str!(
        "../../../../migrations/postgres/grants/ledger.sql"
    ))
    .execute(&mut owner)
    .await
    .unwrap();
    let url = url.replace("postgres@", "profile_ledger@");
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
    let mut restricted = stranger(&url).await;
    for statement in [
        "UPDATE ledger.events SET envelope = '\\x00'",
        "DELETE FROM ledger.events",
        "TRUNCATE ledger.events",
        "DELETE FROM ledger.ledger_head",
        "ALTER TABLE ledger.events DISABLE TRIGGER ALL",
        "DROP TABLE ledger.events",
        "DROP FUNCTION ledger.refuse() CASCADE",
        "CREATE TABLE ledger.mine ()",
        "DELETE FROM ledger.migrations",
    ] {
        let code = code_of(&mut restricted, statement).await;
        assert_eq!(code.as_deref(), Some("42501"), "{statement}");
    }
}

#[tokio::test]
async fn a_store_that_is_only_read_shows_what_another_appends_and_refuses_to_write() {
    for parameters in ["", "?statement-cache-capacity=0"] {
        let url = Server::shared().database().await + parameters;
        assert!(PostgresStore::open_to_read(&url).await.is_err());
        let tables = "SELECT count(*) FROM pg_namespace WHERE nspname = 'ledger'";
        let made: i64 = sqlx::query_scalar(tables)
            .fetch_one(&mut stranger(&url).await)
            .await
            .unwrap();
        assert_eq!(made, 0, "nothing is made");
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
async fn a_role_that_may_not_migrate_is_told_so() {
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
async fn many_may_migrate_at_once() {
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

#[tokio::test]
async fn a_turn_keeps_others_waiting_until_it_is_used() {
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
    // Used, the turn is over although it is still there.
    register_next(&second).await;
    drop(turn);
}

#[tokio::test]
async fn a_turn_that_is_dropped_or_forgotten_keeps_nobody_waiting() {
    let (first, url) = open_new().await;
    let second = open(&url).await;
    let turn = first.take_turn().await.unwrap();
    drop(turn);
    register_next(&second).await;
    // As if the process had been stopped: the server ends the turn, and what comes of it is an error.
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
        // What was acknowledged is what others see.
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
        // However long the decision takes, nobody overtakes it.
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
async fn what_others_append_is_noticed() {
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
        // It is user 3's now, so user 1 cannot have given it to user 3.
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
async fn an_append_is_on_disk_whatever_the_database_says() {
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
async fn a_server_that_is_away_is_an_error_in_time_and_heals() {
    let server = Server::start();
    let store = open(&server.database().await).await;
    let mut head = store.watch_head();
    register_next(&store).await;
    let known = store.head().await.unwrap();
    server.stop();
    // Not only reads and appends, also opening.
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
    // One append may still find a connection of before.
    let known = store.head().await.unwrap();
    let _ = register(&store, &known).await;
    register_next(&store).await;
    let last = store.head().await.unwrap().position;
    in_time(head.wait_for(|head| *head == last)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error_in_time_and_heals() {
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
    // What was sent may still take place; the next append finds out.
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
        // Every connection of the pools is in use once, and broken afterwards.
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
async fn what_was_acknowledged_survives_a_killed_server() {
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

#[tokio::test]
async fn users_are_found_along_their_index_and_not_by_reading_the_whole_ledger() {
    let (store, url) = open_new().await;
    for version in 1..=5 {
        let head = store.head().await.unwrap();
        let event = |n| {
            let update = UserEvent::ProfileUpdated(Box::default());
            conformance::stored(&head, n, n, version, update)
        };
        let batch = batch_after(&head, (1..=3_000).map(event).collect());
        store.append(&batch).await.unwrap();
    }

    // Before statistics are there, and with the plan that serves any arguments.
    let mut stranger = stranger(&url).await;
    let prepared = format!("PREPARE read_users (text[], bigint, bigint) AS {READ_USERS}");
    let users: Vec<_> = (1..=64).map(|n| user(n).to_string()).collect();
    let users = users.join(",");
    let explained = format!("EXPLAIN EXECUTE read_users ('{{{users}}}', 0, 4096)");
    for statement in [
        "SET plan_cache_mode = force_generic_plan",
        // Nor as one of two indexes.
        "SET enable_indexscan = off",
        &prepared,
    ] {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement)
            .execute(&mut stranger)
            .await
            .unwrap();
    }
    let plan = sqlx::raw_sql(sqlx::AssertSqlSafe(explained))
        .fetch_all(&mut stranger)
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("events_user_id_version_key"), "{plan}");
    assert!(!plan.contains("events_pkey"), "{plan}");
}

#[tokio::test]
async fn a_plan_that_was_made_while_a_table_was_small_does_not_read_a_large_one_whole() {
    let (store, _) = open_new().await;
    let head = store.head().await.unwrap();
    let registration = |n: u64| {
        let at = Head {
            position: n - 1,
            ..head.clone()
        };
        registered(&at, n, &format!("user{n}"))
    };
    let batch = batch_after(&head, (1..=500).map(registration).collect());
    store.append(&batch).await.unwrap();
    let mut session = store.readers.begin().await.unwrap();
    let mut plan = Vec::new();
    for statement in [
        // The plan for any arguments, which is made once.
        "SET LOCAL plan_cache_mode = force_generic_plan",
        "PREPARE claims (text[]) AS SELECT user_id FROM ledger.username_claims WHERE username = ANY($1)",
        "EXPLAIN EXECUTE claims ('{a}')",
    ] {
        let statement = sqlx::query(statement);
        plan = store.readers.within(&mut session, statement).await.unwrap();
    }
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("username_claims_pkey"), "{plan}");
}
