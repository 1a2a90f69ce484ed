//! A user as it was: its events are folded again, up to a version or a position.

use crate::store::{self, History};
use events::document::{Document, FoldError, fold};
use events::event::DecodeError;
use events::{Position, UserId, Version};

/// Events held at once: a long history needs no more memory than a short one.
const BATCH: u64 = 256;

/// The last version or position to fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A version of the user.
    Version(Version),
    /// A position of the ledger.
    Position(Position),
}

/// A user could not be folded again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger could not be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An event could not be read. Going on would skip it.
    #[error("the event at position {0} cannot be read")]
    Decode(Position, #[source] DecodeError),
    /// An event cannot follow those before it.
    #[error("the event at position {0} cannot be folded")]
    Fold(Position, #[source] FoldError),
}

/// Folds the events of a user again. It continues from an earlier document of the same user, or starts at the first
/// event. The result is `None` if the user has no event up to `until`.
pub async fn refold(
    history: &dyn History,
    user: &UserId,
    mut document: Option<Document>,
    until: Until,
) -> Result<Option<Document>, Error> {
    loop {
        let after = document.as_ref().map_or(0, |document| document.version);
        let limit = match until {
            Until::Version(version) => version.saturating_sub(after).min(BATCH),
            Until::Position(_) => BATCH,
        };
        let limit = usize::try_from(limit).expect("a batch is small");
        if limit == 0 {
            return Ok(document);
        }
        let events = history.read_user(user, after, limit).await?;
        let is_last = events.len() < limit;
        for event in events {
            if matches!(until, Until::Position(last) if event.position > last) {
                return Ok(document);
            }
            let recorded = event
                .decode_without_context()
                .map_err(|error| Error::Decode(event.position, error))?;
            let folded = fold(document, &recorded);
            document = Some(folded.map_err(|error| Error::Fold(event.position, error))?);
        }
        if is_last {
            return Ok(document);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ledger::TestLedger;

    async fn refolded(
        ledger: &TestLedger,
        user: &UserId,
        document: Option<Document>,
        until: Until,
    ) -> Option<Document> {
        let history = ledger.history();
        refold(&*history, user, document, until).await.unwrap()
    }

    #[tokio::test]
    async fn a_user_is_folded_up_to_any_version_and_position() {
        let ledger = TestLedger::new("refold").await;
        // Ten users take turns: more events of each than are held at once.
        ledger.grow(10 * (BATCH + 20)).await;
        let events = ledger.events().await;
        let user = events[0].user_id;
        let mut document = None;
        for event in events.iter().filter(|event| event.user_id == user) {
            let before = document.clone();
            document = Some(fold(document, &event.decode().unwrap()).unwrap());
            if event.version > 3 && event.version.abs_diff(BATCH) > 2 {
                continue;
            }
            let (version, position) = (event.version, event.position);
            for (until, wanted) in [
                (Until::Version(version), &document),
                (Until::Version(version - 1), &before),
                (Until::Position(position), &document),
                (Until::Position(position + 1), &document),
                (Until::Position(position - 1), &before),
            ] {
                let found = refolded(&ledger, &user, None, until).await;
                assert_eq!(found, *wanted, "{until:?}");
            }
        }
        for until in [Until::Version(u64::MAX), Until::Position(u64::MAX)] {
            assert_eq!(refolded(&ledger, &user, None, until).await, document);
        }
    }

    #[tokio::test]
    async fn folding_goes_on_from_an_earlier_document() {
        let ledger = TestLedger::new("refold").await;
        ledger.grow(200).await;
        let user = ledger.events().await[0].user_id;
        let early = refolded(&ledger, &user, None, Until::Version(3)).await;
        let late = refolded(&ledger, &user, None, Until::Version(9)).await;
        let again = refolded(&ledger, &user, early, Until::Version(9)).await;
        assert_eq!(again, late);
        let back = refolded(&ledger, &user, late.clone(), Until::Version(2)).await;
        assert_eq!(back, late, "an earlier version is not unfolded");
    }

    #[tokio::test]
    async fn a_user_without_events_has_no_document() {
        let ledger = TestLedger::new("refold").await;
        let user = "507f1f77bcf86cd799439000".parse().unwrap();
        for until in [Until::Version(1), Until::Position(u64::MAX)] {
            assert_eq!(refolded(&ledger, &user, None, until).await, None);
        }
    }
}
