//! CloudFormation's intrinsic functions, as far as a template of this kind needs them to be read locally.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::Deployment;

const ACCOUNT: &str = "000000000000";

/// Where every stack is deployed here.
pub const REGION: &str = "us-east-1";

/// Resolves values of one template under one set of parameters.
pub(super) struct Resolver<'a> {
    root: &'a Value,
    deployment: &'a Deployment,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(root: &'a Value, deployment: &'a Deployment) -> Self {
        Self { root, deployment }
    }

    /// The value with every function replaced by its result. Members that come out as `AWS::NoValue` are
    /// left out, as CloudFormation does.
    pub(super) fn resolve(&self, value: &Value) -> anyhow::Result<Value> {
        self.resolve_with(value, &Map::new())
            .map(Option::unwrap_or_default)
    }

    /// Whether a named condition of the template holds.
    pub(super) fn condition(&self, name: &str) -> anyhow::Result<bool> {
        let condition = self.section("Conditions", name);
        self.truth(condition.with_context(|| format!("there is no condition {name}"))?)
    }

    /// The name that a resource gets when it is deployed.
    pub(super) fn physical_name(&self, logical_id: &str, property: &str) -> anyhow::Result<String> {
        let path = format!("/Resources/{logical_id}/Properties/{property}");
        match self.root.pointer(&path) {
            Some(name) => match self.resolve(name)? {
                Value::String(name) => Ok(name),
                other => bail!("{logical_id}: {property} is {other}, not a string"),
            },
            None => Ok(format!("{}-{logical_id}", self.deployment.stack_name)),
        }
    }

    fn section(&self, section: &str, name: &str) -> Option<&'a Value> {
        self.root.get(section)?.get(name)
    }

    // `None` is `AWS::NoValue`.
    fn resolve_with(&self, value: &Value, local: &Map<String, Value>) -> anyhow::Result<Option<Value>> {
        Ok(Some(match value {
            Value::Array(members) => {
                let mut resolved = Vec::new();
                for member in members {
                    resolved.extend(self.resolve_with(member, local)?);
                }
                Value::Array(resolved)
            }
            Value::Object(object) => {
                if let Some((name, argument)) = function(object) {
                    return self.call(name, argument, local);
                }
                let mut resolved = Map::new();
                for (key, member) in object {
                    if let Some(member) = self.resolve_with(member, local)? {
                        resolved.insert(key.clone(), member);
                    }
                }
                Value::Object(resolved)
            }
            plain => plain.clone(),
        }))
    }

    fn call(
        &self,
        name: &str,
        argument: &Value,
        local: &Map<String, Value>,
    ) -> anyhow::Result<Option<Value>> {
        let arguments = argument.as_array().map_or(&[][..], Vec::as_slice);
        Ok(Some(match (name, arguments) {
            ("Ref", _) => {
                let name = argument.as_str().context("Ref takes a name")?;
                if name == "AWS::NoValue" {
                    return Ok(None);
                }
                return self.reference(name, local);
            }
            ("Fn::GetAtt", [resource, attribute]) => {
                json!(self.attribute(text(resource)?, text(attribute)?)?)
            }
            ("Fn::Sub", []) => json!(self.substitute(text(argument)?, local)?),
            ("Fn::Sub", [pattern, values]) => {
                let values = self.resolve(values)?;
                json!(self.substitute(text(pattern)?, values.as_object().unwrap_or(local))?)
            }
            ("Fn::If", [condition, then, otherwise]) => {
                let chosen = if self.condition(text(condition)?)? {
                    then
                } else {
                    otherwise
                };
                return self.resolve_with(chosen, local);
            }
            ("Fn::Join", [separator, parts]) => {
                let parts = self.resolve(parts)?;
                let parts: Vec<String> = parts
                    .as_array()
                    .context("Fn::Join takes a list")?
                    .iter()
                    .map(plain)
                    .collect();
                json!(parts.join(text(separator)?))
            }
            ("Fn::Select", [index, members]) => {
                let index = plain(index).parse::<usize>()?;
                self.resolve(members)?
                    .get(index)
                    .cloned()
                    .context("Fn::Select is out of range")?
            }
            ("Fn::Split", [separator, whole]) => {
                json!(
                    plain(&self.resolve(whole)?)
                        .split(text(separator)?)
                        .collect::<Vec<_>>()
                )
            }
            ("Fn::FindInMap", [map, first, second, default @ ..]) => {
                let keys = [map, first, second].map(|key| self.resolve(key).map(|key| plain(&key)));
                let [map, first, second] = keys;
                let (map, first, second) = (map?, first?, second?);
                let found = self
                    .section("Mappings", &map)
                    .and_then(|map| map.get(&first)?.get(&second))
                    .or_else(|| default.first()?.get("DefaultValue"));
                self.resolve(found.with_context(|| format!("{map} maps nothing to {first}, {second}"))?)?
            }
            ("Fn::Equals" | "Fn::Not" | "Fn::And" | "Fn::Or" | "Condition", _) => {
                json!(self.truth(&json!({ name: argument }))?)
            }
            _ => bail!("{name} is not known here"),
        }))
    }

    fn truth(&self, condition: &Value) -> anyhow::Result<bool> {
        let (name, argument) = condition
            .as_object()
            .and_then(function)
            .context("a condition is one function")?;
        let arguments = argument.as_array().map_or(&[][..], Vec::as_slice);
        Ok(match (name, arguments) {
            ("Condition", _) => self.condition(text(argument)?)?,
            ("Fn::Equals", [left, right]) => plain(&self.resolve(left)?) == plain(&self.resolve(right)?),
            ("Fn::Not", [one]) => !self.truth(one)?,
            ("Fn::And", all) => all
                .iter()
                .try_fold(true, |met, one| Ok::<_, anyhow::Error>(met & self.truth(one)?))?,
            ("Fn::Or", all) => all
                .iter()
                .try_fold(false, |met, one| Ok::<_, anyhow::Error>(met | self.truth(one)?))?,
            _ => bail!("{name} is no condition"),
        })
    }

    // `None` is a parameter that has no default and was not given. Deployment would fail; here whoever needs
    // the value says so.
    fn reference(&self, name: &str, local: &Map<String, Value>) -> anyhow::Result<Option<Value>> {
        if let Some(value) = local.get(name) {
            return Ok(Some(value.clone()));
        }
        let pseudo = match name {
            "AWS::StackName" => Some(self.deployment.stack_name.as_str()),
            "AWS::Region" => Some(REGION),
            "AWS::AccountId" => Some(ACCOUNT),
            "AWS::Partition" => Some("aws"),
            "AWS::URLSuffix" => Some("amazonaws.com"),
            "AWS::StackId" => Some("arn:aws:cloudformation:us-east-1:000000000000:stack/local/local"),
            _ => None,
        };
        if let Some(value) = pseudo {
            return Ok(Some(json!(value)));
        }
        if let Some(parameter) = self.section("Parameters", name) {
            let given = self.deployment.parameters.get(name).map(|value| json!(value));
            return Ok(given.or_else(|| parameter.get("Default").cloned()));
        }
        let resource = self.section("Resources", name);
        let kind = resource
            .and_then(|resource| resource.get("Type"))
            .and_then(Value::as_str);
        Ok(Some(json!(match kind {
            Some("AWS::DynamoDB::Table") => self.physical_name(name, "TableName")?,
            // On AWS this is the ARN; a client takes either, and the name also works before it exists.
            Some("AWS::SecretsManager::Secret") => self.physical_name(name, "Name")?,
            Some(_) => format!("{}-{name}", self.deployment.stack_name),
            // SAM makes resources of its own, such as `ServerlessHttpApi`.
            None if name.starts_with("Serverless") => name.to_owned(),
            None => bail!("{name} is neither a parameter nor a resource"),
        })))
    }

    fn attribute(&self, resource: &str, attribute: &str) -> anyhow::Result<String> {
        let kind = self
            .section("Resources", resource)
            .and_then(|resource| resource.get("Type"));
        Ok(match (kind.and_then(Value::as_str), attribute) {
            (Some("AWS::DynamoDB::Table"), "Arn" | "StreamArn") => {
                let name = self.physical_name(resource, "TableName")?;
                let stream = if attribute == "StreamArn" {
                    "/stream/local"
                } else {
                    ""
                };
                format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}{stream}")
            }
            (Some("AWS::SQS::Queue"), "QueueName") => self.physical_name(resource, "QueueName")?,
            (Some("AWS::SQS::Queue"), "Arn") => {
                let name = self.physical_name(resource, "QueueName")?;
                format!("arn:aws:sqs:{}:{ACCOUNT}:{name}", crate::template::REGION)
            }
            _ => format!("{}-{resource}-{attribute}", self.deployment.stack_name),
        })
    }

    fn substitute(&self, pattern: &str, local: &Map<String, Value>) -> anyhow::Result<String> {
        let mut result = String::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once("${") {
            result.push_str(before);
            let (name, tail) = after.split_once('}').context("Fn::Sub has an open ${")?;
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str("${");
                result.push_str(literal);
                result.push('}');
            } else if let Some((resource, attribute)) = name.split_once('.') {
                result.push_str(&self.attribute(resource, attribute)?);
            } else if let Some(value) = self.reference(name.trim(), local)? {
                result.push_str(&plain(&value));
            }
            rest = tail;
        }
        result.push_str(rest);
        Ok(result)
    }
}

/// Values of a string map, as strings: an environment.
pub(super) fn strings(object: &Value) -> BTreeMap<String, String> {
    let members = object.as_object().into_iter().flatten();
    members
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect()
}

fn function(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut members = object.iter();
    match (members.next(), members.next()) {
        (Some((name, argument)), None)
            if name.starts_with("Fn::") || name == "Ref" || (name == "Condition" && argument.is_string()) =>
        {
            Some((name, argument))
        }
        _ => None,
    }
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is not a string"))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
