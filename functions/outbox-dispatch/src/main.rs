//! Starts the function.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use outbox_dispatch::{App, Settings};
use serde_json::Value;
use shared::clients::aws::{self, Patience};
use shared::{clock::Clock, config::Env, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init("outbox-dispatch");
    let settings = Env::process().finish(Settings::read)?;
    let config = aws::of_function(Patience::Background).await;
    let (secrets, dynamodb) = (
        aws_sdk_secretsmanager::Client::new(&config),
        aws_sdk_dynamodb::Client::new(&config),
    );
    let queue = settings.has_queue().then(|| aws_sdk_sqs::Client::new(&config));
    let app = &App::new(settings, &secrets, &dynamodb, queue, Clock::system());
    run(service_fn(async |event: LambdaEvent<Value>| {
        // Boxed: the workers' futures nest deeper than the compiler lays out at once.
        telemetry::measured(Box::pin(app.handle(event))).await
    }))
    .await
}
