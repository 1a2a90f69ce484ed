//! One role a process, on PostgreSQL and NATS, several of each.

use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::test_servers::Nats;
use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::service::{Answer, DEADLINE, DEMO_USER, Folder, Service, command, send};

/// Databases, a broker, and a folder of photos that all processes share.
pub(crate) struct Stack {
    folder: Folder,
    database: String,
    nats: Nats,
}

impl Stack {
    pub(crate) async fn new(postgres: &Postgres) -> Self {
        Self {
            folder: Folder::new(),
            database: postgres.database().await,
            nats: Nats::start(),
        }
    }

    pub(crate) fn start(&self, role: &str) -> Service {
        let mut command = command(&self.folder.data_dir());
        command
            .arg(role)
            .env("DATABASE_URL", &self.database)
            .env("NATS_URL", self.nats.url());
        self.folder.start_with(command)
    }
}

async fn register(service: &Service, token: &str, username: &str, key: &str) -> Answer {
    let body = json!({"username": username, "name": "N", "surname": "S"});
    send(
        service
            .request(Method::POST, "/api/v1/users")
            .bearer_auth(token)
            .header("idempotency-key", key)
            .json(&body),
    )
    .await
}

async fn put(service: &Service, token: &str, bio: &str) -> Answer {
    let body = json!({"name": "John", "surname": "Doe", "bio": bio});
    service
        .send_json(Method::PUT, "/api/v1/users/profile", token, &body)
        .await
}

/// The own profile once it shows a position; 503 in the meantime is asked again.
pub(crate) async fn read_at(service: &Service, token: &str, position: &str) -> Answer {
    let path = format!("/api/v1/users/profile?minPosition={position}");
    let reading = async {
        loop {
            let answer = service.get(&path, token).await;
            if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
        }
    };
    let read = tokio::time::timeout(DEADLINE, reading).await;
    read.expect("the position is never reached")
}

#[tokio::test]
async fn several_of_each_role_are_one_service() {
    let stack = Stack::new(Postgres::shared()).await;
    let commands = [stack.start("command-api"), stack.start("command-api")];
    let _projectors = [stack.start("projector"), stack.start("projector")];
    let queries = [stack.start("query-api"), stack.start("query-api")];
    let sign_up = commands[0].token("sign-up", "service");

    // Each name is asked for at both at once, and each key is used at both.
    let mut positions = HashSet::new();
    for n in 0..40 {
        let (name, key, key_of_other) =
            (format!("user{n}"), format!("key{n}"), format!("other{n}"));
        let [one, other] = &commands;
        let (a, b, again) = tokio::join!(
            register(one, &sign_up, &name, &key),
            register(other, &sign_up, &name, &key_of_other),
            register(other, &sign_up, &name, &key),
        );
        let statuses = [a.status, b.status, again.status];
        let created: Vec<_> = [&a, &b, &again]
            .into_iter()
            .filter(|answer| answer.status == StatusCode::CREATED)
            .collect();
        assert!(!created.is_empty(), "{statuses:?}");
        let ids: HashSet<_> = created
            .iter()
            .map(|answer| answer.data()["_id"].to_string())
            .collect();
        assert_eq!(
            ids.len(),
            1,
            "the name {name} has two holders: {statuses:?}"
        );
        assert_eq!(
            a.status,
            again.status,
            "one key has two outcomes:\n{}",
            stack.folder.log()
        );
        assert!(positions.insert(created[0].header("ledger-position").to_owned()));
    }

    // What either decided is read at both.
    let token = commands[0].token(DEMO_USER, "user");
    for round in 0..10 {
        let answer = put(&commands[round % 2], &token, &format!("round {round}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        for query in &queries {
            let read = read_at(query, &token, answer.header("ledger-position")).await;
            assert_eq!(read.data(), answer.data());
        }
    }
    let username = json!({"newUsername": "first.change"});
    let [one, other] = &commands;
    let first = one
        .send_json(Method::PATCH, "/api/v1/users/username", &token, &username)
        .await;
    assert_eq!(first.status, StatusCode::OK);
    let username = json!({"newUsername": "second.change"});
    let second = other
        .send_json(Method::PATCH, "/api/v1/users/username", &token, &username)
        .await;
    assert_eq!(second.header("x-error-code"), "USERNAME_CHANGE_TOO_SOON");
    // A role serves its own routes only.
    let misplaced = put(&queries[0], &token, "x").await;
    assert_eq!(misplaced.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_projector_takes_over_from_one_that_was_killed() {
    let stack = Stack::new(Postgres::shared()).await;
    let commands = stack.start("command-api");
    let elder = stack.start("projector");
    let query = stack.start("query-api");
    let token = commands.token(DEMO_USER, "user");
    let answer = put(&commands, &token, "the elder works").await;
    read_at(&query, &token, answer.header("ledger-position")).await;
    let younger = stack.start("projector");
    let answer = put(&commands, &token, "the younger works").await;
    read_at(&query, &token, answer.header("ledger-position")).await;

    younger.kill();
    let answer = put(&commands, &token, "the elder works again").await;
    let read = tokio::time::timeout(
        Duration::from_secs(5),
        read_at(&query, &token, answer.header("ledger-position")),
    );
    let read = read.await.expect("the elder takes over within 5 s");
    assert_eq!(read.data(), answer.data());
    drop(elder);
}

#[tokio::test]
async fn while_postgresql_is_away_answers_are_503_at_once_and_the_service_heals() {
    let postgres = Postgres::start();
    let stack = Stack::new(&postgres).await;
    let all = {
        let mut command = command(&stack.folder.data_dir());
        command
            .env("DATABASE_URL", &stack.database)
            .env("NATS_URL", stack.nats.url());
        stack.folder.start_with(command)
    };
    let token = all.token(DEMO_USER, "user");
    let before = put(&all, &token, "before").await;
    read_at(&all, &token, before.header("ledger-position")).await;

    postgres.kill();
    for _ in 0..3 {
        let refused = tokio::time::timeout(Duration::from_secs(4), put(&all, &token, "away"));
        let refused = refused.await.expect("an answer in time");
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_ne!(refused.header("retry-after"), "");
    }
    let read = all.get("/api/v1/users/profile", &token).await;
    assert_eq!(read.status, StatusCode::SERVICE_UNAVAILABLE);
    let ready = send(all.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.body["missing"].to_string().contains("ledger"));

    postgres.start_again();
    let healing = async {
        loop {
            let answer = put(&all, &token, "after").await;
            if answer.status == StatusCode::OK {
                return answer;
            }
        }
    };
    let after = tokio::time::timeout(DEADLINE, healing).await;
    let after = after.expect("it heals by itself");
    let read = read_at(&all, &token, after.header("ledger-position")).await;
    assert_eq!(read.data(), after.data());
    let version = read.header("etag").trim_matches('"').parse::<u64>();
    // Whether the refused ones took place is not promised; at most one can have, for they were equal.
    assert!((3..=4).contains(&version.unwrap()), "{read:?}");
}

#[tokio::test]
async fn a_reader_of_a_replica_that_is_behind_waits_or_answers_503_and_never_older() {
    let primary = Postgres::start();
    let stack = Stack::new(&primary).await;
    let commands = stack.start("command-api");
    let _projector = stack.start("projector");
    let token = commands.token(DEMO_USER, "user");
    let first = put(&commands, &token, "before the replica").await;

    let replica = primary.replica();
    let database = stack.database.rsplit('/').next().unwrap();
    let mut query = command(&stack.folder.data_dir());
    query
        .arg("query-api")
        .env("DATABASE_URL", &stack.database)
        .env("READ_MODEL_URL", replica.url(database));
    let query = stack.folder.start_with(query);
    let read = read_at(&query, &token, first.header("ledger-position")).await;
    assert_eq!(read.data(), first.data());

    let mut standby = PgConnection::connect(&replica.url(database)).await.unwrap();
    sqlx::query("SELECT pg_wal_replay_pause()")
        .execute(&mut standby)
        .await
        .unwrap();
    let paused = async {
        let state = "SELECT pg_get_wal_replay_pause_state()";
        while sqlx::query_scalar::<_, String>(state)
            .fetch_one(&mut standby)
            .await
            .unwrap()
            != "paused"
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, paused).await.unwrap();
    let second = put(&commands, &token, "while the replica stands still").await;
    let path = format!(
        "/api/v1/users/profile?minPosition={}",
        second.header("ledger-position")
    );
    let refused = query.get(&path, &token).await;
    assert_eq!(
        refused.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{refused:?}"
    );
    assert_eq!(refused.header("x-error-code"), "NOT_YET_READABLE");
    assert_ne!(refused.header("retry-after"), "");
    // Without a position it shows what it has.
    let stale = query.get("/api/v1/users/profile", &token).await;
    assert_eq!(stale.data(), first.data());

    let waiting = read_at(&query, &token, second.header("ledger-position"));
    let resume = sqlx::query("SELECT pg_wal_replay_resume()").execute(&mut standby);
    let (read, resumed) = tokio::join!(waiting, resume);
    resumed.unwrap();
    assert_eq!(read.data(), second.data());
}

/// A PgBouncer that hands out the connections of a server a transaction at a time.
pub(crate) struct Pooler {
    process: Child,
    pub(crate) port: u16,
}

impl Pooler {
    pub(crate) async fn of(server: &str, folder: &Folder) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let (host, server_port) = server.split_once(':').unwrap();
        let settings = folder.file(
            "pgbouncer.ini",
            format!(
                "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
                 default_pool_size = 3\nmax_client_conn = 200\n"
            )
            .as_bytes(),
        );
        let mut command = Command::new("pgbouncer");
        command.arg(&settings);
        // It refuses to run as root; then it becomes a user who must be able to read its settings.
        if is_root() {
            let folder = settings.parent().unwrap();
            std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
            command.args(["--user", "nobody"]);
        }
        let process = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs PgBouncer: install the package `pgbouncer`");
        let pooler = Self { process, port };
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let listening = tokio::time::timeout(DEADLINE, listening).await;
        listening.expect("PgBouncer listens");
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

#[tokio::test]
async fn all_roles_work_through_a_pooler_that_hands_out_connections_a_transaction_at_a_time() {
    let mut stack = Stack::new(Postgres::shared()).await;
    let server = stack.database.split(['@', '/']).nth(3).unwrap().to_owned();
    let pooler = Pooler::of(&server, &stack.folder).await;
    let through_pooler = format!("127.0.0.1:{}", pooler.port);
    stack.database =
        stack.database.replace(&server, &through_pooler) + "?statement-cache-capacity=0";

    let commands = [stack.start("command-api"), stack.start("command-api")];
    let _projectors = [stack.start("projector"), stack.start("projector")];
    let query = stack.start("query-api");
    let sign_up = commands[0].token("sign-up", "service");
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..120 {
        let body = json!({"username": format!("user{n}"), "name": "N", "surname": "S"});
        let request = commands[n % 2]
            .request(Method::POST, "/api/v1/users")
            .bearer_auth(&sign_up)
            .json(&body);
        requests.spawn(send(request));
    }
    let answers = requests.join_all().await;
    let mut positions = HashSet::new();
    for answer in &answers {
        assert_eq!(
            answer.status,
            StatusCode::CREATED,
            "{answer:?}\n{}",
            stack.folder.log()
        );
        assert!(positions.insert(answer.header("ledger-position").to_owned()));
    }
    let token = commands[0].token(DEMO_USER, "user");
    let answer = put(&commands[1], &token, "through a pooler").await;
    let read = read_at(&query, &token, answer.header("ledger-position")).await;
    assert_eq!(read.data(), answer.data());
    assert!(
        !stack.folder.log().contains("prepared statement"),
        "{}",
        stack.folder.log()
    );
}

#[tokio::test]
async fn while_postgresql_stands_still_commands_that_queue_up_are_answered_in_time() {
    let postgres = Postgres::start();
    let stack = Stack::new(&postgres).await;
    let commands = stack.start("command-api");
    let token = commands.token(DEMO_USER, "user");
    for n in 0..20 {
        let answer = put(&commands, &token, &format!("warm {n}")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    postgres.freeze();
    // One is being written when the others queue up behind it. Within 2 s, and a second for this machine.
    let late = async |millis| {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let bio = format!("late {millis}");
        tokio::time::timeout(Duration::from_secs(3), put(&commands, &token, &bio)).await
    };
    let answers = tokio::join!(late(0), late(50), late(350));
    postgres.thaw();
    for answer in [answers.0, answers.1, answers.2] {
        let answer = answer.expect("an answer in time");
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert_ne!(answer.header("retry-after"), "");
    }
    let healing = async { while put(&commands, &token, "after").await.status != StatusCode::OK {} };
    let healed = tokio::time::timeout(DEADLINE, healing).await;
    healed.expect("it heals by itself");
}

#[tokio::test]
async fn a_projector_without_the_key_of_the_log_works_and_says_that_it_signs_nothing() {
    let stack = Stack::new(Postgres::shared()).await;
    let commands = stack.start("command-api");
    let first = stack.start("projector");
    let token = commands.token(DEMO_USER, "user");
    let answer = put(&commands, &token, "signed").await;
    let query = stack.start("query-api");
    let auditor = query.token("an-auditor", "auditor");
    let position = answer.header("ledger-position");
    let signed = query
        .request(
            Method::GET,
            &format!("/api/v1/log/checkpoint?minPosition={position}"),
        )
        .bearer_auth(&auditor);
    assert_eq!(send(signed).await.status, StatusCode::OK);
    first.kill();

    let mut stranger = command(&stack.folder.data_dir());
    let elsewhere = Folder::new();
    stranger
        .arg("projector")
        .env("DATABASE_URL", &stack.database)
        .env("NATS_URL", stack.nats.url())
        .env("JWT_SECRET", "a secret of 32 bytes and a bit more")
        .env("DATA_DIR", elsewhere.data_dir());
    let stranger = stack.folder.start_with(stranger);
    let answer = put(&commands, &token, "not signed").await;
    read_at(&query, &token, answer.header("ledger-position")).await;
    let ready = send(stranger.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK);
    let missing = ready.body["missing"].to_string();
    assert!(missing.contains("log: the key file"), "{missing}");
    assert!(!elsewhere.data_dir().join("log.key").exists());
}

#[tokio::test]
async fn a_key_that_was_made_for_another_ledger_signs_nothing() {
    let (first, folder) = (Folder::new(), Folder::new());
    first.start().stop();
    let mut all = command(&folder.data_dir());
    all.env("LOG_KEY", first.data_dir().join("log.key"));
    let service = folder.start_with(all);
    let token = service.token(DEMO_USER, "user");
    assert_eq!(
        put(&service, &token, "not signed").await.status,
        StatusCode::OK
    );
    let ready = send(service.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK);
    let missing = ready.body["missing"].to_string();
    assert!(missing.contains("was made for another ledger"), "{missing}");
    service.stop();

    // One of its own does.
    let service = folder.start();
    let auditor = service.token("an-auditor", "auditor");
    let signed = service.get("/api/v1/log/checkpoint?minPosition=1", &auditor);
    assert_eq!(signed.await.status, StatusCode::OK);
    service.stop();
    let verified = command(&folder.data_dir()).arg("verify").output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn one_role_a_process_is_refused_without_a_shared_database() {
    let folder = Folder::new();
    for role in ["command-api", "projector", "query-api"] {
        let refused = command(&folder.data_dir()).arg(role).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains("set DATABASE_URL"), "{error}");
    }
}

#[tokio::test]
async fn migrations_are_a_command_of_their_own() {
    let database = Postgres::shared().database().await;
    let folder = Folder::new();
    for _ in 0..2 {
        let migrated = command(&folder.data_dir())
            .arg("migrate")
            .env("DATABASE_URL", &database)
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
    }
    let wrong = command(&folder.data_dir())
        .arg("migrate")
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
