//! The envelope of every answer, successful or failed.

use jiff::Timestamp;
use serde::Serialize;

/// The five members of every answer, in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope<T> {
    pub(crate) is_success: bool,
    pub(crate) status_code: u16,
    pub(crate) data: T,
    pub(crate) errors: Vec<String>,
    pub(crate) timestamp: String,
}

/// `2026-05-22T16:11:26.808Z`.
pub(crate) fn timestamp(time: Timestamp) -> String {
    format!("{time:.3}")
}
