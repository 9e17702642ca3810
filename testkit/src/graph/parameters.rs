//! The parameters of a call: query, form and JSON body are the same to Graph.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::GraphError;
use crate::server::Incoming;

enum Parameter<'a> {
    Text(String),
    Json(&'a RawValue),
}

/// Parameters by name. JSON stays unparsed until somebody asks: a batch of 5,000 items is megabytes.
pub(super) struct Parameters<'a>(BTreeMap<String, Parameter<'a>>);

impl<'a> Parameters<'a> {
    pub(super) fn read(request: &'a Incoming) -> Result<Self, GraphError> {
        let mut all = BTreeMap::new();
        let mut form = |bytes: &[u8]| {
            for (name, value) in form_urlencoded::parse(bytes) {
                all.insert(name.into_owned(), Parameter::Text(value.into_owned()));
            }
        };
        form(request.query.as_bytes());
        if request.is("application/x-www-form-urlencoded") {
            form(&request.body);
        } else if request.is("application/json") {
            let members: BTreeMap<String, &RawValue> = serde_json::from_slice(&request.body)
                .map_err(|_| GraphError::invalid("The body is not a JSON object"))?;
            all.extend(
                members
                    .into_iter()
                    .map(|(name, value)| (name, Parameter::Json(value))),
            );
        } else if !request.body.is_empty() {
            return Err(GraphError::invalid("this fake takes a form or a JSON body"));
        }
        if let (Some(token), false) = (request.bearer(), all.contains_key("access_token")) {
            all.insert("access_token".to_owned(), Parameter::Text(token.to_owned()));
        }
        Ok(Self(all))
    }

    /// The value as text, if it is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = match self.0.get(name)? {
            Parameter::Text(text) => text.clone(),
            Parameter::Json(raw) => match serde_json::from_str(raw.get()).ok()? {
                Value::String(text) => text,
                other => other.to_string(),
            },
        };
        Some(text).filter(|text| !text.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<String, GraphError> {
        self.text(name).ok_or_else(|| GraphError::missing(name))
    }

    /// The value parsed as JSON; in a form it is JSON in a text.
    pub(super) fn json<'b, T: Deserialize<'b>>(&'b self, name: &str) -> Result<T, GraphError> {
        let json = match self.0.get(name).ok_or_else(|| GraphError::missing(name))? {
            Parameter::Text(text) => text,
            Parameter::Json(raw) => raw.get(),
        };
        serde_json::from_str(json).map_err(|_| GraphError::invalid(&format!("Param {name} has a wrong form")))
    }

    /// Everything but credentials and bulk.
    pub(super) fn shown(&self) -> Map<String, Value> {
        let hidden = |name: &str| {
            matches!(
                name,
                "access_token"
                    | "appsecret_proof"
                    | "requests"
                    | "input_token"
                    | "client_secret"
                    | "fb_exchange_token"
                    | "verify_token"
            )
        };
        let value = |parameter: &Parameter<'_>| match parameter {
            Parameter::Text(text) => text.as_str().into(),
            Parameter::Json(raw) => serde_json::from_str(raw.get()).unwrap_or_default(),
        };
        self.0
            .iter()
            .filter(|(name, _)| !hidden(name))
            .map(|(name, parameter)| (name.clone(), value(parameter)))
            .collect()
    }
}
