use std::collections::HashSet;
use std::time::Duration;

use ledger::store::postgres::PostgresStore;
use ledger::test_servers::memory::{Memory, user};
use ledger::test_servers::postgres::Postgres as Server;
use ledger::test_servers::rights::granted;
use sqlx::{Connection as _, PgConnection};

use super::super::conformance;
use super::*;
use crate::projection::wait_for;
use crate::rebuild;
use crate::search::words;

/// How long a test waits before it fails.
const DEADLINE: Duration = Duration::from_secs(60);

async fn open(url: &str) -> PostgresReadModel {
    PostgresReadModel::open(url).await.unwrap()
}

async fn conforms(options: &str, parameters: &str) {
    conformance::run_all(async || {
        let url = Server::shared().database_with(options).await;
        let read_model: Arc<dyn ReadModel> = Arc::new(open(&format!("{url}{parameters}")).await);
        read_model
    })
    .await;
}

fn step(from: Position, to: Position, documents: Vec<Document>) -> Batch {
    Batch {
        from,
        to,
        documents,
        parked: Vec::new(),
        same_words: HashSet::new(),
        unparked: Vec::new(),
    }
}

#[tokio::test]
async fn the_postgres_read_model_passes_the_conformance_suite() {
    conforms("", "").await;
}

#[tokio::test]
async fn a_read_model_behind_a_pooler_passes_the_conformance_suite() {
    conforms("", "?statement-cache-capacity=0").await;
}

#[tokio::test]
async fn a_database_with_turkish_collation_makes_no_difference() {
    conforms("TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'tr'", "").await;
}

async fn is_rebuilt(parameters: &str) {
    rebuild::conformance::run_all(async || {
        let url = Server::shared().database().await + parameters;
        let service = Arc::new(open(&url).await);
        let operator = Arc::new(open(&url).await);
        rebuild::conformance::Opened { service, operator }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_postgres_read_model_is_rebuilt_while_it_is_used() {
    is_rebuilt("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_model_behind_a_pooler_is_rebuilt_while_it_is_used() {
    is_rebuilt("?statement-cache-capacity=0").await;
}

#[tokio::test]
async fn rebuilt_tables_have_the_indexes_owner_and_rights_of_the_replaced_ones() {
    let url = Server::shared().database().await;
    let read_model = open(&url).await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(
        "CREATE ROLE keeper; CREATE ROLE program; CREATE ROLE looker; \
         ALTER TABLE read_model.users OWNER TO keeper; \
         GRANT SELECT, INSERT ON read_model.users, read_model.user_words TO program WITH GRANT OPTION; \
         GRANT SELECT ON ALL TABLES IN SCHEMA read_model TO looker, PUBLIC",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let shape = "\
        SELECT indexdef FROM pg_indexes WHERE schemaname = 'read_model' \
        UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'read_model'::regnamespace \
        UNION ALL SELECT concat_ws(' ', c.relname, pg_get_userbyid(c.relowner), (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) AS a)) \
            FROM pg_class AS c WHERE c.relnamespace = 'read_model'::regnamespace \
        UNION ALL SELECT concat_ws(' ', c.relname, a.attname, a.atttypid, a.attnotnull, a.attcollation) \
            FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid \
            WHERE a.attnum > 0 AND c.relnamespace = 'read_model'::regnamespace \
        ORDER BY 1";
    let tables = "SELECT oid::text FROM pg_class WHERE relnamespace = 'read_model'::regnamespace AND relkind = 'r' ORDER BY 1";
    let mut ask = async |statement| {
        let rows = sqlx::query_scalar::<_, String>(statement);
        rows.fetch_all(&mut owner).await.unwrap()
    };
    let (before, tables_before) = (ask(shape).await, ask(tables).await);
    let ledger = Memory::new();
    for _ in 0..3 {
        let rebuilt = rebuild::rebuild(Arc::clone(&ledger) as _, &read_model, "me", false, &|_| {});
        assert_eq!(rebuilt.await.unwrap().swapped_at, Some(0));
        assert_eq!(ask(shape).await, before);
    }
    assert_ne!(ask(tables).await, tables_before);
}

#[tokio::test]
async fn a_locked_table_delays_the_swap_and_other_readers_only_briefly() {
    let url = Server::shared().database().await;
    let read_model = open(&url).await;
    let ledger = Memory::new();
    let mut backup = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE read_model.users IN ACCESS SHARE MODE")
        .execute(&mut backup)
        .await
        .unwrap();
    let rebuilding = rebuild::rebuild(Arc::clone(&ledger) as _, &read_model, "me", false, &|_| {});
    let reading = async {
        let user = user(1);
        for _ in 0..300 {
            read_model.document(&user).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut backup).await.unwrap();
    };
    let (rebuilt, ()) = tokio::join!(rebuilding, reading);
    assert_eq!(rebuilt.unwrap().swapped_at, Some(0));
}

#[tokio::test]
async fn the_ledger_and_the_read_model_may_share_a_database() {
    let url = Server::shared().database().await;
    let (store, read_model) =
        tokio::join!(PostgresStore::open(&url), PostgresReadModel::open(&url));
    store.unwrap();
    read_model.unwrap();
    migrate(&url).await.unwrap();
    ledger::store::postgres::migrate(&url).await.unwrap();
}

#[tokio::test]
async fn a_read_only_process_learns_what_was_applied() {
    let url = Server::shared().database().await;
    let projector = open(&url).await;
    let reader = open(&url).await;
    for position in 1..=3 {
        let document = conformance::document(1, "john", "John", "Doe", position);
        let waiting = (0..100).map(|_| async {
            let has_come = wait_for(&reader, position, DEADLINE).await;
            assert!(has_come);
            reader.document(&document.user_id).await.unwrap().unwrap()
        });
        let batch = step(position - 1, position, vec![document.clone()]);
        let applying = async { projector.apply("", &batch).await.unwrap() };
        let (found, ()) = tokio::join!(futures::future::join_all(waiting), applying);
        assert!(found.iter().all(|found| *found == document));
    }
}

#[tokio::test]
async fn applied_steps_are_known_soon_without_a_waiter() {
    let url = Server::shared().database().await;
    let projector = open(&url).await;
    let reader = open(&url).await;
    projector.apply("", &step(0, 7, vec![])).await.unwrap();
    let known = async {
        while reader.applied.known() != 7 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, known).await.unwrap();
}

#[tokio::test]
async fn readers_of_a_restored_read_model_do_not_wait_in_vain() {
    let url = Server::shared().database().await;
    let read_model = open(&url).await;
    read_model.apply("", &step(0, 7, vec![])).await.unwrap();
    let mut applied = read_model.watch_applied();
    assert_eq!(*applied.borrow_and_update(), 7);
    let mut stranger = PgConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE read_model.projections SET position = 3")
        .execute(&mut stranger)
        .await
        .unwrap();
    let back = applied.wait_for(|applied| *applied == 3);
    tokio::time::timeout(DEADLINE, back).await.unwrap().unwrap();
}

#[tokio::test]
async fn texts_that_postgres_cannot_store_stop_nothing() {
    let url = Server::shared().database().await;
    let read_model = open(&url).await;
    let mut document = conformance::document(1, "jo\0hn", "Jo\0hn", "Doe", 1);
    document.profile.expertise = Some("de\0signer".to_owned());
    let batch = Batch {
        parked: vec![Parked {
            user_id: document.user_id,
            from: 1,
            error: "a\0b".to_owned(),
            recorded_at: Time::from_millis(0),
        }],
        ..step(0, 1, vec![document.clone()])
    };
    read_model.apply("", &batch).await.unwrap();
    let found = read_model.document(&document.user_id).await.unwrap();
    assert_eq!(found, Some(document));
    assert_eq!(read_model.parked().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_unreadable_document_is_reported_with_its_user() {
    let url = Server::shared().database().await;
    let read_model = open(&url).await;
    let document = conformance::document(1, "john", "John", "Doe", 1);
    let batch = step(0, 1, vec![document.clone()]);
    read_model.apply("", &batch).await.unwrap();
    let mut stranger = PgConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE read_model.users SET document = '{}'")
        .execute(&mut stranger)
        .await
        .unwrap();
    let error = read_model.document(&document.user_id).await.unwrap_err();
    assert!(
        error.to_string().contains(&document.user_id.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn the_program_needs_no_right_to_change_tables() {
    let url = Server::shared().database().await;
    migrate(&url).await.unwrap();
    let grants = include_str!("../../../../migrations/postgres/grants/read-model.sql");
    let projector = open(&granted(&url, "folder", grants).await).await;
    let to_read = "GRANT USAGE ON SCHEMA read_model TO profile_ledger; \
        GRANT SELECT ON ALL TABLES IN SCHEMA read_model TO profile_ledger";
    let queries = open(&granted(&url, "queries", to_read).await).await;
    let document = conformance::document(1, "john", "John", "Doe", 1);
    projector.take_over("me").await.unwrap();
    let batch = Batch {
        same_words: HashSet::new(),
        unparked: vec![document.user_id],
        ..step(0, 1, vec![document.clone()])
    };
    projector.apply("me", &batch).await.unwrap();
    projector
        .apply("me", &step(1, 2, vec![document]))
        .await
        .unwrap();
    let search = Search {
        words: words("john"),
        expertise: None,
        offset: 0,
        limit: 10,
    };
    assert_eq!(queries.search(&search).await.unwrap().len(), 1);
    assert!(queries.take_over("me").await.is_err());
}

#[tokio::test]
async fn a_restarted_server_costs_no_read() {
    let server = Server::start();
    let read_model = open(&server.database().await).await;
    let document = conformance::document(1, "john", "John", "Doe", 1);
    let batch = step(0, 1, vec![document.clone()]);
    read_model.apply("", &batch).await.unwrap();
    let reads = (0..READERS).map(|_| read_model.document(&document.user_id));
    futures::future::join_all(reads).await;
    server.kill();
    server.start_again();
    for _ in 0..READERS {
        let found = read_model.document(&document.user_id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&document));
    }
}
