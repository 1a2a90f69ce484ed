//! How many packages a build needs. A package is slow to build and has to be trusted.

use std::collections::BTreeSet;
use std::process::Command;

use crate::root;

/// The packages that a crate is built from, itself included.
fn packages(name: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-p",
            name,
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "{problem}");
    let lines = String::from_utf8(tree.stdout).unwrap();
    let package = |line: &str| line.trim_end_matches(" (*)").to_owned();
    lines.lines().map(package).collect()
}

#[track_caller]
fn has_at_most(name: &str, most: usize) {
    let count = packages(name).len();
    assert!(
        count <= most,
        "{name} needs {count} packages, more than {most}: `cargo tree -p {name} -e normal,build` shows which"
    );
}

#[test]
fn subscribers_need_few_packages() {
    has_at_most("events", 80);
    has_at_most("subscribe", 180);
}

#[test]
fn the_service_needs_at_most_300_packages() {
    has_at_most("server", 300);
}

#[test]
fn the_contract_knows_no_database_broker_or_http() {
    let packages = packages("events");
    for other in [
        "sqlx",
        "async-nats",
        "object_store",
        "hyper",
        "axum",
        "utoipa",
        "tokio",
        "ledger",
    ] {
        let found = packages
            .iter()
            .find(|package| package.split(' ').next() == Some(other));
        assert_eq!(found, None);
    }
}
