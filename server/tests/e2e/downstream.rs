//! The samples of subscribers, each in its language: they see what the ledger has, in its order, make every
//! event count once whatever happens, and say so when they cannot.

use std::fmt::Write as _;
use std::time::Duration;

use events::{StoredEvent, UserId};
use futures::StreamExt as _;

use crate::service::DEADLINE;

use samples::{ALL, Ledger, Sample, jetstream};

mod samples;

/// The line that a sample prints of an event.
fn line(event: &StoredEvent) -> String {
    format!(
        "{} {} {} {}",
        event.position, event.version, event.event_type, event.user_id
    )
}

fn lines(events: &[StoredEvent]) -> Vec<String> {
    events.iter().map(line).collect()
}

/// The lines of a user are its events, in their order.
#[track_caller]
fn is_in_order(lines: &[String], all: &[StoredEvent], user: UserId, sample: Sample) {
    let expected = all.iter().filter(|event| event.user_id == user).map(line);
    let id = user.to_string();
    let seen = lines.iter().filter(|line| line.ends_with(&id));
    assert!(expected.eq(seen.cloned()), "{sample:?}: {lines:?}");
}

#[tokio::test]
async fn a_sample_sees_the_ledger_in_its_order_and_goes_on_where_it_was() {
    let ledger = Ledger::new().await;
    let first = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        assert_eq!(subscriber.take(first.len()), lines(&first), "{sample:?}");
        assert_eq!(subscriber.interrupt().await, [""; 0], "{sample:?}");
        ledger.has_effect(sample, &first);
    }
    ledger.change_all("second").await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        let news = &all[first.len()..];
        assert_eq!(subscriber.take(news.len()), lines(news), "{sample:?}");
        // It waits for what comes.
        assert_eq!(subscriber.interrupt().await, [""; 0], "{sample:?}");
        ledger.has_effect(sample, &all);
    }
}

#[tokio::test]
async fn a_sample_starts_from_a_position_and_not_beyond_the_end() {
    let ledger = Ledger::new().await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &["--from", "5"]);
        assert_eq!(
            subscriber.take(all.len() - 4),
            lines(&all[4..]),
            "{sample:?}"
        );
        let beyond = ledger.subscribe_as(&format!("beyond{sample:?}"), sample, &["--from", "1000"]);
        let (code, error) = beyond.end().await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        assert!(error.contains("before position 999"), "{sample:?}: {error}");
    }
}

#[tokio::test]
async fn a_sample_that_is_killed_again_and_again_makes_every_event_count_once() {
    let ledger = Ledger::new().await;
    for round in 0..4 {
        let mut started = Vec::new();
        for sample in ALL {
            started.push((ledger.subscribe(sample, &[]), sample));
        }
        ledger.change_all(&format!("round {round}")).await;
        for (mut subscriber, sample) in started {
            // Somewhere in the middle: more is on its way.
            let seen = subscriber.take(2);
            assert_eq!(seen.len(), 2, "{sample:?}");
            subscriber.kill();
        }
    }
    ledger.change_all("last").await;
    let all = ledger.published().await;
    let last = line(all.last().unwrap());
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        while subscriber.line() != last {}
        subscriber.interrupt().await;
        ledger.has_effect(sample, &all);
    }
}

#[tokio::test]
async fn an_event_that_comes_again_is_told_apart_and_has_no_effect() {
    let ledger = Ledger::new().await;
    let all = ledger.published().await;
    for sample in ALL {
        let name = format!("{sample:?}");
        let mut subscriber = ledger.subscribe(sample, &[]);
        subscriber.take(all.len());
        subscriber.interrupt().await;
        // The server forgets that any was acknowledged.
        ledger.stream().await.delete_consumer(&name).await.unwrap();
        ledger.consumer(&name, "profiles.v1.>", 1).await;
        ledger.change_all(&name).await;
        let more = ledger.published().await;
        let mut subscriber = ledger.subscribe(sample, &[]);
        let again = subscriber.take(all.len());
        for (line, event) in again.iter().zip(&all) {
            assert_eq!(
                *line,
                format!("duplicate {}", self::line(event)),
                "{sample:?}"
            );
        }
        while subscriber.line() != line(more.last().unwrap()) {}
        subscriber.interrupt().await;
        ledger.has_effect(sample, &more);
    }
}

#[tokio::test]
async fn events_that_another_worker_took_and_lost_are_waited_for() {
    let ledger = Ledger::new().await;
    let all = ledger.published().await;
    // Of a shard with the events of several users: those of others may come first.
    let theirs = all.last().unwrap();
    let shard = theirs.user_id.shard();
    let of_shard: Vec<_> = all
        .iter()
        .filter(|event| event.user_id.shard() == shard)
        .collect();
    for sample in ALL {
        let take_one = async |durable: String, subject: &str| {
            let consumer = ledger.consumer(&durable, subject, 1).await;
            let taken = consumer.fetch().max_messages(1).messages().await.unwrap();
            assert_eq!(taken.count().await, 1);
        };
        take_one(format!("{sample:?}"), "profiles.v1.>").await;
        let mut subscriber = ledger.subscribe(sample, &[]);
        assert_eq!(subscriber.take(all.len()), lines(&all), "{sample:?}");

        let subject = format!("profiles.v1.p{shard:02}.*");
        take_one(format!("{sample:?}-p{shard:02}"), &subject).await;
        let mut subscriber = ledger.subscribe(sample, &["--shards", &format!("{shard}/64")]);
        let seen = subscriber.take(of_shard.len());
        for user in of_shard.iter().map(|event| event.user_id) {
            is_in_order(&seen, &all, user, sample);
        }
    }
}

#[tokio::test]
async fn a_hole_in_the_stream_is_named() {
    let ledger = Ledger::with_stream(|config| config.deny_delete = false).await;
    ledger.change_all("second").await;
    let all = ledger.published().await;
    // Neither the first nor the last event of its user.
    let hole = all.iter().find(|event| event.version == 2).unwrap();
    let stream = ledger.stream().await;
    stream.delete_message(hole.position).await.unwrap();
    let named = format!("gap: position {} is not in the stream", hole.position);
    for sample in ALL {
        let shard = format!("{}/64", hole.user_id.shard());
        for arguments in [&[][..], &["--shards", &shard]] {
            let (code, error) = ledger.subscribe(sample, arguments).end().await;
            assert_eq!(code, Some(1), "{sample:?} {arguments:?}: {error}");
            assert!(error.contains(&named), "{sample:?} {arguments:?}: {error}");
        }
        // What was before it was handled.
        let before = usize::try_from(hole.position).unwrap() - 1;
        if sample != Sample::Rust {
            let handled: u64 = ledger.counts(sample).values().sum();
            assert!(handled >= before as u64, "{sample:?}");
        }
    }
    // The last one, after which nothing comes.
    stream.delete_message(all.len() as u64).await.unwrap();
    let from = hole.position + 1;
    for sample in ALL {
        let arguments = ["--from", &from.to_string()];
        let (code, error) = ledger
            .subscribe_as(&format!("tail{sample:?}"), sample, &arguments)
            .end()
            .await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        let named = format!("gap: position {} is not in the stream", all.len());
        assert!(error.contains(&named), "{sample:?}: {error}");
    }
}

#[tokio::test]
async fn what_has_left_the_stream_is_named() {
    let ledger = Ledger::with_stream(|config| config.max_messages = 5).await;
    let all = ledger.published().await;
    let gone = all.len() - 5;
    for sample in ALL {
        for arguments in [&[][..], &["--shards", "0/2"]] {
            let (code, error) = ledger.subscribe(sample, arguments).end().await;
            assert_eq!(code, Some(1), "{sample:?}: {error}");
            let named = format!("gap: positions 1 to {gone} have left the stream");
            assert!(error.contains(&named), "{sample:?}: {error}");
        }
        let from = (gone + 1).to_string();
        let mut subscriber =
            ledger.subscribe_as(&format!("late{sample:?}"), sample, &["--from", &from]);
        assert_eq!(subscriber.take(5), lines(&all[gone..]), "{sample:?}");
    }
}

#[tokio::test]
async fn a_stream_that_was_made_anew_and_a_state_that_was_lost_are_named() {
    let ledger = Ledger::with_stream(|config| config.deny_delete = false).await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        subscriber.take(all.len());
        subscriber.interrupt().await;
        let (state, aside) = (
            ledger.state(sample),
            ledger.state(sample).with_extension("aside"),
        );
        std::fs::rename(&state, &aside).unwrap();
        let (code, error) = ledger.subscribe(sample, &[]).end().await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        assert!(
            error.contains("gap: ") && error.contains("is not in this state"),
            "{sample:?}: {error}"
        );
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::rename(&aside, &state).unwrap();
    }
    let config = ledger.stream().await.cached_info().config.clone();
    let context = jetstream(&ledger.nats).await;
    let Ledger {
        folder,
        nats,
        service,
    } = ledger;
    service.stop();
    context.delete_stream("PROFILES").await.unwrap();
    context.create_stream(config).await.unwrap();
    let service = folder.start();
    let ledger = Ledger {
        folder,
        nats,
        service,
    };
    for sample in ALL {
        let (code, error) = ledger.subscribe(sample, &[]).end().await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        let named = format!("gap: the stream ends at 0, before position {}", all.len());
        assert!(error.contains(&named), "{sample:?}: {error}");
    }
}

#[tokio::test]
async fn workers_by_shard_see_everything_once_and_each_user_in_order() {
    let ledger = Ledger::new().await;
    ledger.change_all("second").await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut seen = Vec::new();
        for worker in 0..2 {
            let part = format!("{worker}/2");
            let mine = all
                .iter()
                .filter(|event| event.user_id.shard() % 2 == worker);
            let mut subscriber = ledger.subscribe(sample, &["--shards", &part]);
            let lines = subscriber.take(mine.clone().count());
            for user in mine.map(|event| event.user_id) {
                is_in_order(&lines, &all, user, sample);
            }
            subscriber.interrupt().await;
            seen.extend(lines);
        }
        let mut expected = lines(&all);
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected, "{sample:?}");
        ledger.has_effect(sample, &all);
    }
    // Three workers take over what two had.
    ledger.change_all("third").await;
    let more = ledger.published().await;
    for sample in ALL {
        for worker in 0..3 {
            let part = format!("{worker}/3");
            let news = more[all.len()..]
                .iter()
                .filter(|event| event.user_id.shard() % 3 == worker);
            let mut subscriber = ledger.subscribe(sample, &["--shards", &part]);
            subscriber.take(news.count());
            subscriber.interrupt().await;
        }
        ledger.has_effect(sample, &more);
    }
}

#[tokio::test]
async fn two_workers_of_one_shard_at_once_do_no_harm() {
    let ledger = Ledger::new().await;
    // State that can be shared is: each event counts once, whoever gets it.
    let workers = [0, 1].map(|_| ledger.subscribe(Sample::Python, &["--shards", "0/1"]));
    for round in 0..5 {
        ledger.change_all(&format!("round {round}")).await;
    }
    let all = ledger.published().await;
    let counted = async {
        while ledger.counts(Sample::Python).values().sum::<u64>() < all.len() as u64 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let counted = tokio::time::timeout(DEADLINE, counted).await;
    counted.expect("some events are never counted");
    let mut printed = String::new();
    for worker in workers {
        for line in worker.interrupt().await {
            writeln!(printed, "{line}").unwrap();
        }
    }
    for line in lines(&all) {
        let times = printed.lines().filter(|printed| **printed == line).count();
        assert_eq!(times, 1, "{line}");
    }
    ledger.has_effect(Sample::Python, &all);
    // A file that is replaced has one owner.
    for sample in [Sample::Rust, Sample::TypeScript] {
        let mut first = ledger.subscribe(sample, &[]);
        first.take(all.len());
        let (code, error) = ledger.subscribe(sample, &[]).end().await;
        assert_eq!(code, Some(2), "{sample:?}: {error}");
    }
}
