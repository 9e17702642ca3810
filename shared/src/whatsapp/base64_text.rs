//! Texts that a template encodes with `base64_encode`.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The text, in either alphabet, with or without padding and line breaks; `None` if it is none.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let encoded: String = encoded.chars().filter(|char| !char.is_whitespace()).collect();
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if encoded.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    let bytes = GeneralPurpose::new(alphabet, config).decode(encoded).ok()?;
    String::from_utf8(bytes).ok()
}
