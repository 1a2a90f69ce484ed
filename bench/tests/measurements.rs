//! Runs `profile-ledger-bench` with the service's program, which a build puts beside it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ledger::test_servers::nats::Nats;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(60);

/// The program, without any variable that the test run itself may have.
fn command(folder: &TempDir) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_profile-ledger-bench"));
    let service = program.with_file_name(format!("profile-ledger{}", std::env::consts::EXE_SUFFIX));
    assert!(
        service.is_file(),
        "{} is missing: these tests measure the service, so build it first with `cargo build -p server`, or run \
         `cargo test --workspace`",
        service.display()
    );
    let mut command = Command::new(program);
    for variable in ["DATABASE_URL", "NATS_URL"] {
        command.env_remove(variable);
    }
    command.env("DATA_DIR", folder.path()).stdin(Stdio::null());
    command
}

/// The processes that a process has started.
fn children(process: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter();
    threads
        .flatten()
        .flatten()
        .flat_map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            children
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn is_alive(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect(what);
}

#[tokio::test]
async fn a_measurement_that_is_stopped_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let bench = command(&folder)
        .args(["growth", "--events", "1000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = bench.id();
    let service = || {
        let all = children(process).into_iter();
        all.filter(|child| is_alive(child)).collect::<Vec<_>>()
    };
    until("no service is started", || !service().is_empty()).await;
    let services = service();

    let sent = std::process::Command::new("kill")
        .arg(process.to_string())
        .status();
    assert!(sent.unwrap().success());
    let ended = tokio::task::spawn_blocking(move || bench.wait_with_output().unwrap());
    let output = ended.await.unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{output:?}");
    until("a service is left", || {
        !services.iter().any(|service| is_alive(service))
    })
    .await;
    let left = std::fs::read_dir(folder.path()).unwrap();
    assert_eq!(left.count(), 0, "a folder is left");
}

#[tokio::test]
async fn measurements_end_and_print_their_tables() {
    let nats = Nats::start();
    let published = format!("commands --clients 1 --users 10 --nats-url {}", nats.url());
    let small = [
        "commands --clients 1 --users 10",
        "commands --clients 4 --users 10 --mix 20,20 --open 20",
        &published,
        "reads --clients 1 --users 10",
        "growth --events 1000",
        "history --events 1000",
        "lag --users 100",
    ];
    let mut running = tokio::task::JoinSet::new();
    for what in small.map(str::to_owned) {
        running.spawn_blocking(move || {
            let folder = tempfile::tempdir().unwrap();
            let bench = command(&folder)
                .args(["--rounds", "1", "--seconds", "1"])
                .args(what.split(' '))
                .output()
                .unwrap();
            (what, bench)
        });
    }
    while let Some(done) = running.join_next().await {
        let (what, bench) = done.unwrap();
        let text = String::from_utf8_lossy(&bench.stdout);
        assert!(bench.status.success(), "{what}: {bench:?}");
        assert!(text.contains("\n| "), "{what}: {text}");
    }
}
