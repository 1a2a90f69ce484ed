//! The whole topology behind its gateway, as `scripts/stack` brings it up, and who may do what in it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::service::{Answer, DEADLINE, as_newcomer, send};

/// Brings a stack up, says so, and takes it down at the end of its input: also when the test process was
/// killed.
const SUPERVISOR: &str = r#"
"$0" up --dir "$1" --binary "$2" 2>&1 || { "$0" down --dir "$1"; exit 1; }
echo 'up'
cat >/dev/null
"$0" down --dir "$1"
"#;

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn script() -> PathBuf {
    repository().join("scripts/stack")
}

/// A running stack. Dropped, it is taken down.
pub(crate) struct Stack {
    supervisor: Child,
    folder: PathBuf,
    client: reqwest::Client,
}

impl Stack {
    /// The stack of all tests that do it no harm.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Stack> = LazyLock::new(Stack::start);
        &SHARED
    }

    #[track_caller]
    pub(crate) fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        // Not one of `tempfile`: PostgreSQL may run as somebody who cannot enter those.
        let name = format!("profile-ledger-stack-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let mut command = Command::new("sh");
        let mut supervisor = as_newcomer(&mut command)
            .args(["-c", SUPERVISOR])
            .arg(script())
            .arg(&folder)
            .arg(env!("CARGO_BIN_EXE_profile-ledger"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C is for the tests; the supervisor sees them end and cleans up.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        let mut said = String::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line == "up" => break,
                Some(Ok(line)) => said = said + line.as_str() + "\n",
                _ => panic!("the stack does not come up:\n{said}"),
            }
        }
        // Whatever `down` says later.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            supervisor,
            folder,
            client: reqwest::Client::builder()
                .timeout(DEADLINE)
                // Tests share a stack and have a runtime each, with which its connections end.
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
        }
    }

    /// Runs `scripts/stack` on the folder.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(script());
        let command = as_newcomer(&mut command).args(arguments);
        command.arg("--dir").arg(&self.folder).output().unwrap()
    }

    /// What a file of the folder says behind a name.
    #[track_caller]
    fn entry(&self, file: &str, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(['=', ' ']));
        value
            .unwrap_or_else(|| panic!("no {name}:\n{text}"))
            .to_owned()
    }

    fn secret(&self, name: &str) -> String {
        self.entry("secrets", name)
    }

    /// Where the gateway is; a stack has none where `caddy` is not installed.
    pub(crate) fn url(&self) -> String {
        self.entry("addresses", "gateway")
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("log/{name}.log"))).unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url()))
    }

    pub(crate) fn token(&self, user: &str, role: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_profile-ledger"));
        let made = as_newcomer(&mut command)
            .env("JWT_SECRET", self.secret("JWT_SECRET"))
            .args(["token", "--user", user, "--role", role])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// Registers a user; its token.
    pub(crate) async fn register(&self, id: &str, username: &str) -> String {
        let body = json!({"_id": id, "username": username, "name": "N", "surname": "S"});
        let request = self.request(Method::POST, "/api/v1/users");
        let sign_up = self.token("sign-up", "service");
        let made = send(request.bearer_auth(sign_up).json(&body)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        self.token(id, "user")
    }

    pub(crate) fn put(&self, token: &str, body: &Value) -> RequestBuilder {
        let request = self.request(Method::PUT, "/api/v1/users/profile");
        request.bearer_auth(token).json(body)
    }

    /// The own profile, as of a command's answer.
    pub(crate) async fn read_back(&self, token: &str, written: &Answer) -> Answer {
        let position = written.header("ledger-position");
        let path = format!("/api/v1/users/profile?minPosition={position}");
        send(self.request(Method::GET, &path).bearer_auth(token)).await
    }

    /// Ends a process as a power failure would.
    pub(crate) fn kill(&self, name: &str) {
        let process = self.entry("processes", name);
        let pid = process.split(' ').next().unwrap();
        let sent = Command::new("kill").args(["-KILL", pid]).status().unwrap();
        assert!(sent.success());
    }

    async fn nats(&self, user: &str, password: &str) -> async_nats::Client {
        async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            .request_timeout(Some(Duration::from_secs(1)))
            .connect(self.entry("addresses", "nats"))
            .await
            .unwrap()
    }

    /// Runs a statement as the role of the program.
    fn sql(&self, database: &str, statement: &str) -> Output {
        Command::new("psql")
            .args([
                "--no-psqlrc",
                "--set=ON_ERROR_STOP=1",
                "--command",
                statement,
            ])
            .env("PGHOST", self.folder.join("postgres"))
            .env("PGUSER", "profile_ledger")
            .env("PGPASSWORD", self.secret("POSTGRES_PROGRAM_PASSWORD"))
            .env("PGDATABASE", database)
            .output()
            .expect("psql is installed")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// The processes that have to do with a folder, other than those that have ended.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| {
        let path = entry.path();
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut seen = Vec::new();
        for file in ["cmdline", "environ"] {
            let file = std::fs::File::open(path.join(file));
            let _ = file.and_then(|mut file| file.read_to_end(&mut seen));
        }
        let cwd = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        let seen = format!("{} {}", String::from_utf8_lossy(&seen), cwd.display());
        seen.contains(folder).then(|| format!("{pid} {seen}"))
    });
    processes.collect()
}

const FIRST: &str = "00000000000000000000000a";

#[test]
fn down_ends_every_process_and_leaves_nothing() {
    let stack = Stack::start();
    let status = stack.run(&["status"]);
    assert!(status.status.success(), "{status:?}");
    let status = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.matches(" running ").count(), 9, "{status}");
    let folder = stack.folder.clone();
    assert!(processes_of(&folder).len() >= 9);

    drop(stack);
    assert!(!folder.exists());
    let left = processes_of(&folder);
    assert!(left.is_empty(), "{left:#?}");
}

#[tokio::test]
async fn what_a_stack_kept_is_there_when_it_comes_up_again() {
    let stack = Stack::start();
    let token = stack.register(FIRST, "kept").await;
    let down = stack.run(&["down", "--keep"]);
    assert!(down.status.success(), "{down:?}");
    let down = stack.run(&["status"]);
    assert!(!down.status.success(), "{down:?}");

    let up = stack.run(&["up", "--binary", env!("CARGO_BIN_EXE_profile-ledger")]);
    assert!(up.status.success(), "{up:?}");
    let read = stack.request(Method::GET, "/api/v1/users/profile?minPosition=1");
    let read = send(read.bearer_auth(token)).await;
    assert_eq!(read.data()["username"], "kept");
}

#[test]
fn a_folder_that_holds_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("precious");
    std::fs::write(&file, "x").unwrap();
    for job in ["up", "down", "status"] {
        let mut command = Command::new(script());
        let refused = as_newcomer(&mut command)
            .args([job, "--dir"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(!refused.status.success(), "{refused:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(file.exists());
}

#[test]
fn the_secrets_of_a_stack_are_random_and_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let stack = Stack::shared();
    let file = stack.folder.join("secrets");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut seen = std::collections::HashSet::new();
    let secrets = std::fs::read_to_string(file).unwrap();
    let secrets: Vec<_> = secrets
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    assert_eq!(secrets.len(), 7);
    for line in secrets {
        let (name, value) = line.split_once('=').unwrap();
        assert_eq!(value.len(), 48, "{name}");
        assert!(seen.insert(value), "{name}");
        assert!(!stack.log("gateway").contains(value));
    }
}

#[test]
fn the_role_of_the_program_can_neither_change_events_nor_make_tables() {
    let stack = Stack::shared();
    let may = stack.sql("profile_ledger", "SELECT count(*) FROM ledger.events");
    assert!(may.status.success(), "{may:?}");
    for statement in [
        "UPDATE ledger.events SET version = version",
        "DELETE FROM ledger.events",
        "TRUNCATE ledger.events",
        "DELETE FROM ledger.ledger_head",
        "INSERT INTO ledger.migrations SELECT * FROM ledger.migrations",
        "ALTER TABLE ledger.events DISABLE TRIGGER ALL",
        "DROP TABLE ledger.events",
        "CREATE TABLE ledger.mine ()",
        "CREATE TABLE read_model.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "SET ROLE profile_ledger_owner",
    ] {
        let refused = stack.sql("profile_ledger", statement);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(
            error.contains("permission denied") || error.contains("must be owner"),
            "{statement}: {refused:?}"
        );
    }
    let elsewhere = stack.sql("postgres", "SELECT 1");
    assert!(!elsewhere.status.success(), "{elsewhere:?}");
}

#[tokio::test]
async fn no_role_asks_the_broker_for_more_than_it_may() {
    let stack = Stack::start();
    let token = stack.register(FIRST, "published").await;
    let password = stack.secret("NATS_DOWNSTREAM_PASSWORD");
    let context = jetstream::new(stack.nats("downstream", &password).await);
    let published = async {
        loop {
            let stream = context.get_stream("PROFILES").await;
            if stream.is_ok_and(|stream| stream.cached_info().state.last_sequence == 1) {
                return;
            }
        }
    };
    let published = tokio::time::timeout(DEADLINE, published).await;
    published.expect("the event is published");
    // The projector reads the ledger until it has found the stream.
    let following = async {
        for n in 0.. {
            let written =
                send(stack.put(&token, &json!({"name": "N", "surname": format!("S{n}")})));
            stack.read_back(&token, &written.await).await;
            let stream = context.get_stream("PROFILES").await.unwrap();
            if stream.cached_info().state.consumer_count > 0 {
                return;
            }
        }
    };
    let following = tokio::time::timeout(DEADLINE, following).await;
    following.expect("the projector follows the stream");
    let log = stack.log("nats");
    assert!(!log.contains("Violation"), "{log}");
    assert!(!log.contains("authentication error"), "{log}");
}

#[tokio::test]
async fn who_has_the_credentials_of_a_subscriber_reads_the_stream_and_publishes_nothing() {
    let stack = Stack::shared();
    stack.register("00000000000000000000000b", "streamed").await;
    let password = stack.secret("NATS_DOWNSTREAM_PASSWORD");
    let client = stack.nats("downstream", &password).await;
    let mut context = jetstream::new(client.clone());
    context.set_timeout(Duration::from_secs(1));
    let stream = context.get_stream_no_info("PROFILES").await.unwrap();

    let config = OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let first = tokio::time::timeout(DEADLINE, messages.next()).await;
    let first = first.expect("an event comes").unwrap().unwrap();
    assert_eq!(first.info().unwrap().stream_sequence, 1);

    // As the relay would, and as whoever wants to spoil the stream would.
    let next = stream.get_info().await.unwrap().state.last_sequence + 1;
    let subject = "profiles.v1.p00.user-registered";
    let forged = jetstream::message::PublishMessage::build()
        .payload("{}".into())
        .expected_last_sequence(next - 1);
    let forged = context.send_publish(subject, forged).await.unwrap().await;
    assert!(forged.is_err(), "{forged:?}");
    for (subject, body) in [
        ("$JS.API.STREAM.DELETE.PROFILES", json!(null)),
        ("$JS.API.STREAM.PURGE.PROFILES", json!(null)),
        ("$JS.API.STREAM.MSG.DELETE.PROFILES", json!({"seq": 1})),
        (
            "$JS.API.STREAM.UPDATE.PROFILES",
            json!({"name": "PROFILES", "subjects": ["x"]}),
        ),
        (
            "$JS.API.STREAM.CREATE.OTHER",
            json!({"name": "OTHER", "subjects": ["profiles.v2.>"]}),
        ),
        ("$JS.API.CONSUMER.DELETE.PROFILES.x", json!(null)),
    ] {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let refused = client.request(subject, body.into()).await;
        assert!(refused.is_err(), "{subject}: {refused:?}");
    }
    // A consumer that pushes the events of the stream into it again.
    let cycle = stream
        .create_consumer(jetstream::consumer::push::Config {
            deliver_subject: subject.to_owned(),
            ..Default::default()
        })
        .await;
    assert!(cycle.is_err(), "{cycle:?}");

    let info = stream.get_info().await.unwrap();
    assert_eq!(info.config.subjects, ["profiles.v1.>"]);
    for sequence in 1..=info.state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert!(message.headers.get("ce-id").is_some(), "{message:?}");
    }
    // Nobody comes in without credentials.
    let stranger = async_nats::connect(stack.entry("addresses", "nats")).await;
    assert!(stranger.is_err());
}
