//! Checks the plans of PostgreSQL: a plan that is cheap for a small table must not read a large one
//! completely.

use super::super::super::conformance::{self, batch_after, registered, user};
use super::*;
use events::UserEvent;

#[tokio::test]
async fn users_are_found_by_their_index_without_reading_the_whole_ledger() {
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

    // Before statistics exist, and with the generic plan.
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
async fn a_plan_made_for_a_small_table_does_not_read_a_large_one_completely() {
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
        // The generic plan, which is made once.
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
