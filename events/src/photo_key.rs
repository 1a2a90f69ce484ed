//! The names of photo files in the photo store: `users/<userId>/photos/<content
//! hash>/<photoId>/<file>`.
//!
//! The photo's id keeps two uploads of the same bytes apart. Removing the remains of one upload
//! therefore never removes a file of the other.

use crate::{PhotoId, UserId};

/// The name of one rendition. `file` is `main` or the `file` of a variant in
/// [`PhotoChanged`](crate::event::PhotoChanged).
pub fn file(user: &UserId, content_hash: &str, photo: &PhotoId, file: &str) -> String {
    format!("{}/{file}", folder(user, content_hash, photo))
}

/// The common prefix of the names of one photo's renditions, without the final slash.
pub fn folder(user: &UserId, content_hash: &str, photo: &PhotoId) -> String {
    format!("users/{user}/photos/{content_hash}/{photo}")
}
