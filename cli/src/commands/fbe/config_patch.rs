//! Changes to a business's feature configuration that leave alone what they do not name.
//!
//! Graph's `/fbe_business` keeps a feature that can be installed once under a singular key (`page_cta`), and
//! the same with its siblings as a list under the plural (`page_ctas`), each with a `feature_instance_id`.
//! What is posted replaces what is there, so a change is laid over what was read first.

use serde_json::{Map, Value};

const INSTANCE: &str = "feature_instance_id";

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    /// A change or the configuration is no JSON object.
    #[error("a configuration is a JSON object of features")]
    NotAnObject,
    /// A feature's change is neither an object nor a list of objects.
    #[error("`{key}` expects an object, or a list of objects with `feature_instance_id`")]
    WrongForm {
        /// The feature.
        key: String,
    },
    /// No instance of that id is installed.
    #[error("`{key}` has no instance `{instance}`")]
    UnknownInstance {
        /// The feature.
        key: String,
        /// The instance.
        instance: String,
    },
    /// Several instances are installed, and the change does not say which one it is for.
    #[error("`{key}` has several instances: say which one by `feature_instance_id`")]
    WhichInstance {
        /// The feature.
        key: String,
    },
}

/// Lays `change` over `current` (Graph's answer to `GET /fbe_business`). Gives what is to be posted as
/// `business_config`: the features that change, each complete, in every form in which it is there. A member
/// that is changed to null is taken out; a list of plain values is replaced as a whole.
///
/// # Errors
///
/// A [`PatchError`] if the change does not fit what is installed.
pub(super) fn patch(current: &Value, change: &Value) -> Result<Value, PatchError> {
    let (Some(current), Some(change)) = (current.as_object(), change.as_object()) else {
        return Err(PatchError::NotAnObject);
    };
    let mut next = current.clone();
    let mut touched: Vec<String> = Vec::new();
    for (key, change) in change {
        match change {
            Value::Array(changes) => {
                for change in changes {
                    let change = change.as_object().ok_or_else(|| wrong_form(key))?;
                    touched.extend(one(&mut next, key, change)?);
                }
            }
            Value::Object(change) => touched.extend(one(&mut next, key, change)?),
            _ => return Err(wrong_form(key)),
        }
    }
    next.retain(|key, _| touched.contains(key));
    Ok(Value::Object(next))
}

fn wrong_form(key: &str) -> PatchError {
    PatchError::WrongForm { key: key.to_owned() }
}

/// Makes one change to one feature or instance; gives the keys that it touched.
fn one(
    config: &mut Map<String, Value>,
    key: &str,
    change: &Map<String, Value>,
) -> Result<Vec<String>, PatchError> {
    let instance = match change.get(INSTANCE).and_then(shared::fbe::read::id) {
        Some(instance) => Some(instance),
        None => only_instance(config.get(key), key)?,
    };
    let Some(instance) = instance else {
        // A feature without instances, such as one that is not installed yet.
        let feature = config.entry(key).or_insert_with(|| Value::Object(Map::new()));
        overlay(feature, change);
        return Ok(vec![key.to_owned()]);
    };
    let mut touched = Vec::new();
    for form in [key.to_owned(), sibling(key)] {
        let found = match config.get_mut(&form) {
            Some(Value::Array(list)) => list.iter_mut().find(|feature| is_instance(feature, &instance)),
            Some(feature) => Some(feature).filter(|feature| is_instance(feature, &instance)),
            None => None,
        };
        if let Some(feature) = found {
            overlay(feature, change);
            touched.push(form);
        }
    }
    if touched.is_empty() {
        return Err(PatchError::UnknownInstance {
            key: key.to_owned(),
            instance,
        });
    }
    Ok(touched)
}

/// The instance that is meant where a change names none.
fn only_instance(feature: Option<&Value>, key: &str) -> Result<Option<String>, PatchError> {
    let id = |feature: &Value| feature.get(INSTANCE).and_then(shared::fbe::read::id);
    match feature {
        Some(Value::Array(list)) => match list.as_slice() {
            [only] => Ok(id(only)),
            _ => Err(PatchError::WhichInstance { key: key.to_owned() }),
        },
        Some(feature) => Ok(id(feature)),
        None => Ok(None),
    }
}

fn is_instance(feature: &Value, instance: &str) -> bool {
    feature.get(INSTANCE).and_then(shared::fbe::read::id).as_deref() == Some(instance)
}

/// `page_cta` ↔ `page_ctas`
fn sibling(key: &str) -> String {
    key.strip_suffix('s')
        .map_or_else(|| format!("{key}s"), str::to_owned)
}

/// JSON merge patch (RFC 7396) over an object.
fn overlay(target: &mut Value, change: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in change {
        match value {
            // The id says which instance is meant. As a change it could only break the link.
            _ if name == INSTANCE => {}
            Value::Null => {
                members.remove(name);
            }
            Value::Object(inner) => overlay(members.entry(name).or_insert(Value::Null), inner),
            plain => {
                members.insert(name.clone(), plain.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use shared::clients::graph::{Credentials, GraphApp, GraphClient, GraphSettings};
    use shared::clients::http;
    use testkit::graph::{FakeGraph, Install, Options};

    use super::*;

    fn current() -> Value {
        json!({
            "business": {"name": "Shop"},
            "page_cta": {"feature_instance_id": "1", "enabled": true, "cta_button_text": "Book", "below_button_text": "x"},
            "page_ctas": [
                {"feature_instance_id": "1", "enabled": true, "cta_button_text": "Book", "below_button_text": "x"},
                {"feature_instance_id": "2", "enabled": true, "cta_button_text": "Order", "cta_button_url": "u"}
            ],
            "ads": [{"feature_instance_id": "3", "enabled": true}],
            "ig_cta": {"enabled": false},
            "messenger_chat": {"enabled": true, "domains": ["a"], "default_locale": "en_US"}
        })
    }

    #[test]
    fn an_instance_is_changed_in_both_forms_and_its_sibling_is_kept() {
        let change = json!({"page_ctas": [{"feature_instance_id": "1", "cta_button_text": "Reserve"}]});
        let instance = json!({"feature_instance_id": "1", "enabled": true, "cta_button_text": "Reserve", "below_button_text": "x"});
        assert_eq!(
            patch(&current(), &change).unwrap(),
            json!({"page_cta": instance, "page_ctas": [instance, current()["page_ctas"][1]]})
        );
        let singular = json!({"page_cta": {"cta_button_text": "Reserve"}});
        assert_eq!(patch(&current(), &singular), patch(&current(), &change));
    }

    #[test]
    fn an_instance_that_only_the_list_has_leaves_the_singular_out() {
        let change = json!({"page_ctas": [{"feature_instance_id": 2, "enabled": false}]});
        let posted = patch(&current(), &change).unwrap();
        assert_eq!(
            posted.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["page_ctas"]
        );
        assert_eq!(posted["page_ctas"][0], current()["page_ctas"][0]);
        assert_eq!(
            posted["page_ctas"][1],
            json!({"feature_instance_id": "2", "enabled": false, "cta_button_text": "Order", "cta_button_url": "u"})
        );
    }

    #[test]
    fn features_without_instances_keep_their_other_fields() {
        let change = json!({"messenger_chat": {"domains": ["b"], "default_locale": null}, "ig_cta": {"enabled": true}});
        assert_eq!(
            patch(&current(), &change).unwrap(),
            json!({"messenger_chat": {"enabled": true, "domains": ["b"]}, "ig_cta": {"enabled": true}})
        );
    }

    #[test]
    fn a_list_of_one_needs_no_id_and_a_longer_one_does() {
        let posted = patch(&current(), &json!({"ads": {"enabled": false}})).unwrap();
        assert_eq!(
            posted,
            json!({"ads": [{"feature_instance_id": "3", "enabled": false}]})
        );
        assert_eq!(
            patch(&current(), &json!({"page_ctas": {"enabled": false}})),
            Err(PatchError::WhichInstance {
                key: "page_ctas".into()
            })
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let unknown = json!({"ads": [{"feature_instance_id": "9", "enabled": false}]});
        assert!(matches!(
            patch(&current(), &unknown),
            Err(PatchError::UnknownInstance { .. })
        ));
        assert!(matches!(
            patch(&current(), &json!({"ads": true})),
            Err(PatchError::WrongForm { .. })
        ));
        assert_eq!(patch(&current(), &json!([])), Err(PatchError::NotAnObject));
    }

    /// Against the fake Graph: what is read, laid over and posted leaves the rest as it was.
    #[tokio::test]
    async fn a_change_of_configuration_keeps_what_it_does_not_name() {
        let options = Options::new("app", "secret").proof_everywhere(true);
        let graph = FakeGraph::start(options).await.unwrap();
        graph.set_install(Install::recorded("shop", "EAAB-user"));
        graph.set_configuration("shop", current());
        let settings = GraphSettings {
            url: graph.url(),
            version: "v25.0".to_owned(),
        };
        let client = GraphClient::new(http::client(Duration::from_secs(2)), &settings);
        let app = GraphApp {
            id: "app".to_owned(),
            secret: "secret".into(),
        };
        let credentials = Credentials {
            app: &app,
            token: &"EAAB-user".into(),
        };
        let read = client.fbe_business(credentials, "shop").await.unwrap();
        let change = json!({"page_ctas": [{"feature_instance_id": "1", "cta_button_text": "Reserve"}]});
        let config = patch(&read, &change).unwrap();
        client
            .update_fbe_business(credentials, "shop", &config)
            .await
            .unwrap();
        let mut expected = current();
        expected["page_cta"]["cta_button_text"] = json!("Reserve");
        expected["page_ctas"][0]["cta_button_text"] = json!("Reserve");
        assert_eq!(graph.configuration("shop").unwrap(), expected);
    }
}
