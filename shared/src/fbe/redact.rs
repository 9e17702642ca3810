//! Takes access tokens out of what is kept for people to look at.

use serde_json::Value;

/// Stands where a token was.
pub const REDACTED: &str = "[redacted]";

/// Whether a JSON member of this name may hold a credential.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name != "token_type" && (name.contains("token") || name.contains("secret") || name.contains("password"))
}

/// Replaces the values of members that hold credentials, at any depth, and tokens inside other texts.
#[must_use]
pub fn value(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| {
                let kept = if is_credential(name) {
                    Value::from(REDACTED)
                } else {
                    self::value(member)
                };
                (text(name), kept)
            })
            .collect(),
        Value::Array(items) => items.iter().map(self::value).collect(),
        Value::String(content) => Value::from(text(content)),
        other => other.clone(),
    }
}

/// Replaces what looks like a Meta access token in text that need not be JSON: runs that start with `EAA`
/// or `IGA`, and what follows a name that ends in `token`.
#[must_use]
pub fn text(content: &str) -> String {
    let mut kept = String::with_capacity(content.len());
    let mut rest = content;
    let mut credential = false;
    while !rest.is_empty() {
        let run = rest.find(|c: char| !is_token_character(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run);
        if word.is_empty() {
            let end = rest.find(is_token_character).unwrap_or(rest.len());
            let (between, after) = rest.split_at(end);
            // A name and its value are parted by quotes, `:` or `=`; a comma or brace ends the value.
            if between.contains([',', '}', ']', '&', '\n']) {
                credential = false;
            }
            kept.push_str(between);
            rest = after;
            continue;
        }
        let looks_like_token = word.starts_with("EAA") || word.starts_with("IGA");
        kept.push_str(if credential || (looks_like_token && word.len() > 3) {
            REDACTED
        } else {
            word
        });
        let name = word.to_ascii_lowercase();
        credential = credential || name.ends_with("token") || name.ends_with("secret");
        rest = after;
    }
    kept
}

fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '|' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_that_hold_credentials_are_replaced_at_any_depth() {
        let kept =
            value(&json!({"a": [{"access_token": "abc", "token_type": "User"}], "merchant_access_token": 1}));
        assert_eq!(
            kept,
            json!({"a": [{"access_token": REDACTED, "token_type": "User"}], "merchant_access_token": REDACTED})
        );
    }

    #[test]
    fn tokens_in_text_are_replaced_even_if_it_is_no_json() {
        let kept = text("{“access_token”: “abc.def-1”, “pixel_id”: “12” x EAABsecret}");
        assert_eq!(
            kept,
            "{“access_token”: “[redacted]”, “pixel_id”: “12” x [redacted]}"
        );
    }

    #[test]
    fn text_without_tokens_is_left_alone() {
        let plain = "{\"token_type\": \"User\", \"pages\": null} é 한";
        assert_eq!(text(plain), plain);
    }
}
