//! Reads a range of the ledger at full speed: the next pages are read while one page is processed.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::feed::{self, read_until};
use crate::store::History;
use events::Position;
use events::envelope::StoredEvent;

/// Events per page.
const PAGE: usize = 4096;
/// Waiting pages. The page in progress and the page being read are in memory too.
const PAGES: usize = 2;

/// Pages of events by position, without a gap.
pub struct ReadAhead {
    pages: mpsc::Receiver<Result<Vec<StoredEvent>, feed::Error>>,
    /// The task that reads; it ends when dropped.
    _reader: JoinSet<()>,
}

impl ReadAhead {
    /// The events after a position up to another one, which the ledger has reached.
    pub fn new(history: Arc<dyn History>, after: Position, until: Position) -> Self {
        let (sender, pages) = mpsc::channel(PAGES);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut at = after;
            while at < until {
                let page = read_until(&*history, at, until, PAGE).await;
                let is_last = page.is_err();
                if let Ok(events) = &page {
                    at += events.len() as u64;
                }
                if sender.send(page).await.is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            pages,
            _reader: reader,
        }
    }

    /// The next page; `None` at the end and after an error.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, feed::Error> {
        self.pages.recv().await.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ledger::TestLedger;

    #[tokio::test]
    async fn a_range_is_read_completely_and_nothing_beyond_it() {
        let ledger = TestLedger::new("ahead").await;
        let head = ledger.grow(3 * PAGE as u64 + 5).await;
        for (after, until) in [(0, head), (7, head - 9), (0, 1), (5, 5), (head, head)] {
            let mut reading = ReadAhead::new(ledger.history(), after, until);
            let mut at = after;
            while let Some(events) = reading.next().await.unwrap() {
                at = feed::follow(at, &events).unwrap();
            }
            assert_eq!(at, until);
        }
    }

    #[tokio::test]
    async fn a_range_beyond_the_head_is_an_error() {
        let ledger = TestLedger::new("ahead").await;
        ledger.grow(5).await;
        let mut reading = ReadAhead::new(ledger.history(), 0, 6);
        assert_eq!(reading.next().await.unwrap().unwrap().len(), 5);
        assert!(matches!(reading.next().await, Err(feed::Error::Gap { .. })));
        assert!(reading.next().await.unwrap().is_none());
    }
}
