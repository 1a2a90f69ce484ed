//! The read model in a PostgreSQL database, which many processes may read.
//!
//! A step is one statement. It moves the checkpoint by compare-and-swap, if the owner is still the
//! owner; only then are the documents written. Reads have their own connections and never delay a
//! step.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use events::{Document, Position, Time, UserId};
use ledger::fail_point::{self, FailPoint};
use ledger::migrations::migrator;
use ledger::postgres::{Database, Followed, Statement, is_migrated, signed, storable};
use sqlx::Row as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgRow;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{
    ApplyError, Batch, Documents, Error, Parked, ReadModel, Search, Stored, StoredDocument,
    StoredParked, text_of,
};
use crate::search::{expertise_word, words_of};

mod beside;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_read_model.sql",
        include_str!("../../../migrations/postgres/read-model/0001_read_model.sql"),
    )])
});
const SCHEMA: &str = "read_model";

/// Connections for steps.
const WRITERS: u32 = 2;
/// Connections for reads.
const READERS: u32 = 6;
/// Sorts after every folded word, because no letter or digit is greater.
const LAST: char = '\u{10ffff}';

/// Returns no rows when another projector owns the read model or has moved the checkpoint.
///
/// Most events change no search word. For the users whose words may have changed ($16), words that
/// already exist are left as they are.
///
/// The commit waits for the disk. If a crash removed committed documents, readers would see an
/// older position than they were told.
const APPLY: &str = "\
WITH moved AS (
    UPDATE read_model.projections SET position = $1 WHERE name = 'users' AND position = $2 AND owner = $3
    RETURNING position
), written AS (
    INSERT INTO read_model.users (user_id, version, position, username, document)
    SELECT d.user_id, d.version, d.position, d.username, d.document
    FROM moved CROSS JOIN unnest($4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
        AS d(user_id, version, position, username, document)
    ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, position = excluded.position,
        username = excluded.username, document = excluded.document
), wanted AS (
    SELECT w.word, w.user_id FROM moved CROSS JOIN unnest($9::text[], $10::text[]) AS w(word, user_id)
), missing AS (
    INSERT INTO read_model.user_words (word, user_id) SELECT word, user_id FROM wanted ON CONFLICT DO NOTHING
), superfluous AS (
    DELETE FROM read_model.user_words AS w USING moved
    WHERE w.user_id = ANY($16)
        AND NOT EXISTS (SELECT FROM wanted WHERE wanted.user_id = w.user_id AND wanted.word = w.word)
), parked AS (
    INSERT INTO read_model.parked_users (user_id, from_position, error, recorded_at)
    SELECT p.user_id, p.from_position, p.error, p.recorded_at
    FROM moved CROSS JOIN unnest($11::text[], $12::bigint[], $13::text[], $14::bigint[])
        AS p(user_id, from_position, error, recorded_at)
    ON CONFLICT (user_id) DO UPDATE SET from_position = excluded.from_position, error = excluded.error,
        recorded_at = excluded.recorded_at
), unparked AS (
    DELETE FROM read_model.parked_users AS p USING moved WHERE p.user_id = ANY($15)
)
SELECT position FROM moved";

/// The first word is found through the index of words, in its order; the other words are checked
/// for each user found. Nothing is collected or sorted, so a page costs only the rows on it and
/// before it. A user found by two words is returned once, at the smaller word.
const SEARCH_WORDS: &str = "\
SELECT u.user_id, u.document
FROM read_model.user_words AS w JOIN read_model.users AS u ON u.user_id = w.user_id
WHERE w.word >= $1 AND w.word < $2
    AND NOT EXISTS (
        SELECT FROM read_model.user_words AS s
        WHERE s.user_id = w.user_id AND s.word >= $1 AND s.word < w.word)
    AND NOT EXISTS (
        SELECT FROM unnest($3::text[], $4::text[]) AS r(first, last)
        WHERE NOT EXISTS (
            SELECT FROM read_model.user_words AS o
            WHERE o.user_id = w.user_id AND o.word >= r.first AND o.word < r.last))
    AND ($5::text IS NULL OR EXISTS (
        SELECT FROM read_model.user_words AS e WHERE e.user_id = w.user_id AND e.word = $5))
ORDER BY w.word, w.user_id LIMIT $6 OFFSET $7";

const SEARCH_EXPERTISE: &str = "\
SELECT u.user_id, u.document
FROM read_model.user_words AS w JOIN read_model.users AS u ON u.user_id = w.user_id
WHERE w.word = $1
ORDER BY w.word, w.user_id LIMIT $2 OFFSET $3";

const EVERYBODY: &str =
    "SELECT u.user_id, u.document FROM read_model.users AS u ORDER BY u.user_id LIMIT $1 OFFSET $2";

/// The read model in a PostgreSQL database.
pub struct PostgresReadModel {
    url: String,
    writers: Database,
    readers: Arc<Database>,
    applied: Arc<Followed>,
    /// Notices what a projector in another process applies.
    _follower: JoinSet<()>,
}

/// Creates the read model's tables in a database, or migrates them. Needs the right to do so; the
/// program needs it for nothing else.
pub async fn migrate(url: &str) -> Result<(), Error> {
    ledger::postgres::migrate(url, SCHEMA, &MIGRATIONS)
        .await
        .map_err(|error| Error::Unavailable(Arc::new(error)))
}

impl PostgresReadModel {
    /// Opens the read model in a database, after migrating it if needed.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let readers = Arc::new(Database::new(url, READERS)?);
        if !is_migrated(&readers, SCHEMA, &MIGRATIONS).await? {
            migrate(url).await?;
        }
        Self::open_with(url, readers, Database::new(url, WRITERS)?).await
    }

    /// Opens the read model in a database for reading only. The database itself refuses changes.
    pub async fn open_to_read(url: &str) -> Result<Self, Error> {
        let readers = Arc::new(Database::read_only(url, READERS)?);
        Self::open_with(url, readers, Database::read_only(url, WRITERS)?).await
    }

    async fn open_with(
        url: &str,
        readers: Arc<Database>,
        writers: Database,
    ) -> Result<Self, Error> {
        let (applied, follower) = Followed::new(
            Arc::clone(&readers),
            "SELECT position FROM read_model.projections WHERE name = 'users'",
        );
        let read_model = Self {
            url: url.to_owned(),
            writers,
            readers,
            applied,
            _follower: follower,
        };
        read_model.checkpoint().await?;
        Ok(read_model)
    }
}

fn unsigned(row: &PgRow, column: &str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("column {column} holds {number}")))
}

/// The position in the row of the projection.
fn position(rows: &[PgRow]) -> Result<Position, Error> {
    let row = rows
        .first()
        .ok_or_else(|| Error::Damaged("the read model has no checkpoint".to_owned()))?;
    unsigned(row, "position")
}

fn document(row: &PgRow) -> Result<Document, Error> {
    let text: &str = row.try_get("document")?;
    serde_json::from_str(text).map_err(|error| {
        let user_id: String = row.try_get("user_id").unwrap_or_default();
        Error::Damaged(format!(
            "the document of user {user_id} cannot be read: {error}"
        ))
    })
}

fn parked(row: &PgRow) -> Result<Parked, Error> {
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

/// Finds users with words one by one; otherwise PostgreSQL would read all words to distinguish
/// their users.
const STORED: &str = "\
WITH RECURSIVE worded AS (
    (SELECT user_id FROM read_model.user_words WHERE user_id >= $1 ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT w.user_id FROM read_model.user_words AS w WHERE w.user_id > worded.user_id ORDER BY w.user_id LIMIT 1)
    FROM worded WHERE worded.user_id IS NOT NULL
), page AS (
    (SELECT user_id FROM read_model.users WHERE user_id >= $1 ORDER BY user_id LIMIT $2)
    UNION (SELECT user_id FROM (SELECT user_id FROM worded LIMIT $2) AS w WHERE user_id IS NOT NULL)
    UNION (SELECT user_id FROM read_model.parked_users WHERE user_id >= $1 ORDER BY user_id LIMIT $2)
    ORDER BY user_id LIMIT $2
)
SELECT page.user_id, u.version, u.position, u.username, u.document, p.from_position, p.error, p.recorded_at AS parked_at, coalesce((
    SELECT string_agg(w.word, E'\\n' ORDER BY w.word) FROM read_model.user_words AS w WHERE w.user_id = page.user_id
), '') AS words
FROM page
LEFT JOIN read_model.users AS u ON u.user_id = page.user_id
LEFT JOIN read_model.parked_users AS p ON p.user_id = page.user_id
ORDER BY page.user_id";

fn stored(row: &PgRow) -> Result<Stored, Error> {
    let document = match row.try_get("document")? {
        Some(text) => Some(StoredDocument {
            version: row.try_get("version")?,
            position: row.try_get("position")?,
            username: row.try_get("username")?,
            text,
        }),
        None => None,
    };
    let parked = match row.try_get("from_position")? {
        Some(from) => Some(StoredParked {
            from,
            error: row.try_get("error")?,
            recorded_at: row.try_get("parked_at")?,
        }),
        None => None,
    };
    Ok(Stored {
        user_id: row.try_get("user_id")?,
        document,
        words: row.try_get("words")?,
        parked,
    })
}

/// The end of the range of words that begin with a word.
fn end_of(word: &str) -> String {
    format!("{word}{LAST}")
}

#[async_trait]
impl Documents for PostgresReadModel {
    fn watch_applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    async fn document(&self, user: &UserId) -> Result<Option<Document>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query("SELECT user_id, document FROM read_model.users WHERE user_id = $1")
                    .bind(user.to_string())
            })
            .await?;
        rows.first().map(document).transpose()
    }

    async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, Error> {
        let users = texts(users);
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT user_id, document FROM read_model.users WHERE user_id = ANY($1)",
                )
                .bind(&users)
            })
            .await?;
        rows.iter().map(document).collect()
    }

    async fn documents_by_username(&self, usernames: &[String]) -> Result<Vec<Document>, Error> {
        // PostgreSQL refuses the character U+0000 even in a search.
        let usernames: Vec<_> = usernames
            .iter()
            .filter(|username| !username.contains('\0'))
            .collect();
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT user_id, document FROM read_model.users WHERE username = ANY($1)",
                )
                .bind(&usernames)
            })
            .await?;
        rows.iter().map(document).collect()
    }

    async fn search(&self, search: &Search) -> Result<Vec<Document>, Error> {
        let mut words = search.words.clone();
        let expertise = search.expertise.as_deref().map(expertise_word);
        // PostgreSQL refuses the character U+0000 even in a search.
        if words
            .iter()
            .chain(&expertise)
            .any(|word| word.contains('\0'))
        {
            return Ok(Vec::new());
        }
        words.sort_unstable_by_key(|word| std::cmp::Reverse(word.len()));
        let (limit, offset) = (i64::from(search.limit), i64::from(search.offset));
        let rows = if let Some((first, rest)) = words.split_first() {
            let ends: Vec<_> = rest.iter().map(|word| end_of(word)).collect();
            self.readers
                .read(|| {
                    sqlx::query(SEARCH_WORDS)
                        .bind(first)
                        .bind(end_of(first))
                        .bind(rest)
                        .bind(&ends)
                        .bind(&expertise)
                        .bind(limit)
                        .bind(offset)
                })
                .await?
        } else if let Some(expertise) = &expertise {
            self.readers
                .read(|| {
                    sqlx::query(SEARCH_EXPERTISE)
                        .bind(expertise)
                        .bind(limit)
                        .bind(offset)
                })
                .await?
        } else {
            self.readers
                .read(|| sqlx::query(EVERYBODY).bind(limit).bind(offset))
                .await?
        };
        rows.iter().map(document).collect()
    }

    async fn parked(&self) -> Result<Vec<Parked>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT user_id, from_position, error, recorded_at FROM read_model.parked_users ORDER BY from_position LIMIT 10000",
                )
            })
            .await?;
        rows.iter().map(parked).collect()
    }
}

#[async_trait]
impl ReadModel for PostgresReadModel {
    async fn checkpoint(&self) -> Result<Position, Error> {
        let known = self.applied.known();
        let rows = self
            .readers
            .read(|| {
                sqlx::query("SELECT position FROM read_model.projections WHERE name = 'users'")
            })
            .await?;
        let position = position(&rows)?;
        self.applied.saw(known, position);
        Ok(position)
    }

    async fn take_over(&self, owner: &str) -> Result<Position, Error> {
        let known = self.applied.known();
        let statement = sqlx::query(
            "UPDATE read_model.projections SET owner = $1 WHERE name = 'users' RETURNING position",
        );
        let rows = self.writers.write(statement.bind(storable(owner))).await?;
        let position = position(&rows)?;
        self.applied.saw(known, position);
        Ok(position)
    }

    async fn is_owned(&self) -> Result<bool, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query("SELECT owner <> '' FROM read_model.projections WHERE name = 'users'")
            })
            .await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn stored(&self, from: &str, limit: usize) -> Result<Vec<Stored>, Error> {
        let rows = self
            .readers
            .read(|| sqlx::query(STORED).bind(from).bind(signed(limit as u64)))
            .await?;
        rows.iter().map(stored).collect()
    }

    async fn apply(&self, owner: &str, batch: &Batch) -> Result<(), ApplyError> {
        fail_point::pass(FailPoint::BeforeCheckpoint);
        let rows = self
            .writers
            .write(apply(sqlx::query(APPLY), owner, batch))
            .await
            .map_err(Error::from)?;
        if rows.is_empty() {
            return Err(ApplyError::NotOwner);
        }
        self.applied.moved(batch.to);
        Ok(())
    }
}

fn texts(users: &[UserId]) -> Vec<String> {
    users.iter().map(ToString::to_string).collect()
}

fn apply<'q>(statement: Statement<'q>, owner: &str, batch: &Batch) -> Statement<'q> {
    let documents = &batch.documents;
    let parked = &batch.parked;
    let (words, users_of_words): (Vec<_>, Vec<_>) = batch
        .reworded()
        .flat_map(|document| {
            let user_id = document.user_id.to_string();
            words_of(document)
                .into_iter()
                .map(move |word| (storable(&word), user_id.clone()))
        })
        .unzip();
    statement
        .bind(signed(batch.to))
        .bind(signed(batch.from))
        .bind(storable(owner))
        .bind(of(documents, |document| document.user_id.to_string()))
        .bind(of(documents, |document| signed(document.version)))
        .bind(of(documents, |document| signed(document.position)))
        .bind(of(documents, |document| storable(&document.username)))
        .bind(of(documents, text_of))
        .bind(words)
        .bind(users_of_words)
        .bind(of(parked, |parked| parked.user_id.to_string()))
        .bind(of(parked, |parked| signed(parked.from)))
        .bind(of(parked, |parked| storable(&parked.error)))
        .bind(of(parked, |parked| parked.recorded_at.millis()))
        .bind(texts(&batch.unparked))
        .bind(
            batch
                .reworded()
                .map(|document| document.user_id.to_string())
                .collect::<Vec<_>>(),
        )
}

fn of<T, V>(list: &[T], value_of: impl Fn(&T) -> V) -> Vec<V> {
    list.iter().map(value_of).collect()
}

#[cfg(test)]
mod tests;
