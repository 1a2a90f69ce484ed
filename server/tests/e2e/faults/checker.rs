//! What must hold after everything: what clients were told against what is in the ledger, the stream and
//! the read model. Pure; its own tests show for each promise that a breach of it is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_nats::HeaderMap;
use bytes::Bytes;
use command_api::user::USERNAME_DAYS;
use events::document::fold;
use events::envelope::{LeafHash, Recorded, StoredEvent};
use events::{Document, Position, UserEvent, UserId, Version};
use ledger::store::Claim;
use projector::read_model::Parked;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::clients::{History, Operation, Outcome, Request};

const BETWEEN_NAMES: i64 = USERNAME_DAYS * 24 * 60 * 60 * 1000;

/// A message of the stream.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// What clients were told, and what is there.
pub(crate) struct Evidence {
    pub(crate) history: History,
    pub(crate) events: Vec<StoredEvent>,
    pub(crate) head: Position,
    pub(crate) claims: Vec<Claim>,
    pub(crate) checkpoint: Position,
    pub(crate) documents: Vec<Document>,
    pub(crate) parked: Vec<Parked>,
    pub(crate) stream: Vec<Message>,
}

impl Evidence {
    /// How much there was to check.
    pub(crate) fn summary(&self) -> String {
        let of = |wanted: fn(&Outcome) -> bool| {
            let operations = self.history.operations.iter();
            operations
                .filter(|operation| operation.outcomes.iter().any(wanted))
                .count()
        };
        format!(
            "{} commands ({} done, {} refused, {} with an answer that was lost), {} reads with a position, {} events of {} users",
            self.history.operations.len(),
            of(|outcome| matches!(outcome, Outcome::Done { .. })),
            of(|outcome| matches!(outcome, Outcome::Refused { .. })),
            of(|outcome| matches!(outcome, Outcome::Unknown)),
            self.history.reads.len(),
            self.events.len(),
            self.documents.len(),
        )
    }
}

/// Every breach of a promise, as a sentence.
pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut breaches = Vec::new();
    let recorded = ledger(evidence, &mut breaches);
    let states = states(&recorded, &mut breaches);
    operations(evidence, &recorded, &states, &mut breaches);
    order(evidence, &states, &mut breaches);
    documents(evidence, &states, &mut breaches);
    names(evidence, &recorded, &mut breaches);
    stream(evidence, &mut breaches);
    told(evidence, &states, &mut breaches);
    breaches
}

/// Positions are 1..head and versions 1..n, time does not go back, ids are unique, hashes right, and each
/// event names its user's previous one.
fn ledger(evidence: &Evidence, breaches: &mut Vec<String>) -> Vec<Recorded> {
    let mut recorded = Vec::new();
    let mut versions: HashMap<UserId, Version> = HashMap::new();
    let mut last_of: HashMap<UserId, (Position, LeafHash)> = HashMap::new();
    let mut ids = BTreeSet::new();
    let mut time = None;
    for (event, expected) in evidence.events.iter().zip(1..) {
        let position = event.position;
        if position != expected {
            breaches.push(format!(
                "position {expected} of the ledger holds {position}"
            ));
        }
        let version = versions.entry(event.user_id).or_default();
        *version += 1;
        if event.version != *version {
            breaches.push(format!(
                "position {position}: version {} and not {version}",
                event.version
            ));
        }
        if !ids.insert(event.event_id.to_string()) {
            breaches.push(format!("position {position}: its id is used twice"));
        }
        if time > Some(event.recorded_at) {
            breaches.push(format!(
                "position {position}: its time is before that of the one before"
            ));
        }
        time = Some(event.recorded_at);
        let hash: [u8; 32] = Sha256::new()
            .chain_update([0])
            .chain_update(&event.envelope)
            .finalize()
            .into();
        if event.leaf_hash.0 != hash {
            breaches.push(format!(
                "position {position}: the hash is not that of the envelope"
            ));
        }
        match event.decode() {
            Ok(decoded) => {
                let previous = last_of.insert(event.user_id, (position, event.leaf_hash));
                let named = decoded.previous.as_ref();
                if named.map(|named| (named.position, named.hash)) != previous {
                    breaches.push(format!(
                        "position {position}: it names another previous event"
                    ));
                }
                recorded.push(decoded);
            }
            Err(error) => breaches.push(format!("position {position}: {error}")),
        }
    }
    if evidence.head != evidence.events.len() as u64 {
        let events = evidence.events.len();
        breaches.push(format!(
            "the head is {}, but there are {events} events",
            evidence.head
        ));
    }
    recorded
}

/// What each user was at each version.
type States = HashMap<UserId, Vec<Document>>;

fn states(recorded: &[Recorded], breaches: &mut Vec<String>) -> States {
    let mut states = States::new();
    for event in recorded {
        let states = states.entry(event.user_id).or_default();
        match fold(states.last().cloned(), event) {
            Ok(document) => states.push(document),
            Err(error) => breaches.push(format!("position {}: {error}", event.position)),
        }
    }
    states
}

/// Every acknowledged command is in the ledger once, where its answer said; a refused one is not, one that
/// nobody answered is at most once; and nothing is there that nobody asked for.
fn operations(
    evidence: &Evidence,
    recorded: &[Recorded],
    states: &States,
    breaches: &mut Vec<String>,
) {
    let mut events_of: HashMap<&str, Vec<&Recorded>> = HashMap::new();
    for event in recorded {
        let id = event.context.request_id.as_deref().unwrap_or_default();
        events_of.entry(id).or_default().push(event);
    }
    for operation in &evidence.history.operations {
        let id = &operation.id;
        let events = events_of.remove(id.as_str()).unwrap_or_default();
        if events.len() > 1 {
            breaches.push(format!("{id} took place {} times", events.len()));
        }
        for event in &events {
            if event.user_id != operation.user || !is_what_was_asked(operation, &event.event) {
                let position = event.position;
                breaches.push(format!("position {position}: not what {id} asked for"));
            }
            if operation
                .if_match
                .is_some_and(|version| event.version != version + 1)
            {
                breaches.push(format!("{id} took place on another version than it named"));
            }
        }
        let mut known: Option<&Outcome> = None;
        for outcome in &operation.outcomes {
            match (known, outcome) {
                (_, Outcome::Unknown) => continue,
                (
                    Some(Outcome::Done { position, .. }),
                    Outcome::Done {
                        position: again,
                        was_replayed,
                        ..
                    },
                ) if position != again || !was_replayed => {
                    breaches.push(format!(
                        "{id}: answered anew at {again}, first at {position}"
                    ));
                }
                (Some(Outcome::Done { .. }), Outcome::Refused { code }) => {
                    breaches.push(format!("{id}: done, and refused later ({code})"));
                }
                (Some(Outcome::Refused { code }), Outcome::Done { .. }) if is_remembered(code) => {
                    breaches.push(format!("{id}: refused ({code}), and done later"));
                }
                _ => {}
            }
            known = Some(outcome);
            match outcome {
                Outcome::Done {
                    position, version, ..
                } => {
                    let is_there = events
                        .iter()
                        .any(|event| (event.position, event.version) == (*position, *version));
                    if !is_there && !changed_nothing(operation, *version, states) {
                        breaches.push(format!(
                            "{id} was acknowledged at {position} and is not there"
                        ));
                    }
                }
                Outcome::Refused { code } => {
                    if code == "RESOURCE_NOT_FOUND" {
                        breaches.push(format!("{id}: its user was acknowledged and is not there"));
                    }
                    if code == "VALIDATION_FAILED" {
                        breaches.push(format!("{id}: refused without a reason"));
                    }
                }
                Outcome::Unknown => {}
            }
        }
        let was_refused = matches!(known, Some(Outcome::Refused { .. }));
        if was_refused && !events.is_empty() {
            breaches.push(format!("{id} was refused and took place"));
        }
    }
    for (id, events) in events_of {
        let position = events[0].position;
        breaches.push(format!("position {position}: nobody sent a command {id:?}"));
    }
}

/// Whether a user asked for the name that it had in some version: a success without an event.
fn changed_nothing(operation: &Operation, version: Version, states: &States) -> bool {
    let Request::Username { username } = &operation.request else {
        return false;
    };
    let states = states.get(&operation.user);
    states.is_some_and(|states| {
        states
            .iter()
            .any(|state| state.version == version && state.username == *username)
    })
}

/// Refusals that are an outcome of their key, for ever.
fn is_remembered(code: &str) -> bool {
    code.starts_with("USER")
}

fn is_what_was_asked(operation: &Operation, event: &UserEvent) -> bool {
    match (&operation.request, event) {
        (Request::Register { username }, UserEvent::UserRegistered(registered)) => {
            registered.username == *username
        }
        (Request::Profile, UserEvent::ProfileUpdated(updated)) => {
            let mut profile = events::event::Profile::default();
            updated.apply_to(&mut profile);
            profile.bio.as_deref() == Some(&operation.id)
        }
        (Request::Username { username }, UserEvent::UsernameChanged(changed)) => {
            changed.after == *username
        }
        (Request::Photo { .. }, UserEvent::PhotoChanged(_)) => true,
        _ => false,
    }
}

/// A command that began after another was acknowledged comes after it in the ledger.
fn order(evidence: &Evidence, states: &States, breaches: &mut Vec<String>) {
    let mut done: Vec<(&Operation, Position)> = Vec::new();
    for operation in &evidence.history.operations {
        let first = operation.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Done {
                position, version, ..
            } => (!changed_nothing(operation, *version, states)).then_some(*position),
            Outcome::Refused { .. } | Outcome::Unknown => None,
        });
        done.extend(first.map(|position| (operation, position)));
    }
    let mut by_end = done.clone();
    by_end.sort_by_key(|(operation, _)| operation.ended);
    done.sort_by_key(|(operation, _)| operation.began);
    let mut ended = by_end.into_iter().peekable();
    let mut highest = 0;
    for (operation, position) in done {
        while let Some((_, earlier)) = ended.next_if(|(earlier, _)| earlier.ended < operation.began)
        {
            highest = highest.max(earlier);
        }
        if position <= highest {
            let id = &operation.id;
            breaches.push(format!(
                "{id} is at {position}, and {highest} was acknowledged before it began"
            ));
        }
    }
}

/// The read model is the fold of the ledger up to its head.
fn documents(evidence: &Evidence, states: &States, breaches: &mut Vec<String>) {
    if evidence.checkpoint != evidence.head {
        let (checkpoint, head) = (evidence.checkpoint, evidence.head);
        breaches.push(format!(
            "the read model is at {checkpoint}, the ledger at {head}"
        ));
    }
    for parked in &evidence.parked {
        breaches.push(format!("{} is parked: {}", parked.user_id, parked.error));
    }
    let stored: BTreeMap<UserId, &Document> = evidence
        .documents
        .iter()
        .map(|document| (document.user_id, document))
        .collect();
    for (user, states) in states {
        if stored.get(user).copied() != states.last() {
            breaches.push(format!(
                "the document of {user} is not the fold of its events"
            ));
        }
    }
    if stored.len() != states.len() {
        breaches.push("the read model has other users than the ledger".to_owned());
    }
}

/// No name has two holders, the claims are those of the events, and a user changes its name once in `USERNAME_DAYS`.
fn names(evidence: &Evidence, recorded: &[Recorded], breaches: &mut Vec<String>) {
    let mut holders: BTreeMap<&str, (UserId, bool)> = BTreeMap::new();
    let mut changed: HashMap<UserId, i64> = HashMap::new();
    for event in recorded {
        let (before, after) = match &event.event {
            UserEvent::UserRegistered(registered) => (None, &registered.username),
            UserEvent::UsernameChanged(change) => {
                let now = event.recorded_at.millis();
                let last = changed.insert(event.user_id, now);
                if last.is_some_and(|last| now - last < BETWEEN_NAMES) {
                    let position = event.position;
                    breaches.push(format!(
                        "position {position}: a second name within {USERNAME_DAYS} days"
                    ));
                }
                (Some(&change.before), &change.after)
            }
            // `claims_of` in the ledger asks the compiler which events take or give up a name.
            _ => continue,
        };
        // A name that was given up is kept for its user for longer than any run lasts.
        if holders
            .get(after.as_str())
            .is_some_and(|(holder, _)| *holder != event.user_id)
        {
            let position = event.position;
            breaches.push(format!(
                "position {position}: the name {after} has two holders"
            ));
        }
        if let Some(before) = before {
            holders.insert(before, (event.user_id, false));
        }
        holders.insert(after, (event.user_id, true));
    }
    let claims: BTreeMap<&str, (UserId, bool)> = evidence
        .claims
        .iter()
        .map(|claim| {
            (
                claim.username.as_str(),
                (claim.user_id, claim.held_until.is_none()),
            )
        })
        .collect();
    if claims != holders {
        breaches.push("the claims of names are not those of the events".to_owned());
    }
}

/// The stream is the ledger, message by message.
fn stream(evidence: &Evidence, breaches: &mut Vec<String>) {
    if evidence.stream.len() != evidence.events.len() {
        let (messages, events) = (evidence.stream.len(), evidence.events.len());
        breaches.push(format!(
            "the stream has {messages} messages, the ledger {events} events"
        ));
    }
    for (message, event) in evidence.stream.iter().zip(&evidence.events) {
        let position = event.position;
        if message.sequence != position {
            breaches.push(format!(
                "the stream holds {} where the ledger holds {position}",
                message.sequence
            ));
            return;
        }
        let digest = Sha256::digest(event.user_id.to_string().as_bytes());
        let subject = format!("profiles.v1.p{:02}.{}", digest[0] >> 2, event.event_type);
        if message.subject != subject {
            breaches.push(format!(
                "sequence {position} is on {}, not on {subject}",
                message.subject
            ));
        }
        match ledger::message::from_message(&message.headers, &message.payload) {
            Ok(found) if found == *event => {}
            Ok(_) => breaches.push(format!(
                "sequence {position} is not the event of the ledger"
            )),
            Err(error) => breaches.push(format!("sequence {position}: {error}")),
        }
    }
}

/// What clients were shown is what the user was then: no read went behind its position or behind what its
/// client had seen, and each version was shown the same to everybody.
fn told(evidence: &Evidence, states: &States, breaches: &mut Vec<String>) {
    let mut shown: HashMap<(UserId, Version), &Value> = HashMap::new();
    let show = |who: &str, user: UserId, version: Version, profile: &'_ Value| -> Option<String> {
        // Its head arrived, its body did not.
        if profile.is_null() {
            return None;
        }
        let at = usize::try_from(version).ok()?.checked_sub(1)?;
        let Some(document) = states.get(&user).and_then(|states| states.get(at)) else {
            return Some(format!(
                "{who} was shown version {version} of {user}, which never was"
            ));
        };
        let is_it = profile["_id"] == user.to_string()
            && profile["username"] == document.username
            && profile.get("bio").and_then(Value::as_str) == document.profile.bio.as_deref()
            && profile["updatedAt"] == document.updated_at.to_string()
            && profile
                .get("profilePhoto")
                .is_some_and(|photo| !photo.is_null())
                == document.photo.is_some();
        (!is_it).then(|| format!("{who} was shown a version {version} of {user} that never was"))
    };
    for operation in &evidence.history.operations {
        for outcome in &operation.outcomes {
            if let Outcome::Done {
                version, profile, ..
            } = outcome
            {
                breaches.extend(show(&operation.id, operation.user, *version, profile));
                if !profile.is_null() {
                    let first = shown.entry((operation.user, *version)).or_insert(profile);
                    if *first != profile {
                        breaches.push(format!(
                            "{} was shown something else than others",
                            operation.id
                        ));
                    }
                }
            }
        }
    }
    for read in &evidence.history.reads {
        let (user, asked) = (read.user, read.asked);
        // Who is not there is at version 0.
        let version = read.got.as_ref().map_or(0, |(version, _)| *version);
        if version < read.known {
            breaches.push(format!(
                "a read of {user} at {asked} went back from version {} to {version}",
                read.known
            ));
        }
        // Of the events of this user up to that position, all must be shown.
        let behind = states.get(&user).is_some_and(|states| {
            let least = states
                .iter()
                .filter(|state| state.position <= asked)
                .count();
            version < least as u64
        });
        if behind {
            breaches.push(format!(
                "a read of {user} at {asked} shows version {version}, which is older"
            ));
        }
        let Some((_, profile)) = &read.got else {
            continue;
        };
        breaches.extend(show("a read", user, version, profile));
        let first = shown.entry((user, version)).or_insert(profile);
        if *first != profile {
            breaches.push(format!(
                "a read of {user} shows version {version} as nobody else saw it"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
