//! The last events that this process appended, in memory. Followers read each event directly after
//! its append.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use events::Position;
use events::envelope::StoredEvent;

/// The number of events in memory. Followers further behind read the database.
const EVENTS: usize = 2_048;

/// Committed events without gaps between them, including the last one of this process.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<VecDeque<StoredEvent>>);

impl Newest {
    /// Records committed events.
    pub(super) fn appended(&self, events: &[StoredEvent]) {
        let Some(first) = events.first() else { return };
        let mut newest = self.lock();
        if newest
            .back()
            .is_some_and(|last| last.position + 1 != first.position)
        {
            // Another process appended in between.
            newest.clear();
        }
        newest.extend(events.iter().cloned());
        let surplus = newest.len().saturating_sub(EVENTS);
        newest.drain(..surplus);
    }

    /// Forgets the events, because another process appended or this one may have: they may not be
    /// the end of the ledger any more.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// This many events after a position; `None` when not all of them are in memory.
    pub(super) fn read(&self, after: Position, count: usize) -> Option<Vec<StoredEvent>> {
        let newest = self.lock();
        let first = newest.front()?.position;
        let from = usize::try_from(after.checked_add(1)?.checked_sub(first)?).ok()?;
        let until = from.checked_add(count)?;
        (until <= newest.len()).then(|| newest.range(from..until).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<StoredEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::envelope::LeafHash;
    use events::{EventId, Time, UserId};

    fn events(positions: std::ops::RangeInclusive<Position>) -> Vec<StoredEvent> {
        let time = Time::from_millis(0);
        let event = |position| StoredEvent {
            position,
            event_id: EventId::new(time, [0; 10]),
            user_id: UserId::new(time, [0; 8]),
            version: position,
            event_type: "profile-updated".to_owned(),
            schema_version: 1,
            recorded_at: time,
            envelope: vec![0].into(),
            leaf_hash: LeafHash::of(&[0]),
        };
        positions.map(event).collect()
    }

    fn read(newest: &Newest, after: Position, limit: usize) -> Option<Vec<Position>> {
        let events = newest.read(after, limit)?;
        Some(events.iter().map(|event| event.position).collect())
    }

    #[test]
    fn the_last_appended_events_are_read_and_nothing_else() {
        let newest = Newest::default();
        assert_eq!(read(&newest, 0, 1), None);
        newest.appended(&events(5..=7));
        newest.appended(&[]);
        newest.appended(&events(8..=9));
        assert_eq!(read(&newest, 4, 2), Some(vec![5, 6]));
        assert_eq!(read(&newest, 6, 3), Some(vec![7, 8, 9]));
        for (after, count) in [
            (0, 1),
            (3, 2),
            (6, 4),
            (9, 1),
            (10, 1),
            (Position::MAX, 1),
            (5, usize::MAX),
        ] {
            assert_eq!(read(&newest, after, count), None, "{count} after {after}");
        }
    }

    #[test]
    fn nothing_is_kept_across_events_of_another_process() {
        let newest = Newest::default();
        newest.appended(&events(1..=3));
        newest.appended(&events(5..=6));
        assert_eq!(read(&newest, 0, 1), None);
        assert_eq!(read(&newest, 4, 2), Some(vec![5, 6]));
        newest.forget();
        assert_eq!(read(&newest, 4, 2), None);
    }

    #[test]
    fn the_number_of_kept_events_is_limited() {
        let newest = Newest::default();
        let last = 3 * EVENTS as Position;
        newest.appended(&events(1..=last));
        let kept = last - EVENTS as Position;
        assert_eq!(read(&newest, kept - 1, 1), None);
        assert_eq!(read(&newest, kept, 1), Some(vec![kept + 1]));
        assert_eq!(read(&newest, last - 1, 1), Some(vec![last]));
    }
}
