//! Commands that look into history: beside a running service and without one, on files and on PostgreSQL.

use std::path::Path;
use std::process::{Command, Output};

use events::event::{Consents, Profile, UserRegistered};
use events::{Context, EventId, Recorded, UserEvent, UserId};
use ledger::store::sqlite::SqliteStore;
use ledger::store::{Batch, EventStore as _, History as _, claims_of};
use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::service::{DEMO_USER, Folder, Service, command, send};

mod terminal;

/// A ledger, and how to ask it.
pub(crate) struct Ledger<'a> {
    folder: &'a Folder,
    database: Option<String>,
}

impl Ledger<'_> {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.folder.data_dir());
        command.args(arguments);
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints that ends with a code and without a complaint.
    #[track_caller]
    pub(crate) fn prints(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON that it prints, an object a line.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let lines = self.prints(code, arguments);
        let lines = lines.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    /// What it complains of, with which code; it prints nothing.
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

pub(crate) fn on_files(folder: &Folder) -> Ledger<'_> {
    Ledger {
        folder,
        database: None,
    }
}

pub(crate) async fn put(service: &Service, name: &str, bio: &str) {
    let token = service.token(DEMO_USER, "user");
    let body = json!({"name": name, "surname": "Doe", "bio": bio});
    let request = service
        .request(Method::PUT, "/api/v1/users/profile")
        .bearer_auth(token)
        .header("x-platform", "mobile_ios")
        .header("x-app-version", "2.1.0")
        .header("x-device-id", "phone-1")
        .header("x-request-id", "request-1")
        .json(&body);
    let answer = send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

async fn rename(service: &Service, username: &str) {
    let token = service.token(DEMO_USER, "user");
    let body = json!({"newUsername": username});
    let request = service
        .request(Method::PATCH, "/api/v1/users/username")
        .bearer_auth(token)
        .header("x-request-id", "request-2")
        .json(&body);
    let answer = send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

async fn audit(service: &Service, path: &str) -> Value {
    let token = service.token("eve", "auditor");
    let answer = service.get(&format!("/api/v1/audit/{path}"), &token).await;
    answer.data().clone()
}

/// Every command, with what the service itself would answer.
struct Told {
    history: Vec<Value>,
    state: Value,
    diff: Value,
    export: String,
}

impl Told {
    async fn by(service: &Service) -> Self {
        let events = audit(service, &format!("users/{DEMO_USER}/events?limit=100")).await;
        let token = service.token("eve", "auditor");
        let export = service
            .request(Method::GET, "/api/v1/audit/events")
            .bearer_auth(token)
            .header("accept", "application/x-ndjson");
        Self {
            history: events["items"].as_array().unwrap().clone(),
            state: audit(service, &format!("users/{DEMO_USER}")).await,
            diff: audit(service, &format!("users/{DEMO_USER}/diff?from=1&to=2")).await,
            export: export.send().await.unwrap().text().await.unwrap(),
        }
    }

    #[track_caller]
    fn is_what_commands_print(&self, ledger: &Ledger<'_>, public_url: &str) {
        let url = ["--public-url", public_url];
        assert_eq!(
            ledger.json(0, &["history", DEMO_USER, "--json"]),
            self.history
        );
        let state = [&["state", DEMO_USER, "--json"], &url[..]].concat();
        assert_eq!(
            ledger.json(0, &state)[..],
            *std::slice::from_ref(&self.state)
        );
        let diff = ["diff", DEMO_USER, "--from=1", "--to=2", "--json"];
        let diff = [&diff, &url[..]].concat();
        assert_eq!(ledger.json(1, &diff)[..], *std::slice::from_ref(&self.diff));
        assert_eq!(ledger.prints(0, &["export"]), self.export);
    }
}

#[tokio::test]
async fn commands_print_what_the_service_answers_beside_it_after_its_death_and_without_it() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    put(&service, "Johnny", "Hello").await;
    let told = Told::by(&service).await;
    let url = service.url.clone();
    told.is_what_commands_print(&ledger, &url);
    // What comes while a command has the ledger open is nothing to it, and the service does not mind.
    put(&service, "Jack", "Hello").await;
    let told = Told::by(&service).await;
    told.is_what_commands_print(&ledger, &url);
    service.kill();
    told.is_what_commands_print(&ledger, &url);
    let service = folder.start();
    assert!(service.stop().success());
    told.is_what_commands_print(&ledger, &url);
    // And the service finds everything as it was.
    let service = folder.start();
    put(&service, "Jim", "Hello").await;
    assert_eq!(
        ledger.json(0, &["history", DEMO_USER, "--json"]).len(),
        told.history.len() + 1
    );
}

#[tokio::test]
async fn on_postgresql_commands_need_no_right_but_to_read() {
    let folder = Folder::new();
    let database = Postgres::shared().database().await;
    let mut command = command(&folder.data_dir());
    command.env("DATABASE_URL", &database);
    let service = folder.start_with(command);
    put(&service, "Johnny", "Hello").await;
    let told = Told::by(&service).await;
    let url = service.url.clone();
    let mut owner = PgConnection::connect(&database).await.unwrap();
    sqlx::raw_sql(
        "CREATE ROLE looks_on LOGIN; GRANT USAGE ON SCHEMA ledger TO looks_on; \
         GRANT SELECT ON ledger.events, ledger.ledger_head, ledger.username_claims TO looks_on",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    for parameters in ["", "?statement-cache-capacity=0"] {
        let ledger = Ledger {
            folder: &folder,
            database: Some(database.replace("postgres@", "looks_on@") + parameters),
        };
        told.is_what_commands_print(&ledger, &url);
        let by_name = ledger.json(0, &["history", "johndoe123", "--json"]);
        assert_eq!(by_name, told.history);
    }
    assert!(service.stop().success());
    let ledger = Ledger {
        folder: &folder,
        database: Some(database),
    };
    told.is_what_commands_print(&ledger, &url);
    let empty = Ledger {
        folder: &folder,
        database: Some(Postgres::shared().database().await),
    };
    let complaint = empty.refuses(2, &["history", DEMO_USER]);
    assert!(
        complaint.contains("cannot read the ledger of DATABASE_URL"),
        "{complaint}"
    );
}

/// Appends what today's rules would refuse: the registration of the user `hostile`.
pub(crate) async fn append(folder: &Folder, text: &str) {
    let store = SqliteStore::open(&folder.data_dir().join("ledger.db"))
        .await
        .unwrap();
    let expected = store.head().await.unwrap();
    let time = expected.recorded_at;
    let registered = UserRegistered {
        username: "hostile".to_owned(),
        profile: Profile {
            bio: Some(text.to_owned()),
            interests: vec![text.to_owned()],
            ..Profile::default()
        },
        country_code: None,
        phone_number: None,
        consents: Consents::default(),
        is_registration_complete: true,
        roles: Vec::new(),
        last_login: None,
    };
    let recorded = Recorded {
        position: expected.position + 1,
        event_id: EventId::new(time, [1; 10]),
        user_id: UserId::new(time, [1; 8]),
        version: 1,
        time,
        recorded_at: time,
        previous: None,
        context: Context {
            actor_type: text.to_owned(),
            actor: text.to_owned(),
            device_id: Some(text.to_owned()),
            ..Context::default()
        },
        event: UserEvent::UserRegistered(Box::new(registered)),
    };
    let batch = Batch {
        expected,
        recorded_at: time,
        claims: claims_of(&recorded.user_id, &recorded.event),
        events: vec![recorded.to_stored()],
        outcomes: Vec::new(),
    };
    store.append(&batch).await.unwrap();
}

#[tokio::test]
async fn a_page_begins_at_either_end_and_says_how_to_go_on() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    for name in ["Johnny", "Jack", "Jim", "Joe"] {
        put(&service, name, "").await;
    }
    let versions = |arguments: &[&str]| {
        let arguments = [&["history", DEMO_USER, "--json"], arguments].concat();
        let events = ledger.json(0, &arguments);
        let versions = events
            .iter()
            .map(|event| event["version"].as_u64().unwrap());
        versions.collect::<Vec<_>>()
    };
    assert_eq!(versions(&[]), [1, 2, 3, 4, 5]);
    assert_eq!(versions(&["--limit=2"]), [1, 2]);
    assert_eq!(versions(&["--limit=2", "--after=2"]), [3, 4]);
    assert_eq!(versions(&["--newest-first", "--limit=2"]), [5, 4]);
    assert_eq!(versions(&["--newest-first", "--after=4"]), [3, 2, 1]);
    assert_eq!(versions(&["--after=5"]), [0_u64; 0]);
    let more = "\nMore events follow: continue with --after 2\n";
    let page = ledger.prints(0, &["history", DEMO_USER, "--limit=2"]);
    assert!(page.ends_with(more), "{page}");
    let page = ledger.prints(0, &["history", DEMO_USER, "--limit=5"]);
    assert!(!page.contains("More events follow"), "{page}");
}

#[tokio::test]
async fn a_user_is_shown_as_it_was_at_a_version_a_position_or_a_time() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    put(&service, "Jack", "").await;
    put(&service, "Johnny", "").await;
    let name = |moment: &str| {
        let state = &ledger.json(0, &["state", DEMO_USER, "--json", moment])[0];
        state["document"]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(name("--at-version=1"), "John");
    assert_eq!(name("--at-position=3"), "Johnny");
    let history = ledger.json(0, &["history", DEMO_USER, "--json"]);
    let recorded = history[2]["event"]["recordedtime"].as_str().unwrap();
    assert_eq!(name(&format!("--at={recorded}")), "Johnny");
    // Before the last event, and on the day of it.
    assert_eq!(name(&format!("--at={}", &recorded[..10])), "Johnny");
    for (moment, complaint) in [
        ("--at-version=9", "no version 9; the newest is 3"),
        ("--at-position=9", "no position 9; the newest is 3"),
        (
            "--at-position=0",
            "did not exist yet; it was registered at position 1",
        ),
        (
            "--at=2020-01-01",
            "did not exist yet; it was registered at position 1",
        ),
    ] {
        let refused = ledger.refuses(3, &["state", DEMO_USER, moment]);
        assert!(refused.contains(complaint), "{refused}");
    }
    let refused = ledger.refuses(2, &["state", DEMO_USER, "--at=9998-01-01"]);
    assert!(refused.contains("is in the future"), "{refused}");
    let refused = ledger.refuses(3, &["diff", DEMO_USER, "--from=1", "--to=9"]);
    assert!(
        refused.contains("no version 9; the newest is 3"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_user_is_found_by_its_username_and_by_one_that_only_it_had() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    rename(&service, "johnny").await;
    let told = format!("User {DEMO_USER}");
    for username in ["johnny", "JOHNNY", DEMO_USER] {
        assert!(ledger.prints(0, &["history", username]).starts_with(&told));
    }
    let output = ledger.run(&["state", "johndoe123"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(told.as_bytes()));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("profile-ledger: `johndoe123` is a former username of user {DEMO_USER}\n")
    );
    for nobody in [
        "nobody",
        "507f1f77bcf86cd799439012",
        "",
        "a b",
        "\u{9b}2J",
        "x\u{202e}y",
    ] {
        for arguments in [
            &["history", nobody][..],
            &["state", nobody],
            &["diff", nobody, "--from=1", "--to=1"],
        ] {
            let refused = ledger.refuses(3, arguments);
            assert!(
                refused.contains("no user has or had the id or username `"),
                "{refused}"
            );
            assert!(!refused.contains(['\u{9b}', '\u{202e}']), "{refused}");
        }
    }
}

#[test]
fn bad_arguments_and_a_missing_ledger_are_told_and_nothing_is_made() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    for arguments in [
        &["history"][..],
        &["history", "x", "--limit=0"],
        &["history", "x", "--limit=many"],
        &["history", "x", "--after=-1"],
        &["state", "x", "--at-version=0"],
        &["state", "x", "--at=yesterday"],
        &["state", "x", "--at=2026-13-01"],
        &["state", "x", "--at=2026-01-01", "--at-version=1"],
        &["diff", "x", "--from=1"],
        &["diff", "x", "--from=1", "--to=0"],
        &["export", "--format=xml"],
        &["export", "--from=0"],
        &["export", "--from=99999999999999999999"],
        &["export", "--json"],
    ] {
        let refused = ledger.refuses(2, arguments);
        assert!(refused.starts_with("error: "), "{refused}");
    }
    for arguments in [
        &["history", DEMO_USER][..],
        &["state", DEMO_USER],
        &["diff", DEMO_USER, "--from=1", "--to=1"],
        &["export"],
    ] {
        let refused = ledger.refuses(2, arguments);
        let complaint = "ledger.db: the file does not exist; set --data-dir or --database-url";
        assert!(refused.contains(complaint), "{refused}");
        assert!(!folder.data_dir().exists());
        let help = ledger.prints(0, &[arguments[0], "--help"]);
        for part in ["Usage: ", "Examples:", "Exit codes"] {
            assert!(help.contains(part), "{help}");
        }
    }
}

#[tokio::test]
async fn a_cursor_beyond_the_end_is_refused() {
    let folder = Folder::new();
    let service = folder.start();
    put(&service, "John", "1").await;
    service.stop();
    let ledger = on_files(&folder);
    let to = folder.data_dir().join("copy");
    let to = to.to_str().unwrap();
    for (arguments, told) in [
        (
            &["history", DEMO_USER, "--after", "3"][..],
            "no version 3; the newest is 2",
        ),
        (
            &["history", DEMO_USER, "--newest-first", "--after", "9"],
            "no version 9",
        ),
        (
            &["replay", "--to", to, "--from", "4"],
            "no position 4; the newest is 2",
        ),
        (
            &["replay", "--to", to, "--until", "3"],
            "no position 3; the newest is 2",
        ),
    ] {
        let error = ledger.refuses(3, arguments);
        assert!(error.contains(told), "{error}");
    }
    let error = ledger.refuses(2, &["replay", "--to", to, "--from", "2", "--until", "1"]);
    assert!(
        error.contains("--from must not be after --until"),
        "{error}"
    );
    assert!(!Path::new(to).exists(), "nothing is made");
    // The end itself is where to go on from.
    assert_eq!(
        ledger.prints(0, &["history", DEMO_USER, "--after", "2", "--json"]),
        ""
    );
    let told = ledger.prints(0, &["replay", "--to", to, "--from", "3"]);
    assert!(
        told.starts_with("0 events after position 2 up to 2, "),
        "{told}"
    );
}
