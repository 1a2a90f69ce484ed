//! Rules of this repository that a compiler does not check. Each message says what to do.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod documents;
mod imports;
mod packages;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().unwrap().to_owned()
}

/// The crates of the workspace, by folder.
fn crates() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("members = "));
    let quoted = line.unwrap().split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
