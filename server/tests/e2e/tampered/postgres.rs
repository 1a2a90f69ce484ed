//! The same in PostgreSQL: whatever anybody changes in a table, `profile-ledger verify` names.

use ledger::test_servers::postgres::Postgres;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::service::{DEMO_USER, Folder, command};
use crate::verify::{rename, verify, work};

/// A table, what is done to it, and what is said of that.
const IN_POSTGRESQL: [(&str, &str, &str); 38] = [
    (
        "read_model.users",
        "UPDATE read_model.users SET document = replace(document, 'Doe', 'Dof')",
        "differs from the fold",
    ),
    (
        "read_model.users",
        "UPDATE read_model.users SET document = document || ' '",
        "differs from the fold",
    ),
    (
        "read_model.users",
        "UPDATE read_model.users SET document = left(document, 20)",
        "differs from the fold",
    ),
    (
        "read_model.users",
        "UPDATE read_model.users SET username = 'john.other'",
        "differs from the fold",
    ),
    (
        "read_model.users",
        "UPDATE read_model.users SET version = version - 1",
        "older",
    ),
    (
        "read_model.users",
        "UPDATE read_model.users SET position = position + 1",
        "differs from the fold",
    ),
    (
        "read_model.users",
        "INSERT INTO read_model.users SELECT '507f1f77bcf86cd799439000', version, \
         position, 'other', document FROM read_model.users",
        "differs from the fold",
    ),
    (
        "read_model.users",
        "DELETE FROM read_model.users",
        "missing",
    ),
    (
        "read_model.user_words",
        "UPDATE read_model.user_words SET word = 'jon' WHERE word = 'john'",
        "the search words",
    ),
    (
        "read_model.user_words",
        "INSERT INTO read_model.user_words VALUES ('x', '507f1f77bcf86cd799439000')",
        "the search words",
    ),
    (
        "read_model.parked_users",
        "INSERT INTO read_model.parked_users VALUES (JOHN, 3, '', 0)",
        "can be folded",
    ),
    (
        "read_model.parked_users",
        "INSERT INTO read_model.parked_users VALUES (JOHN, 99, '', 0)",
        "does not have",
    ),
    (
        "read_model.projections",
        "UPDATE read_model.projections SET position = 99",
        "after the end of the ledger",
    ),
    (
        "read_model.projections",
        "UPDATE read_model.projections SET position = 4",
        "newer than position 4",
    ),
    (
        "read_model.projections",
        "DELETE FROM read_model.projections",
        "no checkpoint",
    ),
    (
        "log.log_key",
        "DELETE FROM log.log_key",
        "the stored key of the log is missing",
    ),
    (
        "log.log_key",
        "UPDATE log.log_key SET public_key = replace(public_key, '+', '-')",
        "is malformed",
    ),
    (
        "log.hashes",
        "INSERT INTO log.hashes VALUES (1, 0, sha256('x'))",
        "do not exist",
    ),
    (
        "log.checkpoints",
        "UPDATE log.checkpoints SET note = replace(note, 'A', 'B')",
        "checkpoint",
    ),
    (
        "log.checkpoints",
        "DELETE FROM log.checkpoints WHERE number = 1",
        "checkpoint 1 is missing",
    ),
    (
        "log.checkpoints",
        "DELETE FROM log.checkpoints WHERE number = (SELECT number FROM log.head)",
        "the newest, is missing",
    ),
    (
        "log.checkpoints",
        "INSERT INTO log.checkpoints SELECT number + 1, size + 1, note FROM log.checkpoints \
         ORDER BY number DESC LIMIT 1",
        "were signed",
    ),
    (
        "log.head",
        "UPDATE log.head SET number = number - 1",
        "were signed",
    ),
    ("log.head", "DELETE FROM log.head", "head row"),
    (
        "ledger.events",
        "UPDATE ledger.events SET schema_version = 2 WHERE position = 4",
        "contradicts",
    ),
    (
        "ledger.events",
        "UPDATE ledger.events SET user_id = 'nobody' WHERE position = 4",
        "bad user id",
    ),
    (
        "ledger.username_claims",
        "UPDATE ledger.username_claims SET held_until = held_until - 1",
        "is missing or differs",
    ),
    (
        "ledger.username_claims",
        "UPDATE ledger.username_claims SET held_until = 0",
        "is missing or differs",
    ),
    (
        "ledger.username_claims",
        "DELETE FROM ledger.username_claims WHERE held_until IS NOT NULL",
        "is missing",
    ),
    (
        "ledger.username_claims",
        "INSERT INTO ledger.username_claims VALUES ('admin', JOHN, NULL)",
        "belongs to no event",
    ),
    (
        "ledger.ledger_head",
        "UPDATE ledger.ledger_head SET position = 4",
        "missing: ",
    ),
    (
        "ledger.ledger_head",
        "DELETE FROM ledger.ledger_head",
        "head row",
    ),
    (
        "ledger.ledger_head",
        "UPDATE ledger.ledger_head SET store_id = replace(store_id, '0', '1') || '0'",
        "to another ledger",
    ),
    (
        "ledger.events",
        "INSERT INTO ledger.events SELECT 0, gen_random_uuid(), user_id, 0, event_type, schema_version, recorded_at, \
         envelope, leaf_hash FROM ledger.events WHERE position = 1",
        "before the first position",
    ),
    (
        "ledger.username_claims",
        "INSERT INTO ledger.username_claims VALUES ('', JOHN, NULL)",
        "before the first position",
    ),
    (
        "log.checkpoints",
        "INSERT INTO log.checkpoints SELECT 0, 1000, note FROM log.checkpoints WHERE number = 1",
        "before the first position",
    ),
    (
        "read_model.users",
        "INSERT INTO read_model.users SELECT '', version, position, username, document FROM read_model.users LIMIT 1",
        "without an id",
    ),
    (
        "read_model.user_words",
        "INSERT INTO read_model.user_words SELECT word, '' FROM read_model.user_words LIMIT 1",
        "without an id",
    ),
];

#[tokio::test]
async fn whatever_is_kept_beside_the_ledger_is_verified_in_postgresql_too() {
    let database = Postgres::shared().database().await;
    let folder = Folder::new();
    let mut all = command(&folder.data_dir());
    all.env("DATABASE_URL", &database);
    let service = folder.start_with(all);
    work(&service, 5).await;
    rename(&service, "john.again").await;
    work(&service, 1).await;
    service.stop();
    let environment = [("DATABASE_URL", database.as_str())];
    let mut owner = PgConnection::connect(&database).await.unwrap();
    let good = verify(&folder.data_dir(), &[], &environment);
    assert_eq!(good.0, 0, "{}", good.1);
    for (table, statement, message) in IN_POSTGRESQL {
        // Done and undone: what verify reads are the tables of the service.
        let statement = statement.replace("JOHN", &format!("'{DEMO_USER}'"));
        let tampered = format!(
            "ALTER TABLE {table} DISABLE TRIGGER ALL; \
             CREATE TEMPORARY TABLE kept AS SELECT * FROM {table}; {statement}"
        );
        let tampered = sqlx::raw_sql(AssertSqlSafe(tampered));
        tampered.execute(&mut owner).await.unwrap();
        let (code, report) = verify(&folder.data_dir(), &[], &environment);
        let undone = sqlx::raw_sql(AssertSqlSafe(format!(
            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"
        )));
        undone.execute(&mut owner).await.unwrap();
        assert_eq!(code, 1, "{statement}: {report}");
        let said = report["fault"]["message"].as_str().unwrap();
        assert!(said.contains(message), "{statement}: {said}");
    }
    let again: (i32, Value) = verify(&folder.data_dir(), &[], &environment);
    assert_eq!(again, good);
}
