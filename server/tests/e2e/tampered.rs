//! Whatever anybody changes in the files behind the service's back, `profile-ledger verify` names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use crate::parked::{parked_users, register_again_in};
use crate::service::{Folder, command};
use crate::verify::{checkpoint, rename, verify, work};

mod postgres;

/// Users beside the demo user: enough for two hashes over 256 events each.
const USERS: usize = 520;

/// A table with the columns whose every byte is verified, and the columns that name a row.
struct Table {
    file: &'static str,
    name: &'static str,
    keys: &'static [&'static str],
    numbers: &'static [&'static str],
    texts: &'static [&'static str],
    blobs: &'static [&'static str],
    /// Whether a row may be removed or come back under another key; else only changed.
    rows: &'static [&'static str],
}

/// What is kept and is no fold of anything is left out: epoch and count of appends, answers under idempotency keys, and
/// the owner of a projection.
const TABLES: [Table; 11] = [
    Table {
        file: "ledger.db",
        name: "events",
        keys: &["position"],
        numbers: &["position", "version", "schema_version", "recorded_at"],
        texts: &["event_id", "user_id", "event_type"],
        blobs: &["envelope", "leaf_hash"],
        rows: &["position", "event_id", "version"],
    },
    Table {
        file: "ledger.db",
        name: "ledger_head",
        keys: &["only_row"],
        numbers: &["position"],
        texts: &["store_id"],
        blobs: &[],
        rows: &[],
    },
    Table {
        file: "ledger.db",
        name: "username_claims",
        keys: &["username"],
        numbers: &[],
        texts: &["username", "user_id"],
        blobs: &[],
        rows: &["username"],
    },
    Table {
        file: "read-model.db",
        name: "users",
        keys: &["user_id"],
        numbers: &["version", "position"],
        texts: &["user_id", "username", "document"],
        blobs: &[],
        rows: &["user_id"],
    },
    Table {
        file: "read-model.db",
        name: "user_words",
        keys: &["user_id", "word"],
        numbers: &[],
        texts: &["user_id", "word"],
        blobs: &[],
        rows: &["word"],
    },
    Table {
        file: "read-model.db",
        name: "parked_users",
        keys: &["user_id"],
        numbers: &["from_position", "recorded_at"],
        texts: &["user_id", "error"],
        blobs: &[],
        rows: &["user_id"],
    },
    Table {
        file: "read-model.db",
        name: "projections",
        keys: &["name"],
        numbers: &["position"],
        texts: &["name"],
        blobs: &[],
        rows: &[],
    },
    Table {
        file: "log.db",
        name: "hashes",
        keys: &["level", "hash_index"],
        numbers: &["level", "hash_index"],
        texts: &[],
        blobs: &["hash"],
        rows: &["hash_index"],
    },
    Table {
        file: "log.db",
        name: "checkpoints",
        keys: &["number"],
        numbers: &["number", "size"],
        texts: &["note"],
        blobs: &[],
        rows: &["number", "size"],
    },
    Table {
        file: "log.db",
        name: "head",
        keys: &["only_row"],
        numbers: &["number"],
        texts: &[],
        blobs: &[],
        rows: &[],
    },
    Table {
        file: "log.db",
        name: "log_key",
        keys: &["only_row"],
        numbers: &[],
        texts: &["public_key"],
        blobs: &[],
        rows: &[],
    },
];

/// Something that somebody does to a row.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Flips a bit of a byte.
    Flip(u8),
    Drop,
    /// Adds the row once more, under another name.
    Insert,
    /// Exchanges a value with another row.
    Swap(prop::sample::Index),
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0_u8..8).prop_map(Deed::Flip),
        1 => Just(Deed::Drop),
        1 => Just(Deed::Insert),
        1 => any::<prop::sample::Index>().prop_map(Deed::Swap),
    ]
}

/// A data directory whose files can be brought back.
struct Victim {
    good: PathBuf,
    copy: Folder,
}

impl Victim {
    fn restore(&self, file: &str) {
        for ending in ["-wal", "-shm"] {
            let beside = self.copy.data_dir().join(format!("{file}{ending}"));
            let _ = std::fs::remove_file(beside);
        }
        std::fs::copy(self.good.join(file), self.copy.data_dir().join(file)).unwrap();
    }

    async fn open(&self, file: &str) -> SqliteConnection {
        let url = format!("sqlite://{}", self.copy.data_dir().join(file).display());
        let mut stranger = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("PRAGMA ignore_check_constraints = ON; PRAGMA journal_mode = DELETE")
            .execute(&mut stranger)
            .await
            .unwrap();
        let triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'";
        for row in sqlx::query(triggers)
            .fetch_all(&mut stranger)
            .await
            .unwrap()
        {
            let name: String = row.get(0);
            let drop = AssertSqlSafe(format!("DROP TRIGGER {name}"));
            sqlx::raw_sql(drop).execute(&mut stranger).await.unwrap();
        }
        stranger
    }
}

/// A row and one of its values.
struct Target {
    /// What only this row fulfils.
    condition: String,
    value: Vec<u8>,
    number: i64,
    /// Where the event is that a changed row is about.
    position: Option<i64>,
}

async fn target(
    stranger: &mut SqliteConnection,
    table: &Table,
    column: &str,
    row: prop::sample::Index,
) -> Option<Target> {
    let name = table.name;
    let count = sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {name}")));
    let count: i64 = count.fetch_one(&mut *stranger).await.unwrap().get(0);
    let rows = usize::try_from(count).unwrap();
    if rows == 0 {
        return None;
    }
    let quoted: String = table.keys.iter().fold(String::new(), |mut all, key| {
        write!(all, ", '{key} = ' || quote({key})").unwrap();
        all
    });
    let is_of_an_event = table.name == "events" || table.name == "users";
    let position = if is_of_an_event { "position" } else { "NULL" };
    let keys = table.keys.join(", ");
    let offset = row.index(rows);
    let select = AssertSqlSafe(format!(
        "SELECT CAST({column} AS BLOB), CAST({column} AS INTEGER), {position}{quoted} \
         FROM {name} ORDER BY {keys} LIMIT 1 OFFSET {offset}"
    ));
    let found = sqlx::query(select).fetch_one(stranger).await.unwrap();
    let conditions: Vec<String> = (0..table.keys.len()).map(|n| found.get(n + 3)).collect();
    Some(Target {
        condition: conditions.join(" AND "),
        value: found.get(0),
        number: found.get(1),
        position: found.get(2),
    })
}

/// What a value becomes when a bit is flipped, as SQL.
fn flipped(
    table: &Table,
    column: &str,
    target: &Target,
    byte: prop::sample::Index,
    bit: u8,
) -> String {
    if table.numbers.contains(&column) {
        // Of the lower bytes.
        let bit = byte.index(4) * 8 + usize::from(bit);
        return (target.number ^ (1 << bit)).to_string();
    }
    let mut value = target.value.clone();
    let byte = byte.index(value.len());
    value[byte] ^= 1 << bit;
    let kind = if table.blobs.contains(&column) {
        "BLOB"
    } else {
        "TEXT"
    };
    format!("CAST(x'{}' AS {kind})", hex(&value))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut all, byte| {
        write!(all, "{byte:02x}").unwrap();
        all
    })
}

/// The statements of a deed; `None` where it would change nothing.
async fn statements(
    stranger: &mut SqliteConnection,
    table: &Table,
    column: &str,
    row: prop::sample::Index,
    byte: prop::sample::Index,
    deed: Deed,
) -> Option<(Target, String)> {
    let one = target(stranger, table, column, row).await?;
    let (name, condition) = (table.name, &one.condition);
    let statement = match deed {
        Deed::Flip(bit) => {
            let value = flipped(table, column, &one, byte, bit);
            format!("UPDATE {name} SET {column} = {value} WHERE {condition}")
        }
        Deed::Drop => format!("DELETE FROM {name} WHERE {condition}"),
        Deed::Insert => {
            if table.rows.is_empty() {
                return None;
            }
            let columns = format!("SELECT name FROM pragma_table_info('{name}')");
            let columns = sqlx::query(AssertSqlSafe(columns))
                .fetch_all(&mut *stranger)
                .await
                .unwrap();
            let columns = columns
                .iter()
                .map(|row| row.get::<String, _>(0))
                .map(|column| {
                    if !table.rows.contains(&column.as_str()) {
                        column
                    } else if table.numbers.contains(&column.as_str()) {
                        format!("(SELECT max({column}) + 1 FROM {name})")
                    } else {
                        // Another one of the same form.
                        let other = format!("replace(replace({column}, '0', 'x'), '1', '0')");
                        let more = if name == "user_words" { "x" } else { "" };
                        format!("replace({other}, 'x', '1') || '{more}'")
                    }
                });
            let columns: Vec<_> = columns.collect();
            format!(
                "INSERT INTO {name} SELECT {} FROM {name} WHERE {condition}",
                columns.join(", ")
            )
        }
        Deed::Swap(other) => {
            let other = target(stranger, table, column, other).await?;
            if other.value == one.value || table.keys.contains(&column) {
                return None;
            }
            let kind = if table.blobs.contains(&column) {
                "BLOB"
            } else {
                "TEXT"
            };
            let value = |target: &Target| {
                if table.numbers.contains(&column) {
                    target.number.to_string()
                } else {
                    format!("CAST(x'{}' AS {kind})", hex(&target.value))
                }
            };
            format!(
                "UPDATE {name} SET {column} = {} WHERE {condition}; UPDATE {name} SET {column} = {} WHERE {}",
                value(&other),
                value(&one),
                other.condition
            )
        }
    };
    Some((one, statement))
}

async fn signed_files() -> Folder {
    let folder = Folder::new();
    let mut lines = String::new();
    for n in 0..USERS {
        writeln!(
            lines,
            r#"{{"username":"user{n}","name":"Näme{n}","surname":"S"}}"#
        )
        .unwrap();
    }
    let file = folder.file("users.ndjson", lines.as_bytes());
    let imported = command(&folder.data_dir())
        .arg("import")
        .arg(file)
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}");
    let service = folder.start();
    for _ in 0..3 {
        work(&service, 2).await;
    }
    rename(&service, "john.again").await;
    work(&service, 1).await;
    service.stop();
    // One user waits.
    let position = register_again_in(&folder).await;
    let service = folder.start();
    parked_users(&service, 1).await;
    checkpoint(&service, &position.to_string()).await;
    service.stop();
    // All of each file into the file itself.
    for file in ["ledger.db", "read-model.db", "log.db"] {
        let url = format!("sqlite://{}", folder.data_dir().join(file).display());
        let mut last = SqliteConnection::connect(&url).await.unwrap();
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        sqlx::raw_sql(checkpoint).execute(&mut last).await.unwrap();
        last.close().await.unwrap();
    }
    folder
}

fn copy(data_dir: &Path) -> Folder {
    let copy = Folder::new();
    std::fs::create_dir(copy.data_dir()).unwrap();
    for entry in std::fs::read_dir(data_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.data_dir().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

#[test]
fn whatever_byte_or_row_is_flipped_dropped_inserted_or_swapped_is_named() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = runtime.block_on(signed_files());
    let (code, report) = verify(&folder.data_dir(), &[], &[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["documents"], USERS + 1);
    let victim = Victim {
        good: folder.data_dir(),
        copy: copy(&folder.data_dir()),
    };
    let index = any::<prop::sample::Index>;
    let cases = (index(), index(), index(), index(), deeds());
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    });
    let checked = runner.run(&cases, |(table, column, row, byte, deed)| {
        let table = &TABLES[table.index(TABLES.len())];
        let columns = [table.numbers, table.texts, table.blobs].concat();
        let column = columns[column.index(columns.len())];
        let tampered = runtime.block_on(async {
            let mut stranger = victim.open(table.file).await;
            let (target, statement) =
                statements(&mut stranger, table, column, row, byte, deed).await?;
            let done = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
            // Such as a name that another row has: no such file can be.
            let done = done.execute(&mut stranger).await.is_ok();
            stranger.close().await.unwrap();
            done.then_some((target, statement))
        });
        let Some((target, statement)) = tampered else {
            victim.restore(table.file);
            return Err(TestCaseError::reject("nothing is changed"));
        };
        let (code, report) = verify(&victim.copy.data_dir(), &[], &[]);
        victim.restore(table.file);
        prop_assert_eq!(code, 1, "{}: {}", statement, report);
        let fault = &report["fault"];
        let (first, last) = (
            fault["firstPosition"].as_i64(),
            fault["lastPosition"].as_i64(),
        );
        prop_assert!(first <= last && !fault["message"].as_str().unwrap().is_empty());
        let is_exact = table.name == "events" && column != "position";
        if let (Deed::Flip(_), true, Some(position)) = (deed, is_exact, target.position) {
            prop_assert_eq!(
                (first, last),
                (Some(position), Some(position)),
                "{}: {}",
                statement,
                report
            );
        }
        Ok(())
    });
    checked.unwrap();
}

/// A file, and what somebody adds to it where nobody looks who begins with the first.
const STRAYS: [(&str, &str); 13] = [
    (
        "ledger.db",
        "INSERT INTO events SELECT 0, event_id || 'x', user_id, 0, event_type, schema_version, recorded_at, envelope, \
         leaf_hash FROM events WHERE position = 1",
    ),
    // The next one of its user: whoever asks for that user's history meets it.
    (
        "ledger.db",
        "INSERT INTO events SELECT -3, event_id || 'x', user_id, max(version) + 1, event_type, schema_version, \
         recorded_at, envelope, leaf_hash FROM events",
    ),
    (
        "ledger.db",
        "INSERT INTO username_claims SELECT '', user_id, NULL FROM events LIMIT 1",
    ),
    (
        "ledger.db",
        "INSERT INTO ledger_head SELECT 2, store_id, epoch, position, recorded_at, appends FROM ledger_head",
    ),
    // It would be found by whoever searches.
    (
        "read-model.db",
        "INSERT INTO users SELECT '', version, position, username, document FROM users; \
         INSERT INTO user_words SELECT word, '' FROM user_words",
    ),
    (
        "read-model.db",
        "INSERT INTO user_words SELECT word, '' FROM user_words",
    ),
    (
        "read-model.db",
        "INSERT INTO parked_users VALUES ('', 1, '', 1)",
    ),
    (
        "log.db",
        "INSERT INTO checkpoints SELECT 0, 1000, note FROM checkpoints LIMIT 1",
    ),
    ("log.db", "INSERT INTO hashes VALUES (0, 0, zeroblob(32))"),
    ("log.db", "INSERT INTO hashes VALUES (1, -1, zeroblob(32))"),
    ("log.db", "INSERT INTO hashes VALUES (9, 0, zeroblob(32))"),
    ("log.db", "INSERT INTO head VALUES (2, 0)"),
    (
        "log.db",
        "INSERT INTO log_key SELECT 2, public_key FROM log_key",
    ),
];

#[tokio::test]
async fn what_is_inserted_before_the_first_is_named_too() {
    let folder = Folder::new();
    let service = folder.start();
    work(&service, 2).await;
    service.stop();
    assert_eq!(verify(&folder.data_dir(), &[], &[]).0, 0);
    for (file, statement) in STRAYS {
        let victim = Victim {
            good: folder.data_dir(),
            copy: copy(&folder.data_dir()),
        };
        let mut stranger = victim.open(file).await;
        let done = sqlx::raw_sql(statement).execute(&mut stranger).await;
        assert!(done.unwrap().rows_affected() > 0, "{statement}");
        stranger.close().await.unwrap();
        let (code, report) = verify(&victim.copy.data_dir(), &[], &[]);
        assert_eq!(code, 1, "{statement}: {report}");
        let said = report["fault"]["message"].as_str().unwrap();
        let is_named = said.contains("before the first position") || said.contains("without an id");
        assert!(is_named, "{statement}: {said}");
    }
}
