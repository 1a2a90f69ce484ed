//! Users whose events wait: listed, folded again and reported, on the command line and beside the service.

use std::process::{Command, Output};

use events::envelope::Previous;
use events::{EventId, UserEvent, UserId};
use ledger::store::postgres::PostgresStore;
use ledger::store::sqlite::SqliteStore;
use ledger::store::{Batch, EventStore, claims_of};
use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::service::{DEADLINE, DEMO_USER, Folder, Service, command, send};

struct Data {
    folder: Folder,
    database: Option<String>,
}

impl Data {
    async fn all() -> [Self; 2] {
        [None, Some(Postgres::shared().database().await)].map(|database| Self {
            folder: Folder::new(),
            database,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.folder.data_dir());
        command.args(arguments);
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database);
        }
        command
    }

    fn start(&self) -> Service {
        self.folder.start_with(self.command(&[]))
    }

    /// The JSON that a command prints, with its exit code.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.command(arguments).arg("--json").output().unwrap();
        let value = serde_json::from_slice(&output.stdout);
        let value = value.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().unwrap(), value)
    }

    fn text(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, .. } = self.command(arguments).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap())
    }

    async fn execute(&self, statements: &str) {
        let statements = AssertSqlSafe(statements.to_owned());
        if let Some(url) = &self.database {
            let mut owner = PgConnection::connect(url).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe("SET search_path = read_model".to_owned()))
                .execute(&mut owner)
                .await
                .unwrap();
            sqlx::raw_sql(statements).execute(&mut owner).await.unwrap();
        } else {
            let path = self.folder.data_dir().join("read-model.db");
            let url = format!("sqlite://{}", path.display());
            let mut owner = SqliteConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(statements).execute(&mut owner).await.unwrap();
        }
    }

    /// Registers the demo user once more, which no command would and nobody can fold. Where that is.
    async fn register_again(&self) -> u64 {
        if let Some(url) = &self.database {
            register_again(&PostgresStore::open(url).await.unwrap()).await
        } else {
            register_again_in(&self.folder).await
        }
    }
}

/// Registers the demo user once more in files that no service has open. Where that is.
pub(crate) async fn register_again_in(folder: &Folder) -> u64 {
    let path = folder.data_dir().join("ledger.db");
    register_again(&SqliteStore::open(&path).await.unwrap()).await
}

async fn register_again(store: &dyn EventStore) -> u64 {
    let user: UserId = DEMO_USER.parse().unwrap();
    let events = store.read_user(&user, 0, 100).await.unwrap();
    let (first, last) = (events.first().unwrap(), events.last().unwrap());
    let expected = store.head().await.unwrap();
    let mut again = first.decode().unwrap();
    assert!(matches!(again.event, UserEvent::UserRegistered(_)));
    again.position = expected.position + 1;
    again.version = last.version + 1;
    again.event_id = EventId::new(expected.recorded_at, [1; 10]);
    again.recorded_at = expected.recorded_at;
    again.previous = Some(Previous {
        position: last.position,
        hash: last.leaf_hash,
    });
    let batch = Batch {
        recorded_at: expected.recorded_at,
        events: vec![again.to_stored()],
        claims: claims_of(&user, &again.event),
        outcomes: Vec::new(),
        expected,
    };
    store.append(&batch).await.unwrap();
    again.position
}

async fn put(service: &Service, bio: &str) -> u64 {
    let token = service.token(DEMO_USER, "user");
    let body = json!({"name": "John", "surname": "Doe", "bio": bio});
    let answer = service
        .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.header("ledger-position").parse().unwrap()
}

async fn read_at(service: &Service, position: u64) -> Value {
    let token = service.token(DEMO_USER, "user");
    let path = format!("/api/v1/users/profile?minPosition={position}");
    service.get(&path, &token).await.data().clone()
}

/// Waits until the service has folded what there is, up to who waits.
pub(crate) async fn parked_users(service: &Service, wanted: u64) {
    let seen = async {
        loop {
            let ready = send(service.request(Method::GET, "/readyz")).await.body;
            if ready["parkedUsers"] == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.unwrap();
}

#[tokio::test]
async fn without_any_the_list_is_empty() {
    for data in Data::all().await {
        let _service = data.start();
        for arguments in [&["parked"][..], &["parked", "--retry"]] {
            let nobody = json!({"parked": [], "unparked": []});
            assert_eq!(data.json(arguments), (0, nobody));
        }
        assert_eq!(
            data.text(&["parked"]),
            (0, "0 users are parked\n".to_owned())
        );
    }
}

#[tokio::test]
async fn a_user_that_cannot_be_folded_is_listed_and_reported_and_the_others_go_on() {
    for data in Data::all().await {
        let service = data.start();
        put(&service, "before").await;
        service.stop();
        let position = data.register_again().await;
        let service = data.start();
        parked_users(&service, 1).await;

        let (code, listed) = data.json(&["parked"]);
        assert_eq!(code, 1, "{listed}");
        let parked = &listed["parked"][0];
        assert_eq!(parked["userId"], DEMO_USER);
        assert_eq!(parked["position"], position);
        assert_eq!(parked["error"], "the user is already registered");
        assert!(parked["recordedAt"].is_string(), "{parked}");
        assert_eq!(listed["parked"].as_array().unwrap().len(), 1);
        // Tried again beside the service: it still cannot be folded, and nothing else is lost.
        let (code, retried) = data.json(&["parked", "--retry"]);
        assert_eq!((code, &retried), (1, &listed));
        let told = format!("{DEMO_USER} waits from position {position} on: ");
        let (code, text) = data.text(&["parked", "--retry"]);
        assert_eq!(code, 1);
        assert!(text.starts_with(&told), "{text}");
        assert!(text.ends_with("\n1 user is parked\n"), "{text}");
        let (_, rebuilt) = data.json(&["rebuild"]);
        assert_eq!(rebuilt["parked"], listed["parked"]);
        let (code, verified) = data.json(&["verify"]);
        assert_eq!(
            (code, &verified["parkedUsers"]),
            (0, &json!(1)),
            "{verified}"
        );

        let registrar = service.token("sign-up", "service");
        let body = json!({"username": "somebody", "name": "Some", "surname": "Body"});
        let answer = service
            .send_json(Method::POST, "/api/v1/users", &registrar, &body)
            .await;
        let head = answer.header("ledger-position").parse().unwrap();
        assert_eq!(head, position + 1);
        let shown = read_at(&service, head).await;
        assert_eq!(
            shown["bio"], "before",
            "as it was before the event that cannot be folded"
        );
    }
}

/// As an earlier program leaves it that could not read the newest event.
#[tokio::test]
async fn a_user_whose_event_folds_by_now_is_named_and_comes_back_when_tried_again() {
    for data in Data::all().await {
        let service = data.start();
        read_at(&service, put(&service, "before").await).await;
        data.execute("CREATE TABLE before AS SELECT * FROM users")
            .await;
        let position = put(&service, "after").await;
        read_at(&service, position).await;
        service.stop();
        data.execute(&format!(
            "DELETE FROM users; INSERT INTO users SELECT * FROM before; DROP TABLE before; \
             INSERT INTO parked_users SELECT user_id, {position}, 'a newer event', 0 FROM users"
        ))
        .await;
        let (code, verified) = data.json(&["verify"]);
        assert_eq!(
            (code, &verified["fault"]["firstPosition"]),
            (1, &json!(position))
        );
        let (code, listed) = data.json(&["parked"]);
        assert_eq!(
            (code, &listed["parked"][0]["position"]),
            (1, &json!(position))
        );

        let (code, retried) = data.json(&["parked", "--retry"]);
        assert_eq!(code, 0);
        assert_eq!(retried["parked"], json!([]));
        assert_eq!(retried["unparked"], listed["parked"]);
        assert_eq!(data.json(&["verify"]).0, 0);
        let service = data.start();
        assert_eq!(read_at(&service, position).await["bio"], "after");
    }
}
