//! Documents that are folded anew while they are read and written, and history handed to others.

use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::roles::Pooler;
use crate::service::{DEADLINE, DEMO_USER, Folder, Service, command};

/// Users beside the demo user, so that a rebuild takes a while.
pub(crate) const USERS: u64 = 5_000;

/// A folder and perhaps a database, with users in it.
pub(crate) struct Data {
    pub(crate) folder: Folder,
    database: Option<String>,
}

impl Data {
    pub(crate) fn new(database: Option<String>, users: u64) -> Self {
        let data = Self {
            folder: Folder::new(),
            database,
        };
        let mut lines = String::new();
        for n in 0..users {
            writeln!(
                lines,
                r#"{{"username":"user{n}","name":"N","surname":"S{n}"}}"#
            )
            .unwrap();
        }
        let file = data.folder.file("users.ndjson", lines.as_bytes());
        let imported = data.command("import").arg(file).output().unwrap();
        assert!(imported.status.success(), "{imported:?}");
        data
    }

    pub(crate) fn command(&self, job: &str) -> Command {
        let mut command = command(&self.folder.data_dir());
        if !job.is_empty() {
            command.arg(job);
        }
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database);
        }
        command
    }

    pub(crate) fn start(&self, role: &str) -> Service {
        self.folder.start_with(self.command(role))
    }

    fn rebuild(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("rebuild");
        command
            .args(["--projection", "users", "--json"])
            .args(arguments);
        command.output().unwrap()
    }
}

pub(crate) fn summary(output: &Output) -> Value {
    assert!(output.status.code() != Some(2), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) async fn put(service: &Service, token: &str, bio: &str) -> String {
    let body = json!({"name": "John", "surname": "Doe", "bio": bio});
    let answer = service
        .send_json(Method::PUT, "/api/v1/users/profile", token, &body)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.header("ledger-position").to_owned()
}

async fn read_at(service: &Service, token: &str, position: u64) -> Value {
    let path = format!("/api/v1/users/profile?minPosition={position}");
    for _ in 0..100 {
        let answer = service.get(&path, token).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer.data().clone();
        }
    }
    panic!("position {position} is never reached");
}

/// Writes at one and reads at others until told to stop: no read fails, and none shows an older version.
async fn use_it(commands: &Service, queries: &[&Service], is_over: &AtomicBool) -> u32 {
    let token = commands.token(DEMO_USER, "user");
    let mut versions = vec![0_u64; queries.len()];
    let mut rounds = 0;
    while !is_over.load(Ordering::Relaxed) {
        let bio = format!("round {rounds}");
        let position = put(commands, &token, &bio).await;
        for (query, seen) in queries.iter().zip(&mut versions) {
            let path = "/api/v1/users/profile";
            let plain = query.get(path, &token).await;
            let mut waited = query
                .get(&format!("{path}?minPosition={position}"), &token)
                .await;
            while waited.header("x-error-code") == "NOT_YET_READABLE" {
                waited = query
                    .get(&format!("{path}?minPosition={position}"), &token)
                    .await;
            }
            for answer in [&plain, &waited] {
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                let version = answer.header("etag").trim_matches('"').parse().unwrap();
                assert!(version >= *seen, "version {version} after {seen}");
                *seen = version;
            }
            assert_eq!(waited.data()["bio"], bio);
        }
        rounds += 1;
    }
    rounds
}

async fn nobody_notices_it(data: &Data, commands: &Service, queries: &[&Service]) {
    let token = commands.token(DEMO_USER, "user");
    read_at(queries[0], &token, USERS + 1).await;
    let is_over = AtomicBool::new(false);
    let rebuilding = async {
        for arguments in [&[][..], &["--rollback"], &[]] {
            let mut command = data.command("rebuild");
            command.arg("--json").args(arguments);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap());
            let output = output.await.unwrap();
            assert!(output.status.success(), "{output:?}\n{}", data.folder.log());
            assert!(summary(&output)["swappedAt"].as_u64().unwrap() > USERS);
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (rounds, ()) = tokio::join!(use_it(commands, queries, &is_over), rebuilding);
    assert!(rounds > 0);
    let position = put(commands, &token, "after the swap").await;
    for query in queries {
        let read = read_at(query, &token, position.parse().unwrap()).await;
        assert_eq!(read["bio"], "after the swap");
    }
    let log = data.folder.log();
    assert!(!log.contains("\"ERROR\""), "{log}");
    // Equal tables are swapped beneath a projector; others, as those brought back may be, make it begin anew.
    let takeovers = log.matches("Another projector has taken over").count();
    assert!(takeovers <= 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_rebuild_beside_the_whole_service() {
    let data = Data::new(None, USERS);
    let service = data.start("");
    nobody_notices_it(&data, &service, &[&service]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_rebuild_beside_several_query_apis() {
    let data = Data::new(Some(Postgres::shared().database().await), USERS);
    let commands = data.start("command-api");
    let _projector = data.start("projector");
    let queries = [data.start("query-api"), data.start("query-api")];
    nobody_notices_it(&data, &commands, &[&queries[0], &queries[1]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_rebuild_behind_a_pooler() {
    let database = Postgres::shared().database().await;
    let mut data = Data::new(Some(database.clone()), USERS);
    let server = database.split(['@', '/']).nth(3).unwrap();
    let pooler = Pooler::of(server, &data.folder).await;
    let through_pooler = database.replace(server, &format!("127.0.0.1:{}", pooler.port));
    data.database = Some(through_pooler + "?statement-cache-capacity=0");
    let service = data.start("");
    // It holds three connections, which is all that this pooler has.
    data.database = Some(database);
    nobody_notices_it(&data, &service, &[&service]).await;
}

/// Writes a wrong surname into the document of the demo user, behind the service's back.
async fn spoil(data: &Data) {
    let statement = |users: &str| {
        format!(
            "UPDATE {users} SET document = replace(document, '\"Doe\"', '\"Wrong\"') WHERE user_id = '{DEMO_USER}'"
        )
    };
    let done = if let Some(url) = &data.database {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement("read_model.users"));
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap().rows_affected()
    } else {
        let path = data.folder.data_dir().join("read-model.db");
        let url = format!("sqlite://{}", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement("users"));
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap().rows_affected()
    };
    assert_eq!(done, 1);
}

async fn a_wrong_document_is_found(data: &Data) {
    let service = data.start("");
    let token = service.token(DEMO_USER, "user");
    let position = put(&service, &token, "right").await.parse().unwrap();
    read_at(&service, &token, position).await;
    spoil(data).await;
    let surname = async || read_at(&service, &token, position).await["surname"].clone();
    // What changes without an event is seen when the document that was read is no longer kept.
    let becomes = async |wanted: &str| {
        let seen = async {
            while surname().await != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, seen).await.expect(wanted);
    };
    becomes("Wrong").await;

    let nothing = data.rebuild(&["--rollback"]);
    assert_eq!(nothing.status.code(), Some(2));
    let error = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(error.contains("no earlier tables are kept"), "{error}");

    let found = data.rebuild(&[]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let found = summary(&found);
    assert_eq!(found["differences"], 1);
    let differing = json!([{"userId": DEMO_USER, "live": position, "rebuilt": position}]);
    assert_eq!(found["differing"], differing);
    assert_ne!(found["live"]["digest"], found["rebuilt"]["digest"]);
    assert_eq!(surname().await, "Wrong", "nothing was swapped");
    let told = data.command("rebuild").output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("--accept-differences"), "{told}");

    let repaired = data.rebuild(&["--accept-differences"]);
    assert!(repaired.status.success(), "{repaired:?}");
    becomes("Doe").await;
    assert!(data.rebuild(&["--rollback"]).status.success());
    becomes("Wrong").await;
    assert!(data.rebuild(&["--rollback"]).status.success());
    becomes("Doe").await;
    assert_eq!(summary(&data.rebuild(&[]))["differences"], 0);
}

#[tokio::test]
async fn a_wrong_document_is_found_repaired_and_brought_back_in_postgresql() {
    let data = Data::new(Some(Postgres::shared().database().await), 10);
    a_wrong_document_is_found(&data).await;
}

#[tokio::test]
async fn a_wrong_document_is_found_repaired_and_brought_back_in_sqlite() {
    let data = Data::new(None, 10);
    a_wrong_document_is_found(&data).await;
}

/// Kills rebuilds after longer and longer times, until one ends before.
async fn killed_anywhere(data: &Data) {
    let service = data.start("");
    let token = service.token(DEMO_USER, "user");
    read_at(&service, &token, USERS + 1).await;
    let (mut kills, mut time) = (0, Duration::from_millis(20));
    loop {
        let mut rebuild = data
            .command("rebuild")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(time).await;
        let ended = rebuild.try_wait().unwrap();
        rebuild.kill().unwrap();
        rebuild.wait().unwrap();
        let position = put(&service, &token, &format!("{time:?}")).await;
        let read = read_at(&service, &token, position.parse().unwrap()).await;
        assert_eq!(read["bio"], format!("{time:?}"));
        let path = "/api/v1/users/profile/username/user77";
        let other = service.get(path, &token).await;
        assert_eq!(other.data()["surname"], "S77");
        if ended.is_some() {
            break;
        }
        kills += 1;
        time = time * 5 / 4 + Duration::from_millis(10);
    }
    assert!(kills > 2, "{kills}");
    let again = async {
        loop {
            let output = data.rebuild(&[]);
            // The database has not seen yet that the last one is gone.
            if !String::from_utf8_lossy(&output.stderr).contains("another rebuild") {
                return output;
            }
        }
    };
    let again = tokio::time::timeout(DEADLINE, again).await.unwrap();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(summary(&again)["differences"], 0);
}

#[tokio::test]
async fn a_rebuild_killed_anywhere_leaves_postgresql_as_it_was() {
    let data = Data::new(Some(Postgres::shared().database().await), USERS);
    killed_anywhere(&data).await;
}

#[tokio::test]
async fn a_rebuild_killed_anywhere_leaves_sqlite_as_it_was() {
    let data = Data::new(None, USERS);
    killed_anywhere(&data).await;
}
