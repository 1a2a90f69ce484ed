//! The audit trail in a PostgreSQL database, which many processes may share.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{AuditTrail, Error, Question, Read, RecordedRead, Start};
use crate::migrations::migrator;
use crate::postgres::{Database, is_migrated, signed};
use events::Time;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_audit.sql",
        include_str!("../../../migrations/postgres/audit/0001_audit.sql"),
    )])
});

/// The columns of a recorded read, after its number.
macro_rules! read_columns {
    () => {
        "read_at, actor, route, user_id, query, request_id"
    };
}

const SCHEMA: &str = "audit";

/// Connections that record and list.
const CONNECTIONS: u32 = 2;

/// A statement that waits for the head's row gets the next number, because the update evaluates the row again.
const RECORD: &str = concat!(
    "WITH moved AS (UPDATE audit.head SET number = number + 1 RETURNING number), recorded AS (
    INSERT INTO audit.reads (number, ",
    read_columns!(),
    ")
    SELECT number, $1, $2, $3, $4, $5, $6 FROM moved
)
SELECT number, CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END
FROM moved"
);

/// The audit trail in a PostgreSQL database.
pub struct PostgresTrail {
    database: Database,
}

/// Creates the trail's tables in a database, or migrates them. Needs the right to do so; the
/// program needs it for nothing else.
pub async fn migrate(url: &str) -> Result<(), Error> {
    crate::postgres::migrate(url, SCHEMA, &MIGRATIONS)
        .await
        .map_err(|error| Error::Unavailable(Arc::new(error)))
}

impl PostgresTrail {
    /// Opens the trail in a database, after migrating it if needed.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let database = Database::new(url, CONNECTIONS)?;
        if !is_migrated(&database, SCHEMA, &MIGRATIONS).await? {
            migrate(url).await?;
        }
        Ok(Self { database })
    }
}

fn number(row: &PgRow) -> Result<u64, Error> {
    let number: i64 = row.try_get("number")?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("column number holds {number}")))
}

fn only_number(rows: &[PgRow]) -> Result<u64, Error> {
    let row = rows.first();
    number(
        row.ok_or_else(|| Error::Damaged("the audit trail does not have a head row".to_owned()))?,
    )
}

fn recorded(row: &PgRow) -> Result<RecordedRead, Error> {
    let number = number(row)?;
    let user = row
        .try_get::<Option<&str>, _>("user_id")?
        .map(str::parse)
        .transpose()
        .map_err(|_| Error::Damaged(format!("read {number} has a bad user id")))?;
    Ok(RecordedRead {
        number,
        read: Read {
            at: Time::from_millis(row.try_get("read_at")?),
            actor: row.try_get("actor")?,
            route: row.try_get("route")?,
            user,
            query: row.try_get("query")?,
            request_id: row.try_get("request_id")?,
        },
    })
}

#[async_trait]
impl AuditTrail for PostgresTrail {
    async fn record(&self, read: &Read) -> Result<u64, Error> {
        let statement = sqlx::query(RECORD)
            .bind(read.at.millis())
            .bind(&read.actor)
            .bind(&read.route)
            .bind(read.user.map(|user| user.to_string()))
            .bind(&read.query)
            .bind(&read.request_id);
        only_number(&self.database.write(statement).await?)
    }

    async fn count(&self) -> Result<u64, Error> {
        let query = || sqlx::query("SELECT number FROM audit.head");
        only_number(&self.database.read(query).await?)
    }

    async fn list(&self, question: &Question) -> Result<Vec<RecordedRead>, Error> {
        let (comparison, number, order) = match question.start {
            Start::After(number) => (">", number, "ASC"),
            Start::Before(number) => ("<", number, "DESC"),
        };
        // An optional condition in SQL would prevent the use of the index.
        let actor = if question.actor.is_some() {
            "actor = $2"
        } else {
            "$2::text IS NULL"
        };
        let user = if question.user.is_some() {
            "user_id = $3"
        } else {
            "$3::text IS NULL"
        };
        let columns = read_columns!();
        let statement = format!(
            "SELECT number, {columns} FROM audit.reads \
             WHERE number {comparison} $1 AND {actor} AND {user} ORDER BY number {order} LIMIT $4"
        );
        let rows = self
            .database
            .read(|| {
                sqlx::query(AssertSqlSafe(statement.clone()))
                    .bind(signed(number))
                    .bind(question.actor.as_deref())
                    .bind(question.user.map(|user| user.to_string()))
                    .bind(signed(question.limit as u64))
            })
            .await?;
        rows.iter().map(recorded).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, read};
    use super::*;
    use crate::test_servers::postgres::Postgres as Server;
    use crate::test_servers::rights::{granted, refused, refused_to_owner};

    async fn open(url: &str) -> PostgresTrail {
        PostgresTrail::open(url).await.unwrap()
    }

    #[tokio::test]
    async fn the_postgres_trail_passes_the_conformance_suite() {
        for parameters in ["", "?statement-cache-capacity=0"] {
            conformance::run_all(async || {
                let url = Server::shared().database().await;
                let trail: Arc<dyn AuditTrail> =
                    Arc::new(open(&format!("{url}{parameters}")).await);
                trail
            })
            .await;
        }
    }

    #[tokio::test]
    async fn many_processes_record_without_gaps_and_a_paging_reader_misses_nothing() {
        let url = Server::shared().database().await;
        let mut trails: Vec<Arc<dyn AuditTrail>> = Vec::new();
        for _ in 0..4 {
            trails.push(Arc::new(open(&url).await));
        }
        let reader = Arc::new(open(&url).await);
        conformance::a_paging_reader_sees_every_read_once_in_order(trails, reader).await;
    }

    #[tokio::test]
    async fn the_database_refuses_to_change_or_delete_reads() {
        let url = Server::shared().database().await;
        let trail = open(&url).await;
        for n in 1..=2 {
            trail.record(&read(n, "auditor")).await.unwrap();
        }
        let statements = [
            "UPDATE audit.reads SET actor = 'another'",
            "DELETE FROM audit.reads",
            "TRUNCATE audit.reads",
            "INSERT INTO audit.reads SELECT 4, read_at, actor, route, user_id, query, request_id FROM audit.reads WHERE number = 1",
            "INSERT INTO audit.reads SELECT * FROM audit.reads ON CONFLICT (number) DO UPDATE SET actor = 'another'",
            "UPDATE audit.head SET number = 0",
            "UPDATE audit.head SET number = 9",
            "DELETE FROM audit.head",
            "TRUNCATE audit.head",
        ];
        refused_to_owner(&url, &statements).await;
        assert_eq!(trail.count().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_program_needs_no_right_to_change_or_delete_reads() {
        let url = Server::shared().database().await;
        migrate(&url).await.unwrap();
        let grants = include_str!("../../../migrations/postgres/grants/audit.sql");
        let url = granted(&url, "trail_keeper", grants).await;
        let trail = open(&url).await;
        assert_eq!(trail.record(&read(1, "auditor")).await.unwrap(), 1);
        assert_eq!(trail.list(&conformance::all()).await.unwrap().len(), 1);
        let statements = [
            "UPDATE audit.reads SET actor = 'another'",
            "DELETE FROM audit.reads",
            "TRUNCATE audit.reads",
            "DELETE FROM audit.head",
            "ALTER TABLE audit.reads DISABLE TRIGGER ALL",
            "DROP TABLE audit.reads",
            "CREATE TABLE audit.mine ()",
        ];
        refused(&url, "42501", &statements).await;
    }
}
