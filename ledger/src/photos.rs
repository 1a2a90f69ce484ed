//! The photo store: create-only objects under `users/<userId>/photos/…`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use events::{PhotoId, Time, UserId, photo_key};

/// The photo store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the photo store cannot be read or written")]
pub struct Error(#[from] object_store::Error);

/// The store of photo files.
#[derive(Clone)]
pub struct PhotoStore(Arc<dyn ObjectStore>);

/// A file in the store: its photo, and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPhoto {
    /// The photo's user.
    pub user_id: UserId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// The photo's identifier, new for each change.
    pub photo_id: PhotoId,
    /// When the file was written.
    pub written_at: Time,
}

impl PhotoStore {
    /// A local folder, created if it is missing. Files are on disk when a write returns.
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

    /// A bucket of S3 or of a compatible store: `s3://bucket/prefix`. Region, endpoint and
    /// credentials come from the environment (`AWS_REGION`, `AWS_ENDPOINT_URL`,
    /// `AWS_ACCESS_KEY_ID`, …) or from the machine's role. The store must support conditional
    /// writes (`If-None-Match: *`).
    pub fn s3(url: &str) -> Result<Self, Error> {
        Self::s3_of(AmazonS3Builder::from_env(), url)
    }

    fn s3_of(builder: AmazonS3Builder, url: &str) -> Result<Self, Error> {
        let path = url.strip_prefix("s3://").unwrap_or_default();
        let (_, prefix) = path.split_once('/').unwrap_or((path, ""));
        let store = builder.with_url(url).build()?;
        Ok(Self(Arc::new(PrefixStore::new(store, prefix))))
    }

    /// Writes a file if it does not exist. An existing file stays unchanged.
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

    /// The bytes of one file; `None` when it does not exist.
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
        let prefix = photo_key::folder(user, content_hash, photo).into();
        let files: Vec<_> = self.0.list(Some(&prefix)).try_collect().await?;
        for file in files {
            match self.0.delete(&file.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Every file in the store with its photo, one at a time. Files with other keys are skipped.
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

    /// A private S3 server on a free port, with one bucket in a folder.
    async fn s3(folder: &Path) -> PhotoStore {
        std::fs::create_dir(folder.join("bucket")).unwrap();
        let mut service =
            s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
        service.set_auth(s3s::auth::SimpleAuth::from_single("key", "secret"));
        let service = service.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        let builder = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_access_key_id("key")
            .with_secret_access_key("secret");
        PhotoStore::s3_of(builder, "s3://bucket/some/prefix").unwrap()
    }

    async fn a_file_is_created_once_and_read_back(photos: &PhotoStore) {
        let (user, photo) = ids();
        let key = photo_key::file(&user, "ab", &photo, "40.webp");
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

    async fn photos_are_listed_and_removed_completely(photos: &PhotoStore) {
        let (user, photo) = ids();
        for file in ["40.webp", "512.jpg"] {
            photos
                .create(
                    &photo_key::file(&user, "cd", &photo, file),
                    Bytes::from_static(b"x"),
                )
                .await
                .unwrap();
        }
        photos
            .create("users/strange", Bytes::from_static(b"x"))
            .await
            .unwrap();
        let seen: Vec<_> = photos.files().try_collect().await.unwrap();
        let ours = |file: &&StoredPhoto| {
            file.user_id == user && file.content_hash == "cd" && file.photo_id == photo
        };
        assert_eq!(seen.iter().filter(ours).count(), 2, "{seen:?}");
        photos.remove(&user, "cd", &photo).await.unwrap();
        photos.remove(&user, "cd", &photo).await.unwrap();
        assert_eq!(
            photos
                .read(&photo_key::file(&user, "cd", &photo, "512.jpg"))
                .await
                .unwrap(),
            None
        );
    }

    #[tokio::test]
    async fn a_folder_passes_the_photo_store_tests() {
        let folder = tempfile::tempdir().unwrap();
        let photos = PhotoStore::local(&folder.path().join("photos")).unwrap();
        a_file_is_created_once_and_read_back(&photos).await;
        photos_are_listed_and_removed_completely(&photos).await;
    }

    #[tokio::test]
    async fn a_bucket_passes_the_photo_store_tests() {
        let folder = tempfile::tempdir().unwrap();
        let photos = s3(folder.path()).await;
        a_file_is_created_once_and_read_back(&photos).await;
        photos_are_listed_and_removed_completely(&photos).await;
        let file = "bucket/some/prefix/users/507f1f77bcf86cd799439011/photos/ab";
        assert!(
            folder.path().join(file).exists(),
            "keys are under the prefix"
        );
    }
}
