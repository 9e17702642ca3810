//! `GET` and `POST /fbe_business`: which features are on, and how they are set.
//!
//! The documentation says that a POST takes the configuration object, and that only customisable features can be changed
//! by it; not what happens to members that are left out. The model takes the strictest reading, under which a client that
//! works here works under any: a key that is sent is replaced as a whole, a key that is not sent stays. So whoever wants to
//! change one field of one instance has to send the others' fields too.

use serde_json::{Map, Value};

use super::error::GraphError;

/// Features that show only whether they are on. Sending them back unchanged is fine.
const FIXED: [&str; 4] = ["catalogs", "pixels", "fb_shops", "external_clients"];
/// A list whose first element is shown under another key as well.
const MIRRORED: [(&str, &str); 2] = [("page_ctas", "page_cta"), ("ig_ctas", "ig_cta")];

/// The configuration, or the members of it that `fields` names (`a,b{c}`).
pub(super) fn read(configuration: &Value, fields: Option<&str>) -> Value {
    let (Some(fields), Some(all)) = (fields, configuration.as_object()) else {
        return configuration.clone();
    };
    let mut depth = 0_usize;
    let mut names = vec![String::new()];
    for character in fields.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => {
                if let Some(name) = names.last_mut() {
                    name.push(character);
                }
            }
            _ => {}
        }
    }
    let chosen = |name: &String| Some((name.clone(), all.get(name)?.clone()));
    names.iter().filter_map(chosen).collect::<Map<_, _>>().into()
}

/// Writes what was sent over the configuration.
pub(super) fn update(configuration: &mut Value, sent: Map<String, Value>) -> Result<(), GraphError> {
    let Some(current) = configuration.as_object_mut() else {
        return Err(GraphError::invalid("this business has no configuration"));
    };
    for (key, value) in &sent {
        if FIXED.contains(&key.as_str()) && current.get(key) != Some(value) {
            return Err(GraphError::invalid(&format!(
                "The feature {key} cannot be customised"
            )));
        }
        let known = |id: &Value| {
            instances(current.get(key)).any(|instance| instance.get("feature_instance_id") == Some(id))
        };
        for instance in instances(Some(value)) {
            match instance.get("feature_instance_id") {
                Some(id) if value.is_array() && !known(id) => {
                    return Err(GraphError::invalid(&format!(
                        "{key} has no such feature_instance_id"
                    )));
                }
                None if value.is_array() => return Err(GraphError::missing("feature_instance_id")),
                _ => {}
            }
        }
    }
    for (list, single) in MIRRORED {
        if let (Some(first), false) = (instances(sent.get(list)).next(), sent.contains_key(single)) {
            current.insert(single.to_owned(), first.clone());
        }
    }
    current.extend(sent);
    Ok(())
}

/// The instances in a list, or the one that stands for itself.
fn instances(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice);
    let single = value.filter(|value| value.is_object());
    list.unwrap_or_default().iter().chain(single)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration() -> Value {
        json!({
            "pixels": [{"feature_instance_id": "1", "enabled": true}],
            "page_ctas": [{"feature_instance_id": "2", "enabled": true, "cta_button_text": "Book"}],
            "page_cta": {"feature_instance_id": "2", "enabled": true, "cta_button_text": "Book"},
            "ig_cta": {"enabled": false},
        })
    }

    fn updated(sent: &Value) -> Result<Value, i64> {
        let mut configuration = configuration();
        update(&mut configuration, sent.as_object().unwrap().clone()).map_err(|error| error.code())?;
        Ok(configuration)
    }

    #[test]
    fn what_is_sent_is_replaced_whole_and_the_rest_stays() {
        let after = updated(&json!({"page_ctas": [{"feature_instance_id": "2", "enabled": false}]})).unwrap();
        assert_eq!(
            after["page_ctas"],
            json!([{"feature_instance_id": "2", "enabled": false}])
        );
        assert_eq!(after["page_cta"], after["page_ctas"][0]);
        assert_eq!(after["pixels"], configuration()["pixels"]);
    }

    #[test]
    fn fixed_features_and_unknown_instances_are_refused() {
        assert_eq!(updated(&json!({"pixels": []})), Err(100));
        assert_eq!(
            updated(&json!({"page_ctas": [{"feature_instance_id": "9", "enabled": true}]})),
            Err(100)
        );
        assert_eq!(updated(&json!({"page_ctas": [{"enabled": true}]})), Err(100));
        assert_eq!(updated(&configuration()), Ok(configuration()));
    }

    #[test]
    fn fields_choose_members() {
        assert_eq!(
            read(&configuration(), Some("ig_cta,page_cta{enabled,x},none")),
            json!({
                "ig_cta": {"enabled": false},
                "page_cta": {"feature_instance_id": "2", "enabled": true, "cta_button_text": "Book"},
            })
        );
        assert_eq!(read(&configuration(), None), configuration());
    }
}
