//! Takes the bytes out of a request, once.

use bytes::Bytes;
use lambda_http::{Body, Request};

use super::ErrorCode;

/// 4 MiB. API Gateway lets 10 MB through and Lambda 6 MB; Meta's batches stay far below.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The request's parts and the body's bytes; base64 is already undone.
///
/// # Errors
///
/// [`ErrorCode::BodyTooLarge`]
pub fn take(request: Request) -> Result<(http::request::Parts, Bytes), ErrorCode> {
    let (parts, body) = request.into_parts();
    let bytes = match body {
        Body::Text(text) => Bytes::from(text),
        Body::Binary(bytes) => Bytes::from(bytes),
        _ => Bytes::new(),
    };
    if bytes.len() > MAX_BODY_BYTES {
        Err(ErrorCode::BodyTooLarge)
    } else {
        Ok((parts, bytes))
    }
}
