//! What the sample is told has to make sense before it connects. What it does with events is tested end to
//! end, by the server's tests.

use std::process::Command;

#[test]
fn a_start_or_a_part_that_makes_no_sense_is_refused() {
    for (flag, bad) in [
        ("--from", "0"),
        ("--from", "-1"),
        ("--from", "18446744073709551616"),
        ("--shards", "2/2"),
        ("--shards", "0/65"),
        ("--shards", "0/0"),
        ("--shards", "one"),
    ] {
        let refused = Command::new(env!("CARGO_BIN_EXE_subscribe"))
            .args([&format!("{flag}={bad}"), "--nats-url=nats://127.0.0.1:1"])
            .output()
            .expect("the sample is built with its tests");
        assert_eq!(refused.status.code(), Some(2), "{flag}={bad}");
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains(flag), "{error}");
    }
}
