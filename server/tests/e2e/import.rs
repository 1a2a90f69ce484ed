//! Bulk registration.

use std::fmt::Write as _;
use std::process::Output;

use reqwest::StatusCode;

use crate::service::{Folder, command};

fn import(folder: &Folder, file: &std::path::Path) -> Output {
    command(&folder.data_dir())
        .arg("import")
        .arg(file)
        .output()
        .unwrap()
}

fn counts(output: &Output) -> &str {
    let out = std::str::from_utf8(&output.stdout).unwrap();
    out.lines().last().unwrap_or_default()
}

#[test]
fn bad_lines_are_reported_by_number_and_reason_and_the_others_go_on() {
    let folder = Folder::new();
    let mut lines = Vec::new();
    lines.extend(br#"{"username":"one","name":"N","surname":"S"}"#);
    lines.extend(b"\r\n\n");
    lines.extend(br#"{"username":"two","name":"N"#);
    lines.extend(b"\n");
    lines
        .extend(br#"{"username":"ONE","name":"N","surname":"S","_id":"507f1f77bcf86cd799439011"}"#);
    lines.extend(b"\n\xff\xfe\n");
    lines.extend(vec![b'x'; 3_000_000]);
    lines.extend(b"\n");
    lines.extend(br#"{"username":"a","name":"","surname":"S","nope":1}"#);
    lines.extend(b"\n");
    lines.extend(br#"{"username":"last","name":"N","surname":"S"}"#);
    let file = folder.file("users.ndjson", &lines);
    let output = import(&folder, &file);
    assert_eq!(
        output.status.code(),
        Some(1),
        "bad lines are told by the exit code"
    );
    assert_eq!(counts(&output), "2 registered, 0 there already, 5 bad");
    let reasons = String::from_utf8_lossy(&output.stderr);
    for reason in [
        "line 3: body: is not valid JSON",
        "line 4: ",
        "line 5: ",
        "line 6: longer than",
        "line 7: username:",
    ] {
        assert!(reasons.contains(reason), "{reason} is not in {reasons}");
    }
    let again = import(&folder, &file);
    assert_eq!(counts(&again), "0 registered, 2 there already, 5 bad");
}

#[tokio::test]
async fn a_hundred_thousand_users_are_registered_over_a_kill_and_one_is_read() {
    let folder = Folder::new();
    let mut lines = String::new();
    for n in 0..100_000 {
        writeln!(
            lines,
            r#"{{"username":"user{n}","name":"Name","surname":"Surname{n}","interests":["music"]}}"#
        )
        .unwrap();
    }
    let file = folder.file("users.ndjson", lines.as_bytes());
    // A first run dies in the middle: with the line that says so, some are registered.
    let mut killed = command(&folder.data_dir())
        .arg("import")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = std::io::BufReader::new(killed.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut progress, &mut line).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(
        line.starts_with("10000 lines, ") && line.contains("ETA"),
        "{line}"
    );

    let output = import(&folder, &file);
    assert!(output.status.success(), "{output:?}");
    let words: Vec<_> = counts(&output).split(' ').collect();
    let [
        registered,
        "registered,",
        existing,
        "there",
        "already,",
        "0",
        "bad",
    ] = words[..]
    else {
        panic!("{words:?}")
    };
    let [registered, existing] = [registered, existing].map(|n| n.parse::<u64>().unwrap());
    assert!(existing >= 10_000);
    assert_eq!(registered + existing, 100_000);

    let service = folder.start();
    // The projection catches up while the service runs already.
    let mut read = None;
    for _ in 0..60 {
        let path = "/api/v1/users/profile/username/user77777?minPosition=100000";
        let answer = crate::service::send(service.request(reqwest::Method::GET, path)).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            read = Some(answer);
            break;
        }
    }
    let read = read.expect("position 100000 is reached");
    assert_eq!(read.data()["surname"], "Surname77777");
}

/// The most memory a process ever had, in KiB.
fn peak_kib(process: &std::process::Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}

#[test]
fn importing_more_needs_no_more_memory() {
    use std::io::BufRead as _;

    let folder = Folder::new();
    let mut lines = String::new();
    for n in 0..80_000 {
        let bio = "x".repeat(300);
        writeln!(
            lines,
            r#"{{"username":"user{n}","name":"N","surname":"S","bio":"{bio}"}}"#
        )
        .unwrap();
    }
    let file = folder.file("users.ndjson", lines.as_bytes());
    let mut process = command(&folder.data_dir())
        .arg("import")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let progress = std::io::BufReader::new(process.stderr.take().unwrap());
    let mut peaks = Vec::new();
    for line in progress.lines() {
        let line = line.unwrap();
        assert!(line.contains("lines/s"), "{line}");
        peaks.push(peak_kib(&process));
    }
    assert!(process.wait().unwrap().success());
    // The caches are full after a third.
    let [third, last] = [peaks[2], *peaks.last().unwrap()];
    assert!(last < third + 32 * 1024, "{peaks:?} KiB");
}

#[test]
fn a_terminal_gets_a_bar() {
    let folder = Folder::new();
    let line = r#"{"username":"user","name":"N","surname":"S"}"#;
    let file = folder.file("users.ndjson", line.as_bytes());
    let import = format!(
        "DATA_DIR='{}' '{}' import '{}'",
        folder.data_dir().display(),
        env!("CARGO_BIN_EXE_profile-ledger"),
        file.display()
    );
    let shown = std::process::Command::new("script")
        .args(["-qec", &import, "/dev/null"])
        // The test run itself may have no terminal.
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script is part of every Debian");
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("1 registered"), "{shown}");
    assert!(shown.contains("ETA"), "{shown}");
}
