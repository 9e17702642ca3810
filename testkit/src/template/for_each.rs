//! `Fn::ForEach` of the transform `AWS::LanguageExtensions`: a loop over a list becomes the members that it repeats.
//!
//! As on AWS, an item takes the place of the loop's identifier in the keys of the fragment (`${Function}Alarm`), in
//! the text of a `Fn::Sub`, and where a `Ref` names the identifier. Other texts stay as they are.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

const LOOP: &str = "Fn::ForEach::";

/// The loops that are being expanded, outermost first: identifier and item.
type Bindings<'a> = Vec<(&'a str, &'a str)>;

/// The template with every loop of its `Resources` expanded.
pub(super) fn expand(mut root: Value) -> anyhow::Result<Value> {
    if let Some(resources) = root.get_mut("Resources") {
        *resources = value(resources, &Vec::new())?;
    }
    Ok(root)
}

fn value(node: &Value, bindings: &Bindings<'_>) -> anyhow::Result<Value> {
    Ok(match node {
        Value::Array(members) => {
            let members = members.iter().map(|member| value(member, bindings));
            Value::Array(members.collect::<Result<_, _>>()?)
        }
        Value::Object(object) => match bound(object, bindings) {
            Some(replaced) => replaced,
            None => Value::Object(members(object, bindings)?),
        },
        plain => plain.clone(),
    })
}

/// A `Ref` to an identifier, or a `Fn::Sub` of nothing but identifiers. What else a `Fn::Sub` names is left in it.
fn bound(object: &Map<String, Value>, bindings: &Bindings<'_>) -> Option<Value> {
    let mut entries = object.iter();
    let (Some((function, Value::String(text))), None) = (entries.next(), entries.next()) else {
        return None;
    };
    match function.as_str() {
        "Ref" => {
            let item = bindings.iter().find(|(identifier, _)| identifier == text);
            item.map(|(_, item)| json!(item))
        }
        "Fn::Sub" if !bindings.is_empty() => {
            let text = substitute(text, bindings);
            Some(if text.contains("${") {
                json!({ "Fn::Sub": text })
            } else {
                json!(text)
            })
        }
        _ => None,
    }
}

fn members(object: &Map<String, Value>, bindings: &Bindings<'_>) -> anyhow::Result<Map<String, Value>> {
    let mut expanded = Map::new();
    for (key, member) in object {
        let produced = if key.starts_with(LOOP) {
            iterate(member, bindings).with_context(|| key.clone())?
        } else {
            let mut single = Map::new();
            single.insert(key.clone(), member_of(key, member, bindings)?);
            single
        };
        for (key, member) in produced {
            if expanded.insert(key.clone(), member).is_some() {
                bail!("{key} is there twice");
            }
        }
    }
    Ok(expanded)
}

/// The text of a `Fn::Sub` with values of its own is its first argument.
fn member_of(key: &str, member: &Value, bindings: &Bindings<'_>) -> anyhow::Result<Value> {
    match (key, member.as_array().map(Vec::as_slice)) {
        ("Fn::Sub", Some([Value::String(text), values])) => {
            Ok(json!([substitute(text, bindings), value(values, bindings)?]))
        }
        _ => value(member, bindings),
    }
}

fn iterate(loop_: &Value, bindings: &Bindings<'_>) -> anyhow::Result<Map<String, Value>> {
    let parts = loop_.as_array().map(Vec::as_slice);
    let Some(
        [
            Value::String(identifier),
            Value::Array(items),
            Value::Object(fragment),
        ],
    ) = parts
    else {
        bail!("a loop has an identifier, a list and a fragment");
    };
    let mut produced = Map::new();
    for item in items {
        let item = item.as_str().context("an item is no text")?;
        let mut bindings = bindings.clone();
        bindings.push((identifier, item));
        for (key, member) in members(fragment, &bindings)? {
            let name = substitute(&key, &bindings);
            if produced.insert(name.clone(), member).is_some() {
                bail!("{name} is made twice");
            }
        }
    }
    Ok(produced)
}

fn substitute(text: &str, bindings: &Bindings<'_>) -> String {
    bindings.iter().fold(text.to_owned(), |text, (identifier, item)| {
        text.replace(&format!("${{{identifier}}}"), item)
    })
}
