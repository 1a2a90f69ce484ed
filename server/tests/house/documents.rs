//! What documents say of the repository is there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{crates, files, root};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn a_crate_readme_lists_every_module_and_no_other() {
    let mut wrong = Vec::new();
    for name in crates().iter().filter(|name| !name.starts_with("samples/")) {
        let folder = root().join(name);
        let readme = read(&format!("{name}/README.md"));
        let named: BTreeSet<&str> = quoted(&readme).collect();
        let source = folder.join("src");
        for file in files(&source) {
            let path = file.strip_prefix(&source).unwrap().to_str().unwrap();
            if !is_code(path) || is_for_tests(path) || ["lib.rs", "main.rs"].contains(&path) {
                continue;
            }
            let mut above = Path::new(path).ancestors().skip(1);
            let is_in_named =
                above.any(|folder| named.contains(format!("{}/", folder.display()).as_str()));
            if !named.contains(path) && !is_in_named {
                wrong.push(format!("{name}/README.md does not name `{path}`"));
            }
        }
        for path in named {
            let is_path = is_code(path) || path.ends_with('/') && !path.starts_with('/');
            let places = [&source, &folder, &root()];
            if is_path
                && !path.contains(' ')
                && !places.iter().any(|place| place.join(path).exists())
            {
                wrong.push(format!(
                    "{name}/README.md names `{path}`, which is not there"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_code(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

fn is_for_tests(path: &str) -> bool {
    let words = [
        "tests",
        "testing",
        "conformance",
        "test_servers",
        "test_ledger",
        "samples",
    ];
    let mut parts = path.trim_end_matches(".rs").split('/');
    parts.any(|part| words.contains(&part))
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let (_, after) = manifest.split_once("[workspace.dependencies]\n").unwrap();
    let (dependencies, _) = after.split_once("\n[").unwrap();
    let lines = dependencies
        .lines()
        .filter(|line| !line.contains("path = "));
    let declared: BTreeSet<&str> = lines
        .filter_map(|line| Some(line.split_once(" = ")?.0))
        .collect();
    let table = read("docs/dependencies.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let reasoned: BTreeSet<&str> = rows
        .filter_map(|row| Some(row.split_once('`')?.0))
        .collect();
    let missing: Vec<_> = declared.difference(&reasoned).collect();
    assert_eq!(missing, [&""; 0], "add a row to docs/dependencies.md");
    let gone: Vec<_> = reasoned.difference(&declared).collect();
    assert_eq!(gone, [&""; 0], "take the row out of docs/dependencies.md");
}

#[test]
fn the_gateway_translates_as_the_service_does() {
    let turkish: serde_json::Value =
        serde_json::from_str(&read("http-kit/src/text/turkish.json")).unwrap();
    let gateway = read("deploy/Caddyfile");
    let mut both = 0;
    for line in gateway.lines() {
        let texts: Vec<_> = line.split('"').skip(1).step_by(2).collect();
        let [english, translated] = texts[..] else {
            continue;
        };
        if let Some(ours) = turkish[english].as_str() {
            assert_eq!(translated, ours, "deploy/Caddyfile: {english}");
            both += 1;
        }
    }
    assert!(both > 0, "the gateway has no sentence of the service");
}

#[test]
fn the_readme_fits_on_a_screen_and_the_map_on_a_few() {
    assert!(
        read("README.md").len() < 6_000,
        "README.md: move the rest to docs/"
    );
    assert!(read("ARCHITECTURE.md").lines().count() < 150);
}

#[test]
fn cargo_run_means_the_service() {
    let manifest = read("Cargo.toml");
    assert!(
        manifest.contains("default-members = [\"server\"]"),
        "another crate with a program would make `cargo run` ask which one"
    );
    assert_eq!(read("server/Cargo.toml").matches("[[bin]]").count(), 1);
}
