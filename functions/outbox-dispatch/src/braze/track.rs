//! Many users' objects through `/users/track`.

use std::fmt;

use serde_json::Value;
use tokio::time::Instant;

use super::bulk;
use super::{Array, Braze, BrazeError, Endpoint};

/// What one user's objects are.
#[derive(Default, Clone)]
pub struct User {
    /// User attributes objects; more than one where a value moves from one profile to another.
    pub attributes: Vec<Value>,
    /// Custom event objects; processed after the attributes of the same request.
    pub events: Vec<Value>,
}

// The objects say who somebody is.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attributes, events } = self;
        write!(
            f,
            "User({} attributes, {} events)",
            attributes.len(),
            events.len()
        )
    }
}

impl User {
    pub(super) fn objects(&self) -> usize {
        self.attributes.len() + self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.attributes
            .iter()
            .chain(&self.events)
            .map(|object| object.to_string().len() + 1)
            .sum()
    }
}

/// What became of a user's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Of the attributes objects together; the error is one that may pass, if any of them is.
    pub attributes: Result<(), BrazeError>,
    /// Of each custom event.
    pub events: Vec<Result<(), BrazeError>>,
}

impl Fate {
    pub(super) fn taken(user: &User) -> Self {
        Self {
            attributes: Ok(()),
            events: vec![Ok(()); user.events.len()],
        }
    }

    /// Nothing of `user` was taken, for the same reason.
    #[must_use]
    pub fn failed(user: &User, error: &BrazeError) -> Self {
        Self {
            attributes: Err(error.clone()),
            events: vec![Err(error.clone()); user.events.len()],
        }
    }

    pub(super) fn settle(&mut self, array: Array, index: usize, error: &BrazeError) {
        match array {
            Array::Attributes => {
                if self.attributes.is_ok() || !error.is_final() {
                    self.attributes = Err(error.clone());
                }
            }
            Array::Events => {
                if let Some(event) = self.events.get_mut(index) {
                    *event = Err(error.clone());
                }
            }
        }
    }
}

/// Sends all users' objects. The result has one entry a user, in the same order.
///
/// All of one user's objects travel in one request. A user with more than
/// [`MAX_TRACK_OBJECTS`](super::MAX_TRACK_OBJECTS) is split; then the requests are sent one after the other, and the
/// rest is not sent if one of them may not have arrived. For requests that are not sent at all see [`bulk`].
pub async fn send(braze: &Braze, users: &[User], last_start: Instant) -> Vec<Fate> {
    bulk::send(braze, Endpoint::Track, users, last_start).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_shows_who_somebody_is() {
        let user = User {
            attributes: vec![json!({"external_id": "user-7"})],
            events: vec![],
        };
        assert_eq!(format!("{user:?}"), "User(1 attributes, 0 events)");
    }
}
