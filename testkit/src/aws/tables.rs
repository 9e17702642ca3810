//! The template's tables in the embedded DynamoDB.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, Projection, ProjectionType,
    StreamSpecification, StreamViewType, TableDescription, TimeToLiveSpecification,
};

use crate::template::{Index, KeyAttribute, Table};

pub(super) async fn create(client: &Client, table: &Table) -> anyhow::Result<()> {
    let name = &table.name;
    let mut request = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema(&table.key)?));
    for (attribute, kind) in &table.attribute_types {
        let definition = AttributeDefinition::builder().attribute_name(attribute);
        request = request.attribute_definitions(definition.attribute_type(kind.as_str().into()).build()?);
    }
    for index in &table.indexes {
        request = request.global_secondary_indexes(global_index(index)?);
    }
    if let Some(view) = &table.stream_view {
        let stream = StreamSpecification::builder().stream_enabled(true);
        request = request.stream_specification(
            stream
                .stream_view_type(StreamViewType::from(view.as_str()))
                .build()?,
        );
    }
    match request.send().await.map_err(aws_sdk_dynamodb::Error::from) {
        Ok(_) => {}
        Err(aws_sdk_dynamodb::Error::ResourceInUseException(_)) => {
            let existing = client.describe_table().table_name(name).send().await?.table;
            return check(
                table,
                &existing.with_context(|| format!("no description of the table {name}"))?,
            );
        }
        Err(error) => return Err(error).with_context(|| format!("the table {name} was not created")),
    }
    if let Some(attribute) = &table.ttl_attribute {
        let ttl = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name(attribute)
            .build()?;
        client
            .update_time_to_live()
            .table_name(name)
            .time_to_live_specification(ttl)
            .send()
            .await
            .with_context(|| format!("items of the table {name} do not expire"))?;
    }
    Ok(())
}

fn key_schema(key: &[KeyAttribute]) -> anyhow::Result<Vec<KeySchemaElement>> {
    let elements = key.iter().map(|attribute| {
        KeySchemaElement::builder()
            .attribute_name(&attribute.name)
            .key_type(attribute.key_type.as_str().into())
            .build()
    });
    Ok(elements.collect::<Result<_, _>>()?)
}

fn global_index(index: &Index) -> anyhow::Result<GlobalSecondaryIndex> {
    let mut projection = Projection::builder()
        .projection_type(ProjectionType::from(index.projection.projection_type.as_str()));
    for attribute in &index.projection.non_key_attributes {
        projection = projection.non_key_attributes(attribute);
    }
    Ok(GlobalSecondaryIndex::builder()
        .index_name(&index.name)
        .set_key_schema(Some(key_schema(&index.key)?))
        .projection(projection.build())
        .build()?)
}

/// A table of an older template must not be taken for the present one.
fn check(table: &Table, existing: &TableDescription) -> anyhow::Result<()> {
    let names: BTreeSet<&str> = existing
        .global_secondary_indexes()
        .iter()
        .filter_map(|index| index.index_name())
        .collect();
    let wanted: BTreeSet<&str> = table.indexes.iter().map(|index| index.name.as_str()).collect();
    if existing.key_schema() != key_schema(&table.key)? || names != wanted {
        bail!(
            "the table {} exists with other keys or indexes than the template's; start with another data directory",
            table.name
        );
    }
    Ok(())
}
