//! Each promise is broken once, and the checker names the breach.

use std::time::Duration;

use events::envelope::{Context, Previous};
use events::event::{Profile, ProfileUpdated, UserRegistered, UsernameChanged};
use events::{EventId, Time};
use http_kit::profile::OwnProfile;
use tokio::time::Instant;

use super::super::clients::Read;
use super::*;

const JOHN: &str = "507f1f77bcf86cd799439011";
const JANE: &str = "507f1f77bcf86cd799439012";

fn profile(bio: Option<&str>) -> Profile {
    Profile {
        name: "N".to_owned(),
        surname: "S".to_owned(),
        bio: bio.map(str::to_owned),
        ..Profile::default()
    }
}

fn registered(username: &str) -> UserEvent {
    UserEvent::UserRegistered(Box::new(UserRegistered {
        username: username.to_owned(),
        profile: profile(None),
        country_code: None,
        phone_number: None,
        consents: events::event::Consents::default(),
        is_registration_complete: true,
        roles: vec!["user".to_owned()],
        last_login: None,
    }))
}

fn renamed(before: &str, after: &str) -> UserEvent {
    UserEvent::UsernameChanged(UsernameChanged {
        before: before.to_owned(),
        after: after.to_owned(),
        held_until: Time::from_millis(BETWEEN_NAMES),
    })
}

fn updated(before: Option<&str>, bio: &str) -> UserEvent {
    let changed = ProfileUpdated::between(&profile(before), &profile(Some(bio)));
    UserEvent::ProfileUpdated(Box::new(changed.unwrap()))
}

/// A ledger of some events, each asked for by the command `c1`, `c2`, …
fn ledger_of(happened: Vec<(&str, UserEvent)>) -> Vec<Recorded> {
    let mut recorded: Vec<Recorded> = Vec::new();
    for ((user, event), position) in happened.into_iter().zip(1..) {
        let user_id: UserId = user.parse().unwrap();
        let mut earlier = recorded.iter().filter(|event| event.user_id == user_id);
        let version = earlier.clone().count() as u64 + 1;
        let previous = earlier.next_back().map(|event| Previous {
            position: event.position,
            hash: event.to_stored().leaf_hash,
        });
        let time = Time::from_millis(i64::try_from(position).unwrap());
        recorded.push(Recorded {
            position,
            event_id: EventId::new(time, [u8::try_from(position).unwrap(); 10]),
            user_id,
            version,
            time,
            recorded_at: time,
            previous,
            context: Context {
                request_id: Some(format!("c{position}")),
                ..Context::default()
            },
            event,
        });
    }
    recorded
}

/// What a faultless run leaves behind.
fn evidence_of(recorded: &[Recorded]) -> Evidence {
    let mut none = Vec::new();
    let states = states(recorded, &mut none);
    let start = Instant::now();
    let mut history = History::default();
    for event in recorded {
        let state = &states[&event.user_id][usize::try_from(event.version).unwrap() - 1];
        let shown = serde_json::to_value(OwnProfile {
            document: state,
            public_url: "http://profiles.test",
        })
        .unwrap();
        let at = start + Duration::from_secs(event.position);
        history.operations.push(Operation {
            id: format!("c{}", event.position),
            user: event.user_id,
            request: match &event.event {
                UserEvent::UserRegistered(registered) => Request::Register {
                    username: registered.username.clone(),
                },
                UserEvent::UsernameChanged(change) => Request::Username {
                    username: change.after.clone(),
                },
                UserEvent::ProfileUpdated(_) => Request::Profile,
                UserEvent::PhotoChanged(_) => Request::Photo { colour: [0; 3] },
            },
            has_key: true,
            if_match: None,
            outcomes: vec![Outcome::Done {
                position: event.position,
                version: event.version,
                profile: shown.clone(),
                was_replayed: false,
            }],
            began: at,
            ended: at + Duration::from_millis(1),
        });
        history.reads.push(Read {
            user: event.user_id,
            asked: event.position,
            known: event.version,
            got: Some((event.version, shown)),
        });
    }
    let events: Vec<StoredEvent> = recorded.iter().map(Recorded::to_stored).collect();
    let mut claims: BTreeMap<String, Claim> = BTreeMap::new();
    for event in recorded {
        let mut claim = |name: &str, held_until| {
            let claim = Claim {
                username: name.to_owned(),
                user_id: event.user_id,
                held_until,
            };
            claims.insert(name.to_owned(), claim);
        };
        match &event.event {
            UserEvent::UserRegistered(registered) => claim(&registered.username, None),
            UserEvent::UsernameChanged(change) => {
                claim(&change.before, Some(change.held_until));
                claim(&change.after, None);
            }
            _ => {}
        }
    }
    let stream = events.iter().map(|event| {
        let (headers, payload) = ledger::message::to_message(event);
        Message {
            sequence: event.position,
            subject: events::subject::of(&event.user_id, &event.event_type),
            headers,
            payload,
        }
    });
    Evidence {
        history,
        head: events.len() as u64,
        checkpoint: events.len() as u64,
        claims: claims.into_values().collect(),
        documents: states
            .into_values()
            .map(|mut states| states.pop().unwrap())
            .collect(),
        parked: Vec::new(),
        stream: stream.collect(),
        events,
    }
}

fn happened() -> Vec<(&'static str, UserEvent)> {
    vec![
        (JOHN, registered("john")),
        (JANE, registered("jane")),
        (JOHN, updated(None, "c3")),
        (JOHN, renamed("john", "johnny")),
        (JOHN, updated(Some("c3"), "c5")),
    ]
}

/// What the checker says of a faultless run in which something was changed afterwards.
#[track_caller]
fn names(breach: &str, change: impl FnOnce(&mut Evidence)) {
    let mut evidence = evidence_of(&ledger_of(happened()));
    assert_eq!(check(&evidence), [""; 0], "before the change");
    change(&mut evidence);
    let breaches = check(&evidence);
    let is_named = breaches.iter().any(|found| found.contains(breach));
    assert!(is_named, "{breach:?} is not among {breaches:?}");
}

fn outcome(evidence: &mut Evidence, command: usize) -> &mut Vec<Outcome> {
    &mut evidence.history.operations[command - 1].outcomes
}

#[test]
fn an_acknowledged_event_that_is_lost_is_named() {
    names("c5 was acknowledged at 5 and is not there", |evidence| {
        evidence.events.pop();
    });
    names("the head is 5, but there are 4 events", |evidence| {
        evidence.events.pop();
    });
}

#[test]
fn a_command_that_took_place_twice_is_named() {
    names("c3 took place 2 times", |evidence| {
        let mut happened = ledger_of(happened());
        happened[4].context.request_id = Some("c3".to_owned());
        evidence.events = happened.iter().map(Recorded::to_stored).collect();
    });
}

#[test]
fn an_event_that_nobody_asked_for_is_named() {
    names("nobody sent a command \"c5\"", |evidence| {
        evidence.history.operations.pop();
    });
    names("not what c3 asked for", |evidence| {
        evidence.history.operations[2].user = JANE.parse().unwrap();
    });
}

#[test]
fn a_refused_command_that_took_place_is_named() {
    names("c5 was refused and took place", |evidence| {
        let code = "VERSION_MISMATCH".to_owned();
        *outcome(evidence, 5) = vec![Outcome::Refused { code }];
    });
    names("its user was acknowledged and is not there", |evidence| {
        let code = "RESOURCE_NOT_FOUND".to_owned();
        *outcome(evidence, 5) = vec![Outcome::Refused { code }];
    });
    names(
        "c5 took place on another version than it named",
        |evidence| {
            evidence.history.operations[4].if_match = Some(2);
        },
    );
}

#[test]
fn a_key_with_two_outcomes_is_named() {
    names("c5: answered anew at 5, first at 4", |evidence| {
        let mut first = outcome(evidence, 5)[0].clone();
        if let Outcome::Done { position, .. } = &mut first {
            *position = 4;
        }
        outcome(evidence, 5).insert(0, first);
    });
    names("c5: refused (USERNAME_TAKEN), and done later", |evidence| {
        let code = "USERNAME_TAKEN".to_owned();
        outcome(evidence, 5).insert(0, Outcome::Refused { code });
    });
}

#[test]
fn a_ledger_with_a_gap_a_wrong_hash_or_time_that_goes_back_is_named() {
    names("position 3 of the ledger holds 4", |evidence| {
        evidence.events.remove(2);
    });
    names("position 4: version 3 and not 2", |evidence| {
        evidence.events.remove(2);
    });
    names(
        "position 2: the hash is not that of the envelope",
        |evidence| {
            evidence.events[1].leaf_hash = LeafHash([0; 32]);
        },
    );
    names("position 2: its time is before", |evidence| {
        evidence.events[1].recorded_at = Time::from_millis(0);
    });
    names("position 2: its id is used twice", |evidence| {
        evidence.events[1].event_id = evidence.events[0].event_id;
    });
    names("position 3: it names another previous event", |evidence| {
        let mut happened = ledger_of(happened());
        happened[2].previous = None;
        evidence.events[2] = happened[2].to_stored();
    });
}

#[test]
fn a_name_with_two_holders_or_changed_twice_is_named() {
    let mut twice = happened();
    twice.push((JANE, renamed("jane", "john")));
    let breaches = check(&evidence_of(&ledger_of(twice)));
    assert_eq!(breaches[0], "position 6: the name john has two holders");

    let mut twice = happened();
    twice.push((JOHN, renamed("johnny", "jack")));
    let breaches = check(&evidence_of(&ledger_of(twice)));
    assert_eq!(breaches, ["position 6: a second name within 30 days"]);

    names("the claims of names are not those", |evidence| {
        evidence.claims.pop();
    });
}

#[test]
fn a_read_model_that_is_not_the_fold_is_named() {
    names("is not the fold of its events", |evidence| {
        evidence.documents[0].username.push('x');
    });
    names("is not the fold of its events", |evidence| {
        evidence.documents.pop();
    });
    names("the read model is at 4, the ledger at 5", |evidence| {
        evidence.checkpoint = 4;
    });
    names("is parked", |evidence| {
        evidence.parked.push(Parked {
            user_id: JOHN.parse().unwrap(),
            from: 3,
            error: "it cannot be folded".to_owned(),
            recorded_at: Time::from_millis(0),
        });
    });
}

#[test]
fn a_stream_that_is_not_the_ledger_is_named() {
    names(
        "the stream has 4 messages, the ledger 5 events",
        |evidence| {
            evidence.stream.pop();
        },
    );
    names("the stream holds 3 where the ledger holds 2", |evidence| {
        evidence.stream.remove(1);
    });
    names("sequence 2 is not the event of the ledger", |evidence| {
        evidence.stream[1].payload = evidence.stream[0].payload.clone();
    });
    names("sequence 2 is on somewhere.else", |evidence| {
        evidence.stream[1].subject = "somewhere.else".to_owned();
    });
}

#[test]
fn a_read_that_went_back_is_named() {
    names("shows version 3, which is older", |evidence| {
        evidence.history.reads[4].got = evidence.history.reads[3].got.clone();
    });
    names("went back from version 5 to 4", |evidence| {
        evidence.history.reads[4].known = 5;
    });
    names("went back from version 1 to 0", |evidence| {
        evidence.history.reads[0].got = None;
    });
    names("that never was", |evidence| {
        if let Some((_, profile)) = &mut evidence.history.reads[4].got {
            profile["bio"] = "c3".into();
        }
    });
    names("as nobody else saw it", |evidence| {
        if let Some((_, profile)) = &mut evidence.history.reads[4].got {
            profile["name"] = "M".into();
        }
    });
}

#[test]
fn a_command_before_one_that_was_acknowledged_earlier_is_named() {
    names(
        "c3 is at 3, and 5 was acknowledged before it began",
        |evidence| {
            let late = evidence.history.operations[4].ended + Duration::from_secs(1);
            evidence.history.operations[2].began = late;
            evidence.history.operations[2].ended = late;
        },
    );
}
