//! Tables beside the live ones in their own schema: `read_model_next` while they are built, and
//! `read_model_old` after they were live.
//!
//! The swap moves tables between schemas. Readers name tables by schema and table. PostgreSQL
//! resolves the names of a prepared statement again when the tables have changed, and a reader that
//! waited for the swap's locks finds the new tables. The checkpoint's row does not move.

use std::collections::HashSet;

use async_trait::async_trait;
use events::{Document, Position, UserId};
use ledger::postgres::signed;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{APPLY, PostgresReadModel, apply, document, of, parked, text_of, texts, unsigned};
use crate::read_model::{Batch, Parked};
use crate::rebuild::{Beside, Error, Replaceable, Row, Tables, Which};
use crate::search::words_of;

/// Only the rebuild ends its transactions. Data lost in a power failure is built again.
const BEGIN: &str = "BEGIN; SET LOCAL client_min_messages = error; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
SET LOCAL lock_timeout = 0; SET LOCAL synchronous_commit = off";
/// The swap is durable. Readers do not wait for its locks longer than this.
const BEGIN_SWAP: &str = "BEGIN; SET LOCAL client_min_messages = error; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
SET LOCAL lock_timeout = '400ms'";
const BEGIN_LOOK: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
SET LOCAL idle_in_transaction_session_timeout = 0";

/// Rows of one INSERT.
const ROWS: usize = 2_000;

/// Empty tables like the live ones, without indexes, with the same owner and rights.
const MAKE: &str = "\
DROP SCHEMA IF EXISTS read_model_next CASCADE;
DROP SCHEMA IF EXISTS read_model_dropped CASCADE;
CREATE SCHEMA read_model_next;
DO $$ DECLARE t text; owner_ name; a record; BEGIN
    FOREACH t IN ARRAY ARRAY['users', 'user_words', 'parked_users'] LOOP
        EXECUTE format('CREATE TABLE read_model_next.%I (LIKE read_model.%I INCLUDING ALL EXCLUDING INDEXES)', t, t);
        SELECT pg_get_userbyid(c.relowner) INTO owner_ FROM pg_class AS c WHERE c.oid = format('read_model.%I', t)::regclass;
        IF owner_ <> current_user THEN
            EXECUTE format('GRANT USAGE, CREATE ON SCHEMA read_model_next TO %I', owner_);
            EXECUTE format('ALTER TABLE read_model_next.%I OWNER TO %I', t, owner_);
        END IF;
        FOR a IN
            SELECT x.privilege_type, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS grantee,
                CASE WHEN x.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END AS option
            FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS x
            WHERE c.oid = format('read_model.%I', t)::regclass
        LOOP
            EXECUTE format('GRANT %s ON read_model_next.%I TO %s %s', a.privilege_type, t, a.grantee, a.option);
        END LOOP;
    END LOOP;
END $$";

/// The indexes of the live tables, for the new tables: either the primary keys that loading needs,
/// or all others.
const INDEX: &str = "\
DO $$ DECLARE i record; BEGIN
    FOR i IN
        SELECT t.relname AS name, n.relname AS index, c.contype, pg_get_constraintdef(c.oid) AS definition,
            replace(pg_get_indexdef(x.indexrelid), ' ON read_model.', ' ON read_model_next.') AS statement
        FROM pg_index AS x JOIN pg_class AS t ON t.oid = x.indrelid JOIN pg_class AS n ON n.oid = x.indexrelid
            LEFT JOIN pg_constraint AS c ON c.conindid = x.indexrelid
        WHERE t.relnamespace = 'read_model'::regnamespace AND t.relname IN ('users', 'user_words', 'parked_users')
            AND (x.indisprimary AND t.relname <> 'user_words') = {first}
    LOOP
        IF i.contype IS NULL THEN
            EXECUTE i.statement;
        ELSE
            EXECUTE format('ALTER TABLE read_model_next.%I ADD CONSTRAINT %I %s', i.name, i.index, i.definition);
        END IF;
    END LOOP;
END $$";

/// Moves the tables that an earlier swap kept out of the way. They are dropped after the swap,
/// because dropping takes long.
const SET_ASIDE: &str = "\
DO $$ BEGIN IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'read_model_old') THEN
    ALTER SCHEMA read_model_old RENAME TO read_model_dropped;
END IF; END $$";

/// Returns a row for each column in which the kept tables differ from the live ones.
const COLUMNS: &str = "\
SELECT relname FROM (
    SELECT c.relname, a.attname, a.atttypid, n.nspname FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('read_model', 'read_model_old') AND c.relname IN ('users', 'user_words', 'parked_users')
        AND a.attnum > 0 AND NOT a.attisdropped
) AS columns GROUP BY relname, attname, atttypid HAVING count(*) <> 2";

/// Tables beside the live ones.
struct PostgresBeside {
    /// Reads and writes the tables.
    connection: PgConnection,
    /// Reads the live tables, in one transaction.
    look: PgConnection,
    is_looking: bool,
    /// Holds the lock that excludes other rebuilds, in its own transaction.
    guard: PgConnection,
    schema: &'static str,
    /// The row of these tables in the table of checkpoints.
    row: &'static str,
    run: String,
    position: Position,
    /// The position before the swap in progress.
    locked_at: Option<Position>,
}

#[async_trait]
impl Replaceable for PostgresReadModel {
    async fn fresh(&self, run: &str) -> Result<Box<dyn Beside>, Error> {
        let mut beside = PostgresBeside::open(&self.url, "read_model_next", "next", run).await?;
        beside
            .transaction(&[MAKE, &INDEX.replace("{first}", "true")])
            .await?;
        Ok(Box::new(beside))
    }

    async fn kept(&self, run: &str) -> Result<Box<dyn Beside>, Error> {
        let mut beside = PostgresBeside::open(&self.url, "read_model_old", "old", run).await?;
        beside.begin().await?;
        let claimed = sqlx::query(
            "UPDATE read_model.projections SET owner = $1 WHERE name = 'old' RETURNING position",
        )
        .bind(run)
        .persistent(false)
        .fetch_optional(&mut beside.connection)
        .await?
        .ok_or(Error::NothingKept)?;
        beside.position = unsigned(&claimed, "position")?;
        let other = sqlx::query(COLUMNS)
            .persistent(false)
            .fetch_optional(&mut beside.connection)
            .await?;
        if other.is_some() {
            return Err(Error::KeptAreOutdated);
        }
        beside.commit().await?;
        Ok(Box::new(beside))
    }
}

impl PostgresBeside {
    async fn open(
        url: &str,
        schema: &'static str,
        row: &'static str,
        run: &str,
    ) -> Result<Self, Error> {
        let mut guard = ledger::postgres::connect(url).await?;
        sqlx::raw_sql(BEGIN).execute(&mut guard).await?;
        let locked = sqlx::query(
            "SELECT pg_try_advisory_xact_lock(hashtext('profile-ledger'), hashtext('rebuild'))",
        )
        .persistent(false)
        .fetch_one(&mut guard)
        .await?;
        if !locked.try_get::<bool, _>(0)? {
            return Err(Error::Busy);
        }
        Ok(Self {
            connection: ledger::postgres::connect(url).await?,
            look: ledger::postgres::connect(url).await?,
            is_looking: false,
            guard,
            schema,
            row,
            run: run.to_owned(),
            position: 0,
            locked_at: None,
        })
    }

    /// Runs statements without arguments in one transaction.
    async fn transaction(&mut self, statements: &[&str]) -> Result<(), Error> {
        let statements = statements.join(";\n");
        let all = format!("{BEGIN}; {statements}; COMMIT");
        let done = sqlx::raw_sql(AssertSqlSafe(all))
            .execute(&mut self.connection)
            .await;
        if let Err(error) = done {
            self.roll_back().await?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Begins a transaction, except that of the swap. Reads also use one: behind a pooler the parts
    /// of a statement may otherwise reach different connections.
    async fn begin(&mut self) -> Result<(), Error> {
        if self.locked_at.is_none() {
            sqlx::raw_sql(BEGIN).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        if self.locked_at.is_none() {
            sqlx::raw_sql("COMMIT")
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), Error> {
        if let Some(position) = self.locked_at.take() {
            self.position = position;
        }
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    async fn look_away(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.is_looking) {
            sqlx::raw_sql("ROLLBACK").execute(&mut self.look).await?;
        }
        Ok(())
    }

    /// A statement on the live tables, applied to these tables.
    fn here(&self, statement: &str) -> AssertSqlSafe<String> {
        let schema = self.schema;
        AssertSqlSafe(
            statement
                .replace("read_model.user", &format!("{schema}.user"))
                .replace("read_model.parked", &format!("{schema}.parked"))
                .replace("name = 'users'", &format!("name = '{}'", self.row)),
        )
    }

    /// Writes the words of all users; none exist yet.
    async fn write_words(&mut self) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let page = sqlx::query(self.here(
                "SELECT user_id, document FROM read_model.users WHERE user_id > $1 ORDER BY user_id LIMIT $2",
            ))
            .bind(&after)
            .bind(signed(ROWS as u64))
            .persistent(false)
            .fetch_all(&mut self.connection)
            .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.try_get("user_id")?;
            let mut lines = String::new();
            for row in &page {
                let user_id: &str = row.try_get("user_id")?;
                for word in words_of(&document(row)?) {
                    push_field(&mut lines, &ledger::postgres::storable(&word));
                    lines.push('\t');
                    lines.push_str(user_id);
                    lines.push('\n');
                }
            }
            let statement = format!("COPY {}.user_words (word, user_id) FROM STDIN", self.schema);
            let mut copy = self.connection.copy_in_raw(&statement).await?;
            copy.send(lines.as_bytes()).await?;
            copy.finish().await?;
        }
    }
}

/// Appends a text in the format of COPY.
fn push_field(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            c => line.push(c),
        }
    }
}

/// Whether another session held a lock for too long, or waited for one of ours.
fn is_contended(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| ["55P03", "40P01"].contains(&&*code))
}

fn row(row: &PgRow) -> Result<Row, Error> {
    Ok(Row {
        user_id: row.try_get("user_id")?,
        position: unsigned(row, "position")?,
        rest: [
            unsigned(row, "version")?.to_string(),
            row.try_get("username")?,
            row.try_get("document")?,
            row.try_get("words")?,
        ],
    })
}

#[async_trait]
impl Beside for PostgresBeside {
    fn position(&self) -> Position {
        self.position
    }

    async fn parked(&mut self) -> Result<Vec<Parked>, Error> {
        self.begin().await?;
        let rows = sqlx::query(self.here(
            "SELECT user_id, from_position, error, recorded_at FROM read_model.parked_users ORDER BY from_position",
        ))
        .persistent(false)
        .fetch_all(&mut self.connection)
        .await?;
        self.commit().await?;
        Ok(rows.iter().map(parked).collect::<Result<_, _>>()?)
    }

    async fn documents(&mut self, users: &[UserId]) -> Result<Vec<Document>, Error> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        self.begin().await?;
        let rows = sqlx::query(
            self.here("SELECT user_id, document FROM read_model.users WHERE user_id = ANY($1)"),
        )
        .bind(texts(users))
        .persistent(false)
        .fetch_all(&mut self.connection)
        .await?;
        self.commit().await?;
        Ok(rows.iter().map(document).collect::<Result<_, _>>()?)
    }

    async fn load(&mut self, documents: &[&Document]) -> Result<(), Error> {
        self.begin().await?;
        for documents in documents.chunks(ROWS) {
            sqlx::query(self.here(
                "INSERT INTO read_model.users (user_id, version, position, username, document) \
                 SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[]) \
                 ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, position = excluded.position, \
                 username = excluded.username, document = excluded.document",
            ))
            .bind(of(documents, |document| document.user_id.to_string()))
            .bind(of(documents, |document| signed(document.version)))
            .bind(of(documents, |document| signed(document.position)))
            .bind(of(documents, |document| {
                ledger::postgres::storable(&document.username)
            }))
            .bind(of(documents, |document| text_of(document)))
            .persistent(false)
            .execute(&mut self.connection)
            .await?;
        }
        self.commit().await
    }

    async fn loaded(&mut self, position: Position, parked: &[Parked]) -> Result<(), Error> {
        self.begin().await?;
        self.write_words().await?;
        let index = INDEX.replace("{first}", "false");
        let statements = format!(
            "SET LOCAL maintenance_work_mem = '256MB'; {index}; \
             ANALYZE read_model_next.users, read_model_next.user_words; \
             DELETE FROM read_model.projections WHERE name = 'next'"
        );
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut self.connection)
            .await?;
        sqlx::query(
            "INSERT INTO read_model.projections (name, position, owner) VALUES ('next', 0, $1)",
        )
        .bind(&self.run)
        .persistent(false)
        .execute(&mut self.connection)
        .await?;
        self.commit().await?;
        self.apply(&Batch {
            from: 0,
            to: position,
            documents: Vec::new(),
            parked: parked.to_vec(),
            same_words: HashSet::new(),
            unparked: Vec::new(),
        })
        .await
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), Error> {
        self.begin().await?;
        let statement = sqlx::query(self.here(APPLY)).persistent(false);
        let applied = apply(statement, &self.run, batch)
            .fetch_all(&mut self.connection)
            .await?;
        if applied.is_empty() {
            return Err(Error::TakenOver);
        }
        self.commit().await?;
        self.position = batch.to;
        Ok(())
    }

    async fn look(&mut self) -> Result<Position, Error> {
        self.look_away().await?;
        sqlx::raw_sql(BEGIN_LOOK).execute(&mut self.look).await?;
        self.is_looking = true;
        let row = sqlx::query("SELECT position FROM read_model.projections WHERE name = 'users'")
            .persistent(false)
            .fetch_one(&mut self.look)
            .await?;
        Ok(unsigned(&row, "position")?)
    }

    async fn rows(&mut self, of: Tables, which: Which<'_>) -> Result<Vec<Row>, Error> {
        let condition = match which {
            Which::Page(..) => "u.user_id > $1 ORDER BY u.user_id LIMIT $2",
            Which::Users(_) => "u.user_id = ANY($1) ORDER BY u.user_id",
        };
        let statement = format!(
            "SELECT u.user_id, u.version, u.position, u.username, u.document, coalesce((\
             SELECT string_agg(w.word, chr(10) ORDER BY w.word) FROM read_model.user_words AS w \
             WHERE w.user_id = u.user_id), '') AS words FROM read_model.users AS u WHERE {condition}"
        );
        self.begin().await?;
        let (statement, connection) = match of {
            Tables::Live => (AssertSqlSafe(statement), &mut self.look),
            Tables::Beside => (self.here(&statement), &mut self.connection),
        };
        let query = sqlx::query(statement).persistent(false);
        let query = match which {
            Which::Page(after, limit) => query.bind(after.to_owned()).bind(signed(limit as u64)),
            Which::Users(users) => query.bind(texts(users)),
        };
        let rows = query.fetch_all(connection).await?;
        self.commit().await?;
        rows.iter().map(row).collect()
    }

    async fn lock(&mut self) -> Result<(), Error> {
        sqlx::raw_sql(BEGIN_SWAP)
            .execute(&mut self.connection)
            .await?;
        self.locked_at = Some(self.position);
        // Steps wait for it before they hold any other lock; reads of the checkpoint do not wait.
        let locked = sqlx::raw_sql("LOCK TABLE read_model.projections IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut self.connection)
            .await;
        if let Err(error) = locked {
            self.roll_back().await?;
            return Err(if is_contended(&error) {
                Error::Contended
            } else {
                error.into()
            });
        }
        Ok(())
    }

    async fn swap(&mut self, are_equal: bool) -> Result<(), Error> {
        // It holds locks on the tables that the swap must lock.
        self.look_away().await?;
        let (schema, row, position) = (self.schema, self.row, self.position);
        let mut statements = vec![
            "LOCK TABLE read_model.users, read_model.user_words, read_model.parked_users"
                .to_owned(),
        ];
        if row == "next" {
            statements.push(SET_ASIDE.to_owned());
        }
        // A projector caches which users are parked, and a step may have started with the earlier
        // documents. When these change, the projector must start again.
        statements.push(format!(
            "UPDATE read_model.projections SET owner = '' WHERE name = 'users' AND (NOT {are_equal} OR EXISTS (\
                (SELECT user_id FROM read_model.parked_users EXCEPT SELECT user_id FROM {schema}.parked_users) \
                UNION ALL (SELECT user_id FROM {schema}.parked_users EXCEPT SELECT user_id FROM read_model.parked_users))); \
             DELETE FROM read_model.projections WHERE name IN ('old', 'next'); \
             INSERT INTO read_model.projections SELECT 'old', position, '' FROM read_model.projections WHERE name = 'users'; \
             UPDATE read_model.projections SET position = {position} WHERE name = 'users' AND position <> {position}; \
             CREATE SCHEMA read_model_out"
        ));
        statements.extend(["users", "user_words", "parked_users"].map(|table| {
            format!(
                "ALTER TABLE read_model.{table} SET SCHEMA read_model_out; \
                 ALTER TABLE {schema}.{table} SET SCHEMA read_model"
            )
        }));
        statements.push(format!(
            "DROP SCHEMA {schema}; ALTER SCHEMA read_model_out RENAME TO read_model_old; COMMIT"
        ));
        let swapped = sqlx::raw_sql(AssertSqlSafe(statements.join("; ")))
            .execute(&mut self.connection)
            .await;
        if let Err(error) = swapped {
            self.roll_back().await?;
            return Err(if is_contended(&error) {
                Error::Contended
            } else {
                error.into()
            });
        }
        self.locked_at = None;
        let dropped = self.transaction(&["DROP SCHEMA IF EXISTS read_model_dropped CASCADE"]);
        if let Err(error) = dropped.await {
            let error = events::chain(&error);
            tracing::warn!(
                error,
                "Tables of an earlier rebuild remain; the next rebuild drops them"
            );
        }
        Ok(())
    }

    async fn unlock(&mut self) -> Result<(), Error> {
        self.roll_back().await
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let forget = format!(
            "DELETE FROM read_model.projections WHERE name = '{}'",
            self.row
        );
        let schema = format!("DROP SCHEMA {} CASCADE", self.schema);
        self.transaction(&[&schema, &forget]).await
    }

    async fn end(mut self: Box<Self>) -> Result<(), Error> {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.guard).await?;
        Ok(())
    }
}
