//! What goes wrong: faults in an order that the seed decides, each one healed before the next.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use ledger::fail_point::FailPoint;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use sqlx::{Connection as _, PgConnection};
use tokio::task::block_in_place;

use super::proxy::Network;
use super::system::{Role, System, signal};
use crate::service::DEADLINE;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of one process of a role.
    Kill(Role),
    /// All processes of a role end at a fail point, one after the other.
    FailPoint(Role, FailPoint),
    /// One process stands still for a while, and then goes on as if nothing had been.
    Pause(Role),
    /// `kill -9` of every process of PostgreSQL.
    KillPostgres,
    /// `kill -9` of one connection's process: PostgreSQL ends all others and recovers.
    KillBackend,
    /// PostgreSQL stands still.
    FreezePostgres,
    /// Connections to PostgreSQL end.
    CutPostgres,
    /// Connections to PostgreSQL carry nothing.
    SilencePostgres,
    /// `kill -9` of nats-server.
    KillNats,
    /// nats-server comes back with the files of some time before.
    RollNatsBack,
    /// Connections to NATS end.
    CutNats,
    /// Connections to NATS carry nothing.
    SilenceNats,
    /// `kill -9` of both servers.
    KillServers,
    /// `kill -9` of everything.
    KillEverything,
    /// The clock of some processes goes an hour ahead, and back.
    TurnClock,
    /// No file can be written any further.
    FillDisk,
}

impl Fault {
    pub(crate) fn of_a_stack() -> Vec<Self> {
        let mut faults = vec![
            Self::KillPostgres,
            Self::KillBackend,
            Self::FreezePostgres,
            Self::CutPostgres,
            Self::SilencePostgres,
            Self::KillNats,
            Self::RollNatsBack,
            Self::CutNats,
            Self::SilenceNats,
            Self::KillServers,
            Self::KillEverything,
            Self::TurnClock,
        ];
        for role in [Role::CommandApi, Role::Projector, Role::QueryApi] {
            faults.extend([Self::Kill(role), Self::Pause(role)]);
        }
        faults.extend(FailPoint::ALL.map(|place| {
            let role = match place {
                FailPoint::BeforeCommit
                | FailPoint::AfterCommit
                | FailPoint::BeforePublish
                | FailPoint::AfterPublish => Role::CommandApi,
                FailPoint::BeforeApply
                | FailPoint::BeforeCheckpoint
                | FailPoint::AfterCheckpoint => Role::Projector,
            };
            Self::FailPoint(role, place)
        }));
        faults
    }

    pub(crate) fn of_one_process() -> Vec<Self> {
        let mut faults = vec![
            Self::Kill(Role::All),
            Self::Pause(Role::All),
            Self::KillNats,
            Self::CutNats,
            Self::KillEverything,
            Self::TurnClock,
            Self::FillDisk,
        ];
        faults.extend(FailPoint::ALL.map(|place| Self::FailPoint(Role::All, place)));
        faults
    }
}

/// Strikes a system.
pub(crate) struct Nemesis {
    system: System,
    faults: Vec<Fault>,
    /// What comes next, last first. Every fault comes once before any comes again.
    coming: Vec<Fault>,
    struck: BTreeMap<String, u32>,
    random: StdRng,
}

impl Nemesis {
    pub(crate) fn new(system: System, faults: Vec<Fault>, random: StdRng) -> Self {
        Self {
            system,
            faults,
            coming: Vec::new(),
            struck: BTreeMap::new(),
            random,
        }
    }

    /// The system, with everything healed, and how often each fault struck.
    pub(crate) fn rest(self) -> (System, String) {
        let struck: Vec<String> = self
            .struck
            .iter()
            .map(|(fault, times)| format!("{fault} {times}"))
            .collect();
        (self.system, struck.join(", "))
    }

    /// One fault, from its beginning to its end.
    pub(crate) async fn strike(&mut self) -> Result<(), String> {
        if self.coming.is_empty() {
            self.coming.clone_from(&self.faults);
            self.coming.shuffle(&mut self.random);
        }
        let fault = self.coming.pop().expect("there are faults");
        *self.struck.entry(format!("{fault:?}")).or_default() += 1;
        let role = match fault {
            Fault::Kill(role) | Fault::FailPoint(role, _) | Fault::Pause(role) => role,
            _ => Role::All,
        };
        let of_role: Vec<usize> = (0..self.system.processes.len())
            .filter(|n| self.system.processes[*n].role == role)
            .collect();
        let victim = match of_role.len() {
            0 => 0,
            several => of_role[self.random.random_range(0..several)],
        };
        match fault {
            Fault::Kill(_) => {
                self.system.processes[victim].kill();
                self.wait().await;
                self.system.start(victim, None);
            }
            Fault::FailPoint(_, place) => self.end_at(place, &of_role).await?,
            Fault::Pause(_) => {
                let pid = self.system.processes[victim].pid().expect("it runs");
                signal("STOP", pid);
                self.wait().await;
                signal("CONT", pid);
            }
            Fault::KillEverything => {
                for process in &mut self.system.processes {
                    process.kill();
                }
                self.kill_postgres();
                self.kill_nats();
                self.wait().await;
                self.start_postgres();
                self.start_nats();
            }
            Fault::TurnClock => {
                self.system.set_clock("+3600");
                // The clock is looked at once a second.
                tokio::time::sleep(Duration::from_secs(2)).await;
                self.system.set_clock("+0");
            }
            Fault::FillDisk => {
                let pid = self.system.processes[victim].pid().expect("it runs");
                limit_files(pid, "1024");
                self.wait().await;
                limit_files(pid, "unlimited");
            }
            _ => self.strike_server(fault).await,
        }
        self.start_what_has_ended();
        Ok(())
    }

    /// A fault of PostgreSQL, of NATS, or of the network to them.
    async fn strike_server(&mut self, fault: Fault) {
        match fault {
            Fault::KillPostgres => {
                self.kill_postgres();
                self.wait().await;
                self.start_postgres();
            }
            Fault::KillBackend => self.kill_backend().await,
            Fault::FreezePostgres => {
                block_in_place(|| self.database().server.freeze());
                self.wait().await;
                block_in_place(|| self.database().server.thaw());
            }
            Fault::CutPostgres => {
                self.database().network.set(Network::Cut);
                self.wait().await;
                self.database().network.set(Network::Whole);
            }
            Fault::SilencePostgres => {
                self.database().network.set(Network::Silent);
                self.wait().await;
                self.database().network.set(Network::Whole);
            }
            Fault::KillNats => {
                self.kill_nats();
                self.wait().await;
                self.start_nats();
            }
            Fault::RollNatsBack => {
                let copy = tempfile::tempdir().unwrap();
                let copy = copy.path().join("copy");
                self.kill_nats();
                self.nats().copy_to(&copy);
                self.start_nats();
                self.wait().await;
                self.kill_nats();
                self.nats().roll_back_to(&copy);
                self.start_nats();
            }
            Fault::CutNats => {
                self.nats_network(Network::Cut);
                self.wait().await;
                self.nats_network(Network::Whole);
            }
            Fault::SilenceNats => {
                self.nats_network(Network::Silent);
                self.wait().await;
                self.nats_network(Network::Whole);
            }
            Fault::KillServers => {
                self.kill_postgres();
                self.kill_nats();
                self.wait().await;
                self.start_postgres();
                self.start_nats();
            }
            _ => unreachable!("{fault:?} is a fault of processes"),
        }
    }

    /// Some processes end by themselves, for a database that is away at their start, say.
    fn start_what_has_ended(&mut self) {
        for n in 0..self.system.processes.len() {
            if self.system.processes[n].has_ended() {
                self.system.start(n, None);
            }
        }
    }

    /// Long enough for clients to notice, and sometimes for every time-out.
    async fn wait(&mut self) {
        let millis = if self.random.random_bool(0.15) {
            self.random.random_range(3_000..7_000)
        } else {
            self.random.random_range(100..1_200)
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Starts the processes of a role again, such that they end at a place, and waits until one has.
    async fn end_at(&mut self, place: FailPoint, of_role: &[usize]) -> Result<(), String> {
        for n in of_role {
            self.system.processes[*n].kill();
            let times = self.random.random_range(1..30);
            let fail_point = format!("{}:{times}", place.name());
            self.system.start(*n, Some(&fail_point));
        }
        let processes = &mut self.system.processes;
        let ended = async {
            while !of_role.iter().any(|n| processes[*n].has_ended()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, ended).await;
        ended.map_err(|_| format!("nobody comes to {place:?}"))?;
        for n in of_role {
            self.system.processes[*n].kill();
        }
        Ok(())
    }

    fn database(&self) -> &super::system::Database {
        self.system
            .database
            .as_ref()
            .expect("the stack has PostgreSQL")
    }

    fn kill_postgres(&self) {
        if let Some(database) = &self.system.database {
            block_in_place(|| database.server.kill());
        }
    }

    fn start_postgres(&self) {
        if let Some(database) = &self.system.database {
            block_in_place(|| database.server.start_again());
        }
    }

    async fn kill_backend(&self) {
        let mut connection = PgConnection::connect(&self.database().url).await.unwrap();
        let backends: Vec<i32> = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        if let Some(pid) = backends.first() {
            signal("KILL", u32::try_from(*pid).unwrap());
        }
    }

    fn nats(&mut self) -> &mut ledger::test_servers::Nats {
        &mut self
            .system
            .broker
            .as_mut()
            .expect("there is a broker")
            .server
    }

    fn kill_nats(&mut self) {
        block_in_place(|| self.nats().kill());
    }

    fn start_nats(&mut self) {
        block_in_place(|| self.nats().start_again());
    }

    fn nats_network(&self, network: Network) {
        let broker = self.system.broker.as_ref().expect("there is a broker");
        broker.network.set(network);
    }
}

/// Lets no write of a process pass a size of files, as if the disk were full.
fn limit_files(pid: u32, bytes: &str) {
    let _ = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:")])
        .output()
        .expect("prlimit is part of util-linux");
}
