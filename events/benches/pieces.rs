//! The steps that every event passes through: `cargo bench -p events`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use events::document::{fold, fold_into};
use events::envelope::{Context, LeafHash, Previous, Recorded};
use events::event::{Change, Consents, Profile, ProfileUpdated, UserRegistered};
use events::message::{Headers, from_message, to_message};
use events::{Document, EventId, Time, UserEvent, UserId};

fn profile() -> Profile {
    Profile {
        name: "Ayşe".to_owned(),
        surname: "Yılmaz".to_owned(),
        birth_date: Some("1990-05-17".to_owned()),
        interests: ["music", "travel", "food"].map(str::to_owned).to_vec(),
        expertise: Some("chef".to_owned()),
        email: Some("ayse@example.com".to_owned()),
        bio: Some("Cooks, travels and writes about both".to_owned()),
        instagram: Some("ayse".to_owned()),
        ..Profile::default()
    }
}

/// The value of a header.
fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(header, _)| *header == name);
    found.next().map(|(_, value)| value.as_str())
}

/// An event as the mobile app causes it.
fn recorded(version: u64, event: UserEvent) -> Recorded {
    let time = Time::from_millis(1_700_000_000_000);
    Recorded {
        position: 1_000_000 + version,
        event_id: EventId::new(time, [7; 10]),
        user_id: UserId::new(time, [7; 8]),
        version,
        time,
        recorded_at: time,
        previous: (version > 1).then_some(Previous {
            position: 1_000_000,
            hash: LeafHash::of(b"the event before"),
        }),
        context: Context {
            actor_type: "user".to_owned(),
            actor: "507f1f77bcf86cd799439011".to_owned(),
            language: Some("tr".to_owned()),
            timezone: Some("Europe/Istanbul".to_owned()),
            platform: Some("ios".to_owned()),
            app_version: Some("4.2.0".to_owned()),
            device_id: Some("7C9E6679-7425-40DE-944B-E07FC1F90AE7".to_owned()),
            request_id: Some("0190a5f0-0000-7000-8000-000000000000".to_owned()),
            ..Context::default()
        },
        event,
    }
}

fn registered() -> Recorded {
    let registered = UserRegistered {
        username: "ayse".to_owned(),
        profile: profile(),
        country_code: Some("90".to_owned()),
        phone_number: Some("5551234567".to_owned()),
        consents: Consents::default(),
        is_registration_complete: true,
        roles: vec!["user".to_owned()],
        last_login: None,
    };
    recorded(1, UserEvent::UserRegistered(Box::new(registered)))
}

/// A change of one member.
fn updated() -> Recorded {
    let updated = ProfileUpdated {
        bio: Change::between(&profile().bio, &Some("Cooks, and travels".to_owned())),
        ..ProfileUpdated::default()
    };
    recorded(2, UserEvent::ProfileUpdated(Box::new(updated)))
}

fn pieces(criterion: &mut Criterion) {
    let updated = updated();
    let stored = updated.to_stored();
    let document = fold(None, &registered()).expect("a first event");
    let text = serde_json::to_string(&document).expect("a document is JSON");

    criterion.bench_function("write an envelope and hash it", |bencher| {
        bencher.iter(|| black_box(&updated).to_stored());
    });
    criterion.bench_function("hash an envelope", |bencher| {
        bencher.iter(|| LeafHash::of(black_box(&stored.envelope)));
    });
    criterion.bench_function("read an envelope", |bencher| {
        bencher.iter(|| black_box(&stored).decode());
    });
    criterion.bench_function("read an envelope without its context", |bencher| {
        bencher.iter(|| black_box(&stored).decode_without_context());
    });
    let (headers, body) = to_message(&stored);
    criterion.bench_function("make a message from an event", |bencher| {
        bencher.iter(|| to_message(black_box(&stored)));
    });
    criterion.bench_function("read a message", |bencher| {
        bencher.iter(|| from_message(|name| find(black_box(&headers), name), black_box(&body)));
    });
    criterion.bench_function("fold an event into a document", |bencher| {
        let mut document = Some(document.clone());
        bencher.iter(|| {
            if let Some(document) = &mut document {
                document.version = 1;
            }
            fold_into(&mut document, black_box(&updated))
        });
    });
    criterion.bench_function("write a document", |bencher| {
        bencher.iter(|| serde_json::to_string(black_box(&document)));
    });
    criterion.bench_function("read a document", |bencher| {
        bencher.iter(|| serde_json::from_str::<Document>(black_box(&text)));
    });
}

criterion_group!(benches, pieces);
criterion_main!(benches);
