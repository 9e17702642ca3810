//! What a role may do.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::intrinsic::Resolver;

/// An IAM action on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Power {
    /// Such as `dynamodb:PutItem`.
    pub action: String,
    /// An ARN without what all of them begin with: `table/local-OutboxTable/index/due`, `secret:local/meta`.
    pub resource: String,
}

impl Power {
    /// `resource` is an ARN or the end of one; a secret may go by its name.
    #[must_use]
    pub fn new(action: &str, resource: &str) -> Self {
        // arn:partition:service:region:account:resource
        let resource = match resource.strip_prefix("arn:") {
            Some(arn) => arn.splitn(5, ':').last().unwrap_or(arn),
            None => resource,
        };
        let by_name = action.starts_with("secretsmanager:") && !resource.starts_with("secret:");
        Self {
            action: action.to_owned(),
            resource: if by_name {
                format!("secret:{resource}")
            } else {
                resource.to_owned()
            },
        }
    }

    /// Whether whoever has this power may use `other`: `*` at the end of a resource stands for anything.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let resource = match self.resource.strip_suffix('*') {
            Some(prefix) => other.resource.starts_with(prefix),
            None => other.resource == self.resource,
        };
        self.action == other.action && resource
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.action, self.resource)
    }
}

/// The inline policies of the role that `Role: !GetAtt <role>.Arn` names. Managed policies are not followed.
pub(super) fn of_role(
    resolver: &Resolver<'_>,
    root: &Value,
    role: Option<&Value>,
) -> anyhow::Result<BTreeSet<Power>> {
    let Some(role) = role
        .and_then(|role| role.pointer("/Fn::GetAtt/0"))
        .and_then(Value::as_str)
    else {
        return Ok(BTreeSet::new());
    };
    let policies = root.pointer(&format!("/Resources/{role}/Properties/Policies"));
    let policies = resolver.resolve(policies.with_context(|| format!("the role {role} has no policies"))?)?;
    let mut powers = BTreeSet::new();
    for policy in list(&policies) {
        let statements = policy
            .pointer("/PolicyDocument/Statement")
            .unwrap_or(&Value::Null);
        for statement in list(statements) {
            if statement.get("Effect").and_then(Value::as_str) != Some("Allow") {
                bail!("the role {role} has a statement that is not Allow");
            }
            for action in list(statement.get("Action").unwrap_or(&Value::Null)) {
                for resource in list(statement.get("Resource").unwrap_or(&Value::Null)) {
                    let action = action.as_str().context("an action is no text")?;
                    powers.insert(Power::new(
                        action,
                        resource.as_str().context("a resource is no text")?,
                    ));
                }
            }
        }
    }
    Ok(powers)
}

/// IAM takes one or a list of them.
fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(members) => members,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_covers_what_begins_alike() {
        let granted = Power::new(
            "secretsmanager:PutSecretValue",
            "arn:aws:secretsmanager:eu-west-1:1:secret:bridge/fbe/*",
        );
        let used = |name: &str| Power::new("secretsmanager:PutSecretValue", name);
        assert!(granted.covers(&used("bridge/fbe/shop")));
        assert!(!granted.covers(&used("bridge/meta")));
        assert!(!granted.covers(&Power::new("secretsmanager:GetSecretValue", "bridge/fbe/shop")));
        let table = Power::new("dynamodb:Query", "arn:aws:dynamodb:eu-west-1:1:table/outbox");
        assert!(!table.covers(&Power::new("dynamodb:Query", "table/outbox/index/due")));
    }
}
