//! The read model in one SQLite file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use events::{Document, Position, Time, UserId};
use ledger::fail_point::{self, FailPoint};
use ledger::migrations::migrator;
use ledger::sqlite::{Checkpointer, Transaction, options, pool, writer};
use sqlx::error::ErrorKind;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite, SqliteConnection};
use tokio::sync::watch;

use super::{
    ApplyError, Batch, Documents, Error, Parked, ReadModel, Search, Stored, StoredDocument,
    StoredParked, signed, text_of,
};
use crate::search::{expertise_word, words_of};

mod beside;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_read_model.sql",
        include_str!("../../../migrations/sqlite/read-model/0001_read_model.sql"),
    )])
});

const READERS: u32 = 4;
const SEARCHERS: u32 = 1;
const ROWS: usize = 64;
/// Sorts after every folded word, because no letter or digit is greater.
const LAST: char = '\u{10ffff}';

/// The read model in one SQLite file.
#[derive(Debug)]
pub struct SqliteReadModel {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
    /// Searches read far more than other queries, so they have their own connections and wait only
    /// for each other.
    searchers: SqlitePool,
    applied: watch::Sender<Position>,
    /// `None` when the read model is read-only.
    checkpointer: Option<Checkpointer>,
}

impl SqliteReadModel {
    /// Opens the read model in a file, and creates the file and its folder if they are missing.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unavailable)?;
        }
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A power failure may remove the last steps, each completely; the projection folds them
            // again.
            .synchronous(SqliteSynchronous::Normal);
        let writer = writer(options.clone()).await?;
        MIGRATIONS.run(&writer).await.map_err(unavailable)?;
        let checkpointer = Checkpointer::start(&options).await?;
        let options = options.create_if_missing(false).read_only(true);
        let readers = pool(READERS).connect_with(options.clone()).await?;
        let searchers = pool(SEARCHERS).connect_with(options).await?;
        let read_model = Self {
            path: path.to_owned(),
            writer,
            readers,
            searchers,
            applied: watch::Sender::new(0),
            checkpointer: Some(checkpointer),
        };
        read_model.checkpoint().await?;
        Ok(read_model)
    }

    /// Opens the read model in a file for reading only, beside the process that has it open, or
    /// without one. SQLite itself refuses changes.
    pub async fn open_to_read(path: &Path) -> Result<Self, Error> {
        let options = options(path).read_only(true);
        let readers = pool(READERS).connect_with(options).await?;
        let read_model = Self {
            path: path.to_owned(),
            writer: readers.clone(),
            searchers: readers.clone(),
            readers,
            applied: watch::Sender::new(0),
            checkpointer: None,
        };
        read_model.checkpoint().await?;
        Ok(read_model)
    }

    fn applied(&self, position: Position) {
        self.applied
            .send_if_modified(|applied| std::mem::replace(applied, position) != position);
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Arc::new(error))
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("column {column} holds {number}")))
}

fn document(row: &SqliteRow) -> Result<Document, Error> {
    let text: &str = row.try_get("document")?;
    serde_json::from_str(text).map_err(|error| {
        let user_id: String = row.try_get("user_id").unwrap_or_default();
        Error::Damaged(format!(
            "the document of user {user_id} cannot be read: {error}"
        ))
    })
}

fn parked(row: &SqliteRow) -> Result<Parked, Error> {
    Ok(Parked {
        user_id: row
            .try_get::<&str, _>("user_id")?
            .parse()
            .map_err(|_| Error::Damaged("a parked user has a bad id".to_owned()))?,
        from: unsigned(row, "from_position")?,
        error: row.try_get("error")?,
        recorded_at: Time::from_millis(row.try_get("recorded_at")?),
    })
}

const STORED: &str = "\
WITH page AS (
    SELECT user_id FROM (SELECT user_id FROM users WHERE user_id >= ?1 ORDER BY user_id LIMIT +?2)
    UNION SELECT user_id FROM (SELECT DISTINCT user_id FROM user_words WHERE user_id >= ?1 ORDER BY user_id LIMIT +?2)
    UNION SELECT user_id FROM (SELECT user_id FROM parked_users WHERE user_id >= ?1 ORDER BY user_id LIMIT +?2)
    ORDER BY user_id LIMIT +?2
)
SELECT page.user_id, u.version, u.position, u.username, u.document, p.from_position, p.error, p.recorded_at AS parked_at, coalesce((
    SELECT group_concat(w.word, char(10) ORDER BY w.word) FROM user_words AS w WHERE w.user_id = page.user_id
), '') AS words
FROM page LEFT JOIN users AS u ON u.user_id = page.user_id LEFT JOIN parked_users AS p ON p.user_id = page.user_id
ORDER BY page.user_id";

fn stored(row: &SqliteRow) -> Result<Stored, Error> {
    // SQLite also stores bytes that are not UTF-8 as text. Such a row is reported as different.
    let text = |column| {
        let bytes: Option<Vec<u8>> = row.try_get(column)?;
        Ok::<_, Error>(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let document = match text("document")? {
        Some(document) => Some(StoredDocument {
            version: row.try_get("version")?,
            position: row.try_get("position")?,
            username: text("username")?.unwrap_or_default(),
            text: document,
        }),
        None => None,
    };
    let parked = match row.try_get("from_position")? {
        Some(from) => Some(StoredParked {
            from,
            error: text("error")?.unwrap_or_default(),
            recorded_at: row.try_get("parked_at")?,
        }),
        None => None,
    };
    Ok(Stored {
        user_id: text("user_id")?.unwrap_or_default(),
        document,
        words: text("words")?.unwrap_or_default(),
        parked,
    })
}

#[async_trait]
impl Documents for SqliteReadModel {
    fn watch_applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    async fn document(&self, user: &UserId) -> Result<Option<Document>, Error> {
        let row = sqlx::query("SELECT user_id, document FROM users WHERE user_id = ?")
            .bind(user.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(document).transpose()
    }

    async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, Error> {
        let users = serde_json::to_string(users).expect("strings are JSON");
        let rows = sqlx::query(
            "SELECT user_id, document FROM users WHERE user_id IN (SELECT value FROM json_each(?))",
        )
        .bind(users)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(document).collect()
    }

    async fn documents_by_username(&self, usernames: &[String]) -> Result<Vec<Document>, Error> {
        let usernames = serde_json::to_string(usernames).expect("strings are JSON");
        let rows = sqlx::query(
            "SELECT user_id, document FROM users WHERE username IN (SELECT value FROM json_each(?))",
        )
        .bind(usernames)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(document).collect()
    }

    async fn search(&self, search: &Search) -> Result<Vec<Document>, Error> {
        // The longest word is found through the index of words, in its order; the other words are
        // checked for each user found. Nothing is collected or sorted, so a page costs only the
        // rows on it and before it.
        let mut query = QueryBuilder::<Sqlite>::new("SELECT u.user_id, u.document FROM ");
        let mut words = search.words.clone();
        words.sort_unstable_by_key(|word| std::cmp::Reverse(word.len()));
        let expertise = search.expertise.as_deref().map(expertise_word);
        let mut exact = expertise.iter();
        let mut rest = words.iter();
        let mut order = "w.word, w.user_id";
        if let Some(first) = rest.next() {
            query.push(
                "user_words AS w CROSS JOIN users AS u ON u.user_id = w.user_id WHERE w.word >= ",
            );
            query
                .push_bind(first)
                .push(" AND w.word < ")
                .push_bind(format!("{first}{LAST}"));
            // A user found by two words is returned once, at the smaller word.
            query.push(" AND NOT EXISTS (SELECT 1 FROM user_words AS s WHERE s.user_id = w.user_id AND s.word >= ");
            query.push_bind(first).push(" AND s.word < w.word)");
        } else if let Some(word) = exact.next() {
            query.push("user_words AS w CROSS JOIN users AS u ON u.user_id = w.user_id WHERE w.word = ").push_bind(word);
        } else {
            query.push("users AS u WHERE 1");
            order = "u.user_id";
        }
        for word in rest {
            query.push(" AND EXISTS (SELECT 1 FROM user_words AS o WHERE o.user_id = u.user_id AND o.word >= ");
            query
                .push_bind(word)
                .push(" AND o.word < ")
                .push_bind(format!("{word}{LAST}"))
                .push(")");
        }
        for word in exact {
            query.push(" AND EXISTS (SELECT 1 FROM user_words AS e WHERE e.user_id = u.user_id AND e.word = ");
            query.push_bind(word).push(")");
        }
        query
            .push(" ORDER BY ")
            .push(order)
            .push(" LIMIT +")
            .push_bind(i64::from(search.limit));
        query.push(" OFFSET ").push_bind(i64::from(search.offset));
        let rows = query.build().fetch_all(&self.searchers).await?;
        rows.iter().map(document).collect()
    }

    async fn parked(&self) -> Result<Vec<Parked>, Error> {
        let rows = sqlx::query(
            "SELECT user_id, from_position, error, recorded_at FROM parked_users ORDER BY from_position LIMIT 10000",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(parked).collect()
    }
}

#[async_trait]
impl ReadModel for SqliteReadModel {
    async fn checkpoint(&self) -> Result<Position, Error> {
        let row = sqlx::query("SELECT position FROM projections WHERE name = 'users'")
            .fetch_one(&self.readers)
            .await?;
        let position = unsigned(&row, "position")?;
        self.applied(position);
        Ok(position)
    }

    async fn is_owned(&self) -> Result<bool, Error> {
        let row = sqlx::query("SELECT owner <> '' FROM projections WHERE name = 'users'")
            .fetch_one(&self.readers)
            .await?;
        Ok(row.try_get(0)?)
    }

    async fn stored(&self, from: &str, limit: usize) -> Result<Vec<Stored>, Error> {
        let rows = sqlx::query(STORED)
            .bind(from)
            .bind(signed(limit as u64))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(stored).collect()
    }

    async fn take_over(&self, owner: &str) -> Result<Position, Error> {
        sqlx::query("UPDATE projections SET owner = ? WHERE name = 'users'")
            .bind(owner)
            .execute(&self.writer)
            .await?;
        self.checkpoint().await
    }

    async fn apply(&self, owner: &str, batch: &Batch) -> Result<(), ApplyError> {
        let mut transaction = Transaction::of(&self.writer).await.map_err(Error::from)?;
        let applied = apply(&mut transaction, owner, batch).await;
        if let Err(error) = applied {
            transaction.roll_back().await;
            return Err(error);
        }
        transaction.committed();
        self.applied(batch.to);
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.committed().await;
        }
        Ok(())
    }
}

/// Writes a batch and commits. Most batches are one script.
async fn apply(
    transaction: &mut Transaction,
    owner: &str,
    batch: &Batch,
) -> Result<(), ApplyError> {
    // Another owner or another checkpoint makes the value NULL, which the column refuses.
    let mut script =
        QueryBuilder::new("BEGIN IMMEDIATE; UPDATE projections SET position = iif(position = ");
    script
        .push_bind(signed(batch.from))
        .push(" AND owner = ")
        .push_bind(owner.to_owned())
        .push(", ")
        .push_bind(signed(batch.to))
        .push(", NULL) WHERE name = 'users'; ");
    let is_all = batch.documents.len() <= ROWS
        && batch.reworded().next().is_none()
        && batch.parked.is_empty()
        && batch.unparked.is_empty();
    if is_all {
        push_documents(&mut script, "", &batch.documents, Usernames::AsTheyWere);
        script.push("COMMIT");
        fail_point::pass(FailPoint::BeforeCheckpoint);
    }
    transaction.run(&mut script).await.map_err(refused)?;
    if !is_all {
        write(transaction.connection(), "", batch).await?;
        fail_point::pass(FailPoint::BeforeCheckpoint);
        let mut script = QueryBuilder::new("COMMIT");
        transaction.run(&mut script).await.map_err(Error::from)?;
    }
    Ok(())
}

/// The reason why the checkpoint was not moved.
fn refused(error: sqlx::Error) -> ApplyError {
    let is_replaced = error
        .as_database_error()
        .is_some_and(|error| error.kind() == ErrorKind::NotNullViolation);
    if is_replaced {
        ApplyError::NotOwner
    } else {
        ApplyError::ReadModel(error.into())
    }
}

/// Whether documents may have new usernames. SQLite updates an index for each column that is set,
/// even when the value is equal.
#[derive(Clone, Copy)]
enum Usernames {
    AsTheyWere,
    Other,
}

fn push_documents<'d>(
    script: &mut QueryBuilder<Sqlite>,
    tables: &'static str,
    documents: impl IntoIterator<Item = &'d Document, IntoIter: ExactSizeIterator>,
    usernames: Usernames,
) {
    let documents = documents.into_iter();
    if documents.len() == 0 {
        return;
    }
    script
        .push(format_args!(
            "INSERT INTO {tables}users (user_id, version, position, username, document) "
        ))
        .push_values(documents, |mut row, document| {
            row.push_bind(document.user_id.to_string())
                .push_bind(signed(document.version))
                .push_bind(signed(document.position))
                .push_bind(document.username.clone())
                .push_bind(text_of(document));
        })
        .push(
            " ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, position = excluded.position, \
             document = excluded.document",
        )
        .push(match usernames {
            Usernames::AsTheyWere => "; ",
            Usernames::Other => ", username = excluded.username; ",
        });
}

/// Writes a batch into tables with the name prefix `tables`, which is empty for the live ones.
async fn write(
    connection: &mut SqliteConnection,
    tables: &'static str,
    batch: &Batch,
) -> Result<(), Error> {
    let reworded: Vec<_> = batch.reworded().collect();
    for documents in reworded.chunks(ROWS) {
        write_words(connection, tables, documents).await?;
    }
    for documents in batch.documents.chunks(ROWS) {
        let mut upsert = QueryBuilder::new("");
        push_documents(&mut upsert, tables, documents, Usernames::Other);
        upsert.build().execute(&mut *connection).await?;
    }
    for parked in &batch.parked {
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO {tables}parked_users (user_id, from_position, error, recorded_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (user_id) DO UPDATE SET from_position = ?2, error = ?3, recorded_at = ?4",
        )))
        .bind(parked.user_id.to_string())
        .bind(signed(parked.from))
        .bind(&parked.error)
        .bind(parked.recorded_at.millis())
        .execute(&mut *connection)
        .await?;
    }
    for user_id in &batch.unparked {
        sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM {tables}parked_users WHERE user_id = ?"
        )))
        .bind(user_id.to_string())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Updates the search words of some users. Most steps change none, so the existing words are read
/// first and only differences are written.
async fn write_words(
    connection: &mut SqliteConnection,
    tables: &'static str,
    documents: &[&Document],
) -> Result<(), Error> {
    let users: Vec<_> = documents.iter().map(|document| document.user_id).collect();
    let users = serde_json::to_string(&users).expect("strings are JSON");
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT user_id, word FROM {tables}user_words WHERE user_id IN (SELECT value FROM json_each(?))"
    )))
    .bind(users)
    .fetch_all(&mut *connection)
    .await?;
    let mut there = HashSet::new();
    for row in &rows {
        there.insert((
            row.try_get::<String, _>("user_id")?,
            row.try_get::<String, _>("word")?,
        ));
    }
    let mut missing = Vec::new();
    for document in documents {
        let user_id = document.user_id.to_string();
        for word in words_of(document) {
            let entry = (user_id.clone(), word);
            if !there.remove(&entry) {
                missing.push(entry);
            }
        }
    }
    for (user_id, word) in there {
        sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM {tables}user_words WHERE user_id = ? AND word = ?"
        )))
        .bind(user_id)
        .bind(word)
        .execute(&mut *connection)
        .await?;
    }
    for entries in missing.chunks(256) {
        let mut insert =
            QueryBuilder::<Sqlite>::new(format!("INSERT INTO {tables}user_words (user_id, word) "));
        insert.push_values(entries, |mut row, (user_id, word)| {
            row.push_bind(user_id.clone()).push_bind(word.clone());
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;
    use crate::rebuild;

    #[tokio::test]
    async fn the_sqlite_read_model_passes_the_conformance_suite() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::cell::Cell::new(0);
        conformance::run_all(async || {
            opened.set(opened.get() + 1);
            let path = folder.path().join(format!("{}.db", opened.get()));
            let read_model: Arc<dyn ReadModel> =
                Arc::new(SqliteReadModel::open(&path).await.unwrap());
            read_model
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_sqlite_read_model_is_rebuilt_while_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::cell::Cell::new(0);
        rebuild::conformance::run_all(async || {
            opened.set(opened.get() + 1);
            let path = folder.path().join(format!("{}.db", opened.get()));
            let service = Arc::new(SqliteReadModel::open(&path).await.unwrap());
            let operator = Arc::new(SqliteReadModel::open(&path).await.unwrap());
            rebuild::conformance::Opened { service, operator }
        })
        .await;
    }

    #[tokio::test]
    async fn the_checkpoint_is_present_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read-model.db");
        let read_model = SqliteReadModel::open(&path).await.unwrap();
        let batch = Batch {
            from: 0,
            to: 7,
            documents: vec![],
            parked: vec![],
            same_words: HashSet::new(),
            unparked: vec![],
        };
        read_model.apply("", &batch).await.unwrap();
        drop(read_model);
        let read_model = SqliteReadModel::open(&path).await.unwrap();
        assert_eq!(*read_model.watch_applied().borrow(), 7);
    }

    #[tokio::test]
    async fn an_unreadable_document_is_reported_with_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let read_model = SqliteReadModel::open(&folder.path().join("read-model.db"))
            .await
            .unwrap();
        let document = conformance::document(1, "john", "John", "Doe", 1);
        let batch = Batch {
            from: 0,
            to: 1,
            documents: vec![document.clone()],
            parked: vec![],
            same_words: HashSet::new(),
            unparked: vec![],
        };
        read_model.apply("", &batch).await.unwrap();
        sqlx::query("UPDATE users SET document = '{}'")
            .execute(&read_model.writer)
            .await
            .unwrap();
        let error = read_model.document(&document.user_id).await.unwrap_err();
        assert!(
            error.to_string().contains(&document.user_id.to_string()),
            "{error}"
        );
    }
}
