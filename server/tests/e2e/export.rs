//! Exports from the command line: whole or not at all, in little memory, whatever ends them.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cli::{append, on_files, put};
use crate::service::{self, DEMO_USER, Folder, command};

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
#[tokio::test]
async fn an_export_is_a_new_file_with_a_manifest_that_says_what_it_is() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    put(&service, "Johnny", "=1+1").await;
    put(&service, "Jack", "=1+1").await;
    let whole = ledger.prints(0, &["export"]);
    assert_eq!(whole.lines().count(), 3);
    let out = tempfile::tempdir().unwrap();
    let out_text = out.path().to_str().unwrap();
    let printed = ledger.prints(0, &["export", "--out", out_text]);
    let path = out.path().join("ledger-1-3.ndjson");
    assert_eq!(
        printed,
        format!("Events 1 to 3 are in {}.\n", path.display())
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    let manifest = std::fs::read(out.path().join("ledger-1-3.ndjson.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let store_id = manifest["storeId"].as_str().unwrap();
    assert_eq!(store_id.len(), 32);
    let mut tree = ledger::merkle::tree::Hasher::default();
    for line in whole.lines() {
        tree.push(events::LeafHash::of(line.as_bytes()).0);
    }
    let wanted = json!({
        "file": "ledger-1-3.ndjson", "format": "ndjson", "count": 3, "first": 1, "last": 3, "storeId": store_id,
        "sha256": hex::encode(Sha256::digest(whole.as_bytes())), "root": hex::encode(tree.root()),
    });
    assert_eq!(manifest, wanted);
    // What is there is left alone.
    let refused = ledger.refuses(2, &["export", "--out", out_text]);
    assert!(
        refused.contains("ledger-1-3.ndjson exists already"),
        "{refused}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    // A part, and what has come since: nothing.
    let part = ledger.json(
        0,
        &[
            "export",
            "--from=2",
            "--until=2",
            "--out",
            out_text,
            "--json",
        ],
    );
    assert_eq!(
        (&part[0]["first"], &part[0]["count"]),
        (&json!(2), &json!(1))
    );
    let written = std::fs::read_to_string(out.path().join("ledger-2-2.ndjson")).unwrap();
    assert_eq!(written.trim_end(), whole.lines().nth(1).unwrap());
    let csv = out.path().join("rest.csv");
    let arguments = [
        "export",
        "--from=4",
        "--format=csv",
        "--json",
        "--out",
        csv.to_str().unwrap(),
    ];
    let nothing = &ledger.json(0, &arguments)[0];
    assert_eq!(
        (&nothing["first"], &nothing["count"]),
        (&json!(null), &json!(0))
    );
    let header = std::fs::read_to_string(&csv).unwrap();
    assert!(header.starts_with("position,version,type,") && header.ends_with(",data\r\n"));
    for arguments in [&["export", "--from=5"][..], &["export", "--until=4"]] {
        assert!(ledger.refuses(3, arguments).contains("the newest is 3"));
    }
    ledger.refuses(2, &["export", "--from=3", "--until=2"]);
    let nowhere = out.path().join("no/such/file");
    ledger.refuses(2, &["export", "--out", nowhere.to_str().unwrap()]);
    let names = files(out.path());
    assert_eq!(names.len(), 6, "three files and their manifests: {names:?}");
}

#[tokio::test]
async fn a_table_has_a_row_an_event_and_no_formula() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    put(&service, "Johnny", "a \"line\",\nand another").await;
    assert!(service.stop().success());
    append(&folder, "=cmd|' /C calc'!A0").await;
    let table = ledger.prints(0, &["export", "--format=csv"]);
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
    let events = ledger.json(0, &["export"]);
    assert_eq!((rows.len(), events.len()), (3, 3));
    for (row, event) in rows.iter().zip(&events) {
        assert_eq!(&row[6], event["id"].as_str().unwrap());
        let data: Value = serde_json::from_str(&row[16]).unwrap();
        assert_eq!(data, event["data"]);
    }
    assert_eq!((&rows[1][9], &rows[1][12]), (DEMO_USER, "phone-1"));
    let safe = "'=cmd|' /C calc'!A0";
    assert_eq!([&rows[2][8], &rows[2][9], &rows[2][12]], [safe; 3]);
}

/// A ledger of 20,000 events of 3 KB.
fn large() -> Folder {
    let folder = Folder::new();
    let bio = "\u{1f600}".repeat(500);
    let mut lines = String::new();
    for n in 0..20_000 {
        writeln!(
            lines,
            r#"{{"username":"user{n}","name":"N","surname":"S","bio":"{bio}"}}"#
        )
        .unwrap();
    }
    let file = folder.file("users.ndjson", lines.as_bytes());
    let mut import = command(&folder.data_dir());
    let imported = import.arg("import").arg(&file).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    folder
}

#[test]
fn a_large_export_needs_little_memory_and_ends_quietly_with_its_reader() {
    let folder = large();
    let ledger = on_files(&folder);
    let mut export = ledger.command(&["export"]);
    let mut process = export
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = process.stdout.take().unwrap();
    // More than half of it; the rest is more than a pipe holds, so the process waits.
    let mut part = vec![0; 30_000_000];
    lines.read_exact(&mut part).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < 100_000, "{peak} KiB");
    drop(lines);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_full_disk_leaves_no_half_export() {
    let folder = large();
    let out = tempfile::tempdir().unwrap();
    let mut export = Command::new("prlimit");
    service::as_newcomer(&mut export)
        .args(["--fsize=1000000", "env", "--ignore-signal=XFSZ"])
        .arg(env!("CARGO_BIN_EXE_profile-ledger"))
        .env("DATA_DIR", folder.data_dir())
        .args(["export", "--out"])
        .arg(out.path());
    let output = export.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("cannot export to "), "{complaint}");
    assert_eq!(files(out.path()), [""; 0]);
}

/// Sends a signal to an export in the middle of its work; what the folder holds then, and how the export ended.
fn interrupted_by(signal: &str) -> (Vec<String>, Option<i32>) {
    let folder = large();
    let out = tempfile::tempdir().unwrap();
    let ledger = on_files(&folder);
    let mut export = ledger.command(&["export", "--format", "csv", "--out"]);
    let mut process = export
        .arg(out.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = tokio::time::Instant::now();
    while files(out.path()).is_empty() {
        assert_eq!(process.try_wait().unwrap(), None, "it ended too early");
        assert!(begun.elapsed() < service::DEADLINE, "it does not begin");
        std::thread::yield_now();
    }
    let killed = Command::new("kill")
        .args(["-s", signal, &process.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let status = process.wait().unwrap();
    (files(out.path()), status.code())
}

#[test]
fn an_interrupted_export_leaves_nothing_and_says_by_its_exit_code_why() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        assert_eq!(interrupted_by(signal), (Vec::new(), Some(code)), "{signal}");
    }
}
