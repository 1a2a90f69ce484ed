//! The client in TypeScript, by its own tests, against the real binary.

use std::path::Path;
use std::process::Command;

use crate::service::as_newcomer;

#[track_caller]
fn npm(arguments: &[&str]) {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client = server.parent().unwrap().join("clients/typescript");
    assert!(
        client.join("node_modules").exists(),
        "{}/node_modules is not there: scripts/test makes it, or scripts/clients",
        client.display()
    );
    let output = as_newcomer(&mut Command::new("npm"))
        .args(arguments)
        .current_dir(client)
        .env("PROFILE_LEDGER", env!("CARGO_BIN_EXE_profile-ledger"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_types_of_the_client_are_made_from_the_committed_description() {
    // When they are not: scripts/generate.
    npm(&["run", "--silent", "generate", "--", "--check"]);
}

#[test]
fn the_client_and_its_examples_compile_and_it_passes_its_tests_in_node_and_in_chromium() {
    npm(&["test", "--silent"]);
}
