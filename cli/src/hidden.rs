//! Keeps known credentials out of what is printed, whoever repeats them: Graph and Braze do in their errors.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

/// Shorter ones would blot out words.
const SHORTEST: usize = 6;

/// Credentials that must not be printed.
#[derive(Default)]
pub(crate) struct Hidden(Vec<SecretString>);

impl Hidden {
    /// Adds one.
    pub(crate) fn add(&mut self, secret: &SecretString) {
        if secret.expose_secret().len() >= SHORTEST {
            self.0.push(secret.clone());
            // A text that holds another goes first.
            self.0
                .sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
        }
    }

    /// Adds every text of a secret but ids.
    pub(crate) fn add_fields(&mut self, fields: &Map<String, Value>) {
        for (name, value) in fields {
            match value {
                Value::String(text) if name != "app_id" => self.add(&SecretString::from(text.as_str())),
                Value::Object(fields) => self.add_fields(fields),
                _ => {}
            }
        }
    }

    /// The text without them.
    pub(crate) fn clean(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.expose_secret(), "[redacted]")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_secret_holds_is_not_shown_and_ids_are() {
        let mut hidden = Hidden::default();
        let secret = json!({"app_id": "1234567", "app_secret": "a-secret", "page_access_tokens": {"77": "a-secret-token"}});
        hidden.add_fields(secret.as_object().unwrap());
        let shown = hidden.clean("1234567 said: a-secret-token is not a-secret of 77");
        assert_eq!(shown, "1234567 said: [redacted] is not [redacted] of 77");
    }
}
