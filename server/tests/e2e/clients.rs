//! The client in TypeScript, by its own tests, against the real binary.

use std::path::Path;
use std::process::Command;

use crate::service::as_newcomer;

#[test]
fn the_typescript_client_is_made_from_the_description_and_passes_its_tests_in_node_and_in_chromium()
{
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client = server.parent().unwrap().join("clients/typescript");
    assert!(
        client.join("node_modules").exists(),
        "{}/node_modules is not there: scripts/test makes it, or scripts/clients",
        client.display()
    );
    let mut npm = Command::new("npm");
    let output = as_newcomer(&mut npm)
        .args(["test", "--silent"])
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
