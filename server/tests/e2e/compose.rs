//! `compose.yaml`, as far as it can be told without containers.

use std::path::Path;
use std::process::{Command, Output};

use crate::stack::{repository, script};

/// What `config` of Compose makes of the file, with the plugin of today or the program of before.
fn config(env_file: &Path) -> Output {
    let has_plugin = Command::new("docker")
        .args(["compose", "version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command = if has_plugin {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    } else {
        Command::new("docker-compose")
    };
    command
        .current_dir(repository())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .arg("--env-file")
        .arg(env_file)
        .args(["--file", "compose.yaml", "config"])
        .output()
        .expect("Compose is installed (Debian: docker-compose)")
}

fn secrets() -> String {
    let made = Command::new(script()).arg("secrets").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap()
}

#[test]
fn compose_takes_the_file_and_publishes_the_gateway_alone() {
    let folder = tempfile::tempdir().unwrap();
    let env_file = folder.path().join("env");
    std::fs::write(&env_file, secrets()).unwrap();
    let config = config(&env_file);
    let error = String::from_utf8_lossy(&config.stderr);
    assert!(config.status.success(), "{error}");
    let config = String::from_utf8(config.stdout).unwrap();
    for service in [
        "postgres",
        "nats",
        "migrate",
        "grants",
        "command-api-1",
        "command-api-2",
        "projector-1",
        "projector-2",
        "query-api-1",
        "query-api-2",
        "gateway",
    ] {
        assert!(config.contains(&format!("\n  {service}:\n")), "{service}");
    }
    assert_eq!(config.matches("\n    ports:\n").count(), 1, "{config}");
}

#[test]
fn compose_refuses_to_run_without_any_one_of_the_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let env_file = folder.path().join("env");
    let secrets = secrets();
    let is_secret = |line: &&str| line.starts_with(char::is_uppercase);
    let names = secrets.lines().filter(is_secret);
    let mut asked = 0;
    for name in names.map(|line| line.split_once('=').unwrap().0) {
        let without = |line: &&str| !line.starts_with(&format!("{name}="));
        let lines: Vec<_> = secrets.lines().filter(without).collect();
        std::fs::write(&env_file, lines.join("\n")).unwrap();
        let refused = config(&env_file);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{name}");
        assert!(error.contains("scripts/stack secrets"), "{name}: {error}");
        asked += 1;
    }
    assert_eq!(asked, 7);
}

#[test]
fn every_image_has_a_version() {
    let file = std::fs::read_to_string(repository().join("compose.yaml")).unwrap();
    let images = file
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "));
    let images: Vec<_> = images
        .filter(|image| *image != "profile-ledger:local")
        .collect();
    assert!(images.len() >= 4, "{images:?}");
    for image in images {
        let (_, version) = image.split_once(':').expect(image);
        let version = version.trim_start_matches('v');
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{image}");
        assert!(version.contains('.'), "{image}");
    }
}
