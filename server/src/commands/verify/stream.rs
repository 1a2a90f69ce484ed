//! Compares the stream with the ledger, message by message.

use ledger::feed::{self, Feed as _, StreamFeed};
use ledger::merkle::verify::Fault;
use ledger::store::History;
use ledger::stream::Connection;

use super::{PAGE, Report};

/// Compares every message of the stream.
pub(super) async fn verify(
    history: &dyn History,
    connection: Connection,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (first, last) = connection.holds().await?;
    let head = history.head().await?.position;
    if last > head {
        return Err(Fault::at(head + 1, "the stream holds more than the ledger").into());
    }
    let mut position = first.saturating_sub(1);
    let mut messages = 0;
    let mut feed = StreamFeed::new(connection, Some(position), PAGE);
    while position < last {
        let published = match feed.next().await {
            Ok(published) => published,
            Err(feed::Error::Gap { expected, .. }) => {
                return Err(Fault::at(expected, "the message is missing from the stream").into());
            }
            Err(feed::Error::Foreign(at)) => {
                return Err(
                    Fault::at(at, "the message in the stream differs from the event").into(),
                );
            }
            Err(error) => return Err(error.into()),
        };
        let recorded = history.read(position, published.len()).await?;
        for (message, event) in published.iter().zip(&recorded) {
            if message != event {
                return Err(Fault::at(
                    event.position,
                    "the message in the stream differs from the event",
                )
                .into());
            }
            position = event.position;
            messages += 1;
        }
    }
    report.messages = Some(messages);
    Ok(())
}
