//! `Authorization: Bearer …`, compared in constant time.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// Whether the request carries one of `tokens`. An empty token is one that nobody has filled in, and opens
/// nothing.
#[must_use]
pub fn matches<'a>(headers: &HeaderMap, tokens: impl IntoIterator<Item = &'a SecretString>) -> bool {
    let Some(given) = token(headers) else { return false };
    // Every token is compared, so that the time does not tell which one was close.
    tokens.into_iter().fold(false, |found, token| {
        let token = token.expose_secret().as_bytes();
        found | (!token.is_empty() && bool::from(token.ct_eq(given.as_bytes())))
    })
}

/// Whether somebody has filled in one of `tokens`.
#[must_use]
pub fn is_filled_in<'a>(tokens: impl IntoIterator<Item = &'a SecretString>) -> bool {
    tokens.into_iter().any(|token| !token.expose_secret().is_empty())
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(header: Option<&str>, tokens: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        let tokens: Vec<SecretString> = tokens.iter().map(|token| SecretString::from(*token)).collect();
        matches(&headers, &tokens)
    }

    #[test]
    fn only_a_configured_token_opens() {
        assert!(opens(Some("Bearer current"), &["current", "previous"]));
        assert!(opens(Some("bearer previous"), &["current", "previous"]));
        for header in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Basic current"),
            Some("Bearer currentx"),
        ] {
            assert!(!opens(header, &["current", ""]), "{header:?}");
        }
        assert!(!opens(Some("Bearer anything"), &[]));
    }
}
