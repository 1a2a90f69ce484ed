//! Rights in a PostgreSQL database.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Creates a role with exactly the rights of a file in `migrations/postgres/grants`. Returns its
/// URL.
pub async fn granted(url: &str, role: &str, grants: &str) -> String {
    let grants = grants.replace("profile_ledger", role);
    let statements =
        format!("CREATE ROLE {role} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC; {grants}");
    let mut owner = PgConnection::connect(url).await.expect("the owner may");
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut owner)
        .await
        .expect("the owner may make roles");
    url.replace("postgres@", &format!("{role}@"))
}

/// Asserts that the database refuses statements of the user in a URL with a code (SQLSTATE):
/// `42501` for a missing right, `P0001` for a trigger.
pub async fn refused(url: &str, code: &str, statements: &[&'static str]) {
    let mut connection = PgConnection::connect(url).await.expect("it is there");
    refused_on(&mut connection, code, statements).await;
}

/// Asserts that triggers refuse statements of the superuser, who owns the tables, also when the
/// session acts as a replica.
pub async fn refused_to_owner(url: &str, statements: &[&'static str]) {
    let mut owner = PgConnection::connect(url).await.expect("it is there");
    for role in ["origin", "replica"] {
        sqlx::query("SELECT set_config('session_replication_role', $1, false)")
            .bind(role)
            .execute(&mut owner)
            .await
            .expect("the superuser may");
        refused_on(&mut owner, "P0001", statements).await;
    }
}

async fn refused_on(connection: &mut PgConnection, code: &str, statements: &[&'static str]) {
    for statement in statements {
        let refused = sqlx::raw_sql(*statement).execute(&mut *connection).await;
        let error = refused.expect_err(statement);
        let found = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        assert_eq!(found.as_deref(), Some(code), "{statement}: {error}");
    }
}
