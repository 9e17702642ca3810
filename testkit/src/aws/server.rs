//! The endpoint: tells the services apart and carries faults out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ledger::{Fault, Ledger, Service};
use super::power;
use super::queues::Queues;
use super::secrets::SecretsManager;
use super::units::Units;

/// DynamoDB's own limit of a request.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

struct Endpoint {
    dynamodb: SocketAddr,
    client: Client<HttpConnector, Body>,
    secrets: SecretsManager,
    queues: Queues,
    ledger: Arc<Ledger>,
}

pub(super) async fn serve(
    listener: TcpListener,
    dynamodb: SocketAddr,
    secrets: SecretsManager,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let endpoint = Endpoint {
        dynamodb,
        client: Client::builder(TokioExecutor::new()).build(connector),
        secrets,
        queues: Queues::new(),
        ledger,
    };
    let router = Router::new().fallback(answer).with_state(Arc::new(endpoint));
    let listener = listener.tap_io(|socket| {
        // Without it small answers can wait 40 ms for an acknowledgement.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the embedded AWS stopped");
    }
}

async fn answer(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SerializationException",
            "the request is too large",
        );
    };
    let target = head
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok());
    let Some((service, operation)) = target.and_then(parse_target) else {
        return refusal(
            StatusCode::BAD_REQUEST,
            "UnknownOperationException",
            "this endpoint serves DynamoDB, DynamoDB Streams, Secrets Manager and SQS, by X-Amz-Target",
        );
    };
    let operation = operation.to_owned();

    let request = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(caller) = access_key_id(&head.headers) {
        let powers = power::needed(service, &operation, &request);
        endpoint.ledger.note_powers(caller, powers);
    }
    if service == Service::DynamoDb {
        endpoint.ledger.note_units(Units::of(&operation, &request));
    }
    let (hook, fault) = endpoint.ledger.enter(service, &operation);
    if let Some(hook) = hook {
        hook(request).await;
    }
    let response = match fault {
        None => endpoint.perform(service, &operation, head.headers, body).await,
        Some(Fault::ServiceUnavailable) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "injected fault",
        ),
        Some(Fault::Throttle) => throttled(service),
        Some(Fault::Conflict) => conflict(&operation, &body),
        Some(Fault::Unprocessed) => unprocessed(&operation, &body),
        Some(Fault::Timeout) => std::future::pending().await,
        Some(Fault::AnswerLost) => {
            let response = endpoint.perform(service, &operation, head.headers, body).await;
            let cut = stream::iter([Err::<Bytes, _>(std::io::Error::other("injected fault"))]);
            (response.status(), Body::from_stream(cut)).into_response()
        }
    };
    if service == Service::DynamoDb {
        endpoint.ledger.note_dynamodb_time(began.elapsed());
    }
    response
}

/// Of `AWS4-HMAC-SHA256 Credential=<id>/<date>/…`. What signs nothing has none.
fn access_key_id(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (_, credential) = authorization.split_once("Credential=")?;
    Some(credential.split_once('/')?.0).filter(|id| *id != "embedded")
}

fn parse_target(target: &str) -> Option<(Service, &str)> {
    let (service, operation) = target.split_once('.')?;
    let service = match service {
        "DynamoDB_20120810" => Service::DynamoDb,
        "DynamoDBStreams_20120810" => Service::Streams,
        "secretsmanager" => Service::SecretsManager,
        "AmazonSQS" => Service::Sqs,
        _ => return None,
    };
    Some((service, operation))
}

impl Endpoint {
    async fn perform(&self, service: Service, operation: &str, headers: HeaderMap, body: Bytes) -> Response {
        match service {
            Service::Sqs => {
                let answer = self.queues.answer(headers, body).await;
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, answer.headers, answer.body).into_response()
            }
            Service::SecretsManager => {
                let answer = self.secrets.answer(operation, headers, body).await;
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, answer.headers, answer.body).into_response()
            }
            Service::DynamoDb | Service::Streams => {
                let forwarded = self.forward(headers, body.clone()).await;
                match forwarded {
                    Ok(response) if operation == "UpdateItem" => without_invented_old_item(&body, response),
                    Ok(response) => response,
                    Err(error) => refusal(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "InternalServerError",
                        &format!("the embedded DynamoDB is gone: {error}"),
                    ),
                }
            }
        }
    }

    async fn forward(&self, mut headers: HeaderMap, body: Bytes) -> anyhow::Result<Response> {
        for name in [
            header::HOST,
            header::CONTENT_LENGTH,
            header::CONNECTION,
            header::TRANSFER_ENCODING,
        ] {
            headers.remove(name);
        }
        let mut request = http::Request::post(format!("http://{}/", self.dynamodb)).body(Body::from(body))?;
        request.headers_mut().extend(headers);
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await?;
        Ok((head.status, head.headers, body).into_response())
    }
}

/// `UpdateItem` with `ALL_OLD` gives nothing back when it made the item; dynoxide gives the item's key.
fn without_invented_old_item(request: &[u8], response: Response) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(request) else {
        return response;
    };
    if response.status() != StatusCode::OK || request.get("ReturnValues") != Some(&json!("ALL_OLD")) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Some(Ok(body)) = futures_util::FutureExt::now_or_never(to_bytes(body, usize::MAX)) else {
        return refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "the answer was cut off",
        );
    };
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if answer
        .get("Attributes")
        .is_none_or(|attributes| Some(attributes) != request.get("Key"))
    {
        return Response::from_parts(head, Body::from(body));
    }
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("Attributes");
    }
    head.headers.remove("x-amz-crc32");
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(answer.to_string()))
}

fn throttled(service: Service) -> Response {
    let kind = match service {
        Service::DynamoDb => "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        Service::Streams => "com.amazonaws.dynamodb.v20120810#LimitExceededException",
        Service::SecretsManager => "ThrottlingException",
        Service::Sqs => "RequestThrottled",
    };
    refusal(StatusCode::BAD_REQUEST, kind, "injected fault")
}

fn conflict(operation: &str, request: &[u8]) -> Response {
    if operation != "TransactWriteItems" {
        let kind = "com.amazonaws.dynamodb.v20120810#TransactionConflictException";
        return refusal(
            StatusCode::BAD_REQUEST,
            kind,
            "Transaction is ongoing for the item",
        );
    }
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let items = request
        .get("TransactItems")
        .and_then(Value::as_array)
        .map_or(1, Vec::len);
    let reasons: Vec<Value> = (0..items)
        .map(|index| match index {
            0 => json!({"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}),
            _ => json!({"Code": "None"}),
        })
        .collect();
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
        "CancellationReasons": reasons,
    });
    json_response(StatusCode::BAD_REQUEST, &body)
}

fn unprocessed(operation: &str, request: &[u8]) -> Response {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let all = request.get("RequestItems").cloned().unwrap_or_default();
    let answer = match operation {
        "BatchGetItem" => json!({"Responses": {}, "UnprocessedKeys": all}),
        "BatchWriteItem" => json!({"UnprocessedItems": all}),
        _ => {
            return refusal(
                StatusCode::BAD_REQUEST,
                "ValidationException",
                "only a batch can be left unprocessed",
            );
        }
    };
    json_response(StatusCode::OK, &answer)
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> Response {
    json_response(status, &json!({"__type": kind, "message": message}))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let content_type = HeaderValue::from_static("application/x-amz-json-1.0");
    (status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response()
}
