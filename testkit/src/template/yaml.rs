//! CloudFormation's YAML as JSON, with every short form (`!Ref X`) in its long form (`{"Ref": "X"}`).

use anyhow::{Context as _, bail};
use saphyr::{LoadableYamlNode as _, ScalarOwned, Tag, YamlOwned};
use serde_json::{Map, Value, json};

/// One document as JSON.
///
/// # Errors
///
/// It is not YAML, or more than one document.
pub fn parse(text: &str) -> anyhow::Result<Value> {
    let documents = YamlOwned::load_from_str(text).context("the template is not YAML")?;
    match documents.as_slice() {
        [document] => convert(document),
        _ => bail!(
            "the template holds {} YAML documents instead of one",
            documents.len()
        ),
    }
}

fn convert(node: &YamlOwned) -> anyhow::Result<Value> {
    Ok(match node {
        YamlOwned::Value(scalar) => convert_scalar(scalar),
        YamlOwned::Representation(text, _, tag) => match tag {
            Some(tag) => long_form(tag, Value::String(text.clone()))?,
            None => Value::String(text.clone()),
        },
        YamlOwned::Sequence(members) => members.iter().map(convert).collect::<Result<_, _>>()?,
        YamlOwned::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let key = match convert(key)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, convert(value)?);
            }
            Value::Object(object)
        }
        YamlOwned::Tagged(tag, inner) => long_form(tag, convert(inner)?)?,
        YamlOwned::Alias(_) | YamlOwned::BadValue => {
            bail!("the template holds a value that YAML cannot read")
        }
    })
}

fn convert_scalar(scalar: &ScalarOwned) -> Value {
    match scalar {
        ScalarOwned::Null => Value::Null,
        ScalarOwned::Boolean(value) => json!(value),
        ScalarOwned::Integer(value) => json!(value),
        ScalarOwned::FloatingPoint(value) => json!(value.into_inner()),
        ScalarOwned::String(value) => json!(value),
    }
}

fn long_form(tag: &Tag, value: Value) -> anyhow::Result<Value> {
    if tag.handle != "!" {
        // `!!str` and the like only repeat the type.
        return Ok(value);
    }
    Ok(match (tag.suffix.as_str(), value) {
        ("Ref", name) => json!({ "Ref": name }),
        ("Condition", name) => json!({ "Condition": name }),
        ("GetAtt", Value::String(path)) => {
            let (resource, attribute) = path
                .split_once('.')
                .with_context(|| format!("!GetAtt {path} names no attribute"))?;
            json!({ "Fn::GetAtt": [resource, attribute] })
        }
        (function, argument) => json!({ format!("Fn::{function}"): argument }),
    })
}
