//! Many followers of one ledger, for the read cost of one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};

use super::{Error, Feed, read_after};
use crate::store::History;
use events::Position;
use events::envelope::StoredEvent;

/// The newest events, read once for all followers near the head.
pub struct Tail {
    history: Arc<dyn History>,
    batch: usize,
    newest: Mutex<Vec<StoredEvent>>,
}

impl Tail {
    /// The tail of a ledger. It holds at most `batch` events, and delivers at most that many at a
    /// time.
    pub fn new(history: Arc<dyn History>, batch: usize) -> Arc<Self> {
        Arc::new(Self {
            history,
            batch,
            newest: Mutex::default(),
        })
    }

    /// A feed of the events after a position.
    pub fn follow(self: &Arc<Self>, after: Position) -> SharedFeed {
        SharedFeed {
            tail: Arc::clone(self),
            head: self.history.watch_head(),
            after,
        }
    }

    /// The next events; the head says that there are some.
    async fn read(&self, after: Position, head: Position) -> Result<Vec<StoredEvent>, Error> {
        // A follower that is far behind reads alone and delays nobody.
        if head - after > self.batch as u64 {
            return read_after(&*self.history, after, self.batch).await;
        }
        let mut newest = self.newest.lock().await;
        let next = newest.iter().position(|event| event.position == after + 1);
        if let Some(next) = next {
            return Ok(newest[next..].to_vec());
        }
        let events = read_after(&*self.history, after, self.batch).await?;
        newest.clone_from(&events);
        Ok(events)
    }
}

/// One of many followers.
pub struct SharedFeed {
    tail: Arc<Tail>,
    head: watch::Receiver<Position>,
    after: Position,
}

#[async_trait]
impl Feed for SharedFeed {
    async fn next(&mut self) -> Result<Vec<StoredEvent>, Error> {
        let head = *self
            .head
            .wait_for(|head| *head > self.after)
            .await
            .map_err(|_| Error::Closed)?;
        let events = self.tail.read(self.after, head).await?;
        self.after += events.len() as u64;
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::test_ledger::{DEADLINE, TestLedger};
    use crate::test_servers::memory::Memory;

    const BATCH: usize = 16;

    #[tokio::test]
    async fn many_followers_of_the_head_read_it_once() {
        let ledger = Memory::new();
        let tail = Tail::new(Arc::clone(&ledger) as _, BATCH);
        let mut feeds: Vec<_> = (0..50).map(|_| tail.follow(0)).collect();
        for round in 1..=5 {
            let end = 3 * Position::from(round);
            for user in end - 2..=end {
                ledger.register(user);
            }
            let nexts = futures::future::join_all(feeds.iter_mut().map(Feed::next)).await;
            for events in nexts {
                let events = events.unwrap();
                assert!(events.iter().map(|event| event.position).eq(end - 2..=end));
            }
            assert_eq!(ledger.requests.load(Ordering::Relaxed), round);
        }
    }

    #[tokio::test]
    async fn every_follower_sees_every_event_once_in_order_from_any_start() {
        let ledger = TestLedger::new("shared").await;
        ledger.grow(100).await;
        let tail = Tail::new(ledger.history(), BATCH);
        let mut followers = tokio::task::JoinSet::new();
        for after in [0, 1, 50, 90, 99, 100, 100] {
            let mut feed = tail.follow(after);
            followers.spawn(async move {
                let mut next = after + 1;
                while next <= 200 {
                    for event in feed.next().await.unwrap() {
                        assert_eq!(event.position, next);
                        next += 1;
                    }
                    if after.is_multiple_of(2) {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        for _ in 0..20 {
            ledger.grow(5).await;
        }
        let all = tokio::time::timeout(DEADLINE, followers.join_all()).await;
        all.expect("every follower sees the last event");
    }
}
