//! The contract of every audit trail, whatever its backend: `run_all` panics at the first
//! violation.

use std::sync::Arc;
use std::time::Duration;

use super::{AuditTrail, Question, Read, RecordedRead, Start};
use events::{Time, UserId};

/// How long a test waits before it fails.
const DEADLINE: Duration = Duration::from_secs(60);

fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().expect("24 hexadecimal digits")
}

/// The nth read of an actor; odd ones are of all users.
pub(super) fn read(n: u64, actor: &str) -> Read {
    Read {
        at: Time::from_millis(1_000 + i64::try_from(n).expect("small")),
        actor: actor.to_owned(),
        route: "GET /route/{id}".to_owned(),
        user: n.is_multiple_of(2).then(|| user(n)),
        query: format!("n={n}"),
        request_id: format!("request-{n}"),
    }
}

/// All recorded reads, oldest first.
pub(super) fn all() -> Question {
    Question {
        limit: usize::MAX,
        ..Question::default()
    }
}

/// Runs every test, each on a new trail.
pub(super) async fn run_all(open: impl AsyncFn() -> Arc<dyn AuditTrail>) {
    reads_are_listed_as_recorded(&*open().await).await;
    reads_are_found_by_caller_and_by_user(&*open().await).await;
    reads_are_listed_in_pages_in_both_directions(&*open().await).await;
    any_text_is_kept(&*open().await).await;
    let trail = open().await;
    a_paging_reader_sees_every_read_once_in_order(vec![Arc::clone(&trail); 4], trail).await;
}

async fn numbers(trail: &dyn AuditTrail, question: Question) -> Vec<u64> {
    let listed = trail.list(&question).await.expect("list");
    listed.iter().map(|recorded| recorded.number).collect()
}

async fn reads_are_listed_as_recorded(trail: &dyn AuditTrail) {
    assert_eq!(trail.count().await.expect("count"), 0);
    assert!(trail.list(&all()).await.expect("list").is_empty());
    for n in 1..=2 {
        assert_eq!(trail.record(&read(n, "auditor")).await.expect("record"), n);
    }
    assert_eq!(trail.count().await.expect("count"), 2);
    let wanted = [1, 2].map(|number| RecordedRead {
        number,
        read: read(number, "auditor"),
    });
    assert_eq!(trail.list(&all()).await.expect("list"), wanted);
}

async fn reads_are_found_by_caller_and_by_user(trail: &dyn AuditTrail) {
    for (n, actor) in (1..).zip(["one", "one", "other", "other", "one", "one"]) {
        trail.record(&read(n, actor)).await.expect("record");
    }
    for (actor, whom, found) in [
        (Some("one"), None, &[1, 2, 5, 6][..]),
        (Some("other"), None, &[3, 4]),
        (Some("nobody"), None, &[]),
        (Some("' OR '1'='1"), None, &[]),
        (None, Some(4), &[4]),
        (None, Some(5), &[]),
        (Some("one"), Some(2), &[2]),
        (Some("one"), Some(4), &[]),
    ] {
        let question = Question {
            actor: actor.map(str::to_owned),
            user: whom.map(user),
            ..all()
        };
        let listed = numbers(trail, question).await;
        assert_eq!(listed, found, "{actor:?} {whom:?}");
    }
}

async fn reads_are_listed_in_pages_in_both_directions(trail: &dyn AuditTrail) {
    for n in 1..=5 {
        trail.record(&read(n, "auditor")).await.expect("record");
    }
    for (start, limit, found) in [
        (Start::After(0), 2, &[1, 2][..]),
        (Start::After(2), 2, &[3, 4]),
        (Start::After(4), 2, &[5]),
        (Start::After(5), 2, &[]),
        (Start::After(u64::MAX), 2, &[]),
        (Start::Before(u64::MAX), 2, &[5, 4]),
        (Start::Before(4), 2, &[3, 2]),
        (Start::Before(2), 2, &[1]),
        (Start::Before(1), 2, &[]),
    ] {
        let question = Question {
            start,
            limit,
            ..Question::default()
        };
        assert_eq!(numbers(trail, question).await, found, "{start:?}");
    }
}

async fn any_text_is_kept(trail: &dyn AuditTrail) {
    let texts = [
        "'; DROP TABLE reads;--",
        "%00%ff",
        "\u{1f600} \u{202e} ı İ",
        "",
        &"x".repeat(30_000),
    ];
    for text in texts {
        let read = Read {
            query: text.to_owned(),
            actor: text.chars().take(128).collect(),
            ..read(1, "")
        };
        let number = trail.record(&read).await.expect("record");
        let question = Question {
            actor: Some(read.actor.clone()),
            ..all()
        };
        let listed = trail.list(&question).await.expect("list");
        assert_eq!(listed, [RecordedRead { number, read }]);
    }
}

/// The writers and the reader use the same trail.
pub(super) async fn a_paging_reader_sees_every_read_once_in_order(
    trails: Vec<Arc<dyn AuditTrail>>,
    reader: Arc<dyn AuditTrail>,
) {
    const EACH: u64 = 30;
    let all = trails.len() as u64 * EACH;
    let mut writers = tokio::task::JoinSet::new();
    for trail in trails {
        writers.spawn(async move {
            for n in 1..=EACH {
                trail.record(&read(n, "auditor")).await.expect("record");
            }
        });
    }
    let paging = async {
        let mut last = 0;
        while last < all {
            let question = Question {
                start: Start::After(last),
                limit: 7,
                ..Question::default()
            };
            for number in numbers(&*reader, question).await {
                assert_eq!(number, last + 1);
                last = number;
            }
        }
    };
    tokio::time::timeout(DEADLINE, paging)
        .await
        .expect("every read is seen before the deadline");
    writers.join_all().await;
}
