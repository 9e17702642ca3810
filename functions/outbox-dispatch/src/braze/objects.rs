//! What Braze is sent about one profile, and what became of it.

use serde_json::Value;
use shared::personal::Personal;

use super::BrazeError;
use super::refusal::Array;

/// The objects of one profile.
#[derive(Debug, Default, Clone)]
pub struct Objects {
    /// User attributes objects, more than one where a value moves from one profile to another; of `/users/identify`,
    /// the aliases.
    pub attributes: Personal<Vec<Value>>,
    /// Custom event objects; processed after the attributes of the same request.
    pub events: Personal<Vec<Value>>,
}

impl Objects {
    /// Attributes objects alone.
    pub(crate) fn of_attributes(objects: Vec<Value>) -> Self {
        Self {
            attributes: objects.into(),
            events: Personal::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.attributes.len() + self.events.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Array, &Value)> {
        let attributes = self.attributes.iter().map(|object| (Array::Attributes, object));
        attributes.chain(self.events.iter().map(|object| (Array::Events, object)))
    }

    pub(super) fn bytes(&self) -> usize {
        bytes(self.iter())
    }
}

/// What objects take in a request's body.
pub(super) fn bytes<'a>(objects: impl IntoIterator<Item = (Array, &'a Value)>) -> usize {
    let objects = objects.into_iter();
    objects.map(|(_, object)| object.to_string().len() + 1).sum()
}

/// What became of a profile's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Of the attributes objects together; the error is one that may pass, if any of them is.
    pub attributes: Result<(), BrazeError>,
    /// Of each custom event.
    pub events: Vec<Result<(), BrazeError>>,
}

impl Fate {
    /// The error, if other requests would meet the same.
    pub(crate) fn outage(&self) -> Option<&BrazeError> {
        let errors = std::iter::once(&self.attributes).chain(&self.events);
        errors
            .filter_map(|result| result.as_ref().err())
            .find(|error| error.is_outage())
    }

    /// The same of all objects.
    #[must_use]
    pub fn of_all(objects: &Objects, outcome: &Result<(), BrazeError>) -> Self {
        Self {
            attributes: outcome.clone(),
            events: vec![outcome.clone(); objects.events.len()],
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
