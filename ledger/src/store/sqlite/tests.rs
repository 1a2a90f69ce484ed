use super::super::conformance::{self, batch_after, registered};
use super::*;

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("ledger.db")).await.unwrap()
}

/// A connection without any of our settings, like that of a person with a shell.
async fn stranger(folder: &Path) -> SqliteConnection {
    use sqlx::Connection as _;
    let url = format!("sqlite://{}", folder.join("ledger.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn the_sqlite_store_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    conformance::run_all(async || {
        opened.set(opened.get() + 1);
        let store: Arc<dyn EventStore> =
            Arc::new(open(&folder.path().join(opened.get().to_string())).await);
        store
    })
    .await;
}

#[tokio::test]
async fn the_database_refuses_to_change_or_delete_events() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let head = store.head().await.unwrap();
    store
        .append(&batch_after(&head, vec![registered(&head, 1, "john")]))
        .await
        .unwrap();
    let mut stranger = stranger(folder.path()).await;
    for statement in [
        "UPDATE events SET envelope = x'00'",
        "UPDATE OR REPLACE events SET version = 2",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events",
        "INSERT OR REPLACE INTO events SELECT 2, event_id, user_id, version, event_type, schema_version, recorded_at, x'00', leaf_hash FROM events",
        "INSERT OR REPLACE INTO events SELECT 2, event_id, user_id, 2, event_type, schema_version, recorded_at, x'00', leaf_hash FROM events",
        "INSERT INTO events SELECT 3, 'x', user_id, 2, event_type, schema_version, recorded_at, x'00', leaf_hash FROM events",
        "DELETE FROM ledger_head",
        "UPDATE ledger_head SET position = 0",
    ] {
        let refused = sqlx::query(statement).execute(&mut stranger).await;
        assert!(refused.is_err(), "{statement}");
    }
    assert_eq!(store.read(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).await;
    let path = folder.path().join("ledger.db");
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(&error, Error::Locked(locked) if *locked == path),
        "{error}"
    );
    drop(first);
    open(folder.path()).await;
}

#[tokio::test]
async fn a_read_only_store_shows_appends_of_others_and_refuses_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    assert!(SqliteStore::open_to_read(&path).await.is_err());
    assert!(!path.exists(), "nothing is created");
    let store = open(folder.path()).await;
    let reading = SqliteStore::read_only(&path).await.unwrap();
    for position in 1..=2 {
        let head = store.head().await.unwrap();
        let event = registered(&head, position, &format!("user{position}"));
        store
            .append(&batch_after(&head, vec![event]))
            .await
            .unwrap();
        let mut seen = reading.watch_head();
        let seen = seen.wait_for(|head| *head == position);
        tokio::time::timeout(crate::sqlite::WAIT, seen)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(
        reading.read(0, 10).await.unwrap(),
        store.read(0, 10).await.unwrap()
    );
    let head = reading.head().await.unwrap();
    let batch = batch_after(&head, vec![registered(&head, 3, "user3")]);
    let refused = reading.append(&batch).await.unwrap_err();
    assert!(matches!(refused, AppendError::Store(_)), "{refused}");
    assert!(
        reading
            .sweep(head.recorded_at, head.recorded_at)
            .await
            .is_err()
    );
    // And without another process.
    drop(store);
    let reading = SqliteStore::read_only(&path).await.unwrap();
    assert_eq!(reading.read(0, 10).await.unwrap().len(), 2);
    assert!(reading.append(&batch).await.is_err());
    open(folder.path()).await.append(&batch).await.unwrap();
    assert_eq!(reading.head().await.unwrap().position, 3);
}

#[tokio::test]
async fn appended_events_are_present_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let head = store.head().await.unwrap();
    let event = registered(&head, 1, "john");
    store
        .append(&batch_after(&head, vec![event.clone()]))
        .await
        .unwrap();
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(store.read(0, 10).await.unwrap(), [event]);
    assert_eq!(*store.watch_head().borrow(), 1);
    assert_eq!(store.head().await.unwrap().store_id, head.store_id);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    let limit = |pages: i64| sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::query(limit(pages + 2))
        .execute(&store.writer)
        .await
        .unwrap();
    let mut appended = 0;
    let error = loop {
        let head = store.head().await.unwrap();
        match store
            .append(&batch_after(
                &head,
                vec![registered(&head, appended + 1, &format!("u{appended}"))],
            ))
            .await
        {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 1000, "the limit is never reached");
    };
    assert!(
        matches!(error, AppendError::Store(Error::Unavailable(_))),
        "{error}"
    );
    assert_eq!(store.read(0, 2000).await.unwrap().len() as u64, appended);
    sqlx::query(limit(1_000_000))
        .execute(&store.writer)
        .await
        .unwrap();
    let head = store.head().await.unwrap();
    store
        .append(&batch_after(
            &head,
            vec![registered(&head, appended + 1, "after")],
        ))
        .await
        .unwrap();
    assert_eq!(store.head().await.unwrap().position, appended + 1);
}

#[tokio::test]
async fn commits_are_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2), "2 is FULL");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("ledger.db"),
        "not a database, but long enough to be read as one".repeat(100),
    )
    .unwrap();
    assert!(
        SqliteStore::open(&folder.path().join("ledger.db"))
            .await
            .is_err()
    );
}
