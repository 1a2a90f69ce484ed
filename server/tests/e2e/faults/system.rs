//! What is attacked: the processes of the service, its servers, and the network between them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use events::envelope::StoredEvent;
use events::{UserEvent, UserId};
use ledger::store::EventStore;
use ledger::store::postgres::PostgresStore;
use ledger::store::sqlite::SqliteStore;
use ledger::test_servers::nats::Nats;
use ledger::test_servers::postgres::Postgres;
use projector::read_model::ReadModel;
use projector::read_model::postgres::PostgresReadModel;
use projector::read_model::sqlite::SqliteReadModel;
use serde_json::Value;

use super::checker::{Evidence, Message};
use super::clients::History;
use super::proxy::Proxy;
use crate::service::{self, DEADLINE, Folder};

/// What signs the tokens of a run.
pub(crate) const SECRET: &str = "a secret of the fault tests, of 32 bytes and more";

/// Where a process can be reached; `None` while it is down.
pub(crate) type Address = Arc<Mutex<Option<String>>>;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    CommandApi,
    Projector,
    QueryApi,
    All,
}

impl Role {
    fn argument(self) -> Option<&'static str> {
        match self {
            Self::CommandApi => Some("command-api"),
            Self::Projector => Some("projector"),
            Self::QueryApi => Some("query-api"),
            Self::All => None,
        }
    }
}

/// A process that dies and is started again.
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) address: Address,
    /// Whether its clock is the one that can be set.
    has_clock: bool,
    child: Option<Child>,
}

impl Process {
    fn new(role: Role, has_clock: bool) -> Self {
        Self {
            role,
            address: Address::default(),
            has_clock,
            child: None,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it has ended; then it can be started again.
    pub(crate) fn has_ended(&mut self) -> bool {
        let ended = match &mut self.child {
            Some(child) => child.try_wait().unwrap().is_some(),
            None => true,
        };
        if ended {
            self.child = None;
            *self.address.lock().unwrap() = None;
        }
        ended
    }

    pub(crate) fn kill(&mut self) {
        *self.address.lock().unwrap() = None;
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn terminate(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        signal("TERM", child.id());
        Some(child.wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal; a process that is gone is none of it.
pub(crate) fn signal(signal: &str, pid: u32) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

/// PostgreSQL, and the network to it.
pub(crate) struct Database {
    pub(crate) server: Postgres,
    pub(crate) network: Proxy,
    /// Past the proxy.
    pub(crate) url: String,
    through_proxy: String,
}

/// NATS, and the network to it.
pub(crate) struct Broker {
    pub(crate) server: Nats,
    pub(crate) network: Proxy,
}

/// The service, as it runs on one machine or many.
pub(crate) struct System {
    folder: Folder,
    pub(crate) processes: Vec<Process>,
    pub(crate) database: Option<Database>,
    pub(crate) broker: Option<Broker>,
}

impl System {
    /// Two processes of each role on PostgreSQL and NATS.
    pub(crate) async fn stack() -> Self {
        let server = Postgres::start();
        let url = server.database().await;
        let real = url.split(['@', '/']).nth(3).unwrap().to_owned();
        let network = Proxy::to(real.parse().unwrap()).await;
        let through_proxy = url.replace(&real, &network.address.to_string());
        let database = Database {
            server,
            network,
            url,
            through_proxy,
        };
        let server = Nats::start();
        let address: SocketAddr = server.url().replace("nats://", "").parse().unwrap();
        let network = Proxy::to(address).await;
        let broker = Broker { server, network };
        let processes = vec![
            Process::new(Role::CommandApi, true),
            Process::new(Role::CommandApi, false),
            Process::new(Role::Projector, false),
            Process::new(Role::Projector, false),
            Process::new(Role::QueryApi, false),
            Process::new(Role::QueryApi, false),
        ];
        Self::begin(processes, Some(database), Some(broker))
    }

    /// One process on files, which publishes over NATS as well.
    pub(crate) async fn embedded() -> Self {
        let server = Nats::start();
        let address: SocketAddr = server.url().replace("nats://", "").parse().unwrap();
        let network = Proxy::to(address).await;
        let broker = Broker { server, network };
        Self::begin(vec![Process::new(Role::All, true)], None, Some(broker))
    }

    fn begin(processes: Vec<Process>, database: Option<Database>, broker: Option<Broker>) -> Self {
        let mut system = Self {
            folder: Folder::new(),
            processes,
            database,
            broker,
        };
        system.set_clock("+0");
        for n in 0..system.processes.len() {
            system.start(n, None);
        }
        system
    }

    /// Starts a process and does not wait until it serves.
    pub(crate) fn start(&mut self, n: usize, fail_point: Option<&str>) {
        let clock = self.clock();
        let process = &mut self.processes[n];
        assert!(process.child.is_none());
        // A write beyond a limit is an error then, as on a full disk.
        let mut command = Command::new("env");
        service::as_newcomer(&mut command)
            .args(["--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_profile-ledger")])
            .args(process.role.argument())
            .args(["--listen", "127.0.0.1:0"])
            .env("DATA_DIR", self.folder.data_dir())
            .env("PUBLIC_URL", "http://profiles.test")
            .env("JWT_SECRET", SECRET)
            .env_remove("FAIL_POINT");
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", &database.through_proxy);
        }
        if let Some(broker) = &self.broker {
            command.env("NATS_URL", format!("nats://{}", broker.network.address));
        }
        if let Some(fail_point) = fail_point {
            command.env("FAIL_POINT", fail_point);
        }
        if process.has_clock {
            command
                .env("LD_PRELOAD", clock_library())
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DISABLE_SHM", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(self.folder.log_file())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = Arc::clone(&process.address);
        process.child = Some(child);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("is running on ") {
                    let url = rest.split_whitespace().next().unwrap();
                    *address.lock().unwrap() = Some(url.trim_end_matches('.').to_owned());
                }
            }
        });
    }

    fn clock(&self) -> PathBuf {
        self.folder.data_dir().with_file_name("clock")
    }

    /// Moves the clock of some processes away from the real one, by seconds such as `+3600`.
    pub(crate) fn set_clock(&self, offset: &str) {
        let new = self.clock().with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, self.clock()).unwrap();
    }

    /// Where commands, or reads, are answered.
    pub(crate) fn addresses(&self, role: Role) -> Vec<Address> {
        self.processes
            .iter()
            .filter(|process| process.role == role || process.role == Role::All)
            .map(|process| Arc::clone(&process.address))
            .collect()
    }

    /// Copies the log to where it outlives the test.
    pub(crate) fn keep_log(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("faults-{}.log", std::process::id()));
        std::fs::write(&kept, self.folder.log()).unwrap();
        kept
    }

    /// Waits until everything that follows the ledger has reached its head, by what each process says.
    pub(crate) async fn has_caught_up(&self) -> Result<(), String> {
        let mut seen = Vec::new();
        let caught_up = async {
            loop {
                seen.clear();
                for process in &self.processes {
                    seen.push((process.role, readiness(process).await));
                }
                let head = seen[0].1["head"].clone();
                let is_done = head.is_u64()
                    && seen.iter().all(|(_, ready)| {
                        ["head", "applied", "published"]
                            .iter()
                            .filter_map(|member| ready.get(member))
                            .all(|position| *position == head)
                    });
                if is_done {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let caught_up = tokio::time::timeout(DEADLINE, caught_up).await;
        caught_up.map_err(|_| format!("not everything catches up: {seen:?}"))
    }

    /// Reads what is there, while no process runs.
    pub(crate) async fn evidence(&self, history: History) -> Evidence {
        let (ledger, read_model) = self.stores().await;
        let head = ledger.head().await.unwrap().position;
        let mut events = Vec::new();
        loop {
            let after = events
                .last()
                .map_or(0, |event: &StoredEvent| event.position);
            let page = ledger.read(after, 1000).await.unwrap();
            if page.is_empty() {
                break;
            }
            events.extend(page);
        }
        let users: BTreeSet<UserId> = events.iter().map(|event| event.user_id).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let names = names_of(&events);
        Evidence {
            history,
            head,
            claims: ledger.claims(&names).await.unwrap(),
            checkpoint: read_model.checkpoint().await.unwrap(),
            documents: read_model.documents(&users).await.unwrap(),
            parked: read_model.parked().await.unwrap(),
            stream: self.stream().await,
            events,
        }
    }

    async fn stores(&self) -> (Arc<dyn EventStore>, Arc<dyn ReadModel>) {
        if let Some(database) = &self.database {
            return (
                Arc::new(PostgresStore::open(&database.url).await.unwrap()),
                Arc::new(PostgresReadModel::open(&database.url).await.unwrap()),
            );
        }
        let folder = self.folder.data_dir();
        let ledger = SqliteStore::open(&folder.join("ledger.db")).await;
        let read_model = SqliteReadModel::open(&folder.join("read-model.db")).await;
        (Arc::new(ledger.unwrap()), Arc::new(read_model.unwrap()))
    }

    async fn open_stream(&self) -> Option<jetstream::stream::Stream> {
        let broker = self.broker.as_ref().expect("there is a broker");
        let client = async_nats::connect(broker.server.url()).await.unwrap();
        jetstream::new(client).get_stream("PROFILES").await.ok()
    }

    /// Every message of the stream.
    async fn stream(&self) -> Vec<Message> {
        let Some(stream) = self.open_stream().await else {
            return Vec::new();
        };
        let mut messages = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            // What is missing is found missing by the checker.
            if let Ok(message) = stream.get_raw_message(sequence).await {
                messages.push(Message {
                    sequence: message.sequence,
                    subject: message.subject.to_string(),
                    headers: message.headers,
                    payload: message.payload,
                });
            }
        }
        messages
    }

    /// Stops every process as an operator does.
    pub(crate) fn stop(&mut self) {
        for process in &mut self.processes {
            let ended = process.terminate();
            assert!(
                ended.is_none_or(|status| status.success()),
                "{:?}: {ended:?}",
                process.role
            );
        }
    }
}

/// What a process says of itself; `null` when it says nothing.
async fn readiness(process: &Process) -> Value {
    let Some(url) = process.address.lock().unwrap().clone() else {
        return Value::Null;
    };
    match reqwest::get(url + "/readyz").await {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(_) => Value::Null,
    }
}

/// Every username that some events speak of.
fn names_of(events: &[StoredEvent]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for event in events {
        match event.decode().map(|recorded| recorded.event) {
            Ok(UserEvent::UserRegistered(registered)) => names.extend([registered.username]),
            Ok(UserEvent::UsernameChanged(changed)) => {
                names.extend([changed.before, changed.after]);
            }
            Ok(UserEvent::ProfileUpdated(_) | UserEvent::PhotoChanged(_)) | Err(_) => {}
        }
    }
    names.into_iter().collect()
}

fn clock_library() -> PathBuf {
    let mut folders = std::fs::read_dir("/usr/lib").unwrap();
    folders
        .find_map(|folder| {
            let library = folder.ok()?.path().join("faketime/libfaketimeMT.so.1");
            library.is_file().then_some(library)
        })
        .expect("libfaketime is not installed; this test needs it: install the package `faketime`")
}
