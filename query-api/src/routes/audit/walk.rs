//! The ledger from a position to another, and which of its events are asked for.

use std::borrow::Cow;
use std::sync::Arc;

use events::{Position, StoredEvent, UserId};
use ledger::feed::{self, read_after};
use ledger::store::History;
use serde::Deserialize;

/// Which events are asked for.
pub(super) struct Filter {
    pub(super) user: Option<UserId>,
    pub(super) event_type: Option<&'static str>,
    pub(super) actor: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Filter {
    /// Whether an event is asked for. One whose envelope says nothing of its caller has none.
    fn takes(&self, event: &StoredEvent) -> bool {
        #[derive(Default, Deserialize)]
        struct Cause<'a> {
            #[serde(borrow)]
            authid: Option<Cow<'a, str>>,
            #[serde(borrow)]
            requestid: Option<Cow<'a, str>>,
        }
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        if self.user.is_some_and(|user| user != event.user_id)
            || self.event_type.is_some_and(|one| one != event.event_type)
        {
            return false;
        }
        if self.actor.is_none() && self.request_id.is_none() {
            return true;
        }
        let cause: Cause<'_> = serde_json::from_slice(&event.envelope).unwrap_or_default();
        is(&self.actor, cause.authid.as_deref()) && is(&self.request_id, cause.requestid.as_deref())
    }

    /// Whether every event is.
    pub(super) fn takes_all(&self) -> bool {
        self.user.is_none()
            && self.event_type.is_none()
            && self.actor.is_none()
            && self.request_id.is_none()
    }
}

/// The ledger from a position to another, a batch at a time.
pub(super) struct Walk {
    pub(super) history: Arc<dyn History>,
    pub(super) filter: Filter,
    /// Everything up to here was looked at.
    pub(super) after: Position,
    pub(super) last: Position,
    /// How many are read at once.
    pub(super) batch: usize,
}

impl Walk {
    /// Whether everything was looked at.
    pub(super) fn is_over(&self) -> bool {
        self.after >= self.last
    }

    /// The events of the next batch that are asked for.
    pub(super) async fn next(&mut self) -> Result<Vec<StoredEvent>, feed::Error> {
        let mut events = if let Some(user) = self.filter.user {
            let users = [user];
            let read = self.history.read_users(&users, self.after, self.batch);
            let events = read.await?;
            let has_more = events.len() == self.batch;
            let last = events.last().filter(|_| has_more);
            self.after = last.map_or(self.last, |event| event.position);
            events
        } else {
            let events = read_after(&*self.history, self.after, self.batch).await?;
            self.after += events.len() as u64;
            events
        };
        self.after = self.after.min(self.last);
        events.retain(|event| event.position <= self.last && self.filter.takes(event));
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use ::events::{EventId, LeafHash, Time};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::JOHN;

    proptest! {
        #[test]
        fn any_envelope_is_taken_or_not(envelope in proptest::collection::vec(any::<u8>(), 0..60), text in ".{0,9}") {
            let event = StoredEvent {
                position: 1,
                event_id: EventId::new(Time::from_millis(0), [0; 10]),
                user_id: JOHN.parse().unwrap(),
                version: 1,
                event_type: text.clone(),
                schema_version: 1,
                recorded_at: Time::from_millis(0),
                leaf_hash: LeafHash::of(&envelope),
                envelope: envelope.into(),
            };
            let filter = Filter { user: None, event_type: None, actor: Some(text), request_id: None };
            let _ = filter.takes(&event);
        }
    }
}
