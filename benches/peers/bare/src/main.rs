//! The least that a hand-written function does with a Messenger webhook: check the signature, and for each message one
//! `UpdateItem`, or a `PutItem` for a person who is not stored yet. It keeps no order, no consent, no link and no
//! outbox, and loses what it does not understand.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use hmac::{Hmac, KeyInit, Mac};
use lambda_http::{Body, Error, Request, Response, run, service_fn};
use serde::Deserialize;
use sha2::Sha256;

#[derive(Deserialize)]
struct Webhook {
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    messaging: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    sender: Party,
    recipient: Party,
    timestamp: i64,
    message: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Party {
    id: String,
}

#[derive(Deserialize)]
struct Secret {
    app_secret: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    let dynamodb = &Client::new(&config);
    let secret = secrets.get_secret_value().secret_id(std::env::var("META_SECRET_ID")?).send().await?;
    let secret: Secret = serde_json::from_str(secret.secret_string().unwrap_or_default())?;
    let key = &Hmac::<Sha256>::new_from_slice(secret.app_secret.as_bytes())?;
    let table = &std::env::var("CONTACTS_TABLE")?;
    run(service_fn(async |request: Request| {
        let status = handle(&request, key, dynamodb, table).await?;
        Ok::<_, Error>(Response::builder().status(status).body("EVENT_RECEIVED")?)
    }))
    .await
}

async fn handle(request: &Request, key: &Hmac<Sha256>, dynamodb: &Client, table: &str) -> Result<u16, Error> {
    let body = match request.body() {
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => return Ok(400),
    };
    let signature = request.headers().get("x-hub-signature-256");
    let signature = signature.and_then(|value| value.to_str().ok()?.strip_prefix("sha256="));
    let Some(Ok(signature)) = signature.map(hex::decode) else {
        return Ok(401);
    };
    if key.clone().chain_update(body).verify_slice(&signature).is_err() {
        return Ok(401);
    }
    let webhook: Webhook = serde_json::from_slice(body)?;
    for item in webhook.entry.into_iter().flat_map(|entry| entry.messaging) {
        if item.message.is_some() {
            store(&item, dynamodb, table).await?;
        }
    }
    Ok(200)
}

async fn store(item: &Item, dynamodb: &Client, table: &str) -> Result<(), Error> {
    let key = S(format!("bare#{}#{}", item.recipient.id, item.sender.id));
    let at = N(item.timestamp.to_string());
    let known = dynamodb
        .update_item()
        .table_name(table)
        .key("contact_key", key.clone())
        .update_expression("SET last_message_at = :at")
        .condition_expression("attribute_exists(contact_key)")
        .expression_attribute_values(":at", at.clone())
        .send()
        .await;
    match known.map_err(SdkError::into_service_error) {
        Ok(_) => Ok(()),
        Err(UpdateItemError::ConditionalCheckFailedException(_)) => {
            let put = dynamodb.put_item().table_name(table).item("contact_key", key);
            put.item("last_message_at", at).send().await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
