//! One table: the calls that more than one job makes, and what their answers mean.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{self, ConditionCheck, Put, ReturnValue, TransactWriteItem};
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::rounds::Rounds;
use super::update::{Update, names};
use super::{Item, StoreError, string};
use crate::clock::Clock;

/// Why a write or a transaction ends that met one transaction after the other.
pub(crate) const CONFLICT: &str = "other transactions keep getting in the way";

/// A table of the stack.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) clock: Clock,
}

/// What became of an update.
pub(crate) enum Updated {
    /// It is made. With the item before it, if that was asked for and there was one.
    Made(Item),
    /// Its conditions do not hold. With the item as it stands; empty if there is none.
    Refused(Item),
    /// A transaction is under way at the item.
    Conflict,
}

impl Table {
    pub(crate) fn new(client: Client, name: String, clock: Clock) -> Self {
        Self { client, name, clock }
    }

    /// Another table, reached in the same way.
    pub(crate) fn beside(&self, name: String) -> Self {
        Self { name, ..self.clone() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The item, read consistently.
    pub(crate) async fn get(&self, key: Item) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(&self.name);
        let answer = request.set_key(Some(key)).consistent_read(true).send().await;
        let answer = answer.map_err(|error| StoreError::sdk("GetItem", &error))?;
        Ok(answer.item)
    }

    /// A put as a part of a transaction, on a condition that names attributes as `#name`; without values = always.
    pub(crate) fn put(
        &self,
        item: Item,
        condition: Option<(&str, Item)>,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut put = Put::builder().table_name(&self.name).set_item(Some(item));
        if let Some((condition, values)) = condition {
            put = put
                .condition_expression(condition)
                .set_expression_attribute_names(names(condition))
                .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()));
        }
        let put = put.build().map_err(|error| StoreError::new("PutItem", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// A condition as a part of a transaction; it names attributes as `#name`.
    pub(crate) fn check(
        &self,
        key: Item,
        condition: &str,
        values: Item,
    ) -> Result<TransactWriteItem, StoreError> {
        let check = ConditionCheck::builder()
            .table_name(&self.name)
            .set_key(Some(key))
            .condition_expression(condition)
            .set_expression_attribute_names(names(condition))
            .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()))
            .build()
            .map_err(|error| StoreError::new("ConditionCheck", error))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    /// Deletes an item if a condition holds, which names attributes as `#name` and no values. It is fine if there is
    /// none.
    pub(crate) async fn delete_if(&self, key: Item, condition: &str) -> Result<(), StoreError> {
        let answer = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .condition_expression(condition)
            .set_expression_attribute_names(names(condition))
            .send()
            .await;
        let is_refused = DeleteItemError::is_conditional_check_failed_exception;
        match answer {
            Err(error) if !error.as_service_error().is_some_and(is_refused) => {
                Err(StoreError::sdk("DeleteItem", &error))
            }
            _ => Ok(()),
        }
    }

    /// A query of this table.
    pub(crate) fn query(&self) -> QueryFluentBuilder {
        self.client.query().table_name(&self.name)
    }

    /// A query of what lies under one value of the partition key, of the table or of an index.
    pub(crate) fn query_of(&self, key: &str, value: impl Into<String>) -> QueryFluentBuilder {
        self.query()
            .key_condition_expression(format!("{key} = :{key}"))
            .expression_attribute_values(format!(":{key}"), string(value))
    }

    /// Makes an update. `false` if its conditions do not hold.
    pub(crate) async fn update(&self, update: Update) -> Result<bool, StoreError> {
        match self.update_returning(ReturnValue::None, update).await? {
            Updated::Made(_) => Ok(true),
            Updated::Refused(_) => Ok(false),
            Updated::Conflict => Err(StoreError::conflict(CONFLICT)),
        }
    }

    /// Makes an update, again while a transaction is at the item: the SDK does not.
    pub(crate) async fn update_returning(
        &self,
        returned: ReturnValue,
        update: Update,
    ) -> Result<Updated, StoreError> {
        let update = update.build(&self.name)?;
        let mut rounds = Rounds::new(CONFLICT);
        loop {
            match send_update(&self.client, returned.clone(), update.clone()).await? {
                Updated::Conflict if rounds.next().await.is_ok() => {}
                updated => return Ok(updated),
            }
        }
    }
}

/// All that a query finds, page after page.
pub(crate) async fn find_all(query: QueryFluentBuilder) -> Result<Vec<Item>, StoreError> {
    let items: Result<_, _> = query.into_paginator().items().send().collect().await;
    items.map_err(|error| StoreError::sdk("Query", &error))
}

/// Sends an update by itself. Boxed: most events come to this alone, and a large future costs time wherever it is moved.
pub(crate) fn send_update(
    client: &Client,
    returned: ReturnValue,
    update: types::Update,
) -> BoxFuture<'static, Result<Updated, StoreError>> {
    let request = client
        .update_item()
        .table_name(update.table_name)
        .set_key(Some(update.key))
        .update_expression(update.update_expression)
        .set_condition_expression(update.condition_expression)
        .set_expression_attribute_names(update.expression_attribute_names)
        .set_expression_attribute_values(update.expression_attribute_values)
        .set_return_values_on_condition_check_failure(update.return_values_on_condition_check_failure)
        // Without it DynamoDB returns nothing, too.
        .set_return_values(Some(returned).filter(|returned| *returned != ReturnValue::None));
    Box::pin(async { updated(request.send().await) })
}

fn updated(answer: Result<UpdateItemOutput, SdkError<UpdateItemError>>) -> Result<Updated, StoreError> {
    let error = match answer {
        Ok(answer) => return Ok(Updated::Made(answer.attributes.unwrap_or_default())),
        Err(error) => error,
    };
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
            Ok(Updated::Refused(refused.item().cloned().unwrap_or_default()))
        }
        Some(UpdateItemError::TransactionConflictException(_)) => Ok(Updated::Conflict),
        _ => Err(StoreError::sdk("UpdateItem", &error)),
    }
}
