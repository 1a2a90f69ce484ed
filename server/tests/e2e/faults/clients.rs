//! Clients: each sends commands with ids of its own, tries again as a client may, reads with tokens, and
//! writes down everything it was told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::{Position, UserId, Version};
use jsonwebtoken::{EncodingKey, Header};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::system::{Address, Role, SECRET, System};
use crate::service::DEADLINE;

const WORKERS: u64 = 8;
/// How long a client waits for an answer before it no longer knows what happened.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a command with a key is sent before the client gives up.
const ATTEMPTS: u32 = 8;
/// Usernames that all clients want.
const NAMES: u32 = 400;
/// Users that a client acts as at the most, beside the common one; for a further one it forgets another.
const USERS: usize = 5;

/// What a client asked for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Register {
        username: String,
    },
    /// The biography is the id of the operation.
    Profile,
    Username {
        username: String,
    },
    Photo {
        colour: [u8; 3],
    },
}

/// What a client was told about a command.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Done {
        position: Position,
        version: Version,
        profile: Value,
        was_replayed: bool,
    },
    Refused {
        code: String,
    },
    /// No answer, or one that promises nothing.
    Unknown,
}

/// A command, from its first sending to its last answer.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// Its `X-Request-ID`, and its `Idempotency-Key` if it has one.
    pub(crate) id: String,
    pub(crate) user: UserId,
    pub(crate) request: Request,
    pub(crate) has_key: bool,
    pub(crate) if_match: Option<Version>,
    /// In the order they came.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) began: Instant,
    /// When the client knew.
    pub(crate) ended: Instant,
}

/// A read of one's own profile with a position that it must have reached, and that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) user: UserId,
    /// The least position that was asked for.
    pub(crate) asked: Position,
    /// The version that this client knew of before, at or before that position.
    pub(crate) known: Version,
    /// What it got; `None` is "no such user".
    pub(crate) got: Option<(Version, Value)>,
}

/// Everything that clients asked for and were told.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    pub(crate) reads: Vec<Read>,
}

/// The running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    workers: JoinSet<History>,
}

struct Shared {
    commands: Vec<Address>,
    queries: Vec<Address>,
    http: reqwest::Client,
    answered: AtomicU64,
    /// A user whom all clients change.
    common: Mutex<Option<UserId>>,
}

impl Load {
    /// Starts clients and waits until the service answers them.
    pub(crate) async fn start(system: &System, random: &mut StdRng) -> Self {
        let shared = Arc::new(Shared {
            commands: system.addresses(Role::CommandApi),
            queries: system.addresses(Role::QueryApi),
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            answered: AtomicU64::new(0),
            common: Mutex::new(None),
        });
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for n in 0..WORKERS {
            let worker = Worker {
                n,
                shared: Arc::clone(&shared),
                random: StdRng::seed_from_u64(random.random()),
                history: History::default(),
                sessions: Vec::new(),
                operations: 0,
            };
            workers.spawn(worker.run(stopped.clone()));
        }
        let load = Self {
            shared,
            stop,
            workers,
        };
        load.is_answered_again().await.unwrap();
        load
    }

    /// Waits until a few more commands are acknowledged: the service has healed.
    pub(crate) async fn is_answered_again(&self) -> Result<(), String> {
        let wanted = self.shared.answered.load(Ordering::Relaxed) + 2 * WORKERS;
        let answered = async {
            while self.shared.answered.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered
            .map_err(|_| "no command is answered any more: the service does not heal".to_owned())
    }

    /// Lets the clients finish what they have begun.
    pub(crate) async fn stop(self) -> History {
        self.stop.send_replace(true);
        let mut history = History::default();
        for part in self.workers.join_all().await {
            history.operations.extend(part.operations);
            history.reads.extend(part.reads);
        }
        history
    }
}

/// A user whom a client acts as, and what this client knows of it.
struct Session {
    user: UserId,
    token: String,
    position: Position,
    version: Version,
}

struct Worker {
    n: u64,
    shared: Arc<Shared>,
    random: StdRng,
    history: History,
    sessions: Vec<Session>,
    operations: u64,
}

impl Worker {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> History {
        while !*stop.borrow_and_update() {
            self.adopt_common_user();
            if self.sessions.is_empty() {
                self.register().await;
                continue;
            }
            match self.random.random_range(0..100) {
                0..8 => self.register().await,
                8..60 => self.change(Request::Profile).await,
                60..68 => {
                    let username = self.name();
                    self.change(Request::Username { username }).await;
                }
                68..70 => {
                    let colour = self.random.random();
                    self.change(Request::Photo { colour }).await;
                }
                70..78 => self.repeat().await,
                _ => {
                    let n = self.random.random_range(0..self.sessions.len());
                    self.read(n).await;
                }
            }
        }
        self.history
    }

    /// Names are few, so that clients want the same ones at the same time.
    fn name(&mut self) -> String {
        format!("name{}", self.random.random_range(0..NAMES))
    }

    fn adopt_common_user(&mut self) {
        let common = *self.shared.common.lock().unwrap();
        if let Some(user) = common
            && !self.sessions.iter().any(|session| session.user == user)
        {
            self.sessions.push(Session {
                user,
                token: token(&user.to_string(), "user"),
                position: 0,
                version: 0,
            });
        }
    }

    fn operation(&mut self, user: UserId, request: Request) -> Operation {
        self.operations += 1;
        let now = Instant::now();
        Operation {
            id: format!("w{}-{}", self.n, self.operations),
            user,
            request,
            has_key: self.random.random_bool(0.8),
            if_match: None,
            outcomes: Vec::new(),
            began: now,
            ended: now,
        }
    }

    async fn register(&mut self) {
        let user: UserId = hex::encode(self.random.random::<[u8; 12]>())
            .parse()
            .unwrap();
        let username = self.name();
        let operation = self.operation(user, Request::Register { username });
        let operation = self.perform(operation, &token("sign-up", "service")).await;
        if let Some(Outcome::Done {
            position, version, ..
        }) = operation.outcomes.last()
        {
            if self.sessions.len() == USERS {
                let forgotten = self.random.random_range(0..USERS);
                self.sessions.swap_remove(forgotten);
            }
            self.sessions.push(Session {
                user,
                token: token(&user.to_string(), "user"),
                position: *position,
                version: *version,
            });
            self.shared.common.lock().unwrap().get_or_insert(user);
        }
        self.history.operations.push(operation);
    }

    async fn change(&mut self, request: Request) {
        let n = self.random.random_range(0..self.sessions.len());
        let session = &self.sessions[n];
        let (user, token, version) = (session.user, session.token.clone(), session.version);
        let mut operation = self.operation(user, request);
        if version > 0 && self.random.random_bool(0.2) {
            operation.if_match = Some(version);
        }
        let operation = self.perform(operation, &token).await;
        if let Some(Outcome::Done {
            position, version, ..
        }) = operation.outcomes.last()
        {
            let session = &mut self.sessions[n];
            session.position = session.position.max(*position);
            session.version = session.version.max(*version);
        }
        self.history.operations.push(operation);
        if self.random.random_bool(0.3) {
            self.read(n).await;
        }
    }

    /// Sends an earlier command with a key once more, as a client does that lost its memory.
    async fn repeat(&mut self) {
        if self.history.operations.is_empty() {
            return;
        }
        let n = self.random.random_range(0..self.history.operations.len());
        let operation = &self.history.operations[n];
        if !operation.has_key {
            return;
        }
        let token = match operation.request {
            Request::Register { .. } => token("sign-up", "service"),
            _ => token(&operation.user.to_string(), "user"),
        };
        let outcome = send(&self.shared, &mut self.random, operation, &token).await;
        let operation = &mut self.history.operations[n];
        let is_known = |outcome: &Outcome| !matches!(outcome, Outcome::Unknown);
        if !operation.outcomes.iter().any(is_known) {
            operation.ended = Instant::now();
        }
        operation.outcomes.push(outcome);
    }

    async fn perform(&mut self, mut operation: Operation, token: &str) -> Operation {
        let attempts = if operation.has_key { ATTEMPTS } else { 1 };
        for attempt in 1..=attempts {
            let outcome = send(&self.shared, &mut self.random, &operation, token).await;
            let is_known = !matches!(outcome, Outcome::Unknown);
            operation.outcomes.push(outcome);
            if is_known {
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                break;
            }
            tokio::time::sleep(Duration::from_millis(50) * attempt).await;
        }
        operation.ended = Instant::now();
        operation
    }

    async fn read(&mut self, n: usize) {
        let session = &self.sessions[n];
        let (asked, known, user) = (session.position, session.version, session.user);
        let path = format!("/api/v1/users/profile?minPosition={asked}");
        let address = pick(&self.shared.queries, &mut self.random);
        let Some(url) = address else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        };
        let request = self
            .shared
            .http
            .get(url + path.as_str())
            .bearer_auth(&session.token);
        let Ok(response) = request.send().await else {
            return;
        };
        let (status, version, position) = facts(&response);
        let got = match (status, version, position, response.json::<Value>().await) {
            (StatusCode::OK, Some(version), Some(position), Ok(body)) => {
                let session = &mut self.sessions[n];
                session.position = session.position.max(position);
                session.version = session.version.max(version);
                Some((version, body["data"].clone()))
            }
            (StatusCode::NOT_FOUND, ..) => None,
            _ => return,
        };
        self.history.reads.push(Read {
            user,
            asked,
            known,
            got,
        });
    }
}

/// One of some addresses; `None` when that process is down.
fn pick(addresses: &[Address], random: &mut StdRng) -> Option<String> {
    let address = &addresses[random.random_range(0..addresses.len())];
    address.lock().unwrap().clone()
}

fn number<T: std::str::FromStr>(response: &Response, header: &str) -> Option<T> {
    let value = response.headers().get(header)?.to_str().ok()?;
    value.trim_matches('"').parse().ok()
}

fn facts(response: &Response) -> (StatusCode, Option<Version>, Option<Position>) {
    let version = number(response, "etag");
    (
        response.status(),
        version,
        number(response, "ledger-position"),
    )
}

async fn send(shared: &Shared, random: &mut StdRng, operation: &Operation, token: &str) -> Outcome {
    let Some(url) = pick(&shared.commands, random) else {
        return Outcome::Unknown;
    };
    let Ok(response) = request(shared, &url, operation)
        .bearer_auth(token)
        .send()
        .await
    else {
        return Outcome::Unknown;
    };
    let (status, version, position) = facts(&response);
    let was_replayed = response.headers().contains_key("idempotent-replayed");
    let code = response.headers().get("x-error-code");
    let code = code.map(|code| code.to_str().unwrap().to_owned());
    match status {
        StatusCode::OK | StatusCode::CREATED => {
            // The head of the answer is the promise; its body may be cut off.
            let body = response.json::<Value>().await.unwrap_or(Value::Null);
            Outcome::Done {
                position: position.expect("every success says where it is in the ledger"),
                version: version.expect("every success says the version of its user"),
                profile: body["data"].clone(),
                was_replayed,
            }
        }
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::CONFLICT
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::UNPROCESSABLE_ENTITY => Outcome::Refused {
            code: code.expect("every refusal has a code"),
        },
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => Outcome::Unknown,
        other => panic!("a client does not expect {other} for {operation:?}"),
    }
}

fn request(shared: &Shared, url: &str, operation: &Operation) -> RequestBuilder {
    let (method, path) = match operation.request {
        Request::Register { .. } => (Method::POST, "/api/v1/users"),
        Request::Profile => (Method::PUT, "/api/v1/users/profile"),
        Request::Username { .. } => (Method::PATCH, "/api/v1/users/username"),
        Request::Photo { .. } => (Method::PATCH, "/api/v1/users/profile/photo"),
    };
    let mut request = shared
        .http
        .request(method, format!("{url}{path}"))
        .header("x-request-id", &operation.id);
    if operation.has_key {
        request = request.header("idempotency-key", &operation.id);
    }
    if let Some(version) = operation.if_match {
        request = request.header("if-match", format!("\"{version}\""));
    }
    match &operation.request {
        Request::Register { username } => {
            let id = operation.user.to_string();
            request.json(&json!({"_id": id, "username": username, "name": "N", "surname": "S"}))
        }
        Request::Profile => {
            request.json(&json!({"name": "N", "surname": "S", "bio": operation.id}))
        }
        Request::Username { username } => request.json(&json!({"newUsername": username})),
        Request::Photo { colour } => {
            let part = reqwest::multipart::Part::bytes(photo(*colour)).file_name("me.png");
            let form = reqwest::multipart::Form::new().part("file", part);
            request.multipart(form)
        }
    }
}

/// The smallest photo that is allowed, in one colour.
fn photo(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 96, 96);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&colour.repeat(96 * 96)).unwrap();
    writer.finish().unwrap();
    bytes
}

fn token(subject: &str, role: &str) -> String {
    // Far beyond every clock of the test.
    let claims = json!({"sub": subject, "roles": [role], "exp": 4_000_000_000_u64});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}
