//! A private PostgreSQL server.
//!
//! A small shell program keeps it and waits on a pipe from the test process. When the pipe closes,
//! even by `SIGKILL`, that program stops the server and removes its folder.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Below the ports that systems give to outgoing connections, so nothing takes the port while the
/// server is down.
const FIRST_PORT: u16 = 20_000;
const PORTS: u32 = 12_000;

/// A private PostgreSQL server. Calls block until they are done, and panic on failure.
pub struct Postgres {
    port: u16,
    keeper: Mutex<Keeper>,
    databases: AtomicU32,
}

struct Keeper {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

impl Postgres {
    /// The server shared by all tests of this process. Each test creates its own database in it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server for one test, which may stop and kill it.
    pub fn start() -> Self {
        Self::launch("")
    }

    /// A read-only server that follows this one.
    #[must_use]
    pub fn replica(&self) -> Self {
        Self::launch(&self.port.to_string())
    }

    /// `primary` is the port of the server to follow, or empty.
    fn launch(primary: &str) -> Self {
        // No port is tried twice: the port of another test's server is free while that server is
        // down.
        static TRIED: AtomicU32 = AtomicU32::new(0);
        let mut keeper = Keeper::new(primary);
        let mut port = FIRST_PORT;
        let first = std::process::id().wrapping_mul(13) % PORTS;
        let started = (0..PORTS).any(|_| {
            let n = TRIED.fetch_add(1, Ordering::Relaxed) % PORTS;
            port = FIRST_PORT + u16::try_from((first + n) % PORTS).expect("few ports");
            TcpListener::bind(("127.0.0.1", port)).is_ok() && keeper.obeys(&format!("start {port}"))
        });
        assert!(started, "no port is free for PostgreSQL");
        Self {
            port,
            keeper: Mutex::new(keeper),
            databases: AtomicU32::new(0),
        }
    }

    /// The URL of a database, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        self.database_with("").await
    }

    /// The URL of a new, empty database with options of `CREATE DATABASE`.
    pub async fn database_with(&self, options: &str) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres"))
            .await
            .expect("the test server is there");
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name} {options}")))
            .execute(&mut connection)
            .await
            .expect("the test server makes a database");
        self.url(&name)
    }

    /// Stops the server as an operator does: connections are ended, nothing is lost.
    pub fn stop(&self) {
        self.order("stop");
    }

    /// Kills the server and every process of it with SIGKILL.
    pub fn kill(&self) {
        self.order("kill");
    }

    /// Starts the server again, on the same data and port.
    pub fn start_again(&self) {
        self.order(&format!("start {}", self.port));
    }

    /// Suspends every process of the server: it does not answer, but connections stay open.
    pub fn freeze(&self) {
        self.order("freeze");
    }

    /// Resumes a suspended server.
    pub fn thaw(&self) {
        self.order("thaw");
    }

    fn order(&self, command: &str) {
        let mut keeper = self.keeper.lock().expect("no order panicked");
        assert!(keeper.obeys(command), "PostgreSQL: {command} failed");
    }
}

impl Keeper {
    fn new(primary: &str) -> Self {
        // PostgreSQL refuses to run as root.
        let mut command = if output_of("id", &["-u"]) == "0" {
            let mut command = Command::new("setpriv");
            let group = output_of("id", &["-g", "nobody"]);
            command
                .args(["--reuid=nobody", "--clear-groups", "--regid"])
                .arg(group)
                .arg("sh");
            command
        } else {
            Command::new("sh")
        };
        let mut process = command
            .args(["-c", include_str!("postgres.sh"), "postgres.sh"])
            .arg(binaries())
            .arg(primary)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the keyboard is for the test process alone.
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        let mut keeper = Self {
            commands: process.stdin.take().expect("piped"),
            answers: BufReader::new(process.stdout.take().expect("piped")),
            _process: process,
        };
        assert!(keeper.answers_done(), "the server's files cannot be made");
        keeper
    }

    fn obeys(&mut self, command: &str) -> bool {
        writeln!(self.commands, "{command}").expect("the keeper of PostgreSQL lives");
        self.answers_done()
    }

    fn answers_done(&mut self) -> bool {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the keeper of PostgreSQL answers");
        line.trim_end() == "done"
    }
}

/// The folder of `initdb` and `postgres`: from the search path, or the newest that Debian installs.
fn binaries() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    installed.sort_unstable_by(|a, b| b.cmp(a));
    std::env::split_paths(&path)
        .chain(installed.into_iter().map(|(_, folder)| folder))
        // A link on the search path leads to the folder of the other programs.
        .filter_map(|folder| folder.join("initdb").canonicalize().ok())
        .filter_map(|initdb| Some(initdb.parent()?.to_owned()))
        .find(|folder| folder.join("postgres").is_file())
        .expect(
            "these tests start a private PostgreSQL: install it (Debian: postgresql), or put the folder of initdb into PATH",
        )
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
