//! Where the bytes of photos are kept: create-only objects under `users/<userId>/photos/…`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::{PhotoId, Time, UserId};

/// The key of one rendition: `users/<userId>/photos/<content hash>/<photo id>/<file>`.
///
/// The photo's id keeps two uploads of the same bytes apart, so that sweeping what one of them left
/// behind can never take the bytes of the other.
pub fn key(user: &UserId, content_hash: &str, photo: &PhotoId, file: &str) -> String {
    format!("{}/{file}", folder(user, content_hash, photo))
}

fn folder(user: &UserId, content_hash: &str, photo: &PhotoId) -> String {
    format!("users/{user}/photos/{content_hash}/{photo}")
}

/// The photo store could not answer.
#[derive(Debug, thiserror::Error)]
#[error("the photo store cannot be read or written")]
pub struct Error(#[from] object_store::Error);

/// Where the bytes of photos are.
#[derive(Clone)]
pub struct PhotoStore(Arc<dyn ObjectStore>);

/// The photo that a file in the store belongs to, and when that file was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPhoto {
    /// Whose it is.
    pub user_id: UserId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// Which change it was for.
    pub photo_id: PhotoId,
    /// When the file was written.
    pub written_at: Time,
}

impl PhotoStore {
    /// A local folder, made if it is not there. Files are on disk when a write returns.
    pub fn local(folder: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|source| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(source),
        })?;
        let store = LocalFileSystem::new_with_prefix(folder)?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Self(Arc::new(store)))
    }

    /// Writes one file that is not there yet. One that is there already stays as it is.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self
            .0
            .put_opts(&key.into(), PutPayload::from_bytes(bytes), options)
            .await
        {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes of one file; `None` when there is none.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>, Error> {
        match self.0.get(&key.into()).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the files of one photo, if there are any.
    pub async fn remove(
        &self,
        user: &UserId,
        content_hash: &str,
        photo: &PhotoId,
    ) -> Result<(), Error> {
        let prefix = folder(user, content_hash, photo).into();
        let files: Vec<_> = self.0.list(Some(&prefix)).try_collect().await?;
        for file in files {
            match self.0.delete(&file.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Every file in the store, as the photo it belongs to, one at a time. Files whose keys are not ours
    /// are passed over.
    pub fn files(&self) -> BoxStream<'static, Result<StoredPhoto, Error>> {
        let files = self.0.list(Some(&"users".into()));
        let photos = files.map_err(Error::from).try_filter_map(async |file| {
            let written_at = Time::from_millis(file.last_modified.timestamp_millis());
            Ok(parse(file.location.as_ref(), written_at))
        });
        photos.boxed()
    }
}

fn parse(key: &str, written_at: Time) -> Option<StoredPhoto> {
    let mut parts = key.split('/');
    let ("users", user, "photos", hash, photo, _file, None) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next(),
    ) else {
        return None;
    };
    Some(StoredPhoto {
        user_id: user.parse().ok()?,
        content_hash: hash.to_owned(),
        photo_id: photo.parse().ok()?,
        written_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (UserId, PhotoId) {
        (
            "507f1f77bcf86cd799439011".parse().unwrap(),
            "507f1f77bcf86cd799439012".parse().unwrap(),
        )
    }

    #[tokio::test]
    async fn a_file_is_created_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let photos = PhotoStore::local(&folder.path().join("photos")).unwrap();
        let (user, photo) = ids();
        let key = key(&user, "ab", &photo, "40.webp");
        assert_eq!(photos.read(&key).await.unwrap(), None);
        photos
            .create(&key, Bytes::from_static(b"first"))
            .await
            .unwrap();
        photos
            .create(&key, Bytes::from_static(b"second"))
            .await
            .unwrap();
        assert_eq!(
            photos.read(&key).await.unwrap(),
            Some(Bytes::from_static(b"first"))
        );
    }

    #[tokio::test]
    async fn photos_are_listed_and_removed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let photos = PhotoStore::local(folder.path()).unwrap();
        let (user, photo) = ids();
        for file in ["40.webp", "512.jpg"] {
            photos
                .create(&key(&user, "ab", &photo, file), Bytes::from_static(b"x"))
                .await
                .unwrap();
        }
        photos
            .create("users/strange", Bytes::from_static(b"x"))
            .await
            .unwrap();
        let seen: Vec<_> = photos.files().try_collect().await.unwrap();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|file| file.user_id == user
            && file.content_hash == "ab"
            && file.photo_id == photo));
        photos.remove(&user, "ab", &photo).await.unwrap();
        photos.remove(&user, "ab", &photo).await.unwrap();
        assert_eq!(
            photos
                .read(&key(&user, "ab", &photo, "512.jpg"))
                .await
                .unwrap(),
            None
        );
    }
}
