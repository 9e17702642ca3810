//! A conditional update of one item, put together attribute by attribute.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{self, AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem};

use super::{Item, StoreError, number};

/// What is to be changed in one item, and on which conditions.
///
/// Every attribute is written by a placeholder, so none collides with DynamoDB's reserved words. Conditions name
/// attributes as `#name`, and values as `:name`: those that are set, and those of [`Update::value`].
#[derive(Clone, Default)]
pub(crate) struct Update {
    key: Item,
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    delete: Vec<String>,
    conditions: Vec<String>,
    values: Item,
}

impl Update {
    /// An update of the item with this key that changes nothing yet.
    pub(crate) fn new(key: Item) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    /// The key of the item.
    pub(crate) fn key(&self) -> &Item {
        &self.key
    }

    /// Sets an attribute.
    pub(crate) fn set(mut self, name: &str, value: AttributeValue) -> Self {
        self.set.push(format!("#{name} = :{name}"));
        self.value(name, value)
    }

    /// Sets an attribute, if it is not there.
    pub(crate) fn set_once(mut self, name: &str, value: AttributeValue) -> Self {
        self.set
            .push(format!("#{name} = if_not_exists(#{name}, :{name})"));
        self.value(name, value)
    }

    /// Sets an attribute, or removes it.
    pub(crate) fn set_or_remove(self, name: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self.remove(&[name]),
        }
    }

    /// Removes attributes.
    pub(crate) fn remove(mut self, names: &[&str]) -> Self {
        self.remove.extend(names.iter().map(|name| format!("#{name}")));
        self
    }

    /// Makes a number greater. An item without it is an error.
    pub(crate) fn increase(mut self, name: &str, by: AttributeValue) -> Self {
        self.set.push(format!("#{name} = #{name} + :{name}"));
        self.value(name, by)
    }

    /// Adds members to a set.
    pub(crate) fn add(mut self, name: &str, members: Vec<String>) -> Self {
        self.add.push(format!("#{name} :{name}"));
        self.value(name, AttributeValue::Ss(members))
    }

    /// Takes members out of a set.
    pub(crate) fn take_out(mut self, name: &str, members: Vec<String>) -> Self {
        self.delete.push(format!("#{name} :{name}"));
        self.value(name, AttributeValue::Ss(members))
    }

    /// Only if this holds, and every other condition.
    pub(crate) fn when(mut self, condition: &str) -> Self {
        self.conditions.push(format!("({condition})"));
        self
    }

    /// A value that a condition names.
    pub(crate) fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(format!(":{name}"), value);
        self
    }

    /// The optimistic lock: writes `version` over the version before it, or over none if it is the first.
    pub(crate) fn version(self, version: u64) -> Self {
        let update = self.set("version", number(version));
        if version <= 1 {
            update.when("attribute_not_exists(#version)")
        } else {
            update.value("read", number(version - 1)).when("#version = :read")
        }
    }

    /// As the SDK takes it. A refusal brings the item as it stands.
    pub(crate) fn build(self, table: &str) -> Result<types::Update, StoreError> {
        let clauses = [
            ("SET", self.set),
            ("REMOVE", self.remove),
            ("ADD", self.add),
            ("DELETE", self.delete),
        ];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        let expression: Vec<String> = clauses
            .map(|(clause, parts)| format!("{clause} {}", parts.join(", ")))
            .collect();
        let expression = expression.join(" ");
        let condition = self.conditions.join(" AND ");
        let names = names(&format!("{expression} {condition}"));
        types::Update::builder()
            .table_name(table)
            .set_key(Some(self.key))
            .update_expression(expression)
            .set_condition_expression(Some(condition).filter(|condition| !condition.is_empty()))
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(Some(self.values).filter(|values| !values.is_empty()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| StoreError::new("UpdateItem", error))
    }

    /// As a part of a transaction.
    pub(crate) fn in_transaction(self, table: &str) -> Result<TransactWriteItem, StoreError> {
        let mut update = self.build(table)?;
        update.return_values_on_condition_check_failure = None;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// The attributes that an expression names as `#name`, as the SDK takes them.
pub(super) fn names(expression: &str) -> Option<HashMap<String, String>> {
    let names = expression.split('#').skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = end.map_or(rest, |end| rest.get(..end).unwrap_or_default());
        (format!("#{name}"), name.to_owned())
    });
    Some(names.collect()).filter(|names: &HashMap<_, _>| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::string;

    #[test]
    fn an_update_names_exactly_what_it_uses() {
        let update = Update::new(Item::from([("id".to_owned(), string("1"))]))
            .set("status", string("done"))
            .set_or_remove("due", None)
            .add("contacts", vec!["a".to_owned()])
            .version(3)
            .when("attribute_exists(#facts)")
            .build("table")
            .unwrap();
        assert_eq!(
            update.update_expression,
            "SET #status = :status, #version = :version REMOVE #due ADD #contacts :contacts"
        );
        let condition = update.condition_expression.unwrap();
        assert_eq!(condition, "(#version = :read) AND (attribute_exists(#facts))");
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.join(" ")
        };
        let names = update.expression_attribute_names.unwrap().into_values();
        assert_eq!(sorted(names.collect()), "contacts due facts status version");
        let values = update.expression_attribute_values.unwrap().into_keys();
        assert_eq!(sorted(values.collect()), ":contacts :read :status :version");
    }
}
