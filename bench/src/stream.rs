//! The JetStream stream to which a measured service publishes.

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamErrorKind;
use events::subject::STREAM;

use crate::installation::Installation;
use crate::run::Settings;

/// The stream that a measured service creates.
pub(crate) struct Stream(jetstream::Context);

impl Stream {
    pub(crate) async fn on_empty_server(url: &str) -> anyhow::Result<Self> {
        let jetstream = jetstream(url).await?;
        match jetstream.get_stream(STREAM).await {
            Ok(_) => {
                bail!(
                    "the server of NATS_URL already has a stream {STREAM}: use a server without a ledger"
                )
            }
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {}
            Err(error) => return Err(error).context("cannot read the streams of NATS_URL"),
        }
        Ok(Self(jetstream))
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.0
    }

    pub(crate) async fn get(&self) -> anyhow::Result<jetstream::stream::Stream> {
        self.0
            .get_stream(STREAM)
            .await
            .context("the stream does not exist yet")
    }

    pub(crate) async fn delete(&self) -> anyhow::Result<()> {
        match self.0.delete_stream(STREAM).await {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("the stream {STREAM} could not be deleted"))
            }
        }
    }

    /// The last sequence, or 0 if the stream does not exist yet.
    pub(crate) async fn last(&self) -> u64 {
        let Ok(mut stream) = self.0.get_stream(STREAM).await else {
            return 0;
        };
        stream
            .info()
            .await
            .map_or(0, |info| info.state.last_sequence)
    }
}

/// Lends an installation whose service publishes to the NATS server of the settings, if there is one. The stream is
/// deleted afterwards.
pub(crate) async fn lend(
    settings: &Settings,
    measure: impl AsyncFnOnce(&mut Installation, Option<&Stream>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(url) = &settings.nats_url else {
        return Installation::lend(settings, async |installation| {
            measure(installation, None).await
        })
        .await;
    };
    let stream = Stream::on_empty_server(url).await?;
    let measured = Installation::lend(settings, async |installation| {
        installation.publish_to(Some(url));
        measure(installation, Some(&stream)).await
    })
    .await;
    measured.and(stream.delete().await)
}

/// Connects to JetStream.
async fn jetstream(url: &str) -> anyhow::Result<jetstream::Context> {
    let client = async_nats::connect(url).await;
    Ok(jetstream::new(
        client.context("cannot connect to NATS_URL")?,
    ))
}
