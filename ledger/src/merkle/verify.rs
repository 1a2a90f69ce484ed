//! Verifies a history event by event. Pure: the caller feeds the events in.

use std::collections::HashMap;

use super::note::{Checkpoint, Error as NoteError, PublicKey};
use super::tree::{Hash, Hasher};
use events::envelope::{LeafHash, Recorded, StoredEvent};
use events::{Position, Time, UserId, Version};

/// The first fault of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", range(*.from, *.to))]
pub struct Fault {
    /// The first possible position of the fault.
    pub from: Position,
    /// The last possible position of the fault.
    pub to: Position,
    /// The kind of fault, without any content of the event.
    pub what: String,
}

fn range(from: Position, to: Position) -> String {
    if from == to {
        format!("position {from}")
    } else {
        format!("one of the positions {from} to {to}")
    }
}

impl Fault {
    /// A fault of one event.
    pub fn at(position: Position, what: impl Into<String>) -> Self {
        Self {
            from: position,
            to: position,
            what: what.into(),
        }
    }

    /// A fault of one of several events.
    pub fn within(from: Position, to: Position, what: impl Into<String>) -> Self {
        Self {
            from,
            to,
            what: what.into(),
        }
    }
}

/// The newest event of a user.
struct Newest {
    version: Version,
    position: Position,
    hash: LeafHash,
}

/// Verifies a whole history from position 1 on. It remembers the newest event of each user and the
/// right edge of the tree.
#[derive(Default)]
pub struct Verifier {
    hasher: Hasher,
    users: HashMap<UserId, Newest>,
    recorded_at: Option<Time>,
    /// The position up to which a checkpoint has confirmed the history.
    confirmed: Position,
}

impl Verifier {
    /// Verifies the next event and returns its content.
    pub fn event(&mut self, event: &StoredEvent) -> Result<Recorded, Fault> {
        let position = self.hasher.size() + 1;
        let fault = |what: &str| Err(Fault::at(position, what));
        if event.position != position {
            return fault(&format!(
                "the event is missing or at the wrong position; found position {}",
                event.position
            ));
        }
        let hash = LeafHash::of(&event.envelope);
        if hash != event.leaf_hash {
            return fault("the envelope is not the one that was hashed");
        }
        let Ok(recorded) = event.decode() else {
            return fault("the envelope cannot be decoded");
        };
        let is_consistent = recorded.position == event.position
            && recorded.event_id == event.event_id
            && recorded.user_id == event.user_id
            && recorded.version == event.version
            && recorded.recorded_at == event.recorded_at
            && recorded.event.event_type() == event.event_type
            && recorded.event.schema_version() == event.schema_version;
        if !is_consistent {
            return fault("the envelope contradicts its row");
        }
        if self.recorded_at > Some(event.recorded_at) {
            return fault("it was recorded before the preceding event");
        }
        let newest = self.users.get(&event.user_id);
        if event.version != newest.map_or(1, |newest| newest.version + 1) {
            return fault("it is not the next version of its user");
        }
        let named = recorded.previous.map(|named| (named.position, named.hash));
        if named != newest.map(|newest| (newest.position, newest.hash)) {
            return fault(
                "it does not follow the user's event before it: one of the two was changed",
            );
        }
        self.recorded_at = Some(event.recorded_at);
        let newest = Newest {
            version: event.version,
            position,
            hash,
        };
        self.users.insert(event.user_id, newest);
        self.hasher.push(hash.0);
        Ok(recorded)
    }

    /// The number of events so far.
    pub fn size(&self) -> Position {
        self.hasher.size()
    }

    /// The root over the events so far.
    pub fn root(&self) -> Hash {
        self.hasher.root()
    }

    /// The time when the last event so far was recorded.
    pub fn recorded_at(&self) -> Option<Time> {
        self.recorded_at
    }

    /// The users so far, with their newest versions.
    pub fn users(&self) -> impl Iterator<Item = (UserId, Version)> + '_ {
        self.users
            .iter()
            .map(|(user, newest)| (*user, newest.version))
    }

    /// Checks that a checkpoint over exactly the events so far confirms them.
    pub fn confirm(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        if checkpoint.root != self.root() {
            return Err(Fault::within(
                self.confirmed + 1,
                self.size(),
                "the events are not those that were signed",
            ));
        }
        self.confirmed = self.size();
        Ok(())
    }

    /// The position up to which checkpoints have confirmed the events.
    pub fn confirmed(&self) -> Position {
        self.confirmed
    }
}

/// Opens the signed checkpoint of a size. A mismatch is reported at the last position that the
/// checkpoint covers.
pub fn open(key: &PublicKey, size: u64, note: &str) -> Result<Checkpoint, Fault> {
    let opened = key.open(note).and_then(|checkpoint| {
        if checkpoint.size == size {
            Ok(checkpoint)
        } else {
            Err(NoteError::Form)
        }
    });
    opened.map_err(|error| Fault::at(size, format!("the checkpoint over {size} events: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::note::Signer;
    use super::*;
    use crate::test_ledger;
    use events::envelope::Previous;

    fn events() -> Vec<StoredEvent> {
        let mut newest = HashMap::new();
        let follow = |position| {
            let mut recorded = test_ledger::event("verified", position).decode().unwrap();
            recorded.previous = newest.get(&recorded.user_id).copied();
            let stored = recorded.to_stored();
            let hash = stored.leaf_hash;
            newest.insert(stored.user_id, Previous { position, hash });
            stored
        };
        (1..=40).map(follow).collect()
    }

    fn signed(events: &[StoredEvent]) -> Checkpoint {
        let mut hasher = Hasher::default();
        for event in events {
            hasher.push(event.leaf_hash.0);
        }
        Checkpoint {
            origin: "example.com/log".to_owned(),
            size: hasher.size(),
            root: hasher.root(),
        }
    }

    /// The first fault of a history with a signed checkpoint.
    fn verify(events: &[StoredEvent], signed: &Checkpoint) -> Result<(), Fault> {
        let mut verifier = Verifier::default();
        for event in events {
            verifier.event(event)?;
        }
        if verifier.size() != signed.size {
            return Err(Fault::at(verifier.size() + 1, "the event is missing"));
        }
        verifier.confirm(signed)
    }

    #[test]
    fn an_unchanged_history_is_confirmed() {
        let events = events();
        assert_eq!(verify(&events, &signed(&events)), Ok(()));
    }

    #[test]
    fn a_note_of_another_size_or_key_is_reported() {
        let signer = Signer::new("example.com/log", [1; 32]).unwrap();
        let note = signer.sign(3, &[0; 32]);
        let key = signer.public_key();
        assert!(open(&key, 3, &note).is_ok());
        assert_eq!(open(&key, 4, &note).unwrap_err().from, 4);
        let other = Signer::new("example.com/log", [2; 32]).unwrap();
        assert_eq!(open(&other.public_key(), 3, &note).unwrap_err().from, 3);
    }

    /// The change of an attacker who can write to the database and recomputes the hash.
    fn rehashed(event: &StoredEvent) -> StoredEvent {
        StoredEvent {
            leaf_hash: LeafHash::of(&event.envelope),
            ..event.clone()
        }
    }

    proptest! {
        #[test]
        fn a_flipped_byte_is_found(
            at in 0_usize..40,
            byte in any::<prop::sample::Index>(),
            bit in 0_u8..8,
            is_rehashed in any::<bool>(),
        ) {
            let events = events();
            let checkpoint = signed(&events);
            let mut changed = events.clone();
            let mut envelope = changed[at].envelope.to_vec();
            let byte = byte.index(envelope.len());
            envelope[byte] ^= 1 << bit;
            changed[at].envelope = envelope.into();
            if is_rehashed {
                changed[at] = rehashed(&changed[at]);
            }
            let fault = verify(&changed, &checkpoint).unwrap_err();
            let position = at as u64 + 1;
            if is_rehashed {
                // The next event of the user reveals it, or the checkpoint.
                prop_assert!(fault.from <= 40 && position <= fault.to);
            } else {
                prop_assert_eq!((fault.from, fault.to), (position, position));
            }
        }

        #[test]
        fn a_dropped_doubled_or_swapped_event_is_found(at in 0_usize..39, other in 0_usize..40) {
            let events = events();
            let checkpoint = signed(&events);
            let position = at as u64 + 1;

            let mut dropped = events.clone();
            dropped.remove(at);
            prop_assert_eq!(verify(&dropped, &checkpoint).unwrap_err().from, position);

            let mut doubled = events.clone();
            doubled.insert(at, events[at].clone());
            prop_assert_eq!(verify(&doubled, &checkpoint).unwrap_err().from, position + 1);

            prop_assume!(at != other);
            let mut swapped = events.clone();
            swapped.swap(at, other);
            let first = at.min(other) as u64 + 1;
            prop_assert_eq!(verify(&swapped, &checkpoint).unwrap_err().from, first);
        }

        #[test]
        fn rows_that_contradict_their_envelopes_are_found(at in 0_usize..40, column in 0..5) {
            let events = events();
            let mut changed = events.clone();
            let event = &mut changed[at];
            match column {
                0 => event.user_id = "507f1f77bcf86cd799439000".parse().unwrap(),
                1 => event.version += 1,
                2 => event.event_type.push('x'),
                3 => event.schema_version += 1,
                _ => event.recorded_at = Time::from_millis(event.recorded_at.millis() + 1),
            }
            let fault = verify(&changed, &signed(&events)).unwrap_err();
            prop_assert_eq!(fault.from, at as u64 + 1);
        }
    }

    #[test]
    fn an_added_event_or_one_cut_off_at_the_end_is_found() {
        let events = events();
        let checkpoint = signed(&events[..39]);
        let fault = verify(&events, &checkpoint).unwrap_err();
        assert_eq!(fault.from, 41);
        let fault = verify(&events[..38], &checkpoint).unwrap_err();
        assert_eq!(fault.from, 39);
    }
}
