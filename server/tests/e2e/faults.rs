//! Faults: clients send commands while processes, servers, networks, disks and clocks fail under them; then
//! a checker compares what the clients were told with what is there.
//!
//! `scripts/faults --seconds N --seed S` runs it for longer, or once more.

mod checker;
mod clients;
mod nemesis;
mod proxy;
mod system;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use clients::Load;
use nemesis::{Fault, Nemesis};
use system::System;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

#[expect(clippy::disallowed_methods, reason = "the run prints it")]
fn any_seed() -> u64 {
    rand::rng().random_range(0..1_000_000)
}

/// Strikes for as long as was asked for, lets everything heal, and has the checker look at what is left.
async fn survives(name: &str, start: impl AsyncFnOnce() -> System, faults: Vec<Fault>) {
    let seconds = number("FAULTS_SECONDS").unwrap_or(60);
    let seed = number("FAULTS_SEED").unwrap_or_else(any_seed);
    eprintln!("{name}: scripts/faults --seconds {seconds} --seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let system = start().await;
    let load = Load::start(&system, &mut random).await;
    let mut nemesis = Nemesis::new(system, faults, random);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut trouble = Ok(());
    while trouble.is_ok() && Instant::now() < end {
        trouble = nemesis.strike().await;
        if trouble.is_ok() {
            trouble = load.is_answered_again().await;
        }
    }
    let (mut system, struck) = nemesis.rest();
    let history = load.stop().await;
    if trouble.is_ok() {
        trouble = system.has_caught_up().await;
    }
    system.stop();
    let evidence = system.evidence(history).await;

    let summary = format!("{}\n  faults: {struck}", evidence.summary());
    eprintln!("{name}: seed {seed}: {summary}");
    // What does not go on may have a reason that the checker can name.
    let mut violations: Vec<String> = trouble.err().into_iter().collect();
    violations.extend(checker::check(&evidence));
    assert!(
        violations.is_empty(),
        "{name}: seed {seed}: {summary}\n{} violations:\n{}\nthe log is in {}",
        violations.len(),
        violations[..violations.len().min(20)].join("\n"),
        system.keep_log().display(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_role_a_process_keeps_every_promise_whatever_fails() {
    survives("stack", System::stack, Fault::of_a_stack()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_service_in_one_process_keeps_every_promise_whatever_fails() {
    survives("one process", System::embedded, Fault::of_one_process()).await;
}
