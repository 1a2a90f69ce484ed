//! Removes photo bytes that no event names: an upload leaves them when the process dies after
//! writing its bytes and before committing its event.

use events::{Time, UserEvent};
use futures::TryStreamExt as _;
use ledger::photos::{self, PhotoStore, StoredPhoto};
use ledger::store::{self, History};

/// The age in hours at which unnamed bytes may be removed: far longer than any upload takes to
/// commit.
const HOURS: i64 = 24;

/// The sweep stopped early; the next one continues.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The photo store failed.
    #[error(transparent)]
    Photos(#[from] photos::Error),
    /// The ledger could not be read, so it is unknown which bytes are unnamed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Removes photos that are older than a day and that no event names. Returns their number.
///
/// A photo that any event ever named is kept, because the history shows it.
pub async fn sweep(
    photo_store: &PhotoStore,
    history: &dyn History,
    now: Time,
) -> Result<usize, Error> {
    let youngest = Time::from_millis(now.millis() - HOURS * 3_600_000);
    let mut removed = 0;
    let mut last = None;
    let mut files = photo_store.files();
    while let Some(file) = files.try_next().await? {
        // All files of a photo are written within one minute, so one file decides for all.
        if file.written_at < youngest && last.replace(file.photo_id) != Some(file.photo_id) {
            removed += usize::from(remove_unless_named(photo_store, history, &file).await?);
        }
    }
    Ok(removed)
}

async fn remove_unless_named(
    photo_store: &PhotoStore,
    history: &dyn History,
    photo: &StoredPhoto,
) -> Result<bool, Error> {
    if is_named(history, photo).await? {
        return Ok(false);
    }
    photo_store
        .remove(&photo.user_id, &photo.content_hash, &photo.photo_id)
        .await?;
    Ok(true)
}

/// Whether an event of the user ever set this photo. An event that cannot be read counts as one
/// that did.
async fn is_named(history: &dyn History, photo: &StoredPhoto) -> Result<bool, store::Error> {
    const PAGE: usize = 256;
    let mut after = 0;
    loop {
        let page = history.read_user(&photo.user_id, after, PAGE).await?;
        for stored in &page {
            match stored.decode().map(|recorded| recorded.event) {
                Ok(UserEvent::PhotoChanged(changed)) if changed.photo_id == photo.photo_id => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(_) => return Ok(true),
            }
            after = stored.version;
        }
        if page.len() < PAGE {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use bytes::Bytes;

    use photo::samples;

    use super::*;
    use crate::testing::{Api, JOHN, upload};

    #[tokio::test]
    async fn only_old_bytes_that_no_event_ever_named_are_removed() {
        let api = Api::with_users().await;
        for photo in [samples::png(100, 100), samples::png(101, 101)] {
            let answer = api.send(upload(JOHN, &photo)).await;
            assert_eq!(answer.status, StatusCode::OK);
        }
        let user = JOHN.parse().unwrap();
        let orphan = "507f1f77bcf86cd799439012".parse().unwrap();
        let key = events::photo_key::file(&user, "ab", &orphan, "40.webp");
        let create = api.photo_store.create(&key, Bytes::from_static(b"x"));
        create.await.unwrap();
        let files = async || {
            let files: Vec<_> = api.photo_store.files().try_collect().await.unwrap();
            files
        };
        assert_eq!(files().await.len(), 13);
        let mut written: Vec<_> = files().await.iter().map(|file| file.written_at).collect();
        written.sort_unstable();

        // An upload may be about to commit its event.
        let soon = Time::from_millis(written[0].millis() + HOURS * 3_600_000);
        assert_eq!(sweep(&api.photo_store, &*api.store, soon).await.unwrap(), 0);
        assert_eq!(files().await.len(), 13);

        let later = written[12].plus_days(2);
        assert_eq!(
            sweep(&api.photo_store, &*api.store, later).await.unwrap(),
            1
        );
        // The current photo and an earlier one that the history shows.
        assert_eq!(files().await.len(), 12);
        assert_eq!(api.photo_store.read(&key).await.unwrap(), None);
    }
}
