//! Bodies with form encoding.

use serde_json::Value;

use super::fields::Key;
use crate::outbox::Reason;

/// Whether a body is a form: as its header says, or by its first key.
pub(super) fn is_form(body: &str, content_type: Option<&str>) -> bool {
    let declared = content_type.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let first = body.trim_start().split('=').next().unwrap_or_default();
    declared || (body.contains('=') && Key::named(first).is_some())
}

/// The fields of a form. One that is not encoded is read only where it reads the same either way.
pub(super) fn form(body: &str) -> Result<Vec<(String, Value)>, Reason> {
    if is_not_encoded(body) && !is_plain(body) {
        return Err(Reason::Ambiguous);
    }
    let fields = form_urlencoded::parse(body.as_bytes()).map(|(key, value)| {
        // `+` stands for a blank here, so a number without `url_encode` lost its sign.
        let unsigned = (key == "phone_number")
            .then(|| value.strip_prefix(' '))
            .flatten()
            .filter(|digits| digits.starts_with(|char: char| char.is_ascii_digit()))
            .map(|digits| format!("+{digits}"));
        let value = unsigned.unwrap_or_else(|| value.into_owned());
        (key.into_owned(), Value::String(value))
    });
    Ok(fields.collect())
}

/// Whether something in this form shows that its template does not use `url_encode`.
fn is_not_encoded(form: &str) -> bool {
    form.contains(|char: char| !char.is_ascii_graphic() || char == '"') || form.contains("phone_number=+")
}

/// Whether a form reads the same, encoded or not: each `&` parts two known keys, and no value holds what stands
/// for something else.
fn is_plain(form: &str) -> bool {
    form.split('&').all(|entry| {
        entry.split_once('=').is_some_and(|(name, value)| {
            let value = if name == "phone_number" {
                value.strip_prefix('+').unwrap_or(value)
            } else {
                value
            };
            Key::named(name).is_some() && !value.contains(['+', '%'])
        })
    })
}
